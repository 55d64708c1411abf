"""What prices of a million users cost: each security fetched once for everybody, beside each user fetching their own.

How many stocks a user holds follows the lognormal law through two figures of a Federal Reserve survey of households (as
Jason Zweig's column of November 2014 in the Wall Street Journal gives them): of those that hold shares themselves 36 %
hold those of one company, and 84 % those of nine at most. Rounded up, its mean is 7.1 and its median 2; 66,465
households at a broker held 4.3 and 2.6 (Barber and Odean, Journal of Finance 55, 2000). Of funds the median is 4, as in
the households that own any (Investment Company Institute, Fact Book 2019), with half that spread, an assumption. There
are 51,000 symbols to hold, as many as Financial Modeling Prep says it has. How often one is held falls with its rank as
1 / rank (Zipf), also an assumption: no survey was found that tells the exponent, so 0.8 and 1.2 stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Row

USERS = 1_000_000
SEED = 20261128
STOCK_SYMBOLS, FUND_SYMBOLS = 40_000, 11_000
STOCKS = 0.5825, 1.6240
"""Mean and deviation of the logarithm of how many a user holds, rounded up: 36 % lie up to one, 84 % up to nine."""
FUNDS = 1.25, 0.81
"""The same of funds: rounded up, the median is 4."""
MOST_HELD = 500
EXPONENTS = (1.0, 0.8, 1.2)
FEWER = (1_000, 10_000, 100_000)
PRICE = 0.001
"""Dollars a call, as `PRICECACHE_PROVIDER_LIMITS=fmp:price=0.001` counts them."""
CALLS = {"yfinance": 1, "fmp": 3}
"""Calls that two years of a security take: prices with their actions, or prices, splits and dividends."""
PER_SECOND = 1.0
"""Calls; what both providers are asked at most unless a setting says otherwise."""
AT_ONCE = 2
OWN_SECONDS = 0.25
"""Of the daemon's work on a user beside waiting for prices: the bound it is held to."""
CALL_SECONDS = 1.0
"""From a call to its answer."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Holdings:
    """`security`: int64, those of the first user, of the second, and so on, each of a user once. `first`: int64, shape
    (users + 1,), where those of each begin."""

    security: Ints
    first: Ints

    @property
    def distinct(self) -> int:
        return len(np.unique(self.security))


@dataclass(frozen=True, slots=True, eq=False)
class Queue:
    """Seconds since all users asked at once, float64, by user: when it was begun with one, and done."""

    begun: Floats
    done: Floats


def rows() -> list[Row]:
    held = drawn(USERS)
    shared, own = held.distinct, len(held.security)
    found = [_millions("securities that are fetched; that users fetch", shared, own), *_growth(held)]
    for provider, calls in CALLS.items():
        found.append(_millions(f"{provider}: calls for two years of all", shared * calls, own * calls))
        found.append(_dollars(f"  dollars at ${PRICE:g} a call", shared * calls, own * calls))
        found.append(_dollars("  dollars a user", shared * calls / USERS, own * calls / USERS, most=5.0))
    found.append(_millions("calls a day for the session that closed", shared, own))
    found.append(_dollars("  dollars a user and day", shared / USERS, own / USERS, most=0.01))
    return [*found, *_times(held)]


def _growth(held: Holdings) -> list[Row]:
    """Of fewer users, and of as many with another popularity: what one more of them costs."""
    found = []
    for users in FEWER:
        own = held.security[: held.first[users]]
        found.append(_millions(f"  of the first {users:,} users", len(np.unique(own)), len(own)))
    for exponent in EXPONENTS[1:]:
        other = drawn(FEWER[-1], exponent)
        what = f"  of {FEWER[-1]:,} with popularity 1 / rank^{exponent}"
        found.append(_millions(what, other.distinct, len(other.security)))
    return found


def _millions(what: str, ours: float, reference: float) -> Row:
    return Row(what, ours / 1e6, reference / 1e6, "million", ours / reference, "", None)


def _hours(what: str, ours: float, reference: float) -> Row:
    return Row(what, ours / 3600, reference / 3600, "h", ours / reference, "", None)


def _dollars(what: str, ours: float, reference: float, most: float | None = None) -> Row:
    goal = "" if most is None else f"at most ${most:g}"
    ours, reference = ours * PRICE, reference * PRICE
    return Row(what, ours, reference, "$", ours / reference, goal, None if most is None else ours <= most)


def _times(held: Holdings) -> list[Row]:
    """Of the queue when all ask at once, with one call for each security."""
    shared = queued(held)
    alone = len(held.security) / PER_SECOND
    took = shared.done - shared.begun
    return [
        _hours("hours until the last user is done", float(shared.done.max()), alone),
        _hours("  of it the daemon's own work", len(took) * OWN_SECONDS / AT_ONCE, alone),
        _hours("  of it calls, as fast as they may be", held.distinct / PER_SECOND, alone),
        Row("seconds on a user, mean; 3 minutes", *_within(float(took.mean()))),
        Row("  of 99 % of users at most; 3 minutes", *_within(float(np.quantile(took, 0.99)))),
        Row("  on the slowest, one of the first; 3 minutes", *_within(float(took.max()))),
    ]


def _within(seconds: float) -> tuple[float, float, str, float, str, bool]:
    return seconds, 180.0, "s", seconds / 180, "at most 1 x", seconds <= 180


def drawn(users: int, exponent: float = EXPONENTS[0], seed: int = SEED) -> Holdings:
    """What `users` users hold, the same for the same seed."""
    random = np.random.default_rng(seed)
    stocks, funds = (_counts(users, *law, random) for law in (STOCKS, FUNDS))
    kinds = (
        _distinct(stocks, _chances(STOCK_SYMBOLS, exponent), random),
        _distinct(funds, _chances(FUND_SYMBOLS, exponent), random) + STOCK_SYMBOLS,
    )
    owners = [np.repeat(np.arange(users), counts) for counts in (stocks, funds)]
    owner, security = np.concatenate(owners), np.concatenate(kinds)
    order = np.argsort(owner, kind="stable")
    return Holdings(security[order], np.concatenate([[0], np.cumsum(stocks + funds)]))


def _counts(users: int, mean: float, deviation: float, random: np.random.Generator) -> Ints:
    drawn = np.ceil(np.exp(random.normal(mean, deviation, users)))
    return np.minimum(drawn, MOST_HELD).astype(np.int64)


def _chances(symbols: int, exponent: float) -> Floats:
    """Cumulative, most popular first."""
    found = np.cumsum(np.arange(1, symbols + 1) ** -exponent)
    return np.asarray(found / found[-1])


def _distinct(counts: Ints, chances: Floats, random: np.random.Generator) -> Ints:
    """So many different ones for each user, in order of users: each the first of them that were drawn one by one."""
    users, owner, pick, times = np.arange(len(counts)), np.empty(0, np.int64), np.empty(0, np.int64), 1
    found: list[tuple[Ints, Ints]] = []
    while len(users):
        wanted = counts[users]
        missing = wanted - np.bincount(owner, minlength=len(users))
        drawn = np.searchsorted(chances, random.random(int(missing.sum()) * times), side="right")
        owner = np.concatenate([owner, np.repeat(np.arange(len(users)), missing * times)])
        owner, pick = _first_of_each(owner, np.concatenate([pick, drawn]), len(chances), wanted)
        is_done = np.bincount(owner, minlength=len(users)) == wanted
        settled = is_done[owner]
        found.append((users[owner[settled]], pick[settled]))
        # what a few still lack is rare, and takes more draws
        users, owner, pick, times = (
            users[~is_done],
            (np.cumsum(~is_done) - 1)[owner[~settled]],
            pick[~settled],
            2 * times,
        )
    whose, which = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.asarray(which[np.argsort(whose, kind="stable")])


def _first_of_each(owner: Ints, pick: Ints, symbols: int, wanted: Ints) -> tuple[Ints, Ints]:
    """Without those that came before, and of each owner at most as many as wanted; by owner, as they were drawn."""
    new = np.sort(np.unique(owner * symbols + pick, return_index=True)[1])
    owner, pick = owner[new], pick[new]
    order = np.argsort(owner, kind="stable")
    owner, pick = owner[order], pick[order]
    begins = np.cumsum(np.bincount(owner, minlength=len(wanted))) - np.bincount(owner, minlength=len(wanted))
    kept = np.arange(len(owner)) - begins[owner] < wanted[owner]
    return owner[kept], pick[kept]


def queued(held: Holdings, *, own: float = OWN_SECONDS, gap: float = 1 / PER_SECOND, at_once: int = AT_ONCE) -> Queue:
    """Users in turn, `at_once` at a time; each waits for its own securities, which who needs them first has fetched.

    Calls begin `gap` seconds apart at least and take `CALL_SECONDS`.
    """
    known, needed = _first_needs(held)
    begun, done = np.empty(len(known)), np.empty(len(known))
    fetched: list[float] = []  # when each security's call begins, in the order they are first needed
    free, call = [0.0] * at_once, -gap
    for user, (all_known, last) in enumerate(zip(known.tolist(), needed.tolist(), strict=True)):
        turn = free.index(min(free))
        start = free[turn]
        while len(fetched) < all_known:
            call = max(start, call + gap)
            fetched.append(call)
        free[turn] = max(start, fetched[last] + CALL_SECONDS) + own
        begun[user], done[user] = start, free[turn]
    return Queue(begun, done)


def _first_needs(held: Holdings) -> tuple[Ints, Ints]:
    """By user: how many securities anybody has needed up to them, and the place of their own latest among these."""
    _, first, which = np.unique(held.security, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first, kind="stable")] = np.arange(len(first))
    latest = np.maximum.reduceat(place[which], held.first[:-1])
    return np.maximum.accumulate(latest) + 1, latest
