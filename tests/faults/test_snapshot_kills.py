"""kill -9 at any moment of a capture: the next one finishes it, and every close is there as the history has it."""

from __future__ import annotations

import os
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import DaemonProcess
from tests.faults.test_kills import KEY_SEED, truth
from tests.mongod import mongod_or_reason

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SYMBOLS, BARS, PORTFOLIOS = 4, 40, 260
"""More portfolios than a block takes."""
CAPTURE = "/api/portfolio/daily-snapshots/capture"


@pytest.fixture
def stocked(tmp_path: Path) -> tuple[DaemonProcess, dict[str, list[tuple[str, float]]]]:
    program, reason = mongod_or_reason()
    if program is None:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    (tmp_path / "csv").mkdir()
    known = truth(tmp_path / "csv", symbols=SYMBOLS, bars=BARS)
    return DaemonProcess(
        tmp_path,
        providers="csv",
        csv_dir=str(tmp_path / "csv"),
        symbols=",".join(known),
        backfill_days="200",
        sync_start_delay_seconds="0",
    ), known


def made(daemon: DaemonProcess, known: dict[str, list[tuple[str, float]]]) -> list[str]:
    """Portfolios that hold two symbols each since the first bar."""
    (first, price), symbols = known[next(iter(known))][0], list(known)
    found = []
    for number in range(PORTFOLIOS):
        status, answer = daemon.post("/api/portfolios", {"name": f"P{number}"})
        assert status == 201, answer
        found.append(str(answer["id"]))
        rows = [
            {"date": first, "type": "buy", "symbol": symbols[at % SYMBOLS], "quantity": 1 + number, "price": price}
            for at in (number, number + 1)
        ]
        status, answer = daemon.post(f"/api/portfolios/{found[-1]}/transactions", {"transactions": rows})
        assert status == 201, answer
    return found


def closes(daemon: DaemonProcess, portfolio: str, first: str) -> list[dict[str, Any]]:
    status, answer = daemon.get(f"/api/portfolio/daily-snapshots?portfolioId={portfolio}&start={first}")
    assert status == 200, answer
    return list(answer["snapshots"])


@pytest.mark.parametrize("kills", [4])
def test_a_daemon_killed_in_the_middle_of_captures_captures_every_close_once(
    stocked: tuple[DaemonProcess, dict[str, list[tuple[str, float]]]], kills: int
) -> None:
    daemon, known = stocked
    moments, days = random.Random(KEY_SEED), [day for day, _ in known[next(iter(known))]]
    daemon.start()
    try:
        daemon.wait(lambda: daemon.get("/cache/coverage")[1]["present"] >= SYMBOLS * BARS, "filled")
        portfolios = made(daemon, known)
        running = 0
        for number in range(kills):  # an earlier day each time: what was captured of the others stays
            status, report = daemon.post(f"{CAPTURE}?wait=0", {"date": days[-1 - number]})
            assert status in (200, 202), report
            time.sleep(moments.uniform(0.0, 0.4))
            running += daemon.get(f"/cache/runs/{report['id']}")[1]["state"] == "running"
            daemon.kill()
            daemon.start()
        assert running >= 2, f"the kills hit too few captures: {running}"
        for number in range(kills):
            status, report = daemon.post(f"{CAPTURE}?wait=60", {"date": days[-1 - number]})
            assert (status, report["state"], report["failures"]) == (200, "succeeded", []), report
            assert report["counts"]["captured"] == PORTFOLIOS
        check(daemon, portfolios[::5], days[-kills:])
    finally:
        daemon.stop()


def check(daemon: DaemonProcess, portfolios: list[str], days: list[str]) -> None:
    for portfolio in portfolios:
        rows = closes(daemon, portfolio, days[0])
        assert [row["date"] for row in rows if row["date"] <= days[-1]] == days
        path = f"/api/portfolio/history?portfolioId={portfolio}&start={days[0]}&useMaterialized=false"
        history = {row["date"]: row["totalValue"] for row in daemon.get(path)[1]["history"]}
        for row in rows:
            assert row["capturedValue"] == row["totalValue"] == history[row["date"]], (portfolio, row)
            assert (row["isRestated"], row["coverage"]) == (False, 1.0)
        assert all(after["previousDate"] == before["date"] for before, after in pairwise(rows))
