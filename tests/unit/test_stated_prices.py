"""Prices that a broker states: which of several counts, what is none, and which contradict each other."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D
from itertools import permutations

import numpy as np
import pytest

from pricecache.core.broker.data import (
    BrokerAccount,
    BrokerData,
    BrokerHolding,
    BrokerSecurity,
    BrokerTransaction,
    Waypoint,
)
from pricecache.core.broker.stated_prices import Conversion, latest_prices, own_prices
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import Column, MarketData

OWN, MAPPED = Instrument("B-S", "CUSTOM"), Instrument("AAPL")
BOUGHT = BrokerTransaction("1", "a", 197, "buy", "s", D(1), D(60), D(-60))


def data(
    *holdings: BrokerHolding, rows: tuple[BrokerTransaction, ...] = (), points: tuple[Waypoint, ...] = ()
) -> BrokerData:
    accounts = {name: BrokerAccount(name, name) for name in ("a", "b")}
    securities = {name: BrokerSecurity(name) for name in ("s", "t")}
    return BrokerData(200, 100, accounts, securities, holdings, {}, rows, points)


def prices(said: BrokerData) -> dict[int, D]:
    found, _ = own_prices(said, {"s": OWN})
    return found.get(OWN, {})


def conflicts(said: BrokerData) -> list[tuple[int, D, D, str]]:
    _, found = own_prices(said, {"s": OWN})
    return [(one.day, one.counts.price, one.other.price, one.other.account) for one in found]


def test_the_price_of_a_holding_is_todays_whatever_was_paid_since_it_was_made() -> None:
    said = data(BrokerHolding("a", "s", D(10), D(50), 190), rows=(BOUGHT,))
    assert prices(said) == {190: 50, 197: 60, 200: 50}
    assert latest_prices(said) == {"s": (200, 50)}


def test_a_holding_at_no_price_is_worth_nothing_and_a_row_at_none_says_nothing() -> None:
    moved = replace(BOUGHT, id="2", day=198, action="transfer", price=D(0))
    said = data(BrokerHolding("a", "s", D(10), D(0), 190), rows=(BOUGHT, moved))
    assert prices(said) == {190: 0, 197: 60, 200: 0}
    assert latest_prices(said) == {"s": (197, 60)}
    assert latest_prices(data(BrokerHolding("a", "s", D(10), D(0)))) == {}


def test_what_is_held_counts_more_than_earlier_balances_and_these_than_rows() -> None:
    rows, point = (BOUGHT, replace(BOUGHT, id="2", day=200)), Waypoint(197, "b", D(1), "s", price=D(70))
    assert prices(data(BrokerHolding("a", "s", D(1), D(50)), rows=rows, points=(point,))) == {197: 70, 200: 50}


def test_the_later_row_of_a_day_counts() -> None:
    assert prices(data(rows=(BOUGHT, replace(BOUGHT, id="2", price=D(61))))) == {197: 61}
    assert conflicts(data(rows=(BOUGHT, replace(BOUGHT, id="2", price=D(61), account="b")))) == []


X = BrokerHolding("a", "s", D(10), D(50), 190)


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        (replace(X, account="b", price=D(55), price_day=191), 55),
        (replace(X, account="b", price=D(55), price_day=None), 55),
        (replace(X, account="b", price=D(55), price_day=189), 50),
        (replace(X, account="b", price=D(55), quantity=D(11)), 55),
        (replace(X, account="b", price=D(55), quantity=D(-11)), 55),
        (replace(X, account="b", price=D(55), quantity=D(9)), 50),
        (replace(X, account="b", price=D(55)), 50),
        (replace(X, account="b", price=D(0), quantity=D(11)), 0),
    ],
)
def test_of_two_prices_the_later_counts_then_that_of_more_shares_then_of_the_lower_account(
    other: BrokerHolding, counts: int
) -> None:
    for several in permutations((X, other)):
        said = data(*several)
        assert prices(said)[200] == counts
        lost = X if counts == other.price else other
        assert conflicts(said) == [(200, counts, lost.price, lost.account)]
        assert latest_prices(said)["s"] == (200, counts or 50)


def test_prices_that_are_rounded_differently_are_no_conflict() -> None:
    assert conflicts(data(X, replace(X, account="b", price=D("50.0004")))) == []
    assert conflicts(data(X, replace(X, account="b", price=D("50.01"), quantity=D("0.5")))) == []
    assert conflicts(data(X, replace(X, account="b", price=D("50.01")))) != []


def test_a_conflict_of_earlier_balances_is_told_of_the_latest_day() -> None:
    points = [
        Waypoint(day, account, D(5), "s", price=D(day if account == "a" else 99))
        for day in (120, 130)
        for account in "ab"
    ]
    assert conflicts(data(X, points=tuple(points))) == [(130, 130, 99, "b")]


def test_a_price_in_another_currency_and_of_what_providers_price_is_none() -> None:
    assert prices(data(replace(X, currency="EUR"))) == {}
    assert latest_prices(data(replace(X, currency="EUR"))) == {}
    assert own_prices(data(X), {"s": MAPPED}) == ({}, [])


def test_two_securities_that_are_one_instrument_have_the_prices_of_both() -> None:
    point = Waypoint(150, "a", D(1), "t", price=D(40))
    found, told = own_prices(data(X, points=(point,)), {"s": OWN, "t": OWN})
    assert found == {OWN: {150: 40, 190: 50, 200: 50}}
    assert told == []


def test_a_price_in_another_currency_is_converted_and_never_dropped_without_a_word() -> None:
    dollars, euros = BrokerHolding("a", "s", D(1), D(11)), BrokerHolding("b", "s", D(9), D(10), currency="EUR")
    rates = MarketData({}, {"EUR": Column(np.array([100]), np.array([1.25]))})
    found = Conversion({OWN: "USD"}, rates)
    assert own_prices(data(euros), {"s": OWN}, found) == ({OWN: {200: D("12.5")}}, [])
    assert own_prices(data(dollars, euros), {"s": OWN}, found) == ({OWN: {200: D("12.5")}}, [])
    assert own_prices(data(dollars), {"s": OWN}, Conversion({OWN: "EUR"}, rates)) == ({OWN: {200: D("8.8")}}, [])
    assert not found.missing
    unknown = Conversion({OWN: "USD"})
    assert unknown.is_needed(data(euros), {"s": OWN})
    assert not unknown.is_needed(data(dollars), {"s": OWN})
    assert own_prices(data(dollars, euros), {"s": OWN}, unknown) == ({OWN: {200: D(11)}}, [])
    assert [(one, day, stated.price, stated.currency) for one, day, stated in unknown.missing] == [
        (OWN, 200, 10, "EUR")
    ]
