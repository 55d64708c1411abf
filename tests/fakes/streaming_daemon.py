"""A stand-in for a daemon's stream, for what a real one does rarely: it forgets, skips and repeats as it is told.

    with StreamingDaemon() as daemon:
        daemon.trade("p1")
        daemon.value("p1", 1000.0)

WebSocket `/ws/portfolio`, `/api/stream`, `/api/portfolio/summary`, events of portfolios, tickets, and the real client
module. May be used from any thread.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.loop_thread import LoopThread

MODULE = Path(__file__).parents[2] / "pricecache" / "api" / "static" / "stream.js"
AT = "2026-11-20T15:00:00Z"
Json = dict[str, Any]


@dataclass
class _Portfolio:
    value: float = 0.0
    events: list[Json] = field(default_factory=list)
    """All of them: seq is the place, from 1."""
    epoch: str = "e1"


class StreamingDaemon:
    """`tickets`: None lets everybody in, else those that are good. `heard`: what clients sent but pings."""

    def __init__(self, *portfolios: str) -> None:
        self.portfolios = {name: _Portfolio() for name in portfolios or ("p1",)}
        self.tickets: set[str] | None = None
        self.heard: list[Json] = []
        self.port = 0
        self._listeners: dict[asyncio.Queue[Json | int], set[str]] = {}
        self._thread = LoopThread("streaming-daemon")
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> StreamingDaemon:
        self._thread.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._runner is not None
        self.close(1001)
        self._thread.do(self._runner.cleanup())
        self._thread.stop()

    # what a test does

    def trade(self, name: str = "p1", *, told: bool = True) -> int:
        """A trade; the stream tells of it unless it is to be missed. Gives its number."""
        return self._thread.do(self._trade(name, told))

    def value(self, name: str, value: float) -> None:
        self._thread.do(self._value(name, value))

    def send(self, message: Json) -> None:
        """To every connection, as it is."""
        self._thread.do(self._send(message))

    def close(self, code: int) -> None:
        """Close every connection."""
        self._thread.do(self._send(code))

    # what it does

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/static/stream.js", self._module)
        app.router.add_get("/ws/portfolio", self._socket)
        app.router.add_get("/api/stream", self._events_stream)
        app.router.add_post("/api/stream/ticket", self._ticket)
        app.router.add_get("/api/portfolio/summary", self._summary)
        app.router.add_get("/api/portfolios/{id}/events", self._events)
        app.router.add_get("/api/portfolios/{id}/orders", self._orders)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def _trade(self, name: str, told: bool) -> int:
        portfolio = self.portfolios[name]
        seq = len(portfolio.events) + 1
        event = {"seq": seq, "type": "trade:executed", "symbol": "AAPL", "at": AT}
        portfolio.events.append(event)
        if told:
            await self._send(self._message("update", name, [event]))
        return seq

    async def _value(self, name: str, value: float) -> None:
        self.portfolios[name].value = value
        await self._send(self._message("update", name, self._values(name)))

    async def _send(self, message: Json | int) -> None:
        for queue, names in self._listeners.items():
            if isinstance(message, int) or message.get("portfolioId") in names | {None}:
                queue.put_nowait(message)

    def _message(self, kind: str, name: str, events: list[Json]) -> Json:
        portfolio = self.portfolios[name]
        seq = len(portfolio.events)
        return {"type": kind, "epoch": portfolio.epoch, "seq": seq, "portfolioId": name, "at": AT, "events": events}

    def _values(self, name: str) -> list[Json]:
        value = self.portfolios[name].value
        position = {"symbol": "AAPL", "market": "US", "value": value, "stale": False}
        return [{"type": "account:updated", "totalValue": value}, {"type": "position:updated", **position}]

    def _begin(self, asked: Json) -> list[Json]:
        """What a subscription is answered with: what was missed, then what is."""
        names = [asked["portfolioId"]] if asked.get("portfolioId") else list(self.portfolios)
        found = []
        for name in names:
            portfolio = self.portfolios[name]
            since = asked.get("since")
            resync = since is not None and (asked["epoch"] != portfolio.epoch or since > len(portfolio.events))
            found.append({"type": "subscribed", "portfolioId": name, "seq": len(portfolio.events)})
            if since is not None and not resync and portfolio.events[since:]:
                found.append(self._message("update", name, portfolio.events[since:]))
            found.append({**self._message("snapshot", name, self._values(name)), "resync": resync})
        return found

    def _is_let_in(self, request: web.Request) -> bool:
        return self.tickets is None or request.query.get("ticket") in self.tickets

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not self._is_let_in(request):
            return _refusal(401)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        queue: asyncio.Queue[Json | int] = asyncio.Queue()
        names = self._listeners.setdefault(queue, set())
        sender = asyncio.create_task(self._sending(queue, socket))
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self._answer(frame.json(), queue, names)
        finally:
            del self._listeners[queue]
            sender.cancel()
        return socket

    def _answer(self, asked: Json, queue: asyncio.Queue[Json | int], names: set[str]) -> None:
        if asked["type"] == "ping":
            queue.put_nowait({"type": "pong"})
            return
        self.heard.append(asked)
        for message in self._begin(asked):
            names.add(message["portfolioId"])
            queue.put_nowait(message)

    async def _sending(self, queue: asyncio.Queue[Json | int], socket: web.WebSocketResponse) -> None:
        while True:
            message = await queue.get()
            if isinstance(message, int):
                await socket.close(code=message)
            else:
                await socket.send_json(message)

    async def _events_stream(self, request: web.Request) -> web.StreamResponse:
        if not self._is_let_in(request):
            return _refusal(401)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[Json | int] = asyncio.Queue()
        since = dict(text.split(":") for text in request.query.getall("since", []))
        names = request.query.getall("portfolioId", list(self.portfolios))
        self._listeners[queue] = set(names)
        try:
            for name in names:
                asked: Json = {"portfolioId": name}
                if name in since:
                    asked |= {"since": int(since[name]), "epoch": request.query["epoch"]}
                for message in self._begin(asked):
                    queue.put_nowait(message)
            while not isinstance(said := await queue.get(), int):
                await response.write(f"data: {json.dumps(said)}\n\n".encode())
        finally:
            del self._listeners[queue]
        return response

    async def _ticket(self, request: web.Request) -> web.Response:
        if self.tickets is not None and request.headers.get("Authorization") != "Bearer good":
            return _refusal(401)
        ticket = "t1"
        if self.tickets is not None:
            self.tickets.add(ticket)
        return web.json_response({"ticket": ticket})

    async def _summary(self, request: web.Request) -> web.Response:
        if self.tickets is not None and request.headers.get("Authorization") != "Bearer good":
            return _refusal(401)
        found = []
        for name in request.query.getall("portfolioId", list(self.portfolios)):
            account, position = self._values(name)
            found.append({"portfolioId": name, "asOf": AT, **account, "positions": [position]})
        return web.json_response(found[0] if len(found) == 1 else {"portfolios": found, "total": {}})

    async def _events(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        portfolio = self.portfolios[name]
        since = int(request.query.get("since", len(portfolio.events)))
        resync = request.query.get("epoch", portfolio.epoch) != portfolio.epoch
        page = {"portfolioId": name, "epoch": portfolio.epoch, "seq": len(portfolio.events), "oldest": 1}
        events = [] if resync else portfolio.events[since:]
        return web.json_response({**page, "complete": True, "resync": resync, "events": events})

    async def _orders(self, _request: web.Request) -> web.Response:
        return web.json_response({"orders": [], "nextCursor": None})

    async def _page(self, _request: web.Request) -> web.Response:
        icon = '<link rel="icon" href="data:,">'
        return web.Response(text=f"<!doctype html><title>pages</title>{icon}", content_type="text/html")

    async def _module(self, _request: web.Request) -> web.Response:
        return web.Response(text=MODULE.read_text(), content_type="text/javascript")


def _refusal(status: int) -> web.Response:
    return web.json_response({"status": status, "code": "unauthorized", "detail": "No."}, status=status)
