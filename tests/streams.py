"""Clients of a hub in tests: a transport whose reader tests play, and what came out of it as messages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pricecache.realtime.connection import Connection
from pricecache.realtime.hub import Hub


class Pipe(asyncio.Transport):
    """A transport into memory. `reading` false: its client reads nothing, so what is written stays unsent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.unsent: list[bytes] = []
        self.reading = True
        self.closed = False
        self.on_write: Any = None

    def write(self, data: Any) -> None:
        (self.sent if self.reading and not self.unsent else self.unsent).append(data)
        if self.on_write is not None:
            self.on_write()

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.unsent))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Client:
    """Somebody connected to a hub."""

    def __init__(self, hub: Hub, user: str = "alice", *, is_websocket: bool = True) -> None:
        self.hub = hub
        self.pipe = Pipe()
        self.connection: Connection = hub.open(self.pipe, user, user, is_websocket=is_websocket)
        self._taken = 0

    async def listen(self, portfolio_id: str | None = "p", *channels: str, **options: Any) -> None:
        await self.hub.subscribe(
            self.connection, portfolio_id, channels or ("positions", "account", "trades", "orders"), **options
        )

    def stop_reading(self) -> None:
        self.pipe.reading = False

    def read_on(self) -> None:
        """Read all that was written, and go on reading."""
        self.pipe.reading = True
        self.pipe.sent += self.pipe.unsent
        self.pipe.unsent.clear()
        self.connection.on_writable()

    def leave(self) -> None:
        self.pipe.closed = True
        self.connection.on_lost()

    def wire(self) -> list[bytes]:
        """What was written since the last look, write by write."""
        found, self._taken = self.pipe.sent[self._taken :], len(self.pipe.sent)
        return found

    def messages(self) -> list[dict[str, Any]]:
        """The messages since the last look."""
        raw = b"".join(self.wire())
        return list(texts_in(raw) if self.connection.is_websocket else events_in(raw))

    def numbers(self) -> list[int]:
        """The numbers of the events since the last look, in the order they came."""
        return [e["seq"] for m in self.messages() for e in m.get("events", ()) if "seq" in e]


def frames_in(raw: bytes) -> list[tuple[int, bytes]]:
    """Frames of a server: their first byte and what is in them."""
    found, at = [], 0
    while at < len(raw):
        length, start = raw[at + 1], at + 2
        if length == 126:
            length, start = int.from_bytes(raw[at + 2 : at + 4], "big"), at + 4
        elif length == 127:
            length, start = int.from_bytes(raw[at + 2 : at + 10], "big"), at + 10
        found.append((raw[at], raw[start : start + length]))
        at = start + length
    return found


def texts_in(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(payload) for first, payload in frames_in(raw) if first == 0x81]


def events_in(raw: bytes) -> list[dict[str, Any]]:
    """What a server-sent stream says."""
    return [json.loads(line.removeprefix("data: ")) for line in body_in(raw).splitlines() if line.startswith("data: ")]


def body_in(raw: bytes) -> str:
    """The text of a server-sent stream, its chunks put together."""
    body, at = b"", 0
    while at < len(raw):
        size, _, _ = raw[at:].partition(b"\r\n")
        start = at + len(size) + 2
        body += raw[start : start + int(size, 16)]
        at = start + int(size, 16) + 2
    return body.decode()


async def settle(turns: int = 20) -> None:
    """Let everything that can go on without the clock go on."""
    for _ in range(turns):
        await asyncio.sleep(0)
