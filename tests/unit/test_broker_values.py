"""What a broker says that accounts are worth stands beside what they are worth here."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import numpy as np

from pricecache.core.actions import Action
from pricecache.core.broker.data import BrokerAccount, BrokerData, BrokerHolding
from pricecache.core.broker.values import MOST_TOLD, Comparison, Values, compared
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from tests.broker_worlds import FIRST, INSTRUMENTS, LAST, SECURITIES, A, B, P

YESTERDAY = LAST - 1


def column(price: float, currency: str = "USD", *splits: tuple[int, float], day: int = YESTERDAY) -> PriceColumn:
    actions = tuple(Action(ex_date, "split", ratio) for ex_date, ratio in splits)
    return PriceColumn(Column(np.array([day]), np.array([price])), currency, actions)


MARKET = MarketData(
    {A: column(10.0), B: column(20.0), P: column(250.0, "GBp")}, {"GBP": Column(np.array([FIRST]), np.array([1.25]))}
)


def held(security: str, quantity: Any, price: Any = None, account: str = "x", **more: Any) -> BrokerHolding:
    return BrokerHolding(account, security, D(str(quantity)), None if price is None else D(str(price)), **more)


def said(*holdings: BrokerHolding, money: dict[Any, Any] | None = None, **accounts: BrokerAccount) -> BrokerData:
    known = {"x": BrokerAccount("x", "X"), "y": BrokerAccount("y", "Y"), **accounts}
    purses = {key: D(str(amount)) for key, amount in (money or {}).items()}
    return BrokerData(LAST, FIRST, known, SECURITIES, holdings, purses, ())


def of(data: BrokerData, market: MarketData = MARKET) -> Comparison:
    return compared(data, INSTRUMENTS, market, "USD")


def by_account(found: Comparison) -> dict[str, Values]:
    return {account.id: values for account, values in found.accounts}


def test_each_account_is_worth_its_holdings_at_both_prices_and_its_money() -> None:
    data = said(held("a", 3, "10.05"), held("b", 2, 20, "y"), money={("x", "USD"): 5, ("y", "GBP"): -4})
    found = of(data)
    assert by_account(found) == {"x": Values(D("35.15"), D("35.00")), "y": Values(D("35.00"), D("35.00"))}
    assert (found.total.broker_value, found.total.value, found.total.difference) == (D("70.15"), D("70.00"), D("-0.15"))
    assert (found.prices, found.day, found.currency) == ((), LAST, "USD")


def test_prices_that_are_more_than_a_percent_apart_are_told_the_most_different_first() -> None:
    data = said(
        held("a", 3, "9.80", price_day=LAST - 5), held("b", 2, 25, "y"), held("a-old", 1, "10.10"),
        held("b", 9, 25),
    )  # fmt: skip
    one, other = of(data).prices
    assert (one.instrument, one.broker_price, one.broker_day, one.price, one.day) == (B, 25, LAST, 20, YESTERDAY)
    assert one.share == D("-0.2")
    assert (other.instrument, other.broker_day, round(other.share, 4)) == (A, LAST - 5, D("0.0204"))


def test_prices_are_compared_in_one_currency() -> None:
    found = of(said(held("p", 4, "2.50", currency="GBP"), held("p", 4, "3.125", "y")))
    assert found.total == Values(D("25.00"), D("25.00"))
    assert found.prices == ()
    (one,) = of(said(held("p", 4, 2, currency="GBP"))).prices
    assert (one.broker_price, one.broker_currency, one.price, one.currency, one.share) == (
        2,
        "GBP",
        250,
        "GBp",
        D("0.25"),
    )


def test_what_has_no_price_makes_a_value_unknown_and_no_other() -> None:
    found = of(said(held("a", 3), held("o", 2, 5, "y")))
    assert by_account(found) == {
        "x": Values(None, D("30.00"), {"broker_value": "no_broker_price", "difference": "no_broker_price"}),
        "y": Values(D("10.00"), None, {"value": "no_price", "difference": "no_price"}),
    }
    assert (found.total.broker_value, found.total.value, found.total.difference) == (None, None, None)
    assert found.total.reasons == {
        "broker_value": "no_broker_price", "value": "no_price", "difference": "no_broker_price",
    }  # fmt: skip


def test_a_price_of_after_the_day_is_none() -> None:
    late = MarketData({A: column(10.0, day=LAST + 1)})
    assert of(said(held("a", 3, 10)), late).total.reasons == {"value": "no_price", "difference": "no_price"}


def test_an_unknown_rate_makes_both_unknown() -> None:
    found = of(said(money={("x", "CHF"): 1}))
    assert found.total.reasons == dict.fromkeys(("broker_value", "value", "difference"), "rate_unknown")


def test_an_account_that_nothing_was_said_of_since_a_split_has_it_and_its_price_of_then() -> None:
    split = MarketData({A: column(10.0, "USD", (LAST - 3, 4.0), day=LAST)})
    data = said(held("a", 3, 40, price_day=LAST - 9), x=replace(BrokerAccount("x", "X"), told_on=LAST - 9))
    found = of(data, split)
    assert (found.total, found.prices) == (Values(D("120.00"), D("120.00")), ())
    (one,) = of(said(held("a", 3, 80), x=replace(BrokerAccount("x", "X"), told_on=LAST - 9)), split).prices
    assert (one.broker_price, one.broker_day, one.share) == (20, LAST - 9, D("-0.5"))


def test_amounts_as_large_as_a_payload_may_have_are_added_up() -> None:
    found = of(said(held("a", 10**15 - 1, 10**15 - 1), held("a", "1E-12", "0.01", "y")))
    assert found.total.broker_value == (10**15 - 1) ** 2


def test_so_many_prices_are_told_at_most() -> None:
    names = [f"s{number}" for number in range(MOST_TOLD + 5)]
    instruments = {name: Instrument(name.upper()) for name in names}
    market = MarketData({one: column(10.0 + number) for number, one in enumerate(instruments.values())})
    found = compared(said(*(held(name, 1, 5) for name in names)), instruments, market, "USD")
    assert (len(found.prices), found.prices_total) == (MOST_TOLD, MOST_TOLD + 5)
    assert found.prices[0].instrument == Instrument(names[-1].upper())
