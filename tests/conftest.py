"""The real parts that tests stand on: one mongod for the session, one empty database for each test that asks."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.logs import print_plainly
from tests.mongod import TestMongod, mongod_or_reason

_numbers = itertools.count(1)
print_plainly()
# how fast examples come says how busy the machine is, and nothing of the code; the same ones each time, unless new ones
# are looked for: HYPOTHESIS_PROFILE=search
for _name, _is_fixed in (("pricecache", True), ("search", False)):
    settings.register_profile(_name, deadline=None, derandomize=_is_fixed, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "pricecache"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, which `scripts/test` asks for, is as `tests.workers` says."""
    from tests.workers import FromBothEnds

    return FromBothEnds(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestMongod]:
    """A replica set of one on a Unix socket, gone with the session."""
    program, reason = mongod_or_reason()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = TestMongod(program, Path(tmp_path_factory.mktemp("mongod", numbered=True)))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database_name() -> str:
    return f"test_{os.getpid()}_{next(_numbers)}"


@pytest.fixture(scope="session")
def spare_databases() -> list[str]:
    """Databases that a test has left empty, prepared as they are, for the next one."""
    return []


@pytest.fixture
async def database(mongod: TestMongod, database_name: str, spare_databases: list[str]) -> AsyncIterator[object]:
    """An empty database of its own on the session's mongod, prepared as the daemon prepares it.

    Emptied and used again: making and dropping one takes twenty times as long, and mongod keeps the files of what is
    dropped open for minutes, until it may open no more.
    """
    from pricecache.stores.client import connect, prepare

    client = connect(mongod.uri)
    name = spare_databases.pop() if spare_databases else database_name
    database = client[name]
    await prepare(database)
    before = await _collections(database)
    yield database
    after = await _collections(database)
    if before.items() <= after.items():
        for collection in after:
            kept = {"_id": {"$ne": "schema"}} if collection == "settings" else {}
            await database[collection].delete_many(kept)
        spare_databases.append(name)
    else:
        await client.drop_database(name)
    await client.close()


async def _collections(database: Any) -> dict[str, Any]:
    """Options by name, those of MongoDB's own aside."""
    return {
        found["name"]: found["options"]
        async for found in await database.list_collections()
        if not found["name"].startswith("system.")
    }
