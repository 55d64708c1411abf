"""A broker's rows walked backwards: one case after the other of what brokers do, and what it is in a ledger."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.broker.data import BrokerAccount, BrokerData, BrokerHolding, BrokerTransaction, Waypoint
from pricecache.core.broker.merge import merged
from pricecache.core.history import book_at, history
from pricecache.core.ledger import CostBasis, Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.valuation import NET_FLOW
from pricecache.core.walk.findings import Finding
from pricecache.core.walk.reconstruction import Reconstruction, reconstruct
from tests.broker_worlds import ACCOUNTS, FIRST, INSTRUMENTS, LAST, SECURITIES, A, B, O, P

DAYS = np.arange(FIRST - 20, LAST + 1, dtype=np.int64)


def market(*splits: tuple[int, float], price: float = 10.0) -> MarketData:
    """Everything at one price, divided by the splits of A as they come."""
    closes = np.full(len(DAYS), price)
    for day, ratio in splits:
        closes[day <= DAYS] /= ratio
    actions = tuple(Action(day, "split", ratio) for day, ratio in splits)
    flat = Column(DAYS, np.full(len(DAYS), price), DAYS)
    prices = {
        A: PriceColumn(Column(DAYS, closes, DAYS), "USD", actions),
        B: PriceColumn(flat, "USD"),
        P: PriceColumn(Column(DAYS, np.full(len(DAYS), 250.0), DAYS), "GBp"),
    }
    return MarketData(prices, {"GBP": Column(DAYS, np.full(len(DAYS), 1.25), DAYS)})


def row(day: int, action: Any, quantity: Any = 0, cash: Any = 0, security: str | None = "a", **more: Any) -> Any:
    return {"day": FIRST + day, "action": action, "quantity": D(str(quantity)), "cash": D(str(cash))} | {
        "security": security,
        "account": more.pop("account", "x"),
        **more,
    }


def said(
    *rows: dict[str, Any],
    held: dict[Any, Any] | None = None,
    money: dict[Any, Any] | None = None,
    waypoints: tuple[Waypoint, ...] = (),
    cost: Any = None,
) -> BrokerData:
    holdings = [
        BrokerHolding(*(key if isinstance(key, tuple) else ("x", key)), D(str(q)), cost_basis=cost)
        for key, q in (held or {}).items()
    ]
    purses = {(key, "USD") if isinstance(key, str) else key: D(str(amount)) for key, amount in (money or {}).items()}
    found = [BrokerTransaction(**({"id": f"r{n}", "place": n} | one)) for n, one in enumerate(rows)]
    accounts = {"x": BrokerAccount("x", "X"), "y": BrokerAccount("y", "Y")}
    return BrokerData(LAST, FIRST, accounts, SECURITIES, tuple(holdings), purses, tuple(found), waypoints)


def made(data: BrokerData, prices: MarketData | None = None, rules: Rules | None = None) -> Reconstruction:
    """With the check that forward replay gives today's holdings and money."""
    prices = prices or market()
    found = reconstruct(data, INSTRUMENTS, ACCOUNTS, prices, "c", rules=rules or Rules())
    book = book_at(ledger(found), prices, LAST)
    held = {(p.account, p.instrument): p.quantity for p in book.positions if p.instrument and p.quantity}
    assert held == {(ACCOUNTS[h.account], INSTRUMENTS[h.security]): h.quantity for h in data.holdings if h.quantity}
    cash = {(c.account, c.currency): round(c.amount, 2) for c in book.cash}
    assert all(cash.get((ACCOUNTS[a], c), 0) == amount for (a, c), amount in data.money.items())
    return found


def ledger(found: Reconstruction) -> Ledger:
    return Ledger.of(found.transactions, Rules(cash_tracking=True, allow_short=found.needs_short))


def brief(found: Reconstruction) -> list[tuple[Any, ...]]:
    return [
        (t.day - FIRST, t.type, *([t.instrument.symbol, t.quantity] if t.quantity is not None else [t.amount]))
        for t in found.transactions
    ]


def codes(found: Reconstruction) -> list[str]:
    return [one.code for one in found.findings]


def only(found: Reconstruction, kind: str) -> Transaction:
    (one,) = [t for t in found.transactions if t.type == kind]
    return one


# openings


def test_what_no_row_brought_was_held_the_day_before_the_first_row_counts() -> None:
    found = made(said(row(5, "buy", 3, -30), row(9, "sell", -2, 20), held={"a": 11}, money={"x": 90}))
    assert brief(found) == [
        (-1, "opening", "AAA", 10),
        (-1, "opening", 100),
        (5, "buy", "AAA", 3),
        (9, "sell", "AAA", 2),
    ]
    assert not found.findings
    assert not found.needs_short
    assert [(one.opening, one.quantity, one.rows, one.first_day) for one in found.positions] == [(10, 11, 2, FIRST - 1)]


def test_an_opening_costs_what_the_cost_basis_of_today_leaves_for_it() -> None:
    """10 were held; 4 of them are sold first in, first out: of the 6 and the 3 bought for 36 the basis is 66."""
    rows = row(5, "buy", 3, -36), row(9, "sell", -4, 60)
    found = made(said(*rows, held={"a": 9}, money={"x": 0}, cost=D(66)))
    opening = next(t for t in found.transactions if t.type == "opening" and t.instrument)
    assert opening.price == 5
    assert "cost basis" in (opening.note or "")
    book = book_at(ledger(found), market(), LAST)
    assert [p.basis[0] for p in book.positions if p.instrument] == [66]


@pytest.mark.parametrize("cost", [None, D(3)])
def test_an_opening_costs_its_close_where_the_basis_does_not_tell_or_cannot_be(cost: D | None) -> None:
    found = made(said(row(5, "buy", 3, -36), held={"a": 9}, cost=cost))
    opening = only(found, "opening")
    assert (opening.price, opening.currency) == (10, "USD")
    assert "close" in (opening.note or "")


def test_what_is_left_of_an_opening_may_be_too_little_to_tell_its_cost() -> None:
    data = said(row(5, "sell", "-9.9999999999", 100), held={"a": "1E-10"}, cost=D(500))
    found = made(data)
    assert only(found, "opening").price == 10
    assert [(one.code, one.amount) for one in found.findings if one.instrument] == [("cost_differs", D("-500.00"))]


def test_a_cost_basis_that_no_price_of_an_opening_leads_to_is_told() -> None:
    """6 at the close of 10 and 3 bought for 36: 96."""
    (finding,) = costs(made(said(row(5, "buy", 3, -36), held={"a": 9}, cost=D(3))))
    assert (finding.account, finding.instrument, finding.day) == ("one", A, LAST)
    assert (finding.amount, finding.currency, finding.external_id) == (D("93.00"), "USD", None)
    assert "96.00 USD" in finding.detail
    assert "3.00" in finding.detail
    assert "before the first row" in finding.detail
    (dear,) = costs(made(said(held={"a": 1}, cost=D(10_001))))
    assert dear.amount == D("-9991.00")


def test_a_cost_basis_is_told_where_rows_alone_lead_to_another() -> None:
    rows = row(5, "buy", 3, -36), row(6, "buy", 1, -14)
    (finding,) = costs(made(said(*rows, held={"a": 4}, cost=D(40))))
    assert (finding.amount, "before" in finding.detail) == (D("10.00"), False)
    assert not costs(made(said(*rows, held={"a": 4}, cost=D(50)))) + costs(made(said(*rows, held={"a": 4})))


def test_what_a_broker_rounds_of_a_cost_basis_is_no_difference() -> None:
    """Half a cent of each of two lots, and of their sum."""
    rows = row(5, "buy", 3, "-36.01"), row(6, "buy", 1, "-14.01")
    assert not costs(made(said(*rows, held={"a": 4}, cost=D("50.005"))))
    assert costs(made(said(*rows, held={"a": 4}, cost=D("50.004"))))


def test_a_cost_basis_in_hundredths_of_a_currency_or_of_what_is_owed_is_compared_as_it_is() -> None:
    bought = row(5, "buy", 2, "-10", "p", currency="GBP")
    pounds = said(bought, held={"p": 2}, cost=D(11))
    pounds = replace(pounds, holdings=(replace(pounds.holdings[0], currency="GBP"),))
    (finding,) = costs(made(pounds))
    assert (finding.amount, finding.currency) == (D("-1.00"), "GBP")
    for cost in (D(30), D(-30)):
        (owed,) = costs(made(said(row(5, "short", -3, 36), held={"a": -3}, cost=cost)))
        assert owed.amount == D("-6.00")


