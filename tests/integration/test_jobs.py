"""Jobs: run on request and by the schedule, joined, drained, and never forgotten."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from pricecache.core.instruments import Instrument
from pricecache.errors import NotFound, ProviderUnavailable, Unavailable
from pricecache.jobs import JobDefinition, Jobs, RunHandle
from pricecache.metrics import Metrics
from pricecache.stores.client import Database, connect
from pricecache.stores.leases import LeaseStore, new_owner
from pricecache.stores.runs import Run, RunStore, new_run_id
from tests.clock import START, ManualClock
from tests.integration.test_leases import ended_pid, owner_of
from tests.mongod import TestMongod

Daemons = Callable[..., Jobs]


class Gate:
    """A routine that waits to be let through, and tells when it was reached."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.handles: list[RunHandle] = []

    async def __call__(self, handle: RunHandle) -> None:
        self.handles.append(handle)
        self.reached.set()
        await self.open.wait()


async def nothing(handle: RunHandle) -> None:
    pass


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def daemons(database: Database, clock: ManualClock) -> AsyncIterator[Daemons]:
    """Makes the jobs of one more daemon on the same database."""
    made: list[Jobs] = []

    def make(*definitions: JobDefinition, owner: str | None = None, **options: object) -> Jobs:
        leases = LeaseStore(database, owner or new_owner())
        made.append(Jobs(RunStore(database), leases, clock, **options))  # type: ignore[arg-type]
        for definition in definitions:
            made[-1].define(definition)
        return made[-1]

    yield make
    for jobs in made:
        stopping = asyncio.create_task(jobs.stop())
        while not stopping.done():
            clock.advance(60)
            await asyncio.sleep(0)
        await stopping


@pytest.fixture
def runs(database: Database) -> RunStore:
    return RunStore(database)


async def test_a_run_on_request_needs_no_schedule(daemons: Daemons, runs: RunStore, clock: ManualClock) -> None:
    async def routine(handle: RunHandle) -> None:
        assert handle.parameters == {"symbol": "AAPL"}
        handle.progress(1, 2, "half")
        clock.advance(0.5)
        handle.count("stored", 251)
        handle.count("stored")
        handle.fail(Instrument("X"), "symbol_not_found", "Not there.")
        handle.progress(2, 2, "whole")

    jobs = daemons(JobDefinition("backfill", routine))
    ticket = await jobs.run("backfill", {"symbol": "AAPL"})
    assert await ticket.finished()
    stored = await runs.get(ticket.run.id)
    assert stored == ticket.run
    assert (stored.state, stored.requested_by, stored.done, stored.total) == ("succeeded", "operator", 2, 2)
    assert (stored.started_at, stored.ended_at) == (START, START + 0.5)
    assert stored.counts == {"stored": 252}
    assert stored.failures == [{"symbol": "X", "market": "US", "code": "symbol_not_found", "detail": "Not there."}]


async def test_an_unknown_job_is_not_found(daemons: Daemons) -> None:
    with pytest.raises(NotFound) as missing:
        await daemons(JobDefinition("known", nothing)).run("other", {})
    assert missing.value.code == "unknown_job"


async def test_equal_requests_join_one_run(daemons: Daemons, runs: RunStore, gate: Gate) -> None:
    jobs = daemons(JobDefinition("sync", gate))
    tickets = await asyncio.gather(*[jobs.run("sync", {"a": [1], "b": 2}) for _ in range(20)])
    tickets.append(await jobs.run("sync", {"b": 2, "a": [1]}))
    assert len({ticket.run.id for ticket in tickets}) == 1
    assert not await tickets[0].finished(timeout=0)
    gate.open.set()
    assert all([await ticket.finished() for ticket in tickets])
    assert len(await runs.recent(10)) == 1


