"""What is told of portfolios: rows times columns, rounded as a summary is, for many portfolios in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.live_columns import OPENED, PREVIOUS, PRICE
from pricecache.core.live_rows import QUANTITY, LiveRow
from pricecache.core.present import NOTHING
from pricecache.core.rounding import rounded

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A row in a book. `numbers`: int32, the column of each of its names."""

    row: LiveRow
    numbers: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """One figure of each position, or of each portfolio: float64 of one length, in base currency and whole minor units,
    NaN unknown. What they mean is said at `present.Worth`."""

    value: Floats
    change: Floats
    from_open: Floats
    before: Floats
    flow: Floats
    percent: Floats
    percent_from_open: Floats
    unrealized: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Portfolios in `slots`, int64. The positions of `slots[i]` lie from `starts[i]` up to `starts[i + 1]`, the
    currencies it has cash in from `cash_starts[i]` on.

    `positions`, `columns` (int64), `quantity`, `weight`: by position. `totals`, `gain` (realised and not), `cash` (NaN
    where it is not tracked), `of_positions`, `of_cash`, `other` (the parts of a change), `is_opened` (bool, whether all
    opens are known): by portfolio. `cash_columns` (int64), `balances` in base currency: by currency.
    """

    slots: NDArray[np.int64]
    starts: NDArray[np.int64]
    columns: NDArray[np.int64]
    quantity: Floats
    positions: Told
    weight: Floats
    totals: Told
    gain: Floats
    cash: Floats
    of_positions: Floats
    of_cash: Floats
    other: Floats
    is_opened: NDArray[np.bool_]
    cash_starts: NDArray[np.int64]
    cash_columns: NDArray[np.int64]
    balances: Floats


def figures(slots: NDArray[np.int64], placed: Sequence[Placed], facts: Floats) -> Figures:
    """Of the rows `placed` in `slots`, at least one, with the `facts` of all columns. Pure."""
    return _Telling(placed, facts).tell(slots)


def worth_of_cells(placed: Sequence[Placed], facts: Floats, quantity: int, fact: int) -> Floats:
    """Of each row the sum of `quantity` (`QUANTITY` or `HELD`) and of cash times a fact of its column, each rounded."""
    counts = np.array([len(one.row.of) for one in placed], np.int64)
    columns = np.concatenate([one.numbers[one.row.of] for one in placed])
    held = np.concatenate([part for one in placed for part in (one.row.cells[quantity], one.row.cash)])
    places = np.array([one.row.places for one in placed])
    return sums(rounded(held * facts[fact, columns], for_each(places, counts)), np.append(0, counts.cumsum()))


class _Telling:
    def __init__(self, placed: Sequence[Placed], facts: Floats) -> None:
        self.rows = [one.row for one in placed]
        self.facts = facts
        counts = np.array([(row.positions, row.cells.shape[1], len(row.cash), len(row.balances)) for row in self.rows])
        self.starts, self.cell_starts, self.cash_starts, self.balance_starts = np.concatenate(
            [np.zeros((4, 1), np.int64), counts.T.cumsum(axis=1)], axis=1
        )
        self.columns = np.concatenate([one.numbers[: one.row.positions] for one in placed])
        self.balance_columns = np.concatenate([one.numbers[one.row.positions :] for one in placed])
        self.cash_columns = np.concatenate([one.numbers[one.row.of[one.row.cells.shape[1] :]] for one in placed])
        self.cells = np.concatenate([row.cells for row in self.rows], axis=1)
        of = np.concatenate([row.of[: row.cells.shape[1]] for row in self.rows])
        self.of = of + self.starts[:-1].repeat(counts[:, 1])
        self.count = np.bincount(self.of, minlength=len(self.columns))
        self.by_position = np.append(0, self.count.cumsum())
        places = np.array([row.places for row in self.rows])
        of_positions, of_cells, _, of_balances = counts.T
        self.places = for_each(places)
        self.places_of, self.places_in = for_each(places, of_positions), for_each(places, of_cells)
        self.places_of_cash = for_each(places, of_balances)

    def tell(self, slots: NDArray[np.int64]) -> Figures:
        positions, base_at_open = self._positions()
        rest = np.array([
            [np.nan if one is None else one for one in (r.rest.other, r.rest.inflow, r.rest.before, r.gains.realized)]
            for r in self.rows
        ]).T  # fmt: skip
        other, inflow, had, realized = rest
        cash, of_cash, balances = self._cash()
        of_positions = self._total(positions.change)
        change = rounded(of_positions + np.nan_to_num(of_cash) + other, self.places)
        value = rounded(self._total(positions.value) + sums(balances, self.balance_starts), self.places)
        before = rounded(self._total(positions.before) + had, self.places)
        opened, is_opened = self._total_of_known(positions.from_open)
        at_open, _ = self._total_of_known(base_at_open)
        opened = rounded(opened + other, self.places)
        totals = Told(
            value, change, opened, before, rounded(value - before - change, self.places),
            _percent(change, before + inflow), _percent(opened, at_open + had), self._unrealized(),
        )  # fmt: skip
        whole = value.repeat(np.diff(self.starts))
        weight = np.divide(positions.value, whole, out=np.full(len(whole), np.nan), where=whole != 0)
        return Figures(
            slots, self.starts, self.columns, self._summed(self.cells[QUANTITY]), positions, weight, totals,
            rounded(realized + totals.unrealized, self.places), cash, of_positions, of_cash, other, is_opened,
            self.balance_starts, self.balance_columns, balances,
        )  # fmt: skip

    # by cell and by position

    def _positions(self) -> tuple[Told, Floats]:
        """And what their changes from the open are shares of."""
        facts = self.facts[: OPENED + 1, self.columns][:, self.of]
        quantity, held, flow, inflow, cost = self.cells
        places = self.places_in
        self.value = rounded(quantity * facts[PRICE], places)
        exact = held * facts[PREVIOUS]
        before = rounded(exact, places)
        opened = np.zeros(len(exact))
        np.divide(exact * facts[OPENED], facts[PREVIOUS], out=opened, where=exact != 0)
        at_open = rounded(opened, places)
        change = rounded(self.value - before - flow, places)
        from_open = rounded(self.value - at_open - flow, places)
        self.unrealized = rounded(self.value - cost, places)
        parts = [self._sum(one) for one in (self.value, change, from_open, before, flow, self.unrealized)]
        base, base_at_open = self._base(before + inflow), self._base(at_open + inflow)
        value, change, from_open, before, flow, unrealized = parts
        percents = _percent(change, base), _percent(from_open, base_at_open)
        return Told(value, change, from_open, before, flow, *percents, unrealized), base_at_open

    def _sum(self, of_cells: Floats) -> Floats:
        return rounded(self._summed(of_cells), self.places_of)

    def _summed(self, of_cells: Floats) -> Floats:
        return sums(of_cells, self.by_position)

    def _base(self, of_cells: Floats) -> Floats:
        """What moved between accounts came into one of them, and not into all."""
        within = np.concatenate([row.within for row in self.rows])
        summed = self._summed(of_cells)
        return np.where((self.count == 1) & (within == 0), summed, rounded(summed, self.places_of) - within)

    # by portfolio

    def _cash(self) -> tuple[Floats, Floats, Floats]:
        """All of it, what rates did to it (both NaN where it is not tracked), and each balance."""
        balances = rounded(
            np.concatenate([row.balances for row in self.rows]) * self.facts[PRICE, self.balance_columns],
            self.places_of_cash,
        )
        exact = np.concatenate([row.cash for row in self.rows]) * self.facts[PRICE, self.cash_columns]
        past = np.array([(r.rest.had, r.rest.crossed, r.rest.traded) for r in self.rows]).T
        moved = rounded(sums(exact, self.cash_starts) - past[0] - past[1] + past[2], self.places)
        tracks = np.array([row.tracks_cash for row in self.rows])
        cash = rounded(sums(balances, self.balance_starts), self.places)
        return np.where(tracks, cash, np.nan), np.where(tracks, moved, np.nan), balances

    def _unrealized(self) -> Floats:
        """Of what is held still."""
        held = np.where(self.cells[QUANTITY] != 0, self.unrealized, 0.0)
        return rounded(sums(held, self.cell_starts), self.places)

    def _total(self, of_positions: Floats) -> Floats:
        return rounded(sums(of_positions, self.starts), self.places)

    def _total_of_known(self, of_positions: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """NaN where there is something and none of it is known; and where all is."""
        is_known = ~np.isnan(of_positions)
        known = sums(is_known.astype(float), self.starts)
        found = self._total(np.where(is_known, of_positions, 0.0))
        is_all = known == np.diff(self.starts)
        return np.where(is_all | (known > 0), found, np.nan), is_all


def sums(values: Floats, bounds: NDArray[np.int64]) -> Floats:
    """The sums between `bounds`."""
    found, is_some = np.zeros(len(bounds) - 1), bounds[1:] > bounds[:-1]
    if len(values):
        found[is_some] = np.add.reduceat(values, bounds[:-1][is_some])
    return found


def for_each(places: NDArray[np.int64], counts: NDArray[np.int64] | None = None) -> int | NDArray[np.int64]:
    """The digits of each of so many amounts (one of each where None); one number where all have the same."""
    if (places == places[0]).all():
        return int(places[0])
    return places if counts is None else places.repeat(counts)


def _percent(change: Floats, base: Floats) -> Floats:
    return np.divide(100 * change, base, out=np.full(len(base), np.nan), where=base > NOTHING)
