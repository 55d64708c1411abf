"""What time it is: one object that everything which needs the time is given."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The wall clock in UTC, a clock that never goes back, and waiting. Tests give one that they move themselves."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""

    def time(self) -> float:
        """The present instant in seconds since 1970-01-01T00:00Z."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; its zero means nothing."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds of this clock."""


class SystemClock:
    """The machine's clock. Thread-safe."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
