"""Tells whether a new price is all that has changed about an instrument, or what it is measured against too."""

from __future__ import annotations

from typing import NamedTuple

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.catalog import Entry
from pricecache.core.quotes import Quote
from pricecache.core.running import Running, running_at
from pricecache.core.sessions import CalendarBook

_HOURS_SECONDS = 1.0
"""For so long it is taken as known which session runs; the next look notices."""


class Signature(NamedTuple):
    """All that figures of one instrument depend on but its latest price.

    `version`: of its catalog entry, so of its bars, actions, currency; `opened`, `due`: the last session of its market
    that has opened, and the last one whose bar should be in; `is_open`: whether it is open; `session`: the one whose
    price the quote is, None when the quote counts for none; `is_stale`: whether it is stale; `said`: what it says of a
    session, whether or not its price counts.
    """

    version: int
    opened: int | None
    due: int | None
    is_open: bool
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
        self._hours: dict[tuple[str, float], _Hours] = {}

    def of(self, entry: Entry) -> tuple[Signature, Quote | None]:
        """At this moment, with the quote that it is of. Raises `Unavailable` while the calendar is built."""
        now, quote = self._clock.time(), self._live.get(entry.instrument.key)
        hours = self._at(entry.instrument.place.calendar, entry.lag(self._lag), now)
        running = hours.running
        opened = None if running is None else running.session
        if quote is None:
            return Signature(entry.version, opened, hours.due, hours.is_open, None, True, None, entry.currency), None
        is_stale = now >= quote.stale_at
        counts = running is not None and not is_stale and quote.currency == entry.currency and running.has(quote)
        said = quote.session, quote.open, quote.previous_close, quote.currency
        session = opened if counts else None
        times = entry.version, opened, hours.due, hours.is_open
        return Signature(*times, session, is_stale, said, entry.currency), quote

    def _at(self, name: str, lag: float, now: float) -> _Hours:
        known = self._hours.get((name, lag))
        if known is None or not 0 <= now - known.at < _HOURS_SECONDS:
            calendar = self._calendars.get(name)
            times = running_at(calendar, now, lag), calendar.last_closed(now, lag), calendar.is_open(now)
            known = _Hours(now, *times)
            self._hours[name, lag] = known
        return known


class _Hours(NamedTuple):
    at: float
    running: Running | None
    due: int | None
    is_open: bool
