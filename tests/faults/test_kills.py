"""kill -9 at any moment: of the daemon in the middle of a backfill, of mongod in the middle of a write."""

from __future__ import annotations

import csv
import datetime
import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.daemon import DaemonProcess
from tests.fakes.calendars import xnys_book
from tests.mongod import mongod_or_reason

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPOCH = datetime.date(1970, 1, 1)
KEY_SEED = 20261120


def truth(folder: Path, symbols: int, bars: int) -> dict[str, list[tuple[str, float]]]:
    """Write a folder for the csv provider; every bar of every symbol, by symbol."""
    calendar = xnys_book().get("XNYS")
    today = (datetime.datetime.now(datetime.UTC).date() - EPOCH).days
    sessions = calendar.between(today - 4000, today - 3)[-bars:].tolist()
    known: dict[str, list[tuple[str, float]]] = {}
    for number in range(symbols):
        rows = []
        with (folder / f"S{number:03}.csv").open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["date", "open", "high", "low", "close", "volume"])
            for i, session in enumerate(sessions):
                day = (EPOCH + datetime.timedelta(days=session)).isoformat()
                close = round(50 + number + (i * 7919 % 1000) / 50, 4)
                writer.writerow([day, close, close + 1, close - 1, close, 1000 + i])
                rows.append((day, close))
        known[f"S{number:03}"] = rows
    return known


@pytest.fixture
def filled(tmp_path: Path) -> tuple[DaemonProcess, dict[str, list[tuple[str, float]]]]:
    program, reason = mongod_or_reason()
    if program is None:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    (tmp_path / "csv").mkdir()
    known = truth(tmp_path / "csv", symbols=240, bars=1500)
    daemon = DaemonProcess(
        tmp_path,
        providers="csv",
        csv_dir=str(tmp_path / "csv"),
        symbols=",".join(known),
        backfill_days="4000",
        sync_start_delay_seconds="0",
        sync_seconds="2",
    )
    return daemon, known


def bars_held(daemon: DaemonProcess) -> int:
    status, answer = daemon.get("/cache/coverage")
    assert status == 200, answer
    return int(answer["present"])


def is_whole(daemon: DaemonProcess, known: dict[str, list[tuple[str, float]]]) -> bool:
    status, answer = daemon.get("/cache/coverage")
    rows = answer["symbols"] if status == 200 else []
    expected = len(next(iter(known.values())))
    return len(rows) == len(known) and all(row["bars"] >= expected for row in rows)


def check_every_bar(daemon: DaemonProcess, known: dict[str, list[tuple[str, float]]]) -> None:
    for symbol, rows in known.items():
        _, answer = daemon.get(f"/cache/historical/{symbol}?start={rows[0][0]}&end={rows[-1][0]}&adjust=none")
        assert [(bar["date"], bar["close"]) for bar in answer["bars"]] == rows
        assert answer["coverage"]["complete"], (symbol, answer["coverage"])


def check_journal(daemon: DaemonProcess) -> None:
    """Packed equals replay, by the operator's command, while the daemon is down."""
    done = daemon.command("doctor", "--verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kills", [20])
def test_a_daemon_killed_in_the_middle_of_backfills_ends_with_every_bar_once(
    filled: tuple[DaemonProcess, dict[str, list[tuple[str, float]]]], kills: int
) -> None:
    daemon, known = filled
    moments = random.Random(KEY_SEED)
    held = [0]
    daemon.start()  # the first time it also builds its calendars
    try:
        for _ in range(kills):
            daemon.wait(lambda: bars_held(daemon) > 0, "filling")
            time.sleep(moments.uniform(0.0, 0.7))
            try:
                acknowledged = bars_held(daemon)
            except OSError:
                acknowledged = held[-1]
            daemon.kill()
            assert acknowledged >= held[-1], "bars that were there are gone"
            held.append(acknowledged)
            daemon.start()
        daemon.wait(lambda: is_whole(daemon, known), "whole", 120)
        assert sum(a < b for a, b in itertools.pairwise(held)) >= 3, f"the kills hit no backfill: {held}"
        check_every_bar(daemon, known)
    finally:
        daemon.stop()
    check_journal(daemon)


@pytest.mark.parametrize("kills", [20])
def test_a_mongod_killed_in_the_middle_of_writes_ends_with_every_bar_once(
    filled: tuple[DaemonProcess, dict[str, list[tuple[str, float]]]], kills: int
) -> None:
    daemon, known = filled
    moments = random.Random(KEY_SEED + 1)
    daemon.start()
    killed = []
    try:
        for _ in range(kills):
            time.sleep(moments.uniform(0.02, 0.4))
            pid = daemon.mongod_pid()
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            daemon.wait(lambda: daemon.mongod_pid() != killed[-1] and daemon.get("/readyz")[0] == 200, "ready again")
        daemon.wait(lambda: is_whole(daemon, known), "whole", 180)
        check_every_bar(daemon, known)
        assert len(set(killed)) == kills
        assert f"pricecache_mongod_restarts_total {float(kills)}".encode() in daemon.request("GET", "/metrics")[1]
    finally:
        daemon.stop()
    check_journal(daemon)
