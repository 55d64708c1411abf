"""Prices as the edge writes them."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pricecache.api.encoding import columns_of


@given(st.floats(5e-324, 1e300))
@example(3.6950491163000277e-19)
def test_a_price_above_nothing_is_never_written_as_nothing(price: float) -> None:
    (column,) = columns_of(np.full((5, 1), price), "splits", ["close"])
    assert abs(float(column[0]) / price - 1) < 1e-6


def test_an_adjusted_price_is_written_without_the_noise_of_its_division() -> None:
    (column,) = columns_of(np.full((5, 1), 0.1 + 0.2), "splits", ["close"])
    assert float(column[0]) == 0.3