@pytest.mark.parametrize("method", ["fifo", "hifo", "average"])
def test_cost_bases_in_two_currencies_are_met_each_in_its_own(method: CostBasis) -> None:
    """A pound is 1.25 dollars. The pool of average cost has one price: that of the first."""
    data = said(held={("x", "p"): 4, ("y", "p"): 8})
    bases = [replace(data.holdings[0], cost_basis=D(20), currency="GBP"), replace(data.holdings[1], cost_basis=D(75))]
    found = made(replace(data, holdings=tuple(bases)), rules=Rules(cost_basis=method))
    openings = {t.account: (t.price, t.currency) for t in found.transactions if t.type == "opening"}
    assert openings["one"] == (5, "GBP")
    if method == "average":
        assert [(one.account, one.amount, one.currency) for one in costs(found)] == [("two", D("-25.00"), "USD")]
    else:
        assert openings["two"] == (D("9.375"), "USD")
        assert not costs(found)


def test_without_a_rate_nobody_can_say_whether_costs_differ() -> None:
    bought = row(5, "buy", 2, "-10", "a", currency="CHF")
    assert not costs(made(said(bought, held={"a": 2}, money={("x", "CHF"): 0}, cost=D(11))))


def costs(found: Reconstruction) -> list[Finding]:
    return [one for one in found.findings if one.code == "cost_differs"]


def test_two_openings_in_one_cost_basis_cost_the_same_for_one() -> None:
    """4 came to the 6 there: which of both cost more nobody says."""
    move = row(5, "transfer", -4), row(6, "transfer", 4, account="y")
    found = made(said(*move, held={("y", "a"): 10}, cost=D(150)))
    openings = [t for t in found.transactions if t.type == "opening"]
    assert [(t.account, t.quantity, t.price) for t in openings] == [("one", 4, 15), ("two", 6, 15)]
    assert {one.opening_source for one in found.positions} == {"broker"}
    assert not found.findings


def test_two_openings_in_two_cost_bases_cost_what_both_leave() -> None:
    """Of 10 in the one 4 moved to the 6 of the other: 6 p = 30, 4 p + 6 q = 80."""
    move = row(5, "transfer", -4), row(6, "transfer", 4, account="y")
    data = said(*move, held={("x", "a"): 6, ("y", "a"): 10})
    bases = [replace(one, cost_basis=cost) for one, cost in zip(data.holdings, (D(30), D(80)), strict=True)]
    found = made(replace(data, holdings=tuple(bases)))
    assert {t.account: t.price for t in found.transactions if t.type == "opening"} == {"one": 5, "two": 10}
    assert not found.findings


def test_of_two_cost_bases_of_one_opening_that_of_more_shares_counts_and_the_other_is_told() -> None:
    move = row(5, "transfer", -4), row(6, "transfer", 4, account="y")
    data = said(*move, held={("x", "a"): 6, ("y", "a"): 4})
    bases = [replace(one, cost_basis=cost) for one, cost in zip(data.holdings, (D(30), D(80)), strict=True)]
    found = made(replace(data, holdings=tuple(bases)))
    assert only(found, "opening").price == 5
    assert [(one.account, one.amount) for one in costs(found)] == [("two", D("-60.00"))]


@pytest.mark.parametrize(("method", "basis", "price"), [("lifo", 15, "1.5"), ("hifo", 15, "1.5"), ("average", 40, "2")])
def test_an_opening_costs_what_the_portfolios_own_cost_basis_leaves_for_it(
    method: CostBasis, basis: int, price: str
) -> None:
    """10 were held, 10 came for 60, 10 went: those that came, or half of each."""
    rules = Rules(cost_basis=method)
    data = said(row(5, "buy", 10, -60), row(9, "sell", -10, 80), held={"a": 10}, money={"x": 0}, cost=D(basis))
    found = made(data, rules=rules)
    opening = next(t for t in found.transactions if t.type == "opening" and t.instrument)
    assert opening.price == D(price)
    assert not costs(found)
    book = book_at(Ledger.of(found.transactions, replace(rules, cash_tracking=True)), market(), LAST)
    assert [p.basis[0] for p in book.positions if p.instrument] == [basis]


def test_average_cost_meets_the_cost_bases_of_all_accounts_together() -> None:
    data = said(held={("x", "a"): 6, ("y", "a"): 4})
    bases = [replace(one, cost_basis=cost) for one, cost in zip(data.holdings, (D(30), D(80)), strict=True)]
    found = made(replace(data, holdings=tuple(bases)), rules=Rules(cost_basis="average"))
    assert {t.price for t in found.transactions} == {11}
    assert [(one.account, one.amount) for one in costs(found)] == [("one", D("36.00")), ("two", D("-36.00"))]
    assert all("all accounts together" in one.detail for one in costs(found))


def test_fees_are_in_the_cost_that_is_compared_as_the_portfolio_has_them() -> None:
    data = said(row(5, "buy", 3, -37, fees=D(1)), held={"a": 3}, cost=D(37))
    assert not costs(made(data))
    (finding,) = costs(made(data, rules=Rules(fees_in_cost=False)))
    assert finding.amount == D("-1.00")


def test_lots_that_moved_between_accounts_are_among_those_whose_cost_is_looked_for() -> None:
    move = row(5, "transfer", -10), row(6, "transfer", 10, account="y")
    found = made(said(*move, held={("y", "a"): 10}, cost=D(70)))
    opening = only(found, "opening")
    assert (opening.account, opening.price) == ("one", 7)
    assert only(found, "transfer_out").to_account == "two"


def test_without_a_close_the_brokers_price_stands_through_splits() -> None:
    data = said(row(5, "buy", 1, -30, "o"), held={("x", "o"): 4})
    found = made(data)
    opening = only(found, "opening")
    assert (opening.instrument, opening.price) == (O, 0)
    assert "no_price" in codes(found)
    priced = BrokerHolding("x", "o", D(4), D(33), LAST)
    found = made(BrokerData(LAST, FIRST, data.accounts, SECURITIES, (priced,), {}, data.transactions))
    assert only(found, "opening").price == 33
    worthless = replace(priced, price=D(0))
    found = made(BrokerData(LAST, FIRST, data.accounts, SECURITIES, (worthless,), {}, data.transactions))
    assert (only(found, "opening").price, "no_price" in codes(found)) == (0, True)


def test_what_came_unexplained_once_it_was_worthless_came_for_nothing() -> None:
    held = BrokerHolding("x", "o", D(4), D(0), FIRST + 10)
    before = Waypoint(FIRST + 5, "x", D(1), "o", price=D(30))
    after = Waypoint(FIRST + 20, "x", D(4), "o", price=None)
    data = BrokerData(LAST, FIRST, said().accounts, SECURITIES, (held,), {}, (), (before, after))
    rows = [(t.day - FIRST, t.type, t.price) for t in made(data).transactions if t.instrument]
    assert rows == [(-1, "opening", 30), (20, "adjustment", 0)]


# splits


def test_a_split_of_the_market_is_walked_through_by_itself() -> None:
    found = made(said(row(5, "buy", 1, -10), row(20, "sell", -4, 10), held={"a": 40}), market((FIRST + 10, 4.0)))
    assert only(found, "opening").quantity == 10
    assert not any(t.type == "split" for t in found.transactions)


@pytest.mark.parametrize("day", [6, 10, 13])
def test_a_brokers_row_for_the_markets_split_replaces_it(day: int) -> None:
    prices = market((FIRST + 10, 4.0))
    found = made(said(row(day, "split", 30), held={"a": 40}), prices)
    assert only(found, "opening").quantity == 10
    assert (only(found, "split").ratio, only(found, "split").day) == (4, FIRST + day)
    assert not found.findings
    assert not history_flows(found, prices)[1:].any()


def history_flows(found: Reconstruction, prices: MarketData) -> Any:
    rows = history(ledger(found), prices, LAST)
    assert rows is not None
    return rows.of(NET_FLOW)


def test_shares_sold_between_a_split_and_the_brokers_row_are_new_ones_where_its_count_says_so() -> None:
    """10 became 40 on day 10; 8 of these were sold on day 11; the row of day 13 counts the 30 of the 10."""
    rows = row(11, "sell", -8, 20), row(13, "split", 30)
    found = made(said(*rows, held={"a": 32}), market((FIRST + 10, 4.0)))
    assert (only(found, "opening").quantity, only(found, "split").day) == (10, FIRST + 10)
    assert not [one for one in found.findings if one.external_id]


def test_shares_sold_between_are_old_ones_where_the_count_says_that() -> None:
    """2 of 10 were sold before the account knew of the split: 8 became 32."""
    rows = row(11, "sell", -2, 20), row(13, "split", 24)
    found = made(said(*rows, held={"a": 32}), market((FIRST + 10, 4.0)))
    assert (only(found, "opening").quantity, only(found, "split").day) == (10, FIRST + 13)


