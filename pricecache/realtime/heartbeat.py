"""Keeps connections alive, and ends those that are dead, too slow, or do not go when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from pricecache.clock import Clock
from pricecache.realtime.connection import Connection
from pricecache.realtime.frames import COMMENT, PING

PING_SECONDS = 20.0
ANSWER_SECONDS = 10.0
"""How long a client may take to answer a ping, so that nothing is heard of it for 30 s at most."""
COMMENT_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_PORTION = 500


class Heartbeat:
    """One sweep over all connections instead of a timer for each. Loop-only.

    `end`: cuts a connection off, for a reason. `fall_behind`: notes one that has unread bytes. `closing`: those
    told to go, and until when they may.
    """

    def __init__(
        self,
        connections: Collection[Connection],
        behind: Collection[Connection],
        clock: Clock,
        end: Callable[[Connection, str], None],
        fall_behind: Callable[[Connection], None],
        slow_seconds: float,
    ) -> None:
        self._connections = connections
        self._behind = behind
        self._clock = clock
        self._end = end
        self._fall_behind = fall_behind
        self._slow_seconds = slow_seconds
        self._pinged_at = self._commented_at = clock.monotonic()
        self._answers_due = float("inf")
        self.closing: dict[Connection, float] = {}

    async def run(self) -> None:
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Do what is due now."""
        now = self._clock.monotonic()
        self._end_the_slow(now)
        if now >= self._answers_due:
            self._answers_due = float("inf")
            await self._end_the_silent()
        if now - self._pinged_at >= PING_SECONDS:
            self._pinged_at, self._answers_due = now, now + ANSWER_SECONDS
            await self._write(PING, is_websocket=True)
        if now - self._commented_at >= COMMENT_SECONDS:
            self._commented_at = now
            await self._write(COMMENT, is_websocket=False)

    def _end_the_slow(self, now: float) -> None:
        for connection in [c for c in self._behind if not c.is_clear]:
            if now - connection.behind_since >= self._slow_seconds:
                self._end(connection, "slow")
        for connection, until in list(self.closing.items()):
            if connection not in self._connections:
                del self.closing[connection]
            elif now >= until:
                self._end(connection, connection.closing or "stopping")

    async def _end_the_silent(self) -> None:
        for number, connection in enumerate(list(self._connections), 1):
            # one that has unread bytes before the ping is slow, and has its own time
            if connection.is_websocket and connection.heard_at < self._pinged_at and connection.is_clear:
                self._end(connection, "silent")
            if number % _PORTION == 0:
                await asyncio.sleep(0)

    async def _write(self, wire: bytes, *, is_websocket: bool) -> None:
        for number, connection in enumerate(list(self._connections), 1):
            if connection.is_websocket is is_websocket and connection.closing is None:
                if connection.is_clear:
                    connection.transport.write(wire)
                else:
                    self._fall_behind(connection)
            if number % _PORTION == 0:
                await asyncio.sleep(0)
