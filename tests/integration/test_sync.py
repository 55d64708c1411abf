"""Sync, refresh and backfill on a real mongod and through the real pool; only the vendor is scripted."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from bson import ObjectId
from structlog.testing import capture_logs

from pricecache.api.encoding import state_of
from pricecache.cache.live import LiveCache
from pricecache.core.actions import Action
from pricecache.core.bars import CLOSE, VOLUME, Bars, day_number, same_values
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.coverage import coverage
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import VENDOR_DELAY, Quote, QuoteBatch
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.errors import (
    BudgetSpent,
    Conflict,
    Invalid,
    NotFound,
    ProviderPaused,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)
from pricecache.providers.base import CLOSE_MISSING, History
from pricecache.providers.chain import ProviderChain
from pricecache.providers.pool import ProviderPool
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quarantine import QuarantineStore
from pricecache.stores.quotes import QuoteStore
from pricecache.stores.sync_state import SyncStateStore
from pricecache.sync.backfill import BACKFILL_JOB, Backfiller, Tracker, backfill_parameters
from pricecache.sync.examine import Examination, Examiner
from pricecache.sync.historical import HistoricalSync
from pricecache.sync.ports import FORCED
from pricecache.sync.publish import QuotePublisher
from pricecache.sync.refresh import LiveRefresher, RefreshReport
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.fakes.provider import ScriptedProvider, Truth

HOUR, DAY = 3600.0, 86400.0
LAG = 1800.0
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC).timestamp()  # a Friday before New York opens
XNYS = xnys_book().get("XNYS")
LAST_DUE = day_number(date(2026, 11, 19))
DEPTH_DAYS = 365
AAPL, MSFT, IBM, FUND = (Instrument.parse(text) for text in ("AAPL", "MSFT", "IBM", "MYFUND:CUSTOM"))


def walk(seed: int, calendar: SessionCalendar = XNYS, years: int = 3) -> Bars:
    """Some years of plausible bars, up to a month from now."""
    sessions = calendar.between(LAST_DUE - 365 * years, LAST_DUE + 30)
    chance = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(chance.normal(0, 0.01, len(sessions))))
    volume = chance.integers(1000, 9000, len(sessions)).astype(float)
    return Bars(sessions, np.stack([close, close * 1.01, close * 0.99, close, volume]))


@dataclass
class Requested:
    requested_by: str


@dataclass
class Handle:
    """A run's handle that keeps what it is told."""

    run: Requested = field(default_factory=lambda: Requested("schedule"))
    parameters: dict[str, Any] = field(default_factory=dict)
    stopping: bool = False
    done: int = 0
    total: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        self.done, self.total = done, total

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] += number

    def fail(self, instrument: Instrument, code: str, detail: str) -> None:
        assert detail
        self.failures[str(instrument)] = code


class Killed(BaseException):
    """What no handler of ours may swallow, like the end of the process."""


class Sessions:
    """Calendars that are all there already. `meanwhile`: what else happens during each of the next look-ups."""

    def __init__(self, book: CalendarBook) -> None:
        self._book = book
        self.meanwhile: deque[Callable[[], Awaitable[object]] | None] = deque()

    async def get(self, name: str) -> SessionCalendar:
        if self.meanwhile and (happening := self.meanwhile.popleft()) is not None:
            await happening()
        return self._book.get(name)


class World:
    """One daemon's parts for prices. A second one on the same database is what another daemon, or a restart, sees."""

    def __init__(self, database: Any, provider: ScriptedProvider, clock: ManualClock) -> None:
        self.database, self.provider, self.clock = database, provider, clock
        provider.clock = clock
        self.catalog, self.live = Catalog(), LiveCache()
        self.bars, self.states = BarStore(database, clock), SyncStateStore(database)
        self.instruments, self.quotes = InstrumentStore(database, self.catalog), QuoteStore(database, clock)
        self.pool = ProviderPool(provider, clock)
        self.chain = ProviderChain([self.pool])
        self.sessions = calendars = Sessions(xnys_book())
        self.runs: list[tuple[str, dict[str, Any], str]] = []
        self.quarantine = QuarantineStore(database)
        self.control_works = True
        self.examiner = Examiner(
            self.chain,
            calendars,
            self.bars,
            self.states,
            self.instruments,
            clock,
            random.Random(7),
            quarantine=self.quarantine,
            name=self.chain.name,
            lag=LAG,
            rank=self.chain.rank,
            control_works=self._control,
        )
        self.sync = HistoricalSync(
            self.catalog,
            self.examiner,
            self.bars,
            self.live,
            calendars,
            clock,
            lag=LAG,
            interval=3 * HOUR,
            concurrency=provider.pace.concurrency,
        )
        self.publisher = QuotePublisher(
            self.catalog,
            self.live,
            self.quotes,
            self.bars,
            calendars,
            self.instruments,
            clock,
            interval=900,
            lag=LAG,
        )
        self.refresher = LiveRefresher(
            self.catalog, self.live, self.publisher, self.pool, calendars, clock, interval=900, lag=LAG
        )
        self.tracker: Tracker[int] = Tracker(
            self.catalog, self.instruments, clock, depth_days=DEPTH_DAYS, max_symbols=5, start_run=self._start
        )
        self.backfiller = Backfiller(self.tracker, self.examiner, self.refresher, concurrency=2)

    async def _control(self) -> bool:
        return self.control_works if self.provider.control is None else await self.pool.control_works()

    async def _start(self, job: str, parameters: dict[str, Any], by: str) -> int:
        self.runs.append((job, parameters, by))
        return len(self.runs)

    async def track(self, *instruments: Instrument) -> list[Entry]:
        entries, _ = await self.tracker.admit(instruments, "test")
        return entries

    async def synced(self, *, force: bool = False) -> Handle:
        handle = Handle(parameters=dict(FORCED) if force else {})
        await self.sync.run(handle)
        return handle

    async def examined(self, entry: Entry, **options: Any) -> Examination:
        return await self.examiner.examine(entry, reason="test", **options)

    async def assert_whole(self, instrument: Instrument, last: int = LAST_DUE) -> None:
        """Every due session since the wanted depth is stored as it was traded, and packed equals replay."""
        entry = self.catalog.require(instrument)
        truth = self.provider.truth[instrument].bars.between(entry.state.wanted_from, last)
        stored = (await self.bars.read(entry)).between(entry.state.wanted_from, None)
        assert stored.sessions.tolist() == truth.sessions.tolist()
        assert same_values(stored.values, truth.values).all()
        assert (await self.bars.verify(entry)).faults == ()

    def calls(self, instrument: Instrument) -> int:
        return len(self.provider.calls_for(instrument))


