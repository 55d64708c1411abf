"""Prices on every calendar day: closes carried forward, in the units of the day, turned into base currency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action
from pricecache.core.currencies import major, unit
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import NEVER, Column, MarketData


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What instruments are worth in base currency from day `start` on, for `days` days.

    `prices`: float64, shape (instruments, days), 0.0 where there is none yet. `priced_from`: int64, shape
    (instruments,), the first day ever with a price and a rate, `NEVER` without one. `due`, `stale`: bool, shape
    (instruments, days), whether a session of the instrument's is due, and whether it lacks a price (or its currency a
    rate) of its own; `stale_rows`: bool, shape (instruments,), whether any is. Immutable by convention, so that it may
    be kept and shared.
    """

    start: int
    days: int
    instruments: tuple[Instrument, ...]
    prices: NDArray[np.float64]
    priced_from: NDArray[np.int64]
    due: NDArray[np.bool_]
    stale: NDArray[np.bool_]
    stale_rows: NDArray[np.bool_]
    row_of: dict[Instrument, int] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """One column's sessions on the days: `index` of the value carried (-1 before the first), `due`, `stale`."""

    index: NDArray[np.int64]
    due: NDArray[np.bool_]
    stale: NDArray[np.bool_]
    is_stale: bool


class Layout:
    """Lays sessions on days; series with the same sessions share the work. Used by one thread at a time."""

    def __init__(self, start: int, days: int) -> None:
        self.start, self.days = start, days
        self._laid: dict[tuple[int, int, int, int], list[tuple[Column, Laid]]] = {}

    def lay(self, column: Column) -> Laid:
        sessions, due = column.sessions, column.due
        key = (len(sessions), int(sessions[0]), int(sessions[-1]), len(due)) if len(sessions) else (0, 0, 0, len(due))
        for other, laid in self._laid.setdefault(key, []):
            if _same(other.sessions, sessions) and _same(other.due, due):
                return laid
        laid = self._lay(column)
        self._laid[key].append((column, laid))
        return laid

    def _lay(self, column: Column) -> Laid:
        before = int(column.sessions.searchsorted(self.start))
        has = self._marked(column.sessions)
        due = self._marked(column.due)
        index = np.cumsum(has) + (before - 1)
        stale = due & ~has
        return Laid(index, due, stale, bool(stale.any()))

    def _marked(self, days: NDArray[np.int64]) -> NDArray[np.bool_]:
        low, high = days.searchsorted([self.start, self.start + self.days])
        marked = np.zeros(self.days, np.bool_)
        marked[days[low:high] - self.start] = True
        return marked


def priced_from(market: MarketData, base: str, instrument: Instrument) -> int:
    """The first day on which `instrument` has both a price and a rate into `base`; `NEVER` without."""
    column = market.prices.get(instrument)
    if column is None:
        return NEVER
    if column.currency == base:
        return column.closes.first
    return max(column.closes.first, known_from(market, base, major(column.currency)))


def known_from(market: MarketData, base: str, currency: str) -> int:
    """The first day with a rate of the whole `currency` into `base`; `NEVER` without."""
    if currency == base:
        return -NEVER
    column = market.rates.get(currency)
    return column.first if column is not None else NEVER


def lay_out(instruments: Iterable[Instrument], market: MarketData, base: str, start: int, end: int) -> Grid:
    """The grid of `instruments` from day `start` to day `end`, both included, in the whole currency `base`."""
    names = tuple(instruments)
    days = end - start + 1
    layout = Layout(start, days)
    prices = np.zeros((len(names), days))
    due, stale = np.zeros((2, len(names), days), np.bool_)
    stale_rows = np.zeros(len(names), np.bool_)
    since = np.array([priced_from(market, base, name) for name in names], np.int64)
    for row, instrument in enumerate(names):
        column = market.prices.get(instrument)
        if column is None:
            continue
        laid = layout.lay(column.closes)
        due[row] = laid.due
        stale_now = laid.stale if laid.is_stale else None
        if since[row] <= end:
            column.closes.values.take(laid.index, out=prices[row], mode="clip")
            if column.actions:
                _carry_over(prices[row], column.actions, column.closes.sessions, start)
            if column.currency != base:
                stale_now = _convert(prices[row], market, base, column.currency, layout, laid, stale_now)
            if since[row] > start:
                prices[row, : since[row] - start] = 0.0
        if stale_now is not None:
            stale[row], stale_rows[row] = stale_now, True
    return Grid(start, days, names, prices, since, due, stale, stale_rows, {name: i for i, name in enumerate(names)})


def _convert(
    prices: NDArray[np.float64],
    market: MarketData,
    base: str,
    currency: str,
    layout: Layout,
    laid: Laid,
    stale: NDArray[np.bool_] | None,
) -> NDArray[np.bool_] | None:
    if currency != major(currency):
        prices *= float(unit(currency))
    if major(currency) == base:
        return stale
    rates = market.rates[major(currency)]
    of_rates = layout.lay(rates)
    prices *= rates.values.take(of_rates.index, mode="clip")
    missing = of_rates.stale & laid.due if of_rates.is_stale else None
    if missing is None or not missing.any():
        return stale
    return missing if stale is None else stale | missing


def rate_row(market: MarketData, base: str, currency: str, start: int, days: int) -> NDArray[np.float64]:
    """Base currency for one of a whole `currency` on each day, 0.0 before the first: float64, shape (days,)."""
    if currency == base:
        return np.ones(days)
    since = known_from(market, base, currency)
    if since >= start + days:
        return np.zeros(days)
    column = market.rates[currency]
    rates = column.values.take(Layout(start, days).lay(column).index, mode="clip")
    rates[: max(since - start, 0)] = 0.0
    return rates


def _same(a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
    return a is b or (len(a) == len(b) and bool((a == b).all()))


def _carry_over(
    prices: NDArray[np.float64], actions: Sequence[Action], sessions: NDArray[np.int64], start: int
) -> None:
    """A price carried over a split or rebase is in old units until the next session: bring it to the new ones."""
    for action in actions:
        if action.kind == "dividend" or action.ex_date >= start + len(prices):
            continue
        at = int(sessions.searchsorted(action.ex_date))
        until = int(sessions[at]) if at < len(sessions) else start + len(prices)
        if at and until > max(action.ex_date, start):
            low, high = max(action.ex_date - start, 0), until - start
            prices[low:high] /= action.value