async def test_what_is_equal_can_be_defined(daemons: Daemons, gate: Gate) -> None:
    jobs = daemons(JobDefinition("sync", gate, key=lambda parameters: parameters["symbol"]))
    first = await jobs.run("sync", {"symbol": "AAPL", "start": "2020-01-01"})
    second = await jobs.run("sync", {"symbol": "AAPL"})
    assert first.run is second.run
    gate.open.set()


async def test_who_asks_after_the_end_gets_a_new_run(daemons: Daemons) -> None:
    tickets = []

    async def routine(handle: RunHandle) -> None:
        pass

    jobs = daemons(JobDefinition("sync", routine))
    for _ in range(3):
        tickets.append(await jobs.run("sync", {}))
        await tickets[-1].finished()
    assert len({ticket.run.id for ticket in tickets}) == 3


async def test_other_parameters_queue_up_to_the_concurrency(daemons: Daemons, runs: RunStore, gate: Gate) -> None:
    jobs = daemons(JobDefinition("backfill", gate, concurrency=2))
    tickets = [await jobs.run("backfill", {"symbol": name}) for name in "ABCD"]
    await gate.reached.wait()
    assert [ticket.run.state for ticket in tickets] == ["running", "running", "queued", "queued"]
    assert [(await runs.get(ticket.run.id)).state for ticket in tickets] == ["running", "running", "queued", "queued"]
    assert len(jobs.active()) == 4
    gate.open.set()
    for ticket in tickets:
        await ticket.finished()
    assert [ticket.run.state for ticket in tickets] == ["succeeded"] * 4
    assert jobs.active() == []


async def test_who_stops_waiting_does_not_stop_the_run(daemons: Daemons, gate: Gate) -> None:
    jobs = daemons(JobDefinition("sync", gate))
    asking = asyncio.create_task(jobs.run("sync", {}))
    await gate.reached.wait()
    asking.cancel()
    ticket = await jobs.run("sync", {})
    waiting = asyncio.create_task(ticket.finished())
    await asyncio.sleep(0)
    waiting.cancel()
    gate.open.set()
    assert await ticket.finished()
    assert ticket.run.state == "succeeded"


async def test_progress_is_stored_once_a_second(
    daemons: Daemons, runs: RunStore, gate: Gate, clock: ManualClock
) -> None:
    jobs = daemons(JobDefinition("sync", gate))
    ticket = await jobs.run("sync", {})
    await gate.reached.wait()
    version = ticket.run.version
    for done in range(100):
        gate.handles[0].progress(done, 100, f"{done} of 100")
    assert (await jobs.get(ticket.run.id)).done == 99
    assert (await runs.get(ticket.run.id)).done == 0
    await clock.until_sleeping()
    clock.advance(1)

    async def is_stored() -> bool:
        return (await runs.get(ticket.run.id)).message == "99 of 100"

    await until(is_stored)
    assert ticket.run.version == version + 1
    gate.open.set()
    await ticket.finished()


async def test_a_long_run_shows_that_it_is_alive(
    daemons: Daemons, database: Database, gate: Gate, clock: ManualClock
) -> None:
    jobs = daemons(JobDefinition("sync", gate))
    ticket = await jobs.run("sync", {})
    first = await database["runs"].find_one({"_id": ticket.run.id})

    async def beats() -> bool:
        clock.advance(1)
        latest = await database["runs"].find_one({"_id": ticket.run.id})
        return bool(first and latest and latest["heartbeatAt"] > first["heartbeatAt"])

    await until(beats)
    assert clock.monotonic() >= 5
    gate.open.set()
    await ticket.finished()


