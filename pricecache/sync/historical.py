"""The staged sync of all tracked symbols: live quotes become provisional bars, then every series is healed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray

from pricecache.cache.live import LiveCache
from pricecache.cache.sampled import SampledSessions
from pricecache.clock import Clock
from pricecache.core.bars import Bars, same_values
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.quotes import Quote
from pricecache.core.running import bar_of, lacks_day
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import PricecacheError, Unavailable
from pricecache.stores.bars import BarStore
from pricecache.sync.examine import Examination, Examiner
from pricecache.sync.ports import Calendars, Handle, has_provider, is_forced

CLOSING_SECONDS = 900.0
"""A price made longer before the close than this is no closing price."""

SERIES_AT_ONCE = 50
"""Series whose quotes are looked at before the event loop gets its turn."""

log = structlog.get_logger(__name__)


class HistoricalSync:
    """The job `historical_sync`. Loop-only.

    `lag`: seconds after a close until its bar is final at the provider. `interval`: seconds after which a series is
    looked at again. `concurrency`: series asked for side by side. `sampled`: says what quotes leave out of their day.
    """

    def __init__(
        self,
        catalog: Catalog,
        examiner: Examiner,
        bars: BarStore,
        live: LiveCache,
        calendars: Calendars,
        clock: Clock,
        *,
        lag: float,
        interval: float,
        concurrency: int,
        sampled: SampledSessions | None = None,
    ) -> None:
        self._catalog = catalog
        self._sampled = sampled
        self._examiner = examiner
        self._bars = bars
        self._live = live
        self._calendars = calendars
        self._clock = clock
        self._lag = lag
        self._interval = interval
        self._concurrency = concurrency
        self._failing = False

    async def run(self, handle: Handle) -> None:
        """Both stages. What fails for one symbol is noted in the run and costs the others nothing.

        With the parameter `force` nothing waits for the time of its next try.
        """
        entries = [entry for entry in self._catalog.tracked() if has_provider(entry)]
        handle.progress(0, len(entries), "Looking for sessions of which quotes are at hand")
        entries = await self._with_calendar(entries, handle)
        await self.transfer(entries, handle)
        await self.heal(entries, handle)

    async def _with_calendar(self, entries: Sequence[Entry], handle: Handle) -> list[Entry]:
        usable = set()
        for name in dict.fromkeys(entry.instrument.place.calendar for entry in entries):
            try:
                await self._calendars.get(name)
                usable.add(name)
            except Unavailable as exc:
                for entry in entries:
                    if entry.instrument.place.calendar == name:
                        handle.fail(entry.instrument, exc.code, exc.detail)
        return [entry for entry in entries if entry.instrument.place.calendar in usable]

    async def transfer(self, entries: Sequence[Entry], handle: Handle) -> None:
        """Stage 1: quotes of finished sessions become provisional bars behind the record. No provider is called."""
        quotes, now = self._live.snapshot(), self._clock.time()
        tails = []
        for number, entry in enumerate(entries):
            if number % SERIES_AT_ONCE == 0:
                await asyncio.sleep(0)
            quote = quotes.get(entry.instrument.key)
            if quote is None or quote.currency != entry.currency:
                continue
            calendar = await self._calendars.get(entry.instrument.place.calendar)
            session = finished_session(quote, calendar, now, entry.lag(self._lag))
            if session is None or (entry.head.last is not None and session <= entry.head.last):
                continue
            tail = _with_bar(entry.tail, session, await self._bar(entry, session, quote))
            if tail is not entry.tail:
                tails.append((entry, tail))
        await self._bars.set_tails(tails)
        handle.count("provisional", len(tails))

    async def _bar(self, entry: Entry, session: int, quote: Quote) -> NDArray[np.float64]:
        said = await self._sampled.of(entry, session) if self._sampled is not None and lacks_day(quote) else None
        return bar_of(quote, said)

    async def heal(self, entries: Sequence[Entry], handle: Handle) -> None:
        """Stage 2: every series that needs it is examined; a provider is called only where something is due."""
        force = is_forced(handle)
        wanting = await self._examiner.sift(entries, interval=self._interval, force=force)
        # those that a spent budget or a pause kept waiting longest come first, else the last would wait for ever
        wanting.sort(key=lambda entry: entry.state.last_update or 0.0)
        settled = len(entries) - len(wanting)
        handle.count("nothing_due", settled)
        failures = await examine_all(
            self._examiner, wanting, handle, reason="sync", force=force, concurrency=self._concurrency, done=settled
        )
        self._tell(failures)

    def _tell(self, failures: Mapping[str, int]) -> None:
        if failures and not self._failing:
            log.warning("history failing", symbols=sum(failures.values()), codes=dict(failures))
        elif self._failing and not failures:
            log.info("history recovered")
        self._failing = bool(failures)


async def examine_all(
    examiner: Examiner,
    entries: Sequence[Entry],
    handle: Handle,
    *,
    reason: str,
    force: bool,
    start: int | None = None,
    concurrency: int,
    done: int = 0,
) -> Mapping[str, int]:
    """Examine all of `entries`, `concurrency` side by side, and return how many failed by code.

    What fails is noted in the run. Once the provider has asked for fewer calls, or none can be asked, the rest is not
    asked for in this run and stays as it is. `done`: how many the run counts as done already.
    """
    round_ = _Round(examiner, iter(entries), handle, reason, force, start, done, done + len(entries))
    handle.progress(round_.done, round_.total)
    async with asyncio.TaskGroup() as group:
        for number in range(min(concurrency, len(entries))):
            group.create_task(round_.work(), name=f"{reason}-{number}")
    return round_.failures


@dataclass(slots=True)
class _Round:
    examiner: Examiner
    entries: Iterator[Entry]
    handle: Handle
    reason: str
    force: bool
    start: int | None
    done: int
    total: int
    deferred_by: Examination | None = None
    failures: Counter[str] = field(default_factory=Counter)

    async def work(self) -> None:
        for entry in self.entries:
            if self.handle.stopping:
                self.handle.count("not_reached")
                continue
            if self.deferred_by is not None:
                self._fail(entry, self.deferred_by.code or "error", f"Not asked. {self.deferred_by.detail}")
                self.handle.count("deferred")
            else:
                self._report(entry, await self._examined(entry))
            self.done += 1
            self.handle.progress(self.done, self.total, f"{entry.instrument}, {self.done} of {self.total}")

    async def _examined(self, entry: Entry) -> Examination:
        try:
            return await self.examiner.examine(entry, reason=self.reason, force=self.force, start=self.start)
        except PricecacheError as exc:
            return Examination("failed", code=exc.code, detail=exc.detail)
        except Exception as exc:  # one symbol's surprise must not cost the others their prices
            say = log.debug if self.failures["internal_error"] else log.exception
            say("examination failed", instrument=str(entry.instrument))
            return Examination("failed", code="internal_error", detail=f"{type(exc).__name__}: {exc}"[:300])

    def _report(self, entry: Entry, examination: Examination) -> None:
        self.handle.count(examination.outcome)
        self.handle.count("called", int(examination.called))
        for name in ("added", "replaced", "rejected", "parked"):
            self.handle.count(name, getattr(examination, name))
        if examination.outcome == "failed":
            self._fail(entry, examination.code or "error", examination.detail or "")
            if examination.defers:
                self.deferred_by = examination

    def _fail(self, entry: Entry, code: str, detail: str) -> None:
        self.failures[code] += 1
        self.handle.fail(entry.instrument, code, detail)


def finished_session(quote: Quote, calendar: SessionCalendar, now: float, lag: float) -> int | None:
    """The session of which `quote` can stand for the bar: over by `now`, its price made within `CLOSING_SECONDS`
    before its close or up to `lag` after.

    None when there is none. Days since 1970-01-01.
    """
    session = calendar.current(quote.as_of)
    close = calendar.close_of(session) if session is not None else None
    if (
        close is None
        or now < close
        or not close - CLOSING_SECONDS <= quote.as_of < close + lag
        or quote.session not in (None, session)
    ):
        return None
    return session


def _with_bar(tail: Bars, session: int, bar: NDArray[np.float64]) -> Bars:
    here = tail.between(session, session)
    if len(here) and same_values(here.values, bar)[0]:
        return tail
    return Bars.of(np.append(tail.sessions, session), np.concatenate([tail.values, bar], axis=1))
