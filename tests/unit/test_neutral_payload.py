"""The neutral format is read as it is documented, or refused with the path of every fault."""

from __future__ import annotations

import copy
import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.brokers.neutral import read_neutral
from pricecache.brokers.neutral_rows import KINDS
from pricecache.core.bars import day_number
from pricecache.core.broker.data import BrokerData, BrokerTransaction, Waypoint
from pricecache.core.broker.merge import merged
from pricecache.errors import Invalid
from tests.unit.test_plaid_payload import NAUGHTY

TODAY = 20777
"""2026-11-20."""
D = Decimal


def row(name: str = "t", **facts: Any) -> dict[str, Any]:
    return {"id": name, "accountId": "a", "date": "2026-10-01", **facts}


BUY = {"type": "buy", "securityId": "s", "quantity": 10, "price": 100}


def payload(*rows: Any, **parts: Any) -> dict[str, Any]:
    return {
        "source": "My Broker",
        "asOf": "2026-11-20",
        "accounts": [{"id": "a", "name": "Own", "kind": "ira", "cash": [{"currency": "USD", "amount": "12.50"}]}],
        "securities": [
            {"id": "s", "symbol": "AAPL", "exchange": "XNAS", "type": "equity", "name": "Apple"},
            {"id": "f", "type": "mutual_fund", "name": "A fund"},
            {"id": "m", "type": "cash", "name": "Sweep"},
            {
                "id": "o", "type": "derivative",
                "option": {"right": "put", "expires": "2027-01-15", "strike": "200", "underlying": "AAPL"},
            },
        ],
        "holdings": [{"accountId": "a", "securityId": "s", "quantity": "10", "price": 101}],
        "transactions": list(rows),
        **parts,
    }  # fmt: skip


def read(*rows: Any, **parts: Any) -> BrokerData:
    return read_neutral(payload(*rows, **parts), today=TODAY, scope="here")


def one(**facts: Any) -> BrokerTransaction:
    (found,) = read(row(**facts)).transactions
    return found


