"""What is missing behind rows where a balance falls below zero and no short position explains it."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pricecache.core.walk.short_evidence import Point, unexplained


def point(day: int, end: int, before: int, closed: int = 0, opened: int = 0) -> Point:
    return Point(day, *map(Fraction, (end, before, closed, opened)))


@pytest.mark.parametrize(
    ("points", "of_contracts", "of_others"),
    [
        ([point(9, 0, -2)], [(9, -2)], [(9, -2)]),
        ([point(9, 0, -2, closed=2)], [], []),  # owed before the first row, and bought back
        ([point(9, 0, -2, closed=1)], [(9, -1)], [(9, -1)]),
        ([point(9, 3, -2, closed=5)], [], []),
        ([point(9, 0, -2), point(5, -2, 0)], [], [(9, -2)]),  # whatever sold it may have written it
        ([point(9, 0, -2), point(5, -2, 0, opened=2)], [], []),
        ([point(9, 0, -2), point(5, -2, -1, opened=1)], [(9, -1)], [(9, -1)]),
        ([point(9, 0, -2, closed=1), point(5, -2, -1, opened=1)], [], []),
        ([point(9, 0, 2, opened=2)], [(9, 2)], [(9, 2)]),  # sold short and never owed
        ([point(9, 0, 5, opened=2)], [(9, 2)], [(9, 2)]),
        ([point(9, 3, 5, opened=4)], [(9, 2)], [(9, 2)]),  # the rest of it other rows make up for
        ([point(9, 0, 2, opened=2), point(5, 2, 0)], [], []),  # what was bought before, whatever the row says
        ([point(9, -2, 0, opened=2)], [], []),
        ([point(9, 0, -2), point(5, -2, 0), point(3, 0, 2, opened=2)], [(3, 2)], [(9, -2), (3, 2)]),
        ([point(9, 0, -2), point(5, -2, -4)], [(9, -2), (5, -2)], [(9, -2), (5, -2)]),
    ],
)
def test_what_no_short_position_explains(
    points: list[Point], of_contracts: list[tuple[int, int]], of_others: list[tuple[int, int]]
) -> None:
    assert unexplained(points, is_contract=True) == of_contracts
    assert unexplained(points, is_contract=False) == of_others
