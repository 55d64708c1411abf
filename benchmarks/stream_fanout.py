"""What it costs to tell thousands of connections the same thing: the hub beside a loop that writes one ready frame.

Three processes: a server on one processor, all its clients on the other, and this one, which tells both what to do by
lines of JSON. The hub's server is the daemon's own door, dispatcher and stream on a made-up portfolio.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.measure import Row, row
from benchmarks.processes import LOAD_CPU, SERVER_CPU, cpu_seconds, free_port

ROUNDS, FLOOD, AGES = 9, 40, 3
"""Turns; messages to each of 1,000 in a flood; and how often a turn takes the ages: these are of two kinds, as the
processor of the clients is awake already or not."""
FRAME_BYTES = 200
STREAMS = (
    (1000, 1000, 0.02), (1000, 10_000, 0.02), (1000, 1000, 0.1), (1000, 10_000, 0.1), (100, 1000, 0.1),
    (5000, 10_000, 0.02), (15_000, 10_000, 0.02),
)  # fmt: skip
"""Connections, events a second, and the narrowest window in seconds; the last ones are more than fits into it."""
_STAMP = re.compile(rb'"t":(\d+)')
_HANDSHAKE = (
    b"GET /ws/portfolio HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


# ---- the processes


@dataclass
class Process:
    """A process that does what it is told, one line of JSON at a time."""

    child: subprocess.Popen[bytes]

    def ask(self, what: str, **options: Any) -> Any:
        self.tell(what, **options)
        return self.answer()

    def tell(self, what: str, **options: Any) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps([what, options]).encode() + b"\n")
        self.child.stdin.flush()

    def answer(self) -> Any:
        assert self.child.stdout is not None
        return json.loads(self.child.stdout.readline())


@contextlib.contextmanager
def process(function: str, processor: int, *arguments: object) -> Iterator[Process]:
    """One that runs a coroutine function of this module, on one processor."""

    def prepare() -> None:
        os.sched_setaffinity(0, {processor})
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    call = f"import asyncio; from benchmarks import stream_fanout as s; asyncio.run(s.{function}(*{arguments!r}))"
    child = subprocess.Popen(
        [sys.executable, "-c", call], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=prepare
    )
    try:
        yield Process(child)
    finally:
        child.terminate()
        child.wait(30)


async def orders() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """What this process is told to do."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        what, options = json.loads(line)
        yield what, options


def reply(value: Any) -> None:
    print(json.dumps(value), flush=True)


