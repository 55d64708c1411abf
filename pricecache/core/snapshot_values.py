"""What many blocks of portfolios are worth at the close of some days: one sparse product for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.currencies import digits
from pricecache.core.numbering import Numbering
from pricecache.core.snapshot_blocks import CODE_BITS, Block, currency_of

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]

TOTAL_VALUE, CASH, TOTAL_COST = range(3)
FIELDS = 3
"""Of a snapshot, in this order; money in base currency, rounded as the history's rows are. NaN is unknown."""
_NOTHING = Block.of([])


@dataclass(frozen=True, eq=False)
class Prices:
    """By column: `codes` (int64, ascending), and on each of the days that are asked for `prices` in base currency
    (float64, shape (columns, days)), whether a session of it is due and has none (`stale`: bool), and whether that one
    is to come (`awaited`: bool): of what is priced by hand nobody knows."""

    codes: Numbers
    prices: Floats
    stale: Flags
    awaited: Flags

    @cached_property
    def numbering(self) -> Numbering:
        return Numbering(self.codes, CODE_BITS)


@dataclass(frozen=True, eq=False)
class Signs:
    """By series (`ids`: int64, ascending): `changed_from`, the first day that is another than was looked at last;
    `settled`, the last day that nothing but a revision changes; `has_sessions`: bool, whether it has any that count;
    and `closed`: bool, shape (series, days), whether one of these closed on each of the days."""

    ids: Numbers
    changed_from: Numbers
    settled: Numbers
    has_sessions: Flags
    closed: Flags

    @cached_property
    def numbering(self) -> Numbering:
        return Numbering(self.ids)


