"""One portfolio as what it holds, so that new prices are a product away from what it is worth."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from pricecache.core.book import Book
from pricecache.core.currencies import digits, major
from pricecache.core.daychange import Session
from pricecache.core.grid import known_from
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Transaction
from pricecache.core.live_columns import OPENED, PREVIOUS, PRICE, Name, column_facts
from pricecache.core.marketdata import NEVER, MarketData
from pricecache.core.present import Gains, PositionNow, SummaryNow
from pricecache.core.replay import Replayed
from pricecache.core.steps import DAY_BITS, DAY_OFFSET, POSITION_BITS
from pricecache.core.summary import Rest, Summing

QUANTITY, HELD, FLOW, INFLOW, COST = range(5)
"""Rows of `LiveRow.cells`."""
FREE, ROLL, FIRM = range(3)
"""How a cell is bound to its column: not at all; to the session (a new close before makes another row); to all but the
price (a rate that moves makes another row too)."""

_MAY_MISS = {"from_open", "base_at_open"}


@dataclass(frozen=True, slots=True, eq=False)
class LiveRow:
    """A portfolio in `base`, whose money has `places` digits.

    `names`: of its positions, in order, then currencies; `positions`: how many are instruments. `facts`: of the names,
    as this was built by, from `column_facts`. `cells`: float64, shape (5, instruments within accounts), by position:
    quantity in units of today; quantity at the close before, in units of that day; flow since, rounded; gross inflow;
    cost, rounded, NaN unknown. `cash`: float64, balances within accounts. `of`: int32, the name of each cell and then
    of each of `cash`. `quantities`: float64, by name, 0 where a rate matters and nothing is held; `bound`: uint8, by
    name. `within`: float64, shape (positions,), what went between accounts. `balances`: float64, by currency. `gains`:
    of all; what of it moves with prices is not meant. `rest`: what cash and all that belongs to no position did.
    `offset`, `offset_at_open`: what the sum of quantities times columns is short of before and at the open. `until`:
    the first day on which this holds no more, whatever the prices do.
    """

    base: str
    places: int
    names: tuple[Name, ...]
    positions: int
    facts: NDArray[np.float64]
    cells: NDArray[np.float64]
    cash: NDArray[np.float64]
    of: NDArray[np.int32]
    quantities: NDArray[np.float64]
    bound: NDArray[np.uint8]
    within: NDArray[np.float64]
    balances: NDArray[np.float64]
    tracks_cash: bool
    gains: Gains
    rest: Rest
    offset: float
    offset_at_open: float
    until: int

    @property
    def is_plain(self) -> bool:
        """Whether quantities by name are all there is to it: one account for each, and nothing happened of late."""
        cells = self.cells
        return (
            len(self.of) == len(self.names) and bool((cells[HELD] == cells[QUANTITY]).all()) and not cells[FLOW].any()
        )

    @property
    def has_foreign_cash(self) -> bool:
        return any(name != self.base for name in self.names[self.positions :])


def live_row(
    ledger: Ledger,
    market: MarketData,
    sessions: Mapping[Instrument, Session],
    end: int,
    *,
    since: Book | None = None,
) -> LiveRow | None:
    """Of what `summary` is given, in any thread. None where not all is known, or where more than what is held moves
    with prices: shares that came or went without money at a price that is not final. Then a summary is the way."""
    summing = Summing(ledger, market, sessions, end, since, None)
    found = summing.run()
    if found.incomplete - _MAY_MISS or summing.rest.before is None:
        return None
    return _Building(ledger, market, sessions, summing, found).row()


class _Building:
    def __init__(
        self,
        ledger: Ledger,
        market: MarketData,
        sessions: Mapping[Instrument, Session],
        summing: Summing,
        found: SummaryNow,
    ) -> None:
        self.ledger, self.market, self.sessions, self.summing, self.found = ledger, market, sessions, summing, found
        self.base, self.end = ledger.rules.currency, found.end
        self.parts: list[PositionNow] = [part for one in found.positions for part in one.parts]
        previous = [sessions[one.instrument].previous for one in found.positions]
        self.earliest = min([*previous, found.previous])
        keys = summing.replayed.keys
        self.previous_of = np.array(
            [found.previous if name is None else sessions[name].previous for _, name in keys], np.int64
        )
        self.latest = _Latest.of(summing.replayed, self.previous_of, self.earliest)

    def row(self) -> LiveRow | None:
        cash = self.summing.book.cash if self.ledger.rules.cash_tracking else ()
        held, recent = {one.currency for one in cash}, self._recent_currencies()
        names: tuple[Name, ...] = (*(one.instrument for one in self.found.positions), *sorted(held | recent))
        facts = column_facts(names, self.market, self.sessions, self.base, self.end)
        if np.isnan(facts[[PRICE, PREVIOUS]]).any() or self._is_cut() or self._is_new(held) or self._is_moving():
            return None
        cells, touched = self._cells()
        amounts = np.array([float(one.amount) for one in cash])
        number = {name: at for at, name in enumerate(names)}
        held_names: list[Name] = [*(one.instrument for one in self.parts), *(one.currency for one in cash)]
        of = np.array([number[one] for one in held_names], np.int64)
        quantities = np.zeros(len(names))
        np.add.at(quantities, of, np.concatenate([cells[QUANTITY], amounts]))
        changed, columns = cells[HELD] - cells[QUANTITY], facts[:, of[: len(self.parts)]]
        is_restless = self.latest.is_restless or bool(held - {self.base})
        bound = np.full(len(names), ROLL if is_restless else FREE, np.uint8)
        bound[of[: len(self.parts)][touched]] = FIRM
        bound[[number[name] for name in recent]] = FIRM
        count = len(self.found.positions)
        balances = {one.currency: float(one.amount) for one in self.found.balances if cash}
        return LiveRow(
            self.base, digits(self.base), names, count, facts, cells, amounts, of.astype(np.int32), quantities, bound,
            np.array([self.summing.changes.moved_within(one.instrument) for one in self.found.positions]),
            np.array([balances.get(str(name), 0.0) for name in names[count:]]),
            self.ledger.rules.cash_tracking, self.found.gains, self.summing.rest,
            float((changed * columns[PREVIOUS]).sum()), float((changed[touched] * columns[OPENED, touched]).sum()),
            self._until(is_restless),
        )  # fmt: skip

    def _cells(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """As in `LiveRow`, and which of them something happened to since the close before."""
        places = {key: place for place, key in enumerate(self.summing.replayed.keys)}
        cells, touched = np.zeros((5, len(self.parts))), np.zeros(len(self.parts), np.bool_)
        for at, part in enumerate(self.parts):
            place = places[part.account or "", part.instrument]
            cells[QUANTITY, at], cells[HELD, at] = self.latest.quantity[place], self.latest.held[place]
            cells[COST, at] = np.nan if part.gains.cost is None else part.gains.cost
            touched[at] = self.latest.touched[place]
            if touched[at]:
                flow, change = part.worth.flow, self.summing.change(part.account or "", part.instrument)
                cells[FLOW, at] = np.nan if flow is None else flow
                cells[INFLOW, at] = change.inflow
        return cells, touched

    def _recent_currencies(self) -> set[str]:
        """Foreign ones that something since the earliest close before was in: worth what the rate of the day says."""
        found = set()
        for row in self._rows_after(self.earliest):
            if row.day <= self.end:
                own = self.base if row.instrument is None else self.market.currency_of(row.instrument)
                found |= {major(own), major(row.currency or own)}
        return found - {self.base}

    def _rows_after(self, day: int) -> Iterator[Transaction]:
        rows = self.ledger.transactions
        return iter(rows[bisect_right(rows, day, key=attrgetter("day")) :])

    def _until(self, is_restless: bool) -> int:
        following = next((row.day for row in self._rows_after(self.end)), NEVER)
        return min(following, self.end + 1) if is_restless and not self.found.positions else following

    # what is no product

    def _is_cut(self) -> bool:
        """Whether the book that was gone on from is younger than a close before."""
        return self.summing.replayed.opening.positions != () and self.earliest < self.summing.start

    def _is_new(self, held: set[str]) -> bool:
        """Whether a currency of cash had no rate yet: what it brings in comes at the first one."""
        return any(known_from(self.market, self.base, one) > self.earliest for one in held)

    def _is_moving(self) -> bool:
        """Whether shares came or went without money at a price or rate that still moves."""
        replayed = self.summing.replayed
        for index, day, _, _ in replayed.steps.moved:
            instrument = replayed.keys[index][1]
            if instrument is not None and day > self.previous_of[index] and day >= self._final_until(instrument):
                return True
        return False

    def _final_until(self, instrument: Instrument) -> int:
        """The first day whose price in base currency is the present one."""
        column = self.market.prices.get(instrument)
        if column is None:
            return 0
        rates = self.market.rates.get(major(column.currency))
        days = [int(one.sessions[-1]) for one in (column.closes, rates) if one is not None and len(one.sessions)]
        return min(days, default=0)


@dataclass(frozen=True, slots=True, eq=False)
class _Latest:
    """By place of the replay: `quantity` at the end, `held` at the close before (float64), whether something `touched`
    it since (bool). `is_restless`: whether anything happened since the earliest of these closes."""

    quantity: NDArray[np.float64]
    held: NDArray[np.float64]
    touched: NDArray[np.bool_]
    is_restless: bool

    @classmethod
    def of(cls, replayed: Replayed, previous_of: NDArray[np.int64], earliest: int) -> _Latest:
        quantity = np.zeros(len(replayed.keys))
        quantity[: len(replayed.opening.positions)] = replayed.opening.quantities()
        held, touched = quantity.copy(), np.zeros(len(quantity), np.bool_)
        columns = replayed.columns
        days = [day for _, day, _ in replayed.steps.cash]
        for codes in (columns.codes, columns.quantity_codes):
            place, day = (codes >> DAY_BITS) & ((1 << POSITION_BITS) - 1), _days(codes)
            touched[place[day > previous_of[place]]] = True
            days.append(int(day.max(initial=earliest)))
        place, day = columns.quantity_codes >> DAY_BITS, _days(columns.quantity_codes)
        is_before = day <= previous_of[place]
        quantity[place] = columns.quantities
        held[place[is_before]] = columns.quantities[is_before]
        return cls(quantity, held, touched, max(days) > earliest)


def _days(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    return (codes & ((1 << DAY_BITS) - 1)) - DAY_OFFSET
