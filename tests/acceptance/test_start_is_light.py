"""A daemon that is ready has not loaded what takes long to load, and one that is told to stop ends well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import free_port
from tests.mongod import TestMongod

ROOT = Path(__file__).parents[2]


@pytest.fixture
def daemon(tmp_path: Path, mongod: TestMongod) -> Iterator[subprocess.Popen[str]]:
    """`pricecache serve` as a process with a private mongod of its own, its standard error to be read line by line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRICECACHE_")}
    settings = {
        "PRICECACHE_PORT": str(free_port()),
        "PRICECACHE_DATA_DIR": str(tmp_path / "data"),
        "PRICECACHE_MONGOD": str(mongod.program),
        "PRICECACHE_SYNC_START_DELAY_SECONDS": "3600",
        # the default provider's library is the heaviest; with no symbol there is nothing to ask it yet
        "PRICECACHE_PROVIDERS": "yfinance",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "pricecache", "serve"],
        cwd=tmp_path,
        env=environment | settings | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def until_ready(daemon: subprocess.Popen[str]) -> list[dict[str, object]]:
    assert daemon.stderr is not None
    lines = []
    for line in daemon.stderr:
        assert line.startswith("{"), line
        lines.append(json.loads(line))
        if lines[-1]["event"] == "daemon is ready":
            return lines
    pytest.fail(f"it ended before it was ready: {lines}")


def test_no_heavy_library_is_in_memory_when_the_daemon_is_ready(daemon: subprocess.Popen[str]) -> None:
    until_ready(daemon)
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    assert "numpy" in maps
    assert [name for name in ("/pandas/", "/scipy/", "/pyarrow/", "/curl_cffi/") if name in maps] == []


def test_a_daemon_that_is_told_to_stop_ends_well(daemon: subprocess.Popen[str]) -> None:
    lines = until_ready(daemon)
    assert {line["level"] for line in lines} == {"info"}
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
