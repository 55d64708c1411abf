"""Which markets are open at one instant, each looked up once however many portfolios hold something of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from pricecache.core.instruments import Instrument
from pricecache.core.markets import MARKETS
from pricecache.core.sessions import CalendarBook
from pricecache.errors import Unavailable
from pricecache.portfolio.market import EVERY_DAY

CLOSED_FOR_SECONDS = 60.0
"""How long after the close the last price of a session is waited for before what a portfolio closed at is kept."""


class Closed(NamedTuple):
    """A session that is over: its day, days since 1970-01-01, and when it closed, seconds since 1970 UTC."""

    session: int
    at: float


class MarketHours:
    """Of all markets at instant `now`, seconds since 1970 UTC. A market whose calendar is being built is closed.
    Loop-only."""

    def __init__(self, calendars: CalendarBook, now: float) -> None:
        self.now = now
        self._calendars = calendars
        self._open: dict[str, bool] = {}
        self._closed: dict[str, Closed | None] = {}

    def any_open(self, held: Collection[Instrument]) -> bool:
        """Whether something of it is traded now."""
        return any(self._is_open(market) for market in {one.market for one in held})

    def closed(self, held: Collection[Instrument]) -> Closed | None:
        """The last session of the exchanges of `held`, once each of them has been closed for a minute; None before.
        What trades every day never closes, and counts for nothing here."""
        markets = {one.market for one in held}
        closed = [self._last(market) for market in markets if MARKETS[market].calendar not in EVERY_DAY]
        known = [one for one in closed if one is not None]
        return max(known) if known and len(known) == len(closed) else None

    def _is_open(self, market: str) -> bool:
        found = self._open.get(market)
        if found is None:
            found = self._open[market] = self._open_now(market)
        return found

    def _open_now(self, market: str) -> bool:
        try:
            return self._calendars.get(MARKETS[market].calendar).is_open(self.now)
        except Unavailable:
            return False

    def _last(self, market: str) -> Closed | None:
        """None while it is open."""
        if market not in self._closed:
            self._closed[market] = self._last_closed(market)
        return self._closed[market]

    def _last_closed(self, market: str) -> Closed | None:
        try:
            calendar = self._calendars.get(MARKETS[market].calendar)
        except Unavailable:
            return None
        if calendar.is_open(self.now, CLOSED_FOR_SECONDS):
            return None
        session = calendar.last_closed(self.now, CLOSED_FOR_SECONDS)
        at = None if session is None else calendar.close_of(session)
        return None if session is None or at is None else Closed(session, at)