@pytest.fixture
def provider() -> ScriptedProvider:
    provider = ScriptedProvider(final_lag=LAG)
    provider.truth = {instrument: Truth(walk(seed)) for seed, instrument in enumerate((AAPL, MSFT, IBM))}
    return provider


@pytest.fixture
async def worlds(database: Any, provider: ScriptedProvider) -> AsyncIterator[Callable[[], World]]:
    made: list[World] = []
    clock = ManualClock(NOW)

    def make() -> World:
        made.append(World(database, provider, clock))
        return made[-1]

    yield make
    for world in made:
        await world.pool.close()


@pytest.fixture
def world(worlds: Callable[[], World]) -> World:
    return worlds()


def lacking(*sessions: int) -> Callable[[History], History]:
    """The true answer without some sessions."""

    def without(history: History) -> History:
        keep = ~np.isin(history.bars.sessions, sessions)
        return replace(history, bars=Bars(history.bars.sessions[keep], history.bars.values[:, keep]))

    return without


def empty(history: History) -> History:
    return replace(history, bars=Bars.empty(), actions=(), first_available=None)


def scaled(factor: float) -> Callable[[History], History]:
    def scale(history: History) -> History:
        values = history.bars.values * factor
        return replace(history, bars=Bars(history.bars.sessions, values))

    return scale


def split_at(session: int, ratio: float, bars: Bars) -> Bars:
    """`bars` as they would have been traded had there been a split."""
    after = bars.sessions >= session
    values = np.where(after, bars.values / ratio, bars.values)
    values[VOLUME] = np.where(after, bars.values[VOLUME] * ratio, bars.values[VOLUME])
    return Bars(bars.sessions, values)


async def test_a_first_sync_fills_every_tracked_symbol_and_a_second_calls_nobody(world: World) -> None:
    await world.track(AAPL, MSFT, IBM)
    handle = await world.synced()
    for instrument in (AAPL, MSFT, IBM):
        await world.assert_whole(instrument)
    assert handle.counts["stored"] == handle.counts["called"] == handle.total == handle.done == 3
    assert handle.failures == {}
    again = await world.synced()
    assert again.counts["nothing_due"] == again.done == 3
    assert len(world.provider.calls) == 3


async def test_the_next_days_session_is_fetched_with_the_overlap_only(world: World) -> None:
    await world.track(AAPL)
    await world.synced()
    world.clock.advance(DAY)
    await world.synced()
    friday = day_number(date(2026, 11, 20))
    await world.assert_whole(AAPL, last=friday)
    call = world.provider.calls_for(AAPL)[-1]
    assert (call.start, call.end) == (day_number(date(2026, 11, 13)), friday)


async def test_interior_holes_are_found_and_healed_though_the_last_update_is_new(world: World) -> None:
    """A restored backup or a truncated import: bars are gone, and nothing but the calendar says so."""
    (entry,) = await world.track(AAPL)
    truth = world.provider.truth[AAPL].bars.between(entry.state.wanted_from, LAST_DUE)
    keep = np.delete(np.arange(len(truth)), [30, 31, 60])
    await world.bars.commit([Change(entry, Bars(truth.sessions[keep], truth.values[:, keep]), "scripted", NOW)])
    first, last = int(truth.sessions[0]), LAST_DUE
    await world.states.save(entry, replace(entry.state, last_update=NOW, answered_from=first, answered_to=last))
    await world.synced()
    await world.assert_whole(AAPL)
    (call,) = world.provider.calls_for(AAPL)
    assert (call.start, call.end) == (int(truth.sessions[25]), int(truth.sessions[65]))


async def test_a_dead_symbol_an_outage_and_garbage_cost_the_others_nothing(world: World) -> None:
    dead, down, html = (Instrument.parse(text) for text in ("DEAD", "DOWN", "HTML"))
    world.provider.truth |= {down: Truth(walk(8)), html: Truth(walk(9))}
    world.provider.script(down, ProviderUnavailable("connection refused"))
    world.provider.script(html, scaled(-1.0))
    await world.track(AAPL, dead, down, html, MSFT)
    handle = await world.synced()
    assert handle.failures == {
        "DEAD:US": "symbol_not_found",
        "DOWN:US": "provider_unavailable",
        "HTML:US": "provider_answer_bad",
    }
    await world.assert_whole(AAPL)
    await world.assert_whole(MSFT)
    states = {str(entry.instrument): entry.state for entry in world.catalog}
    assert states["DEAD:US"].refusals == 1
    assert states["DOWN:US"].refusals == 0
    assert states["HTML:US"].reason is not None
    world.clock.advance(3 * HOUR)
    assert (await world.synced()).failures == {"DEAD:US": "symbol_not_found"}
    await world.assert_whole(down)
    await world.assert_whole(html)


async def test_what_fails_is_not_called_again_before_its_time_unless_somebody_asks(world: World) -> None:
    dead = Instrument.parse("DEAD")
    (entry,) = await world.track(dead)
    await world.states.save(
        entry, replace(entry.state, attempts=4, refusals=4, failing_since=NOW, next_retry=NOW + HOUR, code="x")
    )
    await world.synced()
    assert world.calls(dead) == 0
    assert (await world.synced(force=True)).failures == {"DEAD:US": "symbol_not_found"}
    assert world.calls(dead) == 1
    assert entry.state.attempts == 5


async def test_a_429_stops_the_calls_of_the_run_and_blames_no_symbol(database: Any, provider: ScriptedProvider) -> None:
    provider.pace = replace(provider.pace, concurrency=1)
    world = World(database, provider, ManualClock(NOW))
    await world.track(AAPL, MSFT, IBM)
    provider.script(AAPL, RateLimited(retry_after=60))
    handle = await world.synced()
    assert handle.failures == dict.fromkeys(("AAPL:US", "MSFT:US", "IBM:US"), "rate_limited")
    assert len(provider.calls) == 1
    assert handle.counts["deferred"] == 2
    states = [world.catalog.require(i).state for i in (AAPL, MSFT, IBM)]
    assert [state.refusals for state in states] == [0, 0, 0]
    assert [state.attempts for state in states] == [1, 0, 0]
    world.clock.advance(3 * HOUR)
    assert (await world.synced()).failures == {}
    await world.assert_whole(IBM)
    await world.pool.close()


