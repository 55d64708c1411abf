"""What a walk went by stands while no split of its time is another and nothing it did without has come."""

from __future__ import annotations

import pytest

from pricecache.core.stamps import SeriesFacts
from pricecache.core.walk.footing import Ratios, WalkFooting, earliest_difference

FACTS = [
    SeriesFacts(1, 7, "USD", ((90, "split", 3.0), (100, "split", 2.0), (150, "rebase", 0.5), (210, "split", 4.0))),
    SeriesFacts(2, 7, "USD"),
]
FOOTING = WalkFooting.of(FACTS, [3], 99, 200)


def test_only_splits_of_the_days_that_were_walked_are_kept() -> None:
    assert FOOTING.ratios == {1: ((100, 2.0), (150, 0.5))}
    assert FOOTING.series == {1, 2}


@pytest.mark.parametrize(
    ("series", "ratios", "has_prices", "holds"),
    [
        (1, ((100, 2.0), (150, 0.5)), True, True),
        (1, ((100, 2.0), (150, 0.5), (201, 9.0)), True, True),  # after the day of the holdings
        (1, ((99, 9.0), (100, 2.0), (150, 0.5)), True, True),  # before the opening, or on its day
        (1, ((100, 2.0),), True, False),
        (1, ((100, 2.5), (150, 0.5)), True, False),
        (2, ((200, 2.0),), True, False),
        (3, ((120, 2.0),), False, True),  # it was not walked by this one
        (3, (), True, False),
        (4, ((120, 2.0),), True, True),
    ],
)
def test_it_holds_while_it_would_be_told_the_same(series: int, ratios: Ratios, has_prices: bool, holds: bool) -> None:
    assert FOOTING.holds(series, ratios, has_prices) is holds


def test_splits_differ_from_the_first_that_is_not_in_both() -> None:
    assert earliest_difference(((10, 2.0), (20, 3.0)), ((10, 2.0), (20, 3.5))) == 20
    assert earliest_difference(((10, 2.0),), ((10, 2.0),)) is None
