"""Tracking: which symbols are kept, and the filling of a new one at once, or of an old one further back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Generic, TypeVar

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS, day_number, day_of
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.plausibility import EARLIEST_DATE_ON_EARTH
from pricecache.errors import Conflict, Invalid
from pricecache.stores.instruments import InstrumentStore
from pricecache.sync.examine import Examination, Examiner
from pricecache.sync.historical import examine_all
from pricecache.sync.ports import Handle, has_provider
from pricecache.sync.refresh import LiveRefresher

BACKFILL_JOB = "backfill_symbol"
BY_ITSELF = frozenset({"settings", "schedule", "start"})
DAYS_BEFORE_USE = 10
"""Calendar days before its first use that a price is wanted from, so that there is one to begin with."""
Ticket = TypeVar("Ticket")
StartRun = Callable[[str, dict[str, Any], str], Awaitable[Ticket]]


def backfill_parameters(instruments: Sequence[Instrument], start: int | None = None) -> dict[str, Any]:
    """The parameters of a run of `BACKFILL_JOB`: equal for equal requests, so that these join.

    `start`: days since 1970-01-01, or None for the depth the symbols are kept with.
    """
    return {
        "symbols": sorted(str(instrument) for instrument in set(instruments)),
        "start": None if start is None else day_of(start).isoformat(),
    }


@dataclass(frozen=True, slots=True)
class Tracked(Generic[Ticket]):
    """All instruments asked for, which of them were not tracked before, and the run that fills those, if any."""

    entries: list[Entry]
    added: list[Entry]
    run: Ticket | None


class Tracker(Generic[Ticket]):
    """Decides which instruments are kept. Loop-only.

    `depth_days`: calendar days of history that a new one is kept with. `max_symbols`: most that may be tracked.
    `start_run(job, parameters, requested_by)` starts a run, or joins an equal one, and returns its ticket.
    """

    def __init__(
        self,
        catalog: Catalog,
        instruments: InstrumentStore,
        clock: Clock,
        *,
        depth_days: int,
        max_symbols: int,
        start_run: StartRun[Ticket],
    ) -> None:
        self._catalog = catalog
        self._instruments = instruments
        self._clock = clock
        self._depth_days = depth_days
        self._max_symbols = max_symbols
        self._start_run = start_run

    async def track(self, instruments: Sequence[Instrument], by: str) -> Tracked[Ticket]:
        """Keep the prices of `instruments` from now on, and begin to fill those that are new.

        Raises `Conflict` with code `too_many_symbols`; then none is tracked.
        """
        entries, added = await self.admit(instruments, by)
        empty = [entry.instrument for entry in added if has_provider(entry)]
        run = await self._start_run(BACKFILL_JOB, backfill_parameters(empty), by) if empty else None
        return Tracked(entries, added, run)

    async def follow(self, first_uses: Mapping[Instrument, int], by: str) -> Tracked[Ticket]:
        """Keep the prices of what a ledger names from before the day on which it names each first (days since
        1970-01-01), and begin to fill what is new or was not kept so far back.

        Raises `Conflict` with code `too_many_symbols`; then none is tracked.
        """
        entries, added = await self.admit(list(first_uses), by)
        days = [day - DAYS_BEFORE_USE for day in first_uses.values()]
        deeper = await self._instruments.deepen(list(zip(entries, days, strict=True)))
        changed = {entry.id for entry in (*added, *deeper)}
        wanting = [entry.instrument for entry in entries if entry.id in changed and has_provider(entry)]
        run = await self._start_run(BACKFILL_JOB, backfill_parameters(wanting), by) if wanting else None
        return Tracked(entries, added, run)

    async def admit(self, instruments: Sequence[Instrument], by: str) -> tuple[list[Entry], list[Entry]]:
        """The same without filling anything: all the entries, and those that were not tracked before."""
        wanted = list(dict.fromkeys(instruments))
        new = [i for i in wanted if (entry := self._catalog.get(i)) is None or not entry.tracked]
        tracked = len(self._catalog.tracked())
        if new and tracked + len(new) > self._max_symbols:
            raise Conflict(
                f"{tracked} symbols are tracked and {len(new)} more would pass the limit of {self._max_symbols}. "
                "Untrack some, or raise PRICECACHE_MAX_SYMBOLS.",
                code="too_many_symbols",
            )
        now = self._clock.time()
        wanted_from = int(now // DAY_SECONDS) - self._depth_days
        entries = await self._instruments.add(wanted, wanted_from=wanted_from, tracked=True, by=by, now=now)
        fresh = set(new)
        return entries, [entry for entry in entries if entry.instrument in fresh]

    def check_start(self, start: int | None) -> None:
        """Raises `Invalid` with code `start_in_the_future` when nothing can have been traded since `start` (days since
        1970-01-01) anywhere on Earth."""
        if start is not None and start * DAY_SECONDS > self._clock.time() + EARLIEST_DATE_ON_EARTH:
            raise Invalid(f"{day_of(start)} has not come yet: name a day in the past.", code="start_in_the_future")

    async def untrack(self, instruments: Sequence[Instrument], by: str) -> list[Entry]:
        """Stop keeping them; what is stored stays. Raises `NotFound` when one is not known, and changes nothing."""
        entries = [self._catalog.require(instrument) for instrument in dict.fromkeys(instruments)]
        await self._instruments.set_tracked(
            [entry for entry in entries if entry.tracked], False, by=by, now=self._clock.time()
        )
        return entries


class Backfiller:
    """The job `backfill_symbol`. Loop-only. `concurrency`: series asked for side by side."""

    def __init__(
        self,
        tracker: Tracker[Any],
        examiner: Examiner,
        refresher: LiveRefresher | None = None,
        *,
        concurrency: int = 1,
    ) -> None:
        self._tracker = tracker
        self._examiner = examiner
        self._refresher = refresher
        self._concurrency = concurrency

    async def run(self, handle: Handle) -> None:
        """Fill the symbols that `backfill_parameters` named, then fetch a quote of each that has none.

        Raises `Invalid` with code `start_in_the_future`.
        """
        text = handle.parameters.get("start")
        start = None if text is None else day_number(date.fromisoformat(text))
        self._tracker.check_start(start)
        instruments = [Instrument.parse(text) for text in handle.parameters["symbols"]]
        entries, _ = await self._tracker.admit(instruments, handle.run.requested_by)
        await examine_all(
            self._examiner,
            entries,
            handle,
            # nobody waits for what the daemon tracks by itself
            reason="first" if handle.run.requested_by in BY_ITSELF else "backfill",
            force=True,
            start=start,
            concurrency=self._concurrency,
        )
        if self._refresher is not None and not handle.stopping:
            await self._refresher.refresh(instruments)

    async def backfill(self, instrument: Instrument, start: int | None = None, by: str = "operator") -> Examination:
        """Track one instrument if it is not, and make it whole now. `start` (days since 1970-01-01): keep it from
        there, or, when that is no deeper than before, ask for everything from there again. Raises `Invalid` with code
        `start_in_the_future`."""
        self._tracker.check_start(start)
        entries, _ = await self._tracker.admit([instrument], by)
        return await self._examiner.examine(entries[0], reason="backfill", force=True, start=start)
