"""What only a broker prices keeps its worth through a split that falls between two of the broker's prices."""

from __future__ import annotations

from decimal import Decimal as D

import numpy as np

from pricecache.core.broker.carried_prices import divided
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn

OWN, OTHER = Instrument("FUND", "CUSTOM"), Instrument("AAPL")


def split(day: int, ratio: str, of: Instrument = OWN, account: str = "one") -> Transaction:
    return Transaction(day, "split", of, ratio=D(ratio), account=account)


def market(*closes: tuple[int, float]) -> MarketData:
    days = np.array([day for day, _ in closes], dtype=np.int64)
    column = PriceColumn(Column(days, np.array([price for _, price in closes])), "USD")
    return MarketData({OWN: column, OTHER: column})


def test_the_last_price_before_a_split_is_divided_on_its_day() -> None:
    prices = market((100, 90.0), (140, 50.0))
    assert divided([split(120, "2"), split(120, "2", account="two")], prices) == {OWN: {120: D(45)}}
    assert divided([split(120, "2"), split(130, "3")], prices) == {OWN: {120: D(45), 130: D(15)}}
    assert divided([split(150, "0.5")], prices) == {OWN: {150: D(100)}}


def test_a_price_of_the_day_itself_and_prices_of_providers_stand() -> None:
    prices = market((100, 90.0), (120, 50.0))
    assert divided([split(120, "2"), split(99, "2"), split(110, "2", OTHER)], prices) == {}


def test_a_split_of_two_accounts_on_two_days_is_one() -> None:
    prices = market((100, 90.0), (140, 50.0))
    assert divided([split(120, "2"), split(122, "2", account="two")], prices) == {OWN: {120: D(45)}}
    apart = [split(120, "2"), split(126, "2", account="two")]
    assert divided(apart, prices) == {OWN: {120: D(45), 126: D("22.5")}}
    again = [split(120, "2"), split(122, "2")]  # of one account they are two
    assert divided(again, prices) == {OWN: {120: D(45), 122: D("22.5")}}
    chained = [split(120, "2"), split(122, "2", account="two"), split(124, "2", account="two")]
    assert divided(chained, prices) == {OWN: {120: D(45), 124: D("22.5")}}
