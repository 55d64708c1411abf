"""Live tracking by user: whose portfolios are kept up to the minute, and what these closed at."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

import structlog
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.core.instruments import Instrument
from pricecache.core.portfolios import Portfolio
from pricecache.core.sessions import CalendarBook
from pricecache.errors import PricecacheError, Unavailable
from pricecache.portfolio.market import EVERY_DAY
from pricecache.realtime.market_hours import MarketHours
from pricecache.stores.day_ranges import Close, DayRangeStore
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.tracked_users import TrackedUser, TrackedUserStore

log = structlog.get_logger(__name__)

LATE_SECONDS = 3600.0
"""How long after the close what also holds something that never closes is still worth what it closed at."""
USERS_AT_ONCE, PORTFOLIOS_AT_ONCE = 200, 200
"""That are looked at before the event loop gets its turn."""


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
    def held(self, portfolio_id: str) -> frozenset[Instrument]:
        """What it holds now, as far as it is followed and computed; costs less than all of `present`."""


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
        self._closed: dict[str, tuple[int, float]] = {}
        self._asked: set[str] = set()
        self._looked_at: float | None = None
        self._held: set[Instrument] = set()
        self._failing = False

    @property
    def users(self) -> int:
        return len(self._tracked)

    @property
    def portfolios(self) -> list[str]:
        """Of every tracked user."""
        return [one for ids in self._tracked.values() for one in ids]

    def held(self) -> frozenset[Instrument]:
        """What tracked portfolios held at the last look, or when they began to be tracked after it."""
        return frozenset(self._held)

    async def start(self, user: str, by: str) -> bool:
        """Whether it was not tracked before."""
        is_new = await self._users.start(user, by)
        portfolios = await self._portfolios.all_of_each([user])
        self._asked.add(user)
        self._follow(user, portfolios[user])
        self._followers.look(self._tracked[user])
        return is_new

    async def stop(self, user: str) -> bool:
        """Whether it was tracked before."""
        was_tracked = await self._users.stop(user)
        self._asked.add(user)
        self._unfollow(user)
        return was_tracked

    async def status(self, user: str) -> TrackingStatus:
        tracked = await self._users.get(user)
        portfolios = tuple(one.id for one in await self._portfolios.all_of(user) if not one.is_archived)
        found = [present for one in portfolios if (present := self._followers.present(one)) is not None]
        held = {instrument for present in found for instrument in present.held}
        now = self._clock.time()
        is_open = MarketHours(self._calendars, now).any_open(held)
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
        await self._follow_all()
        hours = MarketHours(self._calendars, self._clock.time())
        self._looked_at = hours.now
        portfolios, kept, held = self.portfolios, 0, set[Instrument]()
        for i in range(0, len(portfolios), PORTFOLIOS_AT_ONCE):
            portion = portfolios[i : i + PORTFOLIOS_AT_ONCE]
            self._followers.look([one for one in portion if hours.any_open(self._followers.held(one))])
            held.update(*map(self._followers.held, portion))
            kept += await self._capture(portion, hours)
            await asyncio.sleep(0)
        self._held = held
        if kept:
            log.info("closes kept", portfolios=kept)

    async def _follow_all(self) -> None:
        """Those who begin or stop meanwhile are left as they asked for."""
        self._asked.clear()
        users = [one.user for one in await self._users.all()]
        for user in set(self._tracked) - set(users) - self._asked:
            self._unfollow(user)
        for i in range(0, len(users), USERS_AT_ONCE):
            found = await self._portfolios.all_of_each(users[i : i + USERS_AT_ONCE])
            for user, portfolios in found.items():
                if user not in self._asked:
                    self._follow(user, portfolios)

    def _follow(self, user: str, portfolios: Sequence[Portfolio]) -> None:
        present = tuple(one.id for one in portfolios if not one.is_archived)
        for gone in set(self._tracked.get(user, ())) - set(present):
            self._leave(gone)
        self._tracked[user] = present
        for portfolio in present:
            self._followers.track(portfolio)

    def _unfollow(self, user: str) -> None:
        for portfolio in self._tracked.pop(user, ()):
            self._leave(portfolio)

    def _leave(self, portfolio: str) -> None:
        self._followers.untrack(portfolio)
        self._closed.pop(portfolio, None)

    async def _capture(self, portfolios: Sequence[str], hours: MarketHours) -> int:
        """Keep what those of `portfolios` closed at of which the last market has closed; how many that are."""
        closes = [close for one in portfolios if (close := self._close_of(one, hours)) is not None]
        if closes:
            await self._ranges.close(closes)
            self._closed.update({close.portfolio: (close.day, close.closed_at) for close in closes})
        return len(closes)

    def _close_of(self, portfolio: str, hours: MarketHours) -> Close | None:
        held = self._followers.held(portfolio)
        closed = hours.closed(held)
        if closed is None:
            return None
        moves_on = hours.now > closed.at + LATE_SECONDS and any(one.place.calendar in EVERY_DAY for one in held)
        present = self._followers.present(portfolio)
        if moves_on or present is None or present.day is None or present.value is None:
            return None
        # a fund has its price of a day later, and what trades every day goes on after it
        day = min(closed.session, present.day)
        if self._closed.get(portfolio) == (day, closed.at):
            return None
        ranged = (present.high, present.low) if present.day == day else (None, None)
        return Close(portfolio, day, present.value, present.change, *ranged, at=hours.now, closed_at=closed.at)

    def _opens(self, instrument: Instrument, now: float) -> float:
        try:
            opens = self._calendars.get(instrument.place.calendar).next_open(now)
        except Unavailable:
            return inf
        return inf if opens is None else opens
