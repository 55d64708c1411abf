"""kill -9 at any moment of a reconstruction: it is done once in the end, and every row is there once."""

from __future__ import annotations

import datetime
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import DaemonProcess
from tests.faults.test_kills import KEY_SEED, truth
from tests.mongod import mongod_or_reason

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BASE = "/api/portfolio/reconstruction"
SECURITIES, ACCOUNTS, ROWS = 30, 3, 1500


def payload(known: dict[str, list[tuple[str, float]]], seed: int) -> tuple[dict[str, Any], dict[tuple[str, str], int]]:
    """A neutral payload with what is held in the end, by account and symbol."""
    chance = random.Random(seed)
    symbols = list(known)[:SECURITIES]
    days = [day for day, _ in known[symbols[0]]][-500:]
    rows, held = [], dict[tuple[str, str], int]()
    for number, day in enumerate(sorted(chance.choices(days, k=ROWS))):
        symbol, account = chance.choice(symbols), f"a{chance.randrange(ACCOUNTS)}"
        count, key = chance.randint(1, 20), (account, symbol)
        sells = held.get(key, 0) >= count and chance.random() < 0.4
        held[key] = held.get(key, 0) + (-count if sells else count)
        price = dict(known[symbol])[day]
        rows.append({"id": f"t{number}", "accountId": account, "securityId": symbol, "date": day, "quantity": count,
                     "type": "sell" if sells else "buy", "price": price})  # fmt: skip
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    body = {
        "source": "bank",
        "asOf": now,
        "accounts": [
            {"id": f"a{number}", "name": f"Account {number}", "cash": [{"currency": "USD", "amount": 10_000_000}]}
            for number in range(ACCOUNTS)
        ],
        "securities": [{"id": one, "symbol": one, "exchange": "US", "name": f"{one} Inc", "type": "equity"}
                       for one in symbols],
        "holdings": [{"accountId": account, "securityId": symbol, "quantity": count, "price": known[symbol][-1][1]}
                     for (account, symbol), count in held.items() if count],
        "transactions": rows,
    }  # fmt: skip
    return body, {key: count for key, count in held.items() if count}


def state_of(daemon: DaemonProcess) -> dict[str, Any]:
    status, answer = daemon.get(f"{BASE}/status")
    return dict(answer["reconstructions"][0]) if status == 200 and answer["reconstructions"] else {"state": "none"}


@pytest.fixture
def stocked(tmp_path: Path) -> tuple[DaemonProcess, dict[str, list[tuple[str, float]]]]:
    program, reason = mongod_or_reason()
    if program is None:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    (tmp_path / "csv").mkdir()
    known = truth(tmp_path / "csv", symbols=SECURITIES, bars=600)
    folder = str(tmp_path / "csv")
    settings = {"providers": "csv", "csv_dir": folder, "backfill_days": "800", "sync_start_delay_seconds": "3600"}
    return DaemonProcess(tmp_path, **settings), known


@pytest.mark.parametrize("kills", [15])
def test_a_daemon_killed_in_the_middle_of_reconstructions_does_each_once(
    stocked: tuple[DaemonProcess, dict[str, list[tuple[str, float]]]], kills: int
) -> None:
    daemon, known = stocked
    moments, hit = random.Random(KEY_SEED), 0
    daemon.start()
    try:
        for number in range(kills):
            body, held = payload(known, number % 2)  # another one each time, so that rows come, change and go
            status, answer = daemon.post(f"{BASE}/request", {"broker": body, "force": True})
            assert status in (200, 202), answer
            time.sleep(moments.uniform(0.0, 1.2))
            hit += state_of(daemon)["state"] in ("queued", "running")
            daemon.kill()
            daemon.start()
        assert hit >= kills // 3, f"the kills hit too few reconstructions: {hit}"
        check_all(daemon, body, held)
    finally:
        daemon.stop()


def test_a_daemon_that_is_stopped_in_the_middle_hands_back_what_it_had_begun(
    stocked: tuple[DaemonProcess, dict[str, list[tuple[str, float]]]],
) -> None:
    daemon, known = stocked
    moments, hit = random.Random(KEY_SEED + 1), 0
    daemon.start()
    try:
        for number in range(6):
            body, held = payload(known, number % 2)
            assert daemon.post(f"{BASE}/request", {"broker": body, "force": True})[0] in (200, 202)
            time.sleep(moments.uniform(0.0, 0.6))
            hit += state_of(daemon)["state"] in ("queued", "running")
            assert daemon.stop() == 0
            daemon.start()
        assert hit >= 2, "the stops came too late"
        assert check_all(daemon, body, held)["attempts"] == 1
    finally:
        daemon.stop()
    assert [one for one in daemon.events() if one["level"] in ("warning", "error")] == []


def check_all(daemon: DaemonProcess, body: dict[str, Any], held: dict[tuple[str, str], int]) -> dict[str, Any]:
    """One portfolio, one account for each of the broker's, every row once, and what is held; its status in the end."""
    daemon.wait(lambda: state_of(daemon)["state"] == "done", "done", 120)
    found = state_of(daemon)
    portfolio = found["portfolioId"]
    assert len(daemon.get("/api/portfolios")[1]["portfolios"]) == 1
    listed = daemon.get(f"/api/portfolios/{portfolio}/accounts")[1]["accounts"]
    accounts = {one["id"]: one["name"] for one in listed}
    assert sorted(accounts.values()) == [f"Account {number}" for number in range(ACCOUNTS)]
    check_rows(daemon, found, body)
    assert quantities(daemon, portfolio, accounts) == held
    return found


def check_rows(daemon: DaemonProcess, found: dict[str, Any], body: dict[str, Any]) -> None:
    _, answer = daemon.get(f"/api/portfolios/{found['portfolioId']}/transactions?limit=5000")
    names = [row["externalId"] for row in answer["transactions"]]
    assert len(names) == len(set(names)) == found["result"]["transactions"]
    trades = [row for row in answer["transactions"] if row["type"] in ("buy", "sell")]
    assert len(trades) == len(body["transactions"])
    assert found["result"]["adjustments"] == 0, found["result"]["findings"]


def quantities(daemon: DaemonProcess, portfolio: str, accounts: dict[str, str]) -> dict[tuple[str, str], int]:
    """What is held by the broker's account and symbol."""
    found = {}
    for account, name in accounts.items():
        _, answer = daemon.get(f"/api/portfolios/{portfolio}/holdings?accountId={account}")
        for one in answer["holdings"]:
            if one["quantity"]:
                found[f"a{name.removeprefix('Account ')}", one["symbol"]] = round(one["quantity"])
    return found
