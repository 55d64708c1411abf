"""Day ranges in memory: what is not saved yet is neither lost nor kept for good."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest
from pymongo.errors import AutoReconnect

from pricecache.realtime.day_ranges import DayRanges
from pricecache.stores.day_ranges import DayRange, DayRangeStore
from tests.clock import ManualClock


class FaultyStore:
    """Keeps what is saved. `error`: what the next save raises; `going_on`: called while it goes on; `gate`: what it
    waits for."""

    def __init__(self) -> None:
        self.saved: dict[str, DayRange] = {}
        self.error: Exception | None = None
        self.going_on: Any = lambda: None
        self.gate: asyncio.Event | None = None

    async def save(self, ranges: Sequence[DayRange]) -> None:
        self.going_on()
        if self.gate is not None:
            await self.gate.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.saved.update({one.portfolio: one for one in ranges})

    async def load(self, portfolios: Iterable[str], since_day: int) -> dict[str, DayRange]:
        return {one: self.saved[one] for one in portfolios if one in self.saved}


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def ranges(store: FaultyStore) -> DayRanges:
    return DayRanges(cast(DayRangeStore, store), ManualClock())


async def test_what_is_forgotten_while_a_save_fails_is_saved_the_next_time(
    ranges: DayRanges, store: FaultyStore
) -> None:
    ranges.note("p", 20000, 5.0)
    store.error = AutoReconnect("away")
    store.going_on = lambda: ranges.forget("p")
    await ranges.save()
    store.going_on = lambda: None
    await ranges.save()
    assert store.saved["p"].high == 5.0


async def test_a_save_that_is_cut_short_is_made_up_for(ranges: DayRanges, store: FaultyStore) -> None:
    ranges.note("p", 20000, 5.0)
    store.gate = asyncio.Event()
    saving = asyncio.create_task(ranges.save(), name="saving")
    await asyncio.sleep(0)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    store.gate = None
    await ranges.save()
    assert store.saved["p"].high == 5.0


async def test_what_is_forgotten_before_it_was_saved_goes_with_the_save(ranges: DayRanges, store: FaultyStore) -> None:
    ranges.note("p", 20000, 5.0)
    ranges.forget("p")
    assert ranges.get("p", 20000) is not None
    await ranges.save()
    assert ranges.get("p", 20000) is None
    assert store.saved["p"].high == 5.0


async def test_who_is_followed_again_before_the_save_keeps_its_range(ranges: DayRanges) -> None:
    ranges.note("p", 20000, 5.0)
    ranges.forget("p")
    await ranges.load(["p"])
    await ranges.save()
    found = ranges.get("p", 20000)
    assert found is not None
    assert found.high == 5.0


async def test_a_change_by_a_ledger_before_its_last_correction_counts_no_more(ranges: DayRanges) -> None:
    ranges.note("p", 20000, 900.0, corrections=1)
    ranges.note("p", 20000, 5.0, corrections=2)
    ranges.note("p", 20000, 900.0, corrections=1)  # a summary that was under way when the correction came
    found = ranges.get("p", 20000)
    assert found is not None
    assert (found.high, found.low) == (5.0, 5.0)
