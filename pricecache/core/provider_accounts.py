"""What is kept of one provider, as one value: its rate, day's budget, breaker, cool-down, and what became of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pricecache.core.asking import LANES, Lane, Pace
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.text import plain_text
from pricecache.errors import BudgetSpent, ProviderError, ProviderPaused, RateLimited, SymbolNotFound

RESERVED: Mapping[Lane, int] = {"live": 40, "user": 20, "heal": 20}
"""Per cent of a day's requests kept for a lane. What is kept for nobody, and what a lane leaves, anybody may spend who
is at least as urgent as those it is kept for."""

SEARCHES_PERCENT = 5
"""The most of a day's requests that searches may spend."""
FAILURES_TO_OPEN = 5
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 900.0
"""Seconds that an open breaker stays open: at first, and at most after doubling with each failed trial."""
FIRST_COOL_DOWN, LONGEST_COOL_DOWN = 120.0, 900.0
"""Seconds without calls after a 429 that names none: at first, and at most after doubling until a success."""
TRIAL_SLACK = 30.0
"""Seconds past its time-out after which a trial counts as abandoned: the daemon that made it is gone."""
HOURS_KEPT = 24
HOUR = 3600

_CLOCKS_APART = 60.0  # seconds by which the clocks of two daemons, or of one before and after it is set, may differ
_INSTANT = 1e-6  # a wait this short is none: what a clock adds up never comes out even

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Hour:
    """Calls that ended within one hour (whole hours since 1970 UTC), and those of them that failed, by code."""

    hour: int
    calls: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of asking to be let in. `wait`: seconds after which to ask again; 0: it is let in and has paid `cost`
    requests at `at` (seconds since 1970 UTC). `trial`: it is the one call that a half-open breaker lets in."""

    lane: Lane
    cost: int
    at: float
    wait: float = 0.0
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """The account of one provider. Pure; instants are seconds since 1970-01-01T00:00Z by the wall clock.

    `lacking`: tokens missing from a full bucket at `filled_at`. `spent`: requests of the UTC day `day` (days since
    1970) by lane. `requests` and `dollars`: ever. `failures`: failures of the provider in a row, the last of them for
    `cause`; `opened_at`: since
    when the breaker is not closed, or None; `pause`: how long it stays open this time, until `paused_until`;
    `trial_until`: until when somebody is trying, or 0. `cool_until`: end of the latest cool-down; `cool_next`: length
    of the next one. `failing`: the last word on the provider was a failure of its own.

    A change may be applied late, to an account that others have changed meanwhile: nothing in it goes back in time.
    """

    lacking: float = 0.0
    filled_at: float = 0.0
    day: int = 0
    spent: Mapping[Lane, int] = field(default_factory=dict)
    requests: int = 0
    dollars: float = 0.0
    failures: int = 0
    cause: str = ""
    opened_at: float | None = None
    pause: float = 0.0
    paused_until: float = 0.0
    trial_until: float = 0.0
    cool_until: float = 0.0
    cool_next: float = FIRST_COOL_DOWN
    failing: bool = False
    hours: tuple[Hour, ...] = ()
    last_success_at: float | None = None
    last_error_at: float | None = None
    last_error_code: str | None = None

    # ---- what it says

    def breaker(self, now: float) -> BreakerState:
        if self.opened_at is None:
            return "closed"
        return "open" if _left(self.paused_until, now, LONGEST_PAUSE) else "half_open"

    def cooling_down_for(self, now: float) -> float:
        """Seconds until calls are made again after a 429; 0 when it is not cooling down."""
        return _left(self.cool_until, now, LONGEST_COOL_DOWN)

    def spent_by_lane(self, now: float) -> Mapping[Lane, int]:
        """Requests spent of the present UTC day."""
        spent = self.spent if self.day >= int(now // DAY_SECONDS) else {}
        return {lane: spent.get(lane, 0) for lane in LANES}

    def remaining(self, pace: Pace, lane: Lane, now: float) -> int | None:
        """Requests that `lane` may still spend today: what is left of all, less the unspent reserves of the lanes more
        urgent than it; of searches no more than their part. None where days have no bound."""
        if pace.per_day is None:
            return None
        spent = self.spent_by_lane(now)
        urgent = LANES[: LANES.index(lane)]
        reserves = sum(max(0, reserve(pace.per_day, one) - spent[one]) for one in urgent)
        left = pace.per_day - sum(spent.values()) - reserves
        if lane == "search":
            left = min(left, max(1, pace.per_day * SEARCHES_PERCENT // 100) - spent[lane])
        return max(0, left)

    def of_last_day(self, now: float) -> tuple[int, dict[str, int]]:
        """Calls, and failures by code, of the last 24 hours to the hour."""
        recent = [hour for hour in self.hours if hour.hour > int(now // HOUR) - HOURS_KEPT]
        errors: dict[str, int] = {}
        for hour in recent:
            for code, count in hour.errors.items():
                errors[code] = errors.get(code, 0) + count
        return sum(hour.calls for hour in recent), errors

    @property
    def guard(self) -> tuple[object, ...]:
        """What keeps callers away: other daemons should know at once when it changes."""
        return self.opened_at, self.paused_until, self.trial_until, self.cool_until

    # ---- being let in

    def refusal(self, pace: Pace, lane: Lane, cost: int, now: float) -> ProviderError | None:
        """Why a call makes no sense now, or None."""
        if seconds := self.cooling_down_for(now):
            return RateLimited("The provider asked for fewer calls; waiting.", retry_after=seconds)
        if seconds := _left(self.paused_until, now, LONGEST_PAUSE) if self.opened_at is not None else 0.0:
            return ProviderPaused(self._with_cause("is not asked for a while"), retry_after=seconds)
        if seconds := _left(self.trial_until, now, LONGEST_PAUSE) if self.opened_at is not None else 0.0:
            return ProviderPaused(self._with_cause("is being tried"), retry_after=min(seconds, 5.0))
        left = self.remaining(pace, lane, now)
        if left is not None and left < cost:
            return BudgetSpent(
                f"Of {pace.per_day} requests a day none is left for calls of lane {lane}.",
                retry_after=next_day(now) - now,
            )
        return None

    def admit(self, pace: Pace, lane: Lane, cost: int, trial_cost: int, now: float) -> tuple[Account, Admission]:
        """Let a call of `cost` requests in, or say how long it has to wait. Raises `refusal`.

        When the breaker is half-open the call is let in for a trial, which costs `trial_cost`.
        """
        trial = self.breaker(now) == "half_open"
        cost = trial_cost if trial else cost
        if (refusal := self.refusal(pace, lane, cost, now)) is not None:
            raise refusal
        account = self if self.filled_at - now <= _CLOCKS_APART else replace(self, filled_at=now)  # it was set back
        missing = account._lacking(pace, now) + _tokens(pace, cost) - pace.burst
        if (wait := max(0.0, missing) / pace.per_second) > _INSTANT:
            return account, Admission(lane, cost, now, wait)
        admission = Admission(lane, cost, now, trial=trial)
        return account.entered(pace, admission), admission

    def entered(self, pace: Pace, admission: Admission, *, late: bool = False) -> Account:
        """With the tokens and the requests of a call that was let in taken off. `late`: it was let in long since, and
        its tokens may have flowed in again."""
        now, cost = admission.at, admission.cost
        since = max(0.0, self.filled_at - now) if late else 0.0
        taken = max(0.0, _tokens(pace, cost) - since * pace.per_second)
        account = replace(
            self._of_day(now, admission.lane, cost),
            lacking=self._lacking(pace, now) + taken,
            filled_at=max(self.filled_at, now),
            requests=self.requests + cost,
            dollars=self.dollars + cost * pace.price,
        )
        return replace(account, trial_until=now + pace.timeout + TRIAL_SLACK) if admission.trial else account

    def settled(self, pace: Pace, admission: Admission, requests: int) -> Account:
        """A call that was let in made so many `requests`, and not the `cost` it was charged."""
        more = requests - admission.cost
        tokens = _tokens(pace, requests) - _tokens(pace, admission.cost)
        return replace(
            self._of_day(admission.at, admission.lane, more),
            lacking=max(0.0, self.lacking + tokens),
            requests=self.requests + more,
            dollars=max(0.0, self.dollars + more * pace.price),
        )

    def returned(self, pace: Pace, admission: Admission) -> Account:
        """`entered` undone, of a call that was let in and not made."""
        account = self.settled(pace, admission, 0)
        return replace(account, trial_until=0.0) if admission.trial else account

    # ---- what became of a call

    def answered(self, now: float, *, trial: bool = False) -> Account:
        """The provider did what it was asked."""
        account = replace(
            self._counted(now, None),
            failing=False,
            last_success_at=max(now, self.last_success_at or now),
            cool_next=self.cool_next if self.cooling_down_for(now) else FIRST_COOL_DOWN,
        )
        if trial:
            return account._closed()
        return replace(account, failures=0) if self.opened_at is None else account

    def failed(self, now: float, code: str, *, detail: str = "", trial: bool = False) -> Account:
        """The provider itself failed: it was away, or does not know its own control symbol."""
        account = replace(
            self._with_error(now, code), failing=True, failures=self.failures + 1, cause=plain_text(detail)
        )
        if trial:
            return account._opened(now, min(LONGEST_PAUSE, 2 * self.pause))
        if self.opened_at is None and account.failures >= FAILURES_TO_OPEN:
            return account._opened(now, FIRST_PAUSE)
        return account

    def limited(self, now: float, code: str, retry_after: float | None, *, trial: bool = False) -> Account:
        """It asked for fewer calls: they stop for `retry_after` seconds, a quarter of an hour at most. Several calls
        under way often fail together, which is one cool-down."""
        account = replace(self._with_error(now, code), failing=True)
        if trial:
            account = replace(account, trial_until=0.0)  # no word on whether it works: the next call is the trial
        if self.cooling_down_for(now):
            return account
        if retry_after is not None:
            return replace(account, cool_until=now + min(LONGEST_COOL_DOWN, max(1.0, retry_after)))
        longer = min(LONGEST_COOL_DOWN, 2 * self.cool_next)
        return replace(account, cool_until=now + self.cool_next, cool_next=longer)

    def refused(self, now: float, code: str, *, trial: bool = False) -> Account:
        """It answered, and not with what was asked: an unknown symbol, something that cannot be read. No word for or
        against the provider, except that one which knows its symbols well enough to miss one works again."""
        account = self._with_error(now, code)
        if not trial:
            return account
        return account._closed() if code == SymbolNotFound.code else replace(account, trial_until=0.0)

    def passed_on(self, now: float, *, trial: bool = False) -> Account:
        """It does not know a symbol that the next provider is asked for now: no failure of anybody."""
        account = self._counted(now, None)
        return account._closed() if trial else account

    def reset(self, *, budget: bool = False) -> Account:
        """With the breaker closed and the cool-down over; with `budget` nothing of today's requests spent either."""
        account = replace(self._closed(), failing=False, cool_until=0.0, cool_next=FIRST_COOL_DOWN)
        return replace(account, spent={}) if budget else account

    # ---- parts of these

    def _lacking(self, pace: Pace, now: float) -> float:
        return max(0.0, self.lacking - max(0.0, now - self.filled_at) * pace.per_second)

    def _of_day(self, now: float, lane: Lane, cost: int) -> Account:
        day = int(now // DAY_SECONDS)
        if day < self.day:
            return self  # yesterday's, noted late
        spent = self.spent if day == self.day else {}
        return replace(self, day=day, spent={**spent, lane: max(0, spent.get(lane, 0) + cost)})

    def _with_cause(self, what: str) -> str:
        told = f"The provider failed repeatedly and {what}"
        return f"{told}. The last failure: {self.cause}" if self.cause else f"{told}."

    def _closed(self) -> Account:
        return replace(self, failures=0, cause="", opened_at=None, pause=0.0, paused_until=0.0, trial_until=0.0)

    def _opened(self, now: float, pause: float) -> Account:
        opened_at = now if self.opened_at is None else self.opened_at
        return replace(self, opened_at=opened_at, pause=pause, paused_until=now + pause, trial_until=0.0)

    def _with_error(self, now: float, code: str) -> Account:
        account = self._counted(now, code)
        if self.last_error_at is not None and now < self.last_error_at:
            return account
        return replace(account, last_error_at=now, last_error_code=code)

    def _counted(self, now: float, code: str | None) -> Account:
        number = int(now // HOUR)
        hours = {hour.hour: hour for hour in self.hours}
        hour = hours.get(number, Hour(number))
        errors = hour.errors if code is None else {**hour.errors, code: hour.errors.get(code, 0) + 1}
        hours[number] = Hour(number, hour.calls + 1, errors)
        return replace(self, hours=tuple(hours[n] for n in sorted(hours)[-HOURS_KEPT:]))


Change = Callable[[Account], Account]
"""What is done to an account; pure, because it may be done again to one that others have changed meanwhile."""


def reserve(per_day: int, lane: Lane) -> int:
    """Requests of a day that are kept for `lane`."""
    return per_day * RESERVED.get(lane, 0) // 100


def next_day(now: float) -> float:
    """When the next UTC day begins."""
    return float((int(now // DAY_SECONDS) + 1) * DAY_SECONDS)


def _tokens(pace: Pace, cost: int) -> float:
    return float(min(cost, pace.burst))  # a call of more requests than a burst waits for a full bucket


def _left(until: float, now: float, longest: float) -> float:
    # further ahead than it can ever have been set: the clock was set back
    return until - now if now < until <= now + longest + _CLOCKS_APART else 0.0
