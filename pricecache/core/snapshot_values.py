"""What many blocks of portfolios are worth at the close of some days: one sparse product for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.currencies import digits
from pricecache.core.snapshot_blocks import Block, currency_of

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]

TOTAL_VALUE, CASH, TOTAL_COST = range(3)
FIELDS = 3
"""Of a snapshot, in this order; money in base currency, rounded as the history's rows are. NaN is unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """By column: `codes` (int64, ascending), and on each of the days that are asked for `prices` in base currency
    (float64, shape (columns, days)), whether a session of it is due and has none (`stale`: bool), and whether that one
    is to come (`awaited`: bool): of what is priced by hand nobody knows."""

    codes: Numbers
    prices: Floats
    stale: Flags
    awaited: Flags


@dataclass(frozen=True, slots=True, eq=False)
class Signs:
    """By series (`ids`: int64, ascending): `changed_from`, the first day that is another than was looked at last;
    `settled`, the last day that nothing but a revision changes; `has_sessions`: bool, whether it has any that count;
    and `closed`: bool, shape (series, days), whether one of these closed on each of the days."""

    ids: Numbers
    changed_from: Numbers
    settled: Numbers
    has_sessions: Flags
    closed: Flags


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Several blocks end to end. Everything by portfolio, in the order of the blocks, but `costs` (by scope)."""

    blocks: tuple[Block, ...]
    generation: Numbers
    since: Numbers
    accounts: Numbers
    costs: Floats

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Gathered:
        of = {name: _joined(blocks, name) for name in ("generation", "since", "costs")}
        return cls(tuple(blocks), accounts=_joined(blocks, "accounts").astype(np.int64), **of)

    def codes_beside(self, known: Numbers) -> Numbers:
        """Every column that something is held in, but for those `known` (ascending)."""
        return _every([_beside(block.arrays["codes"], known) for block in self.blocks])

    def series_beside(self, known: Numbers) -> Numbers:
        """Every series that is named, but for those `known` (ascending)."""
        held = _every([_beside(block.held, known) for block in self.blocks])
        return _every([held[held >= 0], _beside(_joined(self.blocks, "watched"), known)])

    def named(self, ids: Numbers) -> Flags:
        """Which of these series (ascending, and all that are named among them) any portfolio names."""
        found = np.zeros(len(ids) + 1, np.bool_)
        for block in self.blocks:
            found[_places(block.held, ids)] = True
            found[_places(block.arrays["watched"], ids)] = True
        return found[:-1]

    def by_portfolio(self, of_series: NDArray[Any], ids: Numbers, how: np.ufunc, nothing: Any) -> NDArray[Any]:
        """`of_series` (by series, as `ids` are) of all the series of each portfolio taken together; `nothing` where it
        names none."""
        entries, named = _joined(self.blocks, "entries"), _joined(self.blocks, "named")
        is_each = all((_places(b.held, ids) < len(ids)).all() for b in self.blocks)  # none is cash
        if is_each and len(of_series) and (of_series == of_series[:1]).all():  # as mostly: soon told
            names_any = (entries > 0) | (named > 0)
            shape = (len(names_any), *(1 for _ in of_series.shape[1:]))
            return np.where(names_any.reshape(shape), of_series[:1], nothing)
        known = np.concatenate([of_series, np.full((1, *of_series.shape[1:]), nothing, of_series.dtype)])
        held = [known[_places(b.held, ids)][b.arrays["column"]] for b in self.blocks]
        beside = [known[_places(b.arrays["watched"], ids)][b.arrays["series"]] for b in self.blocks]
        found = [_reduced(how, np.concatenate(held), entries, nothing)]
        found.append(_reduced(how, np.concatenate(beside), named, nothing))
        return np.asarray(how(*found))

    def valued(self, prices: Prices) -> Floats:
        """float64, shape (days, FIELDS, scopes): the worth of each portfolio and its accounts as they are held."""
        worth, cash = self._worth(prices)
        places = self._digits().repeat(self.accounts)
        found = np.empty((worth.shape[1], FIELDS, len(self.costs)))
        is_total = self._totals()
        tracks = _joined(self.blocks, "tracks_cash")
        cash[~tracks.repeat(self.accounts)] = np.nan
        for field, exact in ((TOTAL_VALUE, worth), (CASH, cash)):
            parts = _rounded(exact, places)
            found[:, field, ~is_total] = parts.T
            found[:, field, is_total] = _rounded(_reduced(np.add, parts, self.accounts, 0.0), self._digits()).T
        found[:, TOTAL_COST] = self.costs
        return found + 0.0

    def _worth(self, prices: Prices) -> tuple[Floats, Floats]:
        from scipy.sparse import csr_array

        days = prices.prices.shape[1]
        column, counts = self._columns(prices), _joined(self.blocks, "counts")
        bounds = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)
        shape = (len(counts), len(prices.codes))
        if not all(shape):
            return np.zeros((len(counts) // 2, days)), np.zeros((len(counts) // 2, days))
        held = csr_array((_joined(self.blocks, "quantities"), column, bounds), shape=shape)
        # a vector is multiplied several times as fast as a matrix of one column
        alone = days == 1
        product = np.asarray(held @ (prices.prices[:, 0] if alone else prices.prices), np.float64)
        product = product[:, None] if alone else product
        return product[0::2] + product[1::2], product[1::2].copy()

    def holding(self, flags: Flags, prices: Prices) -> Flags:
        """bool, shape (days, portfolios): something is held that `flags` are set of, by column of `prices` and day."""
        found = np.zeros((flags.shape[1], len(self.since)), np.bool_)
        days = np.flatnonzero(flags.any(axis=0))
        if len(days):
            column, counts = self._columns(prices), _joined(self.blocks, "entries")
            for day in days.tolist():
                found[day] = _reduced(np.logical_or, flags[column, day], counts, False)
        return found

    def _columns(self, prices: Prices) -> NDArray[np.int32]:
        of = [
            np.searchsorted(prices.codes, b.arrays["codes"]).astype(np.int32)[b.arrays["column"]] for b in self.blocks
        ]
        return np.concatenate([np.empty(0, np.int32), *of])

    def _digits(self) -> Numbers:
        numbers, inverse = np.unique(_joined(self.blocks, "currency"), return_inverse=True)
        return np.array([digits(currency_of(number)) for number in numbers.tolist()], np.int64)[inverse]

    def _totals(self) -> Flags:
        found = np.zeros(len(self.costs), np.bool_)
        found[np.cumsum(self.accounts + 1) - (self.accounts + 1)] = True
        return found


def _rounded(amounts: Floats, places: Numbers) -> Floats:
    """As `rows.rounded` does it. `places`: by row."""
    found = amounts.copy()
    for one in np.unique(places).tolist():
        chosen = places == one
        found[chosen] = np.round(amounts[chosen], one)
    return found


def _reduced(how: np.ufunc, values: NDArray[Any], counts: Numbers, nothing: Any) -> NDArray[Any]:
    """`how` over each run of `counts` rows, `nothing` for an empty one."""
    found = np.full((len(counts), *values.shape[1:]), nothing, values.dtype)
    some = counts > 0
    if some.any():
        starts = np.cumsum(counts, dtype=np.int64) - counts
        found[some] = how.reduceat(values, starts[some], axis=0)
    return found


def _joined(blocks: Sequence[Block], name: str) -> NDArray[Any]:
    return np.concatenate([block.arrays[name] for block in blocks])


def _places(series: Numbers, ids: Numbers) -> Numbers:
    """Where each of them is among `ids`; behind them all for one that is none."""
    return np.where(series >= 0, np.searchsorted(ids, series), len(ids))


def _is_beside(numbers: Numbers, known: Numbers) -> Flags:
    """Which of them are not among those `known`, which are ascending."""
    if not len(known):
        return np.ones(len(numbers), np.bool_)
    return np.asarray(known[np.minimum(np.searchsorted(known, numbers), len(known) - 1)] != numbers)


def _beside(numbers: Numbers, known: Numbers) -> Numbers:
    return numbers[_is_beside(numbers, known)]


def _every(parts: Sequence[Numbers]) -> Numbers:
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))
