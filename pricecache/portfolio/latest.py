"""The latest session of each instrument: its open, when and by whom its price was made, whether that is stale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.catalog import Entry
from pricecache.core.daychange import Session
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import Column, PriceColumn
from pricecache.core.quotes import Quote
from pricecache.core.running import running_session
from pricecache.core.sessions import CalendarBook, SessionCalendar


@dataclass(frozen=True, slots=True, eq=False)
class _Hours:
    """One calendar at one instant. `opened`: the last session that has opened, `due` the last one whose prices should
    be in, `closes` the close of each session looked at so far."""

    calendar: SessionCalendar
    now: float
    lag: float
    opened: int | None
    due: int | None
    is_open: bool
    closes: dict[int, tuple[float, int]]

    @classmethod
    def at(cls, calendar: SessionCalendar, now: float, lag: float) -> _Hours:
        opened, due = calendar.current(now), calendar.last_closed(now, lag)
        return cls(calendar, now, lag, opened, due, calendar.is_open(now), {})

    def opened_at(self, day: int) -> float:
        """When `day` opened, the beginning of its UTC day when it is no session."""
        at = int(self.calendar.sessions.searchsorted(day))
        is_session = at < len(self.calendar.sessions) and self.calendar.sessions[at] == day
        return float(self.calendar.opens[at]) if is_session else float(day * DAY_SECONDS)

    def of(self, day: int) -> tuple[float, int]:
        """When `day` closes (the end of its UTC day when it is no session), and the session before it."""
        found = self.closes.get(day)
        if found is None:
            close, at = self.calendar.close_of(day), int(self.calendar.sessions.searchsorted(day))
            before = int(self.calendar.sessions[at - 1]) if at else day - 1
            found = self.closes[day] = (float((day + 1) * DAY_SECONDS) if close is None else close, before)
        return found


class LatestSessions:
    """Tells the latest session of instruments from their quotes and bars. Loop-only. Never calls a provider.

    `lag`: seconds after a close until its bar is final.
    """

    def __init__(self, columns: ColumnCache, calendars: CalendarBook, live: LiveCache, lag: float) -> None:
        self._columns = columns
        self._calendars = calendars
        self._live = live
        self._lag = lag

    async def of(
        self, entries: Mapping[Instrument, Entry], prices: Mapping[Instrument, PriceColumn], now: float
    ) -> dict[Instrument, Session]:
        """Of every instrument in `entries` at instant `now`. Raises `Unavailable` while a calendar is built."""
        hours: dict[tuple[str, float], _Hours] = {}
        found = {}
        for instrument, entry in entries.items():
            key = instrument.place.calendar, entry.lag(self._lag)
            if key not in hours:
                hours[key] = _Hours.at(self._calendars.get(key[0]), now, key[1])
            found[instrument] = await self._session(entry, prices[instrument], hours[key])
        return found

    async def _session(self, entry: Entry, column: PriceColumn, hours: _Hours) -> Session:
        quote, held = self._live.get(entry.instrument.key), column.closes.sessions
        last = int(held[-1]) if len(held) else None
        day = _latest(entry, hours, last)
        at, source = _made(quote, entry, column, hours)
        opened = await self._open(entry, quote, day)
        return Session(day, hours.of(day)[1], opened, at, source, _is_stale(entry, quote, last, hours))

    async def _open(self, entry: Entry, quote: Quote | None, day: int) -> float | None:
        if quote is not None and quote.session == day and quote.open is not None and quote.currency == entry.currency:
            return quote.open
        for bars in (entry.tail, await self._columns.get(entry)):
            if not len(bars) or bars.sessions[-1] < day:
                continue
            at = int(bars.sessions.searchsorted(day))
            if bars.sessions[at] == day:
                opened = float(bars.open[at])
                return opened if opened == opened else None
        return None

    def with_previous(self, instrument: Instrument, column: PriceColumn, session: Session) -> PriceColumn:
        """`column` with the quote's own previous close, where the record has none of that session yet."""
        quote, closes = self._live.get(instrument.key), column.closes
        if quote is None or quote.previous_close is None or quote.session != session.day or not len(closes.sessions):
            return column
        at = int(closes.sessions.searchsorted(session.previous))
        is_there = at < len(closes.sessions) and closes.sessions[at] == session.previous
        if is_there or at < len(closes.sessions) - 1 or quote.currency != column.currency:
            return column
        traded = quote.previous_close * column.ratio(session.previous, session.day)
        sessions = np.insert(closes.sessions, at, session.previous)
        values = np.insert(closes.values, at, traded)
        return replace(column, closes=Column(sessions, values, closes.due))


def _latest(entry: Entry, hours: _Hours, last: int | None) -> int:
    """The last session its market has opened; of a fund, which is priced once a day, the last one it has a price of or
    should have."""
    opened = hours.opened
    if entry.kind == "fund":
        known = [day for day in (hours.due, last) if day is not None and (opened is None or day <= opened)]
        opened = max(known, default=opened)
    return int(hours.now // DAY_SECONDS) if opened is None else opened


def _made(quote: Quote | None, entry: Entry, column: PriceColumn, hours: _Hours) -> tuple[float | None, str | None]:
    """When the price that counts was made, and whose quote it is. One put in for a session that runs counts as made at
    its open: when it was, its bar does not say."""
    closes = column.closes
    if not len(closes.sessions):
        return None, None
    last = int(closes.sessions[-1])
    if quote is not None and quote.price == closes.values[-1] and hours.opened == last:
        session = running_session(quote, hours.calendar, entry.currency, hours.now, hours.lag)
        if session == last:
            return quote.as_of, quote.source
    close = hours.of(last)[0]
    return (close if close <= hours.now else min(hours.opened_at(last), hours.now)), None


def _is_stale(entry: Entry, quote: Quote | None, last: int | None, hours: _Hours) -> bool:
    """Whether a newer price should be here: its market is open and its quote is not fresh, or the last session that is
    over has no price. What only has prices by hand is never stale, nor what has traded for the last time."""
    ended = entry.state.delisted_after
    if last is None or not entry.instrument.place.has_provider or (ended is not None and last >= ended):
        return last is None
    if entry.kind != "fund" and hours.is_open:
        return quote is None or hours.now >= quote.stale_at
    return hours.due is not None and last < hours.due
