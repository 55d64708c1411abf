"""What many portfolios are worth at this moment, brought up to new prices in one pass for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.live_columns import FACTS, OF_SESSION, OPENED, PREVIOUS, PRICE, UNIT, Columns, Name
from pricecache.core.live_figures import Figures, Floats, Placed, figures, for_each, worth_of_cells
from pricecache.core.live_matrix import Matrix, Numbers, Overlaid
from pricecache.core.live_rows import FIRM, FLOW, HELD, QUANTITY, ROLL, LiveRow
from pricecache.core.rounding import rounded

WHOLE_EVERY = 256
"""Passes after which everything is multiplied anew, so that errors of what is added up do not."""
MERGE_FROM = 0.05
"""Entries of changed rows, as a share of all, from which on they are worth laying out with the others."""
FEW = 4096
"""So many of them never are."""
AT_ONCE = 100_000
"""Entries that are laid out in a few milliseconds."""
_NO_FACTS = np.empty((FACTS, 0))
_LEAST = 1e-12
"""A value that differs by less, as a share of itself, has only been added up in another order."""
_BY_SLOT: dict[str, Any] = {
    "value": 0.0, "before": 0.0, "at_open": 0.0, "slack": 0.0, "_settled": np.nan, "_past": 0.0, "_past_at_open": 0.0,
    "_agreed": np.nan, "_constant": np.nan, "_places": 0, "_is_plain": False, "_is_foreign": False,
}  # fmt: skip
"""What there is by slot, and what it is where there is no row."""


class LiveBook:
    """Rows in slots (small integers, the caller's own), columns of prices, and what comes of them. Loop-only.

    After `revalue`, by slot, float64: `value` with cash, `before` at the close before, `at_open` (NaN where an open is
    not known), `change` since the close before; none of it rounded. `slack`: how far a change that is told may be from
    it. Where there is no row, or one that was put since, `change` is NaN. Longer than there are slots, and other arrays
    after `put`.
    """

    def __init__(self, whole_every: int = WHOLE_EVERY) -> None:
        self.columns = Columns()
        self.value, self.before, self.at_open, self.change, self.slack = np.zeros((5, 0))
        self._settled, self._past, self._past_at_open, self._agreed, self._constant, self._base = np.zeros((6, 0))
        self._places = np.zeros(0, np.int64)
        self._is_plain, self._is_foreign = np.zeros((2, 0), np.bool_)
        self._placed: list[Placed | None] = []
        self._overlaid = Overlaid()
        self._priced = np.zeros(0)
        self._whole_every, self._passes = whole_every, 0
        self._is_whole_due = self._is_rolled = self._is_put = True

    # rows

    def put(self, slot: int, row: LiveRow) -> Numbers:
        """Columns that are new get the facts that the row was built by. Returns those whose session is another one than
        the row's: they need new facts, or the row is old."""
        numbers = np.array([self.columns.number((name, row.base)) for name in row.names], np.int64)
        known = self.columns.facts[:, numbers]
        is_new = np.isnan(known[UNIT])
        self.columns.facts[:, numbers[is_new]] = row.facts[:, is_new]
        self._grow(slot + 1)
        self.columns.take(numbers)
        self._leave(slot)
        self._set(slot, Placed(replace(row, facts=_NO_FACTS), numbers.astype(np.int32)))
        rest, flow = row.rest, float(row.cells[FLOW].sum()) - (row.rest.other or 0.0)
        had = rest.before or 0.0
        self._settled[slot] = flow + (rest.had + rest.crossed - rest.traded - had if row.tracks_cash else 0.0)
        self._past[slot], self._past_at_open[slot] = row.offset + had, row.offset_at_open + had
        self._places[slot], self._is_foreign[slot] = row.places, row.has_foreign_cash
        self._is_plain[slot] = row.is_plain
        self._constant[slot] = flow - (rest.cash or 0.0) + float(rounded(row.cash, row.places).sum())
        self.slack[slot] = (row.cells.shape[1] + 1) * 10.0**-row.places
        differs = (known[OF_SESSION] != row.facts[OF_SESSION]).any(axis=0)
        return numbers[differs & ~is_new]

    def drop(self, slot: int) -> None:
        if slot < len(self._placed) and self._placed[slot] is not None:
            self._leave(slot)
            self._set(slot, None)
            self._settled[slot], self._past[slot], self._past_at_open[slot] = np.nan, 0.0, 0.0

    def row(self, slot: int) -> LiveRow | None:
        """As it was put, without the facts, which are those of the columns."""
        placed = self._placed[slot] if slot < len(self._placed) else None
        return None if placed is None else placed.row

    # columns

    def column(self, name: Name, base: str) -> int:
        """The number of this column, which is registered when it is new; its facts are to be set then."""
        return self.columns.number((name, base))

    def holders(self, columns: Numbers) -> Numbers:
        """Slots whose row names at least one of `columns`, each of these once, in order."""
        self._lay()
        few = self._overlaid.rows_of(columns)
        return np.flatnonzero(self._holders(columns)) if few is None else few

    def set_prices(self, columns: Numbers, quotes: Floats) -> None:
        """New `quotes` as they are quoted, of the sessions that the facts of `columns` are of."""
        self.columns.tick(columns, quotes)

    def set_columns(self, columns: Numbers, facts: Floats) -> Numbers:
        """New `facts` of `columns`, as `column_facts` gives them. Returns the slots whose rows must be built anew; all
        others go on with the new facts."""
        changed = self.columns.change(columns, facts)
        if len(changed.any_change):
            self._is_rolled = True
            self._agreed[:] = np.nan
        found = self._holders(changed.every)
        found |= self._holders(changed.rolled, ROLL)
        found |= self._holders(changed.any_change, FIRM)
        return np.flatnonzero(found)

    # values

    def revalue(self) -> Numbers:
        """Bring everything up to the present columns and rows. Returns the slots whose value moved, in order."""
        self._lay()
        dirty = self._dirty()
        touched = None if self._is_rolled or self._is_put else self._overlaid.rows_of(dirty)
        if touched is not None and self._adds(dirty):
            return self._revalue_few(dirty, touched)
        earlier, main, over = self.value.copy(), self._overlaid.main, self._overlaid.over
        rows, slots = len(main.placed), self._overlaid.slots
        facts = self.columns.facts
        self._value_main(main, dirty)
        if len(slots):
            self.value[slots] = over.times(facts[PRICE])
        for vector, past, fact in (
            (self.before, self._past, PREVIOUS), (self.at_open, self._past_at_open, OPENED)
        ):  # fmt: skip
            if self._is_rolled:
                vector[:rows] = main.times(facts[fact]) + past[:rows]
            if self._is_rolled or self._is_put:
                vector[slots] = over.times(facts[fact]) + past[slots]
        if self._is_rolled or self._is_put:
            self._base = self.before + self._settled
        self._is_rolled = self._is_put = False
        np.subtract(self.value, self._base, out=self.change)
        return np.flatnonzero(self._has_moved(earlier, slice(None)))

    def _revalue_few(self, dirty: Numbers, touched: Numbers) -> Numbers:
        """The same where the prices of `dirty` are all that changed, which concern the rows in `touched`."""
        earlier = self.value[touched]
        self._add(dirty)
        self.change[touched] = self.value[touched] - self._base[touched]
        return touched[self._has_moved(earlier, touched)]

    def _has_moved(self, earlier: Floats, at: Numbers | slice) -> NDArray[np.bool_]:
        return np.asarray(np.abs(self.value[at] - earlier) > _LEAST * (np.abs(earlier) + self.slack[at]))

    def figures(self, slots: Numbers) -> Figures:
        """What is told of the portfolios in `slots`, at least one, each with a row."""
        return figures(slots, self._rows_in(slots), self.columns.facts)

    def changes(self, slots: Numbers) -> Floats:
        """The change since the close before that `figures` tells of each of `slots`, sooner."""
        agreed = self._agreed[slots]
        unknown = np.flatnonzero(np.isnan(agreed))
        if len(unknown):
            of = slots[unknown]
            agreed[unknown] = self._agreed[of] = self._worth(of, HELD, PREVIOUS) + self._constant[of]
        found = rounded(self._worth(slots, QUANTITY, PRICE) - agreed, for_each(self._places[slots]))
        foreign = np.flatnonzero(self._is_foreign[slots])
        if len(foreign):
            found[foreign] = self.figures(slots[foreign]).totals.change
        return found

    def _worth(self, slots: Numbers, quantity: int, fact: int) -> Floats:
        """Of each the sum of what it has (`QUANTITY`, `HELD`) times a fact, each part rounded."""
        facts, found = self.columns.facts, np.zeros(len(slots))
        is_plain = self._is_plain[slots] & self._overlaid.has(slots)
        plain, others = np.flatnonzero(is_plain), np.flatnonzero(~is_plain)
        if len(plain):
            of = slots[plain]
            found[plain] = self._overlaid.main.worth(of, facts[fact], for_each(self._places[of]))
        if len(others):
            found[others] = worth_of_cells(self._rows_in(slots[others]), facts, quantity, fact)
        return found

    # laying out

    @property
    def wants_merge(self) -> bool:
        """Whether changed rows are so many that `merge` is worth its time."""
        changed = self._overlaid.entries
        return changed > max(FEW, MERGE_FROM * self._overlaid.main.entries)

    def merge(self) -> None:
        """Lay out all rows anew: 30 ms for 500,000 entries."""
        self.adopt(self.layout()())

    def layout(self) -> Callable[[], Matrix]:
        """The same in two steps around a thread: what this gives may be called there, and what comes of it given to
        `adopt`. Rows may change meanwhile."""
        placed, width = tuple(self._placed), len(self.columns)
        return lambda: Matrix.of(placed, width)

    def adopt(self, matrix: Matrix) -> None:
        self._overlaid.adopt(matrix, self._placed)
        self.columns.free()
        self._is_whole_due = self._is_rolled = True

    def _lay(self) -> None:
        if self._is_put:
            if self.wants_merge and self._overlaid.main.entries + self._overlaid.entries <= AT_ONCE:
                self.merge()
            self._overlaid.lay(len(self.columns))

    def _dirty(self) -> Numbers:
        """Columns of the matrix with another price than it was multiplied by last."""
        then = self._priced
        now = self.columns.facts[PRICE, : len(then)]
        dirty = np.flatnonzero(now != then)
        return dirty[~(np.isnan(now[dirty]) & np.isnan(then[dirty]))]

    def _adds(self, dirty: Numbers) -> bool:
        """Whether it is right, and sooner done, to add what these prices moved than to multiply everything."""
        main = self._overlaid.main
        if self._is_whole_due or self._passes + 1 >= self._whole_every or main.cost(dirty) >= main.entries:
            return False
        return not np.isnan(self.columns.facts[PRICE, dirty] - self._priced[dirty]).any()

    def _add(self, dirty: Numbers) -> None:
        now = self.columns.facts[PRICE, dirty]
        self._overlaid.main.add_moved(dirty, now - self._priced[dirty], self.value)
        self._priced[dirty] = now
        self._passes += 1

    def _value_main(self, main: Matrix, dirty: Numbers) -> None:
        if len(dirty) and self._adds(dirty):
            self._add(dirty)
        elif len(dirty) or self._is_whole_due:
            price = self.columns.facts[PRICE]
            self.value[: len(main.placed)] = main.times(price)
            self._passes, self._is_whole_due = 0, False
            self._priced = price[: main.width].copy()

    def _holders(self, columns: Numbers, at_least: int = 0) -> NDArray[np.bool_]:
        self._lay()
        return self._overlaid.holders(columns, len(self._placed), at_least)

    def _rows_in(self, slots: Numbers) -> Sequence[Placed]:
        found = [self._placed[slot] for slot in slots.tolist()]
        return [one for one in found if one is not None]

    def _set(self, slot: int, placed: Placed | None) -> None:
        self._placed[slot] = placed
        self._overlaid.put(slot, placed)
        self._agreed[slot] = self.change[slot] = np.nan
        self._is_put = True

    def _leave(self, slot: int) -> None:
        placed = self._placed[slot]
        if placed is not None:
            self.columns.leave(placed.numbers.astype(np.int64))

    def _grow(self, size: int) -> None:
        missing = size - len(self._placed)
        if missing <= 0:
            return
        missing += len(self._placed) // 4
        self._placed += [None] * missing
        for name, nothing in _BY_SLOT.items():
            setattr(self, name, np.concatenate([getattr(self, name), np.full(missing, nothing)]))
        self.change = np.full(len(self._placed), np.nan)
