"""What a broker said twice is joined: nothing of the later word is lost, nothing of the earlier one counts twice."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricecache.core.bars import day_of
from pricecache.core.broker.cancelled import MOST
from pricecache.core.broker.data import (
    BrokerAccount,
    BrokerData,
    BrokerHolding,
    BrokerSecurity,
    BrokerTransaction,
    Cancellation,
    OptionContract,
    Remark,
    Waypoint,
)
from pricecache.core.broker.merge import DAYS_KEPT, merged
from pricecache.core.broker.option_units import in_same_units
from pricecache.core.broker.windows import MOST as MOST_WINDOWS
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


def test_an_account_that_is_not_told_of_any_more_is_as_it_was() -> None:
    joined = merged(merged(said(100, 10), said(105, 50, account="b")), said(110, 50, row("2", 60), quantity=6))
    assert [(one.account, one.quantity) for one in joined.holdings] == [("b", 5), ("a", 6)]
    assert joined.money == {("b", "USD"): 7, ("a", "USD"): 7}
    assert {one.id: one.told_on for one in joined.accounts.values()} == {"a": None, "b": 105}
    assert [(one.day, one.account) for one in joined.waypoints] == [(100, "a"), (100, "a")]
    (remark,) = joined.remarks
    assert (remark.code, remark.detail) == ("account_not_told", "nothing is said of b: it stands as of 1970-04-16")


def test_its_next_word_takes_its_place_and_the_last_one_becomes_a_waypoint_of_its_day() -> None:
    joined = merged(said(100, 10, row("1", 20)), said(105, 50, account="b"))
    again = merged(joined, said(120, 50, row("2", 115), quantity=6))
    assert [(one.account, one.quantity) for one in again.holdings] == [("b", 5), ("a", 6)]
    assert [(one.day, one.account, one.security) for one in again.waypoints] == [(100, "a", "s"), (100, "a", None)]
    assert [one.id for one in again.transactions] == ["1", "2"]
    assert {one.id: one.told_on for one in again.accounts.values()} == {"a": None, "b": 105}


def test_of_an_account_the_last_word_counts_though_others_were_told_of_since() -> None:
    joined = merged(said(100, 10, row("1", 20)), said(110, 50, account="b"))
    again = merged(joined, said(105, 50, row("2", 104), quantity=6))
    assert [(one.account, one.quantity) for one in again.holdings] == [("a", 6), ("b", 5)]
    assert (again.day, again.accounts["a"].told_on, again.accounts["b"].told_on) == (110, 105, None)
    assert [one.id for one in again.transactions] == ["1", "2"]
    assert merged(said(105, 50, row("2", 104), quantity=6), joined) == again


def test_money_that_there_was_and_that_is_not_listed_any_more_is_nothing() -> None:
    before, after = said(100, 10), replace(said(100, 10), money={})
    assert merged(before, after).money == {("a", "USD"): 0}
    later = merged(before, replace(after, day=110))
    assert later.money == {("a", "USD"): 0}
    assert merged(later, replace(after, day=120)).money == {("a", "USD"): 0}
    assert merged(after, replace(after, day=110)).money == {}


def test_what_shows_to_be_a_sweep_fund_later_was_money_before() -> None:
    fund, sweep = BrokerSecurity("s", "mutual_fund"), BrokerSecurity("s", "mutual_fund", is_money=True)
    before = replace(
        said(100, 10), securities={"s": fund}, waypoints=(Waypoint(90, "a", D(3), "s"), Waypoint(90, "a", D(4)))
    )
    after = replace(said(110, 50, quantity=0, account="b"), securities={"s": sweep})
    joined = merged(before, after)
    assert (joined.holdings, joined.money) == ((), {("a", "USD"): 12, ("b", "USD"): 7})
    assert joined.waypoints == (Waypoint(90, "a", D(7)),)


def test_a_balance_knows_the_rows_up_to_its_day_that_came_after_it() -> None:
    known, late = row("1", 60), row("late", 80)
    joined = merged(said(100, 50, known), said(104, 50, known, late, row("new", 102), row("old", 40)))
    shares, money = joined.waypoints
    assert (shares.quantity, shares.late, money.late) == (5, ((80, D(1)),), ((80, D(-10)),))
    again = merged(joined, said(108, 50, known))  # the late one is taken back
    assert [one.late for one in again.waypoints if one.day == 100] == [(), ()]
    assert [one.late for one in again.waypoints if one.day == 104] == [
        ((80, D(-1)), (102, D(-1))), ((80, D(10)), (102, D(10))),
    ]  # fmt: skip


def test_a_row_that_is_told_otherwise_is_late_by_the_difference() -> None:
    more = replace(row("1", 60), quantity=D(3), cash=D(-30))
    joined = merged(said(100, 50, row("1", 60), row("2", 70)), said(110, 50, more, replace(row("9", 70), note="same")))
    assert [one.late for one in joined.waypoints] == [((60, D(2)),), ((60, D(-20)),)]


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


def quarters() -> list[BrokerData]:
    return [
        said(100, 10, row("1", 20), quantity=1),
        said(200, 95, row("2", 150), row("2b", 98), quantity=3),
        said(300, 201, row("3", 250), quantity=4),
    ]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_what_fills_a_gap_counts_whenever_it_comes(order: tuple[int, ...]) -> None:
    words = quarters()
    joined = merged(merged(words[order[0]], words[order[1]]), words[order[2]])
    assert [one.id for one in joined.transactions] == ["1", "2b", "2", "3"]
    assert [(one.day, one.quantity) for one in joined.waypoints if one.security] == [(100, 1), (200, 3)]
    assert [one.late for one in joined.waypoints if one.security] == [((98, D(1)),), ()]
    assert windows(joined) == [(10, 94, 100), (95, 200, 200), (201, 300, 300)]
    assert merged(joined, words[order[2]]) == joined


def windows(data: BrokerData) -> list[tuple[int, int, int]]:
    return [(*one,) for one in data.accounts["a"].windows]


def test_days_that_nobody_told_of_stay_a_gap_and_the_later_word_of_a_day_counts() -> None:
    first, _, third = quarters()
    joined = merged(first, third)
    assert windows(joined) == [(10, 100, 100), (201, 300, 300)]
    late = merged(joined, said(90, 5, row("1", 20), row("not any more", 30), row("earlier", 7)))
    assert [one.id for one in late.transactions] == ["earlier", "1", "3"]
    assert windows(late) == [(5, 9, 90), *windows(joined)]
    whole = merged(late, said(400, 1))
    assert (whole.transactions, windows(whole)) == ((), [])


def test_windows_of_years_of_fetches_are_few() -> None:
    joined = said(LAST - 800, LAST - 900)
    for day in range(LAST - 799, LAST + 1):
        joined = merged(joined, said(day, day - 30))
    found = windows(joined)
    assert len(found) == MOST_WINDOWS
    assert (found[0][0], found[-1]) == (LAST - 900, (LAST - 30, LAST, LAST))
    assert all(one[1] + 1 == other[0] for one, other in pairwise(found))


def test_what_an_earlier_word_did_not_list_was_not_there() -> None:
    fund = BrokerHolding("a", "new", D(50))
    after = said(110, 10)
    after = replace(after, holdings=(*after.holdings, fund), money={("a", "USD"): D(7), ("a", "EUR"): D(3)})
    joined = merged(said(100, 10), after)
    assert [(one.day, one.security, one.currency) for one in joined.waypoints if not one.quantity] == [
        (100, "new", "USD"), (100, None, "EUR"),
    ]  # fmt: skip
    again = merged(joined, replace(after, day=120))
    assert [one.day for one in again.waypoints if not one.quantity] == [100, 100]
    gone = merged(merged(again, said(130, 10)), said(140, 10))
    assert [one.day for one in gone.waypoints if one.security == "new"] == [100, 110, 130]


def test_what_has_rows_that_came_after_a_balance_without_it_may_have_been_there() -> None:
    late = replace(row("late", 98), security="new")
    joined = merged(said(100, 10), said(110, 10, late))
    assert [(one.day, one.quantity, one.late) for one in joined.waypoints if one.security == "new"] == [
        (100, 0, ((98, D(1)),))
    ]


def test_nothing_is_said_of_what_an_account_held_that_listed_nothing() -> None:
    before = replace(said(100, 10, quantity=0), money={})
    assert merged(before, said(110, 10)).waypoints == ()
    shares_only = merged(replace(said(100, 10), money={}), said(110, 10))
    assert [one.security for one in shares_only.waypoints] == ["s"]
    assert merged(said(100, 10, account="b"), said(110, 10)).waypoints == ()


@given(broker_data(), broker_data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_joining_keeps_all_of_the_later_word(one: BrokerData, other: BrokerData) -> None:
    before, after = in_same_units(*((other, one) if one.day > other.day else (one, other)))
    joined = merged(one, other)
    assert joined.day == after.day
    assert [one for one in joined.holdings if one.account in after.accounts] == list(after.holdings)
    of_after = {key: amount for key, amount in joined.money.items() if key[0] in after.accounts}
    assert after.money.items() <= of_after.items()
    assert not any(amount for key, amount in of_after.items() if key not in after.money)
    kept = (one for one in before.holdings if not joined.securities[one.security].is_money)
    of_before = [replace(one, price_day=None) for one in kept if one.account not in after.accounts]
    carried = [replace(one, price_day=None) for one in joined.holdings if one.account not in after.accounts]
    assert carried == of_before
    ids = [row.id for row in joined.transactions]
    assert len(ids) == len(set(ids))
    gone = cancelled_in(joined)
    assert {replace(row, place=0) for row in after.transactions if row.id not in gone} <= {
        replace(row, place=0) for row in joined.transactions
    }
    assert {row.id for row in before.transactions if row.day < after.first_day} - gone <= set(ids)
    assert gone.isdisjoint(ids)
    assert [one.day for one in joined.waypoints] == sorted(one.day for one in joined.waypoints)


def cancelled_in(data: BrokerData) -> set[str]:
    words = [one for one in data.cancellations if one.cancels is not None]
    return {f"{one.cancels}{end}" for one in words for end in ("", *(f"/{part}" for part in one.parts))}


@given(broker_data(st.just(LAST)))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_the_same_word_again_changes_nothing(data: BrokerData) -> None:
    once = merged(data, data)
    assert merged(once, data) == once
    assert {row.id for row in once.transactions} == {row.id for row in data.transactions} - cancelled_in(once)


# what is taken back


def word(day: int, cancels: str | None = None, **more: Any) -> Cancellation:
    return Cancellation("c", "a", day, cancels, path="transactions[0]", **more)


LOOKS = [{"cancels": "old"}, {"quantity": D(-1), "cash": D(10)}, {"quantity": D(1), "cash": D(-10)}]


@pytest.mark.parametrize("looks", LOOKS)
def test_a_row_of_before_that_is_cancelled_is_gone_whichever_was_told_of_first(looks: dict[str, Any]) -> None:
    looks = {"security": "s", **looks}
    rows = said(100, 10, replace(row("older", 15), quantity=D(2)), row("old", 20))
    cancel = replace(said(110, 108), cancellations=(word(109, **looks),), remarks=(nothing(),))
    joined = merged(rows, cancel)
    assert [one.id for one in joined.transactions] == ["older"]
    assert [(one.code, one.path) for one in joined.remarks] == [("cancelled_row", "transactions[0]")]
    assert merged(cancel, rows) == joined
    for again in (merged(joined, rows), merged(joined, cancel), merged(merged(joined, said(120, 119)), rows)):
        assert [one.id for one in again.transactions] == ["older"]
        assert "nothing_cancelled" not in [one.code for one in again.remarks]


def nothing() -> Remark:
    return Remark("nothing_cancelled", "transactions[0]", "")


def test_of_one_day_either_order_takes_the_row_back() -> None:
    rows, cancel = said(100, 10, row("old", 20)), replace(said(100, 100), cancellations=(word(100, "old"),))
    assert merged(rows, cancel).transactions == merged(cancel, rows).transactions == ()


def test_balances_before_a_cancellation_may_have_had_the_row_or_not() -> None:
    rows, cancel = said(100, 10, row("old", 20)), replace(said(110, 108), cancellations=(word(109, "old"),))
    joined = merged(rows, cancel)
    shares, money = (one.late for one in joined.waypoints if one.day == 100)
    assert (shares, money) == (((20, D(-1)),), ((20, D(10)),))


def test_a_cancellation_takes_back_one_row_and_no_second_one_later() -> None:
    rows = said(100, 10, row("1", 20), row("2", 30), row("3", 60))
    alike = replace(said(110, 108), cancellations=(word(50, security="s", quantity=D(-1), cash=D(10)),))
    joined = merged(rows, alike)
    assert [one.id for one in joined.transactions] == ["1", "3"]
    again = merged(joined, replace(said(120, 50), cancellations=alike.cancellations))
    assert [one.id for one in again.transactions] == ["1"]  # of the days from 50 on it says that there is nothing
    assert [one.cancels for one in again.cancellations] == ["2"]


def test_a_row_of_a_broker_goes_with_all_that_was_made_of_it() -> None:
    paid = replace(row("old/cash", 20), security=None, action="cash", quantity=D(0), cash=D(10))
    own = word(109, "old", parts=("cash", "fee"))
    joined = merged(said(100, 10, row("old", 20), paid), replace(said(110, 108), cancellations=(own,)))
    assert joined.transactions == ()
    alike = word(109, security="s", quantity=D(-1), cash=D(10), parts=("cash", "fee"))
    joined = merged(said(100, 10, row("old", 20), paid), replace(said(110, 108), cancellations=(alike,)))
    assert joined.transactions == ()


def test_cash_beside_a_fee_and_shares_without_cash_are_found_too() -> None:
    cases = {
        (D(-1), D(10)): replace(row("old", 20), cash=D(-12), fees=D(2)),
        (D(-1), D(30)): replace(row("old", 20), action="transfer", cash=D(0)),
        (D(7), D(10)): replace(row("old", 20), action="dividend", quantity=D(0)),
    }
    for (quantity, cash), one in cases.items():
        cancel = word(109, security="s", quantity=quantity, cash=cash)
        joined = merged(said(100, 10, one), replace(said(110, 108), cancellations=(cancel,)))
        assert joined.transactions == ()


def test_a_cancellation_that_never_finds_its_row_is_told_every_time_and_many_are_bounded() -> None:
    cancel = replace(said(110, 108), cancellations=(word(109, "never"),))
    joined = merged(merged(said(100, 10, row("1", 20)), cancel), said(120, 119))
    assert [one.id for one in joined.transactions] == ["1"]
    assert [one.code for one in joined.remarks] == ["nothing_cancelled"]
    many = tuple(replace(word(day, "x"), id=f"c{day}") for day in range(10, 110))
    more = tuple(replace(word(day, "x"), id=f"d{day}") for day in range(110, 110 + MOST))
    joined = merged(replace(said(109, 10), cancellations=many), replace(said(2000, 110), cancellations=more))
    assert (len(joined.cancellations), joined.cancellations[0].id) == (MOST, "d110")


def test_a_later_word_of_the_same_days_that_has_the_row_again_and_no_cancellation_counts() -> None:
    joined = merged(said(100, 10, row("old", 20)), replace(said(110, 108), cancellations=(word(109, "old"),)))
    assert [one.id for one in merged(joined, said(120, 10, row("old", 20))).transactions] == ["old"]
