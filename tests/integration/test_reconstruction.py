"""A user posts what a broker says, and has a history: over HTTP, on the real parts of a daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pricecache.api.uploads import UploadGate
from pricecache.background import cancelled
from pricecache.core.actions import Action
from pricecache.core.bars import Bars, day_number
from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderError
from pricecache.portfolio.reconstruction_data import ReconstructionNews
from pricecache.portfolio.snapshot_capture import SNAPSHOT_JOB
from tests.fakes.provider import Truth
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
        parts = started.parts.reconstructions
        tasks = [
            asyncio.create_task(work, name="beside")
            for work in (parts.queue.run(), parts.remapping.run(), parts.rewalking.run())
        ]
        yield started
        await parts.queue.stop()
        await cancelled(tasks)


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


async def test_the_history_is_computed_once_while_its_rows_are_stored(daemon: ApiDaemon) -> None:
    wholes = daemon.parts.portfolio.wholes
    found = await done(daemon, {"plaid": PLAID})
    portfolio = await daemon.services.portfolios.find(found["portfolioId"])
    whole = await wholes.of(portfolio)
    assert whole.kept is not None
    assert whole.kept.stored is not None
    tail = whole.tail.days if whole.tail is not None else 0
    assert wholes.computed_days == whole.kept.through - whole.kept.start + 1 + tail


async def test_the_same_payload_again_changes_nothing_unless_it_is_forced(daemon: ApiDaemon, database: Any) -> None:
    found = await done(daemon, {"plaid": PLAID})
    before = await rows_of(daemon, found["portfolioId"])
    state = await database["ledger_state"].find_one({"_id": found["portfolioId"]})
    status, answer = await post(daemon, {"plaid": PLAID})
    assert (status, answer["unchanged"], answer["state"]) == (200, True, "done")
    assert answer["connectionId"] == found["connectionId"]
    status, answer = await post(daemon, {"plaid": PLAID, "force": True})
    assert (status, answer["unchanged"]) == (202, False)
    again = await ended(daemon, found["connectionId"])
    assert (again["state"], again["result"]["unchanged"]) == ("done", len(before))
    assert await rows_of(daemon, found["portfolioId"]) == before
    assert (await database["ledger_state"].find_one({"_id": found["portfolioId"]}))["places"] == state["places"]
    assert await database["portfolios"].count_documents({}) == 1


async def test_first_posts_at_once_make_one_portfolio_and_one_set_of_accounts(daemon: ApiDaemon, database: Any) -> None:
    answers = await asyncio.gather(*[post(daemon, {"plaid": PLAID}) for _ in range(6)])
    assert {status for status, _ in answers} <= {200, 202}
    assert len({answer["connectionId"] for _, answer in answers}) == 1
    assert (await ended(daemon, answers[0][1]["connectionId"]))["state"] == "done"
    assert await database["portfolios"].count_documents({}) == 1
    assert await database["accounts"].count_documents({}) == 2
    assert await database["connections"].count_documents({}) == 1


async def test_a_later_payload_replaces_what_it_says_otherwise_and_leaves_the_users_own_rows(daemon: ApiDaemon) -> None:
    found = await done(daemon, {"plaid": PLAID})
    portfolio = found["portfolioId"]
    own = {"date": "2026-11-10", "type": "deposit", "amount": 12.5, "currency": "USD", "externalId": "mine"}
    status, _ = await daemon.call("POST", f"/api/portfolios/{portfolio}/transactions", json=own, headers=ANN)
    assert status == 201
    later = deepcopy(PLAID)
    later["investment_transactions"][1] = row("t2", "a1", "2026-11-02", "sell", 2, 61.0)  # corrected
    del later["investment_transactions"][0]
    later["investment_transactions"].append(row("t4", "a1", "2026-11-19", "buy", 1, 79.0, "MSFT"))
    later["start_date"] = "2026-10-01"
    later["holdings"][1] = held("a1", "MSFT", 6, 79.5)
    again = await done(daemon, {"plaid": later})
    assert again["connectionId"] == found["connectionId"]
    result = again["result"]
    assert (result["deleted"] >= 1, result["updated"] >= 1, result["created"] >= 1) == (True, True, True)
    rows = await rows_of(daemon, portfolio)
    assert [one["externalId"] for one in rows if one["externalId"] == "mine"] == ["mine"]
    assert all(one["externalId"].startswith(found["connectionId"] + "/") for one in rows if one["externalId"] != "mine")
    assert sorted((await holdings(daemon, portfolio)).values()) == [6, 10, 100]


async def test_it_goes_into_the_portfolio_that_is_named_and_each_has_a_connection_of_its_own(daemon: ApiDaemon) -> None:
    _, made = await daemon.call("POST", "/api/portfolios", json={"name": "Mine"}, headers=ANN)
    found = await done(daemon, {"plaid": PLAID, "portfolioId": made["id"]})
    assert found["portfolioId"] == made["id"]
    again = await done(daemon, {"plaid": PLAID, "force": True})  # where it went before
    assert again["connectionId"] == found["connectionId"]
    _, other = await daemon.call("POST", "/api/portfolios", json={"name": "Other"}, headers=ANN)
    third = await done(daemon, {"plaid": PLAID, "portfolioId": other["id"]})
    assert third["connectionId"] != found["connectionId"]
    _, listed = await daemon.get(f"{BASE}/status", headers=ANN)
    assert len(listed["reconstructions"]) == 2
    _, listed = await daemon.get(f"{BASE}/status?portfolioId={other['id']}", headers=ANN)
    assert [one["connectionId"] for one in listed["reconstructions"]] == [third["connectionId"]]
    status, problem = await post(daemon, {"plaid": PLAID, "portfolioId": other["id"]}, BOB)
    assert (status, problem["code"]) == (404, "unknown_portfolio")


async def test_a_bare_payload_is_enough_and_the_portfolio_is_called_as_it_is_said(daemon: ApiDaemon) -> None:
    status, answer = await post(daemon, PLAID, query="?portfolioName=Old%20age")
    assert status == 202
    assert (await ended(daemon, answer["connectionId"]))["state"] == "done"
    _, portfolios = await daemon.get("/api/portfolios", headers=ANN)
    assert [one["name"] for one in portfolios["portfolios"]] == ["Old age"]


async def test_pages_as_plaid_answers_them_are_taken(daemon: ApiDaemon) -> None:
    held_now = {name: PLAID[name] for name in ("accounts", "securities", "holdings")}
    rows, common = PLAID["investment_transactions"], {name: PLAID[name] for name in ("accounts", "securities")}
    pages = [{**common, "investment_transactions": rows[:2], "total_investment_transactions": 3},
             {**common, "investment_transactions": rows[1:], "total_investment_transactions": 3}]  # fmt: skip
    found = await done(daemon, {"plaid": {"holdings": held_now, "transactions": pages}})
    assert sorted((await holdings(daemon, found["portfolioId"])).values()) == [5, 10, 100]


NEUTRAL: dict[str, Any] = {
    "source": "My bank",
    "asOf": "2026-11-19",
    "accounts": [{"id": "1", "name": "Depot", "cash": [{"currency": "USD", "amount": 100}]}],
    "securities": [{"id": "A", "symbol": "AAPL", "exchange": "XNAS", "name": "AAPL Inc.", "type": "equity"}],
    "holdings": [{"accountId": "1", "securityId": "A", "quantity": 3, "price": 79.5}],
    "transactions": [
        {
            "id": "1",
            "accountId": "1",
            "securityId": "A",
            "date": "2026-11-02",
            "type": "buy",
            "quantity": 1,
            "price": 70,
        }
    ],
}


async def test_the_neutral_payload_is_taken_bare_or_named(daemon: ApiDaemon) -> None:
    found = await done(daemon, NEUTRAL)
    again = await done(daemon, {"broker": NEUTRAL, "force": True})
    assert again["connectionId"] == found["connectionId"]
    assert list((await holdings(daemon, found["portfolioId"])).values()) == [3]


async def test_what_is_known_is_done_again_on_request(daemon: ApiDaemon) -> None:
    status, problem = await post(daemon, {})
    assert (status, problem["code"]) == (404, "no_connection")
    found = await done(daemon, {"plaid": PLAID})
    other = await done(daemon, NEUTRAL)
    assert other["portfolioId"] != found["portfolioId"]
    status, answer = await post(daemon, {"connectionId": found["connectionId"]})
    assert (status, answer["connectionId"]) == (202, found["connectionId"])
    assert (await ended(daemon, found["connectionId"]))["state"] == "done"
    status, answer = await daemon.call("POST", f"{BASE}/request", headers=ANN)
    assert status == 202
    assert {one["connectionId"] for one in answer["reconstructions"]} == {found["connectionId"], other["connectionId"]}
    status, problem = await post(daemon, {"connectionId": found["connectionId"]}, BOB)
    assert (status, problem["code"]) == (404, "unknown_connection")
    status, problem = await daemon.get(f"{BASE}/status?connectionId={found['connectionId']}", headers=BOB)
    assert (status, problem["code"]) == (404, "unknown_connection")
    assert (await daemon.get(f"{BASE}/status", headers=BOB))[1] == {"reconstructions": []}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"account_id": "nobody"}, "investment_transactions[0].account_id"),
        ({"quantity": "many"}, "investment_transactions[0].quantity"),
        ({"date": "2026-12-24"}, "investment_transactions[0].date"),
    ],
)
async def test_a_bad_payload_tells_every_bad_row_and_stores_nothing(
    daemon: ApiDaemon, database: Any, change: dict[str, Any], path: str
) -> None:
    bad = deepcopy(PLAID)
    bad["investment_transactions"][0] |= change
    status, problem = await post(daemon, {"plaid": bad})
    assert (status, [one["path"] for one in problem["errors"]]) == (422, [path]), problem
    for name in ("portfolios", "connections", "broker_data", "reconstructions", "accounts"):
        assert await database[name].count_documents({}) == 0, name


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"plaid": PLAID, "broker": NEUTRAL}, 422, "ambiguous_payload"),
        ({"plaid": PLAID, "connectionId": "x"}, 422, "ambiguous_payload"),
        ({"plaid": []}, 422, "invalid_value"),
        ({"colour": "red"}, 422, "unknown_field"),
        ({"force": "maybe"}, 422, "invalid_value"),
        ({"force": "yes"}, 422, "invalid_value"),
        ([], 422, "invalid_value"),
        ({"plaid": {"holdings": {}, "transactions": [3]}}, 422, "invalid_value"),
    ],
)
async def test_a_request_that_cannot_be_read_is_refused(daemon: ApiDaemon, body: Any, status: int, code: str) -> None:
    found, problem = await post(daemon, body)
    assert (found, problem["code"]) == (status, code)


@pytest.mark.parametrize(
    ("content", "media", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed_json"),
        (b'{"force": NaN}', "application/json", 400, "malformed_json"),
        (
            b'{"broker": {"asOf": "2026-11-19", "accounts": [], "accounts": []}}',
            "application/json",
            400,
            "malformed_json",
        ),
        (b"\xff\xfe{", "application/json", 400, "bad_encoding"),
        (b"a,b\n1,2\n", "text/csv", 415, "unsupported_media_type"),
    ],
)
async def test_a_body_that_is_no_json_is_refused(
    daemon: ApiDaemon, content: bytes, media: str, status: int, code: str
) -> None:
    headers = {**ANN, "Content-Type": media}
    found, problem = await daemon.call("POST", f"{BASE}/request", data=content, headers=headers)
    assert (found, problem["code"]) == (status, code)


async def test_a_security_that_no_provider_knows_keeps_the_brokers_price(daemon: ApiDaemon) -> None:
    del daemon.provider.truth[Instrument("MSFT")]
    found = await done(daemon, {"plaid": PLAID})
    assert found["result"]["securities"]["brokersOwn"] == 2
    status, answer = await daemon.get(f"/api/portfolios/{found['portfolioId']}/holdings", headers=ANN)
    assert status == 200
    assert all(one["price"] is not None for one in answer["holdings"])


async def test_what_only_the_broker_prices_is_worth_nothing_from_when_it_says_so(daemon: ApiDaemon) -> None:
    of = {"accountId": "p", "securityId": "f"}
    rows = [{**of, "id": "1", "date": "2026-10-02", "type": "buy", "quantity": 10, "price": 100}]
    body = {
        "source": "P", "asOf": "2026-11-20", "accounts": [{"id": "p", "cash": [{"currency": "USD", "amount": 100}]}],
        "securities": [{"id": "f", "name": "A company that was", "type": "equity"}],
        "holdings": [{**of, "quantity": 10, "price": 0, "value": 0, "priceDate": "2026-11-12"}], "transactions": rows,
    }  # fmt: skip
    found = await done(daemon, {"broker": body})
    assert (found["result"]["worth"]["value"], found["result"]["worth"]["brokerValue"]) == (100, 100)
    portfolio = found["portfolioId"]
    _, answer = await daemon.get(f"/api/portfolios/{portfolio}/holdings", headers=ANN)
    (holding,) = answer["holdings"]
    assert (holding["price"], holding["value"], holding["unrealizedGainLoss"]) == (0, 0, -1000)
    _, history = await daemon.get(f"/api/portfolio/history?portfolioId={portfolio}&start=2026-10-02", headers=ANN)
    worth = {one["date"]: one["totalValue"] for one in history["history"]}
    assert (worth["2026-11-11"], worth["2026-11-12"], worth["2026-11-20"]) == (1100, 100, 100)
    for target in ("summary", "performance", "account-breakdown"):
        status, answer = await daemon.get(f"/api/portfolio/{target}?portfolioId={portfolio}", headers=ANN)
        assert status == 200, answer


async def test_of_two_prices_that_accounts_name_for_what_only_the_broker_prices_one_counts_and_is_told(
    daemon: ApiDaemon,
) -> None:
    other = held("a1", "fund", 5, 13.0)
    for holdings_said in ([*PLAID["holdings"], other], [other, *PLAID["holdings"]]):
        found = await done(daemon, {"plaid": {**PLAID, "holdings": holdings_said}})
        _, answer = await daemon.get(f"/api/portfolios/{found['portfolioId']}/holdings", headers=ANN)
        assert {one["price"] for one in answer["holdings"] if one["market"] == "CUSTOM"} == {12}
        (told,) = [one for one in found["result"]["findings"] if one["code"] == "prices_differ"]
        assert (told["amount"], told["currency"], told["date"]) == (1, "USD", "2026-11-20")
        assert "12.0 in another account" in told["detail"]


async def test_a_split_between_two_of_the_brokers_prices_is_no_return(daemon: ApiDaemon) -> None:
    of = {"accountId": "p", "securityId": "f"}
    body = {
        "source": "P", "asOf": "2026-11-20", "accounts": [{"id": "p", "cash": [{"currency": "USD", "amount": 100}]}],
        "securities": [{"id": "f", "name": "A private fund", "type": "mutual_fund"}],
        "holdings": [{**of, "quantity": 20, "price": 50}],
        "transactions": [
            {**of, "id": "1", "date": "2026-10-02", "type": "buy", "quantity": 10, "price": 100},
            {**of, "id": "2", "date": "2026-10-20", "type": "split", "ratio": 2},
        ],
    }  # fmt: skip
    found = await done(daemon, {"broker": body})
    query = f"portfolioId={found['portfolioId']}&start=2026-10-02&end=2026-11-19"
    _, history = await daemon.get(f"/api/portfolio/history?{query}", headers=ANN)
    assert {one["totalValue"] for one in history["history"]} == {1100}


async def test_a_split_of_one_account_is_of_the_other_and_its_euros_are_no_dollars(daemon: ApiDaemon) -> None:
    one, other = ({"accountId": name, "securityId": "f"} for name in "pq")
    bought = {"date": "2026-10-02", "type": "buy", "quantity": 10, "price": 100, "currency": "EUR"}
    body = {
        "source": "P", "asOf": "2026-11-20",
        "accounts": [{"id": name, "cash": [{"currency": "EUR", "amount": 100}]} for name in "pq"],
        "securities": [{"id": "f", "name": "A private fund", "type": "mutual_fund"}],
        "holdings": [{**place, "quantity": 20, "price": 50, "currency": "EUR"} for place in (one, other)],
        "transactions": [
            {**one, "id": "1", **bought}, {**other, "id": "2", **bought},
            {**one, "id": "3", "date": "2026-10-20", "type": "split", "ratio": 2},
        ],
    }  # fmt: skip
    found = await done(daemon, {"broker": body})
    assert [told["code"] for told in found["result"]["findings"]] == ["split_of_other_account"]
    _, answer = await daemon.get(f"/api/portfolios/{found['portfolioId']}/holdings", headers=ANN)
    assert {(told["price"], told["currency"], told["quantity"]) for told in answer["holdings"]} == {(50, "EUR", 20)}
    again = await done(daemon, {"broker": body, "force": True})
    assert (again["result"]["updated"], again["result"]["created"]) == (0, 0)


async def test_prices_that_are_here_are_not_fetched_again_for_the_next_user(daemon: ApiDaemon) -> None:
    await done(daemon, {"plaid": PLAID})
    calls = len(daemon.provider.calls)
    found = await done(daemon, {"plaid": PLAID}, BOB)
    assert found["result"]["securities"]["cached"] == 2
    assert len(daemon.provider.calls) == calls
    metrics = {"reconstructions_done": 0}
    async with asyncio.timeout(20):
        while metrics["reconstructions_done"] < 2:  # it is counted after it is told
            _, metrics = await daemon.get(f"{BASE}/metrics", headers={"X-API-Key": "ops-key"})
    assert (metrics["total_users"], metrics["reconstruction_success_rate"], metrics["cache_hit_rate"]) == (2, 100, 50)


async def test_the_hit_rate_is_of_distinct_instruments_of_providers_as_they_were_found(daemon: ApiDaemon) -> None:
    """By hand: ann needs two, of which none is here; bob the same two and GOOG, twice named and not here."""
    daemon.truth(Instrument("GOOG"), 60)
    await done(daemon, {"plaid": PLAID})
    body = deepcopy(PLAID)
    body["securities"] += [security("GOOG"), {**security("GOOG"), "security_id": "s-again"}]
    body["holdings"] += [held("a1", "GOOG", 1, 79.5), {**held("a1", "GOOG", 1, 79.5), "security_id": "s-again"}]
    found = await done(daemon, {"plaid": body}, BOB)
    securities = found["result"]["securities"]
    assert (securities["total"], securities["brokersOwn"], securities["cached"]) == (5, 1, 2)  # with a fund of its own
    async with asyncio.timeout(20):
        while (totals := await daemon.parts.reconstructions.queue.days.totals(daemon.clock.time(), 1)).done < 2:
            await asyncio.sleep(0.01)
    assert (totals.securities_needed, totals.securities_cached) == (2 + 3, 0 + 2)
    assert totals.cache_hit_rate == 100 * 2 / 5


async def test_metrics_that_were_not_measured_are_null_with_a_reason(daemon: ApiDaemon) -> None:
    status, metrics = await daemon.get(f"{BASE}/metrics", headers={"X-API-Key": "ops-key"})
    assert status == 200
    assert (metrics["total_users"], metrics["reconstruction_queue_size"]) == (0, 0)
    unmeasured = {name for name, value in metrics.items() if value is None}
    assert unmeasured == metrics["reasons"].keys()
    assert unmeasured >= {
        "reconstruction_success_rate", "average_processing_time_seconds", "daily_snapshot_success_rate",
        "api_cost_per_user", "cache_hit_rate",
    }  # fmt: skip
    status, _ = await daemon.get(f"{BASE}/metrics", headers={"X-API-Key": "read-key"})
    assert status == 403


async def test_a_deleted_portfolio_does_not_come_back_by_itself(daemon: ApiDaemon, database: Any) -> None:
    found = await done(daemon, {"plaid": PLAID})
    await daemon.call("DELETE", f"/api/portfolios/{found['portfolioId']}", headers=ANN)
    assert await database["reconstructions"].count_documents({}) == 0
    await post(daemon, {"connectionId": found["connectionId"]})
    failed = await ended(daemon, found["connectionId"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "portfolio_gone")
    again = await done(daemon, {"plaid": PLAID})
    assert again["connectionId"] == found["connectionId"]
    assert again["portfolioId"] != found["portfolioId"]


async def test_an_account_that_is_deleted_while_its_rows_are_stored_is_made_again(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledgers, portfolios = daemon.parts.portfolio.ledgers, daemon.parts.portfolio.store
    attempt, gone = ledgers.attempt, []

    async def once_deleted(portfolio: Any, *rest: Any, **options: Any) -> Any:
        if not gone:
            gone.extend(one.id for one in await portfolios.accounts(portfolio.id))
            await portfolios.delete_account(portfolio.id, gone[0])
        return await attempt(portfolio, *rest, **options)

    monkeypatch.setattr(ledgers, "attempt", once_deleted)
    found = await done(daemon, PLAID)
    assert [one.id for one in await portfolios.accounts(found["portfolioId"])] == gone
    assert found["attempts"] == 1
    assert await quantity_of(daemon, found["portfolioId"], "AAPL") == 10


async def test_progress_is_told_to_who_listens(daemon: ApiDaemon) -> None:
    _, made = await daemon.call("POST", "/api/portfolios", json={"name": "Mine"}, headers=ANN)
    told: list[dict[str, Any]] = []
    hub, publish = daemon.parts.realtime.hub, daemon.parts.realtime.hub.publish_values

    def listening(portfolio_id: str, values: Mapping[str, dict[str, Any]]) -> None:
        told.extend(event for key, event in values.items() if key.startswith("reconstruction:"))
        publish(portfolio_id, values)

    daemon.parts.reconstructions.queue.on_progress = ReconstructionNews(
        daemon.parts.reconstructions.queue, listening
    ).tell
    found = await done(daemon, {"plaid": PLAID, "portfolioId": made["id"]})
    async with asyncio.timeout(20):
        while told[-1]["stage"] != "done":  # it is stored first, and told then
            await asyncio.sleep(0.01)
    percents = [one["percent"] for one in told]
    assert percents == sorted(percents)
    stages = list(dict.fromkeys(one["stage"] for one in told))
    assert stages == ["queued", "reading", "mapping", "prices", "walking", "storing", "materialising", "done"]
    assert any(one["message"].startswith("Processing ") and " of 3 securities, " in one["message"] for one in told)
    assert [one["type"] for one in told if one["stage"] == "done"] == ["reconstruction:finished"]
    assert {one["type"] for one in told if one["stage"] != "done"} == {"reconstruction:progress"}
    assert found["securitiesDone"] == found["securitiesTotal"] == 3
    assert hub.publish_values == publish


async def test_a_new_listener_is_told_of_what_is_not_done(daemon: ApiDaemon) -> None:
    await daemon.parts.reconstructions.queue.stop()
    _, made = await daemon.call("POST", "/api/portfolios", json={"name": "Mine"}, headers=ANN)
    status, answer = await post(daemon, {"plaid": PLAID, "portfolioId": made["id"]})
    assert status == 202
    hub = asyncio.create_task(daemon.parts.realtime.hub.run(), name="hub")
    async with daemon.session.ws_connect(f"{daemon.base}/ws/portfolio", headers=ANN) as socket:
        await socket.send_json({"type": "subscribe", "portfolioId": made["id"], "channels": ["account"]})
        messages = [await socket.receive_json(timeout=10) for _ in range(2)]
    await cancelled([hub])
    events = [event for message in messages for event in message.get("events", ())]
    (event,) = [event for event in events if event["type"] == "reconstruction:progress"]
    assert (event["connectionId"], event["state"]) == (answer["connectionId"], "queued")


async def test_a_decision_about_a_security_makes_the_history_again(daemon: ApiDaemon) -> None:
    found = await done(daemon, {"plaid": PLAID})
    _, listed = await daemon.get("/api/portfolio/mappings", headers=ANN)
    (fund,) = [one for one in listed["mappings"] if one["isBrokersOwn"]]
    status, _ = await daemon.call("PUT", f"/api/portfolio/mappings/{fund['id']}", json={"symbol": "MSFT"}, headers=ANN)
    assert status == 200
    async with asyncio.timeout(20):
        while {"AAPL", "MSFT"} != {symbol for symbol, _ in await holdings(daemon, found["portfolioId"])}:
            await asyncio.sleep(0.01)


async def test_a_security_cannot_be_mapped_to_what_is_another_users_own(daemon: ApiDaemon) -> None:
    mappings = "/api/portfolio/mappings"

    async def of_fund(headers: dict[str, str]) -> dict[str, Any]:
        _, answer = await daemon.get(mappings, headers=headers)
        return next(one for one in answer["mappings"] if one["security"]["name"] == "Target Fund 2050")

    await done(daemon, {"plaid": PLAID}, BOB)
    await done(daemon, {"plaid": PLAID})
    bobs, own = (await of_fund(BOB))["symbol"], await of_fund(ANN)
    body = {"symbol": bobs, "market": "CUSTOM"}
    status, problem = await daemon.call("PUT", f"{mappings}/{own['id']}", json=body, headers=ANN)
    assert (status, problem["code"]) == (404, "unknown_symbol")
    assert (await of_fund(ANN))["symbol"] == own["symbol"] != bobs


async def test_other_rules_of_cost_make_it_again(daemon: ApiDaemon) -> None:
    costly = {**PLAID, "holdings": [held("a1", "AAPL", 10, 79.5, cost_basis=700), *PLAID["holdings"][1:]]}
    found = await done(daemon, {"plaid": costly})
    portfolio = f"/api/portfolios/{found['portfolioId']}"

    async def cost() -> Any:
        _, answer = await daemon.get(f"{portfolio}/holdings", headers=ANN)
        return next(one["cost"] for one in answer["holdings"] if one["symbol"] == "AAPL")

    assert await cost() == 700
    for facts in ({"name": "Other"}, {"costBasis": "average"}, {"costBasis": "hifo"}):
        status, answer = await daemon.call("PATCH", portfolio, json=facts, headers=ANN)
        assert status == 200, answer
        again = await ended(daemon, found["connectionId"])
        assert again["state"] == "done"
        assert await cost() == 700


async def test_a_connection_that_is_deleted_leaves_no_reconstruction(daemon: ApiDaemon, database: Any) -> None:
    found = await done(daemon, {"plaid": PLAID})
    target = f"/api/portfolio/connections/{found['connectionId']}?deleteRows=true"
    status, answer = await daemon.call("DELETE", target, headers=ANN)
    assert status == 200, answer
    assert await rows_of(daemon, found["portfolioId"]) == []
    assert (await daemon.get(f"{BASE}/status", headers=ANN))[1] == {"reconstructions": []}
    assert await database["reconstructions"].count_documents({}) == 0


@pytest.mark.parametrize("name", ["plaid", "broker"])
async def test_the_example_payloads_add_up(daemon: ApiDaemon, name: str) -> None:
    payload = json.loads((Path(__file__).parents[2] / "docs" / "examples" / f"{name}.json").read_text())
    found = await done(daemon, payload)
    assert found["result"]["adjustments"] == 0, found["result"]["findings"]
    assert found["result"]["transactions"] > 20
    assert "cost_differs" not in {one["code"] for one in found["result"]["findings"]}


async def test_what_another_daemon_does_is_told_here_too(daemon: ApiDaemon, database: Any) -> None:
    told: list[dict[str, Any]] = []
    async with api_daemon(database, keys=KEYS) as other:
        queue = other.parts.reconstructions.queue
        news = ReconstructionNews(queue, lambda portfolio_id, values: told.extend(values.values()))
        found = await done(daemon, {"plaid": PLAID})
        await news.look(found["connectionId"])
        await news.look("nobody")
    assert [(one["type"], one["state"]) for one in told] == [("reconstruction:finished", "done")]


async def test_cash_and_holdings_are_those_of_the_broker_to_the_cent(daemon: ApiDaemon) -> None:
    payload = json.loads((Path(__file__).parents[2] / "docs" / "examples" / "plaid.json").read_text())
    found = await done(daemon, payload)
    _, answer = await daemon.get(f"/api/portfolios/{found['portfolioId']}/holdings", headers=ANN)
    money = [one for one in payload["holdings"] if one["security_id"] in cash_of(payload)]
    held_by_broker = sorted(one["quantity"] for one in payload["holdings"] if one not in money)
    held_here: list[float] = []
    _, accounts = await daemon.get(f"/api/portfolios/{found['portfolioId']}/accounts", headers=ANN)
    for account in accounts["accounts"]:
        target = f"/api/portfolios/{found['portfolioId']}/holdings?accountId={account['id']}"
        held_here += [one["quantity"] for one in (await daemon.get(target, headers=ANN))[1]["holdings"]]
    assert len(held_here) == len(held_by_broker)
    assert sum(one["amount"] for one in answer["cash"]) == pytest.approx(
        sum(one["institution_value"] for one in money), abs=0.005
    )


def cash_of(payload: dict[str, Any]) -> set[str]:
    return {one["security_id"] for one in payload["securities"] if one["type"] == "cash" or one["is_cash_equivalent"]}


async def test_what_the_broker_says_it_is_worth_stands_beside_what_it_is_worth(daemon: ApiDaemon) -> None:
    payload = deepcopy(PLAID)
    payload["accounts"][0]["balances"]["current"] = 1495.0
    payload["holdings"][1] = held("a1", "MSFT", 5, 90.0)
    found = await done(daemon, {"plaid": payload})
    worth, portfolio = found["result"]["worth"], found["portfolioId"]
    assert (worth["day"], worth["currency"], worth["reasons"]) == ("2026-11-20", "USD", {})
    brokerage, pension = worth["accounts"]
    assert (brokerage["brokerValue"], brokerage["balance"], pension["brokerValue"]) == (1495, 1495, 1200)
    assert (pension["value"], pension["difference"]) == (1200, 0)
    target = f"/api/portfolio/history?portfolioId={portfolio}&start={worth['day']}&end={worth['day']}"
    _, history = await daemon.get(target, headers=ANN)
    assert worth["value"] == history["history"][0]["totalValue"]
    assert worth["difference"] == pytest.approx(worth["value"] - worth["brokerValue"], abs=0.001)
    _, answer = await daemon.get(f"/api/portfolios/{portfolio}/holdings", headers=ANN)
    prices = {one["symbol"]: (one["price"], one["priceDate"]) for one in answer["holdings"]}
    (differing,) = worth["prices"]
    price, day = prices["MSFT"]
    assert differing == {
        "symbol": "MSFT", "market": "US", "brokerPrice": 90, "brokerPriceDate": "2026-11-20", "brokerCurrency": "USD",
        "price": price, "priceDate": day, "currency": "USD", "differencePercent": round((price / 90 - 1) * 100, 2),
    }  # fmt: skip


async def test_accounts_that_a_later_payload_says_nothing_of_are_as_they_were(daemon: ApiDaemon) -> None:
    found = await done(daemon, {"plaid": PLAID})
    later = deepcopy(PLAID)
    later["accounts"] = later["accounts"][:1]
    later["holdings"] = [one for one in later["holdings"] if one["account_id"] == "a1"]
    later["investment_transactions"] = [one for one in later["investment_transactions"] if one["account_id"] == "a1"]
    again = await done(daemon, {"plaid": later})
    assert (again["connectionId"], again["result"]["adjustments"]) == (found["connectionId"], 0)
    assert sorted((await holdings(daemon, found["portfolioId"])).values()) == [5, 10, 100]


async def test_money_that_is_spent_to_the_last_cent_was_there_before(daemon: ApiDaemon) -> None:
    found = await done(daemon, {"plaid": PLAID})
    later = deepcopy(PLAID)
    later["holdings"] = [held("a1", "AAPL", 10, 79.5), held("a1", "MSFT", 7.5, 79.5), held("a2", "fund", 100, 12.0)]
    later["investment_transactions"].append(row("t4", "a1", "2026-11-19", "buy", 2.5, 100.0, "MSFT"))
    target = f"/api/portfolio/history?portfolioId={found['portfolioId']}&start=2026-10-04&end=2026-11-18"
    _, before = await daemon.get(target, headers=ANN)
    await done(daemon, {"plaid": later})
    _, history = await daemon.get(target, headers=ANN)
    assert [one["cash"] for one in history["history"]] == [one["cash"] for one in before["history"]]
    _, answer = await daemon.get(f"/api/portfolios/{found['portfolioId']}/holdings", headers=ANN)
    assert [one["amount"] for one in answer["cash"] if one["amount"]] == []


async def test_a_row_that_comes_late_contradicts_no_earlier_balance(daemon: ApiDaemon) -> None:
    early = {**deepcopy(NEUTRAL), "asOf": "2026-11-10"}
    found = await done(daemon, early)
    late = deepcopy(NEUTRAL)
    late["transactions"].append({**late["transactions"][0], "id": "late", "date": "2026-11-03"})
    late["holdings"][0]["quantity"] = 4
    late["accounts"][0]["cash"][0]["amount"] = 30
    again = await done(daemon, late)
    assert again["connectionId"] == found["connectionId"]
    assert (again["result"]["adjustments"], again["result"]["findings"]) == (0, [])


async def test_a_new_user_sees_progress_history_breakdown_and_the_next_days_snapshot(daemon: ApiDaemon) -> None:
    """Nothing but the payload is sent."""
    payload = json.loads((Path(__file__).parents[2] / "docs" / "examples" / "plaid.json").read_text())
    for symbol in ("AAPL", "MSFT", "IBM", "GOOG"):
        daemon.truth(Instrument(symbol), 600)
    found = await done(daemon, payload)
    portfolio = found["portfolioId"]
    _, history = await daemon.get(f"/api/portfolio/history?portfolioId={portfolio}", headers=ANN)
    assert (history["history"][0]["date"], history["history"][-1]["date"]) == (found["result"]["from"], "2026-11-20")
    _, breakdown = await daemon.get(f"/api/portfolio/account-breakdown?portfolioId={portfolio}", headers=ANN)
    assert len(breakdown["accounts"]) == 3
    assert sum(one["value"] for one in breakdown["accounts"]) == pytest.approx(breakdown["totalValue"], abs=0.005)
    daemon.clock.advance(23.5 * 3600)  # Saturday, 04:30 in New York
    ticket = await daemon.services.jobs.run(SNAPSHOT_JOB, {}, "schedule")
    assert await ticket.finished(20)
    _, snapshots = await daemon.get(f"/api/portfolio/daily-snapshots?portfolioId={portfolio}", headers=ANN)
    last = snapshots["snapshots"][-1]
    target = f"/api/portfolio/history?portfolioId={portfolio}&start={last['date']}&end={last['date']}"
    (row_of_day,) = (await daemon.get(target, headers=ANN))[1]["history"]
    assert (last["date"], last["totalValue"]) == ("2026-11-20", row_of_day["totalValue"])
    _, metrics = await daemon.get(f"{BASE}/metrics", headers={"X-API-Key": "ops-key"})
    assert metrics["daily_snapshot_success_rate"] == 100


async def put_split(daemon: ApiDaemon, date: str, ratio: float | None) -> None:
    actions = [] if ratio is None else [{"date": date, "kind": "split", "ratio": ratio}]
    status, answer = await daemon.call(
        "PUT", "/cache/actions/AAPL?market=US", json={"actions": actions}, headers={"X-API-Key": "ops-key"}
    )
    assert status == 200, answer


async def quantity_of(daemon: ApiDaemon, portfolio: str, symbol: str) -> float:
    return sum(quantity for (one, _), quantity in (await holdings(daemon, portfolio)).items() if one == symbol)


async def until(daemon: ApiDaemon, connection: str, by: str | None = "market") -> dict[str, Any]:
    """Its status, once the reconstruction that nobody asked for has ended."""
    store = daemon.parts.reconstructions.queue.store
    async with asyncio.timeout(20):
        while (record := await store.find(connection)) is None or (record.requested_by, record.state) != (by, "done"):
            await asyncio.sleep(0.01)
    return await ended(daemon, connection)


async def test_a_split_that_becomes_known_afterwards_is_walked_through_by_itself(
    daemon: ApiDaemon, database: Any
) -> None:
    found = await done(daemon, {"plaid": PLAID})
    connection, portfolio = found["connectionId"], found["portfolioId"]
    await put_split(daemon, "2026-10-20", 2)
    await until(daemon, connection)
    assert await quantity_of(daemon, portfolio, "AAPL") == 10
    status, answer = await post(daemon, {"plaid": PLAID})
    assert (status, answer["unchanged"]) == (200, True)
    before = await database["reconstructions"].find_one({"_id": connection})
    await put_split(daemon, "2025-01-02", 3)  # none that it walked through
    await asyncio.sleep(0)
    assert (await post(daemon, {"plaid": PLAID}))[0] == 200
    assert (await database["reconstructions"].find_one({"_id": connection}))["startedAt"] == before["startedAt"]


async def test_the_same_payload_is_not_unchanged_once_a_split_of_its_time_is_another(database: Any) -> None:
    async with api_daemon(database, keys=KEYS) as daemon:
        daemon.truth(Instrument("AAPL"), 60)
        queue = daemon.parts.reconstructions.queue
        working = asyncio.create_task(queue.run(), name="queue")
        found = await done(daemon, NEUTRAL)
        await put_split(daemon, "2026-11-10", 2)
        status, answer = await post(daemon, NEUTRAL)
        assert (status, answer["unchanged"]) == (202, False)
        await ended(daemon, found["connectionId"])
        assert await quantity_of(daemon, found["portfolioId"], "AAPL") == 3
        assert (await post(daemon, NEUTRAL))[0] == 200
        await queue.stop()
        await cancelled([working])


async def test_a_split_that_nobody_lived_to_ask_for_is_seen_at_the_next_start(database: Any) -> None:
    async with api_daemon(database, keys=KEYS) as daemon:
        daemon.truth(Instrument("AAPL"), 60)
        parts = daemon.parts.reconstructions
        working = asyncio.create_task(parts.queue.run(), name="queue")
        found = await done(daemon, NEUTRAL)
        await put_split(daemon, "2026-11-10", 2)
        await parts.queue.stop()
        await cancelled([working])
    async with api_daemon(database, keys=KEYS) as daemon:
        await daemon.parts.prices.instruments.load_all()
        parts = daemon.parts.reconstructions
        tasks = [asyncio.create_task(work, name="beside") for work in (parts.queue.run(), parts.rewalking.run())]
        await until(daemon, found["connectionId"])
        assert await quantity_of(daemon, found["portfolioId"], "AAPL") == 3
        await parts.queue.stop()
        await cancelled(tasks)


async def test_prices_that_come_later_are_walked_by_when_they_come(daemon: ApiDaemon) -> None:
    aapl = Instrument("AAPL")
    daemon.provider.script(aapl, *[ProviderError("away")] * 20)
    found = await done(daemon, NEUTRAL)
    assert found["result"]["securities"]["pending"] == ["AAPL:US"]
    daemon.provider._scripts[aapl].clear()
    daemon.truth(aapl, 60, [Action(day_number(date(2026, 11, 10)), "split", 2.0)])
    daemon.clock.advance(3600)
    body = {"symbol": "AAPL", "market": "US"}
    status, answer = await daemon.call("POST", "/cache/backfill-symbol", json=body, headers={"X-API-Key": "ops-key"})
    assert status in (200, 202), answer
    again = await until(daemon, found["connectionId"])
    assert again["result"]["securities"]["pending"] == []
    assert await quantity_of(daemon, found["portfolioId"], "AAPL") == 3


def traded(name: str, date: str, kind: str, quantity: float) -> dict[str, Any]:
    return {"id": name, "accountId": "1", "securityId": "A", "date": date, "type": kind, "quantity": quantity,
            "price": 70}  # fmt: skip


@pytest.mark.parametrize(
    ("later", "held_now"), [(traded("2", "2026-11-15", "buy", 2), 3), (traded("2", "2026-11-16", "sell", 1), 2)]
)
async def test_a_row_of_the_users_own_that_cannot_be_any_more_is_named_and_nothing_is_stored(
    daemon: ApiDaemon, later: dict[str, Any], held_now: float
) -> None:
    found = await done(daemon, NEUTRAL)
    connection, portfolio = found["connectionId"], found["portfolioId"]
    _, accounts = await daemon.get(f"/api/portfolios/{portfolio}/accounts", headers=ANN)
    own = {"date": "2026-11-10", "type": "sell", "symbol": "AAPL", "quantity": 3, "price": 70, "externalId": "mine",
           "accountId": accounts["accounts"][0]["id"]}  # fmt: skip
    status, made = await daemon.call("POST", f"/api/portfolios/{portfolio}/transactions", json=own, headers=ANN)
    assert status == 201, made
    before = await rows_of(daemon, portfolio)
    body = deepcopy(NEUTRAL)
    body["transactions"].append(later)
    body["holdings"][0]["quantity"] = held_now
    status, _ = await post(daemon, body)
    assert status == 202
    failed = await ended(daemon, connection)
    assert (failed["state"], failed["attempts"], failed["error"]["code"]) == ("failed", 1, "own_row_conflicts")
    for part in ("sell 3 AAPL", "2026-11-10", made["ids"][0], "externalId mine"):
        assert part in failed["error"]["detail"]
    assert await rows_of(daemon, portfolio) == before
    status, _ = await daemon.call("DELETE", f"/api/portfolios/{portfolio}/transactions/{made['ids'][0]}", headers=ANN)
    assert status in (200, 204)
    await post(daemon, {"connectionId": connection})
    assert (await ended(daemon, connection))["state"] == "done"
    assert await quantity_of(daemon, portfolio, "AAPL") == held_now


async def test_what_is_uploaded_at_a_time_is_bounded_and_given_back(daemon: ApiDaemon) -> None:
    body = json.dumps(PLAID).encode()
    daemon.services.uploads = UploadGate(len(body) - 1)
    headers = {**ANN, "Content-Type": "application/json"}
    status, problem = await daemon.call("POST", BASE + "/request", data=body, headers=headers)
    assert (status, problem["code"], problem["retryAfter"]) == (503, "uploads_busy", 10)
    gate = daemon.services.uploads = UploadGate(len(body))
    for sent, expected in ((body, 202), (b"{" * 100, 400), (body, 200)):
        status, answer = await daemon.call("POST", BASE + "/request", data=sent, headers=headers)
        assert status == expected, answer
        if status == 202:
            await ended(daemon, answer["connectionId"])
    gate.take("ann", len(body))


@pytest.mark.parametrize("force", [False, True])
async def test_a_damaged_payload_is_healed_by_posting_it_again(daemon: ApiDaemon, database: Any, force: bool) -> None:
    first = await done(daemon, PLAID)
    connection = first["connectionId"]
    await database["broker_data"].update_many({"pieces": {"$exists": True}}, {"$set": {"pieces": [b"damaged"]}})
    await daemon.call("POST", BASE + "/request", json={"connectionId": connection}, headers=ANN)
    assert (await ended(daemon, connection))["state"] == "failed"
    status, _ = await post(daemon, PLAID, query=f"?force={str(force).lower()}")
    assert status == 202
    assert (await ended(daemon, connection))["state"] == "done"
    assert await daemon.parts.broker_data.load(connection) is not None


async def test_rows_from_before_the_ticker_was_used_again_are_of_what_the_security_is_now(daemon: ApiDaemon) -> None:
    ops, aapl = {"X-API-Key": "ops-key"}, Instrument("AAPL")
    body = {"symbol": "AAPL", "market": "US"}
    assert (await daemon.call("POST", "/cache/backfill-symbol", json=body, headers=ops))[0] in (200, 202)
    renamed = {"to": "OLDA", "on": "2026-11-10"}
    assert (await daemon.call("POST", "/cache/symbols/AAPL/rename", json=renamed, headers=ops))[0] == 200
    bars = daemon.provider.truth[aapl].bars
    daemon.provider.truth[aapl] = Truth(Bars(bars.sessions, bars.values / 2))
    assert (await daemon.call("POST", "/cache/symbols", json={"symbols": [body]}, headers=ops))[0] in (200, 201, 202)
    given = deepcopy(NEUTRAL)
    given["holdings"][0]["price"] = 39.75
    found = await done(daemon, given)
    assert found["result"]["securities"]["mapped"] == 1
    assert {one["symbol"] for one in await rows_of(daemon, found["portfolioId"]) if one.get("symbol")} == {"AAPL"}
    assert list((await holdings(daemon, found["portfolioId"])).values()) == [3]
