"""The daemon within the process of the test: its background tasks, and an end that leaves nothing out."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from pricecache import daemon as daemons
from pricecache.api.server import FrontDoor
from pricecache.errors import Misconfigured
from pricecache.settings import Settings
from pricecache.stores.client import Database
from tests.mongod import TestMongod

NOWHERE = "mongodb://%2Fnowhere.sock/?directConnection=true"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """No setting of the machine leaks in, and the log and the garbage stay the affair of the process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pricecache.logs.configure", lambda *_: None)
    yield
    gc.unfreeze()


@asynccontextmanager
async def running(uri: str, name: str = "test", **settings: Any) -> AsyncIterator[daemons.Daemon]:
    """A daemon on the sample provider, told to stop at the end; its failures come out of that."""
    values: dict[str, Any] = {
        "providers": "sample",
        "port": 0,
        "mongodb_uri": uri,
        "mongodb_database": name,
        **settings,
    }
    door = FrontDoor("127.0.0.1", 0)
    await door.start()
    daemon = daemons.Daemon(Settings(_env_file=None, **values), door, None)
    stop = asyncio.Event()
    task = asyncio.create_task(daemon.run(stop))
    try:
        yield daemon
    finally:
        stop.set()
        try:
            async with asyncio.timeout(20):
                assert await task == 0
        finally:
            await door.stop(0)


def left_over() -> list[str]:
    """The tasks that go on, without this one and those of the driver: the test's own client has some."""
    mine = asyncio.all_tasks() - {asyncio.current_task()}
    return [f"{task}" for task in mine if "/pymongo/" not in f"{task.get_coro().cr_code}"]  # type: ignore[union-attr]


async def readiness(daemon: daemons.Daemon, status: int) -> dict[str, Any]:
    """The checks of `/readyz`, once it answers with `status`."""
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{daemon.url}/readyz") as answer:
                found = json.loads(await answer.read())
            if answer.status == status:
                return dict(found["checks"])
            await asyncio.sleep(0.01)


async def test_a_background_task_that_dies_makes_the_daemon_unready_for_good(
    mongod: TestMongod, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(mongod.uri, database.name) as daemon:
        beside = ("ping", "calendars", "accounts", "samples", "coverage", "histories", "sampler", "watch")
        live = (
            "realtime",
            "realtime-heartbeat",
            "realtime-access",
            "live-values",
            "day-ranges",
            "bar-prices",
            "live-tracking",
        )
        names = ("mongodb", "scheduler", *beside, *live, "reconstructions", "remapping", "rewalking")
        assert await readiness(daemon, 200) == dict.fromkeys(names, "ok")

        async def dies() -> None:
            raise ZeroDivisionError

        daemon.background.start(dies(), "another")
        expected = dict.fromkeys(names, "ok") | {"another": "died: ZeroDivisionError"}
        for _ in range(3):
            assert await readiness(daemon, 503) == expected


async def test_a_step_that_fails_at_the_stop_keeps_no_other_from_being_taken(
    mongod: TestMongod, database: Database
) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    async def from_start_to_end() -> None:
        async with running(mongod.uri, database.name) as daemon:
            await readiness(daemon, 200)
            daemon.chain.pools[0].provider.close = fails  # type: ignore[method-assign]

    with capture_logs() as lines, pytest.raises(ZeroDivisionError):
        await from_start_to_end()
    assert left_over() == []
    assert [line["event"] for line in lines][-1] == "daemon has stopped"


async def test_a_stop_while_the_database_is_waited_for_ends_at_once() -> None:
    async with running(NOWHERE) as daemon:
        assert await readiness(daemon, 503) == {"mongodb": "waiting for the server"}
        assert gc.isenabled()
    assert left_over() == []


async def test_a_start_that_fails_says_why_and_leaves_nothing_behind(mongod: TestMongod, database: Database) -> None:
    await database.drop_collection("bars_1d")
    await database.create_collection("bars_1d")
    await database["settings"].delete_many({})
    door = FrontDoor("127.0.0.1", 0)
    settings = Settings(_env_file=None, providers="sample", mongodb_uri=mongod.uri, mongodb_database=database.name)
    with pytest.raises(Misconfigured) as refusal:
        await daemons.Daemon(settings, door, None).run(asyncio.Event())
    assert refusal.value.code == "not_time_series"
    assert left_over() == []
