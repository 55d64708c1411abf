"""A whole daemon under a clock that a test moves: the parts as they are composed, a real mongod, scripted vendors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from pricecache.api.runs import REFRESH_JOB, SYNC_JOB
from pricecache.api.server import FrontDoor
from pricecache.background import BackgroundTasks
from pricecache.core.bars import Bars
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.jobs import RunTicket
from pricecache.metrics import Metrics
from pricecache.parts.whole import Parts
from pricecache.providers.chain import ProviderChain
from pricecache.providers.pool import ProviderPool
from pricecache.settings import Settings
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.fakes.provider import ScriptedProvider

PATIENCE = 90.0
"""Seconds of real time that a run may take here."""


class Simulation:
    """What a test looks at and moves. Jobs run when it says so, never by a schedule."""

    def __init__(
        self, parts: Parts, clock: ManualClock, book: CalendarBook, session: aiohttp.ClientSession, url: str
    ) -> None:
        self.parts, self.clock, self.book = parts, clock, book
        self._session, self._url = session, url

    async def get(self, target: str) -> tuple[int, Any]:
        """Status and decoded body of a GET over HTTP."""
        async with self._session.get(self._url + target) as response:
            return response.status, await response.json()

    async def post(self, target: str, body: Any = None) -> tuple[int, Any]:
        """The same of a POST with a JSON body."""
        async with self._session.post(self._url + target, json=body) as response:
            return response.status, await response.json()

    async def sync(self) -> RunTicket:
        """One run of the staged sync, as the schedule would start it."""
        return await self._run(SYNC_JOB)

    async def refresh(self) -> RunTicket:
        """One run of the live refresh."""
        return await self._run(REFRESH_JOB)

    async def _run(self, job: str) -> RunTicket:
        ticket = await self.parts.prices.jobs.run(job, {}, "schedule")
        assert await ticket.finished(PATIENCE), f"{job} did not end"
        return ticket

    async def track(self, instruments: Sequence[Instrument]) -> None:
        """Track without filling."""
        await self.parts.prices.tracker.admit(instruments, "test")


@asynccontextmanager
async def simulation(
    database: Any,
    clock: ManualClock,
    providers: Sequence[ScriptedProvider],
    folder: Path,
    **settings: Any,
) -> AsyncIterator[Simulation]:
    """A daemon on `database`, its door on a free port; ended with the block, as by a stop."""
    book = xnys_book()
    chosen = Settings(data_dir=folder, _env_file=None, **settings)  # type: ignore[call-arg]
    (provider,) = providers
    provider.clock = clock
    pool = ProviderPool(provider, clock)
    background = BackgroundTasks()
    parts = Parts(chosen, database, clock, book, ProviderChain([pool]), Metrics("0"), background)
    await parts.load()
    door = FrontDoor("127.0.0.1", 0, max_body_bytes=1 << 20)
    await door.start()
    door.open(parts.api.dispatcher)
    try:
        async with aiohttp.ClientSession() as session:
            yield Simulation(parts, clock, book, session, f"http://127.0.0.1:{door.port}")
    finally:
        await parts.prices.jobs.stop()
        await door.stop(1)
        await parts.api.dispatcher.close()
        await parts.prices.bars.drain()
        await background.end()
        await pool.close()


def random_walk(seed: int, calendar: SessionCalendar, first: int, last: int) -> Bars:
    """Plausible bars as traded on every session from `first` to `last` (days since 1970-01-01), in cents."""
    sessions = calendar.between(first, last)
    chance = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(chance.normal(0, 0.01, len(sessions)))), 2)
    open_ = np.round(close * (1 + chance.normal(0, 0.002, len(sessions))), 2)
    high, low = np.maximum(close, open_) + 0.25, np.minimum(close, open_) - 0.25
    volume = chance.integers(10_000, 90_000, len(sessions)).astype(float)
    return Bars(sessions, np.stack([open_, high, low, close, volume]))
