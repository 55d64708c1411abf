"""What a portfolio is worth now and how it changed: by hand, and against the history of the same ledger."""

from __future__ import annotations

from dataclasses import astuple
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.core.actions import Action
from pricecache.core.daychange import Session
from pricecache.core.history import book_at, history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.present import PositionNow, SummaryNow
from pricecache.core.summaries import Turned, together
from pricecache.core.summary import summaries_by_account, summary
from pricecache.core.valuation import CASH, COST, DIVIDENDS, FEES, NET_FLOW, REALIZED, UNREALIZED, VALUE
from tests.ledgers import INSTRUMENTS, LAST, ledgers, markets

A, E, C = Instrument("AAA"), Instrument("EEE", "DE"), Instrument("BTC-USD", "CRYPTO")
THURSDAY, FRIDAY, SATURDAY = 28, 29, 30  # of January 1970


def column(values: dict[int, float]) -> Column:
    days = np.array(sorted(values), np.int64)
    return Column(days, np.array([values[int(day)] for day in days]), days)


def row(day: int, kind: Any, quantity: Any = None, price: Any = None, **more: Any) -> Transaction:
    number, each = (None if one is None else D(str(one)) for one in (quantity, price))
    return Transaction(day, kind, more.pop("instrument", A), number, each, **more)


def now(
    *rows: Transaction,
    closes: dict[int, float] | None = None,
    actions: tuple[Action, ...] = (),
    end: int = FRIDAY,
    opened: float | None = None,
    **rules: Any,
) -> SummaryNow:
    """On Friday: the close of Thursday was 100, the price is 110, unless said otherwise."""
    data = MarketData({A: PriceColumn(column(closes or {1: 90.0, THURSDAY: 100.0, FRIDAY: 110.0}), "USD", actions)})
    sessions = {A: Session(FRIDAY, THURSDAY, opened)}
    return summary(Ledger.of(rows, Rules(**rules)), data, sessions, end)


def only(found: SummaryNow) -> PositionNow:
    (one,) = found.positions
    return one


def test_a_position_that_was_held_changes_with_its_price() -> None:
    found = now(row(1, "buy", 10, 90), opened=105.0)
    assert astuple(found.worth)[:5] == (1100, 100, 50, 1000, 0)
    assert found.worth.percent == pytest.approx(10)
    assert found.worth.percent_from_open == pytest.approx(100 * 50 / 1050)
    assert (found.gains.cost, found.gains.unrealized, found.gains.realized) == (900, 200, 0)


@pytest.mark.parametrize("end", [FRIDAY, SATURDAY, SATURDAY + 1])
def test_on_a_week_end_the_change_is_that_of_the_last_session(end: int) -> None:
    assert now(row(1, "buy", 10, 90), end=end).worth.change == 100


def test_what_was_bought_in_the_session_counts_from_what_was_paid() -> None:
    found = now(row(FRIDAY, "buy", 10, 108, fees=D(2)), opened=105.0)
    assert (found.worth.change, found.worth.from_open, found.worth.flow) == (18, 18, 1082)
    assert found.worth.percent == pytest.approx(100 * 18 / 1082)


def test_what_was_sold_in_the_session_counts_up_to_what_was_got() -> None:
    found = now(row(1, "buy", 10, 90), row(FRIDAY, "sell", 10, 107), opened=105.0)
    one = only(found)
    assert (one.quantity, one.worth.value, one.worth.change, one.worth.from_open) == (0, 0, 70, 20)
    assert (found.worth.change, found.gains.realized, found.gains.cost) == (70, 170, 0)
    assert now(row(1, "buy", 10, 90), row(THURSDAY, "sell", 10, 107)).positions == ()


def test_a_split_in_the_session_is_no_change() -> None:
    split = Action(FRIDAY, "split", 4.0)
    closes = {1: 90.0, THURSDAY: 100.0, FRIDAY: 27.5}
    found = now(row(1, "buy", 10, 90), closes=closes, actions=(split,), opened=26.25)
    assert only(found).quantity == 40
    assert (found.worth.value, found.worth.change, found.worth.from_open) == (1100, 100, 50)


