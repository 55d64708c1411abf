"""Has reconstructions made again when a split of their time becomes known, or prices come that they did without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable

import structlog
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.events import BarsChanged
from pricecache.core.walk.footing import Ratios, earliest_difference
from pricecache.portfolio.market import Markets
from pricecache.portfolio.reconstruction_queue import ReconstructionQueue
from pricecache.stores.reconstructions import ReconstructionRecord

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5.0
LEARNT_AT_ONCE = 1000
BY = "market"
_AT_REST = ("done", "failed")
"""Whoever does one that is not will look at its end, or has what there is now before its eyes when it begins."""


class Footings:
    """Whether what reconstructions walked by is still so. Loop-only, nothing is read for it."""

    def __init__(self, catalog: Catalog, markets: Markets) -> None:
        self.catalog = catalog
        self._markets = markets

    def ratios(self, entry: Entry) -> Ratios:
        return self._markets.ratios(entry)

    def hold(self, record: ReconstructionRecord) -> bool:
        """True also where it was not kept what the reconstruction walked by."""
        walked = record.walked
        if walked is None:
            return True
        entries = [entry for one in walked.series | walked.awaited if (entry := self.catalog.by_id(one)) is not None]
        return all(walked.holds(entry.id, self.ratios(entry), has_prices(entry)) for entry in entries)


class Rewalking:
    """Loop-only. What is seen of a series is found in the record of each reconstruction, so that nothing is asked for
    that nothing has changed for, on however many daemons it is seen.

    A change that nobody lived to ask for is found at the next start.
    """

    def __init__(self, queue: ReconstructionQueue, footings: Footings, clock: Clock) -> None:
        self._queue = queue
        self._footings = footings
        self._clock = clock
        self._known: dict[int, Ratios] = {}
        self._awaited: set[int] = set()
        self._moved: dict[int, int | None] = {}  # the series, and from when on its splits are others
        self._ended: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._is_failing = False

    def on_bars(self, event: BarsChanged) -> None:
        """Bars or actions of a series are others. Returns at once."""
        entry = event.entry
        since = self._moved.get(entry.id)
        if event.actions_changed:
            now = self._footings.ratios(entry)
            since = _earliest(since, earliest_difference(self._known.get(entry.id, ()), now))
            self._known[entry.id] = now
        if since is not None or (entry.id in self._awaited and has_prices(entry)):
            self._moved[entry.id] = since
            self._wake.set()

    def on_done(self, record: ReconstructionRecord) -> None:
        """One was done here; what it walked by may be otherwise already. Returns at once."""
        if record.walked is not None:
            self._awaited |= record.walked.awaited
        if not self._footings.hold(record):
            self._ended[record.connection] = None
            self._wake.set()

    async def run(self) -> None:
        """Ask for what is concerned, until cancelled."""
        await self._learn()
        while not await self._is_done(self._look_at_all):
            await self._clock.sleep(RETRY_SECONDS)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._moved or self._ended:
                if not await self._is_done(self._work_off):
                    await self._clock.sleep(RETRY_SECONDS)

    async def _learn(self) -> None:
        for number, entry in enumerate(list(self._footings.catalog)):
            if found := self._footings.ratios(entry):
                self._known.setdefault(entry.id, found)
            if number % LEARNT_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _is_done(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except PyMongoError as exc:
            tell = log.debug if self._is_failing else log.warning
            tell("reconstructions after a split wait for the database", error=str(exc)[:300])
            self._is_failing = True
            return False
        self._is_failing = False
        return True

    async def _look_at_all(self) -> None:
        self._awaited.update(await self._queue.store.awaited())
        await self._ask(self._queue.store.walked())

    async def _work_off(self) -> None:
        # each is taken off before it is asked for: what is seen of it meanwhile has to be asked for again
        while self._ended:
            connection = next(iter(self._ended))
            del self._ended[connection]
            try:
                record = await self._queue.store.find(connection)
                if record is not None:
                    await self._look(record)
            except PyMongoError:
                self._ended[connection] = None
                raise
        while self._moved:
            series = next(iter(self._moved))
            since = self._moved.pop(series)
            try:
                await self._ask(self._queue.store.walked_by(series, since))
            except PyMongoError:
                self._moved[series] = _earliest(since, self._moved.get(series))
                raise

    async def _ask(self, records: AsyncIterable[ReconstructionRecord]) -> None:
        async for record in records:
            await self._look(record)

    async def _look(self, record: ReconstructionRecord) -> None:
        if record.state in _AT_REST and not self._footings.hold(record):
            await self._queue.request(
                record.connection, record.user, record.portfolio, BY, digest=record.digest, force=True
            )


def _earliest(one: int | None, other: int | None) -> int | None:
    return min((day for day in (one, other) if day is not None), default=None)


def has_prices(entry: Entry) -> bool:
    return bool(entry.head.count or len(entry.tail))
