"""Which prices of openings lead to what the broker says that today's holdings cost."""

from __future__ import annotations

from decimal import Decimal as D

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.walk.opening_costs import CostParts, Equation, solve

NAN = D("NaN")


def equation(total: int | D, known: int | D = 0, **units: int | str) -> Equation:
    return Equation(CostParts(D(known), {name: D(one) for name, one in units.items()}, 1), D(total))


def solved(
    *equations: Equation, settled: dict[str, D] | None = None, worth: D | None = None, **openings: int
) -> dict[str, D]:
    sizes = {name: D(size) for name, size in openings.items()}
    return solve(sizes, equations, settled or {}, worth if worth is not None else D(10))


def test_one_opening_costs_what_is_left_of_the_basis() -> None:
    assert solved(equation(66, 36, a=6), a=10) == {"a": 5}
    assert solved(equation(-30, a=-3), a=3) == {"a": 10}


@pytest.mark.parametrize("total", [-1, 10_001 * 6])
def test_what_cannot_be_a_price_is_none(total: int) -> None:
    assert solved(equation(total, a=6), a=6) == {}
    assert solved(equation(6, NAN, a=6), a=6) == {}


def test_where_nobody_knows_the_worth_no_price_is_too_dear() -> None:
    assert solved(equation(60_006, a=6), a=6, worth=NAN) == {"a": 10_001}
    assert solved(equation(60_006, a=6), a=6, worth=D(0)) == {"a": 10_001}


def test_what_is_settled_is_not_asked_again() -> None:
    assert solved(equation(30, a=1, b=2), settled={"a": D(4)}, a=1, b=2) == {"b": 13}


def test_several_in_one_equation_cost_the_same_for_one() -> None:
    assert solved(equation(50, 20, a=1, b=2, c=3), a=1, b=2, c=300) == dict.fromkeys("abc", D(5))


def test_equations_are_solved_together() -> None:
    two = equation(11, a=1, b=2), equation(13, a=3, b=1)
    assert solved(*two, a=9, b=9) == {"a": 3, "b": 4}
    assert solved(*two, equation(9, b=1, c=1, d=1), a=9, b=9, c=9, d=9) == {
        "a": 3,
        "b": 4,
        "c": D("2.5"),
        "d": D("2.5"),
    }


def test_of_those_that_contradict_each_other_the_one_of_more_shares_counts() -> None:
    assert solved(equation(8, a=4), equation(60, a=6), a=10) == {"a": 10}


def test_what_cannot_be_a_price_counts_as_its_worth_for_the_others() -> None:
    """Together: a = -10."""
    assert solved(equation(40, a=2, b=2), equation(60, b=2), a=2, b=2) == {"b": 30}
    assert solved(equation(90, a=2, b=4), equation(-1, a=2), a=2, b=4) == {"b": D("17.5")}


def test_an_opening_of_which_next_to_nothing_is_left_counts_as_its_worth() -> None:
    assert solved(equation(30, a="0.000001", b=2), a=2, b=2) == {"b": D("14.999995")}


def test_what_no_equation_names_is_left_out() -> None:
    assert solved(a=1) == {}


PRICES = st.lists(st.integers(0, 1000).map(D), min_size=4, max_size=4)
UNITS = st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), max_size=5)


@given(PRICES, UNITS)
def test_all_equations_hold_that_some_prices_fulfil(prices: list[D], units: list[list[int]]) -> None:
    """Unless a price that they leave open makes another one impossible: then those that can hold do."""
    true = dict(zip("abcd", prices, strict=True))
    rows = [dict(zip("abcd", row, strict=True)) for row in units]
    equations = [equation(sum((true[n] * u for n, u in row.items()), D(0)), **row) for row in rows]
    found = solved(*equations, a=9, b=9, c=9, d=9, worth=D(500))
    assert all(price >= 0 for price in found.values())
    if all(name in found or not any(row[name] for row in rows) for name in "abcd"):
        for one in equations:
            assert abs(one.parts.at({**dict.fromkeys("abcd", D(500)), **found}) - one.total) < D("1E-9")
