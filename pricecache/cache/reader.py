"""Answers a question for history from RAM: the bars, which of them are provisional, and what is missing and why."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pricecache.cache.columns import ColumnCache
from pricecache.clock import Clock
from pricecache.core.actions import Adjust, adjusted, in_effect
from pricecache.core.bars import Bars, day_number
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.coverage import Coverage, SyncState, contains, coverage
from pricecache.core.sessions import CalendarBook, SessionCalendar

_NOBODY_IS_ASKED = SyncState(wanted_from=day_number(date.max))

HIT_WINDOW = 10_000
"""Reads over which the hit rate is taken."""


@dataclass(frozen=True, slots=True)
class HistoryAnswer:
    """Bars from `start` to `end` (days since 1970-01-01, both included), in ascending order.

    `provisional`: bool, one a bar: made from live quotes, not yet confirmed by a provider. `version` and
    `valid_until` (seconds since 1970 UTC) say how long the answer holds: until the entry has another version, or
    another session falls due, or the market's date changes.
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


class Reader:
    """Reads history for everybody. Never calls a provider. Loop-only.

    A read is a hit when every session of its range that can be expected by now is there.
    """

    def __init__(
        self, catalog: Catalog, columns: ColumnCache, calendars: CalendarBook, clock: Clock, final_lag: float
    ) -> None:
        self.columns = columns
        self._catalog = catalog
        self._calendars = calendars
        self._clock = clock
        self._lag = final_lag
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
        self, entry: Entry, start: int | None = None, end: int | None = None, adjust: Adjust = "splits"
    ) -> HistoryAnswer:
        """`start` None: from where on the series is kept; `end` None: today at the market."""
        calendar = self._calendars.get(entry.instrument.place.calendar)
        await self._trust(entry)
        today = self.today(entry)
        whole, provisional = await self._whole(entry, adjust, today)
        end = today if end is None else end
        start = min(self._first(entry, whole.sessions), end) if start is None else start
        bars = whole.between(start, end)
        covered = self._covered(entry, calendar, whole.sessions, start, end)
        self.count(covered.complete)
        low = int(whole.sessions.searchsorted(start))
        return HistoryAnswer(
            entry,
            start,
            end,
            adjust,
            bars,
            provisional[low : low + len(bars)],
            covered,
            entry.version,
            self._valid_until(entry, calendar),
        )

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
        return coverage(sessions, calendar, state, start, end, self._clock.time(), self._lag)

    def _valid_until(self, entry: Entry, calendar: SessionCalendar) -> float:
        now = self._clock.time()
        zone = ZoneInfo(entry.instrument.place.time_zone)
        tomorrow = datetime.fromtimestamp(now, zone).date() + timedelta(days=1)
        midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).astimezone(UTC).timestamp()
        due = calendar.next_due(now, self._lag)
        return midnight if due is None else min(midnight, due)
