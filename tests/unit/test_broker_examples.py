"""The payloads of the manual are read without a fault, and add up."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from pricecache.brokers.neutral import read_neutral
from pricecache.brokers.plaid_payload import read_plaid
from pricecache.core.bars import day_number
from pricecache.core.broker.data import ZERO, BrokerData
from pricecache.core.history import book_at
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import CostBasis, Ledger, Rules
from pricecache.core.marketdata import MarketData
from pricecache.core.walk.reconstruction import reconstruct
from tests.documents import ROOT

D = Decimal
TODAY = day_number(date(2026, 11, 20))


def example(name: str) -> Any:
    return json.loads((ROOT / "docs" / "examples" / name).read_text())


@pytest.fixture(scope="module")
def plaid() -> BrokerData:
    given = example("plaid.json")
    return read_plaid(given, [given], today=TODAY)


@pytest.fixture(scope="module")
def neutral() -> BrokerData:
    return read_neutral(example("broker.json"), today=TODAY)


def before_the_rows(data: BrokerData) -> dict[tuple[str, str], Decimal]:
    """What was there at first: of what there is, less all that came and went. Nothing is left out."""
    found: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for one in data.holdings:
        found[one.account, one.security] += one.quantity
    for (account, currency), amount in data.money.items():
        found[account, currency] += amount
    for row in data.transactions:
        found[row.account, row.currency] -= row.cash
        if row.security is not None:
            found[row.account, row.security] -= row.quantity
    return {key: amount for key, amount in found.items() if amount}


def test_plaids_example_comes_from_what_was_held_two_years_ago(plaid: BrokerData) -> None:
    assert before_the_rows(plaid) == {
        ("acc-brokerage", "sec-aapl"): D(40),
        ("acc-brokerage", "sec-ibm"): D(60),
        ("acc-brokerage", "USD"): D(1500),
        ("acc-ira", "sec-goog"): D(12),
        ("acc-ira", "USD"): D(350),
        ("acc-401k", "sec-target"): D("310.25"),
    }
    assert plaid.first_day == day_number(date(2024, 12, 2))
    assert {one.kind for one in plaid.accounts.values()} == {"brokerage", "ira", "401k"}
    assert {one.institution for one in plaid.accounts.values()} == {"First Platypus Bank"}
    assert [remark.code for remark in plaid.remarks] == ["cancelled_row"]


def test_the_neutral_example_comes_from_what_was_held_two_years_ago(neutral: BrokerData) -> None:
    assert before_the_rows(neutral) == {
        ("depot", "goog"): D(6),
        ("depot", "USD"): D(800),
        ("roth", "msft"): D(40),
        ("roth", "USD"): D(60),
    }
    assert (neutral.day, neutral.first_day) == (TODAY - 1, day_number(date(2024, 12, 1)))


@pytest.mark.parametrize("name", ["plaid", "neutral"])
def test_holdings_and_money_are_worth_what_the_broker_says(name: str, request: pytest.FixtureRequest) -> None:
    data: BrokerData = request.getfixturevalue(name)
    worth: dict[str, Decimal] = defaultdict(Decimal)
    for one in data.holdings:
        worth[one.account] += one.quantity * (one.price or ZERO)
    for (account, _), amount in data.money.items():
        worth[account] += amount
    for account, one in data.accounts.items():
        assert one.balance is not None
        assert abs(worth[account] - one.balance) <= D("0.03")


@pytest.mark.parametrize("name", ["plaid", "neutral"])
def test_rows_stand_in_the_order_in_which_they_happened(name: str, request: pytest.FixtureRequest) -> None:
    data: BrokerData = request.getfixturevalue(name)
    order = [(row.day, row.place) for row in data.transactions]
    assert order == sorted(order)
    paid = [row.action for row in data.transactions if row.action in ("dividend", "reinvestment") and row.security]
    for before, after in pairwise(paid):
        assert (before, after) != ("reinvestment", "reinvestment")


@pytest.mark.parametrize("name", ["plaid", "neutral"])
def test_walked_backwards_the_examples_leave_nothing_unexplained(name: str, request: pytest.FixtureRequest) -> None:
    data: BrokerData = request.getfixturevalue(name)
    named = {one.id: Instrument(one.id.upper(), "CUSTOM") for one in data.securities.values()}
    found = reconstruct(data, named, {one: one for one in data.accounts}, MarketData(), "example", rules=Rules())
    assert (found.findings, found.needs_short) == ((), False)
    assert {row.type for row in found.transactions} >= {"opening", "buy", "sell", "dividend", "deposit", "transfer_out"}


@pytest.mark.parametrize("method", ["fifo", "lifo", "hifo", "average"])
@pytest.mark.parametrize("name", ["plaid", "neutral"])
def test_the_examples_cost_what_the_broker_says_or_it_is_told_by_how_much(
    name: str, method: CostBasis, request: pytest.FixtureRequest
) -> None:
    """First in, first out they cost just that."""
    data: BrokerData = request.getfixturevalue(name)
    named = {one.id: Instrument(one.id.upper(), "CUSTOM") for one in data.securities.values()}
    rules = Rules(cost_basis=method)
    found = reconstruct(data, named, {one: one for one in data.accounts}, MarketData(), "example", rules=rules)
    told = {(one.account, one.instrument): one.amount for one in found.findings if one.code == "cost_differs"}
    assert not told or method != "fifo"
    book = book_at(Ledger.of(found.transactions, replace(rules, cash_tracking=True)), MarketData(), data.day)
    ours = {(one.account, one.instrument): one.basis[0] for one in book.positions}
    for one in data.holdings:
        key = one.account, named[one.security]
        assert one.cost_basis is not None
        assert abs(ours[key] - one.cost_basis - (told.get(key) or 0)) <= D("0.02")


class Answer:
    """What the library deserializes: the body of an answer."""

    def __init__(self, body: Any) -> None:
        self.data = json.dumps(body)


def test_plaids_own_library_has_no_fault_to_find_in_its_example_and_reads_the_same(plaid: BrokerData) -> None:
    pytest.importorskip("plaid")
    from plaid import ApiClient, Configuration
    from plaid.model.investments_holdings_get_response import InvestmentsHoldingsGetResponse
    from plaid.model.investments_transactions_get_response import InvestmentsTransactionsGetResponse

    given = example("plaid.json")
    item = {
        **given["item"], "webhook": None, "error": None, "available_products": [], "billed_products": [],
        "products": ["investments"], "consent_expiration_time": None, "update_type": "background",
    }  # fmt: skip
    both = {**{name: given[name] for name in ("accounts", "securities", "request_id")}, "item": item}
    rows = {name: given[name] for name in ("investment_transactions", "total_investment_transactions")}
    with ApiClient(Configuration()) as client:
        held = client.deserialize(
            Answer({**both, "holdings": given["holdings"]}), (InvestmentsHoldingsGetResponse,), True
        )
        page = client.deserialize(Answer({**both, **rows}), (InvestmentsTransactionsGetResponse,), True)
    assert read_plaid(held.to_dict(), [page.to_dict()], today=TODAY) == plaid