async def test_a_failure_is_told_once_with_its_traceback_and_counted(daemons: Daemons, runs: RunStore) -> None:
    faults: list[Exception | None] = [ZeroDivisionError("by zero"), ProviderUnavailable("No\ud800 answer."), None]

    async def routine(handle: RunHandle) -> None:
        if (fault := faults.pop(0)) is not None:
            raise fault

    metrics = Metrics("0")
    jobs = daemons(JobDefinition("sync", routine), metrics=metrics)
    ended = []
    with capture_logs() as lines:
        for _ in range(3):
            ticket = await jobs.run("sync", {})
            await ticket.finished()
            ended.append(await runs.get(ticket.run.id))
    assert [run.state for run in ended] == ["failed", "failed", "succeeded"]
    assert [run.error for run in ended] == ["ZeroDivisionError('by zero')", "No? answer.", None]
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("error", "job failed"),
        ("debug", "job failed"),
        ("info", "job works again"),
    ]
    assert isinstance(lines[0]["exc_info"], ZeroDivisionError)
    assert metrics.registry.get_sample_value("pricecache_job_runs_total", {"job": "sync", "outcome": "failed"}) == 2


async def test_failures_are_kept_up_to_a_thousand_and_counted_beyond(daemons: Daemons, runs: RunStore) -> None:
    async def routine(handle: RunHandle) -> None:
        for _ in range(1500):
            handle.fail(Instrument("X"), "provider_unavailable", "\udcff" * 1000)

    ticket = await daemons(JobDefinition("sync", routine)).run("sync", {})
    await ticket.finished()
    stored = await runs.get(ticket.run.id)
    assert (len(stored.failures), stored.failures_total, stored.state) == (1000, 1500, "succeeded")


@pytest.mark.parametrize(
    ("symbols", "total", "state"),
    [
        (["A", "B", "A"], 2, "failed"),
        (["A", "A", "A"], 2, "succeeded"),
        (["A"], 2, "succeeded"),
        (["A", "B"], 0, "failed"),
        (["A", "B"], 1, "succeeded"),  # outside of what the total counts: of that nothing is known
        (["A", "B"], None, "succeeded"),
        ([], 2, "succeeded"),
    ],
)
async def test_a_run_of_which_every_instrument_failed_has_failed(
    daemons: Daemons, symbols: list[str], total: int | None, state: str
) -> None:
    async def routine(handle: RunHandle) -> None:
        for symbol in symbols:
            handle.fail(Instrument(symbol), "symbol_not_found", "Not there.")
        handle.progress(total or 0, total)

    jobs = daemons(JobDefinition("sync", routine, fails_with_all=True), JobDefinition("verify", routine))
    for job, expected in (("sync", state), ("verify", "succeeded")):
        ticket = await jobs.run(job, {})
        await ticket.finished()
        assert ticket.run.state == expected
        assert (ticket.run.error is None) == (expected == "succeeded")


async def test_a_scheduled_run_without_an_event_is_kept_as_long_as_its_job_says(
    daemons: Daemons, runs: RunStore
) -> None:
    short = JobDefinition("short", nothing, every=0.05, first_after=0, uneventful_kept_seconds=60)
    jobs = daemons(short, JobDefinition("long", nothing, every=0.05, first_after=0))
    await (await jobs.run("short", {})).finished()
    await jobs.start()

    async def both_ran() -> bool:
        made = [(run.job, run.requested_by) for run in await runs.recent(50) if run.is_finished]
        return {("short", "schedule"), ("long", "schedule")} <= set(made)

    await until(both_ran)
    listed = {(run.job, run.requested_by) for run in await runs.recent(50, uneventful=False) if run.is_finished}
    assert listed == {("short", "operator"), ("long", "schedule")}


async def test_a_stop_waits_for_what_runs(daemons: Daemons, runs: RunStore, gate: Gate) -> None:
    jobs = daemons(JobDefinition("sync", gate))
    ticket = await jobs.run("sync", {})
    await gate.reached.wait()
    stopping = asyncio.create_task(jobs.stop())
    await asyncio.sleep(0)
    assert gate.handles[0].stopping
    with pytest.raises(Unavailable) as refusal:
        await jobs.run("sync", {"another": 1})
    assert refusal.value.code == "stopping"
    gate.handles[0].progress(5, 5)
    gate.open.set()
    await stopping
    assert (await runs.get(ticket.run.id)).state == "succeeded"


