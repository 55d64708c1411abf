"""What the engine is told of the market."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from tests.broker_worlds import A, B

ACTIONS = (
    Action(30, "split", 0.3333333333),
    Action(20, "dividend", 1.0),
    Action(10, "split", 2.0),
    Action(15, "rebase", 3.0),
)
MARKET = MarketData({A: PriceColumn(Column(np.arange(1), np.ones(1)), "USD", ACTIONS)})
FIRST, SECOND = (10, Fraction(2)), (30, Fraction(1, 3))


@pytest.mark.parametrize(
    ("days", "found"),
    [((), [FIRST, SECOND]), ((9, 30), [FIRST, SECOND]), ((10, 30), [SECOND]), ((9, 29), [FIRST]), ((10, 29), [])],
)
def test_splits_are_those_after_a_day_up_to_another(days: tuple[int, ...], found: list[tuple[int, Fraction]]) -> None:
    assert MARKET.splits(A, *days) == found
    assert MARKET.splits(B, *days) == []
