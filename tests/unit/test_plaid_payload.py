"""Plaid's payloads are read by Plaid's rules, or refused with the path of every fault."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.brokers.fields import MOST_TOLD
from pricecache.brokers.plaid_payload import read_plaid
from pricecache.core.bars import day_number
from pricecache.core.broker.data import BrokerData, BrokerTransaction
from pricecache.core.broker.merge import merged
from pricecache.errors import Invalid

TODAY = 20777
"""2026-11-20."""
D = Decimal
USD = {"iso_currency_code": "USD", "unofficial_currency_code": None}


def account(name: str = "a", **facts: Any) -> dict[str, Any]:
    balances = {"current": 1000.0, "available": None, **USD}
    return {"account_id": name, "name": name, "type": "investment", "subtype": "ira", "balances": balances, **facts}


def security(name: str = "s", kind: str | None = "equity", **facts: Any) -> dict[str, Any]:
    return {"security_id": name, "type": kind, "ticker_symbol": "AAPL", "is_cash_equivalent": False, **USD, **facts}


CASH = security("usd", "cash", ticker_symbol="CUR:USD", is_cash_equivalent=True)
SWEEP = security("sweep", "mutual fund", ticker_symbol="SPAXX", is_cash_equivalent=True, close_price=1.0)
OPTION = security(
    "call", "derivative", ticker_symbol="AAPL261218C00250000",
    option_contract={
        "contract_type": "call", "expiration_date": "2026-12-18", "strike_price": 250.0,
        "underlying_security_ticker": "AAPL",
    },
)  # fmt: skip
BITCOIN = security("btc", "cryptocurrency", ticker_symbol="BTC")


def holding(name: str = "s", quantity: float = 10, price: float = 100, **facts: Any) -> dict[str, Any]:
    value = quantity * price
    return {
        "account_id": "a", "security_id": name, "quantity": quantity, "institution_price": price,
        "institution_value": value, "cost_basis": None, **USD, **facts,
    }  # fmt: skip


def row(name: str = "t", **facts: Any) -> dict[str, Any]:
    return {
        "investment_transaction_id": name, "account_id": "a", "security_id": "s", "date": "2026-10-01",
        "name": "a row", "quantity": 10, "amount": 1000, "price": 100, "fees": 0, "type": "buy", "subtype": "buy",
        **USD, **facts,
    }  # fmt: skip


def payload(*rows: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "accounts": [account()],
        "securities": [security(), CASH, SWEEP, OPTION, BITCOIN, security("fund", "mutual fund", ticker_symbol=None)],
        "holdings": [holding()],
        "investment_transactions": list(rows),
        **parts,
    }


def read(*rows: Mapping[str, Any], **parts: Any) -> BrokerData:
    given = payload(*rows, **parts)
    return read_plaid(given, [given], today=TODAY)


def translated(**facts: Any) -> list[BrokerTransaction]:
    return list(read(row(**facts)).transactions)


def moves(**facts: Any) -> list[tuple[str, str | None, Decimal, Decimal]]:
    """Action, security, quantity and cash of what becomes of one row."""
    return [(one.action, one.security, one.quantity, one.cash) for one in translated(**facts)]


def refused(given: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        read_plaid(given, [given], today=TODAY)
    assert caught.value.facts["total"] == len(caught.value.rows)
    return [(fault["path"], fault["code"]) for fault in caught.value.rows]


def codes(data: BrokerData) -> list[str]:
    return [remark.code for remark in data.remarks]


def test_a_purchase_brings_shares_and_takes_cash_and_a_sale_the_other_way_round() -> None:
    assert moves() == [("buy", "s", D(10), D(-1000))]
    assert moves(type="sell", subtype="sell", quantity=-10, amount=-1000) == [("sell", "s", D(-10), D(1000))]
    short = moves(type="sell", subtype="sell short", quantity=-10, amount=-1000)
    assert short == [("short", "s", D(-10), D(1000))]
    assert moves(subtype="buy to cover") == [("cover", "s", D(10), D(-1000))]


def test_fees_are_within_the_cash_whether_plaid_counts_them_in_or_not() -> None:
    for amount in (1000, 1004.95):
        (bought,) = translated(amount=amount, fees=4.95)
        assert (bought.cash, bought.fees, bought.price) == (D("-1004.95"), D("4.95"), D(100))
    for amount in (-1000, -995.05):
        (sold,) = translated(type="sell", subtype="sell", quantity=-10, amount=amount, fees=4.95)
        assert (sold.cash, sold.fees, sold.price) == (D("995.05"), D("4.95"), D(100))


def test_a_large_trade_does_not_swallow_its_fee() -> None:
    (bought,) = translated(quantity=1000, price=1000, amount=1_000_000.5, fees=0.5)
    assert (bought.cash, bought.price) == (D("-1000000.5"), D(1000))


def test_signs_of_the_wrong_kind_are_put_right_and_told() -> None:
    data = read(row(type="sell", subtype="sell", quantity=10, amount=1000))
    (sold,) = data.transactions
    assert (sold.quantity, sold.cash) == (D(-10), D(1000))
    assert codes(data) == ["sign_corrected", "sign_corrected"]


def test_a_sale_that_costs_more_than_it_brings_keeps_its_sign() -> None:
    (sold,) = translated(type="sell", subtype="sell", quantity=-10, amount=4.85, price=0.01, fees=4.95)
    assert (sold.cash, sold.price) == (D("-4.85"), D("0.01"))


@pytest.mark.parametrize(
    ("kind", "subtype", "amount", "action", "cash"),
    [
        ("cash", "dividend", -8.72, "dividend", "8.72"),
        ("fee", "qualified dividend", -8.72, "dividend", "8.72"),
        ("cash", "long-term capital gain", -8.72, "dividend", "8.72"),
        ("cash", "interest", -8.72, "interest", "8.72"),
        ("fee", "margin expense", 8.72, "fee", "-8.72"),
        ("cash", "account fee", 8.72, "fee", "-8.72"),
        ("fee", "management fee", -8.72, "fee", "8.72"),
        ("cash", "non-resident tax", 8.72, "tax", "-8.72"),
        ("cash", "return of principal", -8.72, "return_of_capital", "8.72"),
        ("cash", "deposit", -8.72, "cash", "8.72"),
        ("cash", "withdrawal", 8.72, "cash", "-8.72"),
        ("transfer", "transfer", -8.72, "transfer", "8.72"),
    ],
)
def test_rows_of_money_alone(kind: str, subtype: str, amount: float, action: str, cash: str) -> None:
    assert moves(type=kind, subtype=subtype, quantity=0, price=0, amount=amount) == [(action, "s", D(0), D(cash))]
    (bare,) = translated(type=kind, subtype=subtype, quantity=0, price=0, amount=amount, security_id=None)
    assert (bare.action, bare.security, bare.cash) == (action, None, D(cash))


def test_the_shares_that_a_dividend_was_paid_on_do_not_come_in() -> None:
    assert moves(type="cash", subtype="dividend", quantity=10, amount=-8) == [("dividend", "s", D(0), D(8))]


def test_a_contribution_that_buys_at_once_is_a_deposit_and_a_purchase() -> None:
    bought, paid = translated(subtype="contribution")
    assert (bought.action, bought.quantity, bought.cash) == ("buy", D(10), D(-1000))
    assert (paid.action, paid.security, paid.cash, paid.id) == ("cash", None, D(1000), "t/cash")


def test_a_distribution_in_shares_is_a_sale_and_a_withdrawal() -> None:
    found = moves(type="sell", subtype="distribution", quantity=-10, amount=-1000)
    assert found == [("sell", "s", D(-10), D(1000)), ("cash", None, D(0), D(-1000))]


def test_a_fee_that_is_paid_in_shares_sells_them() -> None:
    found = moves(type="fee", subtype="management fee", quantity=-0.5, price=100, amount=0)
    assert found == [("sell", "s", D("-0.5"), D(50)), ("fee", "s", D(0), D(-50))]


@pytest.mark.parametrize("subtype", ["transfer", "split", "spin off", "stock distribution", "adjustment"])
def test_shares_that_move_without_money_state_what_they_are_worth(subtype: str) -> None:
    (moved,) = translated(type="transfer", subtype=subtype, amount=-1000, price=0)
    assert (moved.quantity, moved.cash, moved.price) == (D(10), D(0), D(100))
    assert moved.action == {"spin off": "spin_off", "stock distribution": "stock_distribution"}.get(subtype, subtype)


@pytest.mark.parametrize("price", [0, None])
def test_a_trade_without_money_and_price_is_a_transfer_and_of_an_option_a_trade(price: int | None) -> None:
    (bought,) = translated(amount=0, price=price)
    assert (bought.action, bought.quantity, bought.price or None) == ("transfer", D(10), None)
    assert moves(type="sell", subtype="sell", quantity=-10, amount=0, price=price) == [("transfer", "s", D(-10), D(0))]
    (gone,) = translated(security_id="call", type="sell", subtype="sell", quantity=-1, amount=0, price=price)
    assert gone.action == "sell"


@pytest.mark.parametrize("subtype", ["return of principal", "principal"])
def test_principal_that_comes_back_for_a_quantity_is_a_sale(subtype: str) -> None:
    redeemed = {"type": "cash", "subtype": subtype, "quantity": -10, "amount": -1000, "price": 1}
    assert moves(**redeemed) == [("sell", "s", D(-10), D(1000))]
    assert moves(**redeemed | {"quantity": 0}) == [("return_of_capital", "s", D(0), D(1000))]


@pytest.mark.parametrize("subtype", ["dividend", "interest"])
def test_income_without_money_is_in_shares(subtype: str) -> None:
    (came,) = translated(type="cash", subtype=subtype, quantity=10, amount=0, price=3)
    assert (came.action, came.quantity, came.price, came.cash) == (subtype, D(10), D(3), D(0))
    assert moves(type="cash", subtype=subtype, quantity=10, amount=-5) == [(subtype, "s", D(0), D(5))]


def test_a_purchase_that_nobody_paid_for_is_a_transfer() -> None:
    assert moves(amount=0) == [("transfer", "s", D(10), D(0))]


def test_an_option_that_expires_is_assigned_or_exercised() -> None:
    option = {"security_id": "call", "amount": 0, "price": 0, "type": "transfer"}
    assert moves(**option, subtype="expire", quantity=-100) == [("expiry", "call", D(-100), D(0))]
    assert moves(**option, subtype="assignment", quantity=100) == [("exercise", "call", D(100), D(0))]
    assert moves(type="transfer", subtype="assignment", quantity=-100, amount=-25000, price=250) == [
        ("sell", "s", D(-100), D(25000))
    ]


def test_options_are_counted_in_options_whatever_they_are_quoted_in() -> None:
    data = read(
        row(security_id="call", quantity=2, price=5.2, amount=1040.65, fees=0.65),
        holdings=[holding("call", 2, 6.0, institution_value=1200.0)],
    )
    assert (data.holdings[0].quantity, data.holdings[0].price) == (D(200), D(6))
    (bought,) = data.transactions
    assert (bought.quantity, bought.price, bought.cash) == (D(200), D("5.2"), D("-1040.65"))
    option = data.securities["call"].option
    assert option is not None
    assert (option.right, option.strike, option.underlying) == ("call", D(250), "AAPL")
    assert option.expires == day_number(date(2026, 12, 18))


def counted(*rows: Mapping[str, Any], **parts: Any) -> list[tuple[D, D | None]]:
    options = [{"security_id": "call", **one} for one in rows]
    data = read(*[row(f"t{n}", **one) for n, one in enumerate(options)], **parts)
    return [(one.quantity, one.price) for one in data.transactions]


def test_rows_without_an_amount_are_counted_as_the_others_of_the_option_are() -> None:
    bought = {"quantity": 1, "price": 5, "amount": 501, "fees": 1}
    gone = {"quantity": -1, "price": 0, "amount": 0, "type": "transfer", "subtype": "expire", "date": "2026-11-02"}
    assert counted(bought, gone) == [(D(100), D(5)), (D(-100), D(0))]
    assert counted({**bought, "quantity": 100}, {**gone, "quantity": -100}) == [(D(100), D(5)), (D(-100), D(0))]
    listed = [holding("call", 2, 6.0, institution_value=1200.0)]
    assert counted(gone, holdings=listed) == [(D(-100), D(0))]


def test_a_broker_that_quotes_contracts_by_the_contract_counts_contracts_too() -> None:
    listed = [holding("call", 1, 5.0, institution_value=500.0)]
    assert counted({"quantity": 1, "price": 480, "amount": 480.65}, holdings=listed) == [(D(100), D("4.8065"))]
    assert counted({"quantity": 100, "price": 4.8, "amount": 480}, holdings=listed) == [(D(100), D("4.8"))]


def test_an_option_that_is_told_by_its_symbol_alone_is_one() -> None:
    bare = security("call", "derivative", ticker_symbol="AAPL261218C00250000", option_contract=None)
    data = read(row(security_id="call", quantity=1, price=5, amount=500), securities=[security(), bare])
    option = data.securities["call"].option
    assert option is not None
    assert (option.right, option.strike, option.underlying, option.in_one) == ("call", D(250), "AAPL", 100)
    assert (option.expires, data.transactions[0].quantity) == (day_number(date(2026, 12, 18)), D(100))


def test_bonds_in_percent_of_par_have_the_price_of_one_unit() -> None:
    bond = security("bond", "fixed income", ticker_symbol=None)
    data = read(
        row(security_id="bond", quantity=10000, price=98.5, amount=9851, fees=1),
        securities=[bond],
        holdings=[holding("bond", 10000, 99.0, institution_value=9900.0)],
    )
    assert (data.holdings[0].price, data.transactions[0].price) == (D("0.99"), D("0.985"))
    assert data.transactions[0].cash == D(-9851)


def test_cash_and_sweep_funds_are_money_of_their_account_and_no_holdings() -> None:
    data = read(holdings=[holding(), holding("usd", 120.55, 1), holding("sweep", 1000, 1)])
    assert [one.security for one in data.holdings] == ["s"]
    assert data.money == {("a", "USD"): D("1120.55")}
    assert data.securities["usd"].is_money
    assert data.securities["sweep"].is_money


def test_a_money_fund_that_is_not_worth_one_is_a_fund() -> None:
    data = read(holdings=[holding("sweep", 1000, 1.02)])
    assert (data.securities["sweep"].is_money, data.holdings[0].quantity) == (False, D(1000))


def test_money_in_another_currency_counts_in_that_currency() -> None:
    euro = security("eur", "cash", ticker_symbol="CUR:EUR", is_cash_equivalent=True)
    data = read(securities=[euro], holdings=[holding("eur", 50, 1.08)])
    assert data.money == {("a", "EUR"): D(50)}


def test_buying_a_sweep_fund_changes_nothing_and_its_income_does() -> None:
    assert moves(security_id="sweep") == []
    assert moves(security_id="sweep", type="sell", subtype="sell", quantity=-10, amount=-1000) == []
    income = {"security_id": "sweep", "type": "cash", "subtype": "dividend", "quantity": 0, "amount": -3.21}
    assert moves(**income) == [("interest", None, D(0), D("3.21"))]


def test_income_that_a_sweep_fund_reinvests_is_counted_once() -> None:
    paid = row("paid", security_id="sweep", type="cash", subtype="dividend", quantity=0, amount=-3.21)
    kept = row("kept", security_id="sweep", subtype="dividend reinvestment", quantity=3.21, amount=3.21, price=1)
    assert [one.cash for one in read(kept).transactions] == [D("3.21")]
    assert [one.cash for one in read(paid, kept).transactions] == [D("3.21")]


def test_money_in_and_out_of_the_cash_security_is_a_deposit_and_a_withdrawal() -> None:
    cash = {"security_id": "usd", "price": 1}
    assert moves(**cash, subtype="contribution", quantity=50, amount=50) == [("cash", None, D(0), D(50))]
    out = {"type": "sell", "subtype": "distribution", "quantity": -50, "amount": -50}
    assert moves(**cash, **out) == [("cash", None, D(0), D(-50))]
    into = {"type": "cash", "subtype": "deposit", "quantity": -50, "amount": -50}
    assert moves(**cash, **into) == [("cash", None, D(0), D(50))]


def test_buying_another_currency_moves_both() -> None:
    euro = security("eur", "cash", ticker_symbol="CUR:EUR")
    given = payload(row(security_id="eur", quantity=100, amount=108, price=1.08), securities=[euro], holdings=[])
    found = read_plaid(given, [given], today=TODAY).transactions
    assert [(one.action, one.currency, one.cash) for one in found] == [
        ("transfer", "USD", D(-108)),
        ("transfer", "EUR", D(100)),
    ]


def test_a_coin_that_is_priced_in_itself_has_no_price() -> None:
    own = {"iso_currency_code": None, "unofficial_currency_code": "DOGE"}
    coin = security("doge", "cryptocurrency", ticker_symbol="CUR:DOGE", **own)
    data = read(
        row(security_id="doge", quantity=5, amount=5, price=1, **own),
        securities=[coin],
        holdings=[holding("doge", 100, 1, **own)],
    )
    (held,) = data.holdings
    assert (held.quantity, held.price, held.currency) == (D(100), None, "USD")
    assert (data.securities["doge"].ticker, data.securities["doge"].currency) == ("DOGE", "USD")
    assert [(one.action, one.quantity, one.cash) for one in data.transactions] == [("transfer", D(5), D(0))]


def test_pence_become_pounds() -> None:
    pence = {"iso_currency_code": None, "unofficial_currency_code": "GBX"}
    data = read(
        row(security_id="s", amount=150000, price=15000, **pence),
        securities=[security(**pence)],
        holdings=[holding("s", 10, 15000, **pence)],
    )
    assert (data.holdings[0].price, data.holdings[0].currency) == (D(150), "GBP")
    assert (data.transactions[0].cash, data.transactions[0].currency) == (D(-1500), "GBP")
    assert data.securities["s"].currency == "GBP"


def test_a_fund_without_a_ticker_has_the_brokers_price() -> None:
    data = read(
        holdings=[holding("fund", 12.5, 20.123, institution_value=251.54, institution_price_as_of="2026-11-19")]
    )
    (held,) = data.holdings
    assert (held.price, held.price_day, data.securities["fund"].ticker) == (D("20.123"), TODAY - 1, None)


def test_holdings_of_one_security_in_parts_are_added_up_and_told() -> None:
    data = read(holdings=[holding(quantity=4, cost_basis=300), holding(quantity=6, price=101, cost_basis=500)])
    (held,) = data.holdings
    assert (held.quantity, held.cost_basis, held.price) == (D(10), D(800), D("100.6"))
    assert codes(data) == ["holding_in_parts"]


def test_a_cancelled_row_goes_with_the_row_that_cancels_it() -> None:
    named = row("c", type="cancel", subtype=None, cancel_transaction_id="t", quantity=0, amount=0)
    opposite = row("c", type="cancel", subtype=None, quantity=-10, amount=-1000, date="2026-10-02")
    alike = row("c", type="cancel", subtype=None, date="2026-10-02")
    for cancel in (named, opposite, alike):
        data = read(row(), row("other", quantity=11), cancel)
        assert [one.id for one in data.transactions] == ["other"]
        assert codes(data) == ["cancelled_row"]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"fees": 5},
        {"type": "sell", "subtype": "sell", "quantity": -10, "amount": -995, "fees": 5},
        {"type": "sell", "subtype": "sell", "quantity": 10, "amount": -1000},
        {"type": "cash", "subtype": "dividend", "quantity": 0, "amount": -12, "price": 0},
        {"type": "cash", "subtype": "dividend", "quantity": 3, "amount": -12, "price": 0},
        {"type": "transfer", "subtype": "transfer", "amount": 1000},
        {"type": "transfer", "subtype": "split", "amount": 0, "price": 0},
        {"type": "buy", "subtype": "contribution"},
        {"type": "cash", "subtype": "deposit", "security_id": None, "quantity": 0, "amount": -50, "price": 0},
        {"type": "cash", "subtype": "interest", "security_id": "sweep", "quantity": 0, "amount": -2, "price": 0},
        {"type": "buy", "subtype": "interest reinvestment", "security_id": "sweep", "amount": 2, "quantity": 2},
        {"security_id": "call", "quantity": 2, "price": 3, "amount": 600},
    ],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_row_of_an_earlier_answer_is_cancelled_by_a_later_one(facts: dict[str, Any], sign: int) -> None:
    told = row(**facts)
    amounts = {name: sign * told[name] for name in ("quantity", "amount")}
    cancel = {**told, "investment_transaction_id": "c", "type": "cancel", "subtype": None, "date": "2026-11-02"}
    named = {**cancel, "quantity": 0, "amount": 0, "cancel_transaction_id": "t"}
    earlier, later = payload(told, row("other", quantity=11)), payload(row("now", date="2026-11-03"))
    before = read_plaid(earlier, [earlier], today=TODAY - 10)
    assert len(before.transactions) >= 2
    for one in ({**cancel, **amounts}, named):
        page = {**later, "investment_transactions": [*later["investment_transactions"], one]}
        after = read_plaid(page, [page], today=TODAY)
        assert codes(after) == ["nothing_cancelled"]
        joined = merged(before, after)
        assert [one.id for one in joined.transactions] == ["other", "now"]
        assert "cancelled_row" in codes(joined)
        assert merged(after, before) == joined


def test_of_two_equal_rows_one_is_cancelled() -> None:
    cancel = row("c", type="cancel", subtype=None, quantity=-10, amount=-1000)
    assert [one.id for one in read(row("1"), row("2"), cancel).transactions] == ["1"]


def test_a_cancel_of_nothing_here_is_told() -> None:
    data = read(row(), row("c", type="cancel", subtype=None, cancel_transaction_id="gone"))
    assert ([one.id for one in data.transactions], codes(data)) == (["t"], ["nothing_cancelled"])


def test_a_merger_without_an_amount_is_worth_what_its_price_makes() -> None:
    (came,) = read(row(type="transfer", subtype="merger", quantity=4, amount=0, price=25)).transactions
    assert (came.action, came.quantity, came.cash, came.price) == ("merger", D(4), D(0), D(25))
    assert not read(row(type="transfer", subtype="merger", quantity=4, amount=0, price=0)).transactions[0].price


def test_a_pending_row_does_not_count_yet() -> None:
    data = read(row(type="cash", subtype="pending credit", quantity=0, amount=-50))
    assert (data.transactions, codes(data)) == ((), ["pending_row"])


def test_a_subtype_of_the_future_is_taken_as_its_type_and_told() -> None:
    data = read(row(subtype="quantum purchase"))
    assert (data.transactions[0].action, codes(data)) == ("buy", ["unknown_subtype"])


def test_pages_that_overlap_count_once() -> None:
    pages = [payload(row("1"), row("2"), holdings=[]), payload(row("2"), row("3"), holdings=[])]
    data = read_plaid(payload(), pages, today=TODAY)
    assert [one.id for one in data.transactions] == ["1", "2", "3"]
    assert [one.place for one in data.transactions] == [0, 1, 2]


def test_securities_that_only_a_page_knows_are_known() -> None:
    page = {
        "accounts": [account()],
        "securities": [security("sold")],
        "investment_transactions": [row(security_id="sold")],
    }
    data = read_plaid(payload(), [page], today=TODAY, first_day=TODAY - 730)
    assert data.transactions[0].security == "sold"
    assert data.first_day == TODAY - 730


def test_the_first_day_is_that_of_the_first_row_unless_told() -> None:
    assert read(row(date="2026-01-05")).first_day == day_number(date(2026, 1, 5))
    assert read(row(), start_date="2024-11-20").first_day == day_number(date(2024, 11, 20))
    assert read().first_day == TODAY


def test_a_row_of_tomorrow_counts_as_todays_and_one_of_later_is_refused() -> None:
    assert translated(date="2026-11-21")[0].day == TODAY
    assert refused(payload(row(date="2026-11-22"))) == [("investment_transactions[0].date", "date_in_the_future")]


@pytest.mark.parametrize(
    ("part", "field", "value", "code"),
    [
        ("investment_transactions", "quantity", None, "missing"),
        ("investment_transactions", "quantity", "ten", "invalid_value"),
        ("investment_transactions", "quantity", True, "invalid_value"),
        ("investment_transactions", "quantity", [1], "invalid_value"),
        ("investment_transactions", "amount", math.nan, "not_finite"),
        ("investment_transactions", "price", math.inf, "not_finite"),
        ("investment_transactions", "amount", 1e300, "out_of_range"),
        ("investment_transactions", "amount", 10**400, "out_of_range"),
        ("investment_transactions", "date", "2026-02-30", "bad_date"),
        ("investment_transactions", "date", 20260101, "bad_date"),
        ("investment_transactions", "date", "2026-10-01T00:00:00Z", "bad_date"),
        ("investment_transactions", "date", "1066-10-14", "date_too_early"),
        ("investment_transactions", "date", "1901-01-01", "date_too_old"),
        ("investment_transactions", "date", "1976-11-19", "date_too_old"),
        ("investment_transactions", "date", "2999-01-01", "date_in_the_future"),
        ("investment_transactions", "account_id", "nobody", "unknown_account"),
        ("investment_transactions", "security_id", "nothing", "unknown_security"),
        ("investment_transactions", "iso_currency_code", "QQQ", "bad_currency"),
        ("investment_transactions", "iso_currency_code", 5, "bad_currency"),
        ("investment_transactions", "type", "gift", "unknown_type"),
        ("investment_transactions", "type", {}, "invalid_value"),
        ("investment_transactions", "investment_transaction_id", "", "invalid_value"),
        ("investment_transactions", "investment_transaction_id", "a\u0000b", "invalid_value"),
        ("investment_transactions", "investment_transaction_id", "\ud800", "invalid_value"),
        ("investment_transactions", "investment_transaction_id", None, "missing"),
        ("holdings", "quantity", None, "missing"),
        ("holdings", "quantity", -math.inf, "not_finite"),
        ("holdings", "account_id", "nobody", "unknown_account"),
        ("holdings", "security_id", "nothing", "unknown_security"),
        ("holdings", "iso_currency_code", "QQQ", "bad_currency"),
        ("holdings", "institution_price_as_of", "2030-01-01", "date_in_the_future"),
        ("accounts", "account_id", 7, "invalid_value"),
        ("securities", "security_id", None, "missing"),
        ("securities", "is_cash_equivalent", "yes", "invalid_value"),
        ("securities", "option_contract", "call", "invalid_value"),
    ],
)
def test_a_fault_is_told_with_its_path(part: str, field: str, value: Any, code: str) -> None:
    given = copy.deepcopy(payload(row()))
    given[part][0][field] = value
    assert (f"{part}[0].{field}", code) in refused(given)


def test_every_fault_is_told_not_only_the_first() -> None:
    given = payload(row("1", quantity="x", amount=None), row("2"), "no row", row("3", account_id="b", date="?"))
    assert refused(given) == [
        ("investment_transactions[0].quantity", "invalid_value"),
        ("investment_transactions[0].amount", "missing"),
        ("investment_transactions[2]", "invalid_value"),
        ("investment_transactions[3].date", "bad_date"),
        ("investment_transactions[3].account_id", "unknown_account"),
    ]


def test_faults_of_a_second_page_name_the_page() -> None:
    with pytest.raises(Invalid) as caught:
        read_plaid(payload(), [payload(row("1")), payload(row("2", amount="?"))], today=TODAY)
    assert caught.value.rows[0]["path"] == "transactions[1].investment_transactions[0].amount"
    assert caught.value.code == "invalid_value"


def test_faults_beyond_a_thousand_are_counted_only() -> None:
    given = payload(*(row(str(number), amount=None) for number in range(MOST_TOLD + 500)))
    with pytest.raises(Invalid) as caught:
        read_plaid(given, [given], today=TODAY)
    assert (caught.value.code, len(caught.value.rows)) == ("broker_data_refused", MOST_TOLD)
    assert caught.value.facts["total"] == MOST_TOLD + 500


@pytest.mark.parametrize("part", ["accounts", "holdings", "securities", "investment_transactions"])
@pytest.mark.parametrize("value", ["text", 5, {"a": 1}, True])
def test_a_list_that_is_none_is_the_one_fault(part: str, value: Any) -> None:
    assert refused({**payload(row()), part: value}) == [(part, "invalid_value")]


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("accounts", "missing"),
        ("holdings", "missing"),
        ("securities", "invalid_value"),
        ("investment_transactions", "missing"),
    ],
)
def test_a_list_that_is_null_is_the_one_fault(part: str, code: str) -> None:
    assert refused({**payload(row()), part: None}) == [(part, code)]


def test_rows_of_what_was_refused_are_no_further_faults() -> None:
    given = payload(row("1"), row("2", account_id="b"), accounts=[account(balances=5)])
    assert refused(given) == [
        ("accounts[0].balances", "invalid_value"),
        ("investment_transactions[1].account_id", "unknown_account"),
    ]
    given = payload(row("1"), row("2", security_id="t"), securities=[security(close_price="?"), "no security"])
    assert refused(given) == [("securities[1]", "invalid_value"), ("securities[0].close_price", "invalid_value")]


@pytest.mark.parametrize("part", ["accounts", "holdings", "investment_transactions"])
def test_a_payload_without_its_main_lists_is_refused(part: str) -> None:
    given = payload()
    del given[part]
    assert refused(given) == [(part, "missing")]


def test_a_row_may_be_fifty_years_old() -> None:
    assert read(row(date="1976-11-20")).first_day == day_number(date(1976, 11, 20))
    assert refused(payload(row(), start_date="1970-01-01")) == [("start_date", "date_too_old")]


def test_an_id_with_two_meanings_is_refused() -> None:
    assert refused(payload(row(), row(amount=5))) == [
        ("investment_transactions[1].investment_transaction_id", "duplicate_id")
    ]


@pytest.mark.parametrize(
    ("part", "field", "change"),
    [("accounts", "account_id", {"name": "Other"}), ("securities", "security_id", {"ticker_symbol": "MSFT"})],
)
def test_an_id_that_is_listed_twice_with_two_meanings_is_refused(part: str, field: str, change: dict[str, str]) -> None:
    given = payload()
    given[part] = [*given[part], {**given[part][0], **change}]
    number = len(given[part]) - 1
    assert refused(given) == [(f"{part}[{number}].{field}", "duplicate_id")]
    given[part][-1] = given[part][0]
    assert read_plaid(given, [given], today=TODAY).accounts.keys() == {"a"}


def test_pages_may_describe_an_account_or_a_security_otherwise() -> None:
    given = payload()
    page = {**given, "accounts": [{**account(), "name": "Other"}], "securities": [security(close_price=3)]}
    assert read_plaid(given, [page], today=TODAY).accounts.keys() == {"a"}


def test_a_price_below_nothing_is_put_right_and_told() -> None:
    data = read(row(price=-100), holdings=[holding(price=-100, institution_value=1000)])
    assert (data.transactions[0].price, data.holdings[0].price) == (D(100), D(100))
    told = [one.path for one in data.remarks if one.code == "sign_corrected"]
    assert told == ["holdings[0].institution_price", "investment_transactions[0].price"]


@pytest.mark.parametrize(("name", "fits"), [("s", True), ("call", True), ("fund", False), ("btc", False)])
def test_only_what_can_be_sold_short_may_be_held_below_nothing(name: str, fits: bool) -> None:
    given = payload(holdings=[holding(name, -5)])
    if fits:
        assert read_plaid(given, [given], today=TODAY).holdings[0].quantity == D(-5)
    else:
        assert refused(given) == [("holdings[0].quantity", "negative_holding")]


def test_less_than_nothing_is_told_with_all_that_is_wrong_elsewhere() -> None:
    given = payload(row(date="2099-01-01"), holdings=[holding(security_id="fund", quantity=-5)])
    assert sorted(refused(given)) == [
        ("holdings[0].quantity", "negative_holding"), ("investment_transactions[0].date", "date_in_the_future")
    ]  # fmt: skip


def test_owed_money_is_money_below_nothing() -> None:
    assert read(holdings=[holding("usd", -250.5, 1)]).money == {("a", "USD"): D("-250.5")}


def test_too_many_rows_are_refused_without_being_read() -> None:
    given = payload()
    given["investment_transactions"] = [{}] * 200_001
    assert refused(given) == [("investment_transactions", "too_many")]


def test_dates_as_the_plaid_library_gives_them_are_taken() -> None:
    assert translated(date=date(2026, 10, 1))[0].day == day_number(date(2026, 10, 1))


def test_accounts_that_hold_no_investments_are_left_out() -> None:
    given = payload(accounts=[account(), account("checking", type="depository", subtype="checking")])
    assert list(read_plaid(given, [given], today=TODAY).accounts) == ["a"]


def test_floats_are_taken_as_they_are_written_and_rounded_at_the_twelfth_digit() -> None:
    assert translated(quantity=0.1 + 0.2, amount=30, price=100)[0].quantity == D("0.3")


def test_cash_that_is_in_the_balances_only_is_found_there() -> None:
    balances = {"current": 1250.75, "available": 250.75, **USD}
    data = read(accounts=[account(balances=balances)])
    assert (data.money, codes(data)) == ({("a", "USD"): D("250.75")}, ["cash_from_balance"])
    other = read(accounts=[account(balances={**balances, "available": 100})])
    assert (other.money, codes(other)) == ({}, [])


def test_balances_that_say_that_there_is_no_cash_count_where_money_is_told_of() -> None:
    """A pension plan whose contributions are purchases tells of none."""
    broker = account(balances={"current": 1000.0, "available": 0, **USD})
    deposit = row("d", type="cash", subtype="deposit", quantity=0, amount=-1000, price=0, security_id="usd")
    assert read(row(), deposit, accounts=[broker]).money == {("a", "USD"): 0}
    assert read(row(), accounts=[broker]).money == {}


def test_a_margin_loan_that_no_holding_shows_is_owed() -> None:
    balances = {"current": 700.0, "available": 0, "margin_loan_amount": 300.0, **USD}
    data = read(accounts=[account(balances=balances)])
    assert (data.money, codes(data)) == ({("a", "USD"): D(-300)}, ["cash_from_balance"])
    shown = read(accounts=[account(balances=balances)], holdings=[holding(), holding("usd", -300, 1)])
    assert (shown.money, codes(shown)) == ({("a", "USD"): D(-300)}, [])


def test_a_page_without_the_others_is_refused() -> None:
    given = payload(row("1"), total_investment_transactions=3)
    assert refused(given) == [("investment_transactions", "pages_missing")]
    pages = [given, payload(row("2"), row("3"), total_investment_transactions=3)]
    assert len(read_plaid(payload(), pages, today=TODAY).transactions) == 3


def test_rows_of_one_day_are_turned_round_when_the_newest_comes_first() -> None:
    newest_first = row("3", date="2026-10-02"), row("2"), row("1")
    assert [one.id for one in read(*newest_first).transactions] == ["1", "2", "3"]
    assert [one.id for one in read(*reversed(newest_first)).transactions] == ["1", "2", "3"]


NAUGHTY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.data())
def test_whatever_is_sent_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    given = copy.deepcopy(payload(row(), holdings=[holding(), holding("usd", 5, 1), holding("call", 100, 1)]))
    for _ in range(data.draw(st.integers(1, 4))):
        part = data.draw(st.sampled_from(sorted(given)))
        if not isinstance(given[part], list) or not given[part] or data.draw(st.integers(0, 9)) == 0:
            given[part] = data.draw(NAUGHTY)
            continue
        one = data.draw(st.sampled_from(given[part]))
        if isinstance(one, dict) and one:
            one[data.draw(st.sampled_from(sorted(one)))] = data.draw(NAUGHTY)
    try:
        read_plaid(given, [given], today=TODAY)
    except Invalid as exc:
        faults = exc.rows
    else:
        return
    assert faults
    assert all(fault["path"] and fault["code"] and fault["detail"] for fault in faults)


@settings(max_examples=100)
@given(st.integers(0, 1 << 32))
def test_the_cash_of_all_rows_is_what_plaid_debited_the_other_way_round(seed: int) -> None:
    chance = random.Random(seed)
    rows, total = [], Decimal(0)
    for number in range(20):
        sign = chance.choice((1, -1))
        quantity, price = chance.randint(1, 500), chance.randint(100, 50_000) / 100
        amount = round(quantity * price, 2) * sign
        kind = "buy" if sign > 0 else "sell"
        when = date(2026, 11, 1) - timedelta(days=chance.randint(0, 600))
        rows.append(
            row(
                str(number), quantity=quantity * sign, price=price, amount=amount, type=kind, subtype=kind,
                date=when.isoformat(),
            )
        )  # fmt: skip
        total -= Decimal(repr(amount))
    found = read(*rows).transactions
    assert sum(one.cash for one in found) == total
    assert all(one.price is not None and abs(one.quantity * one.price + one.cash) <= D("0.005") for one in found)
    assert [one.day for one in found] == sorted(one.day for one in found)
    assert {one.id for one in found} == {sent["investment_transaction_id"] for sent in rows}
