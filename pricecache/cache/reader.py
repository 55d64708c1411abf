"""Answers a question for history from RAM: the bars, which of them are provisional, and what is missing and why."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pymongo.errors import PyMongoError

from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.cache.sampled import SampledSessions
from pricecache.clock import Clock
from pricecache.core.actions import Adjust, adjusted, in_effect
from pricecache.core.bars import Bars, day_number
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.coverage import Coverage, SyncState, contains, coverage
from pricecache.core.quotes import Quote
from pricecache.core.running import bar_of, lacks_day, running_session
from pricecache.core.sessions import CalendarBook, SessionCalendar

_NOBODY_IS_ASKED = SyncState(wanted_from=day_number(date.max))

HIT_WINDOW = 10_000
"""Reads over which the hit rate is taken."""


@dataclass(frozen=True, slots=True)
class HistoryAnswer:
    """Bars from `start` to `end` (days since 1970-01-01, both included), in ascending order.

    `provisional`: bool, one a bar: made from live quotes, not yet confirmed by a provider. `version` and `valid_until`
    (seconds since 1970 UTC) say how long the answer holds: until the entry has another version, or another session
    falls due or (where provisional bars are wanted) opens, or the market's date changes. With `watches` it also depends
    on the latest quote, `quote` then, because the range takes in the session that runs, which has no bar yet, and
    provisional bars are wanted; `runs` when that quote made the last bar, which then holds no longer than until
    `quote.stale_at` either. `manual`: int64, the sessions among them put in by hand. `as_known_on`: of an answer as it
    was known then, that instant, and `known_since` when the last of it was committed; both seconds since 1970 UTC.
    """

    entry: Entry
    start: int
    end: int
    adjust: Adjust
    bars: Bars
    provisional: NDArray[np.bool_]
    coverage: Coverage
    version: int
    valid_until: float
    watches: bool = False
    quote: Quote | None = None
    runs: bool = False
    manual: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    as_known_on: float | None = None
    known_since: float | None = None


class Reader:
    """Reads history for everybody. Never calls a provider. Loop-only.

    A read is a hit when every session of its range that can be expected by now is there. The session that runs has a
    bar of its latest quote in `live`, completed from samples; without `live` it has none.
    """

    def __init__(
        self,
        catalog: Catalog,
        columns: ColumnCache,
        calendars: CalendarBook,
        clock: Clock,
        final_lag: float,
        *,
        live: LiveCache | None = None,
        sampled: SampledSessions | None = None,
    ) -> None:
        self.columns = columns
        self._catalog = catalog
        self._calendars = calendars
        self._clock = clock
        self._lag = final_lag
        self._live = live
        self._sampled = sampled
        self._recent: deque[bool] = deque(maxlen=HIT_WINDOW)
        self.hits = 0
        self.misses = 0

    @property
    def hit_rate(self) -> float | None:
        """Hits ÷ reads of the last 10,000 reads, a fraction; None before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    def count(self, complete: bool) -> None:
        """Count a read; answers kept whole are counted here too."""
        self._recent.append(complete)
        if complete:
            self.hits += 1
        else:
            self.misses += 1

    def today(self, entry: Entry) -> int:
        """The calendar date at the instrument's market now."""
        zone = ZoneInfo(entry.instrument.place.time_zone)
        return day_number(datetime.fromtimestamp(self._clock.time(), zone).date())

    async def history(
        self,
        entry: Entry,
        start: int | None = None,
        end: int | None = None,
        adjust: Adjust = "splits",
        *,
        provisional: bool = True,
    ) -> HistoryAnswer:
        """`start` None: from where on the series is kept; `end` None: today at the market. Without `provisional` only
        final bars."""
        calendar = self._calendars.get(entry.instrument.place.calendar)
        await self._trust(entry)
        today = self.today(entry)
        whole, is_provisional = await self._whole(entry, adjust, today)
        if not provisional and is_provisional.any():
            final = ~is_provisional
            whole, is_provisional = Bars(whole.sessions[final], whole.values[:, final]), is_provisional[final]
        end = today if end is None else end
        start = min(self._first(entry, whole.sessions), end) if start is None else start
        bars = whole.between(start, end)
        covered = self._covered(entry, calendar, whole.sessions, start, end)
        self.count(covered.complete)
        low = int(whole.sessions.searchsorted(start))
        marks = is_provisional[low : low + len(bars)]
        version, until = entry.version, self._valid_until(entry, calendar)
        by_hand = await self.columns.store.manual(entry)
        by_hand = by_hand[(by_hand >= start) & (by_hand <= end)]
        answer = HistoryAnswer(entry, start, end, adjust, bars, marks, covered, version, until, manual=by_hand)
        if not provisional or self._live is None:
            return answer
        now = self._clock.time()
        # from then on another session may have a bar of its quote
        answer = replace(answer, valid_until=min(until, calendar.next_open(now) or until))
        session = calendar.current(now)
        is_held = session is None or (len(whole) > 0 and session <= whole.sessions[-1])
        if session is None or is_held or not start <= session <= end:
            return answer
        return await self._with_running(answer, calendar, self._live)

    async def coverage(self, entry: Entry, start: int | None = None, end: int | None = None) -> Coverage:
        """What is held of a range and what is not; the whole range by default. Provisional bars count as held."""
        calendar = self._calendars.get(entry.instrument.place.calendar)
        await self._trust(entry)
        held = await self.columns.store.held(entry)
        sessions = np.union1d(held, entry.tail.sessions)
        end = self.today(entry) if end is None else end
        if start is None:
            start = min(self._first(entry, held), end)
        return self._covered(entry, calendar, sessions, start, end)

    async def _with_running(self, answer: HistoryAnswer, calendar: SessionCalendar, live: LiveCache) -> HistoryAnswer:
        """With the bar of the session that runs, if the quote is of it: in the units of that session, as `answer`
        is."""
        entry, now = answer.entry, self._clock.time()
        quote = live.get(entry.instrument.key)
        session = running_session(quote, calendar, entry.currency, now, entry.lag(self._lag))
        if session is None or quote is None:
            return replace(answer, watches=True, quote=quote)
        said = None
        if self._sampled is not None and lacks_day(quote):
            with suppress(PyMongoError):  # history is answered from RAM while the database is away
                said = await self._sampled.of(entry, session)
        bars = answer.bars
        return replace(
            answer,
            bars=Bars(np.append(bars.sessions, session), np.concatenate([bars.values, bar_of(quote, said)], axis=1)),
            provisional=np.append(answer.provisional, True),
            watches=True,
            runs=True,
            quote=quote,
        )

    def running_bar(self, entry: Entry, quote: Quote) -> tuple[int, NDArray[np.float64]] | None:
        """The session that runs and the bar that `quote` makes of it, if `quote` alone can make one."""
        now, calendar = self._clock.time(), self._calendars.get(entry.instrument.place.calendar)
        session = running_session(quote, calendar, entry.currency, now, entry.lag(self._lag))
        return None if session is None or lacks_day(quote) else (session, bar_of(quote, None))

    async def _trust(self, entry: Entry) -> None:
        """While changes by other daemons may go unseen, the database has the word."""
        if not self._catalog.trusted or not entry.current:
            await self.columns.store.refresh([entry])

    async def _whole(self, entry: Entry, adjust: Adjust, today: int) -> tuple[Bars, NDArray[np.bool_]]:
        """All bars, provisional ones among them, and which these are."""
        while True:
            version = entry.version
            actions = in_effect(entry.actions, today) if adjust != "none" else ()
            tail = entry.tail
            final = await self.columns.get(entry, "none" if len(tail) else adjust, () if len(tail) else actions)
            if entry.version == version:
                break
        if not len(tail):
            return final, np.zeros(len(final), bool)
        both = Bars.of(
            np.concatenate([tail.sessions, final.sessions]), np.concatenate([tail.values, final.values], axis=1)
        )
        return adjusted(both, actions, adjust, entry.currency), ~contains(final.sessions, both.sessions)

    def _first(self, entry: Entry, held: NDArray[np.int64]) -> int:
        if entry.instrument.place.has_provider or not len(held):
            return entry.state.wanted_from
        return int(held[0])

    def _covered(
        self, entry: Entry, calendar: SessionCalendar, sessions: NDArray[np.int64], start: int, end: int
    ) -> Coverage:
        state = entry.state if entry.tracked and entry.instrument.place.has_provider else _NOBODY_IS_ASKED
        return coverage(sessions, calendar, state, start, end, self._clock.time(), entry.lag(self._lag))

    def day_ends(self, entry: Entry) -> float:
        """When the calendar date at the instrument's market changes next: seconds since 1970 UTC."""
        zone = ZoneInfo(entry.instrument.place.time_zone)
        tomorrow = datetime.fromtimestamp(self._clock.time(), zone).date() + timedelta(days=1)
        return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).astimezone(UTC).timestamp()

    def _valid_until(self, entry: Entry, calendar: SessionCalendar) -> float:
        midnight = self.day_ends(entry)
        due = calendar.next_due(self._clock.time(), entry.lag(self._lag))
        return midnight if due is None else min(midnight, due)
