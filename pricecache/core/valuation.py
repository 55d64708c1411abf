"""The valuation: what the exact pass wrote down, laid on every calendar day and multiplied by prices. float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core import steps as kinds
from pricecache.core.currencies import digits
from pricecache.core.grid import Grid, known_from, lay_out, rate_row
from pricecache.core.ledger import Rules
from pricecache.core.marketdata import MarketData
from pricecache.core.replay import Replayed
from pricecache.core.scopes import By, Groups, Scope, grouped
from pricecache.core.steps import DAY_BITS, DAY_OFFSET, KIND_SHIFT, POSITION_BITS

FIELDS = (
    "total_value", "total_cost", "total_realized_gain_loss", "total_unrealized_gain_loss", "total_dividends",
    "total_sale_proceeds", "total_original_cost", "total_gain_loss", "cash", "net_flow", "return_index", "coverage",
    "total_fees", "total_interest",
)  # fmt: skip
"""Rows of `Valued.values`. Money is in base currency."""
(VALUE, COST, REALIZED, UNREALIZED, DIVIDENDS, PROCEEDS, ORIGINAL, GAIN, CASH, NET_FLOW, INDEX, COVERAGE, FEES,
 INTEREST) = range(len(FIELDS))  # fmt: skip

TOTALS = ("cost", "proceeds", "original", "dividends", "fees", "interest")
EFFECTS: dict[int, dict[str, int]] = {
    kinds.BOUGHT: {"cost": 1, "bought": 1},
    kinds.CARRIED: {"cost": 1},
    kinds.PROCEEDS: {"proceeds": 1, "sold": 1},
    kinds.ORIGINAL: {"original": 1, "cost": -1},
    kinds.DIVIDEND: {"dividends": 1, "sold": 1},
    kinds.FEE: {"fees": 1, "bought": 1},
    kinds.FEE_OFF: {"fees": 1, "sold": -1},
    kinds.INTEREST: {"interest": 1, "sold": 1},
    kinds.SHORT: {"cost": -1, "sold": 1},
    kinds.COVERED: {"proceeds": 1, "cost": 1},
    kinds.NETTED: {"bought": -1, "sold": -1},
    kinds.CASH_IN: {"paid_in": 1},
    kinds.CASH_OUT: {"paid_out": 1},
    kinds.CASH_MOVED_IN: {"moved_in": 1},
    kinds.CASH_MOVED_OUT: {"moved_out": 1},
    kinds.UNVALUED_IN: {"unvalued": 1},
    kinds.UNVALUED_OUT: {"unvalued": -1},
}
"""What one event of each kind adds to: running totals, money that trades took (`bought`) and gave (`sold`), cash paid
across the portfolio's border and moved within it."""

_OF_TOTALS = (COST, PROCEEDS, ORIGINAL, DIVIDENDS, FEES, INTEREST)
_KINDS = {
    name: [(kind, effects[name]) for kind, effects in EFFECTS.items() if name in effects]
    for name in {name for effects in EFFECTS.values() for name in effects}
}
"""The same by what is added to."""

_ROWS_FROM = 200
"""More days than this are added up row by row; fewer as one matrix."""
_NOTHING = 0.49
"""Less than this, in minor units of the base currency, is no capital: what it returns means nothing."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last values of one scope: running totals in the order of `TOTALS`, how many amounts of each were unknown,
    what it was worth as far as it had prices, and the last defined return index."""

    totals: tuple[float, ...] = (0.0,) * len(TOTALS)
    unknown: tuple[int, ...] = (0,) * len(TOTALS)
    worth: float = 0.0
    index: float = 1.0


_START = Mark()


@dataclass(frozen=True, slots=True, eq=False)
class Valued:
    """Every day from `start` on, for each of `scopes`.

    `values`: float64, shape (fields, scopes, days), in the order of `FIELDS`, not rounded; NaN is unknown or
    undefined. `estimated`: bool, shape (scopes, days). `marks`: of days that were asked for, by scope. `inflow`,
    `outflow`: float64, shape (scopes, days), what the index takes to have come and gone.
    """

    start: int
    scopes: tuple[Scope, ...]
    values: NDArray[np.float64]
    estimated: NDArray[np.bool_]
    marks: dict[int, dict[Scope, Mark]]
    inflow: NDArray[np.float64]
    outflow: NDArray[np.float64]


