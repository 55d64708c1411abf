"""The log of job runs in MongoDB."""

from __future__ import annotations

import asyncio
import copy
import os

import pytest

from pricecache.errors import NotFound
from pricecache.stores.client import Database
from pricecache.stores.leases import new_owner
from pricecache.stores.runs import Run, RunState, RunStore, new_run_id
from tests.clock import START
from tests.integration.test_leases import ended_pid


def a_run(job: str = "sync", state: RunState = "running", owner: str = "", started_at: float = START) -> Run:
    return Run(new_run_id(), job, state, "operator", {"symbols": ["AAPL"]}, started_at, owner=owner)


async def test_a_run_comes_back_as_it_was(database: Database) -> None:
    runs, run = RunStore(database), a_run()
    run.state, run.ended_at, run.done, run.total, run.message = "succeeded", START + 1.5, 3, 4, "at AAPL"
    run.counts, run.failures_total, run.error = {"stored": 7}, 1, "$why.not"
    run.failures = [{"symbol": "X", "market": "US", "code": "symbol_not_found", "detail": "no \0 such"}]
    await runs.save(run)
    assert await runs.get(run.id) == run


async def test_an_unknown_run_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound) as missing:
        await RunStore(database).get("nonsense")
    assert missing.value.code == "unknown_run"


async def test_the_latest_come_first_and_without_their_failures(database: Database) -> None:
    runs = RunStore(database)
    for number in range(5):
        run = a_run("sync" if number % 2 else "refresh", started_at=START + number)
        run.failures, run.failures_total = [{"symbol": "X"}], 1
        await runs.save(run)
    assert [run.started_at - START for run in await runs.recent(3)] == [4, 3, 2]
    assert [run.started_at - START for run in await runs.recent(9, "sync")] == [3, 1]
    assert {(len(run.failures), run.failures_total) for run in await runs.recent(9)} == {(0, 1)}


async def test_an_older_state_that_arrives_late_replaces_nothing(database: Database) -> None:
    runs, run = RunStore(database), a_run()
    await runs.save(run)
    late = copy.replace(run) if hasattr(copy, "replace") else copy.copy(run)
    run.state = "succeeded"
    await runs.save(run)
    run.done = 5
    await runs.save(run)
    await runs.save(late)
    assert (await runs.get(run.id)).state == "succeeded"


async def test_saves_at_once_of_many_runs_all_arrive(database: Database) -> None:
    runs = RunStore(database)
    many = [a_run() for _ in range(100)]
    await asyncio.gather(*[runs.save(run) for run in many])
    assert len({run.id for run in await runs.recent(200)}) == 100


async def test_times_are_dates_and_old_runs_go_by_themselves(database: Database) -> None:
    runs, run = RunStore(database), a_run()
    run.ended_at = START
    await runs.save(run)
    for name in ("startedAt", "endedAt", "heartbeatAt"):
        assert await database["runs"].count_documents({name: {"$type": "date"}}) == 1, name
    assert (await database["runs"].index_information())["startedAt_-1"]["expireAfterSeconds"] == 30 * 86400


async def test_runs_of_who_is_gone_are_interrupted(database: Database) -> None:
    mine = new_owner()
    host = mine.rsplit(":", 2)[0]
    runs = RunStore(database)
    owners = {
        "mine": mine,
        "dead here": f"{host}:{ended_pid()}:x",
        "alive here": f"{host}:{os.getppid()}:x",
        "elsewhere": "elsewhere:1:x",
        "silent elsewhere": "silent:1:x",
    }
    by_name = {name: a_run(owner=owner) for name, owner in owners.items()}
    by_name["finished"] = a_run(state="succeeded", owner=owners["dead here"])
    by_name["queued"] = a_run(state="queued", owner=owners["dead here"])
    for run in by_name.values():
        await runs.save(run)
    await database["runs"].update_one(
        {"owner": "silent:1:x"}, [{"$set": {"heartbeatAt": {"$subtract": ["$$NOW", 61_000]}}}]
    )
    assert await runs.interrupt_abandoned(mine) == 3
    assert await runs.interrupt_abandoned(mine) == 0
    states = {name: (await runs.get(run.id)).state for name, run in by_name.items()}
    assert states == {
        "mine": "running",
        "dead here": "interrupted",
        "alive here": "running",
        "elsewhere": "running",
        "silent elsewhere": "interrupted",
        "finished": "succeeded",
        "queued": "interrupted",
    }
    ended = await runs.get(by_name["dead here"].id)
    assert ended.ended_at is not None
    assert ended.error == "The daemon that ran it ended."