def resident() -> int:
    """Bytes of memory this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- servers


async def serve_hub(port: int, window: float) -> None:
    """The daemon's stream without a database: every portfolio is the user's, and has an account and positions."""
    from pricecache import logs
    from pricecache.api.auth import Identity
    from pricecache.api.dispatch import Dispatcher
    from pricecache.api.kept import KeptResponses
    from pricecache.api.routes import ROUTES
    from pricecache.api.server import FrontDoor
    from pricecache.api.streams import Streams
    from pricecache.clock import SystemClock
    from pricecache.metrics import Metrics
    from pricecache.realtime.hub import Hub

    logs.configure("error", "json")
    clock = SystemClock()
    hub = Hub(_Feeds(), clock, window=window)
    identity = Identity(clock)
    streams = Streams(hub, identity, clock, most=100_000, most_of_user=100_000)
    services: Any = SimpleNamespace(
        identity=identity, kept=KeptResponses(1 << 20), clock=clock, metrics=Metrics("0"), streams=streams,
        portfolios=_Portfolios(),
    )  # fmt: skip
    door = FrontDoor("127.0.0.1", port)
    await door.start()
    door.open(Dispatcher([route for route in ROUTES if route.path == "/ws/portfolio"], services))
    tasks = []  # no pings: these clients answer none
    reply("ready")
    async for what, options in orders():
        if what == "memory":
            reply([resident(), len(hub.connections())])
        elif what == "ours":
            reply(await _hub_rounds(hub, **options))
        elif what == "raw":
            reply(await _raw_rounds([one.transport for one in hub.connections()], **options))
        elif what == "run":
            tasks.append(asyncio.create_task(hub.run()))
            reply("running")
        elif what == "events":
            reply(await _events(hub, **options))
    del tasks


async def serve_bare(port: int) -> None:
    """What any WebSocket of aiohttp costs: a handler that takes messages."""
    from aiohttp import web

    sockets: set[web.WebSocketResponse] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=False)
        await websocket.prepare(request)
        sockets.add(websocket)
        async for _ in websocket:
            pass
        return websocket

    application = web.Application()
    application.router.add_get("/ws/portfolio", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    reply("ready")
    async for _ in orders():
        reply([resident(), len(sockets)])


class _Feeds:
    async def snapshot(self, portfolio_id: str) -> Any:
        from pricecache.realtime.hub import PortfolioState

        return PortfolioState("e", 0, {"account": _value("account:updated", 0)})

    async def events_after(self, portfolio_id: str, seq: int) -> Any:
        from pricecache.core.stream_events import EventsPage

        return EventsPage("e", 0, 1, ())

    def listened(self, portfolio_id: str) -> None:
        return

    def unlistened(self, portfolio_id: str) -> None:
        return


class _Portfolios:
    async def get(self, owner: str, portfolio_id: str) -> Any:
        return SimpleNamespace(id=portfolio_id)


def _value(kind: str, stamp: int, filling: int = 0) -> dict[str, Any]:
    return {"type": kind, "t": stamp, "note": "x" * filling}


_FILLING = FRAME_BYTES - 160


async def _hub_rounds(hub: Any, rounds: int, pause: float) -> float:
    """Broadcast so often, `pause` seconds apart; the processor's seconds it took."""
    began = time.process_time()
    for _ in range(rounds):
        hub.publish_values("p", {"account": _value("account:updated", time.monotonic_ns(), _FILLING)})
        await hub._delivery.flush()
        await asyncio.sleep(pause)
    return time.process_time() - began


async def _raw_rounds(transports: list[Any], rounds: int, pause: float) -> float:
    from pricecache.realtime.frames import text_frame
    from pricecache.realtime.messages import batch, encoded

    began = time.process_time()
    for _ in range(rounds):
        head = {"type": "update", "epoch": "e", "seq": 0, "portfolioId": "p", "at": "2026-11-20T10:00:00.000Z"}
        value = encoded(_value("account:updated", time.monotonic_ns(), _FILLING))
        frame = text_frame(batch(head, [value]))
        for transport in transports:
            transport.write(frame)
        await asyncio.sleep(pause)
    return time.process_time() - began


async def _events(hub: Any, rate: int, seconds: float, positions: int) -> dict[str, Any]:
    """Publish so many events a second, of so many positions in turn."""
    before, began, cpu, number = dict(hub.status()), time.monotonic(), time.process_time(), 0
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * rate)
        while number < due:
            key = f"position:S{number % positions}:US"
            hub.publish_values("p", {key: _value("position:updated", time.monotonic_ns())})
            number += 1
        await asyncio.sleep(0.001)
    cpu = (time.process_time() - cpu) / (time.monotonic() - began)
    await asyncio.sleep(1.1)
    after = hub.status()
    frames = after["frames_written"] - before["frames_written"]
    return {
        "efficiency": 1 - frames / (number * len(hub.connections())),
        "messages_per_second": frames / len(hub.connections()) / seconds,
        "cpu": cpu,
        "window_ms": after["window_ms"],
    }


# ---- clients


class Listener(asyncio.Protocol):
    """One connection; it counts messages by their bytes and notes how old they are."""

    __slots__ = ("crowd", "is_sampled", "subscribe", "transport")

    def __init__(self, crowd: Crowd, subscribe: bytes, is_sampled: bool) -> None:
        self.crowd = crowd
        self.subscribe = subscribe
        self.is_sampled = is_sampled

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(_HANDSHAKE + self.subscribe)

    def data_received(self, data: bytes) -> None:
        self.crowd.take(data, self.is_sampled)