def test_a_dividend_of_the_session_is_part_of_the_change() -> None:
    found = now(row(1, "buy", 10, 90), Transaction(FRIDAY, "dividend", A, amount=D(5)))
    assert (found.worth.change, found.worth.flow, found.gains.dividends) == (105, -5, 5)


def test_a_price_that_has_not_come_is_no_change_and_has_no_open() -> None:
    found = now(row(1, "buy", 10, 90), closes={1: 90.0, THURSDAY: 100.0})
    assert (found.worth.value, found.worth.change, found.worth.from_open) == (1000, 0, None)
    assert "from_open" in found.incomplete


def test_a_close_of_before_is_turned_at_the_rate_of_its_day() -> None:
    data = MarketData(
        {E: PriceColumn(column({1: 10.0, THURSDAY: 10.0, FRIDAY: 11.0}), "EUR")},
        {"EUR": column({1: 1.0, THURSDAY: 1.2, FRIDAY: 1.5})},
    )
    rows = [row(1, "buy", 10, 10, instrument=E)]
    found = summary(Ledger.of(rows), data, {E: Session(FRIDAY, THURSDAY, 10.5)}, SATURDAY)
    assert (found.worth.value, found.worth.before, found.worth.change) == (165, 120, 45)
    assert found.worth.from_open == pytest.approx(10 * 0.5 * 1.5)


def test_each_market_has_its_own_session() -> None:
    """On Saturday: of shares Friday's change, of a coin the change since midnight."""
    data = MarketData({
        A: PriceColumn(column({1: 90.0, THURSDAY: 100.0, FRIDAY: 110.0}), "USD"),
        C: PriceColumn(column({1: 5.0, THURSDAY: 5.0, FRIDAY: 6.0, SATURDAY: 8.0}), "USD"),
    })  # fmt: skip
    sessions = {A: Session(FRIDAY, THURSDAY), C: Session(SATURDAY, FRIDAY)}
    rows = [row(1, "buy", 1, 90), row(1, "buy", 1, 5, instrument=C)]
    found = summary(Ledger.of(rows), data, sessions, SATURDAY)
    assert [one.worth.change for one in found.positions] == [10, 2]
    assert (found.worth.change, found.worth.before) == (12, 106)


def test_cash_changes_by_its_rates_and_what_belongs_to_no_position_stands_apart() -> None:
    data = MarketData(
        {A: PriceColumn(column({1: 90.0, THURSDAY: 100.0, FRIDAY: 110.0}), "USD")},
        {"EUR": column({1: 1.0, THURSDAY: 1.0, FRIDAY: 1.1})},
    )
    rows = [
        Transaction(1, "deposit", amount=D(1000)),
        Transaction(1, "deposit", amount=D(100), currency="EUR"),
        row(1, "buy", 5, 90),
        row(FRIDAY, "buy", 1, 105),
        Transaction(FRIDAY, "fee", amount=D(3)),
        Transaction(FRIDAY, "withdrawal", amount=D(50)),
    ]
    rules = Rules(cash_tracking=True)
    found = summary(Ledger.of(rows, rules), data, {A: Session(FRIDAY, THURSDAY)}, FRIDAY)
    assert found.changes == {"positions": 55, "cash": 10, "other": -3}
    assert (found.worth.change, found.worth.flow) == (62, -50)
    assert (found.cash, found.worth.value) == (392 + 110, 392 + 110 + 660)
    assert [(one.currency, one.amount, one.value) for one in found.balances] == [("EUR", 100, 110), ("USD", 392, 392)]
    whole = history(Ledger.of(rows, rules), data, FRIDAY)
    assert whole is not None
    assert whole.of(VALUE)[-1] - whole.of(VALUE)[-2] - whole.of(NET_FLOW)[-1] == pytest.approx(62)


