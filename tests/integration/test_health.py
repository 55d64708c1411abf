"""How the daemon is: the database, the schedule, what goes on beside them."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from pricecache.background import BackgroundTasks
from pricecache.health import Health
from pricecache.stores.client import Database, connect
from tests.clock import ManualClock

NOWHERE = "mongodb://%2Fnowhere.sock/?directConnection=true"


async def test_everything_that_readiness_depends_on_is_a_check_of_its_own(database: Database) -> None:
    tasks, schedule = BackgroundTasks(), [False]
    health = Health(database, ManualClock(), tasks, lambda: schedule[0])
    assert health.checks() == {"mongodb": "ok", "scheduler": "starting"}
    assert not health.is_ready
    schedule[0] = True
    assert health.is_ready

    async def dies() -> None:
        raise RuntimeError

    with capture_logs():
        tasks.start(health.keep_pinging(), "ping")
        tasks.start(dies(), "watch")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    expected = {"mongodb": "ok", "scheduler": "ok", "ping": "ok", "watch": "died: RuntimeError"}
    assert health.checks() == expected
    assert not health.is_ready
    await tasks.end()


async def test_a_ping_does_not_make_a_dead_task_well_again(database: Database) -> None:
    tasks, clock = BackgroundTasks(), ManualClock()
    health = Health(database, clock, tasks, lambda: True)

    async def dies() -> None:
        raise RuntimeError

    with capture_logs():
        tasks.start(dies(), "calendars")
        tasks.start(health.keep_pinging(), "ping")
        for _ in range(3):
            await clock.until_sleeping()
            clock.advance(2)
            await asyncio.sleep(0)
    assert health.checks()["calendars"] == "died: RuntimeError"
    assert health.checks()["mongodb"] == "ok"
    await tasks.end()


async def test_a_database_that_goes_away_is_told_once_and_when_it_is_back(
    database: Database, database_name: str
) -> None:
    clock, tasks = ManualClock(), BackgroundTasks()
    async with connect(NOWHERE, timeout_ms=20) as client:
        health = Health(client[database_name], clock, tasks, lambda: True)
        with capture_logs() as lines:
            tasks.start(health.keep_pinging(), "ping")
            for _ in range(3):
                await clock.until_sleeping()
                assert health.checks()["mongodb"] == "does not answer"
                clock.advance(2)
            await clock.until_sleeping()
            health._database = database
            clock.advance(2)
            await clock.until_sleeping()
        await tasks.end()
    assert health.checks()["mongodb"] == "ok"
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "database does not answer"),
        ("info", "database answers again"),
    ]


async def test_sizes_are_asked_for_every_ten_seconds_at_most(database: Database) -> None:
    clock = ManualClock()
    health = Health(database, clock, BackgroundTasks(), lambda: True)
    first = await health.storage()
    assert first.keys() == {"data_bytes", "disk_bytes", "documents"}
    await database["runs"].insert_many([{"_id": number} for number in range(10)])
    clock.advance(9)
    assert await health.storage() == first
    clock.advance(2)
    assert (await health.storage())["documents"] == first["documents"] + 10
