"""How far the day change of each followed portfolio has gone today: kept in memory, saved within a second."""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.currencies import digits
from pricecache.core.portfolios import Portfolio
from pricecache.stores.day_ranges import DayRange, DayRangeStore

log = structlog.get_logger(__name__)

SAVE_SECONDS = 1.0
LEAST_MOVE, SHARE_OF_RANGE = 0.02, 0.01
"""A correction that moves the day change by no more than this, in base currency or of the range, leaves the range."""
DAYS_BACK = 10
"""A range of a session before that says nothing of the one that is the latest now."""


@dataclass(frozen=True, slots=True)
class RangeNow:
    """The highest and lowest value of a session in base currency, from `since` on (seconds since 1970 UTC)."""

    high: float
    low: float
    since: float


class DayRanges:
    """Ranges by portfolio. Loop-only.

    A range is of the day change, which no deposit or purchase moves: the highest value that today's flows would have
    had is the value less the change plus the highest change. A kill loses what was seen in the last second.
    """

    def __init__(self, store: DayRangeStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ranges: dict[str, DayRange] = {}
        self._unsaved: set[str] = set()
        self._saving: set[str] = set()
        self._leaving: set[str] = set()
        self._failing = False

    def get(self, portfolio_id: str, day: int | None) -> DayRange | None:
        """Of the session of `day`, None when nothing was seen of it."""
        found = self._ranges.get(portfolio_id)
        return found if found is not None and found.day == day else None

    def now(self, portfolio: Portfolio, day: int | None, value: float | None, change: float | None) -> RangeNow | None:
        """Of the session of `day`, in which the portfolio is worth `value` now and has changed by `change`."""
        seen = self.get(portfolio.id, day)
        if seen is None or value is None or change is None:
            return None
        places, least = digits(portfolio.rules.currency), value - change
        high, low = least + max(seen.high, change), least + min(seen.low, change)
        return RangeNow(round(high, places), round(low, places), seen.since)

    async def load(self, portfolio_ids: list[str]) -> None:
        """What is stored of these; what was seen here meanwhile stays seen."""
        self._leaving.difference_update(portfolio_ids)
        wanted = [one for one in portfolio_ids if one not in self._ranges]
        if not wanted:
            return
        since = int(self._clock.time() // DAY_SECONDS) - DAYS_BACK
        for portfolio, stored in (await self._store.load(wanted, since)).items():
            seen = self._ranges.get(portfolio)
            if seen is None or (seen.day, seen.corrections) < (stored.day, stored.corrections):
                self._ranges[portfolio] = stored
            elif (seen.day, seen.corrections) == (stored.day, stored.corrections):
                high, low = max(seen.high, stored.high), min(seen.low, stored.low)
                self._ranges[portfolio] = replace(seen, high=high, low=low, since=min(seen.since, stored.since))

    def note(
        self,
        portfolio_id: str,
        day: int,
        change: float,
        corrections: int | None = None,
        before: float | None = None,
    ) -> None:
        """The day change in the session of `day` is `change` now. `corrections`: how many the ledger has had that it is
        of, None for as many as are known. When there is a new one the range begins anew, unless it moved the change by
        next to nothing: `before` is what that was of the ledger before it, at the same prices, None unknown. What is of
        an earlier session than is known already, or of a ledger before its last correction, changes nothing."""
        now, seen = self._clock.time(), self._ranges.get(portfolio_id)
        known = 0 if seen is None else seen.corrections
        by = known if corrections is None else corrections
        if by < known:
            return
        if seen is not None and by > known and before is not None and _is_near(before, change, seen):
            seen = self._keep(replace(seen, corrections=by))
            known = by
        if seen is None or seen.day < day or by > known:
            self._keep(DayRange(portfolio_id, day, change, change, now, now, by))
        elif seen.day == day and not seen.low <= change <= seen.high:
            self._keep(replace(seen, high=max(seen.high, change), low=min(seen.low, change), at=now))

    def is_corrected(self, portfolio_id: str, corrections: int) -> bool:
        """Whether what was seen is of a ledger before its last correction."""
        seen = self._ranges.get(portfolio_id)
        return seen is not None and corrections > seen.corrections

    def forget(self, portfolio_id: str) -> None:
        """Nobody follows it here any more; what is stored stays, and what is not yet goes when it is."""
        if portfolio_id in self._unsaved or portfolio_id in self._saving:
            self._leaving.add(portfolio_id)
        else:
            self._ranges.pop(portfolio_id, None)

    def _keep(self, one: DayRange) -> DayRange:
        self._ranges[one.portfolio] = one
        self._unsaved.add(one.portfolio)
        return one

    async def run(self) -> None:
        """Save what has moved, once a second, until cancelled."""
        while True:
            await self._clock.sleep(SAVE_SECONDS)
            await self.save()

    async def save(self) -> None:
        """Save what has moved since the last time; what cannot be saved now waits for the next time."""
        if not self._unsaved:
            return
        self._saving, self._unsaved = self._unsaved, set()
        try:
            await self._store.save([self._ranges[name] for name in self._saving])
        except PyMongoError as exc:
            self._unsaved |= self._saving
            if not self._failing:
                log.warning("day ranges cannot be saved", portfolios=len(self._saving), error=str(exc)[:200])
            self._failing = True
            return
        except BaseException:  # the daemon stops, and saves once more at its end
            self._unsaved |= self._saving
            raise
        finally:
            self._let_go(self._saving)
        if self._failing:
            log.info("day ranges are saved again")
        self._failing = False

    def _let_go(self, saved: set[str]) -> None:
        gone = (saved & self._leaving) - self._unsaved
        for name in gone:
            del self._ranges[name]
        self._leaving -= gone
        self._saving = set()


def _is_near(before: float, after: float, seen: DayRange) -> bool:
    """Whether what was seen would have been about the same without the difference."""
    return abs(after - before) <= max(LEAST_MOVE, SHARE_OF_RANGE * (seen.high - seen.low))
