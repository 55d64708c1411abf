"""The queue at work: two users at once, failures that hold up nobody else, ends that lose nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pymongo.errors import AutoReconnect
from structlog.testing import capture_logs

from pricecache.background import cancelled
from pricecache.errors import Conflict, Unavailable
from pricecache.portfolio.reconstruction_queue import MOST_ATTEMPTS, Attempt, Outcome, ReconstructionQueue
from pricecache.stores.leases import new_owner
from pricecache.stores.reconstruction_days import ReconstructionDays, ReconstructionTotals
from pricecache.stores.reconstructions import Progress, ReconstructionRecord, ReconstructionStore
from tests.clock import START, ManualClock
from tests.integration.test_leases import ended_pid


class Works:
    """Does what a test says: waits at a gate, fails as often as scripted, else is done."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.going_on: set[str] = set()
        self.most = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.scripts: dict[str, list[Exception]] = {}

    def gate(self, connection: str) -> asyncio.Event:
        return self.gates.setdefault(connection, asyncio.Event())

    async def __call__(self, attempt: Attempt) -> Outcome:
        name = attempt.claim.connection
        self.begun.append(name)
        self.going_on.add(name)
        self.most = max(self.most, len(self.going_on))
        try:
            attempt.found_prices(10, 4 if self.begun.count(name) == 1 else 10)
            if name in self.gates:
                attempt.tell(Progress(50, "prices", "Processing AAPL", "AAPL", 1, 2))
                await self.gates[name].wait()
            if script := self.scripts.get(name):
                raise script.pop(0)
            await attempt.require()
            return Outcome({"transactions": 3}, [{"code": "x"}], {"transactions": 3})
        finally:
            self.going_on.discard(name)


class Daemons:
    """Queues on one database, each with a clock of its own that stands still."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.store = ReconstructionStore(database)
        self.days = ReconstructionDays(database)
        self.works = Works()
        self.clock = ManualClock()
        self.heard: list[ReconstructionRecord] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, concurrency: int = 2, works: Works | None = None) -> ReconstructionQueue:
        queue = ReconstructionQueue(
            self.store,
            self.days,
            works or self.works,
            self.clock,
            new_owner(),
            random.Random(1),
            concurrency=concurrency,
        )
        queue.on_progress = self.heard.append
        self._tasks.append(asyncio.create_task(queue.run(), name="queue"))
        return queue

    async def end(self) -> None:
        await cancelled(self._tasks)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    async def totals(self, ended: int) -> ReconstructionTotals:
        """Once so many are counted."""
        async with asyncio.timeout(20):
            while True:
                totals = await self.days.totals(self.clock.time(), 1)
                if totals.done + totals.failed >= ended:
                    return totals

    async def state(self, connection: str, *states: str) -> ReconstructionRecord:
        """It, once it is in one of these states."""
        async with asyncio.timeout(20):
            while True:
                record = await self.store.find(connection)
                if record is not None and record.state in states:
                    return record
                await asyncio.sleep(0.005)


@pytest.fixture
async def daemons(database: Any) -> AsyncIterator[Daemons]:
    made = Daemons(database)
    yield made
    await made.end()


async def ask(queue: ReconstructionQueue, name: str, **more: Any) -> ReconstructionRecord:
    return await queue.request(name, name.partition("/")[0], "p", "test", **more)


async def begun(daemons: Daemons, times: int) -> None:
    """Wait until ann's was begun so often."""
    await daemons.until(lambda: daemons.works.begun.count("ann/1") >= times)


async def test_what_is_asked_for_is_done_and_told(daemons: Daemons) -> None:
    queue = daemons.start()
    await ask(queue, "ann/1")
    record = await daemons.state("ann/1", "done")
    assert (record.result, record.progress.percent, record.attempts) == ({"transactions": 3}, 100, 1)
    await daemons.until(lambda: [one.state for one in daemons.heard][-1] == "done")
    assert [one.state for one in daemons.heard] == ["queued", "running", "done"]
    totals = await daemons.totals(1)
    assert (totals.success_rate, totals.cache_hit_rate) == (100.0, 40.0)


