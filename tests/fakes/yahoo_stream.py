"""A fake of Yahoo's price stream: a real WebSocket server on loopback that speaks its protocol.

    with FakeYahooStream() as stream:
        feed = YahooStream(clock, stream.url)
        ...
        stream.until(lambda: stream.subscribed == {"AAPL"})
        stream.push("AAPL", 187.15, at=clock.time())

Clients send `{"subscribe": [...]}` and `{"unsubscribe": [...]}`; the server sends `{"message": <base64>}` with a
`PricingData` in protobuf. `push` reaches the connections that subscribed to the symbol, `push_anyway` all of them.
`end` closes all connections in good order, `drop` cuts them off, `freeze` lets them stand and never answers again.
`refusing` answers every handshake with 503. All of it may be called from any thread.
"""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64encode
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.fakes.vendor_server import VendorServer

REGULAR = 1


def frame(symbol: str, price: float, at: float, **fields: Any) -> str:
    """One message as the server sends it; `at` in seconds since 1970 UTC, `fields` as `PricingData` names them."""
    from yfinance.pricing_pb2 import PricingData

    given = {"market_hours": REGULAR, "currency": "USD", "exchange": "NMS"} | fields
    pricing = PricingData(id=symbol, price=price, time=round(at * 1000), **given)
    return json.dumps({"message": b64encode(pricing.SerializeToString()).decode()})


class FakeYahooStream(VendorServer):
    """Start and stop it, or use it as a context manager."""

    def __init__(self) -> None:
        super().__init__("fake-yahoo-stream")
        self.refusing = False
        self.handshakes = 0
        """Connections asked for, refused ones too."""
        self.heard: list[dict[str, Any]] = []
        """Every message of every client."""
        self._connections: dict[ServerConnection, set[str]] = {}
        self._frozen: set[ServerConnection] = set()
        self._changed = threading.Condition()

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def subscribed(self) -> set[str]:
        """What is subscribed to, over all connections."""
        return set().union(*self._connections.values())

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Block until `condition`, which is looked at whenever a client comes, goes or says something."""
        with self._changed:
            assert self._changed.wait_for(condition, seconds), "the clients never did"

    def push(self, symbol: str, price: float, at: float, **fields: Any) -> None:
        self.send([frame(symbol, price, at, **fields)], to=symbol)

    def push_anyway(self, symbol: str, price: float, at: float, **fields: Any) -> None:
        self.send([frame(symbol, price, at, **fields)])

    def send(self, messages: Sequence[str | bytes], *, to: str | None = None) -> None:
        """Send as they are, garbage included, and return when they are on their way."""

        async def sending() -> None:
            for connection, symbols in list(self._connections.items()):
                if connection not in self._frozen and (to is None or to in symbols):
                    for message in messages:
                        await connection.send(message)

        self._do(sending())

    def flood(self, messages: Sequence[str], per_second: float, seconds: float) -> int:
        """Send `messages` in turn at that rate to all; gives how many went to each."""

        async def sending() -> int:
            began, sent = self._loop.time(), 0
            while (gone := self._loop.time() - began) < seconds:
                while sent < gone * per_second:
                    for connection in list(self._connections):
                        await connection.send(messages[sent % len(messages)])
                    sent += 1
                await asyncio.sleep(0.002)
            return sent

        return int(self._do(sending()))

    def end(self) -> None:
        """Close every connection in good order, as at the end of a day."""

        async def ending() -> None:
            for connection in list(self._connections):
                await connection.close()

        self._do(ending())

    def drop(self, symbol: str | None = None) -> None:
        """Cut off every connection, or those that subscribed to `symbol`."""

        async def dropping() -> None:
            for connection, symbols in list(self._connections.items()):
                if symbol is None or symbol in symbols:
                    connection.transport.abort()

        self._do(dropping())

    def freeze(self) -> None:
        """Half-open: the present connections stand, and nothing is sent or heard on them any more."""

        async def freezing() -> None:
            for connection in list(self._connections):
                connection.transport.pause_reading()
                self._frozen.add(connection)

        self._do(freezing())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        options: dict[str, Any] = {"process_request": self._admit, "close_timeout": 0.1, "compression": None}
        async with serve(self._talk, "127.0.0.1", 0, **options) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/?version=2"
            self._ready.set()
            await self._stopped.wait()
            for connection in list(self._connections):
                connection.transport.abort()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        with self._changed:
            self.handshakes += 1
            self._changed.notify_all()
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no\n") if self.refusing else None

    async def _talk(self, connection: ServerConnection) -> None:
        self._note(connection, {})
        try:
            async for message in connection:
                self._note(connection, json.loads(message))
        except ConnectionClosed:
            pass
        finally:
            with self._changed:
                self._connections.pop(connection, None)
                self._frozen.discard(connection)
                self._changed.notify_all()

    def _note(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        with self._changed:
            symbols = self._connections.get(connection, set()) | set(message.get("subscribe", ()))
            self._connections[connection] = symbols - set(message.get("unsubscribe", ()))
            if message:
                self.heard.append(message)
            self._changed.notify_all()
