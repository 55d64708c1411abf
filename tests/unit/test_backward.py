"""A balance walked backwards, task by task: up to where a row, a balance or a split counts, and from where not."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal as D
from fractions import Fraction
from typing import Any

import pytest

from pricecache.core.walk.backward import Correction, Move, Task, Walked, walk
from pricecache.core.walk.pairs import SplitRows
from pricecache.core.walk.short_evidence import ShortEvidence
from pricecache.core.walk.splits import SplitRow

TODAY = 50
CENT = D("0.005")


def walked(quantity: int, moves: Sequence[Move] = (), **facts: Any) -> Walked:
    return walk(Task(D(quantity), TODAY, 1, moves, **facts))


def move(day: int, quantity: int, source: int = 0) -> Move:
    return Move(day, D(quantity), 1 if quantity > 0 else 3, source)


@pytest.mark.parametrize(("day", "is_far"), [(17, False), (18, True), (8, False), (7, True)])
def test_a_balance_is_right_as_it_was_at_the_end_of_a_day_at_most_five_off(day: int, is_far: bool) -> None:
    # said on day 12: 10 before the row of day 8 or earlier, or after that of day 17 or later
    quantity, opening = (10, 6) if day > 12 else (14, 10)
    found = walked(quantity, [move(day, 4)], waypoints=[(12, D(10))])
    assert [one.code for one in found.corrections] == ["balance_differs"] * is_far
    assert found.opening == opening + (4 if day > 12 else -4) * is_far


@pytest.mark.parametrize(("day", "codes"), [(15, []), (16, ["cash_unexplained"])])
def test_money_may_be_below_zero_for_as_many_days_as_rows_are_late(day: int, codes: list[str]) -> None:
    moves = [move(day, 100), move(10, -100)]
    found = walked(0, moves, late_days=5, smallest=CENT, code="cash_unexplained")
    assert [one.code for one in found.corrections] == codes


def test_the_row_that_cannot_be_is_the_one_below_nothing_and_not_the_one_that_leaves_just_nothing() -> None:
    found = walked(5, [move(10, 5, 0), move(10, 3, 1)])
    assert found.corrections == [Correction(10, D(-3), "quantity_unexplained", 1)]


def test_what_was_there_earlier_went_at_the_first_contradiction_after_it() -> None:
    found = walked(0, [move(40, 5, 1), move(30, 3, 0)], waypoints=[(10, D(7))])
    assert found.corrections == [
        Correction(40, D(-5), "quantity_unexplained", 1),
        Correction(30, D(-3), "quantity_unexplained", 0),
        Correction(30, D(-7), "balance_differs"),
    ]
    assert [found.end_of(day) for day in (29, 30, 39, 40)] == [7, 0, 0, 0]


@pytest.mark.parametrize(
    ("expires", "code"),
    [(10, "balance_differs"), (11, "expiry_missing"), (20, "expiry_missing"), (21, "balance_differs")],
)
def test_an_option_expires_between_two_balances_or_on_the_day_of_the_later_one(expires: int, code: str) -> None:
    shorts = ShortEvidence(is_contract=True, expires=expires)
    found = walked(0, waypoints=[(10, D(5)), (20, D(0))], shorts=shorts)
    assert found.corrections == [Correction(expires if code == "expiry_missing" else 20, D(-5), code)]


@pytest.mark.parametrize(
    ("expires", "correction"),
    [
        (19, Correction(20, D(-2), "quantity_unexplained", 0)),
        (20, Correction(20, D(-2), "expiry_missing")),
        (TODAY, Correction(TODAY, D(-2), "expiry_missing")),
        (TODAY + 1, Correction(20, D(-2), "quantity_unexplained", 0)),
    ],
)
def test_an_option_that_came_and_is_gone_expired_if_that_was_since(expires: int, correction: Correction) -> None:
    found = walked(0, [move(20, 2)], shorts=ShortEvidence(is_contract=True, expires=expires))
    assert found.corrections == [correction]


@pytest.mark.parametrize(("sold", "count", "day"), [(9, "10", 12), (10, "12.5", 10), (11, "12.5", 10), (12, "15", 12)])
def test_what_moved_between_the_markets_split_and_the_brokers_row_tells_its_day(
    sold: int, count: str, day: int
) -> None:
    rows = SplitRows(12, D(count), D(0), "USD", None, (7,))
    row = SplitRow(rows, (10, Fraction(2)), is_near=True, may_take_its_day=True)
    found = walked(20, [move(sold, -5)], splits=[(10, Fraction(2))], split_rows=[row])
    assert [one.day for one in found.decided] == [day]


@pytest.mark.parametrize(("split", "today", "said"), [(10, 10, 6), (11, 12, 4), (20, 20, 12), (21, 20, 6)])
def test_a_row_that_an_earlier_balance_does_not_know_is_in_units_of_its_day(split: int, today: int, said: int) -> None:
    """Four came on day 10 and are not in the balance of day 20: of 2 for 1 on day 10 they are new, on day 20 old."""
    facts = {"splits": [(split, Fraction(2))], "late": {20: [(10, D(4))]}}
    assert walked(today, [move(10, 4)], waypoints=[(20, D(said))], **facts).corrections == []


@pytest.mark.parametrize("count", [2, 100, 101])
def test_at_most_a_hundred_rows_that_are_there_twice_are_left_out(count: int) -> None:
    """On each day something came twice and went once."""
    moves, twins = [], []
    for day in range(1, count + 1):
        both = [Move(day, D(day), 1, 3 * day), Move(day, D(day), 1, 3 * day + 1)]
        moves += [*both, Move(day, D(-day), 3, 3 * day + 2)]
        twins += both
    found = walk(Task(D(0), count, 1, moves, twins=twins))
    assert found.left_out == [3 * day + 1 for day in range(count, max(count - 100, 0), -1)]
    assert [one.day for one in found.corrections] == list(range(1, count - 99))