async def test_what_was_here_is_counted_once_for_each_request_as_its_first_attempt_found_it(daemons: Daemons) -> None:
    queue = daemons.start()
    daemons.works.scripts["ann/1"] = [Unavailable("away"), Unavailable("away")]
    await ask(queue, "ann/1")
    for _ in range(2):
        record = await daemons.state("ann/1", "waiting")
        assert record.is_counted
        daemons.clock.set(record.not_before or 0.0)
        await begun(daemons, daemons.works.begun.count("ann/1") + 1)
    await daemons.state("ann/1", "done")
    totals = await daemons.totals(1)
    assert (totals.securities_needed, totals.securities_cached, totals.cache_hit_rate) == (10, 4, 40.0)
    await ask(queue, "ann/1")
    totals = await daemons.totals(2)
    assert (totals.securities_needed, totals.securities_cached, totals.cache_hit_rate) == (20, 14, 70.0)


async def test_two_users_are_done_at_once_and_their_own_one_after_the_other(daemons: Daemons) -> None:
    names = [f"{user}/{number}" for number in (1, 2) for user in ("ann", "bob", "cid", "dan")]
    for name in names:
        daemons.works.gate(name)
    queue, works = daemons.start(), daemons.works
    for name in names:
        await ask(queue, name)
        daemons.clock.advance(0.01)
    for number, name in enumerate(names):  # nothing ends but by its gate: two go on until one is left
        at_once = set(names[number : number + 2])
        await daemons.until(lambda wanted=at_once: works.going_on == wanted)  # type: ignore[misc]
        works.gate(name).set()
    for name in names:
        await daemons.state(name, "done")
    assert works.begun == names
    assert works.most == 2


async def test_two_daemons_together_do_two_users_at_once_each_once(daemons: Daemons) -> None:
    names = [f"u{number}/1" for number in range(12)]
    queues = [daemons.start(), daemons.start()]
    for number, name in enumerate(names):
        await ask(queues[number % 2], name)
    for name in names:
        await daemons.state(name, "done")
    assert sorted(daemons.works.begun) == sorted(names)
    assert daemons.works.most <= 2


async def test_a_user_that_fails_holds_up_nobody_and_is_tried_again_later_and_later(daemons: Daemons) -> None:
    daemons.works.scripts["ann/1"] = [Unavailable("Not now.", code="calendar_loading"), AutoReconnect("gone")]
    queue = daemons.start(concurrency=1)
    await ask(queue, "ann/1")
    await ask(queue, "bob/1")
    await daemons.state("bob/1", "done")
    waits = []
    for code in ("calendar_loading", "database_unavailable"):
        record = await daemons.state("ann/1", "waiting")
        assert record.failure is not None
        assert record.failure.code == code
        assert record.not_before is not None
        waits.append(record.not_before - daemons.clock.time())
        daemons.clock.set(record.not_before + 0.01)
        queue.wake()
        await begun(daemons, len(waits) + 1)
    assert 48 <= waits[0] <= 72
    assert 96 <= waits[1] <= 144
    record = await daemons.state("ann/1", "done")
    assert record.attempts == 3
    totals = await daemons.totals(2)
    assert (totals.done, totals.failed, totals.retried) == (2, 0, 2)


async def test_what_cannot_be_is_not_tried_again_until_somebody_asks(daemons: Daemons) -> None:
    daemons.works.scripts["ann/1"] = [Conflict("Gone.", code="portfolio_gone")]
    queue = daemons.start()
    await ask(queue, "ann/1")
    record = await daemons.state("ann/1", "failed")
    assert record.failure is not None
    assert (record.failure.code, record.failure.detail) == ("portfolio_gone", "Gone.")
    await ask(queue, "ann/1")
    assert (await daemons.state("ann/1", "done")).failure is None
    totals = await daemons.totals(1)
    assert (totals.done, totals.failed, queue.failed) == (1, 0, 0)  # what users do is no failure


