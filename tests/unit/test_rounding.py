"""Rounding many amounts at once gives what rounding each of them gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.rounding import rounded

amounts = st.one_of(
    st.floats(-1e17, 1e17),
    st.integers(-(10**9), 10**9).map(lambda n: n / 1000),
    st.integers(-(10**13), 10**13).map(lambda n: n / 8),
    st.integers(-(10**6), 10**6).map(lambda n: float(np.nextafter((n + 0.5) / 100, np.inf))),
    st.tuples(st.integers(1, 10**5), st.integers(1, 10**5)).map(lambda two: two[0] / 100 * (two[1] / 100)),
)


@given(st.lists(amounts, min_size=1), st.sampled_from([0, 2, 3, 8]))
def test_each_is_rounded_as_python_does(found: list[float], places: int) -> None:
    assert rounded(np.array(found), places).tolist() == [round(one, places) + 0.0 for one in found]


def test_the_middle_is_looked_at_with_every_digit() -> None:
    found = [2.675, 0.125, 0.375, 1.005, 5.015, -2.675, -0.125]
    assert rounded(np.array(found), 2).tolist() == [2.67, 0.12, 0.38, 1.0, 5.01, -2.67, -0.12]


def test_each_amount_may_have_its_own_places() -> None:
    assert rounded(np.array([2.5, 2.675, 0.0005]), np.array([0, 2, 3])).tolist() == [2.0, 2.67, 0.001]


def test_nothing_stays_unknown_or_becomes_a_negative_nought() -> None:
    found = rounded(np.array([np.nan, -0.001]), 2)
    assert np.isnan(found[0])
    assert not np.signbit(found[1])


@pytest.mark.parametrize("large", [1e15 + 0.125, 123456789012345.67, 2.0**53 / 100, 1e16, 2.0**50 / 100 + 0.005])
def test_what_is_large_is_rounded_all_the_same(large: float) -> None:
    assert rounded(np.array([large]), 2)[0] == round(large, 2)
