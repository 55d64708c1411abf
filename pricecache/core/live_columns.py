"""What positions are multiplied by: of every instrument in a base currency its price now, before, and at the open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.currencies import major, unit
from pricecache.core.daychange import Session, open_of
from pricecache.core.grid import Grid, lay_out
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import MarketData

Name = Instrument | str
"""An instrument, or a whole currency that cash is held in."""
ColumnKey = tuple[Name, str]
"""A name, and the whole base currency it is valued in."""

PRICE, PREVIOUS, OPENED, UNIT, RATE, RATIO, SINCE = range(7)
FACTS = 7
OF_SESSION = [PREVIOUS, RATIO, SINCE]
"""Facts that a new session changes."""
_BUT_PRICE = [PREVIOUS, OPENED, UNIT, RATE, RATIO, SINCE]


def column_facts(
    names: Sequence[Name], market: MarketData, sessions: Mapping[Instrument, Session], base: str, end: int
) -> NDArray[np.float64]:
    """Of each of `names` on day `end`, as a summary would have it: float64, shape (FACTS, names), NaN unknown.

    `PRICE` in base currency for one in units of `end`. `PREVIOUS`, the close before the latest session at the rate of
    its day, and `OPENED`, the open of the session at the rate of `end`: for one in units of the day of that close.
    `UNIT` and `RATE` make a price of a quote of the same session. `RATIO`: what became of one since that close by
    splits of the market. `SINCE`: the day of that close, which may be another one with the same price. Of a currency
    `PRICE` is its rate, and `PREVIOUS` and `OPENED` are 0: what it was before is the row's. Pure.
    """
    facts = np.full((FACTS, len(names)), np.nan)
    days = {name: min(sessions[name].previous, end) for name in names if not isinstance(name, str)}
    grid = lay_out(days, market, base, min(days.values(), default=end), end)
    for at, name in enumerate(names):
        if isinstance(name, str):
            rate = float(market.rate(name, base, end))
            facts[:, at] = rate, 0.0, 0.0, 1.0, rate, 1.0, 0.0
        elif grid.priced_from[grid.row_of[name]] <= end:
            facts[:, at] = _of(name, market, sessions[name], base, grid, days[name])
    return facts


def _of(
    name: Instrument, market: MarketData, session: Session, base: str, grid: Grid, previous: int
) -> tuple[float, ...]:
    column, row, end = market.prices[name], grid.row_of[name], grid.start + grid.days - 1
    had_price = grid.priced_from[row] <= previous
    opened, rate = open_of(session, column, previous), float(market.rate(column.currency, base, end))
    return (
        float(grid.prices[row, -1]),
        float(grid.prices[row, previous - grid.start]) if had_price else np.nan,
        np.nan if opened is None else opened * rate,
        float(unit(column.currency)),
        float(market.rate(major(column.currency), base, end)),
        column.ratio(previous, end),
        float(previous),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """Columns by number whose holders have to be built anew: all of them (`every`), those with a cell that is bound to
    the session (`rolled`), those with a cell that is bound to anything but the price (`any_change`)."""

    every: NDArray[np.int64]
    rolled: NDArray[np.int64]
    any_change: NDArray[np.int64]


class Columns:
    """Numbers columns and keeps their facts. Loop-only.

    `facts`: float64, shape (FACTS, at least `len`), by number. A number is free again some time after the last row that
    held it has gone.
    """

    def __init__(self) -> None:
        self.keys: list[ColumnKey | None] = []
        self.facts = np.full((FACTS, 64), np.nan)
        self._numbers: dict[ColumnKey, int] = {}
        self._holders = np.zeros(64, np.int64)
        self._left: set[int] = set()
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, key: ColumnKey) -> int | None:
        return self._numbers.get(key)

    def number(self, key: ColumnKey) -> int:
        """Of `key`, which is registered when it is new; its facts are unknown then."""
        found = self._numbers.get(key)
        if found is not None:
            return found
        if self._free:
            number = self._free.pop()
            self.keys[number] = key
        else:
            number = len(self.keys)
            self.keys.append(key)
            self._grow()
        self._numbers[key] = number
        return number

    def take(self, numbers: NDArray[np.int64]) -> None:
        """One more row holds these, each once."""
        self._holders[numbers] += 1

    def leave(self, numbers: NDArray[np.int64]) -> None:
        """One row less holds these, each once."""
        self._holders[numbers] -= 1
        self._left.update(numbers[self._holders[numbers] == 0].tolist())

    def free(self) -> None:
        """Forget what rows have left and none holds. Only while no matrix is laid out by the old numbers."""
        for number in self._left:
            key = self.keys[number]
            if self._holders[number] == 0 and key is not None:
                del self._numbers[key]
                self.keys[number] = None
                self.facts[:, number] = np.nan
                self._free.append(number)
        self._left.clear()

    def tick(self, numbers: NDArray[np.int64], quotes: NDArray[np.float64]) -> None:
        """New quotes, in the currency of the prices, of the sessions that the facts are of."""
        unit_of, rate = self.facts[UNIT], self.facts[RATE]
        self.facts[PRICE, numbers] = quotes * unit_of[numbers] * rate[numbers]

    def change(self, numbers: NDArray[np.int64], facts: NDArray[np.float64]) -> Changed:
        """New `facts`: float64, shape (FACTS, numbers). Tells what of them is other than it was."""
        old = self.facts[:, numbers]
        is_new = (old != facts) & ~(np.isnan(old) & np.isnan(facts))
        lost = np.isnan(old[PRICE]) != np.isnan(facts[PRICE])
        self.facts[:, numbers] = facts
        return Changed(
            numbers[is_new[RATIO] | lost], numbers[is_new[OF_SESSION].any(axis=0)],
            numbers[is_new[_BUT_PRICE].any(axis=0)],
        )  # fmt: skip

    def _grow(self) -> None:
        size = self.facts.shape[1]
        if len(self.keys) > size:
            self.facts = np.concatenate([self.facts, np.full((FACTS, size), np.nan)], axis=1)
            self._holders = np.concatenate([self._holders, np.zeros(size, np.int64)])
