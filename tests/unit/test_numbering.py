"""Places among known numbers: the same by a table, by a table of what is above some bits, and by searching."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core import numbering
from pricecache.core.numbering import Numbering

numbers = st.lists(st.integers(-70, 70) | st.integers(-(1 << 60), 1 << 60), max_size=30)


def plain(known: list[int], asked: list[int]) -> list[int]:
    return [known.index(one) if one in known else len(known) for one in asked]


@pytest.mark.parametrize("bits", [0, 2, 24])
@given(known=numbers.map(lambda some: sorted(set(some))), more=numbers)
def test_every_number_is_found_where_it_stands(bits: int, known: list[int], more: list[int]) -> None:
    found = Numbering(np.array(known, np.int64), bits)
    asked = known + more
    assert found.none == len(known)
    assert found.places(np.array(asked, np.int64)).tolist() == plain(known, asked)


@pytest.mark.parametrize("bits", [0, 2])
@given(known=st.sets(st.integers(-9, 60)).map(sorted), more=st.lists(st.integers(-9, 70)))
def test_dense_numbers_are_found_by_the_table(bits: int, known: list[int], more: list[int]) -> None:
    found, asked = Numbering(np.array(known, np.int64), bits), known + more
    assert found.is_tabled == any(one >= 0 for one in known)
    assert found.places(np.array(asked, np.int64)).tolist() == plain(known, asked)


def test_a_table_takes_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "TABLE", 10)
    small, large = Numbering(np.array([2, 8])), Numbering(np.array([2, 9]))
    assert (small.is_tabled, large.is_tabled) == (True, False)
    for one in (small, large):
        assert one.places(np.array([2, 8, 9, 10, -1])).tolist() == plain(one.known.tolist(), [2, 8, 9, 10, -1])
