"""Connections and what they listen to together: where to write, who is a member, who is how far behind."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from pricecache.realtime.frames import LAST_CHUNK, close_frame
from pricecache.realtime.messages import Message, plain
from pricecache.realtime.places import Places

MOST_BYTES = 2 << 20
"""That a client may send at once, and in a second: more than all the messages that it may."""


class Topic:
    """Connections that get the very same messages. Loop-only.

    `ready`: by their transports, WebSockets that listen to nothing else and have everything, which is nearly all: a
    message for them is written without a look at the connection, whose memory is not near. `others`: all others.
    """

    __slots__ = ("others", "ready")

    def __init__(self) -> None:
        self.ready: dict[asyncio.Transport, Connection] = {}
        self.others: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self.ready) + len(self.others)

    def __bool__(self) -> bool:
        return True

    @property
    def members(self) -> list[Connection]:
        return [*self.ready.values(), *self.others]

    def place(self, connection: Connection) -> None:
        """Take in a member, or one whose state has changed."""
        if connection.is_simple:
            self.ready[connection.transport] = connection
            self.others.pop(connection, None)
        else:
            self.others[connection] = None
            self.ready.pop(connection.transport, None)

    def discard(self, connection: Connection) -> None:
        self.ready.pop(connection.transport, None)
        self.others.pop(connection, None)

    def of_transport(self, transport: asyncio.Transport) -> Connection | None:
        """The member that has this transport."""
        found = self.ready.get(transport)
        return found if found is not None else next((c for c in self.others if c.transport is transport), None)


class Owner(Protocol):
    """Who is told of a connection: the hub."""

    def writable(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...

    def said(self, connection: Connection, count: int) -> bool: ...


class Connection:
    """A WebSocket whose handshake is done, or a server-sent stream whose head is sent. Loop-only.

    `credential`: by what its user was known, whatever that is to whoever checks it. `opened_at`, `heard_at`,
    `behind_since`: monotonic seconds. `bytes_left`: that its client may send, as it was at `counted_at`. `dirty`: None
    while it has everything; else what it lacks, by topic: of a portfolio the last numbered event that it got, of prices
    the symbols. `closing`: why it is being closed, or None.
    `places`: how far it was sent each portfolio, for a server-sent stream that may have several, else None.
    There may be thousands, so it has slots only, and no task, timer or queue of its own.
    """

    __slots__ = (
        "_owner",
        "_woken",
        "behind_since",
        "bytes_left",
        "closing",
        "counted_at",
        "credential",
        "dirty",
        "heard_at",
        "is_websocket",
        "opened_at",
        "places",
        "topics",
        "transport",
        "user",
    )

    def __init__(
        self, owner: Owner, transport: asyncio.Transport, user: str, credential: Any, now: float, *, is_websocket: bool
    ) -> None:
        self._owner = owner
        self.transport = transport
        self.user = user
        self.credential = credential
        self.is_websocket = is_websocket
        self.opened_at = self.heard_at = self.behind_since = self.counted_at = now
        self.bytes_left = float(MOST_BYTES)
        self.topics: tuple[Topic, ...] = ()
        self.dirty: dict[Topic, Any] | None = None
        self.closing: str | None = None
        self.places: Places | None = None
        self._woken: asyncio.Future[None] | None = None
        # nothing is written while anything is unsent, so "writable again" is "everything is sent"
        transport.set_write_buffer_limits(high=0)

    @property
    def is_simple(self) -> bool:
        return self.is_websocket and self.dirty is None and len(self.topics) == 1

    def settle(self) -> None:
        """What it listens to, or lacks, has changed: let its topics know."""
        for topic in self.topics:
            topic.place(self)

    @property
    def is_clear(self) -> bool:
        """Whether the kernel has taken everything that was written."""
        return not self.transport.get_write_buffer_size()

    def require_open(self) -> None:
        """Raises `ConnectionResetError` when it has ended or is about to."""
        if self.closing is not None or self.transport.is_closing():
            raise ConnectionResetError

    def wire_of(self, message: Message) -> bytes:
        """What has to be written next for `message`: its place is where a server-sent stream is then."""
        if self.is_websocket:
            return message.frame
        if self.places is None:
            return message.chunk
        return (b"" if message.place is None else self.places.moved(message.place)) + message.bare_chunk

    def send(self, message: Message) -> None:
        """Write whether it is clear or not; for answers, of which there is one to each of the client's questions."""
        if self.closing is None and not self.transport.is_closing():
            self.transport.write(self.wire_of(message))

    async def drained(self) -> None:
        """Return when the kernel has taken everything, or the connection is lost."""
        while not self.is_clear and not self.transport.is_closing():
            await self._woken_up()

    async def ended(self) -> None:
        """Return when the connection is lost, or about to be closed."""
        while self.closing is None and not self.transport.is_closing():
            await self._woken_up()

    async def lost(self) -> None:
        """Return when the connection is lost."""
        while not self.transport.is_closing():
            await self._woken_up()

    def wake(self) -> None:
        """Let those who wait look again."""
        if self._woken is not None:
            self._woken.set_result(None)
            self._woken = None

    async def _woken_up(self) -> None:
        if self._woken is None:
            self._woken = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._woken)

    # ---- what its protocol tells

    def on_writable(self) -> None:
        """Everything that was written is sent."""
        self._owner.writable(self)

    def may_say(self, count: int) -> bool:
        return self._owner.said(self, count)

    def on_lost(self) -> None:
        """The transport is gone."""
        self._owner.lost(self)

    def say_goodbye(self, code: int, reason: str) -> None:
        """Tell the client that this is the end; nothing is written after it. Idempotent."""
        if self.closing is not None or self.transport.is_closing():
            return
        self.closing = reason
        if self.is_websocket:
            self.transport.write(close_frame(code, reason))
        else:
            farewell = plain({"type": "closing", "code": code, "reason": reason})
            self.transport.write(farewell.chunk + LAST_CHUNK)
