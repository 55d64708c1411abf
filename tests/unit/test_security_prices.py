"""Prices of what brokers hold are waited for as long as the clock says, however long each look takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pricecache.core.catalog import Catalog
from pricecache.portfolio.security_prices import PATIENCE_SECONDS, SecurityPrices
from tests.clock import ManualClock


class Run:
    """Never ends; a look at it takes `seconds`."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self.clock, self.seconds, self.looks = clock, seconds, 0

    async def finished(self, timeout: float) -> bool:
        self.looks += 1
        self.clock.advance(self.seconds)
        return False


@pytest.mark.parametrize(("seconds", "looks"), [(PATIENCE_SECONDS / 3, 3), (1.0, 150)])
async def test_prices_that_do_not_come_are_waited_for_by_the_clock(seconds: float, looks: int) -> None:
    clock = ManualClock()
    run = Run(clock, seconds)

    class Tracker:
        async def follow(self, first_uses: Any, by: str) -> Any:
            return SimpleNamespace(entries=[], run=run)

    async def start_run(*_: Any) -> Run:
        raise AssertionError

    prices = SecurityPrices(Tracker(), Catalog(), None, start_run, clock)  # type: ignore[arg-type]
    supply = await prices.supply([], [], "USD", 0, "test", lambda done, last: None)
    assert (supply.needed, run.looks) == (0, looks)
