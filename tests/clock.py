"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime
from time import monotonic

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC).timestamp()


class ManualClock:
    """Implements `pricecache.clock.Clock`. Starts on Friday 2026-11-20 at 10:00 UTC unless told otherwise.

    Reading it is thread-safe; sleeping and moving it belong to the event loop. `advance` wakes those whose time has
    come, in the order of their times; what a woken task then sleeps counts from the new time.
    """

    def __init__(self, at: float | datetime = START) -> None:
        self._time = at.timestamp() if isinstance(at, datetime) else float(at)
        self._started = self._time
        self._numbers = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._fell_asleep = asyncio.Event()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._time, UTC)

    def time(self) -> float:
        return self._time

    def monotonic(self) -> float:
        return self._time - self._started

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been moved so far; at the next turn of the loop for nothing or less."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._time + seconds, next(self._numbers), woken))
        self._fell_asleep.set()
        await woken

    def advance(self, seconds: float) -> None:
        """Move on by so many seconds."""
        self._time += seconds
        while self._sleepers and self._sleepers[0][0] <= self._time:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)

    def set(self, at: float | datetime) -> None:
        """Move on to an instant."""
        self.advance((at.timestamp() if isinstance(at, datetime) else at) - self._time)

    @property
    def sleeping(self) -> int:
        """How many tasks wait for this clock."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def until_sleeping(self, count: int = 1) -> None:
        """Wait, in real time, until so many tasks wait for this clock."""
        while self.sleeping < count:
            self._fell_asleep.clear()
            await self._fell_asleep.wait()


class RunningClock:
    """Implements `pricecache.clock.Clock`. Runs as fast as the machine's, from an instant of the test's own on."""

    def __init__(self, at: float | datetime = START) -> None:
        self._at = at.timestamp() if isinstance(at, datetime) else float(at)
        self._started = monotonic()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def time(self) -> float:
        return self._at + self.monotonic()

    def monotonic(self) -> float:
        return monotonic() - self._started

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
