"""What a portfolio, an account or a position returned, and how that compares; undefined is None with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pyxirr
from numpy.typing import NDArray

from pricecache.core.actions import split_factors
from pricecache.core.bars import day_of
from pricecache.core.grid import lay_out
from pricecache.core.history import PORTFOLIO, History
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import MarketData
from pricecache.core.valuation import INDEX, NET_FLOW, VALUE, Scope

TWR = "(V + outflow) / (V previous + inflow) - 1, daily, chained over (start, end]"
XIRR = "the rate at which all flows, actual/365, are worth nothing"
VOLATILITY = "sample standard deviation of returns between sessions x sqrt(252)"
"""Names of the formulas, for whoever asks how a number came about."""

YEAR = 365
SESSIONS_A_YEAR = 252
FEWEST_SESSIONS = 2


@dataclass(frozen=True, slots=True)
class Performance:
    """Fractions (0.05 is 5 %) over (`start`, `end`], days since 1970-01-01; money in base currency, not rounded.

    `max_drawdown` is negative or 0. What is None stands in `reasons` with why: `no_capital`, `under_a_year`,
    `no_sign_change`, `no_solution`, `no_days`, `too_few_sessions`, `no_price`, `rate_unknown`.
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
    window = _Window(history, scope, start, end)
    reasons: dict[str, str] = {}
    twr = window.twr(reasons)
    start_value, end_value, net_flow = window.money(reasons)
    gain = None
    if start_value is None or end_value is None or net_flow is None:
        reasons["gain"] = reasons.get("net_flow", "no_price")
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """A scope beside an instrument's price (splits worked in, dividends left out) in the portfolio's currency."""

    start: int
    end: int
    twr: float | None
    benchmark: float | None
    difference: float | None
    reasons: dict[str, str] = field(default_factory=dict)


def compared(
    history: History, market: MarketData, benchmark: Instrument, scope: Scope = PORTFOLIO,
    start: int | None = None, end: int | None = None,
) -> Comparison:  # fmt: skip
    """The time-weighted return over (`start`, `end`] beside what the price of `benchmark` did."""
    own = performance(history, scope, start, end)
    reasons = {name: why for name, why in own.reasons.items() if name == "twr"}
    series = relative_prices(market, benchmark, history.currency, own.start, own.end)
    if series is None:
        reasons["benchmark"] = reasons["difference"] = "no_price"
        return Comparison(own.start, own.end, own.twr, None, None, reasons)
    other = float(series[-1] - 1)
    if own.twr is None:
        reasons["difference"] = reasons["twr"]
    return Comparison(own.start, own.end, own.twr, other, None if own.twr is None else own.twr - other, reasons)


def relative_prices(
    market: MarketData, instrument: Instrument, currency: str, start: int, end: int
) -> NDArray[np.float64] | None:
    """Price in `currency` on each day from `start` to `end` ÷ that of `start`, in units of one day: float64. None
    without a price on `start`."""
    grid = lay_out([instrument], market, currency, start, end)
    if grid.priced_from[0] > start:
        return None
    days = np.arange(start, end + 1, dtype=np.int64)
    prices = grid.prices[0] / split_factors(days, market.prices[instrument].actions)
    return np.asarray(prices / prices[0])


class _Window:
    def __init__(self, history: History, scope: Scope, start: int, end: int) -> None:
        self.start, self.end = start, end
        low, high = max(start + 1 - history.start, 0), end + 1 - history.start
        index = history.of(INDEX, scope)
        chained = _carried(index)
        self.opening = float(chained[low - 1]) if 0 < low <= len(chained) else 1.0
        self.days = np.arange(history.start + low, history.start + max(high, low))
        self.undefined = bool(np.isnan(index[low:high]).any())
        self.index = chained[low:high]
        values = history.of(VALUE, scope)
        self.first_value = float(values[low - 1]) if 0 < low <= len(values) else 0.0
        self.last_value = float(values[high - 1]) if high > 0 else 0.0
        self.flows = history.of(NET_FLOW, scope)[low:high]

    def twr(self, reasons: dict[str, str]) -> float | None:
        if self.undefined or not self.opening:
            reasons["twr"] = "no_capital"
            return None
        return float(self.index[-1] / self.opening - 1) if len(self.index) else 0.0

    def money(self, reasons: dict[str, str]) -> tuple[float | None, float | None, float | None]:
        amounts = (
            ("start_value", self.first_value, "no_price"),
            ("end_value", self.last_value, "no_price"),
            ("net_flow", float(np.add.reduce(self.flows)), "rate_unknown"),
        )
        reasons.update({name: why for name, amount, why in amounts if amount != amount})
        first, last, flow = (None if amount != amount else amount for _, amount, _ in amounts)
        return first, last, flow

    def irr(self, first: float | None, last: float | None, reasons: dict[str, str]) -> float | None:
        if first is None or last is None or np.isnan(self.flows).any():
            reasons["irr"] = "no_price" if first is None or last is None else "rate_unknown"
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
        if self.undefined or not self.opening:
            reasons["max_drawdown"] = "no_capital"
            return None
        path = np.concatenate([[self.opening], self.index])
        return float((path / np.maximum.accumulate(path)).min() - 1)

    def volatility(self, sessions: NDArray[np.int64] | None, reasons: dict[str, str]) -> float | None:
        if self.undefined or not self.opening:
            reasons["volatility"] = "no_capital"
            return None
        on = (self.days + 3) % 7 < 5 if sessions is None else np.isin(self.days, sessions)
        path = np.concatenate([[self.opening], self.index[on]])
        if len(path) <= FEWEST_SESSIONS or not (path > 0).all():
            reasons["volatility"] = "too_few_sessions"
            return None
        return float(np.std(path[1:] / path[:-1] - 1, ddof=1) * np.sqrt(SESSIONS_A_YEAR))


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