async def test_a_fault_of_ours_is_told_and_given_up_after_many_attempts(daemons: Daemons) -> None:
    daemons.works.scripts["ann/1"] = [RuntimeError("odd") for _ in range(MOST_ATTEMPTS)]
    queue = daemons.start()
    await ask(queue, "ann/1")
    for attempt in range(1, MOST_ATTEMPTS):
        await begun(daemons, attempt)
        record = await daemons.state("ann/1", "waiting")
        assert record.not_before is not None
        daemons.clock.set(record.not_before + 0.01)
        queue.wake()
    record = await daemons.state("ann/1", "failed")
    assert record.failure is not None
    assert (record.failure.code, record.attempts) == ("internal_error", MOST_ATTEMPTS)


async def test_asking_while_it_runs_does_it_again_and_the_same_data_does_not(daemons: Daemons) -> None:
    gate = daemons.works.gate("ann/1")
    queue = daemons.start()
    await ask(queue, "ann/1", digest="one")
    await daemons.until(lambda: daemons.works.begun == ["ann/1"])
    await ask(queue, "ann/1", digest="one")
    await ask(queue, "ann/1", digest="two")
    await ask(queue, "ann/1", digest="two")
    gate.set()
    await daemons.until(lambda: daemons.works.begun == ["ann/1"] * 2)
    await daemons.state("ann/1", "done")
    await asyncio.sleep(0)
    assert daemons.works.begun == ["ann/1"] * 2


async def test_a_stop_hands_back_what_it_had_begun_and_another_daemon_goes_on(daemons: Daemons) -> None:
    daemons.works.gate("ann/1")
    queue = daemons.start()
    await ask(queue, "ann/1")
    await daemons.until(lambda: daemons.works.begun == ["ann/1"])
    await queue.stop()
    assert (await daemons.state("ann/1", "queued")).attempts == 0
    await daemons.until(lambda: queue.running == 0)
    other = Works()
    daemons.start(works=other)
    assert (await daemons.state("ann/1", "done")).attempts == 1
    assert other.begun == ["ann/1"]


