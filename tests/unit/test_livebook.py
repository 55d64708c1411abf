"""Many portfolios at once are worth what a summary says of each, whatever moves and in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.core.actions import Action
from pricecache.core.daychange import Session
from pricecache.core.extremes import Extremes
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.live_columns import column_facts
from pricecache.core.live_figures import Figures
from pricecache.core.live_rows import LiveRow, live_row
from pricecache.core.livebook import LiveBook
from pricecache.core.marketdata import Column, MarketData, PriceColumn
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
        if not (isinstance(name, tuple) and name[1] == "quantity"):  # which are sums of floats, and not rounded
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


@settings(max_examples=60, deadline=None)
@given(st.lists(ledgers(), min_size=1, max_size=2), markets(), st.integers(LAST - 15, LAST - 3), st.data())
def test_figures_are_those_of_the_summary(drawn: list[Ledger], whole: MarketData, end: int, data: Any) -> None:
    drawn = [one for one in drawn if one.first_day is not None and one.first_day <= end]
    live = Live(drawn, cut(whole, end), data.draw(sessions_on(end)), end, LiveBook())
    live.build(range(len(drawn)))
    live.check()
    for _ in range(2):
        if data.draw(st.booleans()):
            live.book.merge()
        live.tick(moved(live.market, live.end, {one: data.draw(factors) for one in INSTRUMENTS}))
        live.check()
    rates = {"EUR": data.draw(factors), "GBP": data.draw(factors)}
    live.roll(moved(live.market, end, {}, rates), live.sessions, end)
    live.check()
    for day in (end + 1, end + 2):
        live.roll(cut(whole, day), data.draw(sessions_on(day)), day)
        live.check()
        live.tick(moved(live.market, live.end, {one: data.draw(factors) for one in INSTRUMENTS}))
        live.check()
    changed = data.draw(ledgers())
    if drawn and changed.first_day is not None and changed.first_day <= live.end:
        live.ledgers[0] = changed
        live.build([0])
        live.check()


def test_nearly_all_figures_are_the_same_to_the_last_bit() -> None:
    """Of those that the test before this one looked at."""
    assert seen[True] >= 0.999 * seen.total()


# by hand

NONE = Instrument("NONE")
SESSIONS = {
    NONE: Session(FRIDAY, THURSDAY),
    A: Session(FRIDAY, THURSDAY, 105.0),
    B: Session(FRIDAY, THURSDAY),
    E: Session(FRIDAY, THURSDAY, 10.0),
}


def column(values: dict[int, float]) -> Column:
    days = np.array(sorted(values), np.int64)
    return Column(days, np.array([values[int(day)] for day in days]), days)


def market(a: float = 110.0, b: float = 20.0, rate: float = 1.5, actions: tuple[Action, ...] = ()) -> MarketData:
    """On Thursday A closed at 100, B at 20, E at 10 euros of 1.2 dollars."""
    return MarketData(
        {
            A: PriceColumn(column({1: 90.0, THURSDAY: 100.0, FRIDAY: a}), "USD", actions),
            B: PriceColumn(column({1: 20.0, THURSDAY: 20.0, FRIDAY: b}), "USD"),
            E: PriceColumn(column({1: 10.0, THURSDAY: 10.0, FRIDAY: 11.0}), "EUR"),
        },
        {"EUR": column({1: 1.0, THURSDAY: 1.2, FRIDAY: rate})},
    )


def buy(quantity: Any, instrument: Instrument = A, day: int = 1, price: float = 90) -> Transaction:
    return Transaction(day, "buy", instrument, D(str(quantity)), D(str(price)))


def built(*rows: Transaction, of: MarketData | None = None, **rules: Any) -> LiveRow:
    found = live_row(Ledger.of(rows, Rules(**rules)), of or market(), SESSIONS, FRIDAY)
    assert found is not None
    return found


def book_of(*found: LiveRow, **options: Any) -> LiveBook:
    book = LiveBook(**options)
    for slot, one in enumerate(found):
        book.put(slot, one)
    return book


def columns_of(book: LiveBook, *names: Instrument) -> Any:
    return np.array([book.column(name, "USD") for name in names])


def test_a_tick_moves_only_who_holds_it() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)), built(buy(2), buy(3, B)))
    book.merge()
    assert book.revalue().tolist() == [0, 1, 2]
    book.set_prices(columns_of(book, B), np.array([21.0]))
    assert book.revalue().tolist() == [1, 2]
    assert book.value[:3].tolist() == [1100, 21, 283]
    assert book.change[:3].tolist() == [100, 1, 23]
    assert book.revalue().tolist() == []


@pytest.mark.parametrize("is_merged", [False, True])
def test_holders_are_found_by_any_of_their_columns(is_merged: bool) -> None:
    book = book_of(built(buy(10)), built(buy(1, B)), built(buy(2), buy(3, B)), built(buy(1, E)))
    if is_merged:
        book.merge()
    a, b, e = columns_of(book, A, B, E)
    for asked, wanted in (([a], [0, 2]), ([a, b], [0, 1, 2]), ([e], [3]), ([], []), ([a, b, e], [0, 1, 2, 3])):
        assert book.holders(np.array(asked, np.int64)).tolist() == wanted
    assert book.holders(columns_of(book, Instrument("NEW"))).tolist() == []


def test_each_way_to_find_holders_finds_the_same() -> None:
    walk = np.random.default_rng(3)
    names = [Instrument(f"N{number}") for number in range(40)]
    row, held = built(buy(10)), []
    book = LiveBook()
    for slot in range(3000):
        held.append(walk.choice(40, walk.integers(1, 4), replace=False))
        count = len(held[-1])
        book.put(slot, like(row, [names[at] for at in held[-1].tolist()], walk.integers(1, 9, count) / 4))
    book.merge()
    numbers = columns_of(book, *names)
    for count in (1, 5, 20, 30, 39, 40):
        asked = walk.choice(40, count, replace=False)
        wanted = [slot for slot in range(3000) if set(held[slot].tolist()) & set(asked.tolist())]
        assert book.holders(numbers[asked]).tolist() == wanted


def like(row: LiveRow, names: list[Instrument], quantities: Any) -> LiveRow:
    """A row of other instruments, with the facts of the one in `row`."""
    count = len(names)
    cells = np.repeat(row.cells[:, :1], count, axis=1)
    cells[:2] = quantities
    return replace(
        row, names=tuple(names), positions=count, facts=np.repeat(row.facts[:, :1], count, axis=1), cells=cells,
        of=np.arange(count, dtype=np.int32), quantities=np.asarray(quantities), bound=np.zeros(count, np.uint8),
        within=np.zeros(count),
    )  # fmt: skip


def test_a_changed_row_stands_over_the_one_that_was_laid_out() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)))
    book.merge()
    book.revalue()
    book.put(0, built(buy(1, B)))
    assert book.revalue().tolist() == [0]
    assert book.value[:2].tolist() == [20, 20]
    assert book.holders(columns_of(book, A)).tolist() == []
    assert book.holders(columns_of(book, B)).tolist() == [0, 1]
    book.set_prices(columns_of(book, A, B), np.array([500.0, 30.0]))
    book.revalue()
    assert book.value[:2].tolist() == [30, 30]


def test_what_is_dropped_is_gone_and_its_slot_may_be_taken_again() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)))
    book.merge()
    book.drop(0)
    book.drop(7)
    book.revalue()
    assert book.row(0) is None
    assert book.holders(columns_of(book, A)).tolist() == []
    assert np.isnan(book.change[0])
    book.put(0, built(buy(2)))
    book.revalue()
    assert book.value[:2].tolist() == [220, 20]


def test_rows_may_change_while_all_of_them_are_laid_out_elsewhere() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)), built(buy(1, B)))
    layout = book.layout()
    book.put(0, built(buy(1)))
    book.drop(1)
    book.put(5, built(buy(3)))
    book.adopt(layout())
    book.revalue()
    assert book.value[:6].tolist() == [110, 0, 20, 0, 0, 330]
    assert book.holders(columns_of(book, A, B)).tolist() == [0, 2, 5]


def test_many_changed_rows_are_laid_out_without_being_asked() -> None:
    walk, row = np.random.default_rng(1), built(buy(10))
    book = LiveBook()
    for slot in range(300):
        book.put(slot, like(row, [Instrument(f"N{n}") for n in range(20)], walk.integers(1, 9, 20) / 4))
    assert book.wants_merge
    book.revalue()
    assert not book.wants_merge


def test_a_column_that_nobody_holds_makes_room() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)))
    (gone,) = columns_of(book, A)
    book.drop(0)
    book.merge()
    assert book.columns.find((A, "USD")) is None
    assert book.column(E, "USD") == gone
    book.put(3, built(buy(10, E)))
    book.revalue()
    assert book.value[3] == pytest.approx(165)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 8), min_size=1, max_size=40))
def test_what_is_added_up_is_what_is_multiplied_anew(seed: int, batches: list[int]) -> None:
    walk, row = np.random.default_rng(seed), built(buy(10))
    names = [Instrument(f"N{number}") for number in range(300)]
    rows = []
    for _ in range(400):
        chosen = np.sort(walk.choice(300, 30, replace=False)).tolist()
        rows.append(like(row, [names[at] for at in chosen], walk.integers(1, 9999, 30) / 100))
    added, anew = book_of(*rows), book_of(*rows, whole_every=1)
    for book in (added, anew):
        book.merge()
        book.revalue()
    for count in batches:
        chosen = walk.choice(300, count, replace=False)
        quotes = np.round(walk.uniform(1, 500, count), 2)
        for book in (added, anew):
            book.set_prices(columns_of(book, *(names[at] for at in chosen)), quotes)
        assert added.revalue().tolist() == anew.revalue().tolist()
        np.testing.assert_allclose(added.value, anew.value, rtol=1e-9)


def test_a_new_session_builds_only_rows_with_something_of_the_last_one() -> None:
    rows = [built(buy(10)), built(buy(10), buy(1, day=FRIDAY, price=105)), built(buy(1, B)), built(buy(10), buy(1, B))]
    book = book_of(*rows)
    sessions = {A: Session(MONDAY, FRIDAY, 111.0)}
    later = MarketData({A: PriceColumn(column({1: 90.0, THURSDAY: 100.0, FRIDAY: 110.0, MONDAY: 112.0}), "USD")})
    facts = column_facts([A], later, sessions, "USD", MONDAY)
    assert book.set_columns(columns_of(book, A), facts).tolist() == [1]
    book.revalue()
    assert book.change[[0, 3]].tolist() == [20, 20]
    assert told(book, 0)["from_open"] == 10


def test_a_session_without_a_price_is_a_new_session_all_the_same() -> None:
    """What cash was worth before is told by the rate of another day then."""
    deposit = Transaction(1, "deposit", amount=D(100), currency="EUR")
    ledger = Ledger.of([deposit, buy(1)], Rules(cash_tracking=True))
    book = book_of(built(*ledger.transactions, cash_tracking=True))
    closes = column({1: 90.0, THURSDAY: 100.0, MONDAY: 112.0})
    sessions = {A: Session(MONDAY, FRIDAY)}
    later = MarketData({A: PriceColumn(closes, "USD")}, market().rates)
    facts = column_facts([A, "EUR"], later, sessions, "USD", MONDAY)
    numbers = np.array([book.column(A, "USD"), book.column("EUR", "USD")])
    assert book.set_columns(numbers, facts).tolist() == [0]


def test_a_split_builds_all_that_hold_it() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)), built(buy(10), buy(1, B)))
    split = market(27.5, actions=(Action(FRIDAY, "split", 4.0),))
    facts = column_facts([A], split, SESSIONS, "USD", FRIDAY)
    assert book.set_columns(columns_of(book, A), facts).tolist() == [0, 2]
    book.put(0, built(buy(10), of=split))
    book.revalue()
    assert (book.value[0], book.change[0]) == (1100, 100)


def test_a_rate_builds_only_rows_that_something_was_paid_by_today() -> None:
    deposit = Transaction(1, "deposit", amount=D(100), currency="EUR")
    rows = [
        built(buy(10, E)),
        built(buy(10, E), buy(1, E, day=FRIDAY, price=10)),
        built(deposit, cash_tracking=True),
        built(buy(10)),
    ]
    book = book_of(*rows)
    numbers = np.array([book.column(E, "USD"), book.column("EUR", "USD")])
    facts = column_facts([E, "EUR"], market(rate=2.0), SESSIONS, "USD", FRIDAY)
    assert book.set_columns(numbers, facts).tolist() == [1]
    book.revalue()
    assert book.value[[0, 2]].tolist() == [220, 200]
    assert (told(book, 2)["rates"], told(book, 2)["EUR"]) == (80, 200)


def test_a_row_of_another_session_than_its_column_is_told() -> None:
    book = book_of(built(buy(10)))
    (a,) = columns_of(book, A)
    later = MarketData({A: PriceColumn(column({1: 90.0, FRIDAY: 110.0, MONDAY: 112.0}), "USD")})
    row = live_row(Ledger.of([buy(1)], Rules()), later, {A: Session(MONDAY, FRIDAY)}, MONDAY)
    assert row is not None
    assert book.put(1, row).tolist() == [a]
    assert book.put(2, built(buy(1))).tolist() == []


@pytest.mark.parametrize(
    "rows",
    [
        [buy(1, NONE)],
        [Transaction(FRIDAY, "transfer_in", A, D(1), D(100))],
        [buy(1), Transaction(FRIDAY, "transfer_out", A, D(1), to_account="other")],
    ],
)
def test_what_is_no_product_has_no_row(rows: list[Transaction]) -> None:
    assert live_row(Ledger.of(rows, Rules()), market(), SESSIONS, FRIDAY) is None


def test_a_row_says_until_when_it_holds() -> None:
    assert built(buy(1)).until > 1 << 30
    assert built(buy(1), buy(1, day=FRIDAY + 3)).until == FRIDAY + 3
    foreign = Transaction(1, "deposit", amount=D(100), currency="EUR")
    assert built(foreign, cash_tracking=True).until == FRIDAY + 1


def test_portfolios_of_several_currencies_are_rounded_each_to_its_own_digits() -> None:
    data = MarketData({A: market().prices[A]}, {"USD": column({1: 150.123, FRIDAY: 150.123})})
    rows = [Ledger.of([buy("1.5")], Rules("JPY")), Ledger.of([buy("1.005")], Rules())]
    book = LiveBook()
    for slot, ledger in enumerate(rows):
        found = live_row(ledger, data if slot == 0 else market(), SESSIONS, FRIDAY)
        assert found is not None
        book.put(slot, found)
    book.revalue()
    assert book.figures(np.array([0, 1])).totals.value.tolist() == [round(1.5 * 110 * 150.123), 110.55]
    assert book.changes(np.array([0, 1])).tolist() == book.figures(np.array([0, 1])).totals.change.tolist()


def test_half_a_cent_is_rounded_as_the_summary_does() -> None:
    ledger = Ledger.of([buy("0.5"), buy("2.5", B)], Rules())
    for cents in range(10_001, 10_100, 2):
        data = market(cents / 100, cents / 1000)
        row = live_row(ledger, data, SESSIONS, FRIDAY)
        assert row is not None
        book = book_of(row)
        book.revalue()
        assert_same(book, 0, summary(ledger, data, SESSIONS, FRIDAY))


# highs and lows


def test_the_range_follows_the_change_that_is_told() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)))
    ranges = Extremes(book)
    assert ranges.range(0) is None
    book.revalue()
    assert ranges.track().tolist() == [0, 1]
    for price, moved_slots, wanted in ((111.0, [0], (110, 100)), (105.0, [0], (110, 50)), (108.0, [], (110, 50))):
        book.set_prices(columns_of(book, A), np.array([price]))
        book.revalue()
        assert ranges.track().tolist() == moved_slots
        assert ranges.range(0) == wanted
    ranges.restart(0)
    assert ranges.range(0) is None
    assert ranges.track().tolist() == [0]
    assert ranges.range(0) == (80, 80)


def test_a_range_that_was_kept_goes_on() -> None:
    book = book_of(built(buy(10)))
    ranges = Extremes(book)
    ranges.set_range(0, 150.0, -20.0)
    ranges.set_range(9, 1.0, 1.0)
    book.revalue()
    assert ranges.track().tolist() == []
    assert ranges.range(0) == (150, -20)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_ranges_are_those_of_every_figure_told(seed: int, is_merged: bool) -> None:
    walk = np.random.default_rng(seed)
    paid = Transaction(1, "deposit", amount=D("777.77"))
    rows = [
        built(buy("3.335"), buy("0.5", B)),
        built(paid, buy("0.125"), buy("7.77", B), cash_tracking=True),
        built(buy("1.5", E), Transaction(1, "deposit", amount=D(9), currency="EUR"), cash_tracking=True),
        built(buy("0.01"), buy("0.333", day=FRIDAY, price=101.01)),
    ]
    book = book_of(*rows)
    if is_merged:
        book.merge()
    ranges, slots = Extremes(book), np.arange(4)
    high, low = np.full(4, -np.inf), np.full(4, np.inf)
    for _ in range(20):
        book.set_prices(columns_of(book, A, B, E), np.round(walk.normal([110, 20, 11], 0.01), 3))
        book.revalue()
        ranges.track()
        change = book.figures(slots).totals.change
        high, low = np.maximum(high, change), np.minimum(low, change)
        assert [ranges.range(slot) for slot in range(4)] == list(zip(high.tolist(), low.tolist(), strict=True))


def test_what_is_put_anew_has_no_change_until_it_is_valued() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)))
    book.revalue()
    book.put(0, built(buy(3)))
    assert np.isnan(book.change[0])
    book.revalue()
    assert not np.isnan(book.change[0])
    book.drop(0)
    book.put(0, built(buy(1, B)))
    assert np.isnan(book.change[0])
    book.revalue()
    assert book.change[0] == book.change[1]


def test_a_layout_that_another_one_overtook_brings_no_old_rows_back() -> None:
    book = book_of(built(buy(10)), built(buy(1, B)))
    book.revalue()
    layout = book.layout()
    book.put(0, built(buy(3)))
    book.drop(1)
    book.merge()
    book.adopt(layout())
    book.revalue()
    assert book.value[0] == 3 * 110
    assert book.holders(columns_of(book, A)).tolist() == [0]
    assert book.holders(np.array([book.column(B, "USD")])).tolist() == []
