"""The real parts that tests stand on: one mongod for the session, one empty database for each test that asks."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.mongod import TestMongod, mongod_or_reason

_numbers = itertools.count(1)


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


@pytest.fixture
async def database(mongod: TestMongod, database_name: str) -> AsyncIterator[object]:
    """An empty database of its own on the session's mongod, prepared as the daemon prepares it."""
    from pricecache.stores.client import connect, prepare

    client = connect(mongod.uri)
    database = client[database_name]
    await prepare(database)
    yield database
    await client.drop_database(database_name)
    await client.close()