async def test_when_no_provider_can_be_asked_the_run_stops_asking_and_no_series_has_failed(
    database: Any, provider: ScriptedProvider
) -> None:
    provider.pace = replace(provider.pace, concurrency=1)
    world = World(database, provider, ManualClock(NOW))
    entries = await world.track(AAPL, MSFT, IBM)
    provider.script(AAPL, ProviderPaused("It failed repeatedly.", retry_after=300))
    handle = await world.synced()
    assert handle.failures == dict.fromkeys(("AAPL:US", "MSFT:US", "IBM:US"), "provider_paused")
    assert (handle.counts["deferred"], handle.counts["called"], len(provider.calls)) == (2, 0, 1)
    first = entries[0].state
    assert [entry.state.attempts for entry in entries] == [0, 0, 0]
    assert (first.next_retry, first.code, first.reason) == (NOW + 300, "provider_paused", "It failed repeatedly.")
    found = coverage(await world.bars.held(entries[0]), XNYS, first, LAST_DUE - 5, LAST_DUE, NOW, LAG)
    assert {(s.absence, s.reason) for s in found.missing} == {("pending", "It failed repeatedly.")}
    world.clock.advance(60)
    assert (await world.examined(entries[0])).outcome == "nothing_due"
    world.clock.advance(300)
    assert (await world.synced()).failures == {}
    assert (entries[0].state.next_retry, entries[0].state.code) == (None, None)
    await world.assert_whole(AAPL)
    await world.pool.close()


async def test_a_budget_too_small_for_filling_far_back_defers_nothing_else(
    database: Any, provider: ScriptedProvider
) -> None:
    provider.pace = replace(provider.pace, concurrency=1)
    world = World(database, provider, ManualClock(NOW))
    entries = await world.track(AAPL, MSFT)
    await world.states.save(entries[0], replace(entries[0].state, wanted_from=LAST_DUE - 1000))
    provider.script(AAPL, BudgetSpent(retry_after=3600))
    handle = await world.synced()
    assert (handle.failures, handle.counts["deferred"]) == ({"AAPL:US": "budget_spent"}, 0)
    await world.assert_whole(MSFT)
    await world.pool.close()


@pytest.mark.parametrize("which", ["transfer", "due"])
async def test_looking_through_thousands_of_series_gives_others_their_turn(world: World, which: str) -> None:
    (entry,) = await world.track(AAPL)
    turns, stop = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not stop.is_set():
            await asyncio.sleep(0)
            turns += 1

    going = asyncio.create_task(others())
    if which == "transfer":
        await world.sync.transfer([entry] * 5000, Handle())
    else:
        await world.refresher._due([entry] * 5000, NOW, RefreshReport(), force=False, named=False)
    stop.set()
    await going
    assert turns >= 100


async def test_a_surprise_in_one_series_is_its_own_failure(world: World) -> None:
    await world.track(AAPL, MSFT)
    world.provider.script(AAPL, lambda history: replace(history, basis="split_adjusted", actions=(None,)))  # type: ignore[arg-type]
    handle = await world.synced()
    assert handle.failures == {"AAPL:US": "internal_error"}
    await world.assert_whole(MSFT)


async def test_a_session_that_never_traded_is_asked_for_on_three_days_then_accepted(world: World) -> None:
    (entry,) = await world.track(AAPL)
    truth = world.provider.truth[AAPL]
    hole = int(truth.bars.sessions[-60])
    keep = truth.bars.sessions != hole
    world.provider.truth[AAPL] = Truth(Bars(truth.bars.sessions[keep], truth.bars.values[:, keep]))
    asked_for_hole = []
    for _ in range(40):
        calls = world.calls(AAPL)
        await world.synced()
        asked_for_hole += [
            world.clock.time()
            for call in world.provider.calls_for(AAPL)[calls:]
            if call.start is not None and call.end is not None and call.start <= hole <= call.end
        ]
        world.clock.advance(3 * HOUR)
    assert len(asked_for_hole) == 3
    assert np.diff(asked_for_hole).min() >= 20 * HOUR
    assert hole in entry.state.absent
    covered = coverage(await world.bars.held(entry), XNYS, entry.state, hole, hole, world.clock.time(), LAG)
    assert [stretch.absence for stretch in covered.missing] == ["confirmed_absent"]
    assert covered.complete


async def test_an_empty_answer_is_neutral_and_takes_nothing_away(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.clock.advance(DAY)
    before = entry.state
    world.provider.script(AAPL, empty)
    handle = await world.synced()
    assert handle.counts["no_data"] == 1
    assert [(kind, said.count) for kind, said in entry.state.divergences.items()] == [("provider_has_less", 5)]
    assert replace(entry.state, divergences={}) == before
    await world.assert_whole(AAPL)
    await world.synced()
    await world.assert_whole(AAPL, last=LAST_DUE + 1)


async def test_a_shorter_answer_never_shortens_what_is_held(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    sessions = (await world.bars.held(entry)).tolist()
    world.provider.script(AAPL, lacking(*sessions[10:200]))
    examination = await world.examined(entry, force=True, start=sessions[0])
    assert examination.outcome == "unchanged"
    assert examination.called
    await world.assert_whole(AAPL)


async def test_a_correction_replaces_what_it_corrects(world: World) -> None:
    await world.track(AAPL)
    await world.synced()
    truth = world.provider.truth[AAPL].bars
    values = truth.values.copy()
    here = int(truth.sessions.searchsorted(LAST_DUE))
    values[:CLOSE, here], values[CLOSE, here] = values[:CLOSE, here] * 1.01, values[CLOSE, here] * 1.005
    world.provider.truth[AAPL] = Truth(Bars(truth.sessions, values))
    world.clock.advance(DAY)
    await world.synced()
    await world.assert_whole(AAPL, last=LAST_DUE + 1)


async def test_a_split_in_the_middle_of_a_providers_adjusted_history_is_undone(
    database: Any, provider: ScriptedProvider
) -> None:
    provider.basis = "split_adjusted"
    truth = provider.truth[AAPL].bars
    split, dividend = int(truth.sessions[-90]), int(truth.sessions[-120])
    actions = (Action(dividend, "dividend", 0.82, "USD"), Action(split, "split", 4.0))
    provider.truth[AAPL] = Truth(split_at(split, 4.0, truth), actions)
    world = World(database, provider, ManualClock(NOW))
    (entry,) = await world.track(AAPL)
    await world.synced()
    await world.assert_whole(AAPL)
    assert [(a.kind, pytest.approx(a.value), a.source) for a in entry.actions] == [
        ("dividend", 0.82, "scripted"),
        ("split", 4.0, "scripted"),
    ]
    await world.pool.close()


async def test_a_split_after_the_last_sync_touches_no_stored_bar(database: Any, provider: ScriptedProvider) -> None:
    provider.basis = "split_adjusted"
    world = World(database, provider, ManualClock(NOW))
    (entry,) = await world.track(AAPL)
    await world.synced()
    before = await world.bars.read(entry)
    monday = day_number(date(2026, 11, 23))
    provider.truth[AAPL] = Truth(split_at(monday, 2.0, provider.truth[AAPL].bars), (Action(monday, "split", 2.0),))
    world.clock.set(datetime(2026, 11, 24, 10, tzinfo=UTC))
    handle = await world.synced()
    assert handle.counts["replaced"] == 0
    after = await world.bars.read(entry)
    assert (after.between(None, LAST_DUE).values == before.values).all()
    await world.assert_whole(AAPL, last=monday)
    await world.pool.close()


async def test_an_adjusted_answer_off_by_one_unexplained_factor_stores_nothing_and_shows(
    database: Any, provider: ScriptedProvider
) -> None:
    """The split is worked into the prices before it is listed among the actions, as Yahoo does for some days."""
    provider.basis = "split_adjusted"
    world = World(database, provider, ManualClock(NOW))
    (entry,) = await world.track(AAPL)
    await world.synced()
    head = entry.head
    world.clock.advance(DAY)
    provider.script(AAPL, scaled(0.25))
    handle = await world.synced()
    assert handle.failures == {"AAPL:US": "basis_unexplained"}
    assert entry.head == head
    assert entry.state.code == "basis_unexplained"
    world.clock.advance(DAY)
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=LAST_DUE + 1)
    await world.pool.close()


async def test_a_symbol_first_tracked_on_the_day_of_a_split_is_stored_as_traded(
    database: Any, provider: ScriptedProvider
) -> None:
    """The provider has worked today's split into every row, though no bar of today is final yet."""
    provider.basis = "split_adjusted"
    split = Action(FRIDAY, "split", 4.0)
    provider.truth[AAPL] = Truth(split_at(FRIDAY, 4.0, provider.truth[AAPL].bars), (split,))
    world = World(database, provider, ManualClock(OPEN))
    (entry,) = await world.track(AAPL)
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL)
    assert [(action.ex_date, action.value) for action in entry.actions] == [(FRIDAY, 4.0)]
    world.clock.set(FRIDAY_CLOSE.timestamp() + HOUR)
    handle = await world.synced()
    assert (handle.failures, handle.counts["replaced"]) == ({}, 0)
    await world.assert_whole(AAPL, last=FRIDAY)
    await world.pool.close()