class Crowd:
    """All clients of one process."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.count = 0
        self.ages: list[float] = []
        self.last_at = 0.0
        self.each = True
        self._wanted = 0
        self._enough: asyncio.Future[None] | None = None

    async def until(self, count: int) -> None:
        """Return when so many messages have come since the beginning."""
        if self.count < count:
            self._wanted, self._enough = count, asyncio.get_running_loop().create_future()
            await self._enough

    def take(self, data: bytes, is_sampled: bool) -> None:
        now = time.monotonic_ns()
        if not self.each:  # many values in each message: those of a few clients are enough
            if is_sampled:
                self.ages += [(now - int(stamp)) / 1e6 for stamp in _STAMP.findall(data)]
            return
        found = data.count(b'"type":"update"')
        if found:
            self.count += found
            self.last_at = now / 1e9
            if self._enough is not None and self.count >= self._wanted and not self._enough.done():
                self._enough.set_result(None)
            stamp = _STAMP.search(data)
            if stamp is not None:
                self.ages.append((now - int(stamp[1])) / 1e6)


async def listen() -> None:
    """Clients that do as they are told."""
    crowd, loop = Crowd(), asyncio.get_running_loop()
    async for what, options in orders():
        if what == "connect":
            port = options["port"]
            for number in range(options["count"]):
                subscribe = _masked(options["subscribe"] % {"number": number}) if options["subscribe"] else b""
                listener = Listener(crowd, subscribe, number % 50 == 0)
                await loop.create_connection(lambda listener=listener: listener, "127.0.0.1", port)  # type: ignore[misc]
                crowd.listeners.append(listener)
            await asyncio.sleep(1.0)
            reply(len(crowd.listeners))
        elif what == "begin":
            crowd.count, crowd.ages, crowd.each = 0, [], options["each"]
            reply("begun")
        elif what == "end":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await crowd.until(options["count"])
            ages = sorted(crowd.ages) or [float("nan")]
            reply(
                {
                    "count": crowd.count,
                    "last_at": crowd.last_at,
                    "p50": ages[len(ages) // 2],
                    "p95": ages[int(len(ages) * 0.95)],
                }
            )


def _masked(text: str) -> bytes:
    payload = text.encode()
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload


_TO_ONE = '{"type":"subscribe","portfolioId":"p"}'
_TO_OWN = '{"type":"subscribe","portfolioId":"p%(number)s"}'


# ---- what is measured


def fan_out(connections: int) -> dict[str, list[tuple[float, float]]]:
    """Pairs (hub, raw loop) in turn: `p95` of clients in ms, messages `received` a second, and messages written in a
    second of the server's processor, which others on the machine disturb less."""
    port = free_port()
    with process("serve_hub", SERVER_CPU, port, 0.02) as server, process("listen", LOAD_CPU) as clients:
        server.answer()
        clients.ask("connect", port=port, count=connections, subscribe=_TO_ONE)
        pairs: dict[str, list[tuple[float, float]]] = {"p95": [], "received": [], "written": []}
        for turn in range(ROUNDS):
            ways = ("ours", "raw")[:: 1 if turn % 2 else -1]
            for _ in range(AGES):
                ages = {way: _age(server, clients, way, connections) for way in ways}
                pairs["p95"].append((ages["ours"], ages["raw"]))
            rates = {way: _rate(server, clients, way, connections) for way in ways}
            for place, name in enumerate(("received", "written")):
                pairs[name].append((rates["ours"][place], rates["raw"][place]))
        return pairs


def _age(server: Process, clients: Process, way: str, connections: int) -> float:
    clients.ask("begin", each=True)
    server.ask(way, rounds=5, pause=0.1)
    return float(clients.ask("end", count=5 * connections)["p95"])