async def test_a_run_that_ends_early_at_a_stop_is_interrupted(daemons: Daemons, runs: RunStore, gate: Gate) -> None:
    jobs = daemons(JobDefinition("sync", gate))
    ticket = await jobs.run("sync", {})
    queued = asyncio.create_task(jobs.run("sync", {"later": True}))
    await gate.reached.wait()
    gate.handles[0].progress(3, 5)
    stopping = asyncio.create_task(jobs.stop())
    await asyncio.sleep(0)
    gate.open.set()
    await stopping
    assert (await runs.get(ticket.run.id)).state == "interrupted"
    assert (await runs.get((await queued).run.id)).state == "interrupted"
    assert len(gate.handles) == 1


async def test_a_run_that_does_not_end_is_cancelled_after_the_drain(
    daemons: Daemons, runs: RunStore, gate: Gate, clock: ManualClock
) -> None:
    jobs = daemons(JobDefinition("sync", gate), drain_seconds=30)
    ticket = await jobs.run("sync", {})
    await gate.reached.wait()
    with capture_logs() as lines:
        stopping = asyncio.create_task(jobs.stop())
        await clock.until_sleeping(2)
        clock.advance(29)
        await asyncio.sleep(0.05)
        assert not stopping.done()
        clock.advance(1)
        await stopping
    assert await ticket.finished(timeout=0)
    assert (await runs.get(ticket.run.id)).state == "interrupted"
    assert [line["event"] for line in lines] == ["running jobs are cancelled"]


async def test_a_run_ends_though_the_driver_swallows_the_cancellation_of_its_heartbeat(
    database: Database, clock: ManualClock
) -> None:
    """Without asking again it would wait for the next beat of a clock that nobody moves."""

    class Swallowing(RunStore):
        def __init__(self, database: Database) -> None:
            super().__init__(database)
            self.saving, self.swallowed = asyncio.Event(), False

        async def save(self, run: Run) -> None:
            if run.state == "running" and run.done and not self.swallowed:
                self.saving.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:  # as the driver may at the end of an operation
                    self.swallowed = True
            await super().save(run)

    runs = Swallowing(database)

    async def routine(handle: RunHandle) -> None:
        handle.progress(1, 1, "all")
        clock.advance(60)
        await runs.saving.wait()

    jobs = Jobs(runs, LeaseStore(database, new_owner()), clock)
    jobs.define(JobDefinition("backfill", routine))
    async with asyncio.timeout(20):
        ticket = await jobs.run("backfill", {"symbol": "AAPL"})
        assert await ticket.finished()
        await jobs.stop()
    assert runs.swallowed
    assert (await runs.get(ticket.run.id)).state == "succeeded"


async def test_what_a_dead_daemon_left_is_ended_at_the_start(
    daemons: Daemons, database: Database, runs: RunStore
) -> None:
    """The dead daemon's lease does not hold up its successor's first run either."""
    dead = f"{new_owner().rsplit(':', 2)[0]}:{ended_pid()}:x"
    left = Run(new_run_id(), "sync", "running", "schedule", {}, START, owner=dead)
    await runs.save(left)
    assert await LeaseStore(database, dead).acquire("sync") == 1
    gate = Gate()
    jobs = daemons(JobDefinition("sync", gate, every=3600, first_after=0))
    await jobs.start()
    assert (await runs.get(left.id)).state == "interrupted"
    assert jobs.status()["jobs"][0]["lastOutcome"] == "interrupted"
    async with asyncio.timeout(5):
        await gate.reached.wait()
    gate.open.set()