def test_a_ratio_that_is_not_the_markets_is_of_the_brokers_day() -> None:
    """4 shares came two days before the market's split; the broker's row states another ratio."""
    rows = row(8, "split", 0, ratio=D("0.1")), row(9, "buy", 4, -40)
    found = made(said(*rows, held={"a": 5}), market((FIRST + 10, 4.0)))
    assert (only(found, "opening").quantity, only(found, "split").day) == (10, FIRST + 8)


def test_the_markets_ratio_divides_where_the_brokers_count_is_another() -> None:
    """15 became 45; the row counts 15 new ones."""
    rows = row(5, "buy", 5, -50), row(10, "split", 15), row(20, "sell", -7, 70)
    found = made(said(*rows, held={"a": 38}), market((FIRST + 10, 3.0)))
    assert (only(found, "opening").quantity, only(found, "split").ratio) == (10, 3)
    assert "split_differs" in codes(found)
    assert not [one for one in found.findings if one.external_id]


def test_a_brokers_row_weeks_late_is_the_same_split_and_no_second_one() -> None:
    found = made(said(row(25, "split", 30), held={"a": 40}), market((FIRST + 10, 4.0)))
    assert only(found, "opening").quantity == 10
    assert only(found, "split").day == FIRST + 10


def test_a_split_nobody_else_knows_has_the_ratio_it_states_or_makes() -> None:
    assert only(made(said(row(5, "split", 0, ratio=D(3)), held={"a": 30})), "opening").quantity == 10
    found = made(said(row(5, "stock_distribution", "0.5"), held={"a": "10.5"}))
    assert (only(found, "opening").quantity, only(found, "split").ratio) == (10, D("1.05"))


@pytest.mark.parametrize(
    ("split", "is_told"),
    [
        (row(5, "split", 0, ratio=D(3)), True),
        (row(9, "split", 0, ratio=D(3)), True),
        (row(10, "split", 0, ratio=D(4)), False),
        (row(25, "split", 0, ratio=D(4)), False),
        (row(10, "split", "22.4"), False),
        (row(5, "split", 0, ratio=D(3), security="o"), False),
        (row(5, "split", 0, ratio=D(1)), False),
    ],
)
def test_a_split_that_the_market_has_none_of_is_told(split: dict[str, Any], is_told: bool) -> None:
    found = made(said(split, held={"a": 30, "o": 30}), market((FIRST + 10, 4.0)))
    told = [one for one in found.findings if one.code == "split_not_in_market"]
    assert [(one.day - FIRST, one.rows, one.instrument) for one in told] == [
        (split["day"] - FIRST, ("r0",), A)
    ] * is_told


def test_the_fraction_of_a_reverse_split_is_paid_or_told() -> None:
    """105 become 10.5, of which the half was paid out: 95 went."""
    prices = market((FIRST + 10, 0.1))
    paid = made(said(row(10, "split", -95, "4.5"), held={"a": 10}, money={"x": "4.5"}), prices)
    assert only(paid, "opening").quantity == 105
    assert (only(paid, "sell").quantity, only(paid, "sell").price) == (D("0.5"), 9)
    assert not paid.findings
    unpaid = made(said(row(10, "split", -95), held={"a": 10}), prices)
    assert only(unpaid, "adjustment").quantity == D("-0.5")
    assert codes(unpaid) == ["fractional_shares"]


def test_lots_that_a_split_rounds_add_up_to_what_the_broker_holds() -> None:
    """Three lots of one share, one for three: 0.333333333333 each, and a whole one together."""
    rows = [row(day, "buy", 1, -10) for day in (1, 2, 3)]
    found = made(said(*rows, row(10, "split", -2), held={"a": 1}), market((FIRST + 10, 0.3333333333333333)))
    assert only(found, "adjustment").quantity == D("1E-12")


def test_a_split_that_changes_the_brokers_id_is_one_split() -> None:
    rows = row(10, "split", -100, security="a-old"), row(10, "split", 10, security="a")
    found = made(said(*rows, held={"a": 10}), market((FIRST + 10, 0.1)))
    assert (only(found, "opening").quantity, only(found, "split").ratio) == (100, D("0.1"))
    moved = row(10, "transfer", -100, security="a-old"), row(10, "transfer", 100, security="a")
    assert brief(made(said(*moved, held={"a": 100}))) == [(-1, "opening", "AAA", 100)]


def test_a_split_that_cannot_be_one_is_a_movement_that_is_told() -> None:
    found = made(said(row(10, "split", 5), held={"a": 5}))
    assert brief(found) == [(10, "adjustment", "AAA", 5)]
    assert codes(found) == ["split_unexplained"]


# contradictions


def test_a_row_that_cannot_be_is_followed_at_once_by_an_adjustment_of_its_size() -> None:
    found = made(said(row(5, "buy", 10, -100), held={"a": 3}))
    assert [one for one in brief(found) if "AAA" in one] == [(5, "buy", "AAA", 10), (5, "adjustment", "AAA", -7)]
    (finding,) = [one for one in found.findings if one.external_id]
    assert (finding.code, finding.quantity, finding.rows) == ("quantity_unexplained", -7, ("r0",))
    assert finding.external_id == only(found, "adjustment").external_id
    assert "r0" in (only(found, "adjustment").note or "")


def test_quantities_that_a_broker_rounds_leave_a_speck_and_no_position_of_two_years() -> None:
    more = made(said(row(5, "buy", "1.2345", -10), held={"a": "1.23456"}))
    assert not [t for t in more.transactions if t.type == "opening"]
    assert (only(more, "adjustment").quantity, codes(more)[0]) == (D("0.00006"), "rounding")
    less = made(said(row(5, "buy", "1.2346", -10), held={"a": "1.23456"}))
    assert (only(less, "adjustment").quantity, codes(less)[0]) == (D("-0.00004"), "rounding")


def test_one_of_two_rows_that_say_the_same_is_left_out_when_the_balance_has_room_for_one() -> None:
    twice = row(5, "buy", 10, -100), row(5, "buy", 10, -100)
    found = made(said(*twice, held={"a": 10}, money={"x": 0}))
    assert brief(found) == [(-1, "opening", 100), (5, "buy", "AAA", 10)]
    assert [(one.code, one.rows) for one in found.findings] == [("duplicate_row", ("r1",))]
    both = made(said(*twice, held={"a": 20}, money={"x": 0}))
    assert len([t for t in both.transactions if t.type == "buy"]) == 2
    assert not both.findings


def test_a_deposit_said_twice_is_left_out_and_so_is_a_sale_that_only_the_money_shows() -> None:
    twice = row(5, "cash", 0, 500, None), row(5, "cash", 0, 500, None)
    found = made(said(*twice, money={"x": 500}))
    assert brief(found) == [(5, "deposit", 500)]
    assert codes(found) == ["duplicate_row"]
    sold = row(5, "sell", -10, 100), row(5, "sell", -10, 100)
    found = made(said(*sold, money={"x": 100}))
    assert brief(found) == [(-1, "opening", "AAA", 10), (5, "sell", "AAA", 10)]
    assert codes(found) == ["duplicate_row"]


def test_a_row_of_another_account_is_no_twin() -> None:
    rows = row(5, "buy", 10, -100), row(5, "buy", 10, -100, account="y")
    found = made(said(*rows, held={"a": 10}))
    assert "duplicate_row" not in codes(found)


# what nobody can know: each fits all that the broker says


def test_a_row_that_is_there_twice_counts_twice_beside_an_opening_that_has_room_for_it() -> None:
    twice = row(5, "buy", 4, -40), row(5, "buy", 4, -40)
    found = made(said(*twice, held={"a": 10}, money={"x": 0}))
    assert brief(found) == [
        (-1, "opening", "AAA", 2), (-1, "opening", 80), (5, "buy", "AAA", 4), (5, "buy", "AAA", 4),
    ]  # fmt: skip
    assert not found.findings
    assert codes(made(said(*twice, held={"a": 4}, money={"x": 0}))) == ["duplicate_row"]


def test_a_contribution_told_as_a_purchase_only_was_there_from_the_beginning() -> None:
    found = made(said(row(5, "buy", 5, -200), held={"a": 5}, money={"x": 0}))
    assert brief(found) == [(-1, "opening", 200), (5, "buy", "AAA", 5)]
    assert not found.findings


def test_holdings_in_old_shares_after_a_split_are_taken_as_new_ones() -> None:
    split = market((LAST - 2, 2.0))
    found = made(said(held={"a": 10}), split)
    assert brief(found) == [(-1, "opening", "AAA", 5)]
    assert not found.findings