def _rate(server: Process, clients: Process, way: str, connections: int) -> tuple[float, float]:
    rounds = max(4, FLOOD * 1000 // connections)
    clients.ask("begin", each=True)
    began = time.monotonic()
    cpu = server.ask(way, rounds=rounds, pause=0)
    ended = clients.ask("end", count=rounds * connections)
    assert ended["count"] == rounds * connections, ended
    sent = rounds * connections
    return sent / (ended["last_at"] - began), sent / cpu


def memory(connections: int, subscribe: str) -> float:
    """Bytes of the server for each connection that listens."""
    port = free_port()
    with process("serve_hub", SERVER_CPU, port, 0.02) as server, process("listen", LOAD_CPU) as clients:
        server.answer()
        return _grown(server, clients, port, connections, subscribe)


def bare_memory(connections: int) -> float:
    """The same of a bare handler, whose clients say nothing."""
    port = free_port()
    with process("serve_bare", SERVER_CPU, port) as server, process("listen", LOAD_CPU) as clients:
        server.answer()
        return _grown(server, clients, port, connections, "")


def _grown(server: Process, clients: Process, port: int, connections: int, subscribe: str) -> float:
    clients.ask("connect", port=port, count=50, subscribe=subscribe)  # what is loaded at the first use
    before, had = server.ask("memory")
    clients.ask("connect", port=port, count=connections, subscribe=subscribe)
    after, has = server.ask("memory")
    assert has - had == connections
    return float((after - before) / connections)


def events(connections: int, rate: int, window: float, seconds: float = 5.0) -> dict[str, Any]:
    """How old values are when clients get them, and what it costs, at so many events a second."""
    port = free_port()
    with process("serve_hub", SERVER_CPU, port, window) as server, process("listen", LOAD_CPU) as clients:
        server.answer()
        clients.ask("connect", port=port, count=connections, subscribe=_TO_ONE)
        raw = statistics.median(_age(server, clients, "raw", connections) for _ in range(3))
        server.ask("run")
        clients.ask("begin", each=False)
        cpu = cpu_seconds(server.child.pid)
        found = server.ask("events", rate=rate, seconds=seconds, positions=100)
        ended = clients.ask("end", count=0)
        cpu = (cpu_seconds(server.child.pid) - cpu) / (seconds + 1.1)
        return {**found, "p50": ended["p50"], "p95": ended["p95"], "raw_p95": raw, "server_cpu": cpu}


def rows(say: Callable[[str], object] = lambda text: None) -> list[Row]:
    """The table: `ours` is the hub, `reference` the raw loop, a bare handler, or the bound."""
    found: list[Row] = []
    for connections in (1000, 5000):
        pairs = fan_out(connections)
        found.append(row(f"broadcast to {connections}, received", pairs["received"], "msgs/s", least=0.9, rate=True))
        found.append(row(f"broadcast to {connections}, by processor", pairs["written"], "msgs/s", least=0.9, rate=True))
        found.append(row(f"broadcast to {connections}, p95", pairs["p95"], "ms", most=1.25))
    bare = statistics.median(bare_memory(2000) for _ in range(3)) / 1024
    for what, subscribe in (("one portfolio", _TO_ONE), ("a portfolio each", _TO_OWN)):
        ours = statistics.median(memory(2000, subscribe) for _ in range(3)) / 1024
        most = 1.15 if subscribe is _TO_ONE else None
        found.append(row(f"memory of a connection, {what}", [(ours, bare)], "KiB", most=most))
    for connections, rate, window in STREAMS:
        one = events(connections, rate, window)
        bound = 1000 * max(window, one["window_ms"] / 1000) + 1.5 * one["raw_p95"]
        name = f"{rate} events/s to {connections}, window {window * 1000:.0f} ms"
        found.append(row(f"{name}: p95 of a value", [(one["p95"], bound)], "ms", most=1.0))
        say(
            f"{name}: efficiency {one['efficiency']:.3f}, {one['messages_per_second']:.1f} messages/s each, "
            f"window {one['window_ms']:.0f} ms, "
            f"{100 * one['server_cpu']:.0f} % of a processor, p50 {one['p50']:.1f} ms, raw p95 {one['raw_p95']:.1f} ms"
        )
    return found
