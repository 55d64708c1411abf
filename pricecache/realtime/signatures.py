"""Tells whether a new price is all that has changed about an instrument, or what it is measured against too."""

from __future__ import annotations

from typing import NamedTuple

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.catalog import Entry
from pricecache.core.quotes import Quote
from pricecache.core.running import running_session
from pricecache.core.sessions import CalendarBook, SessionCalendar

_HOURS_SECONDS = 1.0
"""For so long it is taken as known which session runs; the next look notices."""


class Signature(NamedTuple):
    """All that figures of one instrument depend on but its latest price.

    `version`: of its catalog entry, so of its bars, actions, currency; `opened`, `due`: the last session of its market
    that has opened, and the last one whose bar should be in; `session`: the one whose price the quote is, None when the
    quote counts for none; `is_stale`: whether it is stale; `said`: what it says of a session, whether or not its price
    counts.
    """

    version: int
    opened: int | None
    due: int | None
    session: int | None
    is_stale: bool
    said: tuple[int | None, float | None, float | None, str] | None
    currency: str


class Signatures:
    """Makes them from the live cache. Loop-only. `lag`: seconds after a close until a bar is final."""

    def __init__(self, live: LiveCache, calendars: CalendarBook, clock: Clock, lag: float) -> None:
        self._live = live
        self._calendars = calendars
        self._clock = clock
        self._lag = lag
        self._hours: dict[tuple[str, float], tuple[float, int | None, int | None]] = {}

    def of(self, entry: Entry) -> tuple[Signature, Quote | None]:
        """At this moment, with the quote that it is of. Raises `Unavailable` while the calendar is built."""
        now, quote = self._clock.time(), self._live.get(entry.instrument.key)
        calendar, lag = self._calendars.get(entry.instrument.place.calendar), entry.lag(self._lag)
        opened, due = self._at(calendar, lag, now)
        if quote is None:
            return Signature(entry.version, opened, due, None, True, None, entry.currency), None
        session = running_session(quote, calendar, entry.currency, now, lag)
        said = quote.session, quote.open, quote.previous_close, quote.currency
        is_stale = now >= quote.stale_at
        return Signature(entry.version, opened, due, session, is_stale, said, entry.currency), quote

    def _at(self, calendar: SessionCalendar, lag: float, now: float) -> tuple[int | None, int | None]:
        key = calendar.name, lag
        known = self._hours.get(key)
        if known is None or not 0 <= now - known[0] < _HOURS_SECONDS:
            known = self._hours[key] = now, calendar.current(now), calendar.last_closed(now, lag)
        return known[1], known[2]
