"""What a broker said twice is joined: nothing of the later word is lost, nothing of the earlier one counts twice."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.bars import day_of
from pricecache.core.broker import (
    BrokerAccount,
    BrokerData,
    BrokerHolding,
    BrokerSecurity,
    BrokerTransaction,
    OptionContract,
    Waypoint,
)
from pricecache.core.broker_merge import DAYS_KEPT, merged
from pricecache.core.option_units import in_same_units
from tests.broker_data import LAST, broker_data

D = Decimal


def row(name: str, day: int, account: str = "a") -> BrokerTransaction:
    return BrokerTransaction(name, account, day, "buy", "s", D(1), D(10), D(-10))


def said(day: int, first: int, *rows: BrokerTransaction, quantity: int = 5, account: str = "a") -> BrokerData:
    held = (BrokerHolding(account, "s", D(quantity), D(10)),) if quantity else ()
    return BrokerData(day, first, {account: BrokerAccount(account, account)}, {}, held, {(account, "USD"): D(7)}, rows)


def test_rows_of_the_later_window_take_the_place_of_the_earlier_ones_there() -> None:
    before = said(100, 10, row("old", 20), row("gone", 60), row("kept", 70))
    joined = merged(before, said(110, 50, row("kept", 70), row("new", 105)))
    assert [one.id for one in joined.transactions] == ["old", "kept", "new"]
    assert [one.place for one in joined.transactions] == [0, 1, 2]
    assert (joined.day, joined.first_day) == (110, 10)


def test_a_row_that_moved_to_another_day_counts_once() -> None:
    joined = merged(said(100, 10, row("1", 20)), said(110, 50, row("1", 60)))
    assert [one.day for one in joined.transactions] == [60]


def test_rows_of_an_account_that_is_not_told_of_any_more_stay() -> None:
    joined = merged(said(100, 10, row("1", 60, "closed"), account="closed"), said(110, 50, row("2", 60)))
    assert [one.id for one in joined.transactions] == ["1", "2"]
    assert list(joined.accounts) == ["closed", "a"]


def test_what_was_held_becomes_a_waypoint() -> None:
    joined = merged(said(100, 10, quantity=5), said(110, 50, quantity=8))
    assert joined.waypoints == (Waypoint(100, "a", D(5), "s", price=D(10)), Waypoint(100, "a", D(7)))
    assert [one.quantity for one in joined.holdings] == [8]


def test_an_option_that_is_counted_in_contracts_stays_so_when_only_its_expiry_is_told() -> None:
    def of(in_one: int | None) -> dict[str, BrokerSecurity]:
        return {"o": BrokerSecurity("o", "derivative", option=OptionContract("call", 105, D(50), in_one=in_one))}

    bought = BrokerTransaction("1", "a", 60, "buy", "o", D(200), D(5), D(-1000))
    gone = BrokerTransaction("2", "a", 106, "expiry", "o", D(-2))
    before = replace(said(100, 10, bought, quantity=0), securities=of(100))
    joined = merged(before, replace(said(110, 80, gone, quantity=0), securities=of(None)))
    assert [one.quantity for one in joined.transactions] == [200, -200]
    assert joined.securities == of(100)
    late = replace(said(100, 80, replace(gone, day=85), quantity=0), securities=of(None))
    joined = merged(late, replace(said(110, 90, quantity=0), securities=of(100)))
    assert [one.quantity for one in joined.transactions] == [-200]
    assert merged(joined, joined).transactions == joined.transactions


def test_an_earlier_word_that_comes_late_does_not_take_the_later_ones_place() -> None:
    early, late = said(100, 10, row("1", 20)), said(110, 50, row("2", 60))
    assert merged(late, early) == merged(early, late)


def test_daily_fetches_of_years_keep_few_waypoints() -> None:
    joined = said(LAST - 800, LAST - 900)
    for day in range(LAST - 799, LAST + 1):
        joined = merged(joined, said(day, day - 30))
    days = sorted({one.day for one in joined.waypoints})
    assert [day for day in days if day >= LAST - DAYS_KEPT] == list(range(LAST - DAYS_KEPT, LAST))
    earlier = [day_of(day) for day in days if day < LAST - DAYS_KEPT]
    assert len({(day.year, day.month) for day in earlier}) == len(earlier) <= 28
    assert all((day_of(day_number + 1)).day == 1 for day_number in days if day_number < LAST - 40)


@given(broker_data(), broker_data())
def test_joining_keeps_all_of_the_later_word(one: BrokerData, other: BrokerData) -> None:
    before, after = in_same_units(*((other, one) if one.day > other.day else (one, other)))
    joined = merged(one, other)
    assert (joined.day, joined.holdings, dict(joined.money)) == (after.day, after.holdings, dict(after.money))
    ids = [row.id for row in joined.transactions]
    assert len(ids) == len(set(ids))
    assert {replace(row, place=0) for row in after.transactions} <= {
        replace(row, place=0) for row in joined.transactions
    }
    assert {row.id for row in before.transactions if row.day < after.first_day} <= set(ids)
    assert [one.day for one in joined.waypoints] == sorted(one.day for one in joined.waypoints)


@given(broker_data(st.just(LAST)))
def test_the_same_word_again_changes_nothing(data: BrokerData) -> None:
    once = merged(data, data)
    assert merged(once, data) == once
    assert {row.id for row in once.transactions} == {row.id for row in data.transactions}
