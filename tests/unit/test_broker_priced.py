"""What only a broker prices: its splits are of all accounts, and value and ledger agree on its prices."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest

from pricecache.core.broker.data import BrokerAccount, BrokerData, BrokerHolding, BrokerSecurity, Waypoint
from pricecache.core.broker.data import BrokerTransaction as Row
from pricecache.core.broker.stated_prices import own_prices
from pricecache.core.broker.stated_splits import with_splits
from pricecache.core.history import History, history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.valuation import INDEX, VALUE
from pricecache.core.walk.broker_priced import BrokerPriced, WalkGiven, broker_priced, laid_over

FUND, STOCK = Instrument("FUND", "CUSTOM"), Instrument("AAPL")
INSTRUMENTS = {"f": FUND, "s": STOCK}
FIRST, LAST = 1000, 1100
DAYS = np.arange(FIRST - 5, LAST + 1, dtype=np.int64)
SOURCE = "broker:c"


def row(day: int, action: Any, quantity: int, price: Any = None, account: str = "x", security: str = "f") -> Row:
    cash = D(0) if price is None else -quantity * D(price)
    name = f"{day}{action}{account}{security}"
    return Row(name, account, FIRST + day, action, security, D(quantity), None if price is None else D(price), cash)


def said(*rows: Row, held: dict[tuple[str, str], tuple[int, Any]], points: tuple[Waypoint, ...] = ()) -> BrokerData:
    accounts = {name: BrokerAccount(name, name) for name in ("x", "y")}
    securities = {name: BrokerSecurity(name) for name in INSTRUMENTS}
    holdings = tuple(
        BrokerHolding(account, name, D(quantity), None if price is None else D(price))
        for (account, name), (quantity, price) in held.items()
    )
    money = dict.fromkeys((("x", "USD"), ("y", "USD")), D(0))
    return BrokerData(LAST, FIRST, accounts, securities, holdings, money, rows, points)


def market(data: BrokerData, stock: float = 100.0) -> MarketData:
    prices = {STOCK: PriceColumn(Column(DAYS, np.full(len(DAYS), stock), DAYS), "USD")}
    return laid_over(MarketData(prices), own_prices(data, INSTRUMENTS)[0])


def walked(data: BrokerData) -> tuple[BrokerPriced, MarketData]:
    """With the check that what is made known changes nothing when all is walked again."""
    given, before = WalkGiven(data, INSTRUMENTS, {"x": "x", "y": "y"}, "c", Rules()), market(data)
    found = broker_priced(given, before, SOURCE)
    after = with_splits(laid_over(before, found.prices), found.splits)
    again = broker_priced(given, after, SOURCE)
    assert again.found.transactions == found.found.transactions
    assert (dict(again.splits), dict(again.prices)) == (dict(found.splits), {})
    return found, after


def values(data: BrokerData) -> History:
    found, known = walked(data)
    ledger = Ledger.of(found.found.transactions, Rules(cash_tracking=True, allow_short=found.found.needs_short))
    made = history(ledger, known, LAST)
    assert made is not None
    return made


def codes(found: BrokerPriced) -> list[tuple[str, str]]:
    return [(one.code, one.account) for one in found.found.findings]


BOTH = {("x", "f"): (20, 25), ("y", "f"): (20, 25)}
BOUGHT = row(10, "buy", 10, 50), row(10, "buy", 10, 50, "y")


def test_a_split_that_two_accounts_post_on_two_days_is_one() -> None:
    data = said(*BOUGHT, row(40, "split", 10), row(42, "split", 10, account="y"), held=BOTH)
    found, _ = walked(data)
    assert [(one.ex_date, one.value, one.source) for one in found.splits[FUND]] == [(FIRST + 40, 2.0, SOURCE)]
    assert set(values(data).of(VALUE).round(6)) == {1000.0}


def test_a_split_that_one_account_has_a_row_of_is_of_the_other_too() -> None:
    data = said(*BOUGHT, row(40, "split", 10), held=BOTH)
    found, _ = walked(data)
    assert codes(found) == [("split_of_other_account", "y")]
    assert not [one for one in found.found.transactions if one.type == "opening" and one.instrument is FUND]
    assert set(values(data).of(VALUE).round(6)) == {1000.0}


def test_a_split_that_the_rows_of_another_account_contradict_is_not_of_that() -> None:
    data = said(*BOUGHT, row(40, "split", 10), held={**BOTH, ("y", "f"): (10, 25)})
    found, _ = walked(data)
    assert FUND not in found.splits
    assert codes(found) == [("split_of_other_account", "y")]
    assert "does not count here" in found.found.findings[0].detail


def test_a_split_that_the_market_lacks_is_told_for_the_other_accounts() -> None:
    held = {("x", "s"): (20, None), ("y", "s"): (20, None)}
    found, _ = walked(said(row(40, "split", 10, security="s"), held=held))
    assert ("split_of_other_account", "y") in codes(found)
    assert not found.splits


def test_a_split_that_is_taken_back_is_no_longer_the_instruments() -> None:
    data = said(*BOUGHT, row(40, "split", 10), held=BOTH)
    found, known = walked(data)
    without = said(*BOUGHT, held={("x", "f"): (10, 50), ("y", "f"): (10, 50)})
    given = WalkGiven(without, INSTRUMENTS, {"x": "x", "y": "y"}, "c", Rules())
    assert not broker_priced(given, known, SOURCE).splits
    theirs = broker_priced(given, known, "broker:d")  # of another connection it stands
    assert not theirs.splits
    assert theirs.found.transactions != broker_priced(given, known, SOURCE).found.transactions
    assert found.splits


def test_a_dividend_in_shares_is_of_one_account() -> None:
    data = said(*BOUGHT, row(40, "stock_distribution", 1), held={("x", "f"): (11, 50), ("y", "f"): (10, 50)})
    found, _ = walked(data)
    assert FUND not in found.splits
    assert codes(found) == []


@pytest.mark.parametrize("day", [40, 42])
def test_a_price_in_shares_of_before_a_split_counts_in_those_of_after_it(day: int) -> None:
    point = Waypoint(FIRST + day, "x", D(10), "f", price=D(50), late=((FIRST + 40, D(10)),))
    data = said(row(10, "buy", 10, 50), row(40, "split", 10), held={("x", "f"): (20, 25)}, points=(point,))
    given, before = WalkGiven(data, INSTRUMENTS, {"x": "x", "y": "y"}, "c", Rules()), market(data)
    found = broker_priced(given, before, SOURCE)
    assert found.prices[FUND][FIRST + day] == 25
    ledger = Ledger.of(found.found.transactions, Rules(cash_tracking=True))
    made = history(ledger, with_splits(laid_over(before, found.prices), found.splits), LAST)
    assert made is not None
    assert set(made.of(VALUE)[11:].round(6)) == {500.0}


def test_what_is_spun_off_without_a_price_of_the_day_has_that_of_the_ledger() -> None:
    data = said(row(40, "spin_off", 100), held={("x", "f"): (100, 20), ("x", "s"): (10, None)})
    found, _ = walked(data)
    assert found.prices == {FUND: {FIRST + 40: 20}}
    made = values(data)
    assert made.of(VALUE)[40] == 1000
    assert made.of(VALUE)[41] == 3000
    assert made.of(INDEX)[-1] == made.of(INDEX)[41]


def test_what_is_held_from_the_start_is_worth_the_nearest_price_until_there_is_one() -> None:
    data = said(held={("x", "f"): (100, 50), ("x", "s"): (10, None)})
    data = replace(data, holdings=(replace(data.holdings[0], cost_basis=D(4000)), data.holdings[1]))
    found, _ = walked(data)
    assert found.prices == {FUND: {FIRST - 1: 50}}
    assert set(values(data).of(VALUE)) == {6000.0}
    without_cost = replace(data, holdings=(replace(data.holdings[0], cost_basis=None), data.holdings[1]))
    assert set(values(without_cost).of(VALUE)) == {6000.0}


def test_what_an_unpriced_security_was_exchanged_for_is_worth_what_went() -> None:
    data = said(row(40, "merger", -10, security="s"), row(40, "merger", 50), held={("x", "f"): (50, 60)})
    found, _ = walked(data)
    assert [(one.type, one.quantity, one.price) for one in found.found.transactions if one.day == FIRST + 40] == [
        ("buy", 50, 20),
        ("sell", 10, 100),
    ]
    assert found.prices == {FUND: {FIRST + 40: 20}}
    assert values(data).of(VALUE)[[40, 41, -2, -1]].tolist() == [1000, 1000, 1000, 3000]


def test_what_the_broker_never_priced_is_worth_what_it_was_exchanged_for() -> None:
    data = said(row(40, "merger", -10), row(40, "merger", 9, security="s"), held={("x", "s"): (9, None)})
    found, _ = walked(data)
    assert found.prices == {FUND: {FIRST - 1: 90, FIRST + 40: 90}}
    assert set(values(data).of(VALUE)) == {900.0}