async def test_a_split_put_in_for_a_later_day_is_not_taken_as_worked_in_yet(
    database: Any, provider: ScriptedProvider
) -> None:
    provider.basis = "split_adjusted"
    world = World(database, provider, ManualClock(NOW))
    (entry,) = await world.track(AAPL)
    announced = Action(FRIDAY + 7, "split", 3.0, manual=True)
    await world.bars.commit([Change(entry, Bars.empty(), "manual", NOW, manual=True, actions=(announced,))])
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL)
    await world.pool.close()


async def test_a_split_that_is_listed_but_not_worked_in_changes_nothing_stored(
    database: Any, provider: ScriptedProvider
) -> None:
    provider.basis = "split_adjusted"
    session = int(provider.truth[AAPL].bars.sessions[-90])
    truth = split_at(session, 4.0, provider.truth[AAPL].bars)
    provider.truth[AAPL] = Truth(truth, (Action(session, "split", 4.0),))

    def listed_only(history: History) -> History:
        first, last = history.bars.sessions[[0, -1]].tolist()
        return replace(history, bars=truth.between(first, last))

    provider.script(AAPL, listed_only, listed_only)
    world = World(database, provider, ManualClock(NOW))
    (entry,) = await world.track(AAPL)
    await world.synced()
    await world.assert_whole(AAPL)
    head = entry.head
    assert (await world.examined(entry, start=session - 100)).outcome == "unchanged"
    assert (await world.examined(entry, start=session - 100)).outcome == "unchanged"  # worked in by now
    assert entry.head == head
    await world.pool.close()


async def test_a_provider_in_the_middle_of_a_change_replaces_nothing_and_is_asked_again(
    database: Any, provider: ScriptedProvider
) -> None:
    provider.basis = "split_adjusted"
    world = World(database, provider, ManualClock(NOW))
    (entry,) = await world.track(AAPL)
    await world.synced()
    head = entry.head

    def some_rows(history: History) -> History:
        values = history.bars.values.copy()
        values[:VOLUME, :3] /= 4
        return replace(history, bars=Bars(history.bars.sessions, values))

    world.clock.advance(DAY)
    provider.script(AAPL, some_rows)
    assert (await world.synced()).failures == {"AAPL:US": "basis_mixed"}
    assert entry.head == head
    world.clock.advance(DAY)
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=FRIDAY)
    await world.pool.close()


@pytest.mark.parametrize("factor", [100.0, 0.01])
async def test_a_change_of_unit_is_refused_of_prices_as_traded_too(world: World, factor: float) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    head = entry.head
    world.clock.advance(DAY)
    world.provider.script(AAPL, scaled(factor))
    assert (await world.synced()).failures == {"AAPL:US": "basis_unexplained"}
    assert entry.head == head


async def test_a_dividend_that_a_later_split_rounds_is_no_new_one(database: Any, provider: ScriptedProvider) -> None:
    provider.basis = "split_adjusted"
    dividend, split = Action(LAST_DUE - 30, "dividend", 2.65, "USD"), Action(FRIDAY, "split", 7.0)
    provider.truth[AAPL] = Truth(split_at(FRIDAY, 7.0, provider.truth[AAPL].bars), (dividend, split))
    world = World(database, provider, ManualClock(NOW - HOUR))
    (entry,) = await world.track(AAPL)
    await world.synced()

    def rounded(history: History) -> History:
        return replace(history, actions=tuple(replace(a, value=round(a.value, 6)) for a in history.actions))

    world.clock.set(FRIDAY_CLOSE.timestamp() + HOUR)
    await world.synced()
    head = entry.head
    provider.script(AAPL, rounded)
    assert (await world.examined(entry, start=LAST_DUE - 60)).outcome == "unchanged"
    assert entry.head == head
    assert [(a.kind, a.value) for a in entry.actions] == [("dividend", 2.65), ("split", 7.0)]
    await world.pool.close()


async def test_a_manual_price_beats_the_providers_and_confuses_no_comparison(
    database: Any, provider: ScriptedProvider
) -> None:
    provider.basis = "split_adjusted"
    world = World(database, provider, ManualClock(NOW))
    (entry,) = await world.track(AAPL)
    bar = np.array([[np.nan], [np.nan], [np.nan], [7.0], [np.nan]])
    await world.bars.commit([Change(entry, Bars.of([LAST_DUE], bar), "manual", NOW, manual=True)])
    handle = await world.synced()
    assert handle.failures == {}
    stored = await world.bars.read(entry)
    assert stored.close[-1] == 7.0
    assert len(stored) > 200
    await world.pool.close()


async def test_the_currency_of_the_first_answer_stands_and_another_is_refused(world: World) -> None:
    london = Instrument.parse("VUSA:L")
    world.provider.truth[AAPL] = replace(world.provider.truth[AAPL], currency="CAD")
    (entry,) = await world.track(AAPL)
    await world.synced()
    assert entry.currency == "CAD"
    assert london.place.currency == "GBp"
    world.clock.advance(DAY)
    world.provider.truth[AAPL] = replace(world.provider.truth[AAPL], currency="USD")
    head = entry.head
    assert (await world.synced()).failures == {"AAPL:US": "currency_changed"}
    assert (entry.currency, entry.head) == ("CAD", head)


