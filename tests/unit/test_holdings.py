"""What is held on a date, with the inputs of every number."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pricecache.core.actions import Action
from pricecache.core.history import book_at, history
from pricecache.core.holdings import Holdings, holdings
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.valuation import COST, VALUE
from tests.ledgers import LAST, ledgers, markets

A, P, NONE = Instrument("AAA"), Instrument("PPP", "L"), Instrument("NONE")


def column(values: dict[int, float]) -> Column:
    days = np.array(sorted(values), np.int64)
    return Column(days, np.array([values[int(day)] for day in days]), days)


DATA = MarketData(
    {
        A: PriceColumn(column({0: 40.0, 9: 12.0}), "USD", (Action(5, "split", 4.0),)),
        P: PriceColumn(column({0: 250.0}), "GBp"),
    },
    {"GBP": column({0: 1.2, 3: 1.5})},
)
ROWS = [
    Transaction(0, "buy", A, D(10), D(40), fees=D(2), id="t1"),
    Transaction(1, "buy", P, D(100), D(240), account="isa", fx_rate=D("0.0125"), id="t2"),
    Transaction(2, "sell", A, D(5), D(44)),
    Transaction(3, "dividend", A, amount=D(3)),
    Transaction(4, "deposit", amount=D(10), currency="EUR"),
]


def at(day: int, rows: list[Transaction] = ROWS, **rules: Any) -> Holdings:
    made = Rules(**rules)
    return holdings(book_at(Ledger.of(rows, made), DATA, day), DATA, made)


def test_every_number_of_a_holding() -> None:
    got = at(6)
    dollars, pence = got.holdings
    assert (dollars.quantity, dollars.close, dollars.split_factor, dollars.price) == (20, 40, 4, 10)
    assert (dollars.value, dollars.cost, dollars.average_cost) == (200, 201, D("10.05"))
    assert (dollars.realized_gain_loss, dollars.dividends, dollars.unrealized_gain_loss) == (19, 3, -1)
    assert (pence.account, pence.price, pence.currency, pence.fx_rate, pence.fx_day) == (
        "isa",
        250,
        "GBp",
        D("0.015"),
        3,
    )
    assert (pence.value, pence.cost, pence.average_cost) == (375, 300, 240)
    assert (got.total_value, got.total_cost) == (575, 501)
    assert dollars.weight == pytest.approx(200 / 575)


def test_a_holding_explains_itself() -> None:
    told = at(6).holdings[0].explained()
    assert told["lots"] == [{"quantity": D(20), "cost": D(201), "local": D(201), "day": 0, "transaction": "t1"}]
    assert told["price"] == {"day": 0, "close": D("40.0"), "split_factor": D("4.0")}
    assert told["formulas"]["value"] == "quantity x price x fx_rate"


def test_what_is_unknown_is_none_with_a_reason() -> None:
    got = at(6, [Transaction(0, "buy", NONE, D(1), D(5), currency="CHF")])
    (one,) = got.holdings
    assert (one.price, one.value, one.cost, one.weight) == (None, None, None, None)
    assert one.reasons["value"] == "no_price"
    assert one.reasons["cost"] == "rate_unknown"
    assert got.total_cost is None


def test_cash_by_currency_and_only_where_it_is_kept() -> None:
    assert at(6).cash == ()
    euros = at(6, cash_tracking=True).cash[0]
    assert (euros.currency, euros.amount, euros.value) == ("EUR", 10, None)


def test_what_was_sold_out_is_not_held() -> None:
    assert at(8, [*ROWS[:1], Transaction(7, "sell", A, D(40), D(11))]).holdings == ()


@given(ledgers(), markets())
@settings(max_examples=40, deadline=None)
def test_holdings_add_up_to_the_history(ledger: Ledger, market: MarketData) -> None:
    whole = history(ledger, market, LAST, checkpoints=[LAST])
    assert whole is not None
    got = holdings(whole.checkpoints[LAST].book, market, ledger.rules)
    value, cost = whole.of(VALUE)[-1], whole.of(COST)[-1]
    if not np.isnan(value):
        assert abs(float(got.total_value) - value) < 0.005
    assert (got.total_cost is None) == bool(np.isnan(cost))
    if got.total_cost is not None:
        assert abs(float(got.total_cost) - cost) < 0.005
