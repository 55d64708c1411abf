"""The exact pass: textbook cost bases to the penny, transfers with their lots, splits by whoever says them."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.book import Book, Held
from pricecache.core.history import book_at, check
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import CostBasis, Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.replay import replay
from pricecache.errors import Invalid

A = Instrument("AAA")
L = Instrument("LOB", "L")


def market(actions: tuple[Action, ...] = (), currency: str = "USD", instrument: Instrument = A) -> MarketData:
    days = np.arange(0, 400, dtype=np.int64)
    column = Column(days, np.full(400, 10.0), days)
    return MarketData({instrument: PriceColumn(column, currency, actions)})


def row(day: int, kind: Any, quantity: Any = None, price: Any = None, **more: Any) -> Transaction:
    number = None if quantity is None else D(str(quantity))
    return Transaction(day, kind, more.pop("instrument", A), number, None if price is None else D(str(price)), **more)


def book(*rows: Transaction, day: int = 399, data: MarketData | None = None, **rules: Any) -> Book:
    return book_at(Ledger.of(rows, Rules(**rules)), data or market(), day)


def held(state: Book, account: str = "") -> Held:
    return next(one for one in state.positions if one.account == account and one.instrument is not None)


# https://en.wikipedia.org/wiki/FIFO_and_LIFO_accounting: Foo Co. buys 100 at 50, 125 at 55, 75 at 59 and sells 210;
# cost of sales 11,050 by FIFO and 11,800 by LIFO. Dearest first is LIFO here; the average is 210/300 of 16,300.
@pytest.mark.parametrize(
    ("method", "cost"), [("fifo", D(11050)), ("lifo", D(11800)), ("hifo", D(11800)), ("average", D(11410))]
)
def test_the_cost_of_sales_of_foo_co(method: CostBasis, cost: D) -> None:
    foo = (row(1, "buy", 100, 50), row(2, "buy", 125, 55), row(3, "buy", 75, 59), row(4, "sell", 210, 70))
    state = held(book(*foo, cost_basis=method))
    assert state.original.quantize(D("0.01")) == cost
    assert state.basis[0].quantize(D("0.01")) == 16300 - cost
    assert state.proceeds == 14700


def test_the_section_104_holding_of_hmrc() -> None:
    """HMRC helpsheet HS284, example 3: gains of 329 and 300 pounds on a pool of Lobster plc shares."""
    rows = (
        row(1, "buy", 1000, 4, fees=D(150), currency="GBP", instrument=L),
        row(2, "buy", 500, "4.10", fees=D(80), currency="GBP", instrument=L),
        row(3, "sell", 700, "4.80", fees=D(100), currency="GBP", instrument=L),
        row(4, "sell", 400, "5.20", fees=D(105), currency="GBP", instrument=L),
    )
    data = market(currency="GBp", instrument=L)
    first = held(book(*rows, day=3, data=data, currency="GBP", cost_basis="average"))
    assert round(first.proceeds - first.original) == 329
    both = held(book(*rows, data=data, currency="GBP", cost_basis="average"))
    assert round(both.proceeds - both.original - (first.proceeds - first.original)) == 300
    assert both.basis[0].quantize(D("0.01")) == D("1674.67")
    assert both.basis[1].quantize(D("1")) == 167467  # in pence, as the shares are quoted


def test_average_cost_spans_accounts_and_lots_do_not() -> None:
    rows = (
        row(1, "buy", 10, 10, account="a"),
        row(2, "buy", 10, 20, account="b"),
        row(3, "sell", 5, 30, account="a"),
    )
    pooled = book(*rows, cost_basis="average")
    assert (held(pooled, "a").original, held(pooled, "a").basis[0], held(pooled, "b").basis[0]) == (75, 75, 150)
    apart = book(*rows)
    assert (held(apart, "a").original, held(apart, "b").basis[0]) == (50, 200)


@pytest.mark.parametrize("in_cost", [True, False])
def test_fees_belong_to_the_cost_or_stand_apart(in_cost: bool) -> None:
    rows = (row(1, "buy", 10, 10, fees=D(2), taxes=D(1)), row(2, "sell", 10, 12, fees=D(4)))
    state = held(book(*rows, fees_in_cost=in_cost))
    assert (state.original, state.proceeds, state.fees) == ((103, 116, 0) if in_cost else (100, 120, 7))


def test_an_internal_transfer_carries_lots_with_their_days() -> None:
    rows = (
        row(1, "buy", 10, 10, account="a", id="first"),
        row(2, "buy", 10, 20, account="a", id="second"),
        row(3, "transfer_out", 15, account="a", to_account="b"),
    )
    state = book(*rows)
    assert [(lot.quantity, lot.cost, lot.day, lot.transaction) for lot in held(state, "b").lots] == [
        (10, 100, 1, "first"),
        (5, 100, 2, "second"),
    ]
    assert held(state, "a").basis[0] == 100
    assert held(state, "a").original == held(state, "a").proceeds == 0


def test_an_external_transfer_brings_its_cost_and_its_day() -> None:
    state = held(book(row(5, "buy", 1, 9), row(6, "transfer_in", 4, 3, acquired_on=2), row(7, "sell", 4, 10)))
    assert (state.original, state.basis[0]) == (12, 9)


def test_shorts_are_opened_covered_and_crossed() -> None:
    rows = (row(1, "buy", 10, 10), row(2, "sell", 15, 12), row(3, "buy", 8, 11))
    short = held(book(*rows, day=2, allow_short=True))
    assert (short.quantity, short.basis[0], short.proceeds - short.original) == (-5, -60, 20)
    after = held(book(*rows, allow_short=True))
    assert (after.quantity, after.basis[0], after.proceeds - after.original) == (3, 33, 25)


def test_every_over_sale_is_named_and_nothing_is_clamped() -> None:
    rows = (
        row(1, "buy", 10, 10, id="x"),
        row(2, "sell", 15, 12, id="y"),
        row(3, "transfer_out", 1, id="z"),
    )
    with pytest.raises(Invalid) as caught:
        check(Ledger.of(rows, Rules()), market())
    assert caught.value.code == "ledger_impossible"
    assert [(fault["row"], fault["id"], fault["code"]) for fault in caught.value.rows] == [
        (1, "y", "over_sale"),
        (2, "z", "over_transfer"),
    ]
    assert held(book(*rows)).quantity == -5
    check(Ledger.of(rows[:2], Rules(allow_short=True)), market())


def test_a_split_of_the_market_applies_by_itself_also_to_what_was_sold_before() -> None:
    split = (Action(100, "split", 4.0),)
    state = held(book(row(1, "buy", 10, 40), row(50, "sell", 4, 50), row(100, "buy", 1, 11), data=market(split)))
    assert (state.quantity, state.original, state.basis[0]) == (25, 160, 251)


@pytest.mark.parametrize("day", [96, 100, 105])
def test_a_split_in_the_ledger_replaces_the_markets(day: int) -> None:
    rows = (row(1, "buy", 10, 40), row(day, "split", ratio=D(4)))
    data = market((Action(100, "split", 4.0),))
    assert held(book(*rows, data=data)).quantity == 40
    worth = [held(book(*rows, day=on, data=data)) for on in range(94, 110)]
    assert [float(one.quantity) * one.factor for one in worth] == [10.0] * 6 + [40.0] * 10


def test_a_split_in_the_ledger_far_from_the_markets_is_one_more() -> None:
    data = market((Action(100, "split", 4.0),))
    assert held(book(row(1, "buy", 10, 40), row(120, "split", ratio=D(2)), data=data)).quantity == 80


def test_rows_a_broker_restated_are_brought_to_units_of_their_day() -> None:
    data = market((Action(100, "split", 4.0), Action(300, "split", 2.0)))
    rows = (row(1, "buy", 80, 5, adjusted_as_of=350), row(150, "sell", 8, 20, adjusted_as_of=250))
    assert held(book(*rows, day=1, data=data)).quantity == 10
    state = held(book(*rows, data=data))
    assert (state.quantity, state.basis[0] + state.original) == (64, 400)


def test_a_recorded_rate_beats_the_markets_and_a_missing_one_is_unknown() -> None:
    euros = Instrument("EEE", "DE")
    days = np.array([10], np.int64)
    data = MarketData(rates={"EUR": Column(days, np.array([1.1]), days)})
    rows = [
        row(5, "buy", 1, 100, instrument=euros, account="none"),
        row(5, "buy", 1, 100, instrument=euros, account="recorded", fx_rate=D("1.2")),
        row(12, "buy", 1, 100, instrument=euros, account="market"),
    ]
    state = book(*rows, data=data)
    assert held(state, "none").basis[0].is_nan()
    assert held(state, "none").basis[1] == 100
    assert held(state, "recorded").basis[0] == 120
    assert held(state, "market").basis[0] == 110


def test_cash_is_kept_by_account_and_whole_currency() -> None:
    rows = [
        Transaction(1, "deposit", amount=D(1000), account="a"),
        row(2, "buy", 10, 250, instrument=L, account="a", fees=D(100)),
        Transaction(3, "transfer_out", amount=D(400), account="a", to_account="b"),
        row(4, "dividend", amount=D(30), taxes=D(5), account="b"),
    ]
    state = book(*rows, cash_tracking=True)
    assert {(one.account, one.currency): one.amount for one in state.cash} == {
        ("a", "USD"): 600,
        ("a", "GBP"): -26,
        ("b", "USD"): 425,
    }


def test_the_short_way_of_plain_rows_gives_what_the_long_one_gives() -> None:
    plain = [row(1, "buy", 10, 3), row(2, "buy", 7, 5), row(3, "sell", 12, 4), row(4, "dividend", amount=D(2))]
    long = [row(r.day, r.type, r.quantity, r.price, amount=r.amount, fx_rate=D(1)) for r in plain]
    results = [replay(Ledger.of(rows), market(), 10, books=[10]) for rows in (plain, long)]
    assert vars_of(results[0]) == vars_of(results[1])
    assert held(results[0].books[10]) == held(results[1].books[10])


def vars_of(result: Any) -> tuple[Any, ...]:
    steps = result.steps
    return steps.codes, steps.amounts, steps.quantity_codes, steps.quantities