async def test_two_at_once_on_one_series_call_the_provider_once(world: World) -> None:
    (entry,) = await world.track(AAPL)
    outcomes = await asyncio.gather(
        world.examined(entry),
        world.examined(entry, force=True),
        world.examined(entry, force=True, start=entry.state.wanted_from),
    )
    assert world.calls(AAPL) == 1
    assert sorted(examination.outcome for examination in outcomes) == ["nothing_due", "nothing_due", "stored"]


async def test_who_waits_for_another_range_is_not_put_off_with_it(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.clock.advance(DAY)
    first, second = await asyncio.gather(world.examined(entry), world.examined(entry, force=True, start=LAST_DUE - 100))
    assert (first.outcome, second.outcome, second.called) == ("stored", "unchanged", True)
    call = world.provider.calls_for(AAPL)[-1]
    assert call.start is not None
    assert call.start <= LAST_DUE - 100
    assert world.calls(AAPL) == 3


async def test_two_at_once_who_want_the_same_deeper_start_call_the_provider_once(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    deeper = LAST_DUE - 2 * 365
    await asyncio.gather(*(world.examined(entry, force=True, start=deeper) for _ in range(3)))
    assert world.calls(AAPL) == 2
    await world.assert_whole(AAPL)


async def test_who_insists_is_heard_though_a_call_for_something_else_goes_on(world: World) -> None:
    """The hole is not due for another look, so the call that goes on leaves it out."""
    (entry,) = await world.track(AAPL)
    hole = int(world.provider.truth[AAPL].bars.between(None, LAST_DUE).sessions[-60])
    world.provider.script(AAPL, lacking(hole))
    await world.synced()
    world.clock.advance(15 * HOUR)
    await asyncio.gather(world.examined(entry), world.examined(entry, force=True))
    await world.assert_whole(AAPL, last=FRIDAY)


async def test_looking_through_all_series_undoes_nothing_that_happens_meanwhile(world: World) -> None:
    first, _ = await world.track(AAPL, MSFT)
    await world.synced()
    world.clock.advance(4 * HOUR)
    deeper = LAST_DUE - 2 * 365

    async def backfill() -> None:
        world.sessions.meanwhile.clear()
        await world.backfiller.backfill(AAPL, deeper)

    world.sessions.meanwhile.extend([None, backfill])
    assert await world.examiner.sift(world.catalog.tracked(), interval=3 * HOUR) == []
    assert world.calls(AAPL) == 2
    assert first.state.wanted_from == first.state.answered_from == deeper
    await world.assert_whole(AAPL)


async def test_two_daemons_at_once_leave_every_session_once(worlds: Callable[[], World]) -> None:
    one, two = worlds(), worlds()
    await one.track(AAPL, MSFT, IBM)
    await two.instruments.load_all()
    await asyncio.gather(one.synced(), two.synced())
    for instrument in (AAPL, MSFT, IBM):
        await one.bars.refresh([one.catalog.require(instrument)])
        await one.assert_whole(instrument)


async def test_a_kill_between_storing_and_remembering_is_healed_by_the_next_run(worlds: Callable[[], World]) -> None:
    world = worlds()
    (entry,) = await world.track(AAPL)

    async def die(*_: object) -> None:
        raise Killed

    world.states.save = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await world.examined(entry)
    after = worlds()
    await after.instruments.load_all()
    await after.synced()
    await after.assert_whole(AAPL)
    assert (await after.synced()).counts["nothing_due"] == 1


async def test_a_stopping_run_ends_early_and_the_next_one_goes_on(world: World) -> None:
    await world.track(AAPL, MSFT)
    handle = Handle(stopping=True)
    await world.sync.run(handle)
    assert handle.counts["not_reached"] == 2
    assert world.provider.calls == []
    await world.synced()
    await world.assert_whole(MSFT)


async def test_instruments_of_ones_own_are_never_asked_for(world: World) -> None:
    (entry,) = await world.track(FUND)
    handle = await world.synced(force=True)
    assert (await world.examined(entry, force=True)).outcome == "nothing_due"
    assert (await world.refresher.refresh([FUND], force=True)).asked == 0
    assert world.provider.calls == []
    assert (handle.total, handle.failures) == (0, {})


def quote(instrument: Instrument, price: float, at: datetime, **fields: Any) -> Quote:
    instant = at.timestamp()
    return Quote(instrument, price, "USD", instant, instant, "scripted", **fields)


THURSDAY_CLOSE = datetime(2026, 11, 19, 21, tzinfo=UTC)
FRIDAY_EVE = datetime(2026, 11, 20, 9, 59, tzinfo=UTC)


FRIDAY = LAST_DUE + 1
FRIDAY_CLOSE = datetime(2026, 11, 20, 21, tzinfo=UTC)


async def test_a_quote_of_a_finished_session_becomes_a_provisional_bar_until_the_final_one(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.clock.set(FRIDAY_CLOSE.timestamp() + 60)
    last = quote(AAPL, 101.5, FRIDAY_CLOSE, open=100.0, day_high=102.0, day_low=99.0, volume=5.0)
    world.live.publish(QuoteBatch.of([last]))
    calls = len(world.provider.calls)
    handle = await world.synced()
    assert len(world.provider.calls) == calls
    assert handle.counts["provisional"] == 1
    assert entry.tail.sessions.tolist() == [FRIDAY]
    assert entry.tail.values[:, 0].tolist() == [100.0, 102.0, 99.0, 101.5, 5.0]
    assert (await world.synced()).counts["provisional"] == 0
    world.clock.advance(LAG)
    handle = await world.synced()
    assert len(entry.tail) == 0
    assert handle.counts["replaced"] == 0
    await world.assert_whole(AAPL, last=FRIDAY)


@pytest.mark.parametrize(
    ("at", "now"),
    [
        pytest.param(FRIDAY_CLOSE, FRIDAY_CLOSE.timestamp() - 60, id="the session is not over"),
        pytest.param(datetime(2026, 11, 20, 22, tzinfo=UTC), NOW + DAY, id="made long after the close"),
        pytest.param(THURSDAY_CLOSE, NOW + DAY, id="of a session that is held"),
    ],
)
async def test_other_quotes_become_no_bar(world: World, at: datetime, now: float) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.clock.set(now)
    world.provider.script(AAPL, ProviderUnavailable())
    world.live.publish(QuoteBatch.of([quote(AAPL, 101.5, at)]))
    assert (await world.synced()).counts["provisional"] == 0
    assert len(entry.tail) == 0


async def test_a_quote_in_another_currency_becomes_no_bar(world: World) -> None:
    (entry,) = await world.track(AAPL)
    world.live.publish(QuoteBatch.of([replace(quote(AAPL, 101.5, THURSDAY_CLOSE), currency="EUR")]))
    await world.synced()
    assert len(entry.tail) == 0


OPEN = datetime(2026, 11, 20, 15, tzinfo=UTC)


async def test_quotes_are_published_together_stored_and_loaded_after_a_restart(worlds: Callable[[], World]) -> None:
    world = worlds()
    world.clock.set(OPEN)
    await world.track(AAPL, MSFT, IBM)
    world.provider.prices = {
        AAPL: quote(AAPL, 101.0, OPEN, previous_close=float("nan"), volume=3.0),
        MSFT: quote(MSFT, 55.0, OPEN),
    }
    handle = Handle()
    await world.refresher.run(handle)
    assert (handle.counts["asked"], handle.counts["updated"]) == (3, 2)
    assert handle.failures == {"IBM:US": "symbol_not_found"}
    held = world.live.get(AAPL.key)
    assert held is not None
    assert (held.price, held.previous_close, held.volume) == (101.0, None, 3.0)
    assert held.session == day_number(date(2026, 11, 20))
    assert held.stale_at == held.as_of + 1800 + VENDOR_DELAY
    assert {q.instrument: q.price for q in await worlds().quotes.load()} == {AAPL: 101.0, MSFT: 55.0}


async def test_quotes_that_cannot_be_stored_are_not_published(world: World) -> None:
    """What is told must still be true after a restart."""
    await world.track(AAPL)
    world.provider.prices = {AAPL: quote(AAPL, 101.0, THURSDAY_CLOSE)}

    async def die(*_: object) -> None:
        raise Killed

    world.quotes.save = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await world.refresher.refresh()
    assert world.live.get(AAPL.key) is None


async def test_only_a_newer_or_another_price_counts_as_an_update(world: World) -> None:
    await world.track(AAPL)
    counts = []
    for price, at in ((101.0, THURSDAY_CLOSE), (101.0, THURSDAY_CLOSE), (102.0, THURSDAY_CLOSE), (102.0, FRIDAY_EVE)):
        world.provider.prices = {AAPL: quote(AAPL, price, at)}
        counts.append((await world.refresher.refresh(force=True)).updated)
    assert counts == [1, 0, 1, 1]


async def test_a_closed_market_is_left_alone_unless_asked_for_or_never_quoted(world: World) -> None:
    await world.track(AAPL)
    world.provider.prices = {AAPL: quote(AAPL, 101.0, THURSDAY_CLOSE)}
    assert (await world.refresher.refresh()).asked == 1  # never quoted
    report = await world.refresher.refresh()
    assert (report.asked, report.quiet) == (0, 1)
    assert (await world.refresher.refresh(force=True)).asked == 1
    world.clock.set(OPEN)
    assert (await world.refresher.refresh()).asked == 1
    world.clock.set(datetime(2026, 11, 20, 23, tzinfo=UTC))
    assert (await world.refresher.refresh()).asked == 1  # nothing was received since the close
    assert (await world.refresher.refresh()).quiet == 1


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"price": float("nan")}, "bad_quote"),
        ({"price": 0.0}, "bad_quote"),
        ({"as_of": NOW + HOUR}, "bad_quote"),
        ({"currency": "EUR"}, "currency_changed"),
    ],
)
async def test_a_quote_that_cannot_be_is_refused_alone(world: World, bad: dict[str, Any], code: str) -> None:
    await world.track(AAPL, MSFT)
    await world.synced()
    good = quote(MSFT, 55.0, THURSDAY_CLOSE)
    world.provider.prices = {AAPL: replace(quote(AAPL, 101.0, THURSDAY_CLOSE), **bad), MSFT: good}
    report = await world.refresher.refresh(force=True)
    assert {instrument: error.code for instrument, error in report.failures.items()} == {AAPL: code}
    assert world.live.get(AAPL.key) is None
    assert world.live.get(MSFT.key) is not None


