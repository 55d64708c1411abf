"""Several providers of one history: whose bar stands, when another one is asked, and in which lane."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.asking import Lane
from pricecache.core.bars import CLOSE, Bars
from pricecache.core.catalog import Entry
from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderUnavailable
from pricecache.metrics import Metrics
from pricecache.providers.base import History, Quotes
from pricecache.providers.chain import ProviderChain
from pricecache.providers.pool import ProviderPool
from pricecache.sync.examine import Examiner
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.fakes.provider import ScriptedProvider, Truth
from tests.integration.test_sync import AAPL, DAY, HOUR, LAG, LAST_DUE, NOW, XNYS, Sessions, World, lacking, walk


class Asked:
    """A source that keeps how it was asked, in front of another one."""

    def __init__(self, chain: ProviderChain) -> None:
        self.chain = chain
        self.how: list[tuple[Lane, int]] = []

    async def history(
        self, instrument: Instrument, start: int, end: int, *, lane: Lane = "heal", turn: int = 0
    ) -> History:
        self.how.append((lane, turn))
        return await self.chain.history(instrument, start, end, lane=lane, turn=turn)

    async def quotes(self, instruments: Any, *, lane: Lane = "live") -> Quotes:
        return await self.chain.quotes(instruments, lane=lane)


class TwoProviders(World):
    """`provider` comes first, `second` after it; what `second` says of a close is 1 % more."""

    def __init__(self, database: Any) -> None:
        super().__init__(database, ScriptedProvider("first", final_lag=LAG), ManualClock(NOW))
        self.second = ScriptedProvider("second", final_lag=LAG)
        truth = walk(3)
        self.provider.truth[AAPL] = Truth(truth)
        values = truth.values * np.array([[1.01]] * (CLOSE + 1) + [[1.0]])
        chance = np.random.default_rng(1).normal(1, 0.002, len(truth))
        values[: CLOSE + 1] *= chance
        self.second.truth[AAPL] = Truth(Bars(truth.sessions, values))
        self.second_pool = ProviderPool(self.second, self.clock)
        chain = ProviderChain([self.pool, self.second_pool])
        self.source, self.metrics = Asked(chain), Metrics("0")
        self.examiner = self.sync._examiner = self.backfiller._examiner = Examiner(
            self.source,
            Sessions(xnys_book()),
            self.bars,
            self.states,
            self.instruments,
            self.clock,
            random.Random(7),
            name=chain.name,
            lag=LAG,
            rank=chain.rank,
            quarantine=self.quarantine,
            metrics=self.metrics,
        )

    async def sources(self, entry: Entry) -> dict[int, str]:
        found: dict[int, str] = {}
        for year in (await self.bars.packed(entry)).values():
            found |= dict(zip(year.bars.sessions.tolist(), year.provenance.names().tolist(), strict=True))
        return found


@pytest.fixture
async def world(database: Any) -> AsyncIterator[TwoProviders]:
    world = TwoProviders(database)
    yield world
    await world.pool.close()
    await world.second_pool.close()


def days(count: int) -> list[int]:
    return [int(s) for s in XNYS.between(LAST_DUE + 1, LAST_DUE + 60)[:count]]


async def test_while_the_first_is_away_the_second_fills_and_never_replaces_what_the_first_said(
    world: TwoProviders,
) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    before = await world.bars.read(entry)
    world.provider.script(AAPL, *[ProviderUnavailable()] * 20)
    for session in days(10):
        world.clock.set((session + 1) * DAY + HOUR)
        await world.synced()
    assert entry.head.last == days(10)[-1]
    after = await world.bars.read(entry)
    assert (after.between(None, LAST_DUE).values == before.values).all()
    sources = await world.sources(entry)
    assert [sources[session] for session in days(10)] == ["second"] * 10
    said = entry.state.divergences["providers_disagree"]
    assert said.provider == "second"
    assert b'pricecache_provider_disagreements_total{other="first",provider="second"}' in world.metrics.exposition()

    world.provider._scripts.clear()
    world.clock.set((days(11)[-1] + 1) * DAY + HOUR)
    await world.synced()
    assert set((await world.sources(entry)).values()) == {"first"}
    await world.assert_whole(AAPL, last=days(11)[-1])
    calls = world.calls(AAPL)
    world.clock.set((days(12)[-1] + 1) * DAY + HOUR)
    await world.synced()
    assert world.calls(AAPL) == calls + 1


async def test_an_action_of_the_first_is_not_replaced_by_the_seconds_word(world: TwoProviders) -> None:
    dividend = Action(LAST_DUE - 3, "dividend", 0.82, "USD")
    for provider, value in ((world.provider, 0.82), (world.second, 0.8)):
        provider.truth[AAPL] = replace(provider.truth[AAPL], actions=(replace(dividend, value=value),))
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.provider.script(AAPL, ProviderUnavailable())
    world.clock.advance(DAY)
    await world.synced()
    assert entry.head.last == LAST_DUE + 1
    assert [(action.value, action.source) for action in entry.actions] == [(0.82, "first")]


async def test_a_hole_is_asked_of_the_other_provider_the_second_time(world: TwoProviders) -> None:
    (entry,) = await world.track(AAPL)
    hole = int(world.provider.truth[AAPL].bars.between(None, LAST_DUE).sessions[-60])
    without: Callable[[History], History] = lacking(hole)
    world.provider.script(AAPL, *[without] * 10)
    await world.synced()
    assert entry.state.holes.keys() == {hole}
    for _ in range(9):
        world.clock.advance(3 * HOUR)
        await world.synced()
    assert (await world.sources(entry))[hole] == "second"
    assert not entry.state.holes
    assert ("heal", 1) in world.source.how


@pytest.mark.parametrize(
    ("years", "by", "lane"), [(1, None, "heal"), (3, None, "deep"), (3, "operator", "user"), (3, "settings", "deep")]
)
async def test_what_a_person_waits_for_goes_first_and_what_fills_far_back_last(
    world: TwoProviders, years: int, by: str | None, lane: Lane
) -> None:
    (entry,) = await world.instruments.add([AAPL], wanted_from=LAST_DUE - years * 365, tracked=True, by="test", now=NOW)
    if by is None:
        await world.synced()
    else:
        run = await _run(world, by)
        assert run.counts["stored"] == 1
    assert world.source.how == [(lane, 0)]
    assert entry.head.count


async def _run(world: World, by: str) -> Any:
    from pricecache.sync.backfill import backfill_parameters
    from tests.integration.test_sync import Handle, Requested

    handle = Handle(Requested(by), backfill_parameters([AAPL]))
    await world.backfiller.run(handle)
    return handle


async def test_while_the_first_is_in_another_unit_the_second_fills(world: TwoProviders) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    since = days(1)[0]

    def flipped(history: History) -> History:
        values = history.bars.values.copy()
        values[: CLOSE + 1, history.bars.sessions >= since] *= 100
        return replace(history, bars=Bars(history.bars.sessions, values))

    world.provider.script(AAPL, *[flipped] * 100)
    for session in days(8):
        world.clock.set((session + 1) * DAY - HOUR)
        for _ in range(7):
            world.clock.advance(3 * HOUR)
            await world.synced()
    assert entry.head.last is not None
    assert entry.head.last >= days(7)[-1]
    sources = await world.sources(entry)
    assert {sources[session] for session in days(7)} == {"second"}
    world.provider._scripts.clear()
    world.clock.set((days(10)[-1] + 1) * DAY)
    await world.synced()
    assert set((await world.sources(entry)).values()) == {"first"}
    await world.assert_whole(AAPL, last=days(10)[-1])


async def test_after_an_answer_that_makes_no_sense_the_other_provider_is_asked_first(world: TwoProviders) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()

    def mixed(history: History) -> History:
        values = history.bars.values.copy()
        values[: CLOSE + 1, :2] *= 4
        return replace(history, bars=Bars(history.bars.sessions, values))

    world.provider.script(AAPL, *[mixed] * 10)
    world.clock.advance(DAY)
    assert (await world.synced()).failures == {"AAPL:US": "basis_mixed"}
    world.clock.advance(3 * HOUR)
    assert (await world.synced()).failures == {}
    assert entry.head.last == days(1)[0]
