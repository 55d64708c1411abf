"""A proxy with faults between a page and a daemon: real TCP on loopback, a way of failing for each path.

    with FaultyProxy(daemon.port) as proxy:
        proxy.faults["/ws/"] = "swallow"
        page.goto(proxy.url)

Faults: "swallow" takes the request and never answers, "close" hangs up, "mute" passes the request on and nothing back,
a number answers that status with the code in `codes` as a problem. A request goes by the first prefix that fits; each
has a connection of its own. May be used from any thread.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.fakes.loop_thread import LoopThread

Fault = str | int


class FaultyProxy:
    """Start it as a context manager. `asked` has method and target of every request, in order."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.faults: dict[str, Fault] = {}
        self.codes: dict[int, str] = {401: "unauthorized", 403: "realtime_not_admitted", 503: "realtime_off"}
        self.asked: list[str] = []
        self.port = 0
        self._thread = LoopThread("faulty-proxy")
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._frozen = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultyProxy:
        self._thread.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.do(self._end())
        self._thread.stop()

    def cut(self) -> None:
        """Cut off every connection there is."""
        self._thread.do(self._cut())

    def freeze(self) -> None:
        """From now on nothing passes on the connections there are; new ones are as good as ever."""
        self._thread.do(self._freeze())

    def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Block until `condition`, which is looked at whenever something is asked."""
        with self._changed:
            assert self._changed.wait_for(condition, seconds), f"never; asked was {self.asked}"

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _freeze(self) -> None:
        self._frozen.set()
        self._frozen = asyncio.Event()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        if (task := asyncio.current_task()) is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._request(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ")[1]
        with self._changed:
            self.asked.append(" ".join(head.split(" ")[:2]))
            self._changed.notify_all()
        fault = next((found for prefix, found in self.faults.items() if path.startswith(prefix)), None)
        if fault == "close":
            return
        if fault == "swallow":
            await reader.read()
        elif isinstance(fault, int):
            writer.write(_problem(fault, self.codes.get(fault, "failed")))
            await writer.drain()
        else:
            await self._pass_on(head, reader, writer, is_mute=fault == "mute")

    async def _pass_on(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_mute: bool
    ) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self.upstream)
        self._open.add(forth)
        if not re.search(r"^upgrade:", head, re.IGNORECASE | re.MULTILINE):
            # one request a connection, so that each is looked at
            head = re.sub(r"(?im)^connection:.*\r\n", "", head).replace("\r\n", "\r\nConnection: close\r\n", 1)
        forth.write(head.encode("latin-1"))
        frozen = self._frozen
        ways = [
            asyncio.create_task(_pump(reader, forth, lambda: not frozen.is_set())),
            asyncio.create_task(_pump(back, writer, lambda: not frozen.is_set() and not is_mute)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._open.discard(forth)
            forth.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[], bool]) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            if passes():
                writer.write(data)
                await writer.drain()


def _problem(status: int, code: str) -> bytes:
    body = json.dumps({"status": status, "title": "Refused", "code": code, "detail": "as the test wants"}).encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + body