class Gathered:
    """Several blocks end to end, in their order. May be used by several threads."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        self.generation, self.since = self._joined("generation"), self._joined("since")
        self.accounts = self._joined("accounts").astype(np.int64)
        self._costs, self._codes, self._watched = (self._joined(name) for name in ("costs", "codes", "watched"))
        self._held = np.where(self._codes >= 0, self._codes >> CODE_BITS, -1)
        self._has_cash = bool((self._codes < 0).any())
        self._placed: dict[str, tuple[Numbering, NDArray[np.int32]]] = {}

    def codes_beside(self, known: Numbering) -> Numbers:
        """Every column that something is held in, but for those `known`."""
        return _every(self._codes[self._places("codes", known) == known.none])

    def series_beside(self, known: Numbering) -> Numbers:
        """Every series that is named, but for those `known`."""
        held = self._held[(self._places("held", known) == known.none) & (self._held >= 0)]
        watched = self._watched[self._places("watched", known) == known.none]
        return _every(np.concatenate([held, watched]))

    def named(self, known: Numbering) -> Flags:
        """Which of these series (all that are named among them) any portfolio names."""
        found = np.zeros(known.none + 1, np.bool_)
        found[self._places("held", known)] = True
        found[self._places("watched", known)] = True
        return found[:-1]

    def by_portfolio(self, of_series: NDArray[Any], known: Numbering, how: np.ufunc, nothing: Any) -> NDArray[Any]:
        """`of_series` (by series, as they are `known`) of all the series of each portfolio taken together; `nothing`
        where it names none."""
        if not self._has_cash and len(of_series) and (of_series == of_series[:1]).all():  # as mostly: soon told
            names_any = (self._entries > 0) | (self._named > 0)
            shape = (len(names_any), *(1 for _ in of_series.shape[1:]))
            return np.where(names_any.reshape(shape), of_series[:1], nothing)
        padded = np.concatenate([of_series, np.full((1, *of_series.shape[1:]), nothing, of_series.dtype)])
        held = padded[self._places("held", known)[self._column]]
        beside = padded[self._places("watched", known)[self._series]]
        found = _reduced(how, held, self._entries, nothing), _reduced(how, beside, self._named, nothing)
        return np.asarray(how(*found))

    def valued(self, prices: Prices) -> Floats:
        """float64, shape (days, FIELDS, scopes): the worth of each portfolio and its accounts as they are held."""
        worth, cash = self._worth(prices)
        cash[~self._joined("tracks_cash").repeat(self.accounts)] = np.nan
        places = self._digits()
        places_of_parts = places.repeat(self.accounts)
        found = np.empty((worth.shape[1], FIELDS, len(self._costs)))
        totals = np.cumsum(self.accounts + 1) - (self.accounts + 1)
        is_part = np.ones(len(self._costs), np.bool_)
        is_part[totals] = False
        at_parts = np.flatnonzero(is_part)
        for field, exact in ((TOTAL_VALUE, worth), (CASH, cash)):
            parts = _rounded(exact, places_of_parts)
            found[:, field, at_parts] = parts.T
            found[:, field, totals] = _rounded(_reduced(np.add, parts, self.accounts, 0.0), places).T
        found[:, TOTAL_COST] = self._costs
        found += 0.0
        return found

    def _worth(self, prices: Prices) -> tuple[Floats, Floats]:
        """float64, shape (accounts, days): with the cash, and that alone."""
        from scipy.sparse import csr_array

        days = prices.prices.shape[1]
        counts = self._joined("counts")
        bounds = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)
        shape = (len(counts), len(prices.codes))
        if not all(shape):
            return np.zeros((len(counts) // 2, days)), np.zeros((len(counts) // 2, days))
        held = csr_array((self._joined("quantities"), self._columns(prices), bounds), shape=shape)
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
            column = self._columns(prices)
            for day in days.tolist():
                found[day] = _reduced(np.logical_or, flags[column, day], self._entries, False)
        return found

    def _columns(self, prices: Prices) -> NDArray[np.int32]:
        """The row in `prices` of each entry."""
        return self._places("codes", prices.numbering)[self._column]

    def _digits(self) -> Numbers:
        currencies = self._joined("currency")
        if len(currencies) and (currencies == currencies[0]).all():
            return np.full(len(currencies), digits(currency_of(int(currencies[0]))))
        numbers, inverse = np.unique(currencies, return_inverse=True)
        return np.array([digits(currency_of(number)) for number in numbers.tolist()], np.int64)[inverse]

    def _joined(self, name: str) -> NDArray[Any]:
        return np.concatenate([_NOTHING.arrays[name], *(block.arrays[name] for block in self.blocks)])

    @cached_property
    def _entries(self) -> NDArray[Any]:
        return self._joined("entries")

    @cached_property
    def _named(self) -> NDArray[Any]:
        return self._joined("named")

    @cached_property
    def _column(self) -> NDArray[np.int32]:
        """Of each entry the place in the codes of all blocks."""
        return self._shifted("column", "codes")

    @cached_property
    def _series(self) -> NDArray[np.int32]:
        """The same of the series beside those held, in those of all blocks."""
        return self._shifted("series", "watched")

    def _shifted(self, name: str, into: str) -> NDArray[np.int32]:
        found = np.empty(sum(len(block.arrays[name]) for block in self.blocks), np.int32)
        low = shift = 0
        for block in self.blocks:
            high = low + len(block.arrays[name])
            np.add(block.arrays[name], np.int32(shift), out=found[low:high], casting="same_kind")
            low, shift = high, shift + len(block.arrays[into])
        return found

    def _places(self, name: str, known: Numbering) -> NDArray[np.int32]:
        found = self._placed.get(name)
        if found is None or found[0] is not known:
            numbers = {"codes": self._codes, "held": self._held, "watched": self._watched}[name]
            found = self._placed[name] = known, known.places(numbers)
        return found[1]


def _rounded(amounts: Floats, places: Numbers) -> Floats:
    """As `rows.rounded` does it. `places`: by row."""
    if len(places) and (places == places[0]).all():
        return np.round(amounts, int(places[0]))
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


def _every(numbers: Numbers) -> Numbers:
    """Each once, ascending."""
    found = np.sort(numbers, kind="stable")  # of runs that ascend, it merges them: `np.unique` would hash every one
    is_first = np.ones(len(found), np.bool_)
    is_first[1:] = found[1:] != found[:-1]
    return found[is_first]
