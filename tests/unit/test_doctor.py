"""The doctor: what it finds wrong, and that each finding says what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pricecache.cli import main
from tests.fakes.daemon import FakeDaemon
from tests.logs import logging_as_before

VERIFIED = {"id": "v1", "job": "verify", "state": "succeeded", "done": 1, "total": 1, "failures": [], "error": None}
DIFFERENCE = {"symbol": "AAPL", "market": "US", "code": "value", "detail": "close of 2024-01-02"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("PRICECACHE_") and name != "PRICECACHE_MONGOD":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with logging_as_before():
        yield


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """One that is ready. The database is then its affair, and no mongod is started here."""
    daemon = FakeDaemon()
    daemon.start()
    daemon.put("GET /readyz", {"status": "ready"})
    monkeypatch.setenv("PRICECACHE_URL", daemon.url)
    # a server by URI: these tests are not about whether a mongod is installed
    monkeypatch.setenv("PRICECACHE_MONGODB_URI", "mongodb://127.0.0.1:1/?replicaSet=none")
    yield daemon
    daemon.stop()


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    code = main(["doctor", "--json", *arguments])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def test_a_good_installation_is_0_and_every_check_is_shown(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for name in ("clock", "time zones", "data directory", "disk", "daemon", "address", "symbols", "provider yfinance"):
        assert name in shown


def test_a_daemon_that_is_not_ready_is_bad(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    checks = {"database": "waiting for mongod", "calendars": "ok"}
    daemon.put("GET /readyz", {"status": "unavailable", "checks": checks}, status=503)
    code, checks = report(capsys)
    assert code == 1
    assert checks["daemon"]["found"].endswith("is not ready: database waiting for mongod")


@pytest.mark.parametrize(
    ("setting", "value", "check"),
    [
        ("HOST", "0.0.0.0", "address"),
        ("SYMBOLS", "AAPL,SAP:MARS", "symbols"),
        ("PROVIDERS", "yahho", "provider yahho"),
        ("PROVIDERS", "csv", "provider csv"),
    ],
)
def test_a_setting_that_cannot_work_is_found_and_told_how_to_put_right(
    monkeypatch: pytest.MonkeyPatch,
    daemon: FakeDaemon,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    value: str,
    check: str,
) -> None:
    monkeypatch.setenv(f"PRICECACHE_{setting}", value)
    code, checks = report(capsys)
    assert code == 1
    assert checks[check]["outcome"] == "bad"
    assert "PRICECACHE_" in checks[check]["fix"]


def test_a_folder_of_csv_files_is_good(
    monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "AAPL.csv").write_text("date,close\n")
    monkeypatch.setenv("PRICECACHE_PROVIDERS", "csv")
    monkeypatch.setenv("PRICECACHE_CSV_DIR", str(tmp_path))
    assert report(capsys)[0] == 0


def test_a_data_directory_open_to_others_is_bad(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / ".pricecache").mkdir(mode=0o755)
    code, checks = report(capsys)
    assert (code, checks["data directory"]["outcome"]) == (1, "bad")
    assert "chmod 700" in checks["data directory"]["fix"]


def test_a_data_directory_that_is_a_file_is_bad(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / ".pricecache").write_text("")
    assert report(capsys)[0] == 1


def test_a_mongod_that_is_none_is_bad(
    monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("PRICECACHE_MONGODB_URI")
    monkeypatch.setenv("PRICECACHE_MONGOD", str(tmp_path / "absent"))
    code, checks = report(capsys)
    assert (code, checks["mongod"]["outcome"]) == (1, "bad")


def test_a_mongod_that_lacks_a_library_is_bad_and_the_library_named(
    monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    program = tmp_path / "mongod"
    program.write_text("#!/bin/sh\necho 'libcurl.so.4: cannot open shared object file' >&2\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.delenv("PRICECACHE_MONGODB_URI")
    monkeypatch.setenv("PRICECACHE_MONGOD", str(program))
    code, checks = report(capsys)
    assert code == 1
    assert "libcurl.so.4" in checks["mongod"]["found"]
    assert "libcurl4" in checks["mongod"]["fix"]


@pytest.mark.parametrize(
    ("run", "arguments", "code"),
    [
        (VERIFIED, ["--verify"], 0),
        (VERIFIED | {"failures": [DIFFERENCE]}, ["--verify"], 1),
        (VERIFIED | {"failures": [DIFFERENCE]}, ["--rebuild"], 0),
        (VERIFIED | {"state": "failed", "error": "it broke"}, ["--rebuild"], 1),
    ],
)
def test_a_running_daemon_verifies_by_itself(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], run: object, arguments: list[str], code: int
) -> None:
    daemon.put("POST /api/admin/verify?wait=0", {"run": run}, status=202)
    assert main(["doctor", *arguments]) == code
    assert daemon.asked[-1].body == {"rebuild": "--rebuild" in arguments}