async def test_an_outage_of_quotes_is_a_failure_of_each_symbol_and_keeps_the_old_ones(world: World) -> None:
    await world.track(AAPL, MSFT)
    world.provider.prices = {i: quote(i, 10.0, THURSDAY_CLOSE) for i in (AAPL, MSFT)}
    await world.refresher.refresh()
    world.provider.script_quotes(ProviderUnavailable("down"))
    handle = Handle(parameters=dict(FORCED))
    await world.refresher.run(handle)
    assert handle.failures == dict.fromkeys(("AAPL:US", "MSFT:US"), "provider_unavailable")
    assert len(world.live) == 2


async def test_named_symbols_must_be_known(world: World) -> None:
    with pytest.raises(NotFound):
        await world.refresher.run(Handle(parameters={"symbols": ["NOPE:US"]}))


async def test_tracking_a_new_symbol_starts_one_run_that_fills_it_and_quotes_it(world: World) -> None:
    world.provider.prices = {AAPL: quote(AAPL, 101.0, THURSDAY_CLOSE)}
    tracked = await world.tracker.track([AAPL, FUND, AAPL], "operator")
    assert [str(entry.instrument) for entry in tracked.added] == ["AAPL:US", "MYFUND:CUSTOM"]
    assert world.runs == [(BACKFILL_JOB, {"symbols": ["AAPL:US"], "start": None}, "operator")]
    handle = Handle(Requested("operator"), world.runs[0][1])
    await world.backfiller.run(handle)
    await world.assert_whole(AAPL)
    assert (handle.done, handle.total, handle.counts["added"]) == (1, 1, len(await world.bars.held(tracked.entries[0])))
    assert world.live.get(AAPL.key) is not None
    again = await world.tracker.track([AAPL], "operator")
    assert (again.added, again.run) == ([], None)


async def test_a_deeper_start_extends_the_history_and_is_remembered(worlds: Callable[[], World]) -> None:
    world = worlds()
    (entry,) = await world.track(AAPL)
    await world.synced()
    deeper = LAST_DUE - 2 * 365
    await world.backfiller.run(Handle(Requested("operator"), backfill_parameters([AAPL], deeper)))
    await world.assert_whole(AAPL)
    assert entry.state.wanted_from == deeper
    call = world.provider.calls_for(AAPL)[-1]
    assert call.end is not None
    assert call.end < LAST_DUE - 300  # what was held is not asked for again
    after = worlds()
    await after.instruments.load_all()
    assert after.catalog.require(AAPL).state.wanted_from == deeper


