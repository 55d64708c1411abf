"""Fetches that are wanted a few seconds from now, begun then and not at the next look of the schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.errors import PricecacheError

log = structlog.get_logger(__name__)

SOON_SECONDS = 5.0
"""How long after it was asked for: Plaid tells of one change by several webhooks."""

StartRun = Callable[[str, Mapping[str, Any], str], Awaitable[Any]]


class SoonFetches:
    """Begins a run of `job` with those that were asked for five seconds ago. Loop-only.

    All of them are due in the store as well, where the schedule finds those that a daemon leaves that ends.
    """

    def __init__(self, job: str, start_run: StartRun, clock: Clock) -> None:
        self._job = job
        self._start_run = start_run
        self._clock = clock
        self._wanted: dict[str, float] = {}  # until when each waits, by connection; the order is that of the instants
        self._asked = asyncio.Event()

    @property
    def waiting(self) -> Collection[str]:
        """Those that are not begun yet."""
        return self._wanted.keys()

    def add(self, connection_id: str) -> None:
        """Once, however often it is asked for until it begins."""
        self._wanted.setdefault(connection_id, self._clock.monotonic() + SOON_SECONDS)
        self._asked.set()

    async def run(self) -> None:
        """Begin what is due until cancelled."""
        while True:
            await self._asked.wait()
            await self._clock.sleep(max(0.0, min(self._wanted.values()) - self._clock.monotonic()))
            now = self._clock.monotonic()
            due = [name for name, at in self._wanted.items() if at <= now]
            for name in due:
                del self._wanted[name]
            if not self._wanted:
                self._asked.clear()
            if due:
                await self._begin(due)

    async def _begin(self, due: list[str]) -> None:
        try:
            # somebody may have fetched it meanwhile: the user, or another daemon that was told of the same
            await self._start_run(self._job, {"connections": due, "ifDue": True}, "schedule")
        except (PricecacheError, PyMongoError) as exc:
            log.debug("a fetch is left to the schedule", connections=len(due), error=f"{type(exc).__name__}: {exc}")
