"""Ledgers of very many transactions: whatever has to walk them leaves the event loop."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pricecache.core.instruments import Instrument
from pricecache.portfolio import history, summary, wholes
from tests.integration.api_daemon import TODAY, ApiDaemon, api_daemon
from tests.integration.test_materialized import iso
from tests.integration.test_portfolios import ANN, KEYS, made, priced

ROWS = 1200
AAPL = Instrument("AAPL")


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS) as started:
        yield started


@pytest.fixture
def on_loop(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was worked out on the event loop, of that which takes long with very many transactions."""
    found: list[str] = []

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watching(*args: Any, **options: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                found.append(name)
            return work(*args, **options)

        return watching

    for module, name in (
        (wholes, "brought_up"),
        (wholes, "gone_on"),
        (summary, "summary"),
        (history, "holdings"),
    ):
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    return found


async def test_what_is_gone_on_from_an_old_day_leaves_the_loop(daemon: ApiDaemon, on_loop: list[str]) -> None:
    portfolio = await made(daemon)
    await priced(daemon, AAPL, {TODAY - 60 + day: 100.0 for day in range(60)})
    old = {"date": iso(TODAY - 59), "type": "buy", "symbol": "AAPL", "quantity": 1, "price": 100}
    target = f"/api/portfolios/{portfolio}/transactions"
    rows = [old, *({**old, "date": iso(TODAY - 12 + number % 8)} for number in range(ROWS))]
    status, answer = await daemon.call("POST", target, json={"transactions": rows}, headers=ANN)
    assert status == 201, answer
    assert (await daemon.get("/api/portfolio/history", headers=ANN))[0] == 200
    one = answer["ids"][-1]  # late, and the last day that is gone on from lies before all of them
    changed = {**old, "date": iso(TODAY - 5), "quantity": 2}
    assert (await daemon.call("PUT", f"{target}/{one}", json=changed, headers=ANN))[0] == 200
    held = f"/api/portfolios/{portfolio}/holdings?date={iso(TODAY - 5)}"
    on_loop.clear()
    for path in ("history", "summary", f"summary?portfolioId={portfolio}"):
        assert (await daemon.get(f"/api/portfolio/{path}", headers=ANN))[0] == 200
    assert (await daemon.get(held, headers=ANN))[0] == 200
    assert on_loop == []