def test_a_purchase_that_pays_is_one_for_nothing_and_its_money_an_adjustment() -> None:
    found = made(said(row(5, "buy", 5, 12), held={"a": 5}, money={"x": 12}))
    assert brief(found) == [(5, "adjustment", 12), (5, "buy", "AAA", 5)]
    assert codes(found) == ["odd_cash"]


# waypoints


def test_a_balance_said_earlier_holds_and_the_difference_comes_by_the_next_one() -> None:
    points = Waypoint(FIRST + 10, "x", D(15), "a"), Waypoint(FIRST + 20, "x", D(12), "a")
    found = made(said(row(25, "sell", -2, 20), held={"a": 10}, waypoints=points))
    assert [one for one in brief(found) if "AAA" in one] == [
        (-1, "opening", "AAA", 15),
        (20, "adjustment", "AAA", -3),
        (25, "sell", "AAA", 2),
    ]
    assert [one.code for one in found.findings if one.external_id] == ["balance_differs"]


@pytest.mark.parametrize("day", [6, 10, 14])
def test_rows_posted_days_late_or_early_agree_with_a_balance(day: int) -> None:
    points = (Waypoint(FIRST + 10, "x", D(15), "a"),)
    found = made(said(row(day, "sell", -5, 50), held={"a": 10}, waypoints=points))
    assert only(found, "opening").quantity == 15
    assert not [one for one in found.findings if one.external_id]


def test_a_balance_of_the_day_of_a_split_may_still_be_in_old_shares() -> None:
    points = (Waypoint(FIRST + 10, "x", D(20), "a"),)
    found = made(said(row(3, "buy", 8, -80), held={"a": 40}, waypoints=points), market((FIRST + 10, 2.0)))
    assert only(found, "opening").quantity == 12
    assert not [one for one in found.findings if one.external_id]


def test_a_difference_comes_before_more_would_go_than_there_is() -> None:
    points = (Waypoint(FIRST + 2, "x", D(5), "a"),)
    found = made(said(row(15, "sell", -10, 100), row(30, "buy", 4, -40), held={"a": 4}, waypoints=points))
    assert brief(found)[0:1] == [(-1, "opening", "AAA", 5)]
    assert (only(found, "adjustment").quantity, only(found, "adjustment").day) == (5, FIRST + 15)


def test_a_difference_is_carried_through_a_split_in_new_shares() -> None:
    points = (Waypoint(FIRST + 2, "x", D(9), "a"),)
    found = made(said(held={"a": 40}, waypoints=points), market((FIRST + 10, 4.0)))
    assert (only(found, "opening").quantity, only(found, "adjustment").quantity) == (9, 4)


def test_a_balance_shows_which_of_two_equal_sales_is_one_too_many() -> None:
    points = (Waypoint(FIRST + 2, "x", D(15), "a"),)
    sold = row(20, "sell", -5, 50), row(20, "sell", -5, 50)
    found = made(said(*sold, held={"a": 10}, waypoints=points))
    assert only(found, "opening").quantity == 15
    assert "duplicate_row" in codes(found)


def test_what_is_in_no_account_today_was_there_when_the_broker_said_so() -> None:
    found = made(said(waypoints=(Waypoint(FIRST + 10, "x", D(7), "b"),)))
    assert brief(found) == [(-1, "opening", "BBB", 7), (LAST - FIRST, "adjustment", "BBB", -7)]


def test_a_balance_without_a_row_that_came_after_it_holds_beyond_the_days_that_rows_are_late() -> None:
    """11 were said before the sale of one, a month before, was known."""
    rows = row(10, "sell", -1, 40), row(35, "buy", 1, -20)
    points = (
        Waypoint(FIRST + 29, "x", D(11), "a", late=((FIRST + 10, D(-1)),)),
        Waypoint(FIRST + 29, "x", D(60), late=((FIRST + 10, D(40)),)),
    )
    found = made(said(*rows, held={"a": 11}, money={"x": 80}, waypoints=points))
    assert brief(found)[:2] == [(-1, "opening", "AAA", 11), (-1, "opening", 60)]
    assert not found.findings


def test_a_balance_with_a_row_that_came_after_it_holds_too() -> None:
    points = (Waypoint(FIRST + 29, "x", D(10), "a", late=((FIRST + 10, D(-1)),)),)
    found = made(said(row(10, "sell", -1, 40), held={"a": 10}, money={"x": 40}, waypoints=points))
    assert not [one for one in found.findings if one.external_id]
    assert only(found, "opening").quantity == 11


@pytest.mark.parametrize("has", [(10,), (20,)])
def test_a_balance_may_have_some_of_the_rows_that_came_after_it(has: tuple[int]) -> None:
    late = (FIRST + 10, D(-1)), (FIRST + 20, D(-4))
    said_then = 20 + sum(int(quantity) for day, quantity in late if day - FIRST in has)
    points = (Waypoint(FIRST + 29, "x", D(said_then), "a", late=late),)
    sold = row(10, "sell", -1, 10), row(20, "sell", -4, 40)
    found = made(said(*sold, held={"a": 15}, money={"x": 50}, waypoints=points))
    assert not [one for one in found.findings if one.external_id]


def test_a_row_that_came_after_a_balance_counts_in_its_units() -> None:
    points = (Waypoint(FIRST + 29, "x", D(40), "a", late=((FIRST + 10, D(-1)),)),)
    found = made(said(row(10, "sell", -1, 40), held={"a": 36}, waypoints=points), market((FIRST + 20, 4.0)))
    assert not [one for one in found.findings if one.external_id]
    assert next(t for t in found.transactions if t.type == "opening" and t.quantity).quantity == 10


def test_what_differs_beside_a_row_that_came_after_a_balance_is_the_adjustment() -> None:
    points = (Waypoint(FIRST + 29, "x", D(13), "a", late=((FIRST + 10, D(-1)),)),)
    found = made(said(row(10, "sell", -1, 10), held={"a": 10}, waypoints=points))
    assert only(found, "adjustment").quantity == -2


def test_what_an_earlier_payload_did_not_list_came_since_then_and_is_no_opening() -> None:
    before = replace(said(row(5, "buy", 3, -30, "b"), held={"b": 3}, money={"x": 0}), day=LAST - 1)
    found = made(merged(before, said(row(5, "buy", 3, -30, "b"), held={"b": 3, "a": 5}, money={"x": 0})))
    new = [t for t in found.transactions if t.instrument == A and t.day == LAST]
    assert [(t.type, t.quantity) for t in new] == [("adjustment", 5)]
    assert codes(found) == ["balance_differs"]


def test_days_that_no_payload_told_of_are_told() -> None:
    before = replace(said(row(5, "buy", 3, -30), held={"a": 3}, money={"x": 0}), day=FIRST + 20)
    after = replace(said(held={"a": 3}, money={"x": 0}), first_day=FIRST + 40)
    found = made(merged(before, after))
    assert {(one.code, one.day - FIRST) for one in found.findings} == {("rows_missing", 21)}


def test_an_account_that_nothing_is_said_of_since_has_the_splits_since() -> None:
    data = said(row(5, "buy", 2, -20), held={"a": 9, ("y", "a"): 5}, money={"x": 0})
    accounts = {**data.accounts, "x": replace(data.accounts["x"], told_on=FIRST + 20)}
    prices = market((FIRST + 8, 2.0), (FIRST + 30, 4.0))
    found = reconstruct(replace(data, accounts=accounts), INSTRUMENTS, ACCOUNTS, prices, "c", rules=Rules())
    book = book_at(ledger(found), prices, LAST)
    assert {p.account: p.quantity for p in book.positions if p.instrument} == {ACCOUNTS["x"]: 36, ACCOUNTS["y"]: 5}
    assert [one.opening for one in found.positions if one.account == ACCOUNTS["x"]] == [D("2.5")]
    assert not [one for one in found.findings if one.external_id]


# shorts and options


def test_a_short_position_may_be_opened_before_the_first_row() -> None:
    found = made(said(row(5, "cover", 4, -44), held={"a": -6}, money={"x": 1000}))
    assert brief(found)[:2] == [(-1, "opening", 944), (-1, "sell", "AAA", 10)]
    assert found.needs_short
    assert not found.findings


def test_what_is_bought_and_gone_is_no_short_position_because_there_was_one_once() -> None:
    """A short of 3 was covered; 50 that were bought a month later are gone."""
    rows = row(3, "short", -3, 30), row(6, "cover", 3, -33), row(30, "buy", 50, -500)
    found = made(said(*rows))
    assert [one for one in brief(found) if "AAA" in one][2:] == [(30, "buy", "AAA", 50), (30, "adjustment", "AAA", -50)]
    (finding,) = [one for one in found.findings if one.external_id and one.quantity]
    assert (finding.code, finding.quantity, finding.rows) == ("quantity_unexplained", -50, ("r2",))


