"""Stored histories after a kill: the next daemon serves them, and they are what the ledger says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import DaemonProcess

pytestmark = pytest.mark.slow


def test_a_killed_daemon_leaves_histories_that_the_next_one_serves(tmp_path: Path) -> None:
    """With a position that is sold out and one that only paid a dividend."""
    daemon = DaemonProcess(tmp_path, providers="sample", symbols="AAPL,IBM,MSFT", sync_start_delay_seconds="0")
    today = datetime.now(UTC).date()
    try:
        daemon.start()
        daemon.wait(lambda: daemon.get("/cache/status")[1]["historical"]["symbols"] == 3, "filled")
        portfolio = daemon.post("/api/portfolios", {"name": "One"})[1]["id"]
        rows = [
            {"date": day(today, 900), "type": "buy", "symbol": "AAPL", "quantity": 5, "price": 50},
            {"date": day(today, 600), "type": "sell", "symbol": "AAPL", "quantity": 5, "price": 60},
            {"date": day(today, 500), "type": "buy", "symbol": "IBM", "quantity": 5, "price": 90},
            {"date": day(today, 400), "type": "dividend", "symbol": "MSFT", "amount": 3},
        ]
        status, _ = daemon.post(f"/api/portfolios/{portfolio}/transactions", {"transactions": rows})
        assert status == 201
        before = both_ways(daemon, portfolio)
        daemon.wait(lambda: daemon.get("/api/admin/history/stats")[1]["portfolios"] == 1, "stored")
        daemon.kill()
        daemon.start()
        daemon.wait(lambda: daemon.get("/readyz")[0] == 200, "ready")
        assert both_ways(daemon, portfolio)[:-2] == before[:-2]
        assert daemon.get("/api/portfolio/history-data/1M")[0] == 200
        assert daemon.get(f"/api/portfolios/{portfolio}/holdings")[0] == 200
        assert daemon.stop() == 0
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


def day(today: Any, back: int) -> str:
    return (today - timedelta(days=back)).isoformat()


def both_ways(daemon: DaemonProcess, portfolio: str) -> list[dict[str, Any]]:
    """The rows of the days that are over, which have to be the same."""
    target = f"/api/portfolio/history?portfolioId={portfolio}"
    (one, stored), (two, computed) = (daemon.get(target + way) for way in ("", "&useMaterialized=false"))
    assert (one, two) == (200, 200), (stored, computed)
    assert stored["history"][:-1] == computed["history"][:-1]
    rows: list[dict[str, Any]] = stored["history"]
    return rows