def test_accounts_are_parts_of_a_position_and_a_transfer_between_them_is_no_flow() -> None:
    rows = [
        row(1, "buy", 10, 90, account="a"),
        row(FRIDAY, "transfer_out", 4, account="a", to_account="b"),
    ]
    found = now(*rows)
    parts = only(found).parts
    assert [(one.account, one.quantity, one.worth.value, one.worth.change) for one in parts] == [
        ("a", 6, 660, 100),
        ("b", 4, 440, 0),
    ]
    assert (found.worth.change, found.worth.flow, only(found).worth.percent) == (100, 0, pytest.approx(10))
    data = MarketData({A: PriceColumn(column({1: 90.0, THURSDAY: 100.0, FRIDAY: 110.0}), "USD")})
    of_b = summary(Ledger.of(rows), data, {A: Session(FRIDAY, THURSDAY)}, FRIDAY, account="b")
    assert (of_b.worth.value, of_b.worth.flow, of_b.worth.change) == (440, 440, 0)


def test_what_has_no_price_is_unknown_and_the_rest_is_told() -> None:
    none = Instrument("NONE")
    data = MarketData({A: PriceColumn(column({1: 90.0, THURSDAY: 100.0, FRIDAY: 110.0}), "USD")})
    rows = [row(1, "buy", 1, 90), row(1, "buy", 1, 50, instrument=none)]
    sessions = {A: Session(FRIDAY, THURSDAY), none: Session(FRIDAY, THURSDAY)}
    found = summary(Ledger.of(rows), data, sessions, FRIDAY)
    assert [one.worth.value for one in found.positions] == [110, None]
    assert (found.worth.value, found.worth.change, found.gains.cost, found.gains.unrealized) == (110, 10, 140, 20)
    assert {"value", "change"} <= found.incomplete


def test_nothing_before_beside_what_is_unknown_is_unknown() -> None:
    none = Instrument("NONE")
    data = MarketData({A: PriceColumn(column({1: 90.0, THURSDAY: 100.0, FRIDAY: 110.0}), "USD")})
    rows = [row(FRIDAY, "buy", 1, 108), row(1, "buy", 1, 50, instrument=none)]
    found = summary(Ledger.of(rows), data, {A: Session(FRIDAY, THURSDAY), none: Session(FRIDAY, THURSDAY)}, FRIDAY)
    assert (found.worth.value, found.worth.change, found.worth.before, found.worth.percent) == (110, 2, None, None)


def test_what_is_owed_has_a_change_and_no_percentage() -> None:
    found = now(row(1, "sell", 10, 90), allow_short=True)
    assert (found.worth.value, found.worth.change, found.worth.percent) == (-1100, -100, None)


def test_a_total_is_in_one_currency_with_what_the_rate_did() -> None:
    own, other = now(row(1, "buy", 1, 90)), now(row(1, "buy", 10, 90))
    found = together([Turned(own, 1.0, 1.0), Turned(other, 2.0, 1.5)], "EUR")
    assert (found.worth.value, found.worth.before, found.worth.change) == (2310, 1600, 710)
    assert (found.worth.flow, found.gains.cost) == (0, 1890)
    assert found.worth.percent == pytest.approx(100 * 710 / 1600)
    unknown = together([Turned(own, 1.0, 1.0), Turned(other, None, None)], "EUR")
    assert (unknown.worth.value, unknown.gains.cost, "value" in unknown.incomplete) == (110, None, True)


# against the history


def whole_days(end: int) -> dict[Instrument, Session]:
    return {instrument: Session(end, end - 1) for instrument in INSTRUMENTS}


