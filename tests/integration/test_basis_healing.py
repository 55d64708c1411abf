"""Splits that vendors list late, early, wrongly or not for good: what was stored meanwhile comes out as traded."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action, adjusted
from pricecache.core.bars import VOLUME, Bars
from pricecache.core.catalog import Entry
from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderUnavailable
from pricecache.providers.base import History
from pricecache.providers.chain import ProviderChain
from pricecache.providers.pool import ProviderPool
from pricecache.stores.bars import Change
from pricecache.sync.examine import Examiner
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.fakes.provider import ScriptedProvider, Truth
from tests.integration.test_sync import AAPL, DAY, HOUR, LAG, LAST_DUE, NOW, Sessions, World, split_at, walk

EX = LAST_DUE + 4  # a Monday
NEVER = 10**6


@dataclass
class Habits:
    """How a vendor tells of a split: days until it is listed, and worked in, and what it makes of its actions."""

    listed: int = 0
    worked: int = 0
    lists: Callable[[tuple[Action, ...]], tuple[Action, ...]] = field(default=lambda actions: actions)


class LateVendor(ScriptedProvider):
    """Knows what was traded; what it lists and works in depends on the day and on its habits."""

    def __init__(self, name: str = "scripted") -> None:
        super().__init__(name=name, basis="split_adjusted", final_lag=LAG)
        self.habits = Habits()
        self.is_down = False

    def _answer(self, instrument: Instrument, start: int, end: int) -> History:
        if self.is_down:
            raise ProviderUnavailable
        assert self.clock is not None
        truth, today = self.truth[instrument], int(self.clock.time() // DAY)
        worked = [a for a in truth.actions if today >= a.ex_date + self.habits.worked]
        listed = tuple(a for a in truth.actions if today >= a.ex_date + self.habits.listed)
        bars = adjusted(truth.bars, worked, "splits")
        values = bars.values.astype(np.float32).astype(np.float64)
        values[VOLUME] = np.round(bars.values[VOLUME])
        seen = Bars(bars.sessions, values).between(start, end)
        actions = tuple(a for a in self.habits.lists(listed) if a.ex_date >= start)
        return History(seen, "split_adjusted", actions, "USD", None)


@pytest.fixture
async def world(database: Any) -> AsyncIterator[World]:
    world = World(database, LateVendor(), ManualClock(NOW))
    yield world
    await world.pool.close()


def vendor(world: World) -> LateVendor:
    assert isinstance(world.provider, LateVendor)
    return world.provider


async def happened(world: World, *splits: Action, tracked_after: int = 0) -> Entry:
    bars = walk(3)
    for split in splits:
        bars = split_at(split.ex_date, split.value, bars)
    vendor(world).truth = {AAPL: Truth(bars, tuple(sorted(splits)))}
    world.clock.advance(tracked_after * DAY)
    (entry,) = await world.track(AAPL)
    return entry


async def days_pass(world: World, days: int) -> None:
    for _ in range(days):
        await world.synced()
        world.clock.advance(3 * HOUR)
        await world.synced()
        world.clock.advance(DAY - 3 * HOUR)
    await world.synced()


async def assert_exact(world: World, entry: Entry, *, actions: tuple[tuple[int, float], ...]) -> None:
    held = await world.bars.read(entry)
    truth = world.provider.truth[AAPL].bars.between(entry.state.wanted_from, int(held.sessions[-1]))
    assert held.sessions.tolist() == truth.sessions.tolist()
    assert held.values[:VOLUME] == pytest.approx(truth.values[:VOLUME], rel=2e-6)
    assert [(a.ex_date, pytest.approx(a.value)) for a in entry.actions] == list(actions)
    assert (await world.bars.verify(entry)).faults == ()
    assert entry.state.attempts == 0


@pytest.mark.parametrize(
    ("ratio", "listed", "worked", "tracked_after"),
    [
        pytest.param(4.0, 3, 0, 5, id="worked in and listed three days later"),
        pytest.param(0.1, 8, 0, 5, id="a reverse one, listed eight days later"),
        pytest.param(1.5, 5, 0, 5, id="three for two"),
        pytest.param(4.0, 1, 0, 3, id="tracked on its day, listed the day after"),
        pytest.param(4.0, 0, 1, 3, id="tracked on its day, worked in the day after"),
        pytest.param(0.1, 0, 2, 3, id="a reverse one, worked in two days after"),
        pytest.param(1.1, 1, 0, 3, id="a small one, listed the day after"),
        pytest.param(1.1, 0, 2, 3, id="a small one, worked in two days after"),
    ],
)
async def test_what_a_first_fill_assumed_wrongly_is_put_right(
    world: World, ratio: float, listed: int, worked: int, tracked_after: int
) -> None:
    vendor(world).habits = Habits(listed, worked)
    entry = await happened(world, Action(EX, "split", ratio), tracked_after=tracked_after)
    await days_pass(world, 7)
    await assert_exact(world, entry, actions=((EX, ratio),))
    assert world.calls(AAPL) <= 10  # one a day, one for the whole, one to be sure
    assert await world.quarantine.items() == []


@pytest.mark.parametrize("ratio", [4.0, 1.1])
@pytest.mark.parametrize(("listed", "worked"), [(0, 0), (0, 3), (3, 3)])
async def test_what_was_held_before_a_split_stays_as_it_was(
    world: World, ratio: float, listed: int, worked: int
) -> None:
    vendor(world).habits = Habits(listed, worked)
    entry = await happened(world, Action(EX, "split", ratio))
    await world.synced()
    before = await world.bars.read(entry)
    await days_pass(world, 9)
    await assert_exact(world, entry, actions=((EX, ratio),))
    after = await world.bars.read(entry)
    assert (after.between(None, LAST_DUE).values == before.values).all()


async def test_a_split_of_long_ago_that_is_listed_late_restates_what_stood_before_it(world: World) -> None:
    old = Action(LAST_DUE - 100, "split", 4.0)
    vendor(world).habits = Habits(listed=105)
    entry = await happened(world, old)
    await world.synced()
    await days_pass(world, 4)
    calls = world.calls(AAPL)
    vendor(world).habits = Habits()
    await world.examined(entry, start=LAST_DUE - 110)
    assert world.calls(AAPL) == calls + 2
    await assert_exact(world, entry, actions=((old.ex_date, 4.0),))


def shifted(days: int) -> Callable[[tuple[Action, ...]], tuple[Action, ...]]:
    return lambda actions: tuple(replace(a, ex_date=a.ex_date + days) for a in actions)


def valued(value: float) -> Callable[[tuple[Action, ...]], tuple[Action, ...]]:
    return lambda actions: tuple(replace(a, value=value) for a in actions)


@pytest.mark.parametrize("tracked_after", [0, 5])
@pytest.mark.parametrize(
    "wrongly",
    [
        pytest.param(shifted(1), id="a day late"),
        pytest.param(shifted(-3), id="a session early"),
        pytest.param(valued(3.0), id="by another ratio"),
        pytest.param(valued(0.25), id="the other way round"),
    ],
)
async def test_a_split_listed_wrongly_and_corrected_is_moved_and_not_doubled(
    world: World, wrongly: Callable[[tuple[Action, ...]], tuple[Action, ...]], tracked_after: int
) -> None:
    vendor(world).habits = Habits(lists=wrongly)
    entry = await happened(world, Action(EX, "split", 4.0), tracked_after=tracked_after)
    await world.synced()
    await days_pass(world, 6 - tracked_after // 2)
    vendor(world).habits = Habits()
    await world.synced()
    await days_pass(world, 1)
    await world.examined(entry, force=True, start=entry.state.wanted_from)
    await assert_exact(world, entry, actions=((EX, 4.0),))


async def test_two_splits_of_one_ratio_a_few_days_apart_are_two(world: World) -> None:
    entry = await happened(world, Action(EX, "split", 2.0), Action(EX + 3, "split", 2.0))
    await world.synced()
    await days_pass(world, 10)
    await assert_exact(world, entry, actions=((EX, 2.0), (EX + 3, 2.0)))


@pytest.mark.parametrize("tracked_after", [0, 13])
async def test_a_split_that_never_happened_shifts_nothing_for_good(world: World, tracked_after: int) -> None:
    phantom = Action(EX + 7, "split", 4.0)
    vendor(world).habits = Habits(lists=lambda actions: (*actions, phantom))
    entry = await happened(world, tracked_after=tracked_after)
    if tracked_after == 0:
        await world.synced()
        vendor(world).habits = Habits()
        await days_pass(world, 11)
    vendor(world).habits = Habits(lists=lambda actions: (*actions, phantom))
    await days_pass(world, 2)
    vendor(world).habits = Habits()
    await days_pass(world, 2)
    if tracked_after:  # it alone says so: it has to last, and to be seen as a whole
        await world.examined(entry, force=True, start=entry.state.wanted_from)
        world.clock.advance(6 * DAY)
        await world.examined(entry, force=True, start=entry.state.wanted_from)
        assert [item.code for item in await world.quarantine.items(states=("parked",))] == ["action_withdrawn"]
    await assert_exact(world, entry, actions=())


async def test_a_split_that_is_forgotten_now_and_then_is_kept(world: World) -> None:
    entry = await happened(world, Action(EX, "split", 4.0), tracked_after=6)
    for day in range(8):
        vendor(world).habits = Habits(listed=0 if day % 2 else NEVER)
        await days_pass(world, 1)
    vendor(world).habits = Habits()
    await days_pass(world, 1)
    await world.examined(entry, force=True, start=entry.state.wanted_from)
    await assert_exact(world, entry, actions=((EX, 4.0),))


async def two_providers(world: World) -> LateVendor:
    second = LateVendor("second")
    second.clock = world.clock
    chain = ProviderChain([world.pool, ProviderPool(second, world.clock)])
    world.examiner = Examiner(
        chain,
        Sessions(xnys_book()),
        world.bars,
        world.states,
        world.instruments,
        world.clock,
        random.Random(7),
        name=chain.name,
        lag=LAG,
        rank=chain.rank,
        quarantine=world.quarantine,
    )
    world.sync._examiner = world.examiner
    return second


@pytest.mark.parametrize(
    "factor", [pytest.param(0.97, id="3 % low"), pytest.param(0.01, id="another unit"), pytest.param(2.0, id="twice")]
)
async def test_what_a_stand_in_filled_locks_no_better_provider_out(world: World, factor: float) -> None:
    second = await two_providers(world)
    entry = await happened(world)
    bars = world.provider.truth[AAPL].bars
    second.truth = {AAPL: Truth(Bars(bars.sessions, bars.values * np.array([[factor]] * 4 + [[1.0]])))}
    vendor(world).is_down = True
    await days_pass(world, 2)
    assert entry.head.count > 0
    vendor(world).is_down = False
    await days_pass(world, 2)
    await assert_exact(world, entry, actions=())
    assert len(second.calls) <= 3


async def test_a_stand_in_that_does_not_list_a_split_is_replaced_as_a_whole(world: World) -> None:
    old = Action(LAST_DUE - 50, "split", 2.0)
    second = await two_providers(world)
    entry = await happened(world, old)
    second.truth, second.habits = world.provider.truth, Habits(listed=NEVER)
    vendor(world).is_down = True
    await days_pass(world, 2)
    vendor(world).is_down = False
    await days_pass(world, 2)
    await assert_exact(world, entry, actions=((old.ex_date, 2.0),))


@pytest.mark.parametrize("by_hand", [False, True])
async def test_a_file_of_prices_as_traded_that_is_rewritten_adjusted_is_understood(world: World, by_hand: bool) -> None:
    split = Action(EX, "split", 4.0)
    entry = await happened(world, split)
    traded = world.provider.truth[AAPL].bars
    vendor(world).habits = Habits(listed=NEVER, worked=NEVER)
    as_file = replace(vendor(world).habits)
    await world.synced()
    world.clock.advance(5 * DAY)
    if by_hand:
        hand = replace(split, manual=True, source="manual")
        change = Change(entry, Bars.empty(), "manual", world.clock.time(), manual=True, actions=(hand,))
        await world.bars.commit([change])
    vendor(world).habits = as_file
    listed = () if by_hand else (split,)
    seen = adjusted(traded, [split], "splits")

    def rewritten(history: History) -> History:
        first, last = int(history.bars.sessions[0]), int(history.bars.sessions[-1])
        return replace(history, basis="as_traded", bars=seen.between(first, last), actions=listed)

    world.provider.script(AAPL, *[rewritten] * 4)
    assert (await world.synced()).failures == {}
    await assert_exact(world, entry, actions=((EX, 4.0),))
