"""Whatever a broker says: forward replay of the ledger made of it gives its holdings exactly, and tells every gap."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal as D
from typing import Any

import pytest
from hypothesis import given, settings

from pricecache.core.broker import BrokerData
from pricecache.core.currencies import major
from pricecache.core.findings import REASONS
from pricecache.core.history import book_at
from pricecache.core.ledger import Ledger, Rules, faults
from pricecache.core.marketdata import MarketData
from pricecache.core.reconstruction import Reconstruction, reconstruct
from pricecache.core.replay import replay
from tests.broker_worlds import ACCOUNTS, INSTRUMENTS, LAST, markets, worlds

MORE = settings(max_examples=300, deadline=None)


def made(data: BrokerData, market: MarketData, **more: Any) -> Reconstruction:
    return reconstruct(data, INSTRUMENTS, ACCOUNTS, market, "c1", base="USD", **more)


def held_today(data: BrokerData) -> dict[Any, D]:
    found: dict[Any, D] = defaultdict(D)
    for one in data.holdings:
        found[ACCOUNTS[one.account], INSTRUMENTS[one.security]] += one.quantity
    return {key: quantity for key, quantity in found.items() if quantity}


@MORE
@given(worlds(), markets())
def test_forward_replay_gives_todays_holdings_exactly_and_money_to_the_cent(
    data: BrokerData, market: MarketData
) -> None:
    found = made(data, market)
    rules = Rules("USD", cash_tracking=True, allow_short=found.needs_short)
    replayed = replay(Ledger.of(found.transactions, rules), market, LAST, books=[LAST])
    assert not replayed.faults
    book = replayed.books[LAST]
    shares = {(p.account, p.instrument): p.quantity for p in book.positions if p.instrument and p.quantity}
    assert shares == held_today(data)
    cash = {(one.account, one.currency): one.amount for one in book.cash}
    for (account, currency), amount in data.money.items():
        assert abs(cash.get((ACCOUNTS[account], major(currency)), D(0)) - amount) <= D("0.005")


@MORE
@given(worlds(), markets())
def test_every_adjustment_is_explained_by_one_finding_of_its_size(data: BrokerData, market: MarketData) -> None:
    found = made(data, market)
    told = {one.external_id: one for one in found.findings if one.external_id is not None}
    assert len(told) == sum(one.external_id is not None for one in found.findings)
    rows = {row.external_id: row for row in found.transactions}
    assert {name for name, row in rows.items() if row.type == "adjustment"} <= told.keys() <= rows.keys()
    for name, one in told.items():
        row = rows[name]
        assert one.code in REASONS
        if row.type == "adjustment":
            assert (row.quantity, row.amount) == (one.quantity, one.amount)
            assert row.note


@MORE
@given(worlds(), markets())
def test_rows_are_such_as_a_ledger_takes_and_the_same_in_every_run(data: BrokerData, market: MarketData) -> None:
    found = made(data, market)
    assert not faults(found.transactions)
    names = [row.external_id or "" for row in found.transactions]
    assert len(set(names)) == len(names)
    assert all(name.startswith("c1/") and len(name) <= 200 for name in names)
    assert all(row.day == data.first_day - 1 for row in found.transactions if row.type == "opening")
    again = made(data, market)
    assert again == found


@pytest.mark.parametrize("method", ["lifo", "hifo", "average"])
@settings(max_examples=100, deadline=None)
@given(data=worlds(), market=markets())
def test_holdings_are_exact_by_other_cost_bases_too(method: Any, data: BrokerData, market: MarketData) -> None:
    found = made(data, market, cost_basis=method)
    rules = Rules("USD", method, cash_tracking=True, allow_short=found.needs_short)
    book = book_at(Ledger.of(found.transactions, rules), market, LAST)
    assert {(p.account, p.instrument): p.quantity for p in book.positions if p.instrument and p.quantity} == held_today(
        data
    )