@settings(max_examples=150, deadline=None)
@given(ledgers(), markets(), st.integers(LAST - 20, LAST))
def test_the_change_of_a_day_is_that_of_the_history(ledger: Ledger, market: MarketData, end: int) -> None:
    whole = history(ledger, market, end)
    if whole is None:
        return
    found = summary(ledger, market, whole_days(end), end)
    near = 0.005 * (len(found.positions) * 4 + 6)
    for field, told in ((VALUE, found.worth.value), (COST, found.gains.cost), (REALIZED, found.gains.realized),
                        (DIVIDENDS, found.gains.dividends), (FEES, found.gains.fees), (CASH, found.cash),
                        (UNREALIZED, found.gains.unrealized)):  # fmt: skip
        wanted = float(whole.of(field)[-1])
        if told is None or np.isnan(wanted):
            assert field in (VALUE, CASH) or (told is None) == np.isnan(wanted), field
            continue
        assert told == pytest.approx(wanted, abs=near), field
    before = float(whole.of(VALUE)[-2]) if whole.days > 1 else 0.0
    change = float(whole.of(VALUE)[-1]) - before - float(whole.of(NET_FLOW)[-1])
    if not np.isnan(change) and not found.incomplete - {"from_open", "base_at_open"}:
        assert found.worth.change == pytest.approx(change, abs=near)


@settings(max_examples=100, deadline=None)
@given(ledgers(), markets(), st.integers(LAST - 12, LAST))
def test_parts_add_up_to_the_cent(ledger: Ledger, market: MarketData, end: int) -> None:
    if ledger.first_day is None or ledger.first_day > end:
        return
    found = summary(ledger, market, whole_days(end), end)
    for one in found.positions:
        for name in ("value", "change", "before", "flow"):
            parts = [getattr(part.worth, name) for part in one.parts]
            if None not in parts:
                assert getattr(one.worth, name) == round(sum(parts), 2)
    changes = [change for change in found.changes.values() if change is not None]
    is_known = found.changes["positions"] is not None
    assert found.worth.change == (round(sum(changes), 2) if is_known else None)
    if found.worth.flow is not None and found.worth.value is not None and found.worth.before is not None:
        left = found.worth.value - found.worth.before - found.worth.flow
        assert found.worth.change == pytest.approx(left, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(ledgers(), markets(), st.integers(LAST - 12, LAST), st.integers(2, 10))
def test_going_on_from_a_book_tells_the_same(ledger: Ledger, market: MarketData, end: int, back: int) -> None:
    if ledger.first_day is None or ledger.first_day > end - back:
        return
    since = book_at(ledger, market, end - back)
    assert summary(ledger, market, whole_days(end), end, since=since) == summary(ledger, market, whole_days(end), end)


def test_what_was_bought_between_two_closes_of_the_week_end_is_no_flow_where_cash_is_kept() -> None:
    """On Saturday: shares changed from Thursday's close, the coin and cash from Friday's; nothing came from outside."""
    data = MarketData({
        A: PriceColumn(column({1: 90.0, THURSDAY: 100.0, FRIDAY: 110.0}), "USD"),
        C: PriceColumn(column({1: 5.0, FRIDAY: 6.0, SATURDAY: 8.0}), "USD"),
    })  # fmt: skip
    sessions = {A: Session(FRIDAY, THURSDAY), C: Session(SATURDAY, FRIDAY)}
    rows = [
        Transaction(1, "deposit", amount=D(1000)),
        row(1, "buy", 1, 5, instrument=C, account="coins"),
        row(1, "buy", 2, 90),
        row(FRIDAY, "buy", 1, 104),
        Transaction(FRIDAY, "dividend", A, amount=D(3)),
        Transaction(SATURDAY, "withdrawal", amount=D(7)),
    ]
    ledger = Ledger.of(rows, Rules(cash_tracking=True))
    found, accounts = summaries_by_account(ledger, data, sessions, SATURDAY)
    # 2 shares at 100, a coin at 6, and the cash without the purchase and the dividend of Friday
    assert (found.worth.before, found.worth.flow) == (200 + 6 + 815, -7)
    assert found.worth.change == (330 - 200 - 104 + 3) + 2
    assert found.worth.value == found.worth.before + found.worth.change - 7
    assert {one.previous for one in accounts.values()} == {found.previous} == {FRIDAY}
    assert [one.worth.flow for one in accounts.values()] == [-7, 0]
    assert sum(one.worth.before or 0 for one in accounts.values()) == found.worth.before
