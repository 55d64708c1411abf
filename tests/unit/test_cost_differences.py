"""Two costs that are the same but for what a broker rounds."""

from __future__ import annotations

from decimal import Decimal as D

import pytest

from pricecache.core.walk.cost_differences import tolerance


@pytest.mark.parametrize(
    ("acquired", "currency", "apart"), [(1, "USD", "0.01"), (3, "USD", "0.02"), (1, "JPY", "1"), (3, "JPY", "2")]
)
def test_each_lot_and_their_sum_may_be_rounded_by_half_of_the_smallest_amount(
    acquired: int, currency: str, apart: str
) -> None:
    assert tolerance(acquired, currency) == D(apart)
