"""Answers what history looked like to whoever asked at an earlier instant: bars and actions as they were known then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
from cachetools import LRUCache

from pricecache.cache.reader import HistoryAnswer
from pricecache.core.actions import Adjust, adjusted, in_effect
from pricecache.core.bars import day_number
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.coverage import Coverage, Stretch, SyncState, coverage
from pricecache.core.sessions import CalendarBook
from pricecache.stores.bars import BarStore
from pricecache.stores.journal import Replayed

_NOBODY_WAS_ASKED = SyncState(wanted_from=day_number(date.max))
_NOT_HELD = "due by then, not held then"


class AsKnown:
    """Reads history as it was known. Never calls a provider. Loop-only.

    What was known at an instant is what was committed by then, as the journal has it; provisional bars are never in
    it. Replays are kept, up to `max_bytes` of them, each for one revision of its series.
    """

    def __init__(
        self, catalog: Catalog, store: BarStore, calendars: CalendarBook, final_lag: float, max_bytes: int = 16 << 20
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._calendars = calendars
        self._lag = final_lag
        self._kept: LRUCache[tuple[int, int, float], Replayed] = LRUCache(max_bytes, getsizeof=_size)

    async def history(
        self, entry: Entry, instant: float, start: int | None = None, end: int | None = None, adjust: Adjust = "splits"
    ) -> HistoryAnswer:
        """`instant`: seconds since 1970 UTC. `start` None: the first session held then; `end` None: the date at the
        market then. Actions count that were known and in effect then.

        Coverage holds what was held against what was due by then. Of sessions without a bar it says what is known now
        of the instrument (`before_listing`, `after_delisting`, `confirmed_absent`), and else `pending`: what was
        failing then is not kept, and what fails now says nothing of then.
        """
        calendar = self._calendars.get(entry.instrument.place.calendar)
        if not self._catalog.trusted or not entry.current:
            await self._store.refresh([entry])
        version = entry.version
        known = await self._known(entry, instant)
        today = market_date(entry, instant)
        whole = adjusted(known.bars, in_effect(known.actions, today), adjust, entry.currency)
        end = today if end is None else end
        if start is None:
            start = min(int(whole.sessions[0]) if len(whole) else entry.state.wanted_from, end)
        bars = whole.between(start, end)
        by_hand = known.bars.sessions[known.provenance.by_hand]
        asked = entry.tracked and entry.instrument.place.has_provider
        state = _forgetful(entry.state) if asked else _NOBODY_WAS_ASKED
        covered = coverage(whole.sessions, calendar, state, start, end, instant, entry.lag(self._lag))
        return HistoryAnswer(
            entry,
            start,
            end,
            adjust,
            bars,
            np.zeros(len(bars), bool),
            _as_of_then(covered),
            version,
            np.inf,
            manual=by_hand[(by_hand >= start) & (by_hand <= end)],
            as_known_on=instant,
            known_since=None if known.committed_at is None else known.committed_at / 1000,
        )

    async def _known(self, entry: Entry, instant: float) -> Replayed:
        key = (entry.id, entry.head.rev, instant)
        known = self._kept.get(key)
        if known is None:
            known = await self._store.as_known_on(entry, instant)
            if entry.head.rev == key[1] and _size(known) <= self._kept.maxsize:
                self._kept[key] = known
        return known


def market_date(entry: Entry, instant: float) -> int:
    """The calendar date at the instrument's market at `instant` (seconds since 1970 UTC), days since 1970-01-01."""
    zone = ZoneInfo(entry.instrument.place.time_zone)
    return day_number(datetime.fromtimestamp(instant, UTC).astimezone(zone).date())


def _size(known: Replayed) -> int:
    return known.bars.nbytes + 10 * len(known.bars) + 200 * len(known.actions) + 1000


def _forgetful(state: SyncState) -> SyncState:
    return replace(
        state,
        attempts=0,
        failing_since=None,
        next_retry=None,
        code=None,
        reason=None,
        holes={},
        parked={},
        refused={},
    )


def _as_of_then(covered: Coverage) -> Coverage:
    return Coverage(covered.expected, covered.present, tuple(_then(stretch) for stretch in covered.missing))


def _then(stretch: Stretch) -> Stretch:
    return replace(stretch, reason=_NOT_HELD) if stretch.absence == "pending" else stretch