def test_what_was_sold_short_and_is_owed_no_more_was_bought_back() -> None:
    found = made(said(row(3, "short", -3, 30)))
    assert [one for one in brief(found) if "AAA" in one] == [(3, "adjustment", "AAA", 3), (3, "sell", "AAA", 3)]
    assert not found.needs_short
    late = made(said(row(3, "cover", 3, -33), row(5, "short", -3, 30)))
    assert [one.code for one in late.findings if one.quantity] == []


def test_a_purchase_closes_what_was_sold_short_before() -> None:
    found = made(said(row(3, "short", -3, 30), row(9, "buy", 1, -9), row(12, "buy", 2, -20)))
    assert [one for one in brief(found) if "AAA" in one] == [
        (3, "sell", "AAA", 3),
        (9, "buy", "AAA", 1),
        (12, "buy", "AAA", 2),
    ]
    assert found.needs_short


def test_an_option_whose_expiry_nobody_tells_leaves_at_nothing_on_its_day() -> None:
    found = made(said(row(5, "buy", 100, -500, "o"), row(8, "sell", -40, 300, "o"), money={"x": 800}))
    (gone,) = [t for t in found.transactions if t.day == FIRST + 30]
    assert (gone.type, gone.quantity, gone.price) == ("sell", 60, 0)
    (finding,) = [one for one in found.findings if one.external_id]
    assert (finding.code, finding.quantity, finding.external_id) == ("expiry_missing", -60, gone.external_id)
    assert not found.needs_short
    written = made(said(row(5, "short", -100, 500, "o"), money={"x": 1500}))
    assert brief(written)[1:] == [(5, "sell", "OPT", 100), (30, "buy", "OPT", 100)]
    assert written.needs_short


def test_an_option_that_is_sold_before_it_is_bought_was_written() -> None:
    found = made(said(row(5, "sell", -100, 500, "o"), row(9, "buy", 100, -200, "o"), money={"x": 800}))
    assert brief(found) == [(-1, "opening", 500), (5, "sell", "OPT", 100), (9, "buy", "OPT", 100)]
    assert not [one for one in found.findings if one.external_id]
    assert found.needs_short


def test_an_option_that_is_gone_before_its_expiry_is_told() -> None:
    points = (Waypoint(FIRST + 20, "x", D(0), "o"),)
    found = made(said(row(5, "buy", 100, -500, "o"), money={"x": 500}, waypoints=points))
    assert brief(found)[1:] == [(5, "buy", "OPT", 100), (5, "adjustment", "OPT", -100)]
    held = (Waypoint(FIRST + 20, "x", D(100), "o"),)
    found = made(said(row(5, "buy", 100, -500, "o"), money={"x": 500}, waypoints=held))
    assert brief(found)[1:] == [(5, "buy", "OPT", 100), (30, "sell", "OPT", 100)]


def test_an_option_that_expires_leaves_at_nothing() -> None:
    bought = made(said(row(5, "buy", 2, -300, "o"), row(30, "expiry", -2, 0, "o"), money={"x": 700}))
    assert brief(bought) == [(-1, "opening", 1000), (5, "buy", "OPT", 2), (30, "sell", "OPT", 2)]
    assert bought.transactions[-1].price == 0
    written = made(said(row(5, "sell", -2, 300, "o"), row(30, "expiry", 2, 0, "o"), money={"x": 1300}))
    assert [one[1] for one in brief(written)] == ["opening", "sell", "buy"]
    assert written.needs_short


def test_an_exercised_option_goes_and_its_share_is_bought_with_the_money() -> None:
    rows = row(9, "exercise", -1, 0, "o"), row(9, "buy", 100, -1000)
    found = made(said(*rows, held={"a": 100}, money={"x": 5}))
    assert brief(found)[2:] == [(9, "buy", "AAA", 100), (9, "sell", "OPT", 1)]
    assert (found.transactions[-1].price, codes(found)) == (0, ["no_price"])


def test_a_short_position_that_goes_to_another_account_leaves_with_its_money() -> None:
    rows = row(3, "short", -5, 50), row(9, "transfer", 5), row(9, "transfer", -5, account="y")
    found = made(said(*rows, held={("y", "a"): -5}, money={"x": 50, "y": 0}))
    assert found.needs_short
    assert [one.code for one in found.findings if one.amount] == ["short_moved"]
    assert (only(found, "adjustment").amount, only(found, "adjustment").day) == (-50, FIRST + 9)
    assert [(t.quantity, t.price) for t in found.transactions if t.account == "two" and t.type == "sell"] == [(5, 10)]


# money


def test_prices_are_such_that_the_engine_moves_the_brokers_money() -> None:
    found = made(said(row(5, "buy", 3, "-100.01", fees=D("0.99"), price=D("33")), held={"a": 3}, money={"x": 0}))
    bought = only(found, "buy")
    assert (bought.price, bought.fees) == (D("33.006666666667"), D("0.99"))
    exact = made(said(row(5, "buy", 3, "-99", price=D("33.00")), held={"a": 3}, money={"x": 0}))
    assert only(exact, "buy").price == 33


def test_a_great_many_units_at_almost_nothing_move_the_money_to_the_cent() -> None:
    rows = [row(1, "buy", 777_777_777, "-123.45"), row(2, "sell", -333_333_333, "54.31")]
    made(said(*rows, held={"a": 444_444_444}, money={"x": 10}))


def test_money_that_no_row_explains_is_an_adjustment_and_no_negative_opening() -> None:
    found = made(said(row(20, "sell", -2, 200), held={"a": 1}, money={"x": 50}))
    assert (only(found, "adjustment").amount, only(found, "adjustment").day) == (-150, FIRST + 20)
    assert [one.code for one in found.findings] == ["cash_unexplained"]


def test_a_purchase_is_paid_by_what_comes_in_when_it_settles() -> None:
    found = made(said(row(5, "buy", 10, -100), row(8, "cash", 0, 100, None), held={"a": 10}, money={"x": 0}))
    assert brief(found) == [(5, "buy", "AAA", 10), (8, "deposit", 100)]
    late = made(said(row(5, "buy", 10, -100), row(18, "cash", 0, 100, None), held={"a": 10}, money={"x": 0}))
    assert [one[1] for one in brief(late)] == ["opening", "buy", "deposit", "adjustment"]


def test_who_owes_money_today_may_have_owed_it_before() -> None:
    found = made(said(row(5, "sell", -2, 200), money={"x": -50}))
    assert [(t.day - FIRST, t.amount) for t in found.transactions if t.amount] == [(-1, -250)]
    assert codes(found) == ["margin_loan"]


def test_where_a_broker_tells_of_no_money_it_comes_and_goes_with_the_trades() -> None:
    rows = row(5, "buy", 10, -100), row(9, "sell", -4, 50), row(9, "buy", 5, -50, "b")
    found = made(said(*rows, held={"a": 6, "b": 5}))
    assert [one for one in brief(found) if one[1] in ("deposit", "withdrawal", "opening")] == [(5, "deposit", 100)]
    assert codes(found) == ["money_not_reported"]


def test_money_walks_by_currency_and_pence_are_pounds() -> None:
    rows = row(5, "buy", 4, -10, "p", currency="GBP"), row(6, "buy", 4, -1200, "p", currency="GBp")
    found = made(said(*rows, held={"p": 8}, money={("x", "GBP"): 3}))
    assert [(t.amount, t.currency) for t in found.transactions if t.type == "opening"] == [(25, "GBP")]


def test_a_balance_of_money_said_earlier_holds() -> None:
    points = (Waypoint(FIRST + 10, "x", D(40)),)
    found = made(said(row(20, "dividend", 0, 5), held={"a": 1}, money={"x": 50}, waypoints=points))
    assert [(t.day - FIRST, t.type, t.amount) for t in found.transactions if t.amount and t.type != "dividend"] == [
        (-1, "opening", 40),
        (LAST - FIRST, "adjustment", 5),
    ]


def test_money_that_a_balance_told_of_and_that_is_listed_no_more_was_spent() -> None:
    points = (Waypoint(FIRST + 10, "x", D(500)),)
    rows = row(5, "buy", 10, -500), row(30, "buy", 10, -500)
    found = made(said(*rows, held={"a": 20}, waypoints=points))
    assert [(t.day - FIRST, t.type, t.amount) for t in found.transactions if t.amount] == [(-1, "opening", 1000)]
    assert not found.findings


# what rows are