async def test_what_is_being_claimed_at_a_stop_is_not_begun(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, reached, goes_on = ReconstructionStore.claim, asyncio.Event(), asyncio.Event()

    async def slow(self: ReconstructionStore, *given: Any) -> Any:
        found = await claim(self, *given)
        if found is not None and not goes_on.is_set():
            reached.set()
            await goes_on.wait()
        return found

    monkeypatch.setattr(ReconstructionStore, "claim", slow)
    queue = daemons.start()
    await ask(queue, "ann/1")
    await reached.wait()
    stopping = asyncio.create_task(queue.stop(), name="stopping")
    await asyncio.sleep(0)
    goes_on.set()
    await stopping
    assert (await daemons.state("ann/1", "queued")).attempts == 0
    assert daemons.works.begun == []


async def test_progress_is_kept_once_a_second(daemons: Daemons) -> None:
    daemons.works.gate("ann/1")
    queue = daemons.start()
    await ask(queue, "ann/1")
    await daemons.until(lambda: any(one.progress.percent == 50 for one in daemons.heard))
    record = await daemons.store.find("ann/1")
    assert record is not None
    assert record.progress.percent == 0
    daemons.clock.advance(1)
    async with asyncio.timeout(20):
        while record.progress.percent != 50:
            record = await daemons.store.find("ann/1")
            assert record is not None
    assert (record.progress.message, record.progress.done, record.progress.total) == ("Processing AAPL", 1, 2)


async def test_one_that_is_forgotten_meanwhile_is_stopped(daemons: Daemons) -> None:
    daemons.works.gate("ann/1")
    queue = daemons.start()
    await ask(queue, "ann/1")
    await daemons.until(lambda: daemons.works.begun == ["ann/1"])
    await daemons.store.forget("ann/1")
    with capture_logs() as lines:
        async with asyncio.timeout(20):
            while queue.running:
                daemons.clock.advance(6)
                await asyncio.sleep(0.005)
    assert await daemons.store.find("ann/1") is None
    told = {"event": "a reconstruction is another's by now, or no longer wanted", "connection": "ann/1"}
    assert lines == [{**told, "log_level": "debug"}]


@pytest.mark.parametrize("ends", ["done", "failed"])
async def test_one_whose_claim_is_lost_when_it_ends_says_so(daemons: Daemons, ends: str) -> None:
    gate = daemons.works.gate("ann/1")
    if ends == "failed":
        daemons.works.scripts["ann/1"] = [ValueError("ours")]
    queue = daemons.start()
    await ask(queue, "ann/1")
    await daemons.until(lambda: daemons.works.begun == ["ann/1"])
    await daemons.store.forget("ann/1")
    with capture_logs() as lines:
        gate.set()
        await daemons.until(lambda: not queue.running)
    assert [line["event"] for line in lines if line["log_level"] == "debug"] == [
        "a reconstruction is another's by now, or no longer wanted"
    ]


async def test_one_of_which_nobody_can_say_that_it_goes_on_is_made_again(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, faults = ReconstructionStore.beat, [TypeError("ours")]

    async def broken(self: ReconstructionStore, *given: Any) -> None:
        if faults:
            raise faults.pop()
        await beat(self, *given)

    monkeypatch.setattr(ReconstructionStore, "beat", broken)
    gate = daemons.works.gate("ann/1")
    queue = daemons.start()
    await ask(queue, "ann/1")
    await daemons.until(lambda: daemons.works.begun == ["ann/1"])
    with capture_logs() as lines:
        async with asyncio.timeout(20):
            while queue.running:
                daemons.clock.advance(6)
                await asyncio.sleep(0.005)
    assert [(line["event"], type(line["exc_info"])) for line in lines] == [("a reconstruction failed", TypeError)]
    record = await daemons.state("ann/1", "waiting")
    assert record.failure is not None
    assert record.failure.code == "internal_error"
    assert daemons.works.going_on == set()
    gate.set()
    async with asyncio.timeout(20):
        while queue.done < 1:
            daemons.clock.advance(30)
            await asyncio.sleep(0.005)
    assert (await daemons.state("ann/1", "done")).attempts == 2


async def test_what_a_killed_daemon_had_begun_is_done_by_the_next(daemons: Daemons) -> None:
    dead = f"{new_owner().split(':')[0]}:{ended_pid()}:x"
    await daemons.store.request("ann/1", "ann", "p", "test", START)
    assert await daemons.store.claim(0, dead, START) is not None
    daemons.start()
    assert (await daemons.state("ann/1", "done")).attempts == 2


async def test_a_database_that_is_away_is_waited_for(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, broken = ReconstructionStore.claim, [True]

    async def breaking(self: ReconstructionStore, *given: Any) -> Any:
        if broken[0]:
            raise AutoReconnect("away")
        return await claim(self, *given)

    monkeypatch.setattr(ReconstructionStore, "claim", breaking)
    queue = daemons.start()
    await ask(queue, "ann/1")
    await daemons.clock.until_sleeping(3)
    broken[0] = False
    daemons.clock.advance(6)
    await daemons.state("ann/1", "done")


async def test_a_listener_that_fails_fails_nothing(daemons: Daemons) -> None:
    queue = daemons.start()

    def broken(record: ReconstructionRecord) -> None:
        raise RuntimeError("deaf")

    queue.on_progress = broken
    await ask(queue, "ann/1")
    await daemons.state("ann/1", "done")
    assert queue.failed == 0
