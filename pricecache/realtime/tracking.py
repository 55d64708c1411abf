"""Live tracking by user: whose portfolios are kept up to the minute, and what these closed at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

import structlog
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook
from pricecache.errors import PricecacheError, Unavailable
from pricecache.portfolio.market import EVERY_DAY
from pricecache.stores.day_ranges import Close, DayRangeStore
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.tracked_users import TrackedUser, TrackedUserStore

log = structlog.get_logger(__name__)

CLOSED_FOR_SECONDS = 60.0
"""How long after the close the last price of a session is waited for before what a portfolio closed at is kept."""
LATE_SECONDS = 3600.0
"""How long after the close what also holds something that never closes is still worth what it closed at."""

USERS_AT_ONCE = 200
"""Whose portfolios are read with one query, and taken up before the event loop gets its turn."""


class Present(Protocol):
    """What a followed portfolio is now: `day` is its latest session, days since 1970-01-01; the rest in base currency,
    None while it is not known."""

    @property
    def day(self) -> int | None: ...
    @property
    def held(self) -> Collection[Instrument]: ...
    @property
    def value(self) -> float | None: ...
    @property
    def change(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...


class Followers(Protocol):
    """Who values portfolios for as long as they are tracked."""

    def track(self, portfolio_id: str) -> object: ...
    def untrack(self, portfolio_id: str) -> object: ...
    def look(self, portfolios: Collection[str]) -> object:
        """Value these anew soon, whether or not a price came."""

    def present(self, portfolio_id: str) -> Present | None: ...


@dataclass(frozen=True, slots=True)
class TrackingStatus:
    """Of one user. `tracked`: None when nothing is; `next_at`: when the next look is, None while every market is
    closed; times in seconds since 1970 UTC. `closes`: the last of each portfolio."""

    tracked: TrackedUser | None
    portfolios: tuple[str, ...]
    instruments: int
    is_market_open: bool
    looked_at: float | None
    next_at: float | None
    opens_at: float | None
    closes: tuple[Close, ...]


class LiveTracking:
    """Starts, stops and keeps up the tracking of users' portfolios. Loop-only.

    Who is tracked stands in the database, so that a restart goes on and every daemon follows the same. In the hours of
    the markets of what is held, a portfolio is looked at every `interval` seconds, and at once when a price comes;
    a minute after the last of its exchanges has closed, what it was worth is kept. What trades every day never closes.
    """

    def __init__(
        self,
        users: TrackedUserStore,
        portfolios: PortfolioStore,
        followers: Followers,
        ranges: DayRangeStore,
        calendars: CalendarBook,
        clock: Clock,
        *,
        interval: float,
    ) -> None:
        self.interval = interval
        self._users = users
        self._portfolios = portfolios
        self._followers = followers
        self._ranges = ranges
        self._calendars = calendars
        self._clock = clock
        self._tracked: dict[str, tuple[str, ...]] = {}
        self._closed: dict[str, int] = {}
        self._looked_at: float | None = None
        self._failing = False

    @property
    def users(self) -> int:
        return len(self._tracked)

    @property
    def portfolios(self) -> list[str]:
        """Of every tracked user."""
        return [one for ids in self._tracked.values() for one in ids]

    def held(self) -> set[Instrument]:
        """What tracked portfolios hold now."""
        found = (self._followers.present(one) for one in self.portfolios)
        return {instrument for present in found if present is not None for instrument in present.held}

    async def start(self, user: str, by: str) -> bool:
        """Whether it was not tracked before."""
        is_new = await self._users.start(user, by)
        await self._follow([user])
        self._followers.look(self._tracked[user])
        return is_new

    async def stop(self, user: str) -> bool:
        """Whether it was tracked before."""
        was_tracked = await self._users.stop(user)
        self._unfollow(user)
        return was_tracked

    async def status(self, user: str) -> TrackingStatus:
        tracked = await self._users.get(user)
        portfolios = tuple(one.id for one in await self._portfolios.all_of(user) if not one.is_archived)
        found = [present for one in portfolios if (present := self._followers.present(one)) is not None]
        held = {instrument for present in found for instrument in present.held}
        now = self._clock.time()
        is_open = any(self._is_open(one, now) for one in held)
        looked_at = self._looked_at
        if tracked is None or (looked_at is not None and looked_at < tracked.since):
            looked_at = None
        next_at = None if tracked is None or not is_open else (now if looked_at is None else looked_at) + self.interval
        opens_at = min((self._opens(one, now) for one in held), default=inf)
        return TrackingStatus(
            tracked,
            portfolios,
            len(held),
            is_open,
            looked_at,
            next_at,
            None if is_open or opens_at == inf else opens_at,
            tuple((await self._ranges.closes(portfolios)).values()),
        )

    async def run(self) -> None:
        """Look every `interval` seconds until cancelled."""
        while True:
            try:
                await self.turn()
                self._failing = False
            except (PyMongoError, PricecacheError) as exc:
                if not self._failing:
                    log.warning("live tracking is held up", error=f"{type(exc).__name__}: {exc}"[:300])
                self._failing = True
            except Exception:  # one fault must not end all looks
                log.exception("live tracking failed")
            await self._clock.sleep(self.interval)

    async def turn(self) -> None:
        """One look: at who is tracked, at what they hold in markets that are open, at what has closed."""
        users = {one.user for one in await self._users.all()}
        for user in set(self._tracked) - users:
            self._unfollow(user)
        await self._follow(sorted(users))
        now = self._clock.time()
        self._looked_at = now
        self._followers.look([one for one in self.portfolios if self._moves(one, now)])
        await self._capture(now)

    async def _follow(self, users: Sequence[str]) -> None:
        for i in range(0, len(users), USERS_AT_ONCE):
            found = await self._portfolios.all_of_each(users[i : i + USERS_AT_ONCE])
            for user, portfolios in found.items():
                self._take(user, tuple(one.id for one in portfolios if not one.is_archived))

    def _take(self, user: str, present: tuple[str, ...]) -> None:
        for gone in set(self._tracked.get(user, ())) - set(present):
            self._followers.untrack(gone)
        self._tracked[user] = present
        for portfolio in present:
            self._followers.track(portfolio)

    def _unfollow(self, user: str) -> None:
        for portfolio in self._tracked.pop(user, ()):
            self._followers.untrack(portfolio)

    def _moves(self, portfolio: str, now: float) -> bool:
        present = self._followers.present(portfolio)
        return present is not None and any(self._is_open(one, now) for one in present.held)

    async def _capture(self, now: float) -> None:
        """Keep what portfolios closed at of which the last market has closed."""
        closes = [close for one in self.portfolios if (close := self._close_of(one, now)) is not None]
        if closes:
            await self._ranges.close(closes)
            self._closed.update({close.portfolio: close.day for close in closes})
            log.info("closes kept", portfolios=len(closes))

    def _close_of(self, portfolio: str, now: float) -> Close | None:
        present = self._followers.present(portfolio)
        if present is None or present.value is None:
            return None
        names = {one.place.calendar for one in present.held}
        closing = self._sessions(names - EVERY_DAY, now)
        day = max((session for session, _ in closing), default=None)
        if day is None or self._closed.get(portfolio) == day:
            return None
        closed_at = max(close for _, close in closing)
        moves_on = bool(names & EVERY_DAY) and now > closed_at + LATE_SECONDS  # it has been worth something else since
        if now < closed_at + CLOSED_FOR_SECONDS or moves_on:
            return None
        ranged = (present.high, present.low) if present.day == day else (None, None)
        return Close(portfolio, day, present.value, present.change, *ranged, now)

    def _sessions(self, names: Collection[str], now: float) -> list[tuple[int, float]]:
        """Of each of these calendars the last session that has opened, and its close; of none while one is built."""
        try:
            calendars = [self._calendars.get(name) for name in names]
        except Unavailable:
            return []
        found = [(session, one.close_of(session)) for one in calendars if (session := one.current(now)) is not None]
        return [(session, close) for session, close in found if close is not None]

    def _is_open(self, instrument: Instrument, now: float, lag: float = 0.0) -> bool:
        try:
            return self._calendars.get(instrument.place.calendar).is_open(now, lag)
        except Unavailable:
            return False

    def _opens(self, instrument: Instrument, now: float) -> float:
        try:
            opens = self._calendars.get(instrument.place.calendar).next_open(now)
        except Unavailable:
            return inf
        return inf if opens is None else opens