def test_a_reinvestment_is_a_dividend_and_a_linked_purchase_without_flow() -> None:
    found = made(said(row(5, "reinvestment", 2, -20), held={"a": 12}, money={"x": 0}))
    dividend, bought = only(found, "dividend"), only(found, "buy")
    assert (dividend.amount, bought.quantity, bought.price) == (20, 2, 10)
    assert dividend.link == bought.link is not None
    assert not history_flows(found, market())[1:].any()


def test_a_dividend_that_the_broker_also_tells_is_not_made_a_second_time() -> None:
    rows = row(4, "dividend", 0, "20.01"), row(5, "reinvestment", 2, -20)
    found = made(said(*rows, held={"a": 12}, money={"x": "0.01"}))
    assert only(found, "dividend").link == only(found, "buy").link is not None
    far = made(said(row(1, "dividend", 0, 20), row(12, "reinvestment", 2, -20), held={"a": 12}, money={"x": 20}))
    assert len([t for t in far.transactions if t.type == "dividend"]) == 2


@pytest.mark.parametrize("day", [20, 22])
def test_two_dividends_may_pay_for_one_reinvestment(day: int) -> None:
    rows = row(20, "dividend", 0, 60), row(20, "dividend", 0, 40), row(day, "reinvestment", 10, -100)
    found = made(said(*rows, held={"a": 20}, money={"x": 1000}))
    assert [t.amount for t in found.transactions if t.type == "dividend"] == [60, 40]
    bought = only(found, "buy")
    assert [t.amount for t in found.transactions if t.type == "dividend" and t.link == bought.link] == [60]
    assert [t.amount for t in found.transactions if t.type == "opening" and t.instrument is None] == [1000]


def test_a_dividend_may_be_reinvested_within_ten_days_where_the_amounts_are_equal() -> None:
    for day, cash, dividends in ((30, -100, 1), (31, -100, 2), (30, -60, 2)):
        rows = row(20, "dividend", 0, 100), row(day, "reinvestment", 10, cash)
        found = made(said(*rows, held={"a": 20}, money={"x": 1000}))
        assert [t.type for t in found.transactions].count("dividend") == dividends


def test_a_dividend_and_cash_may_pay_for_one_reinvestment() -> None:
    rows = row(20, "dividend", 0, 10), row(20, "reinvestment", "1.2", -12)
    found = made(said(*rows, held={"a": 20}, money={"x": 1000}))
    assert only(found, "dividend").link == only(found, "buy").link
    assert [t.amount for t in found.transactions if t.type == "opening" and t.instrument is None] == [1002]


def test_the_dividend_of_one_security_may_pay_for_another() -> None:
    rows = row(20, "dividend", 0, 10), row(21, "reinvestment", 1, -10, "b")
    found = made(said(*rows, held={"a": 20, "b": 5}, money={"x": 1000}))
    assert only(found, "dividend").instrument == A
    assert (only(found, "buy").instrument, only(found, "buy").link) == (B, None)
    assert [t.amount for t in found.transactions if t.type == "opening" and t.instrument is None] == [1000]
    other = row(20, "dividend", 0, 10), row(21, "reinvestment", 3, -30, "b")
    found = made(said(*other, held={"a": 20, "b": 5}, money={"x": 1000}))
    assert [t.amount for t in found.transactions if t.type == "dividend"] == [10, 30]


def test_one_dividend_may_pay_for_two_reinvestments() -> None:
    rows = row(5, "dividend", 0, 30), row(5, "reinvestment", 2, -20), row(5, "reinvestment", 1, -10)
    found = made(said(*rows, held={"a": 3}, money={"x": 0}))
    assert [one[1] for one in brief(found)] == ["dividend", "buy", "buy"]


@pytest.mark.parametrize(
    ("action", "cash", "kind", "amount"),
    [
        ("dividend", 5, "dividend", 5),
        ("dividend", -5, "fee", 5),
        ("return_of_capital", 5, "dividend", 5),
        ("interest", 5, "interest", 5),
        ("interest", -5, "fee", 5),
        ("fee", -5, "fee", 5),
        ("fee", 5, "interest", 5),
        ("tax", -5, "tax", 5),
        ("tax", 5, "interest", 5),
        ("buy", 5, "dividend", 5),
        ("merger", 5, "dividend", 5),
    ],
)
def test_money_of_a_security_is_income_or_a_charge(action: Any, cash: int, kind: str, amount: int) -> None:
    found = made(said(row(5, action, 0, cash), held={"a": 1}, money={"x": 100}))
    assert (only(found, kind).amount, only(found, kind).instrument) == (amount, A)


def test_a_dividend_is_gross_and_its_tax_beside_it() -> None:
    found = made(said(row(5, "dividend", 0, 85, taxes=D(15)), held={"a": 1}, money={"x": 85}))
    assert (only(found, "dividend").amount, only(found, "dividend").taxes) == (100, 15)


@pytest.mark.parametrize(("cash", "kind"), [(100, "deposit"), (-100, "withdrawal")])
def test_money_that_comes_and_goes(cash: int, kind: str) -> None:
    found = made(said(row(5, "cash", 0, cash, None), money={"x": 200}))
    assert only(found, kind).amount == 100


def test_a_sweep_moves_nothing_and_its_dividend_is_income() -> None:
    rows = row(5, "buy", 100, -100, "sweep"), row(6, "dividend", 0, 3, "sweep")
    found = made(said(*rows, money={"x": 103}))
    assert brief(found) == [(-1, "opening", 100), (6, "interest", 3)]
    assert not found.findings


def test_a_transfer_between_the_users_accounts_is_one_row_of_lots() -> None:
    rows = row(5, "transfer", -4), row(7, "transfer", 4, account="y")
    found = made(said(*rows, held={("x", "a"): 6, ("y", "a"): 4}))
    moved = only(found, "transfer_out")
    assert (moved.account, moved.to_account, moved.quantity, moved.day) == ("one", "two", 4, FIRST + 5)
    assert not history_flows(found, market())[1:].any()


def test_what_leaves_at_once_may_come_in_parts() -> None:
    came = [row(21, "transfer", 6, account="y"), row(22, "transfer", 4, account="y")]
    found = made(said(row(20, "transfer", -10), *came, held={("y", "a"): 10}))
    assert [(t.quantity, t.to_account) for t in found.transactions if t.type == "transfer_out"] == [
        (6, ACCOUNTS["y"]), (4, ACCOUNTS["y"]),
    ]  # fmt: skip
    assert not found.findings
    other = made(said(row(20, "transfer", -10), came[0], held={("y", "a"): 6}))
    assert [t.to_account for t in other.transactions if t.type == "transfer_out"] == [None]


def test_money_between_the_users_accounts_is_one_row() -> None:
    rows = row(5, "transfer", 0, -40, None), row(6, "transfer", 0, 40, None, account="y")
    found = made(said(*rows, money={"x": 60, "y": 40}))
    assert brief(found) == [(-1, "opening", 100), (5, "transfer_out", 40)]


def test_a_deposit_and_a_withdrawal_of_the_same_size_are_two() -> None:
    rows = row(5, "cash", 0, -40, None), row(6, "cash", 0, 40, None, account="y")
    found = made(said(*rows, money={"x": 60, "y": 40}))
    assert [one[1] for one in brief(found)] == ["opening", "withdrawal", "deposit"]


def test_transfers_that_each_need_the_other_first_are_external() -> None:
    """From one account to the other and back on one day, with nothing in either at its beginning or end."""
    there = row(5, "transfer", -4), row(5, "transfer", 4, account="y")
    back = row(5, "transfer", -4, account="y"), row(5, "transfer", 4)
    found = made(said(*there, *back))
    assert sorted(one[1] for one in brief(found)) == ["transfer_in", "transfer_in", "transfer_out", "transfer_out"]


def test_shares_from_elsewhere_come_at_their_close_and_go() -> None:
    found = made(said(row(5, "transfer", 4), row(9, "transfer", -1), held={"a": 3}))
    assert (only(found, "transfer_in").price, only(found, "transfer_out").quantity) == (10, 1)


def test_shares_that_were_bought_for_no_money_came_from_elsewhere() -> None:
    found = made(said(row(5, "buy", 4, 0, price=D(9)), held={"a": 4}))
    assert (only(found, "transfer_in").quantity, only(found, "transfer_in").price) == (4, 9)


@pytest.mark.parametrize("action", ["dividend", "interest"])
def test_income_in_shares_is_income_and_a_purchase(action: Any) -> None:
    found = made(said(row(20, action, 2), row(20, "dividend", 0, 20), held={"a": 12}, money={"x": 20}))
    assert sorted(t.amount for t in found.transactions if t.type == "dividend") == [20, 20]
    assert (only(found, "buy").quantity, only(found, "buy").price) == (2, 10)


