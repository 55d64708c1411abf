"""What a portfolio, an account or a position returned; undefined is None with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import pyxirr
from numpy.typing import NDArray

from pricecache.core.bars import day_of
from pricecache.core.currencies import digits
from pricecache.core.history import PORTFOLIO, History
from pricecache.core.rows import partly_valued
from pricecache.core.scopes import Scope
from pricecache.core.valuation import COST, INDEX, NET_FLOW, VALUE

FORMULAS = {
    "twr": "product over the days of (start, end] of (V + outflow) / (V previous + inflow), less 1; 0/0 counts as 1",
    "twr_annualized": "(1 + twr) ^ (365 / days) - 1, from 365 days on",
    "irr": "the rate r with sum of amount / (1 + r) ^ (days since start / 365) = 0",
    "max_drawdown": "least of index / highest index since start, less 1",
    "volatility": "sample standard deviation of the returns from session to session x sqrt(252)",
    "gain": "end_value - start_value - net_flow",
}
"""How each number comes about, for whoever asks."""

YEAR = 365
SESSIONS_A_YEAR = 252
FEWEST_SESSIONS = 2


@dataclass(frozen=True, slots=True)
class Performance:
    """Fractions (0.05 is 5 %) over (`start`, `end`], days since 1970-01-01; money in base currency, not rounded.

    `max_drawdown` is negative or 0. What is None stands in `reasons` with why: `no_capital`, `under_a_year`,
    `no_sign_change`, `no_solution`, `no_days`, `too_few_sessions`, `no_price`, `rate_unknown`, `out_of_range`,
    `some_values_unknown`.
    """

    start: int
    end: int
    twr: float | None
    twr_annualized: float | None
    irr: float | None
    max_drawdown: float | None
    volatility: float | None
    start_value: float | None
    end_value: float | None
    net_flow: float | None
    gain: float | None
    reasons: dict[str, str] = field(default_factory=dict)


def performance(
    history: History,
    scope: Scope = PORTFOLIO,
    start: int | None = None,
    end: int | None = None,
    *,
    sessions: NDArray[np.int64] | None = None,
) -> Performance:
    """Over (`start`, `end`]: the value at the end of `start` is what it begins with.

    None is the first and the last day of the history. A `start` before the first day begins with nothing, and the
    first day counts. `sessions`: days of the market, for the volatility; None takes Monday to Friday.
    """
    end = history.end if end is None else min(end, history.end)
    start = history.start if start is None else start
    window = Window(history, scope, start, end)
    reasons: dict[str, str] = {}
    twr = window.twr(reasons)
    start_value, end_value, net_flow = window.money(reasons)
    gain = None
    if start_value is None or end_value is None or net_flow is None:
        reasons["gain"] = reasons.get("net_flow", "no_price")
    elif window.is_partly_valued(reasons):
        reasons["gain"] = "some_values_unknown"
    else:
        gain = end_value - start_value - net_flow
    return Performance(
        start,
        end,
        twr,
        _annualized(twr, end - start, reasons),
        window.irr(start_value, end_value, reasons),
        window.drawdown(reasons),
        window.volatility(sessions, reasons),
        start_value,
        end_value,
        net_flow,
        gain,
        reasons,
    )


def as_shown(own: Performance, history: History, scope: Scope = PORTFOLIO) -> Performance:
    """`own`, the performance of `scope`, with money in whole minor units as `rows` show it: the portfolio's is the sum
    of its rounded parts, the flows are the sum of the days, and the gain follows from what is shown."""
    places, low = digits(history.currency), max(own.start + 1 - history.start, 0)
    first = low - 1 if own.start >= history.start else None
    high = own.end + 1 - history.start
    start_value = 0.0 if first is None else _shown(history, scope, VALUE, slice(first, low), places)
    end_value = _shown(history, scope, VALUE, slice(high - 1, high), places)
    net_flow = _shown(history, scope, NET_FLOW, slice(low, high), places)
    return replace(
        own,
        start_value=None if own.start_value is None else start_value,
        end_value=None if own.end_value is None else end_value,
        net_flow=None if own.net_flow is None else net_flow,
        gain=None if own.gain is None else round(end_value - start_value - net_flow, places) + 0.0,
    )


def _shown(history: History, scope: Scope, field: int, days: slice, places: int) -> float:
    rows = history.values[field, 1:, days] if scope == PORTFOLIO else history.of(field, scope)[None, days]
    return round(float(np.nansum(np.round(rows, places))), places) + 0.0


def held_within(history: History, scope: Scope, start: int, end: int) -> tuple[int, int] | None:
    """The part of (`start`, `end`] in which `scope` had or moved anything, as such a range; None for none of it.

    What began later begins with nothing on the evening before its first day, so that gains of parts add up to that of
    the whole; what ended earlier ends on its last day, so that it is not annualised over years in which it was not.
    """
    place = history.scopes.index(scope)
    rows = history.values[[VALUE, COST, NET_FLOW], place]
    days = history.start + np.flatnonzero((np.isnan(rows) | (rows != 0)).any(axis=0))
    days = days[(days >= start) & (days <= end)]
    if not len(days) or (days[-1] == start and start < end):
        return None
    return max(start, int(days[0]) - 1), int(min(end, days[-1]))


def annualized(twr: float, days: int) -> float | None:
    """The yearly rate that gives `twr` in so many days; None under a year."""
    return float((1 + twr) ** (YEAR / days) - 1) if days >= YEAR else None


def xirr(flows: list[tuple[date, float]]) -> tuple[float | None, str | None]:
    """The money-weighted return of payments (negative) and receipts, actual/365; else None and why.

    Microsoft's XIRR: the rate r with sum of amount / (1 + r) ^ (days / 365) = 0.
    """
    paid = [(day, amount) for day, amount in flows if amount]
    if not any(amount < 0 for _, amount in paid) or not any(amount > 0 for _, amount in paid):
        return None, "no_sign_change"
    rate = pyxirr.xirr([day for day, _ in paid], [amount for _, amount in paid], silent=True)
    return (rate, None) if rate is not None and np.isfinite(rate) else (None, "no_solution")


class Window:
    """One scope over (`start`, `end`]: `days` (int64) with their `index` (float64, undefined ones carried) and
    `flows`, and the index and value that it opens with."""

    def __init__(self, history: History, scope: Scope, start: int, end: int) -> None:
        self.start, self.end = start, end
        low, high = max(start + 1 - history.start, 0), end + 1 - history.start
        index = history.of(INDEX, scope)
        chained = _carried(index)
        self.opening = float(chained[low - 1]) if 0 < low <= len(chained) else 1.0
        self.days = np.arange(history.start + low, history.start + max(high, low))
        self.gaps = np.isnan(index[low:high])
        self.undefined = bool(self.gaps.any())
        self.index = chained[low:high]
        values, place = history.of(VALUE, scope), history.scopes.index(scope)
        self.nowhere_valued = high > low and bool(np.isnan(values[low:high]).all())
        self.first_value = float(values[low - 1]) if 0 < low <= len(values) else 0.0
        self.last_value = float(values[high - 1]) if high > 0 else 0.0
        self.flows = history.of(NET_FLOW, scope)[low:high]
        partly = partly_valued(history.values[:, place], history.estimated[place])
        self.partly = (
            bool(partly[low - 1]) if 0 < low <= len(partly) else False,
            bool(partly[high - 1]) if high > 0 else False,
        )

    def twr(self, reasons: dict[str, str]) -> float | None:
        if not self._is_defined("twr", reasons):
            return None
        return float(self.index[-1] / self.opening - 1) if len(self.index) else 0.0

    def _is_defined(self, name: str, reasons: dict[str, str]) -> bool:
        if self.nowhere_valued:
            reasons[name] = "no_price"
        elif self.undefined or not self.opening:
            reasons[name] = "no_capital"
        elif not np.isfinite(self.index / self.opening).all():
            reasons[name] = "out_of_range"
        return name not in reasons

    def undefined_days(self) -> list[int]:
        """Those whose link is not defined."""
        return [int(day) for day in self.days[self.gaps]]

    def path(self, sessions: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """The index it opens with, and at the end of each session; None takes Monday to Friday."""
        return np.concatenate([[self.opening], self.index[self.on(sessions)]])

    def on(self, sessions: NDArray[np.int64] | None) -> NDArray[np.bool_]:
        """Which of its days are sessions."""
        return (self.days + 3) % 7 < 5 if sessions is None else np.isin(self.days, sessions)

    def money(self, reasons: dict[str, str]) -> tuple[float | None, float | None, float | None]:
        amounts = (
            ("start_value", self.first_value, "no_price"),
            ("end_value", self.last_value, "no_price"),
            ("net_flow", float(np.add.reduce(self.flows)), "rate_unknown"),
        )
        reasons.update({name: why for name, amount, why in amounts if amount != amount})
        first, last, flow = (None if amount != amount else amount for _, amount, _ in amounts)
        return first, last, flow

    def is_partly_valued(self, reasons: dict[str, str]) -> bool:
        """Whether what it begins or ends with lacks something that has no price or rate yet; said in `reasons`."""
        found = [name for name, partly in (("start_value", self.partly[0]), ("end_value", self.partly[1])) if partly]
        reasons.update(dict.fromkeys(found, "some_values_unknown"))
        return bool(found)

    def irr(self, first: float | None, last: float | None, reasons: dict[str, str]) -> float | None:
        if first is None or last is None or np.isnan(self.flows).any():
            reasons["irr"] = "no_price" if first is None or last is None else "rate_unknown"
            return None
        if any(self.partly):
            reasons["irr"] = "some_values_unknown"
            return None
        if self.end <= self.start:
            reasons["irr"] = "no_days"
            return None
        at = np.flatnonzero(self.flows)
        flows = [(day_of(day), -flow) for day, flow in zip(self.days[at], self.flows[at].tolist(), strict=True)]
        rate, why = xirr([(day_of(self.start), -first), *flows, (day_of(self.end), last)])
        if why is not None:
            reasons["irr"] = why
        return rate

    def drawdown(self, reasons: dict[str, str]) -> float | None:
        if not self._is_defined("max_drawdown", reasons):
            return None
        return deepest(np.concatenate([[self.opening], self.index]))

    def volatility(self, sessions: NDArray[np.int64] | None, reasons: dict[str, str]) -> float | None:
        if not self._is_defined("volatility", reasons):
            return None
        path = self.path(sessions)
        if not (path > 0).all():
            reasons["volatility"] = "no_capital"
            return None
        if len(path) <= FEWEST_SESSIONS:
            reasons["volatility"] = "too_few_sessions"
            return None
        return yearly(path[1:] / path[:-1] - 1)


def deepest(path: NDArray[np.float64]) -> float:
    """The largest fall from a height so far: 0 or a negative fraction."""
    return float((path / np.maximum.accumulate(path)).min() - 1)


def yearly(returns: NDArray[np.float64]) -> float:
    """Their sample standard deviation, from one session to the next, x sqrt(252)."""
    return float(np.std(returns, ddof=1) * np.sqrt(SESSIONS_A_YEAR))


def _annualized(twr: float | None, days: int, reasons: dict[str, str]) -> float | None:
    if twr is None:
        reasons["twr_annualized"] = reasons["twr"]
        return None
    rate = annualized(twr, days)
    if rate is None:
        reasons["twr_annualized"] = "under_a_year"
    return rate


def _carried(index: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undefined days carry the last defined value; before the first one it is 1."""
    known = ~np.isnan(index)
    if known.all():
        return index
    at = np.maximum.accumulate(np.where(known, np.arange(len(index)), -1))
    return np.where(at < 0, 1.0, index[np.maximum(at, 0)])
