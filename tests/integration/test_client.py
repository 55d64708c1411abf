"""The connection to a server that somebody else runs, and what is made in its database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent
from structlog.testing import capture_logs

from pricecache.clock import SystemClock
from pricecache.errors import Misconfigured
from pricecache.stores.client import Database, connect, next_id, prepare, wait_until_writable
from tests.mongod import TestMongod, mongod_or_reason

Servers = Callable[..., TestMongod]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Makes further servers, not yet started."""
    program, reason = mongod_or_reason()
    if program is None:
        pytest.skip(reason)
    made: list[TestMongod] = []

    def make(*options: str, standalone: bool = False) -> TestMongod:
        made.append(TestMongod(program, tmp_path / f"server{len(made)}", *options, standalone=standalone))
        return made[-1]

    yield make
    for server in made:
        server.stop()


class Commands(CommandListener):
    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: object) -> None: ...

    def failed(self, event: object) -> None: ...


async def test_writes_are_durable_whatever_the_uri_says(mongod: TestMongod) -> None:
    async with connect(f"{mongod.uri}&w=1&journal=false&readConcernLevel=local") as client:
        assert client.write_concern.document == {"w": "majority", "j": True}
        assert client.read_concern.level == "majority"


@pytest.mark.parametrize("uri", ["mongodb://user:p@ss@host", "mongodb://u:secret@host:port", "mongodb://"])
def test_a_uri_that_cannot_be_read_is_refused_without_quoting_its_password(uri: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        connect(uri)
    assert refusal.value.code == "mongodb_uri"
    assert "secret" not in refusal.value.detail


async def test_a_server_that_is_there_is_not_waited_for(mongod: TestMongod) -> None:
    async with connect(mongod.uri) as client:
        with capture_logs() as lines:
            await wait_until_writable(client, SystemClock())
    assert not lines


async def test_a_server_that_comes_later_is_waited_for(servers: Servers) -> None:
    server = servers()
    async with connect(server.uri) as client:
        with capture_logs() as lines:
            waiting = asyncio.create_task(wait_until_writable(client, SystemClock()))
            async with asyncio.timeout(10):
                while not lines:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(server.start)
            await waiting
        assert [(line["log_level"], line["event"]) for line in lines] == [
            ("warning", "waiting for mongodb"),
            ("info", "mongodb is writable"),
        ]
        await client["kept"]["things"].insert_one({"a": "retryable write, which needs a session"})


async def test_a_standalone_server_is_refused_with_what_to_do(servers: Servers) -> None:
    server = servers(standalone=True)
    server.start()
    async with connect(server.uri) as client:
        with pytest.raises(Misconfigured, match=r"--replSet NAME and run rs.initiate\(\)") as refusal:
            await wait_until_writable(client, SystemClock())
    assert refusal.value.code == "not_a_replica_set"


async def test_wrong_credentials_are_refused(servers: Servers, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    server = servers("--keyFile", str(key))
    server.start()
    async with connect(server.uri.replace("mongodb://", "mongodb://somebody:wrong@")) as client:
        with pytest.raises(Misconfigured) as refusal:
            await wait_until_writable(client, SystemClock())
    assert refusal.value.code == "mongodb_credentials"
    async with connect(server.uri) as client:
        await wait_until_writable(client, SystemClock())
        with pytest.raises(Misconfigured) as refusal:
            await prepare(client["kept"])
    assert refusal.value.code == "mongodb_credentials"


async def test_daemons_that_prepare_at_once_do_not_meet(mongod: TestMongod, database_name: str) -> None:
    clients = [connect(mongod.uri) for _ in range(8)]
    await asyncio.gather(*[prepare(client[database_name]) for client in clients])
    database = clients[0][database_name]
    listed = {found["name"]: found async for found in await database.list_collections()}
    assert listed["bars_1d"]["options"]["timeseries"]["granularity"] == "hours"
    indexes = await database["instruments"].index_information()
    assert indexes["symbol_1_market_1"]["unique"]
    assert (await database["runs"].index_information())["startedAt_-1"]["expireAfterSeconds"] == 30 * 86400
    await clients[0].drop_database(database_name)
    for client in clients:
        await client.close()


async def test_preparing_a_database_that_stands_costs_two_reads(mongod: TestMongod, database: Database) -> None:
    commands = Commands()
    async with AsyncMongoClient[dict[str, Any]](mongod.uri, event_listeners=[commands]) as client:
        await prepare(client[database.name])
    assert commands.names[:-1] == ["listCollections", "find"]  # and endSessions


async def test_a_collection_that_is_somebody_elses_is_refused(mongod: TestMongod, database_name: str) -> None:
    async with connect(mongod.uri) as client:
        await client[database_name]["bars_1d"].insert_one({"ts": "a string"})
        with pytest.raises(Misconfigured) as refusal:
            await prepare(client[database_name])
        await client.drop_database(database_name)
    assert refusal.value.code == "not_time_series"


async def test_numbers_are_given_out_once(database: Database) -> None:
    singles = await asyncio.gather(*[next_id(database, "series") for _ in range(50)])
    first = await next_id(database, "series", 10)
    assert sorted(singles) == list(range(1, 51))
    assert first == 51
    assert await next_id(database, "series") == 61
    assert await next_id(database, "other") == 1
