"""Whether a purchase or sale is told in the units of its day, or restated for the splits since: judged by its price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action
from pricecache.core.bars import HIGH, LOW, Bars
from pricecache.core.currencies import major, unit
from pricecache.core.ledger import Transaction
from pricecache.core.lots import ratio_of

Verdict = Literal["traded", "adjusted", "ambiguous"]
Reason = Literal[
    "no_split_since", "in_range", "in_adjusted_range", "both_fit", "neither_fits", "no_price", "other_currency",
    "not_known_yet",
]  # fmt: skip

SAME_DAY = 0.03
"""How far outside low and high of its session a price may lie: a commission worked into it, a trade after hours."""
EARLIER_DAY = 0.15
"""The same when there is no bar of that day and the one before it has to do."""
OLDEST_DAYS = 10
"""Calendar days back to the earlier bar at most."""


@dataclass(frozen=True, slots=True, eq=False)
class TradedRange:
    """What an instrument traded at, as traded, and its splits.

    `sessions`: int64, ascending, days since 1970-01-01. `low`, `high`: float64 of the same length, finite, in
    `currency`, or what `currencies`, `(since, currency)` ascending, has for the session. `actions`: splits and rebases
    in effect, in order. `is_known`: somebody could say which splits there were.
    """

    sessions: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    currency: str
    actions: tuple[Action, ...] = ()
    is_known: bool = True
    currencies: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, bars: Bars, currency: str, actions: Sequence[Action], **facts: object) -> TradedRange:
        """From as-traded bars: where low or high is unknown the close stands for it."""
        low, high = np.fmin(bars.values[LOW], bars.close), np.fmax(bars.values[HIGH], bars.close)
        return cls(bars.sessions, low, high, currency, tuple(actions), **facts)  # type: ignore[arg-type]

    def currency_on(self, session: int) -> str:
        return next((code for since, code in reversed(self.currencies) if since <= session), self.currency)


@dataclass(frozen=True, slots=True)
class Units:
    """What speaks for which units. `splits`: `(ex-date, ratio)` after the day of the row, `factor` their product.

    `session` and `low`, `high`: the as-traded range it was held against, in the units of the row's day and the row's
    currency; None where there is none. The range of a restated price is that range ÷ `factor`.
    """

    verdict: Verdict
    reason: Reason
    splits: tuple[tuple[int, Fraction], ...] = ()
    factor: Fraction = Fraction(1)
    session: int | None = None
    low: float | None = None
    high: float | None = None

    def contradicts(self, is_adjusted: bool) -> bool:
        """Whether a row that is said to be restated (`is_adjusted`) or not looks to be the other."""
        return bool(self.splits) and self.verdict == ("traded" if is_adjusted else "adjusted")


def judge(row: Transaction, traded: TradedRange | None) -> Units | None:
    """The units of a purchase or sale by its price; None for every other row, whose price need not be of its day.

    `traded`: of the row's instrument, None when nothing is known of it. A price is `traded` when it lies within low
    and high of its session (of the last one up to `OLDEST_DAYS` before, where there is none), `adjusted` when it lies
    within them divided by all splits since, `ambiguous` when in both or neither. Without a split since it is `traded`:
    both are the same.
    """
    if row.type not in ("buy", "sell") or row.instrument is None or not row.price:
        return None
    if traded is None or not traded.is_known:
        return Units("ambiguous", "not_known_yet") if row.instrument.place.has_provider else _SAME
    splits = tuple((a.ex_date, ratio_of(a.value)) for a in traded.actions if a.kind == "split" and a.ex_date > row.day)
    factor = Fraction(1)
    for _, ratio in splits:
        factor *= ratio
    if factor == 1:
        return _SAME
    return _held_against(row, traded, splits, factor)


_SAME = Units("traded", "no_split_since")


def _held_against(
    row: Transaction, traded: TradedRange, splits: tuple[tuple[int, Fraction], ...], factor: Fraction
) -> Units:
    found = _range_on(row.day, traded)
    if found is None:
        return Units("ambiguous", "no_price", splits, factor)
    session, low, high = found
    turned = _turned(traded.currency_on(session), row.currency)
    if turned is None:
        return Units("ambiguous", "other_currency", splits, factor, session)
    low, high = low * turned, high * turned
    slack = SAME_DAY if session == row.day else EARLIER_DAY
    verdict, reason = _verdict(float(row.price or 0), low, high, slack, float(factor))
    return Units(verdict, reason, splits, factor, session, low, high)


def _verdict(price: float, low: float, high: float, slack: float, factor: float) -> tuple[Verdict, Reason]:
    low, high = low * (1 - slack), high * (1 + slack)
    as_traded, restated = low <= price <= high, low <= price * factor <= high
    if as_traded and restated:
        return "ambiguous", "both_fit"
    if as_traded:
        return "traded", "in_range"
    return ("adjusted", "in_adjusted_range") if restated else ("ambiguous", "neither_fits")


def _range_on(day: int, traded: TradedRange) -> tuple[int, float, float] | None:
    """The last session up to `day` and its range, in the units of `day`."""
    at = int(traded.sessions.searchsorted(day, side="right")) - 1
    if at < 0 or traded.sessions[at] < day - OLDEST_DAYS:
        return None
    session, since = int(traded.sessions[at]), 1.0
    for action in traded.actions:
        if action.kind != "dividend" and session < action.ex_date <= day:
            since *= action.value
    return session, float(traded.low[at]) / since, float(traded.high[at]) / since


def _turned(currency: str, wanted: str | None) -> float | None:
    """What one of `currency` is in `wanted`, which may be its hundredth or its whole; None for another currency."""
    if wanted is None or wanted == currency:
        return 1.0
    if major(wanted) != major(currency):
        return None
    return float(unit(currency) / unit(wanted))
