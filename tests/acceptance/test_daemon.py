"""The daemon as its users have it: a process, its ports, its data, its end."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pricecache.core.bars import Bars
from tests.daemon import DaemonProcess
from tests.fakes.calendars import xnys_book
from tests.fakes.yahoo import FakeYahoo
from tests.mongod import TestMongod, mongod_or_reason

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="session", autouse=True)
def program() -> Path:
    program, reason = mongod_or_reason()
    if program is None:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return program


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, providers="sample", symbols="AAPL,FB,AAPLX-USD:CRYPTO", live_seconds="1")
    yield process
    process.stop()


def filled(daemon: DaemonProcess) -> bool:
    status, answer = daemon.get("/cache/coverage")
    return status == 200 and len(answer["symbols"]) == 3 and all(row["ratio"] == 1.0 for row in answer["symbols"])


def test_a_newcomers_daemon_fills_itself_and_its_prices_move(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.wait(lambda: filled(daemon) and daemon.get("/cache/live/AAPL")[0] == 200, "filled")
    _, history = daemon.get("/cache/historical/AAPL?period=1Y")
    assert history["coverage"]["complete"]
    assert history["notice"].startswith("sample prices")
    assert len(history["bars"]) > 240
    _, first = daemon.get("/cache/live/AAPL")
    daemon.wait(lambda: daemon.get("/cache/live/AAPL")[1]["price"] != first["price"], "moving")
    _, coverage = daemon.get("/cache/coverage/FB")
    assert coverage["missing"][0]["class"] == "before_listing"


def test_a_restart_begins_with_what_was_known(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.wait(lambda: filled(daemon) and daemon.get("/cache/live/AAPL")[0] == 200, "filled")
    _, before = daemon.get("/cache/historical/AAPL")
    assert daemon.stop() == 0
    daemon.settings |= {"PRICECACHE_LIVE_SECONDS": "3600", "PRICECACHE_SYMBOLS": ""}
    daemon.start()
    status, quote = daemon.get("/cache/live/AAPL")
    assert status == 200
    assert quote["source"] == "sample"
    _, after = daemon.get("/cache/historical/AAPL")
    assert after["bars"] == before["bars"]


def test_mongod_listens_on_no_tcp_port_and_ends_with_the_daemon(daemon: DaemonProcess) -> None:
    daemon.start()
    pid = daemon.mongod_pid()
    sockets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists() or link.is_symlink()}
    inodes = {name[8:-1] for name in sockets if name.startswith("socket:[")}
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert not [row for row in listening if row[9] in inodes]
    assert daemon.stop() == 0
    assert not Path(f"/proc/{pid}").exists()


def test_a_second_daemon_on_the_same_data_is_refused_with_a_clear_line(daemon: DaemonProcess) -> None:
    daemon.start()
    assert daemon.process is not None
    second = DaemonProcess(daemon.folder, data_dir=str(daemon.folder / "data"), providers="sample")
    done = second.command("serve")
    assert done.returncode == 2
    assert f"{daemon.process.pid}" in done.stderr
    assert "PRICECACHE_DATA_DIR" in done.stderr


def test_without_keys_it_refuses_to_be_reached_from_outside(daemon: DaemonProcess) -> None:
    daemon.settings["PRICECACHE_HOST"] = "0.0.0.0"
    done = daemon.command("serve")
    assert done.returncode == 2
    assert "PRICECACHE_API_KEYS" in done.stderr


@pytest.fixture
def yahoo() -> Iterator[FakeYahoo]:
    """A Yahoo that knows ten years of IBM."""
    today = (datetime.datetime.now(datetime.UTC).date() - datetime.date(1970, 1, 1)).days
    sessions = xnys_book().get("XNYS").between(today - 3652, today)
    close = 100.0 + np.arange(len(sessions)) * 0.01
    with FakeYahoo() as server:
        server.put("IBM", Bars(sessions, np.array([close, close + 1, close - 1, close, 1e6 + 0 * close])))
        yield server


@pytest.fixture
def asking(tmp_path: Path, yahoo: FakeYahoo) -> Iterator[DaemonProcess]:
    """A daemon that asks that Yahoo, not started yet."""
    settings = {"live_seconds": "3600", "sync_start_delay_seconds": "3600"}
    process = DaemonProcess(tmp_path, providers="yfinance", yahoo_url=yahoo.url, **settings)
    yield process
    process.stop()


def begin_a_backfill(daemon: DaemonProcess, yahoo: FakeYahoo, seconds: float) -> None:
    """Start the daemon and return in the middle of its first backfill, whose request is answered after `seconds`."""
    yahoo.fail("slow", "IBM", seconds=seconds)
    daemon.start()

    def first_refresh_is_over() -> bool:  # else it might be what asks first
        jobs = {job["id"]: job for job in daemon.get("/cache/scheduler/status")[1]["jobs"]}
        return bool(jobs["live_price_update"]["lastRun"])

    daemon.wait(first_refresh_is_over, "refreshed")
    status, run = daemon.post("/cache/backfill-symbol?wait=0", {"symbol": "IBM"})
    assert (status, run["state"]) == (202, "running")
    daemon.wait(lambda: yahoo.requests("IBM") == 1, "asking")


def backfill_of(daemon: DaemonProcess) -> dict[str, Any]:
    """How the backfill is recorded, by the daemon that was started again."""
    daemon.start()
    (run,) = daemon.get("/cache/runs?job=backfill_symbol")[1]["runs"]
    return dict(run)


def test_a_stop_lets_a_running_backfill_end(asking: DaemonProcess, yahoo: FakeYahoo) -> None:
    begin_a_backfill(asking, yahoo, 2.0)
    assert asking.stop() == 0
    assert yahoo.requests("IBM") == 1
    run = backfill_of(asking)
    assert (run["state"], run["done"], run["counts"]["stored"]) == ("succeeded", 1, 1)
    assert asking.get("/cache/coverage/IBM")[1]["complete"]


def test_a_backfill_that_does_not_end_in_time_is_interrupted_and_healed_by_the_next_start(
    asking: DaemonProcess, yahoo: FakeYahoo
) -> None:
    asking.settings["PRICECACHE_DRAIN_SECONDS"] = "0.2"
    begin_a_backfill(asking, yahoo, 6.0)
    assert asking.stop() == 0
    assert "running jobs are cancelled" in {line["event"] for line in asking.events()}
    asking.settings["PRICECACHE_SYNC_START_DELAY_SECONDS"] = "0"
    run = backfill_of(asking)
    assert (run["state"], run["done"]) == ("interrupted", 0)
    asking.wait(lambda: asking.get("/cache/coverage/IBM")[1].get("complete", False), "healed")


def test_a_database_that_comes_later_is_waited_for(tmp_path: Path, program: Path) -> None:
    server = TestMongod(program, tmp_path / "mongod")
    (tmp_path / "mongod").mkdir()
    daemon = DaemonProcess(tmp_path, providers="sample", symbols="AAPL", mongodb_uri=server.uri)
    try:
        daemon.start(ready=False)
        daemon.wait(lambda: daemon.get("/healthz")[0] == 200, "alive")
        daemon.wait(lambda: daemon.get("/readyz")[1]["checks"].get("mongodb", "").startswith("waiting"), "waiting")
        status, problem = daemon.get("/cache/status")
        assert (status, problem["code"]) == (503, "starting")
        server.start()
        daemon.wait(lambda: daemon.get("/readyz")[0] == 200, "ready")
    finally:
        daemon.stop()
        server.stop()


def test_what_one_daemon_accepts_the_other_answers(tmp_path: Path, program: Path) -> None:
    """Two daemons on one MongoDB: a manual bar and a quote of the first show in the second."""
    server = TestMongod(program, tmp_path / "mongod")
    (tmp_path / "mongod").mkdir()
    server.start()
    pair = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            pair.append(
                DaemonProcess(tmp_path / name, providers="sample", mongodb_uri=server.uri, live_seconds="3600").start()
            )
        one, two = pair
        body = {"currency": "EUR", "bars": [{"date": "2024-01-02", "close": 12.34}]}
        assert one.request("PUT", "/cache/historical/FUND?market=CUSTOM", body)[0] == 200

        def shown() -> bool:
            status, answer = two.get("/cache/historical/FUND?market=CUSTOM&start=2024-01-02&end=2024-01-02")
            return bool(status == 200 and [bar["close"] for bar in answer["bars"]] == [12.34])

        two.wait(shown, "shown by the other", 10)
        assert one.post("/cache/symbols", {"symbols": ["AAPL"]})[0] in (200, 201, 202)
        two.wait(lambda: two.get("/cache/live/AAPL")[0] == 200, "quoted by the other", 20)
        # the market is new to the other, which loads its calendar when it is first asked
        two.wait(lambda: two.get("/cache/coverage/AAPL")[0] == 200, "with a calendar", 10)
        assert two.get("/cache/coverage/AAPL")[1]["expected"] > 1000
        assert one.request(
            "PUT", "/cache/historical/FUND?market=CUSTOM", {"bars": [{"date": "2024-01-02", "close": 13}]}
        )
        deadline = time.monotonic() + 10
        while (
            two.get("/cache/historical/FUND?market=CUSTOM")[1]["bars"][0]["close"] != 13 and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        assert two.get("/cache/historical/FUND?market=CUSTOM")[1]["bars"][0]["close"] == 13
    finally:
        for daemon in pair:
            daemon.stop()
        server.stop()