def test_shares_that_came_as_a_dividend_on_the_day_of_a_split_are_the_split() -> None:
    found = made(said(row(21, "dividend", 10), held={"a": 20}), market((FIRST + 20, 2)))
    assert [t.type for t in found.transactions] == ["opening", "split"]


def test_a_spin_off_is_income_in_shares_without_flow() -> None:
    found = made(said(row(5, "spin_off", 3, 0, "b"), held={"a": 1, "b": 3}))
    assert (only(found, "dividend").amount, only(found, "buy").price) == (30, 10)
    assert not history_flows(found, market())[1:].any()


def test_an_exchange_of_shares_is_a_sale_and_a_purchase_of_one_value() -> None:
    rows = row(5, "merger", -10), row(5, "merger", 4, 0, "b")
    found = made(said(*rows, held={"b": 4}, money={"x": 7}))
    assert brief(found)[2:] == [(5, "buy", "BBB", 4), (5, "sell", "AAA", 10)]
    assert (only(found, "buy").price, only(found, "sell").price) == (10, 4)
    bought_out = made(said(row(5, "merger", -10, 120), money={"x": 120}))
    assert only(bought_out, "sell").price == 12


def test_a_fee_in_shares_sells_them_for_it() -> None:
    found = made(said(row(5, "fee", "-0.5", -5), held={"a": 1}, money={"x": 0}))
    assert (only(found, "sell").price, only(found, "fee").amount) == (10, 5)


def test_a_brokers_own_adjustment_is_one_that_is_told() -> None:
    found = made(said(row(5, "adjustment", 2), held={"a": 2}))
    assert (only(found, "adjustment").quantity, codes(found)) == (2, ["broker_adjustment"])


def test_rows_outside_of_what_is_known_are_told_and_in_no_ledger() -> None:
    rows = row(-1, "buy", 5, -50), row(50, "sell", -5, 50)
    found = made(said(*rows, held={"a": 5}))
    assert brief(found) == [(-1, "opening", "AAA", 5)]
    assert codes(found) == ["row_before_first_day", "row_after_holdings"]


def test_a_row_of_the_first_day_counts() -> None:
    found = made(said(row(0, "buy", 5, -50), row(LAST - FIRST, "sell", -1, 10), held={"a": 4}, money={"x": 10}))
    assert [one[0] for one in brief(found)] == [-1, 0, LAST - FIRST]


def test_a_row_that_moves_nothing_is_told() -> None:
    assert codes(made(said(row(5, "buy")))) == ["row_without_effect"]


def test_names_are_those_of_the_brokers_rows_and_never_too_long() -> None:
    long = row(5, "buy", 1, -10, id="r" * 300)
    found = reconstruct(said(long, held={"a": 2}), INSTRUMENTS, ACCOUNTS, market(), "c" * 30, rules=Rules())
    assert all(len(t.external_id or "") <= 200 for t in found.transactions)
    assert [t.external_id for t in made(said(row(5, "buy", 1, -10), held={"a": 1}, money={"x": 0})).transactions] == [
        "c/o/one/USD",
        "c/t/r0",
    ]


def test_quantities_finer_than_a_ledger_takes_are_rounded_and_add_up() -> None:
    rows = [row(day, "buy", "0.1234567890123456", -1) for day in (1, 2, 3)]
    held = D("0.370370367037")
    found = made(said(*rows, held={"a": held}, money={"x": 0}))
    assert all(abs(one.quantity or 0) < D("1E-9") for one in found.findings)


# mergers for cash and shares


