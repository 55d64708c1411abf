"""Rows that belong together, up to the days and amounts by which they may be apart."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import pytest

from pricecache.core.broker.data import BrokerAccount, BrokerData, BrokerTransaction
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import MarketData
from pricecache.core.walk.in_lieu import FractionsPaid
from pricecache.core.walk.pairs import Pairs, pairs_of
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import BrokerRow
from tests.broker_worlds import INSTRUMENTS, SECURITIES, A

ACCOUNTS = {"x": BrokerAccount("x", "X"), "y": BrokerAccount("y", "Y")}
PRICES = BrokerPrices(BrokerData(100, 1, ACCOUNTS, SECURITIES, (), {}, (), ()), INSTRUMENTS, MarketData(), "USD")
PRICES.tell(A, 10, D(100), "USD")


def row(
    day: int,
    action: Any,
    quantity: Any = 0,
    cash: Any = 0,
    *,
    account: str = "x",
    of: Instrument | None = A,
    **more: Any,
) -> BrokerRow:
    size, money = D(str(quantity)), D(str(cash))
    said = BrokerTransaction(
        id=f"{day}{action}", account=account, day=day, action=action, quantity=size, cash=money, security="a", **more
    )
    return BrokerRow(said, account, of, size, money)


def paired(*rows: BrokerRow) -> Pairs:
    return pairs_of(sorted(rows, key=lambda one: one.row.day), PRICES)


@pytest.mark.parametrize(("day", "is_one"), [(7, True), (6, False), (13, True), (14, False)])
def test_both_sides_of_a_transfer_are_at_most_three_days_apart(day: int, is_one: bool) -> None:
    for of in (A, None):
        size = {"quantity": 5} if of is not None else {"cash": 5}
        there = {key: -value for key, value in size.items()}
        out, into = row(10, "transfer", of=of, **there), row(day, "transfer", of=of, account="y", **size)
        assert bool(paired(out, into).moved) is is_one


@pytest.mark.parametrize(
    ("day", "spent", "is_one"),
    [
        (7, "-49", True), (6, "-49", False), (13, "-49", True), (14, "-49", False),
        (6, "-50", False), (20, "-50", True), (21, "-50", False),
    ],
)  # fmt: skip
def test_a_reinvestment_is_of_a_dividend_at_most_three_days_off_or_ten_where_they_are_equal(
    day: int, spent: str, is_one: bool
) -> None:
    found = paired(row(10, "dividend", cash=50), row(day, "reinvestment", 1, spent))
    assert bool(found.funded) is is_one


@pytest.mark.parametrize(
    ("dividend", "spent", "is_one"),
    [
        ("49", "-50", True),
        ("25", "-50", True),  # the rest is paid from cash
        ("24.99", "-50", False),
        ("0.03", "-0.06", True),
        ("0.02", "-0.06", False),
        ("80", "-50", True),  # the rest is paid out
    ],
)
def test_half_at_least_of_what_was_bought_is_the_dividend(dividend: str, spent: str, is_one: bool) -> None:
    found = paired(row(10, "dividend", cash=dividend), row(10, "reinvestment", 1, spent))
    assert bool(found.funded) is is_one


@pytest.mark.parametrize(
    ("day", "cash", "fees", "is_paid"),
    [
        (9, "50", 0, False),
        (10, "50", 0, True),
        (55, "50", 0, True),  # within 45 days
        (56, "50", 0, False),
        (20, "62.51", 0, True),  # a quarter more, and a cent
        (20, "62.52", 0, False),
        (20, "39.99", 0, True),  # a fifth less
        (20, "39.98", 0, False),
        (20, "37.99", 2, True),  # with what was taken off
    ],
)
def test_cash_is_for_a_fraction_if_it_comes_in_time_and_is_near_to_its_worth(
    day: int, cash: str, fees: int, is_paid: bool
) -> None:
    paying = FractionsPaid([(7, row(day, "merger", cash=cash, fees=D(fees)))], PRICES)
    assert (paying.take(("x", A), 10, D("0.5")) is not None) is is_paid
    assert paying.used == ({7} if is_paid else set())
    assert [(one.since, one.until) for one in paying.delays] == [(10, day)] * is_paid