async def test_a_daemon_killed_in_the_middle_of_a_run_leaves_it_interrupted(
    mongod: TestMongod, daemons: Daemons, database: Database, runs: RunStore
) -> None:
    program = """
import asyncio, sys
from pricecache.clock import SystemClock
from pricecache.jobs import JobDefinition, Jobs
from pricecache.stores.client import connect
from pricecache.stores.leases import LeaseStore, new_owner
from pricecache.stores.runs import RunStore

async def main():
    database = connect(sys.argv[1])[sys.argv[2]]
    jobs = Jobs(RunStore(database), LeaseStore(database, new_owner()), SystemClock())
    async def routine(handle):
        print(handle.run.id, flush=True)
        await asyncio.Event().wait()
    jobs.define(JobDefinition("sync", routine, every=3600))
    await jobs.run("sync", {})
    await asyncio.Event().wait()

asyncio.run(main())
"""
    command = [sys.executable, "-c", program, mongod.uri, database.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            run_id = (await asyncio.to_thread(process.stdout.readline)).strip()
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert (await runs.get(run_id)).state == "running"
    await daemons(JobDefinition("sync", nothing, every=3600)).start()
    assert (await runs.get(run_id)).state == "interrupted"


async def test_the_schedule_runs_a_job_again_and_again(daemons: Daemons, runs: RunStore) -> None:
    jobs = daemons(JobDefinition("sync", nothing, every=0.05, first_after=0), JobDefinition("backfill", nothing))
    assert jobs.status()["running"] is False
    await jobs.start()

    async def thrice() -> bool:
        return len(await runs.recent(10)) >= 3

    await until(thrice)
    status = jobs.status()
    assert status["running"] is True
    first, second = status["jobs"]
    assert (first["id"], first["lastOutcome"], first["missed"]) == ("sync", "succeeded", 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["nextRun"])
    assert first["lastRun"] == "2026-11-20T10:00:00Z"
    assert first["durationMs"] == 0
    assert second == {
        "id": "backfill",
        "nextRun": None,
        "lastRun": None,
        "lastOutcome": None,
        "durationMs": None,
        "missed": 0,
        "running": None,
    }
    assert {run.requested_by for run in await runs.recent(10)} == {"schedule"}


async def test_the_first_scheduled_run_comes_when_told(daemons: Daemons) -> None:
    jobs = daemons(
        JobDefinition("soon", nothing, every=10800, first_after=10),
        JobDefinition("later", nothing, every=900),
        JobDefinition("nightly", nothing, cron="0 4 * * *", time_zone="America/New_York"),
        JobDefinition("caught up", nothing, cron="0 4 * * *", time_zone="America/New_York", first_after=20),
    )
    await jobs.start()
    now = datetime.now(UTC)
    waits = [(jobs.next_run(name) or now) - now for name in ("soon", "later", "caught up")]
    assert [round(wait.total_seconds()) for wait in waits] == [10, 900, 20]
    nightly = jobs.next_run("nightly")
    assert nightly is not None
    assert (nightly.hour, nightly.minute, str(nightly.tzinfo)) == (4, 0, "America/New_York")


async def test_a_run_that_takes_too_long_makes_the_schedule_miss_and_tell_once(daemons: Daemons, gate: Gate) -> None:
    jobs = daemons(JobDefinition("sync", gate, every=0.05, first_after=0))
    with capture_logs() as lines:
        await jobs.start()

        async def missed() -> bool:
            return bool(jobs.status()["jobs"][0]["missed"] >= 3)

        await until(missed)
        assert jobs.status()["jobs"][0]["running"] == gate.handles[0].run.id
    assert len(gate.handles) == 1
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["a scheduled run is missed"]
    gate.open.set()


async def test_the_schedule_joins_a_run_on_request(daemons: Daemons, runs: RunStore, gate: Gate) -> None:
    jobs = daemons(JobDefinition("sync", gate, every=0.05, first_after=0))
    ticket = await jobs.run("sync", {})
    await jobs.start()

    async def missed() -> bool:
        return bool(jobs.status()["jobs"][0]["missed"] >= 1)

    await until(missed)
    assert [run.id for run in await runs.recent(10)] == [ticket.run.id]
    gate.open.set()


async def test_of_two_daemons_one_runs_and_the_other_leaves_it_out(
    daemons: Daemons, runs: RunStore, clock: ManualClock, database: Database
) -> None:
    gates = [Gate(), Gate()]
    both = [daemons(JobDefinition("sync", gate, every=3600, first_after=0)) for gate in gates]
    await both[0].start()
    await gates[0].reached.wait()
    await both[1].start()
    await clock.until_sleeping(4)  # its tick watches the other's lease
    gates[0].open.set()
    watcher = LeaseStore(database, "watcher:1:x")

    async def given_back() -> bool:
        return await watcher.is_released("sync")

    await until(given_back)
    clock.advance(5)
    await both[1].stop()
    assert gates[1].handles == []
    assert len(await runs.recent(10)) == 1
    assert both[1].status()["jobs"][0]["missed"] == 0


async def test_a_daemon_that_dies_at_its_job_is_followed_by_another(
    daemons: Daemons, database: Database, gate: Gate, clock: ManualClock
) -> None:
    dead = LeaseStore(database, "elsewhere:1:x")
    await dead.acquire("sync")
    jobs = daemons(JobDefinition("sync", gate, every=3600, first_after=0))
    await jobs.start()
    await clock.until_sleeping(2)
    assert gate.handles == []
    await database["leases"].update_one({"_id": "sync"}, [{"$set": {"until": "$$NOW"}}])
    clock.advance(5)
    async with asyncio.timeout(5):
        await gate.reached.wait()
    gate.open.set()


async def test_a_lease_is_renewed_while_its_run_goes_on_and_given_back(
    daemons: Daemons, database: Database, gate: Gate, clock: ManualClock
) -> None:
    jobs = daemons(JobDefinition("sync", gate, every=3600), owner="me:1:x")
    ticket = await jobs.run("sync", {})
    await gate.reached.wait()
    first = await database["leases"].find_one({"_id": "sync"})

    async def renewed() -> bool:
        clock.advance(1)
        lease = await database["leases"].find_one({"_id": "sync"})
        return bool(first and lease and lease["until"] > first["until"])

    await until(renewed)
    gate.open.set()
    await ticket.finished()
    assert await LeaseStore(database, "other:1:x").acquire("sync") == 2


async def test_a_lost_lease_asks_the_run_to_end(
    daemons: Daemons, database: Database, gate: Gate, clock: ManualClock
) -> None:
    jobs = daemons(JobDefinition("sync", gate, every=3600), owner="me:1:x")
    ticket = await jobs.run("sync", {})
    await gate.reached.wait()
    await database["leases"].update_one({"_id": "sync"}, {"$set": {"owner": "other:1:x", "epoch": 2}})

    async def is_stopping() -> bool:
        clock.advance(1)
        return gate.handles[0].stopping

    with capture_logs() as lines:
        await until(is_stopping)
    assert [line["event"] for line in lines] == ["lease lost"]
    gate.open.set()
    await ticket.finished()
    assert ticket.run.state == "interrupted"
    assert await owner_of(database, "sync") == "other:1:x"


@pytest.mark.slow
async def test_a_run_outlives_a_database_that_cannot_record_it(
    mongod: TestMongod, database_name: str, clock: ManualClock
) -> None:
    async with connect("mongodb://%2Fnowhere.sock/?directConnection=true", timeout_ms=20) as client:
        database = client[database_name]
        jobs = Jobs(RunStore(database), LeaseStore(database, new_owner()), clock)
        jobs.define(JobDefinition("sync", nothing, every=3600))
        with capture_logs() as lines:
            ticket = await jobs.run("sync", {})
            assert await ticket.finished()
        await jobs.stop()
    assert ticket.run.state == "succeeded"
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["runs cannot be recorded"]
