"""What many portfolios hold as one sparse matrix, with the rows that changed lately beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.live_figures import Placed, sums
from pricecache.core.rounding import units

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

A_COLUMN, AN_ENTRY = 3000, 6.0
"""What going through a column costs and through an entry of it, where an entry of the whole product costs 1."""
A_ROW = 8
"""What sorting a row in costs, where one of a pass over all rows costs 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Quantities by row and column. `placed`: what each row was laid out from, None for nothing. `by_row`: CSR, shape
    (rows, `width`), None without rows. `starts`, `counts`, `rows`, `quantities`: the same by column, as CSC has them,
    each row once in a column; `bound`: uint8, how an entry is bound to its column (`live_rows`). Immutable."""

    placed: Sequence[Placed | None]
    width: int
    by_row: Any
    starts: Numbers
    counts: Numbers
    rows: Numbers
    quantities: Floats
    bound: NDArray[np.uint8]

    @classmethod
    def of(cls, placed: Sequence[Placed | None], width: int) -> Matrix:
        """With `width` columns. Takes milliseconds for each 100,000 entries; pure, so it may be done in a thread."""
        if not placed:
            # the library is loaded when there is something to multiply
            starts, none = np.zeros(width + 1, np.int64), np.empty(0, np.int64)
            return cls((), width, None, starts, np.diff(starts), none, np.empty(0), np.empty(0, np.uint8))
        from scipy.sparse import csr_array

        there = [one for one in placed if one is not None]
        counts = [0 if one is None else len(one.numbers) for one in placed]
        bounds = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)
        columns = _joined([one.numbers for one in there], np.int32)
        quantities = _joined([one.row.quantities for one in there], np.float64)
        bound = _joined([one.row.bound for one in there], np.uint8)
        shape = (len(placed), width)
        by_row = csr_array((quantities, columns, bounds), shape=shape)
        turned = csr_array((np.arange(len(columns)), columns, bounds), shape=shape).tocsc()
        order = turned.data
        by_column, rows = turned.indptr.astype(np.int64), turned.indices.astype(np.int64)
        return cls(placed, width, by_row, by_column, np.diff(by_column), rows, quantities[order], bound[order])

    @property
    def entries(self) -> int:
        return len(self.quantities)

    def times(self, columns: Floats) -> Floats:
        """Of each row the sum of quantities times `columns` (float64, at least as many as there are)."""
        if self.by_row is None:
            return np.zeros(0)
        return np.asarray(self.by_row @ columns[: self.width], np.float64)

    def cost(self, columns: Numbers) -> float:
        """Of going through these columns one by one, where the whole product costs `entries`."""
        return float(A_COLUMN * len(columns) + AN_ENTRY * self.counts[columns].sum())

    def add_moved(self, columns: Numbers, steps: Floats, to: Floats) -> None:
        """Add to the rows' values `to` what they gain when these columns, each once, grow by so much."""
        for column, step in zip(columns.tolist(), steps.tolist(), strict=True):
            part = slice(self.starts[column], self.starts[column + 1])
            to[self.rows[part]] += self.quantities[part] * step

    def rows_of(self, columns: Numbers) -> Numbers | None:
        """The rows with an entry in one of `columns`, each once, in order; None where these
        are so many entries that going through all rows is sooner done."""
        if len(columns) == 1:
            column = columns[0]
            return self.rows[self.starts[column] : self.starts[column + 1]]
        if A_ROW * self.counts[columns].sum() > len(self.placed):
            return None
        parts = [self.rows[self.starts[column] : self.starts[column + 1]] for column in columns.tolist()]
        return np.unique(_joined(parts, np.int64))

    def holders(self, columns: Numbers, at_least: int = 0) -> NDArray[np.bool_]:
        """Which rows have an entry in one of `columns` that is bound at least so: bool, shape (rows,)."""
        is_asked = np.zeros(self.width, np.bool_)
        is_asked[columns[columns < self.width]] = True
        if not at_least and 2 * self.counts[is_asked].sum() > self.entries:
            return self._but(~is_asked)
        found = np.zeros(len(self.placed), np.bool_)
        for column in np.flatnonzero(is_asked & (self.counts > 0)).tolist():
            part = slice(self.starts[column], self.starts[column + 1])
            found[self.rows[part] if not at_least else self.rows[part][self.bound[part] >= at_least]] = True
        return found

    def _but(self, is_left_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows have an entry in any other column, by going through those that are left out."""
        left = np.diff(self.by_row.indptr)
        for column in np.flatnonzero(is_left_out & (self.counts > 0)).tolist():
            left[self.rows[self.starts[column] : self.starts[column + 1]]] -= 1
        return np.asarray(left > 0)

    def worth(self, rows: Numbers, columns: Floats, places: int | NDArray[np.int64]) -> Floats:
        """Of each of `rows` the sum of quantities times `columns`, each of these rounded to the row's `places`."""
        indptr, indices = self.by_row.indptr, self.by_row.indices
        starts = indptr[rows]
        counts = indptr[rows + 1] - starts
        bounds = np.append(0, counts.cumsum())
        entries = np.arange(bounds[-1]) + (starts - bounds[:-1]).repeat(counts)
        exact = self.by_row.data.take(entries) * columns.take(indices.take(entries))
        whole = units(exact, places if isinstance(places, int) else places.repeat(counts))
        return np.asarray(sums(whole, bounds) / 10.0 ** np.asarray(places))


class Overlaid:
    """A matrix and the rows that have changed since it was laid out, so that a change costs what changed. Loop-only."""

    def __init__(self) -> None:
        self.main = Matrix.of([], 0)
        self.slots: Numbers = np.empty(0, np.int64)
        self.over = Matrix.of([], 0)
        self._changed: dict[int, Placed | None] = {}
        self._is_old = False
        self._in_main = np.zeros(0, np.bool_)

    @property
    def entries(self) -> int:
        """Of what changed."""
        return sum(len(one.numbers) for one in self._changed.values() if one is not None)

    def rows_of(self, columns: Numbers) -> Numbers | None:
        """As a matrix tells it; None also where rows have changed. `lay` comes first."""
        if len(self.slots):
            return None
        return self.main.rows_of(columns[columns < self.main.width])

    def holders(self, columns: Numbers, size: int, at_least: int = 0) -> NDArray[np.bool_]:
        """As a matrix tells it, by slot below `size`. `lay` comes first."""
        found = np.zeros(size, np.bool_)
        found[: len(self.main.placed)] = self.main.holders(columns, at_least)
        if len(self.slots):
            found[self.slots] = self.over.holders(columns, at_least)
        return found

    def put(self, slot: int, placed: Placed | None) -> None:
        self._changed[slot] = placed
        self._is_old = True
        self._in_main[slot : slot + 1] = False

    def has(self, slots: Numbers) -> NDArray[np.bool_]:
        """Which of them stand in `main` as they are."""
        found = slots < len(self._in_main)
        found[found] = self._in_main[slots[found]]
        return found

    def lay(self, width: int) -> None:
        """Bring `slots` and `over`, the changed rows in their order, up to date."""
        if self._is_old:
            self.slots = np.array(list(self._changed), np.int64)
            self.over = Matrix.of(list(self._changed.values()), width)
            self._is_old = False

    def adopt(self, matrix: Matrix, placed: Sequence[Placed | None]) -> None:
        """Go on from `matrix`; what is in a slot now (`placed`) and is not what the matrix has stands over it."""
        known = [*matrix.placed, *[None] * (len(placed) - len(matrix.placed))]
        self.main, self._is_old = matrix, True
        # of all slots: another matrix may have been adopted since this one was begun, with what had changed by then
        self._changed = {
            slot: now for slot, (then, now) in enumerate(zip(known, placed, strict=True)) if now is not then
        }
        self._in_main = np.ones(len(matrix.placed), np.bool_)
        self._in_main[[slot for slot in self._changed if slot < len(matrix.placed)]] = False


def _joined(parts: list[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *parts])
