"""A store full of holes, splits under way and a provider that fails: what the daemon makes of it by itself."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.bars import VOLUME, Bars, day_number, same_values
from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderAnswerBad, ProviderError, ProviderUnavailable
from pricecache.providers.base import History
from pricecache.stores.bars import Change
from tests.clock import ManualClock
from tests.fakes.provider import ScriptedProvider, Truth
from tests.simulation import Simulation, random_walk, simulation

HOUR = 3600.0
SERIES, YEARS, HOLES, FAILING = 500, 10, 0.01, 0.3
NOW = datetime(2026, 11, 20, 22, tzinfo=UTC).timestamp()  # a Friday, an hour after New York closed
TODAY = day_number(date(2026, 11, 20))
FIRST = day_number(date(2016, 11, 21))
SPLITS = (2.0, 3.0, 4.0, 0.1, 20.0)
"""Of the first five series, all in effect since this Friday; the store has none of them."""


class FailingProvider(ScriptedProvider):
    """Answers truly seven times of ten; else fails in one of the ways that pass."""

    def __init__(self, seed: int) -> None:
        super().__init__(basis="split_adjusted")
        self.chance = random.Random(seed)
        self.failed: Counter[str] = Counter()

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        answer = super().history(instrument, start, end)
        with self._lock:
            fails = self.chance.random() < FAILING
            failure: ProviderError = self.chance.choice(FAILURES)()
            if fails:
                self.failed[type(failure).__name__] += 1
        if fails:
            raise failure
        return answer


FAILURES: tuple[Callable[[], ProviderError], ...] = (ProviderUnavailable, ProviderUnavailable, ProviderAnswerBad)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_years_of_500_symbols_with_holes_and_splits_converge_to_the_truth(
    database: Any, tmp_path: Path
) -> None:
    clock, provider = ManualClock(NOW), FailingProvider(seed=20261120)
    async with simulation(database, clock, [provider], tmp_path, backfill_days=TODAY - FIRST) as daemon:
        truth = await store_full_of_holes(daemon, provider)
        cycles = 0
        while any(entry.sessions is None or not whole(entry, truth) for entry in daemon.parts.prices.catalog.tracked()):
            assert (cycles := cycles + 1) <= 16, "two days of cycles were not enough"
            await daemon.sync()
            clock.advance(3 * HOUR)
        await same_as(daemon, truth)
        least = SERIES + provider.failed.total()
        assert len(provider.calls) <= 1.5 * least, (len(provider.calls), least, provider.failed)
        made = len(provider.calls)
        await daemon.sync()
        assert len(provider.calls) == made, "what is whole was asked for again"


async def store_full_of_holes(daemon: Simulation, provider: ScriptedProvider) -> dict[Instrument, Bars]:
    """Everything up to Thursday, but for a hundredth of it, and no word of the splits of Friday."""
    calendar = daemon.book.get("XNYS")
    chance = np.random.default_rng(1)
    instruments = [Instrument(f"S{number:03}") for number in range(SERIES)]
    truth = {}
    await daemon.track(instruments)
    changes = []
    for number, instrument in enumerate(instruments):
        bars = random_walk(number, calendar, FIRST, TODAY)
        actions: tuple[Action, ...] = ()
        if number < len(SPLITS):
            actions = (Action(TODAY, "split", SPLITS[number]),)
            bars.values[:VOLUME, -1] /= SPLITS[number]
            bars.values[VOLUME, -1] *= SPLITS[number]
        truth[instrument] = bars
        provider.truth[instrument] = Truth(bars, actions)
        kept = (chance.random(len(bars)) >= HOLES) & (bars.sessions < TODAY)
        entry = daemon.parts.prices.catalog.require(instrument)
        changes.append(Change(entry, Bars(bars.sessions[kept], bars.values[:, kept]), provider.name, NOW - 86400))
    for first in range(0, SERIES, 25):
        await daemon.parts.prices.bars.commit(changes[first : first + 25])
    for instrument in instruments:
        entry = daemon.parts.prices.catalog.require(instrument)
        state = replace(entry.state, answered_from=FIRST, answered_to=TODAY - 1, last_update=NOW - 86400)
        await daemon.parts.prices.states.save(entry, replace(state, wanted_from=FIRST, audited_at=NOW - 86400))
    return truth


def whole(entry: Any, truth: dict[Instrument, Bars]) -> bool:
    return np.array_equal(entry.sessions, truth[entry.instrument].sessions)


async def same_as(daemon: Simulation, truth: dict[Instrument, Bars]) -> None:
    for instrument, bars in truth.items():
        entry = daemon.parts.prices.catalog.require(instrument)
        held = await daemon.parts.prices.bars.read(entry)
        assert np.array_equal(held.sessions, bars.sessions), instrument
        assert same_values(held.values, bars.values).all(), instrument
    splits = [
        a.value for n in range(len(SPLITS)) for a in daemon.parts.prices.catalog.require(Instrument(f"S{n:03}")).actions
    ]
    assert splits == list(SPLITS)