CASH_OF_A_MERGER = {
    "in the row that went": (row(5, "merger", -10, 20), row(5, "merger", 4, 0, "b")),
    "in the row that came": (row(5, "merger", -10), row(5, "merger", 4, 20, "b")),
    "in a row of the old": (row(5, "merger", -10), row(5, "merger", 4, 0, "b"), row(5, "return_of_capital", 0, 20)),
    "in a row of the new": (row(5, "merger", 0, 20, "b"), row(5, "merger", 4, 0, "b"), row(5, "merger", -10)),
    "in a row of nothing": (
        row(5, "return_of_capital", 0, 20, None), row(5, "merger", -10), row(5, "merger", 4, 0, "b"),
    ),
    "in rows for each lot": (
        row(5, "merger", -4, 8), row(5, "merger", -6, 12), row(5, "merger", 1, 0, "b"), row(5, "merger", 3, 0, "b"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("rows", CASH_OF_A_MERGER.values(), ids=CASH_OF_A_MERGER)
def test_a_merger_for_cash_and_shares_sells_the_old_for_both(rows: tuple[Any, ...]) -> None:
    found = made(said(*rows, held={"b": 4}, money={"x": 27}))
    sold = [t for t in found.transactions if t.type == "sell"]
    bought = [t for t in found.transactions if t.type == "buy"]
    assert sum((t.quantity or 0) * (t.price or 0) for t in sold) == 60
    assert {t.price for t in sold} == {6}
    assert sum((t.quantity or 0) * (t.price or 0) for t in bought) == 40
    assert {t.type for t in found.transactions} == {"opening", "sell", "buy"}
    assert not codes(found)
    assert not history_flows(found, market())[1:].any()


def test_what_one_security_became_is_bought_at_the_worth_of_each() -> None:
    rows = row(5, "merger", -10, 5, taxes=D(1)), row(5, "merger", 4, 0, "b"), row(5, "merger", 2, 0, "p")
    found = made(said(*rows, held={"b": 4, "p": 2}, money={"x": 5}))
    bought = {t.instrument: (t.quantity or 0) * (t.price or 0) for t in found.transactions if t.type == "buy"}
    assert bought == {B: 40, P: D("6.25")}  # 500 pence
    sold = only(found, "sell")
    assert ((sold.quantity or 0) * (sold.price or 0), sold.taxes, sold.currency) == (D("52.25"), 1, "USD")
    assert not history_flows(found, market())[1:].any()


def test_what_several_became_one_is_sold_by_what_each_was_worth() -> None:
    rows = row(5, "merger", -10), row(5, "merger", -10, 0, "p"), row(5, "merger", 4, 0, "b", price=D(30))
    found = made(said(*rows, held={"b": 4}))
    sold = {t.instrument: (t.quantity or 0) * (t.price or 0) for t in found.transactions if t.type == "sell"}
    assert sum(sold.values()) == pytest.approx(120)
    assert sold[A] / sold[P] == pytest.approx(D(100) / D("31.25"))


def test_two_mergers_of_a_day_are_two() -> None:
    rows = (
        row(5, "merger", -10), row(5, "merger", -2, 0, "p"), row(5, "merger", 4, 0, "b"), row(5, "merger", 1, 0, "o"),
        row(5, "merger", 0, 3, "o"),
    )  # fmt: skip
    found = made(said(*rows, held={"b": 4, "o": 1}, money={"x": 3}))
    worth = {t.instrument: (t.quantity or 0) * (t.price or 0) for t in found.transactions if t.type in ("buy", "sell")}
    assert worth == {A: 40, B: 40, P: D("6.25"), O: D("3.25")}


def test_without_a_price_the_old_one_is_worth_what_was_given_for_it() -> None:
    rows = row(5, "merger", -10, 20, "o"), row(5, "merger", 4, 0, "b")
    found = made(said(*rows, held={"b": 4}, money={"x": 20}))
    opening = next(t for t in found.transactions if t.type == "opening" and t.instrument == O)
    assert (opening.price, only(found, "sell").price, codes(found)) == (6, 6, [])


def test_without_a_price_the_new_one_is_worth_what_is_left_of_the_old() -> None:
    rows = row(5, "merger", -10, 20), row(5, "merger", 4, 0, "o")
    found = made(said(*rows, held={"o": 4}, money={"x": 20}))
    assert (only(found, "buy").price, only(found, "sell").price) == (20, 10)


def test_where_nobody_knows_a_price_the_cash_is_what_is_known() -> None:
    rows = row(5, "merger", -10, 20, "o"), row(5, "merger", 4, 0, "b")
    bare = MarketData({}, market().rates)
    found = made(said(*rows, held={"b": 4}, money={"x": 20}), bare)
    assert (only(found, "buy").price, only(found, "sell").price) == (0, 2)
    assert "no_price" in codes(found)


@pytest.mark.parametrize("later", [0, 3, -2])
@pytest.mark.parametrize(
    ("goes", "pays"),
    [("merger", "merger"), ("merger", "return_of_capital"), ("sell", "merger"), ("transfer", "merger")],
)
def test_a_merger_for_cash_in_two_rows_is_a_sale(goes: Any, pays: Any, later: int) -> None:
    balance = Waypoint(FIRST + 20 + min(later, 0), "x", D(0 if later > 0 else 110))
    rows = row(20, goes, -6), row(20, goes, -4), row(20 + later, pays, 0, 110, fees=D(1))
    found = made(said(*sorted(rows, key=lambda one: one["day"]), held={}, money={"x": 110}, waypoints=(balance,)))
    sold = [t for t in found.transactions if t.type == "sell"]
    assert [(t.day - FIRST, t.quantity) for t in sold] == [(20, 6), (20, 4)]
    assert sum((t.quantity or 0) * (t.price or 0) - t.fees for t in sold) == 110
    assert {t.type for t in found.transactions} == {"opening", "sell"}
    assert not found.findings


def test_a_little_capital_back_pays_for_no_merger() -> None:
    found = made(said(row(20, "merger", -10), row(20, "return_of_capital", 0, 10), money={"x": 10}))
    assert [t.type for t in found.transactions] == ["opening", "dividend", "transfer_out"]


def test_shares_exchanged_for_the_same_ones_with_cash_for_a_fraction_are_a_split() -> None:
    rows = row(5, "merger", -15), row(5, "merger", 7, 5)
    found = made(said(*rows, held={"a": 7}, money={"x": 5}), market((FIRST + 5, 0.5)))
    assert [one.type for one in found.transactions if one.day == FIRST + 5] == ["split", "sell"]


# rows in the shares of after a split


RESTATED = market((FIRST + 10, 4.0), (FIRST + 20, 0.5), price=40.0)
"""A costs 40, then 10, then 20: of the first shares there are twice as many today."""


def test_rows_told_in_later_shares_count_in_those_of_their_day() -> None:
    rows = (
        row(2, "buy", 20, -400, price=D(20)), row(3, "transfer", -4, id="bare"),
        row(12, "buy", 5, -100, price=D("19.5")), row(25, "sell", -1, 20, price=D(20)),
    )  # fmt: skip
    found = made(said(*rows, held={"a": 30}, money={"x": 20}), RESTATED)
    assert brief(found)[2:] == [
        (2, "buy", "AAA", 10), (3, "transfer_out", "AAA", 2), (10 + 2, "buy", "AAA", 10), (25, "sell", "AAA", 1),
    ]  # fmt: skip
    assert [t.price for t in found.transactions if t.type == "buy"] == [40, 10]
    assert only(found, "sell").price == 20
    told = {one.day - FIRST: one.rows for one in found.findings}
    assert codes(found) == ["rows_restated", "rows_restated"]
    assert told == {10: ("r0", "bare"), 20: ("r0", "bare", "r2")}


def test_rows_in_shares_of_between_two_splits_are_put_back_through_the_first() -> None:
    found = made(said(row(2, "buy", 40, -400, price=D(10)), held={"a": 30}), RESTATED)
    assert (only(found, "buy").quantity, only(found, "opening").quantity) == (10, 5)
    assert [one.day - FIRST for one in found.findings if one.code == "rows_restated"] == [10]


@pytest.mark.parametrize(("price", "quantity"), [(D(40), 10), (D("43.9"), 10), (D(26), 10), (None, 10), (D("19.9"), 5)])
def test_only_a_price_of_its_day_in_later_shares_tells(price: D | None, quantity: int) -> None:
    found = made(said(row(2, "transfer", 10, price=price), held={"a": 30}), RESTATED)
    assert only(found, "transfer_in").quantity == quantity


def test_rows_of_another_account_tell_nothing() -> None:
    rows = row(2, "buy", 20, -400, price=D(20)), row(2, "transfer", 4, account="y")
    found = made(said(*rows, held={"a": 30, ("y", "a"): 8}, money={"x": 0}), RESTATED)
    assert only(found, "transfer_in").quantity == 4


def test_a_row_is_not_put_back_when_only_the_walk_with_it_as_told_adds_up() -> None:
    none = Waypoint(FIRST - 1, "x", D(0), "a")
    bought = row(8, "buy", 20, -400, price=D(20))
    found = made(said(bought, held={"a": 40}, money={"x": 0}, waypoints=(none,)), RESTATED)
    assert (only(found, "buy").quantity, codes(found)) == (20, [])
    found = made(said(bought, held={"a": 20}, money={"x": 0}, waypoints=(none,)), RESTATED)
    assert (only(found, "buy").quantity, codes(found)) == (10, ["rows_restated"] * 2)


def test_prices_of_restated_rows_are_those_of_their_day_elsewhere_too() -> None:
    bare = MarketData({A: RESTATED.prices[A]}, RESTATED.rates)
    rows = row(2, "buy", 20, -400, price=D(20)), row(3, "reinvestment", 2, 0)
    found = made(said(*rows, held={"a": 22}), bare)
    assert [t.quantity for t in found.transactions if t.type == "buy"] == [10, 1]


# cash for a fraction, later


@pytest.mark.parametrize(
    "paid",
    [
        row(17, "return_of_capital", 0, "4.6"),
        row(10, "return_of_capital", 0, "4.5"),
        row(30, "dividend", 0, "5.5", note="CASH IN LIEU OF FRACTIONAL SHARES"),
        row(17, "merger", 0, "4.2", taxes=D("0.8")),
    ],
)
def test_cash_for_a_fraction_that_comes_after_its_split_is_the_sale_of_it(paid: dict[str, Any]) -> None:
    """105 become 10.5; balances in between have neither the half share nor the money."""
    prices = market((FIRST + 10, 0.1), price=1.0)
    between = Waypoint(FIRST + 11, "x", D(10), "a"), Waypoint(FIRST + 11, "x", D(3))
    between = () if paid["day"] == FIRST + 10 else between
    data = said(row(10, "split", -95), paid, held={"a": 10}, money={"x": 3 + paid["cash"]}, waypoints=between)
    found = made(data, prices)
    assert {t.type for t in found.transactions} == {"opening", "split", "sell"}
    sold = only(found, "sell")
    assert (sold.day - FIRST, sold.quantity) == (10, D("0.5"))
    assert (sold.quantity or 0) * (sold.price or 0) - sold.taxes == paid["cash"]
    assert not found.findings
    assert not history_flows(found, prices)[1:].any()


@pytest.mark.parametrize("action", ["spin_off", "adjustment", "sell"])
def test_a_fraction_that_goes_in_one_row_and_is_paid_in_another_is_one_sale(action: Any) -> None:
    rows = (
        row(5, "spin_off", "3.4", 0, "b"),
        row(7, action, "-0.4", 0, "b"),
        row(19, "return_of_capital", 0, "4.1", "b"),
    )
    between = Waypoint(FIRST + 8, "x", D(3), "b"), Waypoint(FIRST + 12, "x", D(3))
    found = made(said(*rows, held={"b": 3, "a": 1}, money={"x": "7.1"}, waypoints=between))
    sold = only(found, "sell")
    assert (sold.day - FIRST, sold.quantity, sold.price) == (7, D("0.4"), D("10.25"))
    assert (only(found, "dividend").amount, codes(found)) == (34, [])
    assert not history_flows(found, market())[1:].any()
    unrelated = made(said(*rows[1:], held={"b": 3}, money={"x": "7.1"}))
    assert only(unrelated, "dividend").amount == D("4.1")


@pytest.mark.parametrize(
    "paid",
    [
        row(17, "return_of_capital", 0, 9), row(17, "dividend", 0, 5), row(9, "return_of_capital", 0, 5),
        row(17, "return_of_capital", 0, 5, account="y"), row(17, "return_of_capital", 0, 5, "b"),
    ],
)  # fmt: skip
def test_other_cash_after_a_split_is_income_and_the_fraction_is_told(paid: dict[str, Any]) -> None:
    data = said(row(10, "split", -95), paid, held={"a": 10}, money={"x": 20, "y": 20})
    found = made(data, market((FIRST + 10, 0.1), price=1.0))
    assert (only(found, "dividend").amount, codes(found)) == (paid["cash"], ["fractional_shares"])


def test_cash_for_a_fraction_that_comes_after_a_merger_is_of_its_sale() -> None:
    rows = row(5, "merger", -10), row(5, "merger", 4, 0, "b"), row(25, "merger", 0, 6, "b")
    between = (Waypoint(FIRST + 12, "x", D(1)), Waypoint(FIRST + 12, "x", D(4), "b"))
    found = made(said(*rows, held={"b": 4}, money={"x": 7}, waypoints=between))
    assert (only(found, "sell").price, only(found, "buy").price, codes(found)) == (D("4.6"), 10, [])
    assert {t.type for t in found.transactions} == {"opening", "sell", "buy"}