def value(
    replayed: Replayed,
    market: MarketData,
    rules: Rules,
    end: int,
    *,
    start: int | None = None,
    since: dict[Scope, Mark] | None = None,
    marks: Sequence[int] = (),
    grid: Grid | None = None,
    by: By = "account",
) -> Valued:
    """Value what was replayed, from the day after its opening (or `start`, with nothing before it) to `end`.

    `by`: the scopes besides the portfolio: accounts; instruments within accounts; or instruments across accounts.
    Internal transfers are flows of accounts and of positions. By anything but accounts there is no cash, and trades are
    flows. `grid`: prices laid out before, for at least these days
    and instruments. The result of a day does not depend on how many days are computed at once.
    """
    first = replayed.opening.day + 1 if start is None else start
    return _Kernel(replayed, market, rules, first, end, since or {}, grid, by).run(marks)


class _Kernel:
    def __init__(
        self,
        replayed: Replayed,
        market: MarketData,
        rules: Rules,
        start: int,
        end: int,
        since: dict[Scope, Mark],
        grid: Grid | None,
        by: By,
    ) -> None:
        self.steps, self.opening, self.keys = replayed.steps, replayed.opening, replayed.keys
        self.steps_columns, self.balances = replayed.columns, replayed.balances
        self.market, self.rules, self.by = market, rules, by
        self.start, self.days = start, end - start + 1
        self.since = since
        self.base = rules.currency
        self.cash_held: NDArray[np.int64] | None = None
        self.cash_gaps: NDArray[np.int64] | None = None
        self.rows = self._grouped()
        self.scopes, self.group_of, self.row_of = self.rows.scopes, self.rows.of, self.rows.row_of
        self.bounds, self.groups = self.rows.bounds, len(self.scopes)
        self._grid(grid)

    def _grouped(self) -> Groups:
        if self.keys is not self.opening.keys():
            return grouped(self.keys, self.balances, self.by)
        name = ("groups", self.balances, self.by)
        found: Groups = self.opening.once(name, lambda: grouped(self.keys, self.balances, self.by))
        return found

    def _grid(self, grid: Grid | None) -> None:
        end, shown = self.start + self.days - 1, self.rows.instruments
        if grid is None or grid.start > self.start or grid.start + grid.days <= end:
            grid = lay_out(sorted(set(shown)), self.market, self.base, self.start, end)
        self.columns = slice(self.start - grid.start, self.start - grid.start + self.days)
        self.grid = grid
        rows = [grid.row_of[instrument] for instrument in shown]
        self.grid_rows = np.array(rows, np.int64)
        self.priced_column = grid.priced_from[self.grid_rows] - self.start
        is_all = len(rows) == len(grid.instruments) and rows == list(range(len(rows)))
        self.prices = (grid.prices if is_all else grid.prices[self.grid_rows])[:, self.columns]

    # the run

    def run(self, marks: Sequence[int]) -> Valued:
        self._lay_quantities()
        self._lay_events()
        self.gaps = self._gaps()
        out = np.empty((len(FIELDS), self.groups + 1, self.days))
        worth, is_unknown_value = self._worth(out)
        self._totals(out)
        inflow, outflow = self._flows(out)
        indices = self._index(out, worth, inflow, outflow)
        estimated = self._coverage(out)
        out[VALUE] = np.where(is_unknown_value, np.nan, worth) if is_unknown_value is not None else worth
        found = {day: self._marks(day - self.start, worth, indices) for day in marks if self._covers(day)}
        return Valued(
            self.start,
            ((None, None), *self.scopes),
            out,
            estimated,
            found,
            inflow,
            outflow,
        )

    def _covers(self, day: int) -> bool:
        return self.start <= day < self.start + self.days

    def _lay_quantities(self) -> None:
        """Quantities in units of the grid's prices, as runs: `run_value`, `run_length`, those of a row from
        `run_from[row]` to `run_from[row + 1]`. As a matrix they are laid out where somebody has to look at each."""
        count, days = len(self.rows.shown), self.days
        before = np.zeros(len(self.keys))
        before[: len(self.opening.positions)] = self.opening.quantities()
        self.held_before = before[self.rows.shown]
        codes = self.steps_columns.quantity_codes
        rows = self.row_of[codes >> DAY_BITS]
        places = rows * days + ((codes & ((1 << DAY_BITS) - 1)) - (DAY_OFFSET + self.start))
        every = np.arange(count)
        rows = np.concatenate([every, rows])  # what is before first, then by day: only rows are out of order
        order = (rows.astype(np.uint16) if count < 1 << 16 else rows).argsort(kind="stable")
        places = np.concatenate([every * days, places])[order]
        self.run_value = np.concatenate([self.held_before, self.steps_columns.quantities])[order]
        self.run_length = np.append(places[1:], count * days) - places
        self.run_from = places.searchsorted(np.arange(count + 1) * days)
        self.costs = self._opening_costs() + self.steps.costs
        grid_is_whole = not (self.priced_column > 0).any() and not self.grid.stale_rows[self.grid_rows].any()
        self.in_rows = grid_is_whole and not self.costs and days > _ROWS_FROM
        if not self.in_rows:
            self.quantity = np.repeat(self.run_value, self.run_length).reshape(count, days)

    def _opening_costs(self) -> list[tuple[int, int, float, bool]]:
        """What was paid for what is held from before, as in `steps.costs`, where it has no price yet or is unknown."""
        late = self.rows.shown[(self.priced_column > 0) & (self.held_before != 0)].tolist()
        found = []
        for index in sorted({*late, *self.opening.doubts}):
            held = self.opening.positions[index]
            if held.quantity:
                found.append((index, self.start, *held.known_cost))
        return found

    def _lay_events(self) -> None:
        codes = self.steps_columns.codes
        self.kind = codes >> KIND_SHIFT
        self.nothing = np.zeros((self.groups, self.days))
        self.position = (codes >> DAY_BITS) & ((1 << POSITION_BITS) - 1)
        self.column = (codes & ((1 << DAY_BITS) - 1)) - (DAY_OFFSET + self.start)
        self.place = self.group_of[self.position] * self.days + self.column
        amounts = self.steps_columns.amounts
        unknown = np.isnan(amounts)
        self.unknown_event = unknown if unknown.any() else None
        self.amount = np.where(unknown, 0.0, amounts) if self.unknown_event is not None else amounts
        self._lay_kinds()

    def _lay_kinds(self) -> None:
        """The day's events of each kind there is, by scope: `parts`, float64, shape (scopes, days) each."""
        present = np.bincount(self.kind).nonzero()[0]
        number = np.zeros(len(EFFECTS), np.int64)
        number[present] = np.arange(len(present))
        places = number[self.kind] * (self.groups * self.days) + self.place
        size = len(present) * self.groups * self.days
        flat = np.asarray(np.bincount(places, weights=self.amount, minlength=size), np.float64)
        parts = flat.reshape(len(present), self.groups, self.days)
        self.parts = dict(zip(present.tolist(), parts, strict=True))

    def _gaps(self) -> NDArray[np.bool_] | None:
        """Where something is held that has no price yet: bool, shape (positions shown, days), or None for nowhere."""
        late = np.flatnonzero(self.priced_column > 0)
        if self.in_rows or not len(late):
            return None
        gaps = np.zeros(self.quantity.shape, np.bool_)
        gaps[late] = (np.arange(self.days) < self.priced_column[late, None]) & (self.quantity[late] != 0)
        return gaps if gaps.any() else None

    def _summed(self, name: str, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """The day's events that affect `name`, by scope: float64, shape (scopes, days). Not to be changed."""
        total = self.nothing
        for kind, sign in _KINDS[name]:
            part = self.parts.get(kind)
            if part is None:
                continue
            if mask is not None:
                chosen = (self.kind == kind) & mask
                part = self._binned(self.place[chosen], self.amount[chosen])
            total = total + part if sign > 0 else total - part
        return total

    def _binned(self, places: NDArray[np.int64], amounts: NDArray[np.float64]) -> NDArray[np.float64]:
        size = self.groups * self.days
        flat = np.bincount(places, weights=amounts, minlength=size)
        return np.asarray(flat, np.float64).reshape(self.groups, self.days)

    # value

    def _worth(self, out: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        """What each scope is worth as far as there are prices and rates, and where nothing of what it has is valued."""
        worth = np.zeros((self.groups + 1, self.days))
        if self.in_rows:
            self._add_rows(worth)
        else:
            self.values = self.quantity * self.prices
            self._add_in(worth, self.values)
        self.positions_worth = worth.copy()
        if self.rules.cash_tracking and self.by == "account":
            self._cash(out, worth)
        else:
            out[CASH] = np.nan
        _add_up(worth)
        _add_up(self.positions_worth)
        return worth, self._nowhere_valued()

    def _add_in(self, sums: NDArray[np.float64], rows: NDArray[np.float64]) -> None:
        """Add the rows of each scope to its sum, one after the other."""
        for group, (low, high) in enumerate(self.bounds, 1):
            if low == high:
                continue
            if rows.shape[1] <= _ROWS_FROM:
                sums[group] += rows[low:high].cumsum(axis=0)[-1]
                continue
            for row in rows[low:high]:
                sums[group] += row

    def _add_rows(self, worth: NDArray[np.float64]) -> None:
        """The same sums without the matrix: over thousands of days a row at a time stays in the processor's cache."""
        bounds = self.run_from.tolist()
        product = np.empty(self.days)
        for group, (low, high) in enumerate(self.bounds, 1):
            total = worth[group]
            for row in range(low, high):
                first, last = bounds[row], bounds[row + 1]
                quantity = self.run_value[first:last].repeat(self.run_length[first:last])
                np.multiply(quantity, self.prices[row], out=product)
                np.add(total, product, out=total)

    def _cash(self, out: NDArray[np.float64], worth: NDArray[np.float64]) -> None:
        cash = np.zeros_like(worth)
        held, gaps = np.zeros((2, *worth.shape), np.int64)
        self.cash_listed = np.zeros((2, self.groups, self.days))
        before = {(one.account, one.currency): float(one.amount) for one in self.opening.cash}
        for number, (account, currency) in enumerate(self.balances):
            group = self.rows.of_balance[number] + 1
            balance = self._balance(number, before.get((account, currency), 0.0))
            rates = rate_row(self.market, self.base, currency, self.start, self.days)
            since = known_from(self.market, self.base, currency) - self.start
            cash[group] += balance * rates
            held[group] += balance != 0
            gaps[group] += (balance != 0) & (np.arange(self.days) < since)
            if 0 <= since < self.days:
                earlier = balance[since - 1] if since else before.get((account, currency), 0.0)
                self.cash_listed[int(earlier < 0), group - 1, since] += abs(earlier * rates[since])
        worth += cash
        _add_up(cash)
        held[0], gaps[0] = held[1:].sum(axis=0), gaps[1:].sum(axis=0)
        self.cash_held, self.cash_gaps = held, gaps
        out[CASH] = np.where((gaps > 0) & (gaps == held), np.nan, cash)

    def _balance(self, number: int, before: float) -> NDArray[np.float64]:
        steps = [(day - self.start, float(amount)) for one, day, amount in self.steps.cash if one == number]
        columns = np.array([0, *(column for column, _ in steps)], np.int64)
        values = np.array([before, *(amount for _, amount in steps)])
        repeated: NDArray[np.float64] = np.repeat(values, np.diff(columns, append=self.days))
        return repeated

    def _nowhere_valued(self) -> NDArray[np.bool_] | None:
        if self.gaps is None and (self.cash_gaps is None or not self.cash_gaps.any()):
            return None
        gaps, held = self._counted(self.gaps), self._counted(self._quantities() != 0)
        if self.cash_gaps is not None and self.cash_held is not None:
            gaps, held = gaps + self.cash_gaps, held + self.cash_held
        return np.asarray((gaps > 0) & (gaps == held))

    def _quantities(self) -> NDArray[np.float64]:
        if self.in_rows:
            self.quantity = np.repeat(self.run_value, self.run_length).reshape(len(self.rows.shown), self.days)
            self.values, self.in_rows = self.quantity * self.prices, False
        return self.quantity

    def _counted(self, mask: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        counts = np.zeros((self.groups + 1, self.days), np.int64)
        if mask is not None:
            for group, (low, high) in enumerate(self.bounds, 1):
                counts[group] = mask[low:high].sum(axis=0)
            counts[0] = counts[1:].sum(axis=0)
        return counts

    # running totals

    def _totals(self, out: NDArray[np.float64]) -> None:
        before = [self.since.get(scope, _START) for scope in self.scopes]
        daily = np.array([self._summed(name) for name in TOTALS])
        daily[:, :, 0] += np.array([mark.totals for mark in before]).reshape(-1, len(TOTALS)).T
        self.running = daily.cumsum(axis=2, out=daily)
        self.unknown_counts = self._unknown_counts(before)
        for place, (row, running) in enumerate(zip(_OF_TOTALS, self.running, strict=True)):
            out[row, 1:] = running
            _add_up(out[row])
            if self.unknown_counts is not None and row != COST:
                out[row, 1:][self.unknown_counts[place] > 0] = np.nan
                out[row, 0][(self.unknown_counts[place] > 0).any(axis=0)] = np.nan
        valued_cost = out[COST]
        if self.costs:
            valued_cost = self._without_unpriced(out)
        np.subtract(out[PROCEEDS], out[ORIGINAL], out=out[REALIZED])
        np.subtract(self.positions_worth, valued_cost, out=out[UNREALIZED])
        np.add(out[REALIZED], out[UNREALIZED], out=out[GAIN])

    def _unknown_counts(self, before: list[Mark]) -> NDArray[np.int64] | None:
        if self.unknown_event is None and not any(any(mark.unknown) for mark in before):
            return None
        counts = np.zeros((len(TOTALS), self.groups, self.days), np.int64)
        for place, name in enumerate(TOTALS):
            if self.unknown_event is not None:
                of = np.isin(self.kind, [kind for kind, effects in EFFECTS.items() if name in effects])
                places = self.place[of & self.unknown_event]
                counts[place] = np.bincount(places, minlength=counts[place].size).reshape(counts[place].shape)
            counts[place, :, 0] += [mark.unknown[place] for mark in before]
        return np.cumsum(counts, axis=2)

    def _without_unpriced(self, out: NDArray[np.float64]) -> NDArray[np.float64]:
        """The cost of what has prices. Also takes costs that are unknown out of `out`."""
        costs, unknown = self._costs()
        valued = out[COST].copy()
        if self.gaps is not None:
            unpriced = np.where(self.gaps, costs, 0.0)
            left_out = np.zeros_like(valued)
            self._add_in(left_out, unpriced)
            _add_up(left_out)
            valued -= left_out
        if unknown.any():
            out[COST][self._counted(unknown) > 0] = np.nan
            valued[self._counted(unknown & ~self.gaps if self.gaps is not None else unknown) > 0] = np.nan
        return valued

    def _costs(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Of positions without a price, or with an unknown cost: what is known of it (float64), and where some is not
        (bool); both of shape (positions shown, days)."""
        costs, unknown = np.zeros(self.quantity.shape), np.zeros(self.quantity.shape, np.bool_)
        for index, day, cost, is_unknown in self.costs:
            costs[self.row_of[index], day - self.start :] = cost
            unknown[self.row_of[index], day - self.start :] = is_unknown
        return costs, unknown & (self.quantity != 0)

    # flows and index

    def _flows(self, out: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What came in and went out, for the index; `out` gets the net flow of all there was."""
        own = self._own_flows(None)
        moved = self._moved(None)
        inflow, outflow = _laid_out(own, moved, self.by)
        np.subtract(inflow, outflow, out=out[NET_FLOW])
        unvalued = self._summed("unvalued")
        if unvalued is not self.nothing and unvalued.any():
            out[NET_FLOW] += _with_total(unvalued)
        if self.unknown_event is not None:
            self._forget_flows(out)
        listed = self._listed()
        cash_listed = self.cash_listed if self.cash_held is not None and self.cash_listed.any() else None
        if listed is None and cash_listed is None:
            return inflow, outflow
        if listed is not None:
            hidden = self._hidden(listed)
            own, moved = self._own_flows(hidden), self._moved(listed)
            inflow, outflow = _laid_out(own, moved, self.by)
            came, went = self._arrived(listed)
            inflow, outflow = inflow + _with_total(came), outflow + _with_total(went)
        if cash_listed is not None:
            inflow, outflow = inflow + _with_total(cash_listed[0]), outflow + _with_total(cash_listed[1])
        return inflow, outflow

    def _own_flows(self, hidden: NDArray[np.bool_] | None) -> tuple[NDArray[np.float64], ...]:
        """In and out across the portfolio's border, in and out within it, all but shares; without `hidden` events."""
        shown = None if hidden is None else ~hidden
        if not self.rules.cash_tracking or self.by != "account":
            return self._summed("bought", shown), self._summed("sold", shown), self.nothing, self.nothing
        into, out_of = self._summed("paid_in"), self._summed("paid_out")
        if hidden is not None:  # money that went into something without a price leaves what the index covers
            into, out_of = into + self._summed("sold", hidden), out_of + self._summed("bought", hidden)
        return into, out_of, self._summed("moved_in"), self._summed("moved_out")

    def _moved(self, listed: NDArray[np.int64] | None) -> tuple[NDArray[np.float64], ...] | None:
        """Shares that came and went without money, at the day's price: across the border in, out, within in, out."""
        if not self.steps.moved:
            return None
        flows = np.zeros((4, self.groups, self.days))
        for index, day, quantity, external in self.steps.moved:
            row, column = self.row_of[index], day - self.start
            if column < (self.priced_column[row] if listed is None else listed[row]):
                continue
            amount = quantity * self.prices[row, column]
            place = (0 if external else 2) + (amount < 0)
            flows[place, self.group_of[index], column] += abs(amount)
        return tuple(flows)

    def _listed(self) -> NDArray[np.int64] | None:
        """By row the first column that counts for the index: the one after its first price if it was held before."""
        late = np.flatnonzero(self.priced_column >= 0)
        if not len(late) or (self.in_rows and not self.held_before[late].any()):
            return None
        self._quantities()
        columns = np.maximum(self.priced_column, 0)
        for row in late.tolist():
            column = int(self.priced_column[row])
            earlier = self.quantity[row, column - 1] if 0 < column < self.days else self.held_before[row]
            if column == 0 or column < self.days:
                columns[row] += int(bool(earlier))
        return columns if columns.any() else None

    def _hidden(self, listed: NDArray[np.int64]) -> NDArray[np.bool_]:
        rows = self.row_of[self.position]
        return np.asarray((rows >= 0) & (self.column < listed[rows]))

    def _arrived(self, listed: NDArray[np.int64]) -> NDArray[np.float64]:
        """What was held without a price, on the day it gets its first; and what was owed: (2, scopes, days)."""
        arrived = np.zeros((2, self.groups, self.days))
        for row in np.flatnonzero((listed > self.priced_column) & (self.priced_column >= 0)).tolist():
            column = int(self.priced_column[row])
            if column < self.days:
                amount = self.values[row, column]
                arrived[int(amount < 0), self.group_of[self.rows.shown[row]], column] += abs(amount)
        return arrived

    def _forget_flows(self, out: NDArray[np.float64]) -> None:
        names = {"paid_in", "paid_out", "unvalued"}
        if not self.rules.cash_tracking or self.by != "account":
            names = {"bought", "sold"}
        across = self._where_unknown(names)
        out[NET_FLOW, 0][across.any(axis=0)] = np.nan
        out[NET_FLOW, 1:][across | self._where_unknown({"moved_in", "moved_out"})] = np.nan

    def _where_unknown(self, names: set[str]) -> NDArray[np.bool_]:
        """Scopes and days with an event of unknown amount that affects one of `names`."""
        mask = np.isin(self.kind, [kind for kind, effects in EFFECTS.items() if names & effects.keys()])
        places = self.place[mask & self.unknown_event] if self.unknown_event is not None else self.place[:0]
        counts = np.bincount(places, minlength=self.groups * self.days)
        return np.asarray(counts.reshape(self.groups, self.days) > 0)

    def _index(
        self,
        out: NDArray[np.float64],
        worth: NDArray[np.float64],
        inflow: NDArray[np.float64],
        outflow: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """(V + outflow) / (V previous + inflow), chained. Returns the index with undefined links passed over."""
        before = [self.since.get(scope, _START) for scope in ((None, None), *self.scopes)]
        had = np.empty_like(worth)
        had[:, 0] = [mark.worth for mark in before]
        had[:, 1:] = worth[:, :-1]
        had += inflow
        has = worth + outflow
        nothing = _NOTHING * 10.0 ** -digits(self.base)
        empty = (np.abs(had) < nothing) & (np.abs(has) < nothing)
        undefined = ((had < nothing) | (has < -nothing)) & ~empty
        with np.errstate(divide="ignore", invalid="ignore"):
            links = np.maximum(has, 0.0) / had
        links[empty | undefined] = 1.0
        links[:, 0] *= [mark.index for mark in before]
        chained = np.asarray(np.cumprod(links, axis=1), np.float64)
        out[INDEX] = np.where(undefined, np.nan, chained) if undefined.any() else chained
        return chained

    # how much of it is known

    def _coverage(self, out: NDArray[np.float64]) -> NDArray[np.bool_]:
        out[COVERAGE] = 1.0
        estimated = np.zeros((self.groups + 1, self.days), np.bool_)
        stale = self._stale()
        if stale is not None:
            estimated = self._counted(stale) > 0
        missing = stale if self.gaps is None else self.gaps if stale is None else stale | self.gaps
        columns = np.zeros(self.days, np.bool_) if missing is None else missing.any(axis=0)
        if self.cash_gaps is not None:
            columns = columns | (self.cash_gaps[0] > 0)
        if columns.any():
            self._covered(out, stale, np.flatnonzero(columns))
        return estimated

    def _stale(self) -> NDArray[np.bool_] | None:
        rows = np.flatnonzero(self.grid.stale_rows[self.grid_rows])
        if not len(rows):
            return None
        stale = np.zeros(self.quantity.shape, np.bool_)
        stale[rows] = self.grid.stale[self.grid_rows[rows], self.columns] & (self.quantity[rows] != 0)
        if self.gaps is not None:
            stale &= ~self.gaps
        return stale if stale.any() else None

    def _covered(self, out: NDArray[np.float64], stale: NDArray[np.bool_] | None, columns: NDArray[np.int64]) -> None:
        at = columns
        held = self._quantities()[:, at] != 0
        weights = np.abs(self.values[:, at])
        due = self.grid.due[self.grid_rows][:, self.columns][:, at] & held
        unweighed = np.zeros(held.shape, np.bool_)
        fresh = due.copy()
        if self.gaps is not None:
            gaps = self.gaps[:, at]
            costs, unknown = (part[:, at] for part in self._costs())
            costs = np.abs(costs)
            unweighed = gaps & (unknown | (costs == 0))
            weights = np.where(gaps, np.where(unweighed, 0.0, costs), weights)
            due, fresh = due | gaps, fresh & ~gaps
        if stale is not None:
            fresh &= ~stale[:, at]
        parts = np.zeros((4, self.groups + 1, len(at)))
        blocks = (weights * fresh, weights * due, unweighed.astype(float), held.astype(float))
        for part, block in zip(parts, blocks, strict=True):
            self._add_in(part, block)
        if self.cash_gaps is not None and self.cash_held is not None:
            parts[2] += self.cash_gaps[:, at]
            parts[3] += self.cash_held[:, at]
            parts[2:, 0] = 0.0
        for part in parts:
            _add_up(part)
        covered, whole, unknown, count = parts
        share = np.divide(covered, whole, out=np.ones_like(whole), where=whole > 0)
        known = np.divide(count - unknown, count, out=np.ones_like(count), where=count > 0)
        out[COVERAGE, :, at] = (share * known).T

    # to go on from

    def _marks(self, column: int, worth: NDArray[np.float64], chained: NDArray[np.float64]) -> dict[Scope, Mark]:
        found: dict[Scope, Mark] = {(None, None): Mark(worth=float(worth[0, column]), index=float(chained[0, column]))}
        for group, scope in enumerate(self.scopes):
            totals = tuple(self.running[:, group, column].tolist())
            unknown = (0,) * len(TOTALS)
            if self.unknown_counts is not None:
                unknown = tuple(int(counts[group, column]) for counts in self.unknown_counts)
            found[scope] = Mark(totals, unknown, float(worth[group + 1, column]), float(chained[group + 1, column]))
        return found


def _add_up(rows: NDArray[np.float64]) -> None:
    """Make the first row the sum of the others, in their order."""
    if len(rows) == 1:
        rows[0] = 0.0
        return
    total = rows[0]
    total[:] = rows[1]
    for row in rows[2:]:
        total += row


def _with_total(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    both = np.empty((len(rows) + 1, rows.shape[1]))
    both[1:] = rows
    _add_up(both)
    return both


def _laid_out(
    own: tuple[NDArray[np.float64], ...], moved: tuple[NDArray[np.float64], ...] | None, by: By
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In- and outflow of the portfolio (what crossed its border) and of each scope (what was moved within it too)."""
    across_in, across_out, within_in, within_out = own
    if moved is not None:
        across_in, across_out = across_in + moved[0], across_out + moved[1]
        within_in, within_out = within_in + moved[2], within_out + moved[3]
    inflow, outflow = _with_total(across_in), _with_total(across_out)
    if by != "instrument":
        inflow[1:] += within_in
        outflow[1:] += within_out
    return inflow, outflow