def refused(given: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        read_neutral(given, today=TODAY)
    return [(fault["path"], fault["code"]) for fault in caught.value.rows]


def test_accounts_securities_holdings_and_money() -> None:
    shares = {"accountId": "a", "securityId": "s", "quantity": "10", "value": "1010", "costBasis": 900}
    sweep = {"accountId": "a", "securityId": "m", "quantity": 100}
    data = read(row(**BUY), holdings=[{**shares, "priceDate": "2026-11-19"}, sweep])
    assert (data.day, data.first_day) == (TODAY, day_number(date(2026, 10, 1)))
    assert (data.accounts["a"].institution, data.accounts["a"].kind) == ("My Broker", "ira")
    assert data.money == {("a", "USD"): D("112.50")}
    (held,) = data.holdings
    assert (held.quantity, held.price, held.price_day, held.cost_basis) == (D(10), D(101), TODAY - 1, D(900))
    assert (data.securities["s"].exchange, data.securities["s"].scope) == ("XNAS", "here")
    option = data.securities["o"].option
    assert option is not None
    assert (option.right, option.strike) == ("put", D(200))


@pytest.mark.parametrize(
    ("kind", "action", "quantity", "cash"),
    [
        ("buy", "buy", 10, -1000),
        ("sell", "sell", -10, 1000),
        ("short", "short", -10, 1000),
        ("cover", "cover", 10, -1000),
        ("reinvestment", "reinvestment", 10, -1000),
        ("transfer_in", "transfer", 10, 0),
        ("transfer_out", "transfer", -10, 0),
        ("stock_distribution", "stock_distribution", 10, 0),
        ("spin_off", "spin_off", 10, 0),
        ("expiry", "expiry", 10, 0),
        ("merger", "merger", 10, -1000),
        ("adjustment", "adjustment", 10, 0),
    ],
)
def test_the_type_says_which_way_shares_and_cash_go(kind: str, action: str, quantity: int, cash: int) -> None:
    found = one(**{**BUY, "type": kind})
    assert (found.action, found.quantity, found.cash, found.price) == (action, D(quantity), D(cash), D(100))


@pytest.mark.parametrize(
    ("kind", "action", "cash"),
    [
        ("dividend", "dividend", 5),
        ("interest", "interest", 5),
        ("return_of_capital", "return_of_capital", 5),
        ("fee", "fee", -5),
        ("tax", "tax", -5),
        ("deposit", "cash", 5),
        ("withdrawal", "cash", -5),
        ("transfer_in", "transfer", 5),
        ("transfer_out", "transfer", -5),
    ],
)
def test_the_type_says_which_way_money_goes(kind: str, action: str, cash: int) -> None:
    found = one(type=kind, amount="5")
    assert (found.action, found.quantity, found.cash) == (action, D(0), D(cash))
    assert one(type=kind, amount=-5).cash == D(-cash)


@pytest.mark.parametrize("kind", ["dividend", "interest"])
def test_income_of_no_money_is_in_shares(kind: str) -> None:
    came = one(type=kind, securityId="s", quantity=2, amount=0, price=5)
    assert (came.quantity, came.cash, came.price) == (2, 0, 5)
    assert one(type=kind, securityId="s", quantity=2, amount=1).quantity == 0


def test_fees_and_taxes_are_within_the_cash() -> None:
    bought = one(**BUY, fees=4, taxes=1)
    assert (bought.cash, bought.fees, bought.taxes, bought.price) == (D(-1005), D(4), D(1), D(100))
    sold = one(**{**BUY, "type": "sell"}, fees=4, taxes=1)
    assert (sold.cash, sold.price) == (D(995), D(100))


def test_an_amount_is_all_the_cash_and_the_price_is_made_to_fit() -> None:
    bought = one(type="buy", securityId="s", quantity=4, amount="402", fees=2)
    assert (bought.cash, bought.price) == (D(-402), D(100))


def test_a_split_has_a_ratio_or_what_came_of_it() -> None:
    assert one(type="split", securityId="s", ratio=4).ratio == D(4)
    assert one(type="split", securityId="s", quantity=30).quantity == D(30)
    assert refused(payload(row(type="split", securityId="s"))) == [("transactions[0].ratio", "missing")]


def test_what_takes_a_row_back_takes_its_place_or_leaves_none() -> None:
    corrected = read(row("1", **BUY), row("2", **{**BUY, "quantity": 9}, cancels="1"))
    assert [found.id for found in corrected.transactions] == ["2"]
    cancelled = read(row("1", **BUY), row("2", type="cancel", cancels="1"))
    assert cancelled.transactions == ()
    assert [remark.code for remark in cancelled.remarks] == ["cancelled_row"]
    assert refused(payload(row(type="cancel"))) == [("transactions[0].cancels", "missing")]


@pytest.mark.parametrize("later", [{**BUY, "quantity": 9}, {"type": "cancel"}])
def test_what_takes_a_row_of_an_earlier_payload_back_is_applied_to_it(later: dict[str, Any]) -> None:
    earlier = read(row("1", **BUY, date="2026-09-01"), asOf="2026-10-20")
    after = read(row("2", **later, cancels="1", date="2026-11-02"))
    assert [remark.code for remark in after.remarks] == ["nothing_cancelled"]
    joined = merged(earlier, after)
    assert [found.id for found in joined.transactions] == ([] if later["type"] == "cancel" else ["2"])
    assert [remark.code for remark in joined.remarks] == ["cancelled_row"]
    assert merged(after, earlier) == joined


def test_a_row_that_is_there_twice_counts_once_and_with_another_meaning_is_refused() -> None:
    assert len(read(row(**BUY), row(**BUY)).transactions) == 1
    twice = payload(row(**BUY), row(**{**BUY, "price": 99}))
    assert refused(twice) == [("transactions[1].id", "duplicate_id")]


def test_an_empty_list_of_cash_says_that_there_is_none() -> None:
    def money(**cash: Any) -> Any:
        return read_neutral(
            {"asOf": "2026-11-20", "accounts": [{"id": "a", "currency": "EUR", **cash}]}, today=TODAY
        ).money

    assert (money(cash=[]), money()) == ({("a", "EUR"): 0}, {})


def test_earlier_balances_are_waypoints_in_order() -> None:
    data = read(balances=[
        {"date": "2026-06-30", "accountId": "a", "currency": "USD", "quantity": 50},
        {"date": "2026-03-31", "accountId": "a", "securityId": "s", "quantity": 8, "price": 90},
    ])  # fmt: skip
    assert data.waypoints == (
        Waypoint(day_number(date(2026, 3, 31)), "a", D(8), "s", "USD", D(90)),
        Waypoint(day_number(date(2026, 6, 30)), "a", D(50)),
    )


def test_rows_reach_back_to_where_the_broker_says() -> None:
    assert read(transactionsFrom="2025-01-01").first_day == day_number(date(2025, 1, 1))
    assert read().first_day == TODAY


def test_options_in_contracts_are_counted_in_options_wherever_they_are_named() -> None:
    held = {"accountId": "a", "securityId": "o", "quantity": 1, "price": 5, "value": 500}
    bought = {"type": "buy", "securityId": "o", "quantity": 2, "price": 4}
    gone = {"type": "expiry", "securityId": "o", "quantity": -1, "date": "2026-11-02"}
    then = {"date": "2026-10-30", "accountId": "a", "securityId": "o", "quantity": 2, "price": 4}
    data = read(row(**bought, fees=1), row("u", **gone), holdings=[held], balances=[then])
    assert [(one.quantity, one.price, one.cash) for one in data.transactions] == [(200, 4, -801), (-100, None, 0)]
    assert (data.holdings[0].quantity, data.waypoints[0].quantity, data.waypoints[0].price) == (100, 200, 4)
    told = data.securities["o"].option
    assert told is not None
    assert told.in_one == 100
    assert one(**bought).quantity == 2


def test_pence_become_pounds() -> None:
    found = one(**{**BUY, "price": 250}, currency="GBp", fees=100)
    assert (found.currency, found.price, found.cash, found.fees) == ("GBP", D("2.5"), D(-26), D(1))


def test_what_names_no_currency_is_in_that_of_its_security_pence_as_well() -> None:
    pence = [{"id": "s", "type": "equity", "currency": "GBp"}, {"id": "m", "type": "cash", "currency": "GBX"}]
    held = [
        {"accountId": "a", "securityId": "s", "quantity": 100, "price": 200, "costBasis": 20000},
        {"accountId": "a", "securityId": "m", "quantity": 500},
    ]
    then = [{"date": "2026-10-30", "accountId": "a", "securityId": "s", "quantity": 100, "price": 210}]
    paid = row("u", type="dividend", securityId="s", amount=400)
    data = read(row(**{**BUY, "price": 200}, fees=50), paid, securities=pence, holdings=held, balances=then)
    (holding,), (bought, dividend), (point,) = data.holdings, data.transactions, data.waypoints
    assert data.securities["s"].currency == "GBP"
    assert (holding.price, holding.cost_basis, holding.currency) == (2, 200, "GBP")
    assert (bought.price, bought.cash, bought.fees, bought.currency) == (2, D("-20.5"), D("0.5"), "GBP")
    assert (dividend.cash, dividend.currency) == (4, "GBP")
    assert (point.price, point.currency) == (D("2.1"), "GBP")
    assert data.money["a", "GBP"] == 5
    told = read(row(**{**BUY, "price": 2}, currency="GBP"), securities=pence, holdings=[])
    assert told.transactions[0].price == 2


def test_a_security_without_a_currency_has_that_of_its_prices() -> None:
    fund = [{"id": "s", "type": "mutual_fund"}]
    held = {"accountId": "a", "securityId": "s", "quantity": 10, "price": 55}
    bought = row(**{**BUY, "currency": "CHF"})
    euros = read(bought, row("u", **BUY), securities=fund, holdings=[{**held, "currency": "EUR"}])
    assert euros.securities["s"].currency == "EUR"
    assert [one.currency for one in euros.transactions] == ["CHF", "EUR"]
    francs = read(bought, securities=fund, holdings=[held])
    assert (francs.securities["s"].currency, francs.holdings[0].currency) == ("CHF", "CHF")
    assert read(row(**BUY), securities=fund, holdings=[held]).securities["s"].currency == "USD"
    named = read(bought, securities=[{**fund[0], "currency": "USD"}], holdings=[{**held, "currency": "EUR"}])
    assert named.securities["s"].currency == "USD"


@pytest.mark.parametrize(
    ("facts", "path", "code"),
    [
        ({**BUY, "quantity": -10}, "quantity", "quantity_not_positive"),
        ({**BUY, "quantity": 0}, "quantity", "missing"),
        ({**BUY, "price": -1}, "price", "price_negative"),
        ({**BUY, "price": math.nan}, "price", "not_finite"),
        ({**BUY, "price": "1,5"}, "price", "invalid_value"),
        ({**BUY, "securityId": None}, "securityId", "missing"),
        ({**BUY, "securityId": "?"}, "securityId", "unknown_security"),
        ({**BUY, "accountId": "?"}, "accountId", "unknown_account"),
        ({**BUY, "currency": "XYZ"}, "currency", "bad_currency"),
        ({**BUY, "date": "2026-11-21"}, "date", "date_in_the_future"),
        ({**BUY, "date": "1899-12-31"}, "date", "date_too_early"),
        ({**BUY, "date": "1976-11-19"}, "date", "date_too_old"),
        ({**BUY, "colour": "red"}, "colour", "unknown_field"),
        ({**BUY, "type": "gift"}, "type", "unknown_type"),
        ({"type": "dividend"}, "amount", "missing"),
        ({"type": "transfer_in"}, "amount", "missing"),
        ({"type": "split", "securityId": "s", "ratio": 0}, "ratio", "ratio_not_positive"),
        ({"type": "deposit", "amount": 5, "quantity": 5}, "securityId", "missing"),
    ],
)
def test_a_fault_of_a_row_is_told_with_its_path(facts: dict[str, Any], path: str, code: str) -> None:
    assert (f"transactions[0].{path}", code) in refused(payload(row(**facts)))


@pytest.mark.parametrize(
    ("parts", "path", "code"),
    [
        ({"asOf": None}, "asOf", "missing"),
        ({"asOf": "2027-01-01"}, "asOf", "date_in_the_future"),
        ({"accounts": None}, "accounts", "missing"),
        ({"accounts": [{"id": "a"}, {"id": "a"}]}, "accounts[1].id", "duplicate_id"),
        ({"accounts": [{"id": "a", "cash": [{"amount": 5}]}]}, "accounts[0].cash[0].currency", "missing"),
        ({"accounts": [{"id": "a", "cash": [{"currency": "USD"}]}]}, "accounts[0].cash[0].amount", "missing"),
        ({"securities": [{"id": "s", "type": "art"}]}, "securities[0].type", "unknown_type"),
        (
            {"holdings": [{"accountId": "a", "securityId": "f", "quantity": -1}]},
            "holdings[0].quantity",
            "negative_holding",
        ),
        ({"holdings": "none"}, "holdings", "invalid_value"),
        ({"balances": [{"date": "2026-01-01", "accountId": "a", "quantity": 1}]}, "balances[0].currency", "missing"),
        ({"extra": 1}, "extra", "unknown_field"),
        ({"asOf": "1901-01-01"}, "asOf", "date_too_old"),
        ({"transactionsFrom": "1901-01-01"}, "transactionsFrom", "date_too_old"),
        (
            {"balances": [{"date": "1901-01-01", "accountId": "a", "securityId": "s", "quantity": 1}]},
            "balances[0].date",
            "date_too_old",
        ),
    ],
)  # fmt: skip
def test_a_fault_of_the_rest_is_told_with_its_path(parts: dict[str, Any], path: str, code: str) -> None:
    assert (path, code) in refused(payload(**parts))


@pytest.mark.parametrize(
    ("part", "value", "code"),
    [
        ("accounts", None, "missing"),
        *((part, None, "invalid_value") for part in ("securities", "holdings", "transactions", "balances")),
        *((part, 5, "invalid_value") for part in ("accounts", "securities", "holdings", "transactions", "balances")),
    ],
)
def test_a_list_that_is_none_is_the_one_fault(part: str, value: Any, code: str) -> None:
    assert refused(payload(row(**BUY), **{part: value})) == [(part, code)]


def test_rows_of_a_security_that_was_refused_are_no_further_faults() -> None:
    given = payload(row(**BUY), row("2", **{**BUY, "securityId": "?"}), securities=[{"id": "s", "type": "art"}])
    assert refused(given) == [
        ("securities[0].type", "unknown_type"),
        ("transactions[1].securityId", "unknown_security"),
    ]


def test_a_row_may_be_fifty_years_old() -> None:
    assert read(row(**{**BUY, "date": "1976-11-20"})).first_day == day_number(date(1976, 11, 20))


def test_cash_that_is_null_is_not_told() -> None:
    assert read(accounts=[{"id": "a", "cash": None}]).money == {}


def test_a_row_of_after_the_holdings_is_refused() -> None:
    given = payload(
        row(
            **BUY,
        ),
        asOf="2026-09-30",
    )
    assert refused(given) == [("transactions[0].date", "date_in_the_future")]


def test_what_is_of_tomorrow_counts_as_todays() -> None:
    data = read(row(**{**BUY, "date": "2026-11-21"}), asOf="2026-11-21")
    assert (data.day, data.transactions[0].day) == (TODAY, TODAY)


@settings(max_examples=300)
@given(st.data())
def test_whatever_is_sent_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    balance = {"date": "2026-06-30", "accountId": "a", "currency": "USD", "quantity": 50}
    given = copy.deepcopy(payload(row("1", **BUY), row("2", type="fee", amount=3), balances=[balance]))
    for _ in range(data.draw(st.integers(1, 4))):
        part = data.draw(st.sampled_from(sorted(given)))
        if not isinstance(given[part], list) or not given[part] or data.draw(st.integers(0, 9)) == 0:
            given[part] = data.draw(NAUGHTY)
            continue
        chosen = data.draw(st.sampled_from(given[part]))
        if isinstance(chosen, dict) and chosen:
            chosen[data.draw(st.sampled_from(sorted(chosen)))] = data.draw(NAUGHTY)
    try:
        read_neutral(given, today=TODAY)
    except Invalid as exc:
        faults = exc.rows
    else:
        return
    assert faults


AMOUNTS = st.decimals(min_value="0.01", max_value="100000", places=4)


@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), AMOUNTS, AMOUNTS, AMOUNTS), max_size=8))
def test_a_payload_is_read_to_the_digit(drawn: list[tuple[str, Decimal, Decimal, Decimal]]) -> None:
    rows = []
    for number, (kind, quantity, price, amount) in enumerate(drawn):
        facts: dict[str, Any] = {"type": kind, "amount": str(amount)}
        if KINDS[kind].needs_security:
            facts |= {"securityId": "s", "quantity": str(quantity), "price": str(price)}
        rows.append(row(str(number), **facts))
    for found, sent in zip(read(*rows).transactions, rows, strict=True):
        assert abs(found.quantity) == D(sent.get("quantity", 0))
        assert abs(found.cash) in (D(sent["amount"]), D(0))


@pytest.mark.parametrize(("security", "fits"), [("s", True), ("o", True), ("m", True), ("f", False)])
def test_only_what_can_be_sold_short_was_ever_held_below_nothing(security: str, fits: bool) -> None:
    given = payload(balances=[{"date": "2026-10-30", "accountId": "a", "securityId": security, "quantity": -4}])
    if fits:
        (point,) = read_neutral(given, today=TODAY).waypoints
        assert point.quantity == D(-4)
    else:
        assert refused(given) == [("balances[0].quantity", "negative_holding")]


def test_prices_below_nothing_are_refused_wherever_they_stand() -> None:
    place = {"accountId": "a", "securityId": "s", "quantity": 1, "price": -2}
    given = payload(row(**BUY | {"price": -2}), holdings=[place], balances=[{"date": "2026-10-30", **place}])
    assert sorted(refused(given)) == [
        ("balances[0].price", "price_negative"),
        ("holdings[0].price", "price_negative"),
        ("transactions[0].price", "price_negative"),
    ]
