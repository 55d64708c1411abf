"""The doctor with no daemon to ask: it goes to the database itself."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pricecache.cli import main
from tests.daemon import free_port
from tests.logs import logging_as_before
from tests.mongod import TestMongod


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("PRICECACHE_") and name != "PRICECACHE_MONGOD":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PRICECACHE_PORT", str(free_port()))
    monkeypatch.chdir(tmp_path)
    with logging_as_before():
        yield


def database_check(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    code = main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    return code, next(check for check in checks if check["name"] == "database")


def test_a_server_by_uri_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mongod: TestMongod
) -> None:
    monkeypatch.setenv("PRICECACHE_MONGODB_URI", mongod.uri)
    code, check = database_check(capsys)
    assert (code, check["found"]) == (0, "reachable and writable")


def test_a_uri_that_cannot_be_read_is_bad(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PRICECACHE_MONGODB_URI", "postgres://nowhere")
    code, check = database_check(capsys)
    assert (code, check["outcome"]) == (1, "bad")


def test_the_private_mongod_is_started_for_a_moment_when_its_folder_is_there(
    capsys: pytest.CaptureFixture[str], mongod: TestMongod, tmp_path: Path
) -> None:
    (tmp_path / ".pricecache").mkdir(mode=0o700)
    code, check = database_check(capsys)
    assert (code, check["found"]) == (0, "reachable and writable")


def test_the_private_mongod_is_not_begun_where_there_is_nothing_yet(
    capsys: pytest.CaptureFixture[str], mongod: TestMongod, tmp_path: Path
) -> None:
    code, check = database_check(capsys)
    assert (code, check["outcome"]) == (0, "note")
    assert not (tmp_path / ".pricecache").exists()


def test_a_data_directory_that_has_an_owner_is_said_to_have_one(
    capsys: pytest.CaptureFixture[str], mongod: TestMongod, tmp_path: Path
) -> None:
    from pricecache.stores.embedded import PrivateMongod

    async def while_owned() -> tuple[int, dict[str, str]]:
        async with PrivateMongod(tmp_path / ".pricecache", mongod=mongod.program):
            capsys.readouterr()  # the line that says it is ready
            return await asyncio.to_thread(database_check, capsys)

    code, check = asyncio.run(while_owned())
    assert (code, check["outcome"]) == (1, "bad")
    assert str(os.getpid()) in check["found"]
