"""A return beside that of an instrument's price: difference, tracking error, correlation; undefined is None."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import split_factors
from pricecache.core.grid import lay_out
from pricecache.core.history import PORTFOLIO, History
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import MarketData
from pricecache.core.returns import FEWEST_SESSIONS, Performance, Window, annualized, deepest, yearly
from pricecache.core.scopes import Scope

FORMULAS = {
    "excess_return": "twr - the benchmark's return",
    "tracking_error": "sample standard deviation of (return - the benchmark's) from session to session x sqrt(252)",
    "correlation": "Pearson's, of the returns from session to session",
}
_STILL = 1e-12
"""Returns that differ by less do not vary."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the benchmark did over the same (start, end], in the portfolio's currency, and how far the two are apart.

    Fractions, as in `Performance`. What is None stands in `reasons` with why: `no_price`, `rate_unknown`,
    `under_a_year`, `too_few_sessions`, `no_variation`, or why the portfolio's own return is None.
    """

    twr: float | None = None
    twr_annualized: float | None = None
    max_drawdown: float | None = None
    volatility: float | None = None
    excess_return: float | None = None
    excess_return_annualized: float | None = None
    tracking_error: float | None = None
    correlation: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)


def compared(
    history: History,
    market: MarketData,
    benchmark: Instrument,
    own: Performance,
    scope: Scope = PORTFOLIO,
    *,
    sessions: NDArray[np.int64] | None = None,
) -> Comparison:
    """Beside `own`, the performance of `scope`. `sessions`: days on which both trade; None takes Monday to Friday.

    The price of `benchmark` has its splits worked in; dividends count as far as its prices in `market` have them.
    """
    reasons: dict[str, str] = {}
    series = relative_prices(market, benchmark, history.currency, own.start, own.end)
    if series is None:
        why = _no_series(market, benchmark, own.start)
        names = ("twr", "twr_annualized", "max_drawdown", "volatility", "excess_return", "excess_return_annualized",
                 "tracking_error", "correlation")  # fmt: skip
        return Comparison(reasons=dict.fromkeys(names, why))
    window = Window(history, scope, own.start, own.end)
    twr = float(series[-1] - 1)
    yearly_twr = annualized(twr, own.end - own.start)
    if yearly_twr is None:
        reasons["twr_annualized"] = reasons["excess_return_annualized"] = "under_a_year"
    path = np.concatenate([series[:1], series[window.days[window.on(sessions)] - own.start]])
    is_told = _is_worth(path, "volatility", reasons) and not _are_few(path, "volatility", reasons)
    volatility = yearly(path[1:] / path[:-1] - 1) if is_told else None
    error, correlation = _apart(window, path, sessions, own, reasons)
    return Comparison(
        twr,
        yearly_twr,
        deepest(series),
        volatility,
        _difference(own.twr, twr, own.reasons.get("twr"), "excess_return", reasons),
        _difference(
            own.twr_annualized, yearly_twr, own.reasons.get("twr_annualized"), "excess_return_annualized", reasons
        ),
        error,
        correlation,
        reasons,
    )


def relative_prices(
    market: MarketData, instrument: Instrument, currency: str, start: int, end: int
) -> NDArray[np.float64] | None:
    """Price in `currency` on each day from `start` to `end` ÷ that of `start`, in units of one day: float64. None
    without a price on `start`, or where it was worth nothing then."""
    grid = lay_out([instrument], market, currency, start, end)
    if grid.priced_from[0] > start:
        return None
    days = np.arange(start, end + 1, dtype=np.int64)
    prices = grid.prices[0] / split_factors(days, market.prices[instrument].actions)
    return np.asarray(prices / prices[0]) if prices[0] else None


def _apart(
    window: Window,
    other: NDArray[np.float64],
    sessions: NDArray[np.int64] | None,
    own: Performance,
    reasons: dict[str, str],
) -> tuple[float | None, float | None]:
    path = window.path(sessions)
    if "twr" in own.reasons or not (path > 0).all():
        reasons["tracking_error"] = reasons["correlation"] = own.reasons.get("twr", "no_capital")
        return None, None
    if not _is_worth(other, "tracking_error", reasons) or _are_few(path, "tracking_error", reasons):
        reasons["correlation"] = reasons["tracking_error"]
        return None, None
    mine, theirs = path[1:] / path[:-1] - 1, other[1:] / other[:-1] - 1
    if min(np.ptp(mine), np.ptp(theirs)) < _STILL:
        reasons["correlation"] = "no_variation"
        return yearly(mine - theirs), None
    return yearly(mine - theirs), float(np.clip(np.corrcoef(mine, theirs)[0, 1], -1.0, 1.0))


def _no_series(market: MarketData, benchmark: Instrument, start: int) -> str:
    column = market.prices.get(benchmark)
    found = column.closes.at(start) if column is not None else None
    if found is None:
        return "no_price"
    return "rate_unknown" if found[1] else "no_capital"


def _is_worth(path: NDArray[np.float64], name: str, reasons: dict[str, str]) -> bool:
    """Whether it was worth something all the time."""
    if (path > 0).all():
        return True
    reasons[name] = "no_capital"
    return False


def _are_few(path: NDArray[np.float64], name: str, reasons: dict[str, str]) -> bool:
    if len(path) <= FEWEST_SESSIONS:
        reasons[name] = "too_few_sessions"
        return True
    return False


def _difference(
    own: float | None, other: float | None, why: str | None, name: str, reasons: dict[str, str]
) -> float | None:
    if own is None:
        reasons[name] = why or "no_days"
        return None
    return None if other is None else own - other