async def test_what_was_known_by_one_manual_bar_is_filled_to_its_depth_once_it_is_tracked(
    worlds: Callable[[], World],
) -> None:
    world = worlds()
    (entry,) = await world.instruments.add([AAPL], wanted_from=LAST_DUE, tracked=False, by="test", now=NOW)
    bar = world.provider.truth[AAPL].bars.between(LAST_DUE, LAST_DUE)
    await world.bars.commit([Change(entry, bar, "manual", NOW, manual=True)])
    await world.track(AAPL)
    after = worlds()
    await after.instruments.load_all()
    assert after.catalog.require(AAPL).state.wanted_from == int(NOW // DAY) - DEPTH_DAYS
    await world.synced()
    await world.assert_whole(AAPL)
    assert len(await world.bars.held(entry)) > 200


async def test_what_is_tracked_again_keeps_a_deeper_start(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.backfiller.backfill(AAPL, LAST_DUE - 2 * 365)
    await world.tracker.untrack([AAPL], "operator")
    await world.track(AAPL)
    assert entry.state.wanted_from == LAST_DUE - 2 * 365


async def test_a_start_that_has_not_come_yet_is_refused(world: World) -> None:
    future = LAST_DUE + 3
    with pytest.raises(Invalid) as refused:
        await world.backfiller.backfill(AAPL, future)
    assert refused.value.code == "start_in_the_future"
    with pytest.raises(Invalid):
        await world.backfiller.run(Handle(parameters=backfill_parameters([AAPL], future)))
    assert len(world.catalog) == 0
    world.tracker.check_start(LAST_DUE + 1)
    world.tracker.check_start(None)


async def test_a_deeper_start_is_remembered_though_the_provider_fails(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    world.provider.script(AAPL, ProviderUnavailable())
    assert (await world.backfiller.backfill(AAPL, LAST_DUE - 2 * 365)).outcome == "failed"
    world.clock.advance(3 * HOUR)
    await world.synced()
    await world.assert_whole(AAPL)
    assert entry.state.wanted_from == LAST_DUE - 2 * 365


async def test_a_start_within_what_is_held_asks_for_everything_from_it_again(world: World) -> None:
    await world.track(AAPL)
    await world.synced()
    assert (await world.backfiller.backfill(AAPL)).outcome == "nothing_due"
    examination = await world.backfiller.backfill(AAPL, LAST_DUE - 100)
    assert (examination.outcome, examination.called) == ("unchanged", True)


async def test_a_provider_whose_history_begins_later_than_asked_is_complete(world: World) -> None:
    truth = world.provider.truth[AAPL].bars
    listing = int(truth.sessions[-100])
    world.provider.truth[AAPL] = Truth(truth.between(listing, None))
    (entry,) = await world.track(AAPL)
    await world.synced()
    assert entry.state.listed_on == listing
    held = await world.bars.held(entry)
    covered = coverage(held, XNYS, entry.state, entry.state.wanted_from, LAST_DUE, NOW, LAG)
    assert covered.complete
    assert [stretch.absence for stretch in covered.missing] == ["before_listing"]


async def test_backfilling_an_unknown_symbol_tracks_it_and_a_dead_one_says_so(world: World) -> None:
    examination = await world.backfiller.backfill(Instrument.parse("DEAD"))
    assert (examination.outcome, examination.code) == ("failed", SymbolNotFound.code)
    assert world.catalog.require(Instrument.parse("DEAD")).tracked


async def test_too_many_symbols_are_refused_as_a_whole(world: World) -> None:
    await world.track(AAPL, MSFT, IBM)
    with pytest.raises(Conflict) as refused:
        await world.tracker.track([Instrument.parse(text) for text in ("A", "B", "C")], "operator")
    assert refused.value.code == "too_many_symbols"
    assert len(world.catalog) == 3
    assert world.runs == []
    await world.tracker.track([AAPL, Instrument.parse("A")], "operator")


async def test_an_untracked_symbol_keeps_its_history_and_is_left_alone(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    await world.tracker.untrack([AAPL], "operator")
    world.clock.advance(10 * DAY)
    assert (await world.synced()).total == 0
    assert world.calls(AAPL) == 1
    assert len(await world.bars.read(entry)) > 200
    with pytest.raises(NotFound):
        await world.tracker.untrack([MSFT], "operator")


async def test_a_large_sync_does_not_hold_the_event_loop(world: World) -> None:
    """Looking through 300 whole series never takes 30 ms of the loop's thread in one turn."""
    many = [Instrument.parse(f"S{number}") for number in range(300)]
    entries = await world.instruments.add(many, wanted_from=LAST_DUE - 365, tracked=True, by="test", now=NOW)
    truth = walk(1, years=1)
    state = replace(entries[0].state, last_update=NOW, answered_from=LAST_DUE - 365, answered_to=LAST_DUE)
    final = truth.between(LAST_DUE - 365, LAST_DUE)
    await world.bars.commit([Change(entry, final, "scripted", NOW) for entry in entries])
    await world.states.save_many([(entry, state) for entry in entries])
    for entry in entries:
        entry.sessions = None
    turns = await _turns_during(world.synced())
    assert world.provider.calls == []
    assert max(turns) < 0.03


async def _turns_during(work: Coroutine[Any, Any, object]) -> Sequence[float]:
    """Seconds of processor time that the loop's thread spent in each of its turns until `work` was done."""
    task = asyncio.ensure_future(work)
    turns = []
    while not task.done():
        before = time.thread_time()
        await asyncio.sleep(0)
        turns.append(time.thread_time() - before)
    await task
    return turns


def with_a_bad_close(history: History) -> History:
    values = history.bars.values.copy()
    values[:, history.bars.sessions == LAST_DUE - 181] = -5.0
    return replace(history, bars=Bars(history.bars.sessions, values))


async def test_bars_that_cannot_be_believed_are_failing_and_never_taken_for_absent(world: World) -> None:
    assert LAST_DUE - 181 in world.provider.truth[AAPL].bars.sessions
    (entry,) = await world.track(AAPL)
    world.provider.script(AAPL, *[with_a_bad_close] * 4)
    for _ in range(4):
        examination = await world.examined(entry, force=True)
        assert examination.rejected == 1
        assert entry.state.refused.keys() == {LAST_DUE - 181}
        assert (entry.state.attempts, entry.state.code) == (0, None)
        assert not entry.state.absent
        world.clock.advance(DAY)
    await world.examined(entry, force=True)
    assert not entry.state.refused
    assert LAST_DUE - 181 in (await world.bars.held(entry)).tolist()


async def test_a_row_that_can_never_be_true_is_asked_for_on_three_days_and_then_monthly(world: World) -> None:
    (entry,) = await world.track(AAPL)
    truth = world.provider.truth[AAPL]
    values = truth.bars.values.copy()
    values[:, truth.bars.sessions == LAST_DUE - 181] = -5.0
    world.provider.truth[AAPL] = Truth(Bars(truth.bars.sessions, values))
    for _ in range(8 * 40):
        await world.synced()
        world.clock.advance(3 * HOUR)
    asked = [
        call
        for call in world.provider.calls_for(AAPL)
        if call.start is not None and call.start <= LAST_DUE - 181 and call.end is not None
    ]
    assert len(asked) == 5  # three times, after a month, and once for the audit of everything
    held = await world.bars.held(entry)
    covered = coverage(held, XNYS, entry.state, LAST_DUE - 181, LAST_DUE - 181, world.clock.time(), LAG)
    (said,) = covered.missing
    assert (said.absence, entry.state.attempts) == ("failing", 0)
    assert said.attempts >= 4
    assert said.next_retry is not None
    (item,) = await world.quarantine.items(series=entry.id)
    assert (item.code, item.state, item.session) == ("bad_close", "rejected", LAST_DUE - 181)


async def test_of_a_row_with_an_impossible_open_the_close_is_stored_and_the_fault_is_noted(world: World) -> None:
    (entry,) = await world.track(AAPL)
    spoiled = LAST_DUE - 181

    def without_open(history: History) -> History:
        values = history.bars.values.copy()
        values[0, history.bars.sessions == spoiled] = 0.0
        return replace(history, bars=Bars(history.bars.sessions, values))

    world.provider.script(AAPL, without_open)
    assert (await world.examined(entry)).rejected == 0
    bar = (await world.bars.read(entry)).between(spoiled, spoiled).values[:, 0]
    assert np.isnan(bar).tolist() == [True, False, False, False, False]
    (item,) = await world.quarantine.items(series=entry.id)
    assert (item.code, item.state, item.session) == ("bad_price", "rejected", spoiled)
    assert (await world.examined(entry)).outcome == "nothing_due"
    await world.examined(entry, start=spoiled)
    await world.assert_whole(AAPL)
    assert await world.quarantine.items(series=entry.id) == []


async def test_rows_that_an_adapter_could_not_use_are_in_the_quarantine(world: World) -> None:
    (entry,) = await world.track(AAPL)
    old, new = LAST_DUE - 181, LAST_DUE
    reasons = ((old, CLOSE_MISSING), (new, CLOSE_MISSING), (old - 1, "line 7: 'x' is not a number"))

    def faulty(history: History) -> History:
        return replace(lacking(old, new, old - 1)(history), rejected=reasons)

    world.provider.script(AAPL, faulty)
    await world.examined(entry)
    found = {(item.session, item.code, item.state) for item in await world.quarantine.items(series=entry.id)}
    assert found == {(old, "close_missing", "rejected"), (old - 1, "bad_row", "rejected")}
    assert entry.state.refused.keys() == {old - 1}
    assert entry.state.holes.keys() == {old, new}


async def test_empty_answers_at_first_are_no_evidence_and_the_history_comes_with_the_first_bars(world: World) -> None:
    (entry,) = await world.track(AAPL)
    world.provider.script(AAPL, *[empty] * 20)
    for _ in range(4 * 8):
        await world.synced()
        assert (state_of(entry, world.clock.time()), entry.state.code) == ("pending", "no_data")
        assert entry.state.next_retry is not None
        world.clock.advance(3 * HOUR)
    assert not entry.state.absent
    assert not entry.state.holes
    world.provider._scripts.clear()
    world.clock.advance(DAY)
    await world.synced()
    assert (state_of(entry, world.clock.time()), entry.state.code) == ("ok", None)
    last = XNYS.last_closed(world.clock.time(), LAG)
    assert last is not None
    await world.assert_whole(AAPL, last=last)


async def test_a_backfill_does_not_wait_after_empty_answers(world: World) -> None:
    (entry,) = await world.track(AAPL)
    world.provider.script(AAPL, empty)
    await world.synced()
    assert (await world.synced()).counts["added"] == 0
    await world.examiner.examine(entry, reason="backfill", force=True)
    await world.assert_whole(AAPL)


@pytest.mark.parametrize("damage", ["altered", "deleted"])
async def test_a_year_damaged_or_deleted_by_hand_is_rebuilt_by_the_next_sync(world: World, damage: str) -> None:
    broken, _ = await world.track(AAPL, MSFT)
    await world.synced()
    year = {"_id": broken.id * 10_000 + 2026}
    if damage == "altered":
        await world.database["bar_years"].update_one(year, {"$set": {"k": 1}})
    else:
        await world.database["bar_years"].delete_one(year)
    world.clock.advance(DAY)
    assert (await world.synced()).failures == {}
    await world.assert_whole(AAPL, last=FRIDAY)
    await world.assert_whole(MSFT, last=FRIDAY)


async def test_what_neither_journal_nor_record_has_any_more_is_told_and_fetched_again(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    await world.database["revisions"].update_many({}, {"$set": {"batch": ObjectId()}})
    await world.database["bar_years"].delete_one({"_id": entry.id * 10_000 + 2026})
    year = day_number(date(2026, 1, 1))
    held = await world.bars.held(entry)
    lost = held[held >= year]
    world.provider.script(AAPL, ProviderUnavailable())
    with capture_logs() as logs:
        entry.sessions = None
        await world.synced()
        said = entry.state.divergences["record_lost"]
        assert (said.count, said.first, said.last) == (len(lost), lost[0], lost[-1])
        assert (await world.bars.held(entry)).tolist() == held[held < year].tolist()
        for _ in range(3):
            world.clock.advance(DAY)
            await world.synced()
    told = [(line["event"], line["log_level"]) for line in logs if "record" in line["event"]]
    assert told == [("bars lost: record rebuilt without them", "error")]
    truth = world.provider.truth[AAPL].bars.between(entry.state.wanted_from, LAST_DUE)
    stored = (await world.bars.read(entry)).between(entry.state.wanted_from, LAST_DUE)
    assert stored.sessions.tolist() == truth.sessions.tolist()
    assert same_values(stored.values, truth.values).all()
    assert "record_lost" not in entry.state.divergences


async def test_a_record_that_is_sound_after_all_is_not_said_to_be_rebuilt(world: World) -> None:
    (entry,) = await world.track(AAPL)
    await world.synced()
    with capture_logs() as logs:
        await world.examiner._mend(entry)
    assert logs == []


async def test_a_backfill_asks_again_for_what_the_provider_began_without(world: World) -> None:
    whole = world.provider.truth[AAPL]
    world.provider.truth[AAPL] = Truth(whole.bars.between(LAST_DUE - 40, None), whole.actions)
    (entry,) = await world.track(AAPL)
    await world.synced()
    assert entry.state.listed_on is not None
    world.provider.truth[AAPL] = whole
    assert (await world.examined(entry, force=True)).outcome == "nothing_due"
    await world.examiner.examine(entry, reason="backfill", force=True)
    await world.assert_whole(AAPL)
