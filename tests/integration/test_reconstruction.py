"""A user posts what a broker says, and has a history: over HTTP, on the real parts of a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.background import cancelled
from pricecache.core.instruments import Instrument
from tests.integration.api_daemon import ApiDaemon, api_daemon

KEYS = ("operator:ops:ops-key", "reader:read:read-key")
ANN, BOB = ({"X-API-Key": "ops-key", "X-User-Id": user} for user in ("ann", "bob"))
BASE = "/api/portfolio/reconstruction"
SYMBOLS = ("AAPL", "MSFT")


def security(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "security_id": f"s-{name}", "name": f"{name} Inc.", "ticker_symbol": name, "type": "equity",
        "iso_currency_code": "USD", "market_identifier_code": "XNAS", **facts,
    }  # fmt: skip


def held(account: str, name: str, quantity: float, price: float, **facts: Any) -> dict[str, Any]:
    return {
        "account_id": account, "security_id": f"s-{name}", "quantity": quantity, "institution_price": price,
        "institution_value": quantity * price, "cost_basis": None, "iso_currency_code": "USD", **facts,
    }  # fmt: skip


def row(
    name: str, account: str, date: str, kind: str, quantity: float, price: float, of: str = "AAPL"
) -> dict[str, Any]:
    sign = 1 if kind == "buy" else -1
    return {
        "investment_transaction_id": name, "account_id": account, "security_id": f"s-{of}", "date": date,
        "type": kind, "subtype": kind, "quantity": sign * quantity, "price": price, "amount": sign * quantity * price,
        "fees": 0, "iso_currency_code": "USD", "name": f"{kind} {of}",
    }  # fmt: skip


def cash(amount: float) -> dict[str, Any]:
    return {"security_id": "s-cash", "name": "US Dollar", "ticker_symbol": "CUR:USD", "type": "cash",
            "is_cash_equivalent": True, "iso_currency_code": "USD", "close_price": 1}  # fmt: skip


PLAID: dict[str, Any] = {
    "accounts": [
        {"account_id": "a1", "name": "Brokerage", "type": "investment", "subtype": "brokerage",
         "balances": {"current": 2000, "iso_currency_code": "USD"}},
        {"account_id": "a2", "name": "401k", "type": "investment", "subtype": "401k",
         "balances": {"current": 1200, "iso_currency_code": "USD"}},
    ],
    "securities": [
        *map(security, SYMBOLS),
        {"security_id": "s-fund", "name": "Target Fund 2050", "ticker_symbol": None, "type": "mutual fund",
         "iso_currency_code": "USD"},
        cash(0),
    ],
    "holdings": [
        held("a1", "AAPL", 10, 79.5), held("a1", "MSFT", 5, 79.5), held("a2", "fund", 100, 12.0),
        {**held("a1", "cash", 250, 1.0)},
    ],
    "investment_transactions": [
        row("t1", "a1", "2026-10-05", "buy", 4, 55.0),
        row("t2", "a1", "2026-11-02", "sell", 2, 60.0),
        row("t3", "a2", "2026-11-03", "buy", 10, 11.0, "fund"),
    ],
}  # fmt: skip


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS) as started:
        for symbol in SYMBOLS:
            started.truth(Instrument(symbol), 60)
        queue = asyncio.create_task(started.parts.reconstructions.queue.run(), name="queue")
        yield started
        await started.parts.reconstructions.queue.stop()
        await cancelled([queue])


async def post(daemon: ApiDaemon, body: Any, headers: dict[str, str] = ANN, query: str = "") -> tuple[int, Any]:
    return await daemon.call("POST", f"{BASE}/request{query}", json=body, headers=headers)


async def ended(daemon: ApiDaemon, connection: str, headers: dict[str, str] = ANN) -> dict[str, Any]:
    """Its status, once it has ended."""
    async with asyncio.timeout(30):
        while True:
            status, answer = await daemon.get(f"{BASE}/status?connectionId={connection}", headers=headers)
            assert status == 200, answer
            (found,) = answer["reconstructions"]
            if found["state"] not in ("queued", "running"):
                return dict(found)
            await asyncio.sleep(0.01)


async def done(daemon: ApiDaemon, body: Any, headers: dict[str, str] = ANN) -> dict[str, Any]:
    status, answer = await post(daemon, body, headers)
    assert status == 202, answer
    found = await ended(daemon, answer["connectionId"], headers)
    assert found["state"] == "done", found
    return found


async def holdings(daemon: ApiDaemon, portfolio: str) -> dict[tuple[str, str | None], float]:
    status, answer = await daemon.get(f"/api/portfolios/{portfolio}/holdings", headers=ANN)
    assert status == 200, answer
    return {(one["symbol"], one.get("accountId")): one["quantity"] for one in answer["holdings"]}


async def rows_of(daemon: ApiDaemon, portfolio: str) -> list[dict[str, Any]]:
    status, answer = await daemon.get(f"/api/portfolios/{portfolio}/transactions?limit=1000", headers=ANN)
    assert status == 200, answer
    return list(answer["transactions"])


async def test_a_user_posts_a_payload_and_has_a_portfolio_with_a_history(daemon: ApiDaemon) -> None:
    found = await done(daemon, {"plaid": PLAID})
    result = found["result"]
    assert (found["percent"], found["attempts"], found["error"]) == (100, 1, None)
    assert result["securities"]["total"] == 3
    assert result["securities"]["brokersOwn"] == 1
    _, portfolios = await daemon.get("/api/portfolios", headers=ANN)
    (portfolio,) = portfolios["portfolios"]
    assert (portfolio["id"], portfolio["name"]) == (found["portfolioId"], "Connected accounts")
    assert (portfolio["cashTracking"], portfolio["baseCurrency"], portfolio["timeZone"]) == (
        True, "USD", "America/New_York",
    )  # fmt: skip
    _, accounts = await daemon.get(f"/api/portfolios/{portfolio['id']}/accounts", headers=ANN)
    assert [(one["name"], one["kind"]) for one in accounts["accounts"]] == [
        ("Brokerage", "brokerage"),
        ("401k", "401k"),
    ]
    held_now = sorted(quantity for quantity in (await holdings(daemon, portfolio["id"])).values())
    assert held_now == [5, 10, 100]
    _, history = await daemon.get(f"/api/portfolio/history?portfolioId={portfolio['id']}", headers=ANN)
    assert history["history"][0]["date"] == "2026-10-04"
    assert history["history"][-1]["totalValue"] is not None
