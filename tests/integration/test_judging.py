"""What becomes of a provider's answers, with the patterns vendors really show: stored, parked, refused, told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricecache.core.actions import Action, Adjust, adjusted
from pricecache.core.bars import CLOSE, VOLUME, Bars, same_values
from pricecache.core.catalog import Entry
from pricecache.core.coverage import Withheld, coverage
from pricecache.core.healing import delisted, reviewed
from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderUnavailable, SymbolNotFound
from pricecache.providers.base import History
from pricecache.stores.bars import Change
from pricecache.stores.quarantine import Item
from tests.clock import ManualClock
from tests.fakes.provider import ScriptedProvider, Truth
from tests.integration.test_sync import (
    AAPL,
    DAY,
    DEPTH_DAYS,
    HOUR,
    LAG,
    LAST_DUE,
    NOW,
    XNYS,
    World,
    lacking,
    split_at,
    walk,
)

CONTROL = Instrument.parse("CTRL")
"""What the provider has as long as it works: with it a dead symbol is told from an outage, as in the daemon."""
FRIDAY = LAST_DUE + 1
MONDAY = FRIDAY + 3
AFTER_MONDAY = datetime(2026, 11, 24, 10, tzinfo=UTC).timestamp()
LATER = XNYS.between(FRIDAY, FRIDAY + 40).tolist()


@pytest.fixture
def provider() -> ScriptedProvider:
    provider = ScriptedProvider(basis="split_adjusted", final_lag=LAG)
    provider.truth = {AAPL: Truth(walk(3)), CONTROL: Truth(walk(4))}
    provider.control = CONTROL
    return provider


@pytest.fixture
async def world(database: Any, provider: ScriptedProvider) -> AsyncIterator[World]:
    world = World(database, provider, ManualClock(NOW))
    yield world
    await world.pool.close()


async def held_before(world: World, split: Action, *others: Action) -> Entry:
    """AAPL filled up to Thursday, before any of its actions; then they happen."""
    (entry,) = await world.track(AAPL)
    world.provider.truth[AAPL] = Truth(split_at(split.ex_date, split.value, walk(3)), tuple(sorted((split, *others))))
    await world.synced()
    await world.assert_whole(AAPL)
    return entry


def changed(change: Callable[[History], Bars]) -> Callable[[History], History]:
    return lambda history: replace(history, bars=change(history))


def unlisted(history: History) -> History:
    return replace(history, actions=())


def times(bars: Bars, factor: float, which: Any, *, volume: bool = True) -> Bars:
    """Prices of `which` × `factor`, and the volume ÷ it."""
    values = bars.values.copy()
    values[:VOLUME, which] *= factor
    if volume:
        values[VOLUME, which] /= factor
    return Bars(bars.sessions, values)


def as_if_unsplit(split: Action) -> Callable[[History], History]:
    """Listed, and not worked into the rows before it."""
    return changed(lambda h: times(h.bars, split.value, h.bars.sessions < split.ex_date))


async def items(world: World, *states: str) -> list[Item]:
    return await world.quarantine.items(states=states or ("parked", "rejected"))


SPLITS = [Action(MONDAY, "split", ratio) for ratio in (4.0, 0.1, 1.5, 20.0)]


@pytest.mark.parametrize("split", SPLITS, ids=str)
async def test_a_split_that_is_worked_in_rewrites_no_bar_and_every_mode_is_one_series(
    world: World, split: Action
) -> None:
    dividend = Action(LAST_DUE - 30, "dividend", 0.82, "USD")
    entry = await held_before(world, split, dividend)
    before = await world.bars.read(entry)
    world.clock.set(AFTER_MONDAY)
    assert (await world.synced()).counts["replaced"] == 0
    await world.assert_whole(AAPL, last=MONDAY)
    after = await world.bars.read(entry)
    assert (after.between(None, LAST_DUE).values == before.values).all()
    truth = world.provider.truth[AAPL]
    modes: tuple[Adjust, ...] = ("none", "splits", "all")
    for mode in modes:
        ours = adjusted(after, entry.actions, mode, "USD")
        theirs = adjusted(truth.bars.between(entry.state.wanted_from, MONDAY), sorted(truth.actions), mode, "USD")
        assert same_values(ours.values, theirs.values).all()
    steps = np.abs(np.diff(np.log(adjusted(after, entry.actions, "splits").close)))
    assert steps.max() < 0.1


@pytest.mark.parametrize("split", SPLITS, ids=str)
async def test_a_split_listed_and_not_worked_in_yet_is_none_in_the_rows(world: World, split: Action) -> None:
    entry = await held_before(world, split)
    world.clock.set(AFTER_MONDAY)
    world.provider.script(AAPL, as_if_unsplit(split))
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=MONDAY)
    head = entry.head
    assert (await world.examined(entry, start=LAST_DUE - 100)).outcome == "unchanged"  # worked in by now
    assert entry.head == head


async def test_a_split_listed_on_its_day_and_worked_in_the_day_after_disturbs_nothing(world: World) -> None:
    """On the day itself no bar of it is final: only rows before it come, with or without the split in them."""
    split = Action(FRIDAY, "split", 4.0)
    entry = await held_before(world, split)
    world.clock.set(datetime(2026, 11, 20, 15, tzinfo=UTC))
    head = entry.head

    def listed(history: History) -> History:
        bars = times(history.bars, 4.0, slice(None)) if history.bars.close[0] < 60 else history.bars
        return replace(history, bars=bars, actions=(split,))

    world.provider.script(AAPL, listed)
    examination = await world.examined(entry, start=LAST_DUE - 20)
    assert examination.outcome == "unchanged"
    assert entry.head == head
    world.clock.set(AFTER_MONDAY)
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=MONDAY)


async def test_a_split_worked_into_most_rows_only_stores_nothing_and_heals_when_it_is_done(world: World) -> None:
    split = Action(MONDAY, "split", 4.0)
    entry = await held_before(world, split)
    world.clock.set(AFTER_MONDAY)
    head = entry.head
    world.provider.script(AAPL, changed(lambda h: times(h.bars, 4.0, [1, 2])))
    assert (await world.synced()).failures == {"AAPL:US": "basis_mixed"}
    assert entry.head == head
    assert [(item.code, item.kind, item.state) for item in await items(world)] == [
        ("basis_mixed", "answer", "rejected")
    ]
    world.clock.advance(DAY)
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=MONDAY + 1)
    assert await items(world) == []


@pytest.mark.parametrize("left_out", [slice(-4, -1), slice(-1, None)])
async def test_a_first_answer_with_a_split_worked_into_most_rows_only_waits(world: World, left_out: slice) -> None:
    split = Action(LAST_DUE, "split", 4.0)
    world.provider.truth[AAPL] = Truth(split_at(LAST_DUE, 4.0, walk(3)), (split,))
    (entry,) = await world.track(AAPL)
    is_before = left_out.stop is not None
    world.provider.script(AAPL, changed(lambda h: times(h.bars, 4.0 if is_before else 1.0, left_out)))
    failures = (await world.synced()).failures
    assert failures == ({"AAPL:US": "basis_mixed"} if is_before else {})
    world.clock.advance(DAY)
    await world.synced()
    await world.assert_whole(AAPL, last=FRIDAY)
    assert entry.state.attempts == 0


@pytest.mark.parametrize("split", SPLITS, ids=str)
async def test_a_split_worked_in_days_before_it_is_listed_is_suggested_and_heals_once_it_is(
    world: World, split: Action
) -> None:
    entry = await held_before(world, split)
    world.clock.set(AFTER_MONDAY)
    head = entry.head
    world.provider.script(AAPL, unlisted)
    assert (await world.synced()).failures == {"AAPL:US": "basis_unexplained"}
    assert entry.head == head
    (item,) = await items(world)
    assert (item.code, item.state, item.session) == ("basis_unexplained", "parked", None)
    assert item.ratio == pytest.approx(1 / split.value)
    assert item.suggestion is not None
    assert item.suggestion["kind"] == "split"
    assert item.suggestion["ratio"] == pytest.approx(split.value)
    world.clock.advance(DAY)
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=MONDAY + 1)
    assert await items(world) == []
    assert [item.state for item in await items(world, "resolved")] == ["resolved"]


async def test_a_split_put_in_by_a_person_explains_the_answer_at_the_next_sync(world: World) -> None:
    split = Action(MONDAY, "split", 4.0)
    entry = await held_before(world, split)
    world.clock.set(AFTER_MONDAY)
    world.provider.script(AAPL, unlisted, unlisted)
    await world.synced()
    await world.states.save(entry, replace(entry.state, next_retry=AFTER_MONDAY + DAY))
    by_hand = replace(split, manual=True, source="manual")
    await world.bars.commit([Change(entry, Bars.empty(), "manual", AFTER_MONDAY, manual=True, actions=(by_hand,))])
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=MONDAY)
    assert await items(world) == []


@pytest.mark.parametrize("ratio", [4.0, 20.0, 0.1])
async def test_a_split_listed_days_after_it_took_effect_is_history_by_then(world: World, ratio: float) -> None:
    """Neither listed nor worked in at first; then both at once."""
    split = Action(MONDAY, "split", ratio)
    entry = await held_before(world, split)
    world.provider.script(AAPL, *[lambda h: unlisted(as_if_unsplit(split)(h))] * 3)
    for day in range(3):
        world.clock.set(AFTER_MONDAY + day * DAY)
        await world.synced()
    shows_as_a_jump = abs(np.log(ratio)) > 1.5
    assert {item.code for item in await items(world)} == ({"jump"} if shows_as_a_jump else set())
    # of the first day it came with the same on three days
    assert entry.state.parked.keys() == set(range(MONDAY + 1, MONDAY + 3) if shows_as_a_jump else ())
    world.clock.advance(DAY)
    await world.examined(entry, start=LAST_DUE - 30)
    await world.assert_whole(AAPL, last=MONDAY + 2)  # the next day is Thanksgiving
    assert [action.value for action in entry.actions] == [ratio]
    assert await items(world) == []
    assert not entry.state.parked


async def test_a_split_worked_in_twice_is_undone_twice(world: World) -> None:
    split = Action(MONDAY, "split", 4.0)
    entry = await held_before(world, split, Action(LAST_DUE - 1, "dividend", 1.2, "USD"))
    twice = changed(lambda h: times(h.bars, 0.25, h.bars.sessions < MONDAY))
    world.clock.set(AFTER_MONDAY)
    world.provider.script(AAPL, twice)
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=MONDAY)
    assert [(a.kind, a.value) for a in entry.actions] == [("dividend", 1.2), ("split", 4.0)]


async def test_a_first_answer_with_a_split_worked_in_twice_is_undone_twice(world: World) -> None:
    split = Action(LAST_DUE - 40, "split", 2.0)
    world.provider.truth[AAPL] = Truth(split_at(split.ex_date, 2.0, walk(3)), (split,))
    await world.track(AAPL)
    world.provider.script(AAPL, changed(lambda h: times(h.bars, 0.5, h.bars.sessions < split.ex_date)))
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL)


@pytest.mark.parametrize("off", [-3, 1])
@pytest.mark.parametrize("first", [False, True])
async def test_a_split_listed_on_two_neighbouring_days_counts_once(world: World, off: int, first: bool) -> None:
    split = Action(MONDAY, "split", 4.0)
    twin = replace(split, ex_date=MONDAY + off)
    if first:
        world.provider.truth[AAPL] = Truth(split_at(MONDAY, 4.0, walk(3)), (split,))
        (entry,) = await world.track(AAPL)
    else:
        entry = await held_before(world, split)
    world.clock.set(AFTER_MONDAY + 10 * DAY)
    world.provider.script(AAPL, lambda h: replace(h, actions=tuple(sorted((*h.actions, twin)))))
    assert (await world.synced()).failures == {}
    assert [(a.kind, a.value) for a in entry.actions] == [("split", 4.0)]
    held = await world.bars.read(entry)
    truth = world.provider.truth[AAPL].bars.between(entry.state.wanted_from, int(held.sessions[-1]))
    beside = (truth.sessions >= MONDAY) & (truth.sessions < MONDAY + 1) if off == 1 else np.zeros(len(truth), bool)
    assert same_values(held.values, truth.values)[~beside].all()


@pytest.mark.parametrize(
    ("ratio", "volume"), [(0.8137, True), (0.5, False), (0.25, False), (100.0, False), (1 / 1.37, True)]
)
async def test_a_ratio_that_is_no_split_is_parked_without_a_suggestion(
    world: World, ratio: float, volume: bool
) -> None:
    """A spin-off, another unit, another currency: nobody can tell from the rows."""
    (entry,) = await world.track(AAPL)
    await world.synced()
    head = entry.head
    world.clock.advance(DAY)
    world.provider.script(AAPL, changed(lambda h: times(h.bars, ratio, slice(None), volume=volume)))
    assert (await world.synced()).failures == {"AAPL:US": "basis_unexplained"}
    (item,) = await items(world)
    assert (item.state, item.suggestion, entry.head) == ("parked", None, head)
    assert item.ratio == pytest.approx(ratio)


def flipped_from(session: int) -> Callable[[History], History]:
    return changed(lambda h: times(h.bars, 100.0, h.bars.sessions >= session, volume=False))


async def test_bars_in_another_unit_are_parked_and_asked_for_once_a_day_until_they_are_right(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.provider.script(AAPL, *[flipped_from(FRIDAY)] * 6)
    calls = world.calls(AAPL)
    world.clock.set(AFTER_MONDAY)
    for _ in range(16):
        await world.synced()
        world.clock.advance(3 * HOUR)
    assert entry.state.attempts == 0
    assert world.calls(AAPL) - calls <= 3 + 2  # for new sessions, and once a day for what is parked
    assert entry.head.last == LAST_DUE
    parked = {item.session: item for item in await items(world)}
    assert set(parked) == set(entry.state.parked) == {FRIDAY, *range(MONDAY, MONDAY + 3)}
    assert {item.code for item in parked.values()} == {"unit_flip"}
    assert parked[FRIDAY].times > 1
    covered = coverage(await world.bars.held(entry), XNYS, entry.state, FRIDAY, MONDAY, world.clock.time(), LAG)
    assert [(s.absence, s.count) for s in covered.missing] == [("failing", 2)]
    assert covered.missing[0].next_retry is not None
    assert not entry.state.absent
    world.provider._scripts.clear()
    world.clock.advance(DAY)
    await world.synced()
    await world.assert_whole(AAPL, last=MONDAY + 2)
    assert not entry.state.parked
    assert await items(world) == []
    assert {item.state for item in await items(world, "resolved")} == {"resolved"}


async def test_one_spoiled_row_costs_the_others_nothing(world: World) -> None:
    (entry,) = await world.track(AAPL)
    spoiled = LAST_DUE - 100
    spoiled = int(XNYS.between(spoiled, spoiled + 7)[0])
    world.provider.script(AAPL, changed(lambda h: times(h.bars, 3.0, h.bars.sessions == spoiled, volume=False)))
    examination = await world.examined(entry)
    assert (examination.parked, examination.outcome) == (1, "stored")
    assert [(item.code, item.session) for item in await items(world)] == [("spike", spoiled)]
    assert spoiled not in (await world.bars.held(entry)).tolist()
    world.clock.advance(DAY)
    await world.synced()  # the new session first; what was answered before waits for a call of its own
    await world.synced()
    await world.assert_whole(AAPL, last=FRIDAY)


async def test_a_crash_is_parked_until_its_provider_still_has_it_on_the_third_day(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    truth = world.provider.truth[AAPL].bars
    world.provider.truth[AAPL] = Truth(times(truth, 0.1, truth.sessions >= FRIDAY))
    heads = []
    for session in LATER[:7]:
        world.clock.set((session + 1) * DAY)
        await world.synced()
        heads.append(entry.head.last)
    assert heads[:2] == [LAST_DUE] * 2
    assert heads[2:] == [LATER[0], *LATER[3:7]]
    await world.assert_whole(AAPL, last=LATER[6])
    assert await items(world) == []


async def test_another_currency_is_refused_told_and_forgotten_when_the_first_is_back(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.clock.advance(DAY)
    head = entry.head
    world.provider.script(AAPL, lambda h: replace(h, currency="CAD"))
    assert (await world.synced()).failures == {"AAPL:US": "currency_changed"}
    assert entry.head == head
    assert entry.state.divergences.keys() == {"other_currency"}
    assert [item.code for item in await items(world)] == ["other_currency"]
    world.clock.advance(DAY)
    await world.synced()
    assert entry.state.divergences == {}
    assert await items(world) == []


async def test_a_provider_that_has_less_is_told_until_it_has_all_again(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    sessions = (await world.bars.held(entry)).tolist()
    world.provider.script(AAPL, lacking(*sessions[10:20]))
    await world.examined(entry, force=True, start=sessions[0])
    said = entry.state.divergences["provider_has_less"]
    assert (said.first, said.last, said.count, said.provider) == (sessions[10], sessions[19], 10, "scripted")
    world.clock.advance(DAY)
    await world.synced()  # looks at the last five only
    assert "provider_has_less" in entry.state.divergences
    await world.examined(entry, force=True, start=sessions[0])
    assert entry.state.divergences == {}


async def test_rows_in_another_order_are_not_taken_for_missing(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.provider.script(AAPL, changed(lambda h: Bars(h.bars.sessions[::-1], h.bars.values[:, ::-1])))
    assert (await world.examined(entry, start=LAST_DUE - 30)).outcome == "unchanged"
    assert not entry.state.divergences


async def test_an_action_that_is_listed_no_more_is_kept_and_told(world: World) -> None:
    dividend = Action(LAST_DUE - 30, "dividend", 0.82, "USD")
    world.provider.truth[AAPL] = Truth(walk(3), (dividend,))
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.provider.script(AAPL, unlisted)
    await world.examined(entry, force=True, start=LAST_DUE - 60)
    assert [action.value for action in entry.actions] == [0.82]
    assert "dividend" in entry.state.divergences["action_withdrawn"].detail
    await world.examined(entry, force=True, start=LAST_DUE - 60)
    assert entry.state.divergences == {}


async def test_whole_histories_are_asked_for_again_every_month_and_corrected(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    filled_at = entry.state.audited_at
    assert filled_at == NOW
    truth = world.provider.truth[AAPL].bars
    old = int(truth.between(entry.state.wanted_from, None).sessions[20])
    world.provider.truth[AAPL] = Truth(times(truth, 1.02, truth.sessions == old))
    audits: list[float] = []
    for _ in range(70):
        world.clock.advance(DAY)
        await world.synced()
        if (at := entry.state.audited_at) is not None and at not in (filled_at, *audits):
            audits.append(at)
    assert len(audits) in (2, 3)
    assert np.diff(audits).min() >= 29 * DAY
    held = await world.bars.read(entry)
    at = int(held.sessions.searchsorted(old))
    assert held.values[CLOSE, at] == pytest.approx(world.provider.truth[AAPL].bars.between(old, old).close[0])


async def test_an_audit_that_makes_no_sense_keeps_nothing_from_being_asked_for_daily(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    await world.states.save(entry, replace(entry.state, audited_at=NOW - 40 * DAY))
    world.provider.script(AAPL, changed(lambda h: times(h.bars, 4.0, slice(5, 9))))
    world.clock.advance(DAY)
    assert (await world.synced()).failures == {"AAPL:US": "basis_mixed"}
    assert entry.state.attempts == 0
    assert entry.state.audited_at == world.clock.time()
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=FRIDAY)


async def test_a_symbol_not_found_on_three_days_counts_as_dead_and_is_asked_for_weekly(world: World) -> None:
    dead = Instrument.parse("DEAD")
    (entry,) = await world.track(dead)
    asked = []
    for _ in range(8 * 25):
        calls = world.calls(dead)
        await world.synced()
        asked += [world.clock.time()] * (world.calls(dead) - calls)
        world.clock.advance(3 * HOUR)
    since = entry.state.quarantined_at
    assert since is not None
    assert 1 * DAY <= since - NOW <= 6 * DAY
    assert entry.state.code == "quarantined"
    assert entry.state.not_found >= 5
    probes = [at for at in asked if at > since]
    assert 2 <= len(probes) <= 3
    assert np.diff([since, *probes]).min() > 6 * DAY
    calls = world.calls(dead)
    await world.synced(force=True)
    assert world.calls(dead) == calls + 1
    assert entry.state.quarantined_at == since  # asked for by hand, and still not found
    world.provider.truth[dead] = Truth(walk(5))
    await world.backfiller.backfill(dead)
    assert entry.state.quarantined_at is None
    await world.assert_whole(dead, last=int(XNYS.last_closed(world.clock.time(), LAG) or 0))


@pytest.mark.parametrize("control_works", [False, True])
async def test_an_outage_quarantines_nobody(world: World, control_works: bool) -> None:
    dead = Instrument.parse("DEAD")
    (entry,) = await world.track(dead)
    if control_works:
        world.provider.script(dead, *[ProviderUnavailable()] * 200)
    else:
        world.provider.script(CONTROL, *[SymbolNotFound()] * 200)
    for _ in range(40):
        await world.synced()
        world.clock.advance(3 * HOUR)
    assert entry.state.quarantined_at is None
    assert entry.state.not_found == 0
    assert entry.state.attempts > (10 if control_works else 0)  # once the breaker is open most are not asked for


removed = st.sets(st.integers(0, 249), max_size=60)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gone=removed, seed=st.integers(0, 1000))
async def test_what_was_lost_is_healed_to_the_exact_series_and_then_nothing_is_left_to_heal(
    world: World, gone: set[int], seed: int
) -> None:
    instrument = Instrument(f"R{seed}X{len(gone)}X{sum(gone)}")
    world.provider.truth[instrument] = Truth(walk(seed), (Action(LAST_DUE - 90, "split", 3.0),))
    world.provider.truth[instrument] = Truth(
        split_at(LAST_DUE - 90, 3.0, walk(seed)), (Action(LAST_DUE - 90, "split", 3.0),)
    )
    (entry,) = await world.instruments.add(
        [instrument], wanted_from=int(NOW // DAY) - DEPTH_DAYS, tracked=True, by="test", now=NOW
    )
    if entry.head.count:
        return
    truth = world.provider.truth[instrument].bars.between(entry.state.wanted_from, LAST_DUE)
    keep = np.delete(np.arange(len(truth)), sorted(i for i in gone if i < len(truth)))
    await world.bars.commit([Change(entry, Bars(truth.sessions[keep], truth.values[:, keep]), "scripted", NOW)])
    await world.examined(entry)
    await world.assert_whole(instrument)
    assert (await world.examined(entry)).outcome == "nothing_due"


def rough(seed: int) -> Bars:
    """A walk with what really happens now and then: jumps of three times that last or are gone the next day, days and
    weeks without trading, a collapse."""
    chance, truth = np.random.default_rng(seed), walk(seed)
    values = truth.values.copy()
    values[VOLUME] *= 30
    days = len(truth)
    for _ in range(6):
        at = int(chance.integers(days - 300, days - 30))
        values[:VOLUME, at : days if chance.random() < 0.4 else at + 1] *= float(chance.choice([3.0, 1 / 3, 2.7]))
    for length in (1, 5, 15):
        at = int(chance.integers(days - 300, days - 40))
        values[:VOLUME, at : at + length] = values[CLOSE, at - 1]
        values[VOLUME, at : at + length] = float(chance.choice([0.0, np.nan]))
    for step, at in enumerate(range(days - 120, days - 116)):
        values[:VOLUME, at:] *= 0.4 if step else 0.1
    return Bars(truth.sessions, values)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gone=removed, seed=st.integers(0, 1000), split=st.booleans(), is_first=st.booleans())
async def test_a_rough_series_is_healed_to_the_exact_one_within_days_whatever_was_there_first(
    world: World, gone: set[int], seed: int, split: bool, is_first: bool
) -> None:
    world.clock.set(NOW)
    instrument = Instrument(f"Q{seed}X{len(gone)}X{sum(gone)}{split:d}{is_first:d}")
    truth, actions = rough(seed), ()
    if split:
        # not the ratio of a jump: beside its day that could not be told from a split worked into some rows
        truth, actions = split_at(LAST_DUE - 90, 7.0, truth), (Action(LAST_DUE - 90, "split", 7.0),)
    world.provider.truth[instrument] = Truth(truth, actions)
    (entry,) = await world.instruments.add(
        [instrument], wanted_from=int(NOW // DAY) - DEPTH_DAYS, tracked=True, by="test", now=NOW
    )
    if entry.head.count:
        return
    if not is_first:
        known = truth.between(entry.state.wanted_from, LAST_DUE)
        keep = np.delete(np.arange(len(known)), sorted(i for i in gone if i < len(known)))
        bars = Bars(known.sessions[keep], known.values[:, keep])
        await world.bars.commit([Change(entry, bars, "scripted", NOW)])
    for _ in range(8):  # what looks odd is believed on the third day; what was measured by that, three days later
        for _ in range(2):
            await world.examined(entry)
        world.clock.advance(DAY)
    last = XNYS.last_closed(world.clock.time() - DAY, LAG)
    assert last is not None
    await world.assert_whole(instrument, last=last)
    assert not entry.state.parked
    assert [item for item in await items(world) if item.instrument == instrument] == []


async def test_a_spike_that_a_second_provider_has_too_is_believed_at_once(world: World) -> None:
    (entry,) = await world.track(AAPL)
    spiked = int(XNYS.between(LAST_DUE - 100, LAST_DUE - 90)[0])
    truth = world.provider.truth[AAPL].bars
    world.provider.truth[AAPL] = Truth(times(truth, 3.0, truth.sessions == spiked, volume=False))
    await world.examined(entry)
    (row,) = entry.state.parked.values()
    assert (row.source, row.seen) == ("scripted", 1)
    for factor, is_believed in ((1.05, False), (1.02, True)):
        assert row.close is not None
        theirs = replace(row, source="another", close=row.close * factor)
        await world.states.save(entry, replace(entry.state, parked={spiked: theirs}))
        await world.examined(entry, force=True)
        assert (spiked in (await world.bars.held(entry)).tolist()) == is_believed
    assert not entry.state.parked
    (item,) = await items(world, "resolved")
    assert (item.session, item.code) == (spiked, "spike")


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
async def test_the_order_of_rows_in_an_answer_does_not_matter(world: World, seed: int) -> None:
    straight, shuffled = (Instrument(f"{letter}{seed}") for letter in "OS")
    chance = np.random.default_rng(seed)
    truth = walk(seed)
    spoiled = times(truth, 100.0, chance.random(len(truth)) < 0.02, volume=False)
    entries = []
    for instrument in (straight, shuffled):
        world.provider.truth[instrument] = Truth(spoiled)
        (entry,) = await world.instruments.add(
            [instrument], wanted_from=int(NOW // DAY) - DEPTH_DAYS, tracked=True, by="test", now=NOW
        )
        entries.append(entry)

    def shuffle(history: History) -> History:
        order = chance.permutation(len(history.bars))
        return replace(history, bars=Bars(history.bars.sessions[order], history.bars.values[:, order]))

    world.provider.script(shuffled, shuffle)
    for entry in entries:
        await world.examined(entry)
    one, two = [await world.bars.read(entry) for entry in entries]
    assert one.sessions.tolist() == two.sessions.tolist()
    assert (one.values == two.values).all()
    assert entries[0].state.parked.keys() == entries[1].state.parked.keys()


odd = st.sampled_from([float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e300, 1e-300, 100.0, 101.0])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 250)), odd, max_size=40), name=st.uuids())
async def test_whatever_comes_what_is_stored_is_sound_and_every_row_is_accounted_for(
    world: World, cells: dict[tuple[int, int], float], name: Any
) -> None:
    instrument = Instrument(f"G{name.hex[:20].upper()}")
    world.provider.truth[instrument] = Truth(walk(3))
    (entry,) = await world.instruments.add(
        [instrument], wanted_from=int(NOW // DAY) - DEPTH_DAYS, tracked=True, by="test", now=NOW
    )

    def spoilt(history: History) -> History:
        values = history.bars.values.copy()
        for (row, column), value in cells.items():
            if column < values.shape[1]:
                values[row, column] = value
        return replace(history, bars=Bars(history.bars.sessions, values))

    world.provider.script(instrument, spoilt)
    await world.examined(entry)
    held = await world.bars.read(entry)
    assert np.isfinite(held.close).all()
    assert (held.close > 0).all()
    assert not np.isinf(held.values).any()
    due = world.provider.truth[instrument].bars.between(entry.state.wanted_from, LAST_DUE).sessions.tolist()
    known = {item.session for item in await world.quarantine.items(series=entry.id, limit=1000)}
    assert set(due) == set(held.sessions.tolist()) | known
    assert (await world.bars.verify(entry)).faults == ()


async def test_what_a_person_approved_is_no_measure_of_what_its_provider_corrects(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    truth = world.provider.truth[AAPL].bars.between(FRIDAY, LATER[3])
    wrong = times(truth, 100.0, slice(None), volume=False)
    await world.bars.commit([Change(entry, wrong, "scripted", NOW, approved=True)])
    world.clock.set((LATER[4] + 1) * DAY)
    assert (await world.synced()).failures == {}
    held = await world.bars.read(entry)
    assert held.sessions[-1] == LATER[4]
    assert same_values(held.values[:, -5:], world.provider.truth[AAPL].bars.between(FRIDAY, LATER[4]).values).all()


async def test_a_delisted_symbol_is_asked_for_no_more_and_is_complete(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    await world.instruments.set_delisted(entry, LAST_DUE)
    calls = world.calls(AAPL)
    for _ in range(40):
        world.clock.advance(DAY)
        await world.synced()
    assert world.calls(AAPL) == calls
    covered = coverage(await world.bars.held(entry), XNYS, entry.state, FRIDAY, MONDAY, world.clock.time(), LAG)
    assert covered.complete
    assert {stretch.absence for stretch in covered.missing} == {"after_delisting"}


async def test_a_delisting_that_another_daemon_notes_meanwhile_is_not_forgotten(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    other = World(world.database, world.provider, world.clock)
    await other.instruments.load_all()
    await other.instruments.set_delisted(other.catalog.require(AAPL), LAST_DUE)
    parked = {5: Withheld("jump", NOW)}
    await world.states.save(entry, replace(entry.state, last_update=NOW + 1, parked=parked, not_found_days=(1, 2)))
    assert entry.state.delisted_after == LAST_DUE
    after = World(world.database, world.provider, world.clock)
    await after.instruments.load_all()
    assert after.catalog.require(AAPL).state == entry.state
    await other.pool.close()
    await after.pool.close()


@pytest.mark.parametrize("operator_first", [True, False])
async def test_what_a_person_sets_survives_what_is_saved_at_the_same_moment(world: World, operator_first: bool) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    old, new = Withheld("jump", NOW), Withheld("jump", NOW + 1)
    await world.states.save(entry, replace(entry.state, parked={5: old, 6: old}, attempts=1, code="x", reason="y"))
    by_operator = [delisted(entry.state, LAST_DUE), reviewed(entry.state, 5)]
    failed = replace(entry.state, attempts=2, parked={5: new, 6: old, 7: new}, last_update=NOW + 9)
    both = [*by_operator, failed] if operator_first else [failed, *by_operator]
    await asyncio.gather(*(world.states.save(entry, state) for state in both))
    assert (entry.state.delisted_after, entry.state.attempts, entry.state.code) == (LAST_DUE, 0, None)
    assert entry.state.parked == {6: old, 7: new}
    assert entry.state.last_update == NOW + 9
    after = World(world.database, world.provider, world.clock)
    await after.instruments.load_all()
    stored = after.catalog.require(AAPL)
    assert (stored.state, stored.state_version) == (entry.state, entry.state_version)
    await after.pool.close()


async def test_of_many_that_save_at_once_nobody_is_overwritten(world: World) -> None:
    """Each lays its part over what the others saved, also over what one of them saves while it waits for its turn."""
    (entry,) = await world.track(AAPL)
    await world.synced()
    for turn in range(5):
        new = Withheld("jump", NOW + turn)
        states = [replace(entry.state, parked={**entry.state.parked, 100 * turn + n: new}) for n in range(8)]
        await asyncio.gather(*(world.states.save(entry, state) for state in states))
        assert entry.state.parked.keys() == {100 * t + n for t in range(turn + 1) for n in range(8)}
