"""Lots go in the order the method says, whole or in part, and a split leaves their cost alone."""

from __future__ import annotations

from decimal import Decimal as D
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.ledger import CostBasis
from pricecache.core.lots import Lot, add, ratio_of, scaled, split, take


def lot(quantity: int, unit: str, day: int) -> Lot:
    cost = quantity * D(unit)
    return Lot(D(quantity), cost, cost, day, f"t{day}")


def lots(method: CostBasis) -> list[Lot]:
    held: list[Lot] = []
    for one in (lot(10, "5", 1), lot(10, "9", 2), lot(10, "7", 3)):
        add(held, one, method)
    return held


@pytest.mark.parametrize(
    ("method", "expected"), [("fifo", [1, 2]), ("average", [3, 2]), ("lifo", [3, 2]), ("hifo", [2, 3])]
)
def test_each_method_takes_its_own_lots_first(method: CostBasis, expected: list[int]) -> None:
    held = lots(method)
    assert [one.day for one in take(held, D(15), method)] == expected
    assert sum(one.quantity for one in held) == 15


def test_a_part_carries_its_share_of_the_cost() -> None:
    held = [lot(3, "1", 1)]
    (taken,) = take(held, D(1), "fifo")
    assert (taken.quantity, taken.cost, held[0].quantity, held[0].cost) == (1, 1, 2, 2)


def test_what_was_acquired_earlier_goes_first_though_it_came_later() -> None:
    held = lots("fifo")
    add(held, lot(1, "1", 0), "fifo")
    assert held[0].day == 0


def test_of_equally_dear_lots_the_oldest_goes_first() -> None:
    held: list[Lot] = []
    for day in (1, 2, 3):
        add(held, lot(1, "5", day), "hifo")
    assert take(held, D(1), "hifo")[0].day == 1


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.data(), st.sampled_from(["fifo", "lifo", "hifo"]))
def test_taking_keeps_quantity_exact_and_cost_whole(sizes: list[int], data: st.DataObject, method: CostBasis) -> None:
    held: list[Lot] = []
    for day, size in enumerate(sizes):
        add(held, lot(size, str(1 + day % 3), day), method)
    cost = sum(one.cost for one in held)
    wanted = D(data.draw(st.integers(1, sum(sizes))))
    taken = take(held, wanted, method)
    assert sum(one.quantity for one in taken) == wanted
    assert sum(one.quantity for one in held) == sum(sizes) - wanted
    assert abs(sum(one.cost for one in [*taken, *held]) - cost) < D("1e-20")


@pytest.mark.parametrize(
    ("value", "ratio"),
    [(4.0, Fraction(4)), (0.3333333333333333, Fraction(1, 3)), (0.05, Fraction(1, 20)), (D("1.5"), Fraction(3, 2))],
)
def test_a_ratio_is_the_small_fraction_it_stands_for(value: float | D, ratio: Fraction) -> None:
    assert ratio_of(value) == ratio


def test_a_split_multiplies_quantities_and_leaves_costs() -> None:
    held = lots("fifo")
    split(held, Fraction(3, 2))
    assert [(one.quantity, one.cost) for one in held] == [(15, 50), (15, 90), (15, 70)]
    assert scaled(D(100), Fraction(1, 3)) == D("33.333333333333")
