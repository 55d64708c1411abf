"""Many portfolios at once are worth what a summary says of each, whatever moves and in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pricecache.core.daychange import Session
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.live_columns import column_facts
from pricecache.core.live_figures import Figures
from pricecache.core.live_rows import live_row
from pricecache.core.livebook import LiveBook
from pricecache.core.marketdata import Column, MarketData
from pricecache.core.present import SummaryNow
from pricecache.core.summary import summary
from tests.ledgers import INSTRUMENTS, LAST, ledgers, markets

A, B, E = Instrument("AAA"), Instrument("BBB"), Instrument("EEE", "DE")
THURSDAY, FRIDAY, MONDAY = 28, 29, 32  # of January 1970
FIELDS = ("value", "change", "from_open", "before", "flow", "percent", "percent_from_open")


# what a book tells, beside a summary


def told(book: LiveBook, slot: int) -> dict[Any, float | None]:
    found = book.figures(np.array([slot]))
    fields: dict[Any, Any] = {}
    for at, column in enumerate(found.columns.tolist()):
        name = book.columns.keys[column]
        assert name is not None
        fields |= {(name[0], field): getattr(found.positions, field)[at] for field in (*FIELDS, "unrealized")}
        fields[name[0], "weight"], fields[name[0], "quantity"] = found.weight[at], found.quantity[at]
    fields |= {field: getattr(found.totals, field)[0] for field in (*FIELDS, "unrealized")}
    fields |= _of_cash(book, found)
    return {name: None if np.isnan(value) else float(value) for name, value in fields.items()}


def _of_cash(book: LiveBook, found: Figures) -> dict[Any, float]:
    names = [book.columns.keys[number] for number in found.cash_columns.tolist()]
    balances = {name[0]: value for name, value in zip(names, found.balances, strict=True) if name is not None and value}
    parts = {"cash": found.cash, "positions": found.of_positions, "rates": found.of_cash, "other": found.other}
    return {**balances, **{name: part[0] for name, part in parts.items()}, "gain": found.gain[0]}


def summed_up(now: SummaryNow, currency_digits: int = 2) -> dict[Any, float | None]:
    fields: dict[Any, float | None] = {}
    whole = now.worth.value
    for one in now.positions:
        fields |= {(one.instrument, field): getattr(one.worth, field) for field in FIELDS}
        fields[one.instrument, "unrealized"] = one.gains.unrealized
        fields[one.instrument, "weight"] = one.worth.value / whole if whole and one.worth.value is not None else None
        fields[one.instrument, "quantity"] = float(one.quantity)
    fields |= {field: getattr(now.worth, field) for field in FIELDS}
    fields["unrealized"] = now.gains.unrealized
    fields |= {one.currency: one.value for one in now.balances if one.value}
    fields |= {"cash": now.cash, "positions": now.changes["positions"], "other": now.changes["other"]}
    fields["rates"] = now.changes["cash"]
    known = now.gains.realized is not None and now.gains.unrealized is not None
    fields["gain"] = round(now.gains.realized + now.gains.unrealized, currency_digits) + 0.0 if known else None
    return fields


seen: Counter[bool] = Counter()


def assert_same(book: LiveBook, slot: int, now: SummaryNow) -> None:
    found, wanted = told(book, slot), summed_up(now)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        seen[found[name] == value] += 1
        if value is None or found[name] is None:
            assert found[name] is value, (name, found[name], value)
        else:
            assert found[name] == pytest.approx(value, abs=0.005, rel=1e-12), name


# random ledgers and markets


def cut(market: MarketData, end: int) -> MarketData:
    """As it was known on the evening of `end`."""

    def upto(column: Column) -> Column:
        count = int(column.sessions.searchsorted(end, side="right"))
        return Column(column.sessions[:count], column.values[:count], column.due[column.due <= end])

    prices = {one: replace(column, closes=upto(column.closes)) for one, column in market.prices.items()}
    return MarketData(prices, {unit: upto(column) for unit, column in market.rates.items()})


def moved(
    market: MarketData, end: int, by: Mapping[Instrument, float], rates: Mapping[str, float] | None = None
) -> MarketData:
    """The prices (and rates) of day `end`, where it has any, times what `by` says."""

    def times(column: Column, factor: float) -> Column:
        values = np.where(column.sessions == end, np.round(column.values * factor, 4), column.values)
        return Column(column.sessions, values, column.due)

    prices = {
        one: replace(column, closes=times(column.closes, by.get(one, 1.0))) for one, column in market.prices.items()
    }
    return MarketData(
        prices, {unit: times(column, (rates or {}).get(unit, 1.0)) for unit, column in market.rates.items()}
    )


@dataclass
class Live:
    """A book kept as whoever uses it has to, from ledgers and one market."""

    ledgers: list[Ledger]
    market: MarketData
    sessions: dict[Instrument, Session]
    end: int
    book: LiveBook

    def build(self, slots: Sequence[int]) -> None:
        for slot in slots:
            row = live_row(self.ledgers[slot], self.market, self.sessions, self.end)
            if row is None:
                self.book.drop(slot)
            else:
                self.book.put(slot, row)

    def tick(self, market: MarketData) -> None:
        """New quotes of the same sessions."""
        self.market = market
        numbers, quotes = [], []
        for number, key in enumerate(self.book.columns.keys):
            column = market.prices.get(key[0]) if key is not None and not isinstance(key[0], str) else None
            if column is not None and self.end in column.closes.sessions:
                numbers.append(number)
                quotes.append(float(column.closes.values[-1]))
        self.book.set_prices(np.array(numbers, np.int64), np.array(quotes))

    def roll(self, market: MarketData, sessions: dict[Instrument, Session], end: int) -> int:
        """Anything else that is new of the market. Returns how many rows had to be built anew."""
        self.market, self.sessions, self.end = market, sessions, end
        numbers = [number for number, key in enumerate(self.book.columns.keys) if key is not None]
        names = [self.book.columns.keys[number][0] for number in numbers]  # type: ignore[index]
        facts = column_facts(names, market, sessions, "USD", end)
        rebuilt = self.book.set_columns(np.array(numbers, np.int64), facts).tolist()
        late = [slot for slot in range(len(self.ledgers)) if (row := self.book.row(slot)) and row.until <= end]
        self.build([*rebuilt, *late])
        return len(rebuilt)

    def check(self) -> None:
        self.book.revalue()
        for slot, ledger in enumerate(self.ledgers):
            if self.book.row(slot) is not None:
                now = summary(ledger, self.market, self.sessions, self.end)
                assert_same(self.book, slot, now)
                assert self.book.value[slot] == pytest.approx(now.worth.value, abs=0.3)
                assert self.book.before[slot] == pytest.approx(now.worth.before, abs=0.3)
                assert self.book.change[slot] == pytest.approx(now.worth.change, abs=self.book.slack[slot])
                assert self.book.changes(np.array([slot]))[0] == now.worth.change


factors = st.floats(0.8, 1.25)
opens = st.sampled_from([None, 55.25, 101.5])


@st.composite
def sessions_on(draw: Any, end: int) -> dict[Instrument, Session]:
    days = [draw(st.sampled_from([end, end, end - 1])) for _ in INSTRUMENTS]
    return {one: Session(day, day - 1, draw(opens)) for one, day in zip(INSTRUMENTS, days, strict=True)}


@settings(max_examples=60, deadline=None, phases=[Phase.generate])
@given(st.lists(ledgers(), min_size=1, max_size=2), markets(), st.integers(LAST - 15, LAST - 3), st.data())
def test_figures_are_those_of_the_summary(
    drawn: list[Ledger], whole: MarketData, end: int, data: st.DataObject
) -> None:
    drawn = [one for one in drawn if one.first_day is not None and one.first_day <= end]
    live = Live(drawn, cut(whole, end), data.draw(sessions_on(end)), end, LiveBook())
    live.build(range(len(drawn)))
    live.check()
    for _ in range(2):
        live.tick(moved(live.market, live.end, {one: data.draw(factors) for one in INSTRUMENTS}))
        live.check()
    live.roll(moved(live.market, end, {}, {"EUR": data.draw(factors), "GBP": data.draw(factors)}), live.sessions, end)
    live.check()
    for day in (end + 1, end + 2):
        live.roll(cut(whole, day), data.draw(sessions_on(day)), day)
        live.check()
        live.tick(moved(live.market, live.end, {one: data.draw(factors) for one in INSTRUMENTS}))
        live.check()
