"""Connections over HTTP, against a fake Plaid: made, fetched by page and by day, mended, ended, and never told of."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pricecache.background import cancelled
from pricecache.brokers.plaid_payload import read_plaid
from pricecache.core.broker.data import BrokerData
from pricecache.errors import Misconfigured
from pricecache.portfolio.connections import SPACING_SECONDS, Connections
from pricecache.portfolio.fetching import AT_ONCE, FETCH_JOB, ROUND_SECONDS
from pricecache.stores.connection_documents import Connection
from tests.clock import START
from tests.documents import ROOT
from tests.fakes.plaid import FakePlaid, Item
from tests.integration.api_daemon import TODAY, ApiDaemon, api_daemon
from tests.integration.test_portfolios import ANN, BOB, KEYS, listed, made

PLAID_SECRET = "the-secret-of-plaid"
KEY = base64.urlsafe_b64encode(b"1" * 32).decode()
PUBLIC = "public-sandbox-0001"
BASE = "/api/portfolio/connections"
NOW = date(2026, 11, 20)
CURRENCY: dict[str, Any] = {"iso_currency_code": "USD", "unofficial_currency_code": None}
HELD: dict[str, Any] = {
    "accounts": [
        {
            "account_id": "acc1",
            "name": "Brokerage",
            "official_name": None,
            "mask": "1111",
            "type": "investment",
            "subtype": "brokerage",
            "balances": {"available": None, "current": 1000.0, "limit": None, "margin_loan_amount": None, **CURRENCY},
        }
    ],
    "securities": [
        {
            "security_id": "sec1",
            "ticker_symbol": "AAPL",
            "name": "Apple Inc.",
            "type": "equity",
            "is_cash_equivalent": False,
            "close_price": 100.0,
            "close_price_as_of": "2026-11-19",
            "isin": "US0378331005",
            "market_identifier_code": "XNAS",
            **CURRENCY,
            **dict.fromkeys(
                [
                    *("cusip", "sedol", "institution_security_id", "institution_id", "proxy_security_id", "sector"),
                    *("industry", "cfi_code", "figi", "option_contract", "fixed_income"),
                ]
            ),
        }
    ],
    "holdings": [
        {
            "account_id": "acc1",
            "security_id": "sec1",
            "quantity": 10.0,
            "institution_price": 100.0,
            "institution_value": 1000.0,
            "cost_basis": 900.0,
            **CURRENCY,
        }
    ],
}


def row(number: int, day: date = NOW - timedelta(days=3)) -> dict[str, Any]:
    return {
        "investment_transaction_id": f"t{number}",
        "account_id": "acc1",
        "security_id": "sec1",
        "date": day.isoformat(),
        "name": "BUY Apple",
        "quantity": 0.01,
        "price": 100.0,
        "amount": 1.0,
        "fees": 0.0,
        "type": "buy",
        "subtype": "buy",
        **CURRENCY,
        "cancel_transaction_id": None,
    }


@pytest.fixture
def plaid() -> Iterator[FakePlaid]:
    with FakePlaid("the-client", PLAID_SECRET) as server:
        server.add(PUBLIC, holdings=HELD, transactions=[row(number) for number in range(1203)])
        yield server


def settings_of(plaid: FakePlaid, **more: Any) -> dict[str, Any]:
    return {
        "plaid_client_id": plaid.client_id,
        "plaid_secret_key": plaid.secret,
        "plaid_url": plaid.url,
        "plaid_webhook_url": "https://prices.example/api/plaid/webhook",
        "secrets_key": KEY,
        **more,
    }


@pytest.fixture
async def daemon(database: Any, plaid: FakePlaid) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS, settings=settings_of(plaid)) as started:
        yield started
        await connections(started).close()


def connections(daemon: ApiDaemon) -> Connections:
    return daemon.services.connections


async def connect(daemon: ApiDaemon, token: str = PUBLIC, headers: dict[str, str] = ANN, **more: Any) -> Any:
    """Connects, and waits until it has been fetched once."""
    status, answer = await daemon.call("POST", BASE, json={"publicToken": token, **more}, headers=headers)
    assert status == 201, answer
    await fetched(daemon)
    return answer


async def fetched(daemon: ApiDaemon) -> None:
    """Returns when no run goes on."""
    while tasks := [active.task for active in daemon.services.jobs._active.values() if active.task is not None]:
        await asyncio.wait(tasks)


async def due(daemon: ApiDaemon) -> dict[str, int]:
    """What the job does that the schedule would start now."""
    ticket = await daemon.services.jobs.run(FETCH_JOB, {}, "schedule")
    await ticket.finished()
    assert ticket.run.state == "succeeded"
    return ticket.run.counts


async def one(daemon: ApiDaemon, connection: str, headers: dict[str, str] = ANN) -> Any:
    status, answer = await daemon.get(f"{BASE}/{connection}", headers=headers)
    assert status == 200, answer
    return answer


async def kept(daemon: ApiDaemon, connection: str) -> BrokerData:
    found = await daemon.parts.broker_data.load(connection)
    assert found is not None
    return found[0]


async def ask(daemon: ApiDaemon, connection: str) -> tuple[int, Any]:
    """Asks for a fetch, long enough after the one before."""
    daemon.clock.advance(SPACING_SECONDS)
    return await daemon.call("POST", f"{BASE}/{connection}/fetch", headers=ANN)


async def hook(daemon: ApiDaemon, plaid: FakePlaid, **event: Any) -> tuple[int, Any]:
    headers, body = plaid.webhook({"item_id": "item-1", **event}, daemon.clock.time())
    return await daemon.call("POST", "/api/plaid/webhook", data=body, headers=headers)


def windows(plaid: FakePlaid) -> list[str]:
    return [body["start_date"] for endpoint, body in plaid.log if endpoint == "investments/transactions/get"]


# ---- made


def test_what_the_fake_says_is_what_the_library_knows_of_plaid(plaid: FakePlaid) -> None:
    import plaid as library
    from plaid.api.plaid_api import PlaidApi
    from plaid.model.investments_holdings_get_request import InvestmentsHoldingsGetRequest
    from plaid.model.investments_transactions_get_request import InvestmentsTransactionsGetRequest
    from plaid.model.item_public_token_exchange_request import ItemPublicTokenExchangeRequest
    from plaid.model.webhook_verification_key_get_request import WebhookVerificationKeyGetRequest

    keys = {"clientId": plaid.client_id, "secret": plaid.secret}
    api = PlaidApi(library.ApiClient(library.Configuration(host=plaid.url, api_key=keys)))
    access = api.item_public_token_exchange(ItemPublicTokenExchangeRequest(public_token=PUBLIC))["access_token"]
    held = api.investments_holdings_get(InvestmentsHoldingsGetRequest(access_token=access))
    assert held["securities"][0]["ticker_symbol"] == "AAPL"
    wanted = InvestmentsTransactionsGetRequest(access_token=access, start_date=date(2026, 1, 1), end_date=NOW)
    assert api.investments_transactions_get(wanted)["total_investment_transactions"] == 1203
    key = api.webhook_verification_key_get(WebhookVerificationKeyGetRequest(key_id="key-1"))["key"]
    assert key["alg"] == "ES256"


async def test_link_is_opened_without_telling_who_the_user_is(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    status, answer = await daemon.call("POST", BASE + "/link-token", headers=ANN)
    assert status == 200
    assert answer["linkToken"].startswith("link-sandbox-")
    _, body = plaid.log[-1]
    assert "ann" not in json.dumps(body["user"])
    assert (body["client_name"], body["webhook"]) == ("pricecache", "https://prices.example/api/plaid/webhook")
    wanted = {"countryCodes": ["CA"], "language": "fr", "redirectUri": "https://app.example/back"}
    status, _ = await daemon.call("POST", BASE + "/link-token", json=wanted, headers=ANN)
    _, body = plaid.log[-1]
    assert (body["country_codes"], body["language"], body["redirect_uri"]) == (["CA"], "fr", "https://app.example/back")


async def test_a_public_token_becomes_a_connection_whose_rows_are_all_fetched(
    daemon: ApiDaemon, plaid: FakePlaid
) -> None:
    told: list[tuple[str, Connection]] = []

    async def connected(connection: Connection) -> None:
        told.append(("connected", connection))

    async def brought(connection: Connection) -> None:
        told.append(("fetched", connection))

    connections(daemon).on_connected = connected
    assert connections(daemon).fetcher is not None
    connections(daemon).fetcher.on_fetched = brought  # type: ignore[union-attr]
    portfolio = await made(daemon)
    answer = await connect(daemon, portfolioId=portfolio)
    assert (answer["provider"], answer["state"], answer["portfolioId"]) == ("plaid", "new", portfolio)
    now = await one(daemon, answer["id"])
    assert (now["state"], now["institution"], now["failure"]) == ("active", "First Broker", None)
    assert (now["firstDate"], now["fetchedAt"]) == ("2024-11-20", "2026-11-20T10:00:00Z")
    data = await kept(daemon, answer["id"])
    assert (len(data.transactions), data.day) == (1203, TODAY)
    assert data.holdings[0].quantity == Decimal(10)
    assert plaid.requests()["investments/transactions/get"] == 3
    assert [name for name, _ in told] == ["connected", "fetched"]
    assert (told[1][1].state, told[1][1].portfolio) == ("active", portfolio)


async def test_what_is_fetched_is_read_as_if_it_had_been_posted(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    example = json.loads((ROOT / "docs" / "examples" / "plaid.json").read_text())
    rows = sorted(example.pop("investment_transactions"), key=lambda row: row["date"], reverse=True)
    plaid.add("public-sandbox-example", holdings=example, transactions=rows)
    daemon.clock.set(datetime(2026, 11, 28, 12, tzinfo=UTC))
    connection = (await connect(daemon, "public-sandbox-example"))["id"]
    posted = {**example, "investment_transactions": rows}
    today = int(daemon.clock.time() // 86400)
    expected = read_plaid(posted, [posted], today=today, first_day=today - 730, institution="First Broker")
    fetched_ = await kept(daemon, connection)
    assert replace(fetched_, transactions=()) == replace(expected, transactions=())
    assert {row.id: replace(row, place=0) for row in fetched_.transactions} == {
        row.id: replace(row, place=0) for row in expected.transactions
    }


async def test_the_same_public_token_is_the_same_connection(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    answers = await asyncio.gather(
        *(daemon.call("POST", BASE, json={"publicToken": PUBLIC}, headers=ANN) for _ in range(4))
    )
    await fetched(daemon)
    assert {status for status, _ in answers} <= {200, 201}
    assert len({answer["id"] for _, answer in answers}) == 1
    asked = plaid.requests()["item/public_token/exchange"]
    status, again = await daemon.call("POST", BASE, json={"publicToken": PUBLIC}, headers=ANN)
    assert (status, again["id"]) == (200, answers[0][1]["id"])
    assert plaid.requests()["item/public_token/exchange"] == asked
    _, listed_ = await daemon.get(BASE, headers=ANN)
    assert [found["id"] for found in listed_["connections"]] == [again["id"]]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"publicToken": "public-sandbox-unknown"}, 422, "bad_public_token"),
        ({"publicToken": "short"}, 422, "invalid_value"),
        ({"publicToken": "with a space in it"}, 422, "invalid_value"),
        ({}, 422, "missing"),
        ({"publicToken": PUBLIC, "portfolioId": "none"}, 404, "unknown_portfolio"),
        ({"publicToken": PUBLIC, "portfolioId": "a", "portfolioName": "b"}, 422, "both_given"),
    ],
)
async def test_what_cannot_be_connected_is_said(
    daemon: ApiDaemon, plaid: FakePlaid, body: dict[str, Any], status: int, code: str
) -> None:
    answered, problem = await daemon.call("POST", BASE, json=body, headers=ANN)
    assert (answered, problem["code"]) == (status, code)
    assert plaid.tokens() == []
    assert (await daemon.get(BASE, headers=ANN))[1] == {"connections": []}


async def test_while_plaid_is_away_nothing_is_connected(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    plaid.fail("server_error")
    status, problem = await daemon.call("POST", BASE, json={"publicToken": PUBLIC}, headers=ANN)
    assert (status, problem["code"]) == (503, "plaid_unavailable")
    plaid.fail("INVALID_API_KEYS")
    status, problem = await daemon.call("POST", BASE, json={"publicToken": PUBLIC}, headers=ANN)
    assert (status, problem["code"]) == (502, "plaid_keys_refused")
    await connect(daemon)


async def test_anothers_connection_is_not_there_and_not_taken_over(daemon: ApiDaemon) -> None:
    connection = (await connect(daemon))["id"]
    for method, target in (
        ("GET", f"{BASE}/{connection}"),
        ("POST", f"{BASE}/{connection}/fetch"),
        ("DELETE", f"{BASE}/{connection}"),
    ):
        status, problem = await daemon.call(method, target, headers=BOB)
        assert (status, problem["code"]) == (404, "unknown_connection")
    body = {"connectionId": connection}
    status, problem = await daemon.call("POST", BASE + "/link-token", json=body, headers=BOB)
    assert (status, problem["code"]) == (404, "unknown_connection")
    status, problem = await daemon.call("POST", BASE, json={"publicToken": PUBLIC}, headers=BOB)
    assert (status, problem["code"]) == (409, "connected_by_another")
    assert (await daemon.get(BASE, headers=BOB))[1] == {"connections": []}
    assert (await one(daemon, connection))["state"] == "active"


# ---- the same accounts by two logins

SECOND = "public-sandbox-0002"


def anew(plaid: FakePlaid, **more: Any) -> Item:
    """Another login to the same accounts: Plaid calls all of it by other ids."""
    held = json.loads(json.dumps(HELD).replace("acc1", "acc9"))
    rows = [{**row(number), "investment_transaction_id": f"n{number}", "account_id": "acc9"} for number in range(1205)]
    return plaid.add(SECOND, holdings=held, transactions=rows, **more)


async def test_accounts_that_are_connected_are_not_connected_twice(
    daemon: ApiDaemon, plaid: FakePlaid, database: Any
) -> None:
    first = (await connect(daemon))["id"]
    (token,) = plaid.tokens()
    anew(plaid)
    status, problem = await daemon.call("POST", BASE, json={"publicToken": SECOND}, headers=ANN)
    assert (status, problem["code"], problem["connectionId"]) == (409, "already_connected", first)
    await fetched(daemon)
    assert plaid.tokens() == [token]
    assert await database["connections"].count_documents({}) == 1
    assert (await one(daemon, first))["state"] == "active"
    await connect(daemon, SECOND, allowDuplicate=True)
    _, listed_ = await daemon.get(BASE, headers=ANN)
    assert [found["failure"] for found in listed_["connections"]] == [None, None]


async def test_a_login_that_is_to_be_given_back_is_so_however_long_plaid_is_away(
    daemon: ApiDaemon, plaid: FakePlaid, database: Any
) -> None:
    await connect(daemon)
    anew(plaid)
    plaid.fail("server_error", "item/remove")
    assert (await daemon.call("POST", BASE, json={"publicToken": SECOND}, headers=ANN))[0] == 409
    await fetched(daemon)
    assert len(plaid.tokens()) == 2
    daemon.clock.advance(120)
    assert await due(daemon) == {"removed": 1}
    assert len(plaid.tokens()) == 1


async def test_other_accounts_and_those_of_others_are_connected(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    await connect(daemon)
    anew(plaid)
    await connect(daemon, SECOND, BOB)
    other = json.loads(json.dumps(HELD).replace('"1111"', '"2222"'))
    plaid.add("public-sandbox-0003", holdings=other)
    await connect(daemon, "public-sandbox-0003")


@pytest.mark.parametrize("code", ["ITEM_LOGIN_REQUIRED", "USER_PERMISSION_REVOKED"])
async def test_a_new_login_takes_the_place_of_one_that_is_broken_and_the_history_goes_on(
    daemon: ApiDaemon, plaid: FakePlaid, database: Any, code: str
) -> None:
    first = await plaid_history(daemon)
    portfolio = first["portfolioId"]
    (account,) = first["accounts"]
    plaid.fail(code, "investments/holdings/get")
    daemon.clock.advance(28 * 3600)
    await due(daemon)
    assert (await one(daemon, first["id"]))["action"] in ("link", "connect")
    former = plaid.tokens()
    anew(plaid)
    status, answer = await daemon.call("POST", BASE, json={"publicToken": SECOND}, headers=ANN)
    assert (status, answer["id"], answer["state"]) == (200, first["id"], "new")
    await fetched(daemon)
    now = await one(daemon, first["id"])
    assert (now["state"], now["failure"], now["portfolioId"]) == ("active", None, portfolio)
    assert now["accounts"] == [{"brokerAccountId": "acc9", "accountId": account["accountId"]}]
    assert (await due(daemon))["removed"] == 1
    assert set(plaid.tokens()).isdisjoint(former)
    assert await database["connections"].count_documents({}) == 1
    data = await kept(daemon, first["id"])
    assert (len(data.transactions), set(data.accounts), len(data.holdings)) == (1205, {"acc9"}, 1)
    await reconstructed(daemon)
    _, answer = await daemon.get(f"/api/portfolios/{portfolio}/accounts", headers=ANN)
    assert [found["id"] for found in answer["accounts"]] == [account["accountId"]]
    _, answer = await daemon.get(f"/api/portfolios/{portfolio}/holdings", headers=ANN)
    assert [found["quantity"] for found in answer["holdings"]] == [10]


async def plaid_history(daemon: ApiDaemon) -> Any:
    """A connection whose history was made."""
    connection = (await connect(daemon))["id"]
    await reconstructed(daemon)
    return await one(daemon, connection)


async def reconstructed(daemon: ApiDaemon) -> None:
    """Returns when every reconstruction that was asked for is done."""
    queue = daemon.parts.reconstructions.queue
    working = asyncio.create_task(queue.run(), name="queue")
    async with asyncio.timeout(20):
        while any(one.state != "done" for one in await queue.store.all_of("ann")):
            await asyncio.sleep(0.01)
    await cancelled([working])


async def test_a_broken_connection_that_goes_elsewhere_is_not_taken_over(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    first = (await plaid_history(daemon))["id"]
    await hook(daemon, plaid, webhook_type="ITEM", webhook_code="USER_PERMISSION_REVOKED")
    anew(plaid)
    body = {"publicToken": SECOND, "portfolioId": await made(daemon)}
    status, problem = await daemon.call("POST", BASE, json=body, headers=ANN)
    assert (status, problem["code"], problem["connectionId"]) == (409, "already_connected", first)


async def test_accounts_that_plaid_tells_of_only_later_are_told_apart_before_they_count(
    daemon: ApiDaemon, plaid: FakePlaid
) -> None:
    first = (await connect(daemon))["id"]
    anew(plaid)
    plaid.fail("server_error", "accounts/get")
    second = (await connect(daemon, SECOND))["id"]
    now = await one(daemon, second)
    assert (now["failure"]["code"], now["nextFetchAt"], now["fetchedAt"]) == ("already_connected", None, None)
    assert await daemon.parts.broker_data.load(second) is None
    assert (await one(daemon, first))["failure"] is None


@pytest.mark.parametrize("is_earlier_first", [True, False])
async def test_of_two_with_the_same_accounts_one_alone_is_refused(
    daemon: ApiDaemon, plaid: FakePlaid, is_earlier_first: bool
) -> None:
    anew(plaid)
    plaid.fail("server_error", "accounts/get")  # so the first one's accounts are known last
    plaid.fail("server_error", "investments/holdings/get", times=2)
    both = [(await connect(daemon))["id"], (await connect(daemon, SECOND))["id"]]
    for connection in both if is_earlier_first else reversed(both):
        await ask(daemon, connection)
        await fetched(daemon)
    codes = [((await one(daemon, connection))["failure"] or {"code": None})["code"] for connection in both]
    assert codes == ([None, "already_connected"] if is_earlier_first else ["already_connected", None])


# ---- fetched


async def test_later_fetches_bring_what_is_new_and_keep_what_is_old(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    item = plaid._public[PUBLIC]
    item.transactions = [row(1), row(2, NOW - timedelta(days=400))]
    connection = (await connect(daemon))["id"]
    assert await due(daemon) == {}
    item.transactions = [row(3, NOW + timedelta(days=1)), row(1)]  # Plaid does not have the old one any more
    daemon.clock.advance(28 * 3600)
    assert await due(daemon) == {"fetched": 1}
    assert windows(plaid) == ["2024-11-20", "2026-10-21"]
    data = await kept(daemon, connection)
    assert {found.id for found in data.transactions} == {"t1", "t2", "t3"}
    assert data.day == TODAY + 1
    assert (await one(daemon, connection))["firstDate"] == "2024-11-20"


async def test_rows_that_come_while_pages_are_read_are_not_missed(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    item, added = plaid._public[PUBLIC], []

    def meanwhile(item: Item) -> None:
        if len(added) < 2:
            added.append(row(5000 + len(added)))
            item.transactions.insert(0, added[-1])

    item.between = meanwhile
    connection = (await connect(daemon))["id"]
    assert len((await kept(daemon, connection)).transactions) == 1205
    assert plaid.requests()["investments/holdings/get"] == 2


async def test_rows_that_never_hold_still_are_read_another_time(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    item = plaid._public[PUBLIC]
    item.between = lambda item: item.transactions.insert(0, row(len(item.transactions) + 9000))
    connection = (await connect(daemon))["id"]
    assert (await one(daemon, connection))["failure"]["code"] == "plaid_unavailable"
    item.between = None
    daemon.clock.advance(120)
    assert await due(daemon) == {"fetched": 1}
    assert len((await kept(daemon, connection)).transactions) == len(item.transactions)


async def test_until_plaid_is_ready_it_is_asked_again_ever_more_seldom(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    plaid.fail("PRODUCT_NOT_READY", "investments/holdings/get", times=4)
    connection = (await connect(daemon))["id"]
    waits = []
    for attempt in range(1, 5):
        found = await connections(daemon).store.find(connection)
        assert found is not None
        assert found.failure is not None
        assert (found.state, found.failure.code, found.failure.attempts) == ("new", "plaid_not_ready", attempt)
        assert found.failure.at == START
        assert found.next_fetch_at is not None
        waits.append(found.next_fetch_at - daemon.clock.time())
        daemon.clock.set(found.next_fetch_at)
        await due(daemon)
    assert all(later > 1.5 * sooner for sooner, later in itertools.pairwise(waits))
    assert waits[0] < 40
    now = await one(daemon, connection)
    assert (now["state"], now["failure"]) == ("active", None)


async def test_a_login_that_is_needed_is_told_and_mended(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    plaid.fail("ITEM_LOGIN_REQUIRED", "investments/holdings/get", times=None)
    status, answer = await ask(daemon, connection)
    assert (status, answer["id"]) == (202, connection)
    await fetched(daemon)
    now = await one(daemon, connection)
    assert (now["state"], now["failure"]["code"]) == ("login_required", "login_required")
    status, _ = await daemon.call("POST", BASE + "/link-token", json={"connectionId": connection}, headers=ANN)
    assert status == 200
    assert plaid.log[-1][1]["access_token"] in plaid.tokens()
    plaid.heal()
    await ask(daemon, connection)
    await fetched(daemon)
    now = await one(daemon, connection)
    assert (now["state"], now["failure"]) == ("active", None)


async def test_what_was_fetched_a_moment_ago_is_not_fetched_for_who_asks_again(
    daemon: ApiDaemon, plaid: FakePlaid
) -> None:
    connection = (await connect(daemon))["id"]
    target = f"{BASE}/{connection}/fetch"
    daemon.clock.advance(100)
    for _ in range(3):
        status, answer = await daemon.call("POST", target, headers=ANN)
        assert (status, answer["runId"], answer["state"]) == (200, None, "active")
        assert (answer["fetchedAt"], answer["nextFetchAt"]) == ("2026-11-20T10:00:00Z", "2026-11-20T10:05:00Z")
    assert await due(daemon) == {}
    assert plaid.requests()["investments/holdings/get"] == 1
    daemon.clock.advance(200)
    assert await due(daemon) == {"fetched": 1}
    assert (await one(daemon, connection))["nextFetchAt"] > "2026-11-21"
    daemon.clock.advance(300)
    status, answer = await daemon.call("POST", target, headers=ANN)
    assert (status, answer["runId"] is None) == (202, False)
    await fetched(daemon)
    assert plaid.requests()["investments/holdings/get"] == 3


async def test_who_asks_while_it_is_fetched_joins_that(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    plaid.fail("slow", "investments/holdings/get", seconds=0.3)
    _, first = await ask(daemon, connection)
    while plaid.requests()["investments/holdings/get"] < 2:
        await asyncio.sleep(0.01)
    status, second = await daemon.call("POST", f"{BASE}/{connection}/fetch", headers=ANN)
    assert (status, second["runId"]) == (202, first["runId"])
    await fetched(daemon)
    daemon.clock.advance(60)
    assert await due(daemon) == {}
    assert plaid.requests()["investments/holdings/get"] == 2


async def test_after_link_it_is_fetched_at_once(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    daemon.clock.advance(10)
    await daemon.call("POST", BASE + "/link-token", json={"connectionId": connection}, headers=ANN)
    status, _ = await daemon.call("POST", f"{BASE}/{connection}/fetch", headers=ANN)
    assert status == 202
    await fetched(daemon)
    daemon.clock.advance(10)
    status, answer = await daemon.call("POST", f"{BASE}/{connection}/fetch", headers=ANN)
    assert (status, answer["nextFetchAt"]) == (200, "2026-11-20T10:05:10Z")


async def test_what_plaid_has_from_before_a_login_was_needed_is_kept(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    item = plaid._public[PUBLIC]
    item.error = {"error_code": "ITEM_LOGIN_REQUIRED", "error_type": "ITEM_ERROR"}
    connection = (await connect(daemon))["id"]
    now = await one(daemon, connection)
    assert (now["state"], now["fetchedAt"]) == ("login_required", "2026-11-20T10:00:00Z")
    assert len((await kept(daemon, connection)).transactions) == 1203
    item.error = None
    daemon.clock.advance(28 * 3600)
    assert await due(daemon) == {"fetched": 1}
    assert (await one(daemon, connection))["state"] == "active"


async def test_access_that_is_gone_is_not_asked_for_any_more(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    plaid._public[PUBLIC].tokens.clear()
    daemon.clock.advance(28 * 3600)
    assert await due(daemon) == {}
    now = await one(daemon, connection)
    assert (now["state"], now["nextFetchAt"], now["failure"]["code"]) == ("revoked", None, "access_revoked")
    daemon.clock.advance(28 * 3600)
    asked = len(plaid.log)
    await due(daemon)
    assert len(plaid.log) == asked
    assert len((await kept(daemon, connection)).transactions) == 1203


async def test_a_payload_with_faults_changes_nothing_and_is_told(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    item = plaid._public[PUBLIC]
    item.transactions = [{**row(1), "quantity": "much"}, *item.transactions]
    _, begun = await ask(daemon, connection)
    await fetched(daemon)
    failure = (await one(daemon, connection))["failure"]
    assert failure["attempts"] == 1
    assert "quantity" in failure["detail"]
    _, report = await daemon.get(f"/cache/runs/{begun['runId']}", headers=BOB)
    assert report["failures"][0]["connectionId"] == connection
    assert "quantity" not in str(report)  # runs are for operators to read
    assert len((await kept(daemon, connection)).transactions) == 1203


async def test_one_that_fails_does_not_hold_up_the_others(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    plaid.add("public-sandbox-0002", holdings=HELD, transactions=[row(1)])
    first = (await connect(daemon))["id"]
    second = (await connect(daemon, "public-sandbox-0002", BOB))["id"]
    plaid._public[PUBLIC].holdings = {"accounts": 5}
    daemon.clock.advance(28 * 3600)
    ticket = await daemon.services.jobs.run(FETCH_JOB, {}, "schedule")
    await ticket.finished()
    assert (ticket.run.counts, ticket.run.failures_total) == ({"fetched": 1}, 1)
    assert ticket.run.failures[0]["connection_id"] == first
    assert (await one(daemon, second, BOB))["failure"] is None


async def test_what_is_held_is_of_new_yorks_day_when_it_is_fetched_too(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    daemon.clock.set(datetime(2026, 11, 21, 2, tzinfo=UTC))  # 21:00 of the day before there
    connection = (await connect(daemon))["id"]
    data = await kept(daemon, connection)
    assert (data.day, data.first_day) == (TODAY, TODAY - 730)
    (asked,) = {body["end_date"] for endpoint, body in plaid.log if endpoint == "investments/transactions/get"}
    assert asked == "2026-11-20"


async def test_plaid_is_not_asked_sooner_than_it_says(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    plaid.fail("rate_limited", "investments/holdings/get", retry_after=7200)
    connection = (await connect(daemon))["id"]
    found = await connections(daemon).store.find(connection)
    assert found is not None
    assert found.failure is not None
    assert found.failure.code == "plaid_rate_limited"
    assert found.next_fetch_at is not None
    assert found.next_fetch_at >= START + 7200


async def test_what_is_told_to_be_due_is_fetched_though_the_clock_here_is_behind(
    daemon: ApiDaemon, plaid: FakePlaid
) -> None:
    connection = (await connect(daemon))["id"]
    found = await connections(daemon).store.find(connection)
    assert found is not None
    assert found.next_fetch_at is not None
    for early, counts in ((2.0, {}), (0.5, {"fetched": 1})):
        daemon.clock.set(found.next_fetch_at - early)
        ticket = await daemon.services.jobs.run(FETCH_JOB, {"connections": [connection], "ifDue": True}, "soon")
        await ticket.finished()
        assert ticket.run.counts == counts


async def test_what_does_not_fit_into_a_run_is_left_for_the_next(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    for number in range(AT_ONCE + 2):
        plaid.add(f"public-sandbox-more-{number}", holdings=HELD)
        await connect(daemon, f"public-sandbox-more-{number}", allowDuplicate=True)
    fetcher = connections(daemon).fetcher
    assert fetcher is not None

    async def slow(connection: Connection) -> None:
        daemon.clock.advance(ROUND_SECONDS + 1)  # before the place of any of the first ones is free

    fetcher.on_fetched = slow
    daemon.clock.advance(28 * 3600)
    assert await due(daemon) == {"fetched": AT_ONCE}
    assert await due(daemon) == {"fetched": 2}


async def test_a_fault_of_ours_in_one_is_logged_and_the_others_go_on(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    first = (await connect(daemon))["id"]
    fetcher = connections(daemon).fetcher
    assert fetcher is not None

    async def broken(connection: Connection) -> None:
        raise ZeroDivisionError

    async def fine(connection: Connection) -> None:
        pass

    fetcher.on_fetched = broken
    daemon.clock.advance(28 * 3600)
    ticket = await daemon.services.jobs.run(FETCH_JOB, {}, "schedule")
    await ticket.finished()
    assert [failure["code"] for failure in ticket.run.failures] == ["internal_error"]
    found = await connections(daemon).store.find(first)
    assert found is not None
    assert found.next_fetch_at is not None
    assert found.next_fetch_at > daemon.clock.time()  # and is not tried without end
    failure = (await one(daemon, first))["failure"]
    assert (failure["code"], failure["attempts"]) == ("internal_error", 1)
    fetcher.on_fetched = fine
    daemon.clock.advance(28 * 3600)
    assert await due(daemon) == {"fetched": 1}
    assert (await one(daemon, first))["failure"] is None


async def test_a_connection_is_fetched_by_one_daemon_at_a_time(
    daemon: ApiDaemon, database: Any, plaid: FakePlaid
) -> None:
    connection = (await connect(daemon))["id"]
    plaid.fail("slow", "investments/holdings/get", times=None, seconds=0.2)
    async with api_daemon(database, keys=KEYS, settings=settings_of(plaid), clock=daemon.clock) as other:
        before = plaid.requests()["investments/holdings/get"]
        fetchers = [connections(one).fetcher for one in (daemon, other, daemon)]
        outcomes = await asyncio.gather(*(fetcher.fetch(connection) for fetcher in fetchers if fetcher))
        assert sorted(outcomes) == ["fetched", "left", "left"]
        assert plaid.requests()["investments/holdings/get"] == before + 1
        await connections(other).close()


# ---- webhooks


@pytest.mark.parametrize("kind", ["INVESTMENTS_TRANSACTIONS", "HOLDINGS"])
async def test_news_from_plaid_is_fetched_soon_and_once(daemon: ApiDaemon, plaid: FakePlaid, kind: str) -> None:
    connection = (await connect(daemon))["id"]
    for _ in range(3):
        status, answer = await hook(daemon, plaid, webhook_type=kind, webhook_code="DEFAULT_UPDATE")
        assert (status, answer) == (200, {"status": "fetching"})
    assert await due(daemon) == {}
    daemon.clock.advance(10)
    assert await due(daemon) == {"fetched": 1}
    assert await due(daemon) == {}
    assert (await one(daemon, connection))["nextFetchAt"] > "2026-11-21"


@asynccontextmanager
async def beginning_soon(*daemons: ApiDaemon) -> AsyncIterator[None]:
    """While the tasks of these daemons go on that begin what is wanted soon."""
    fetchers = [connections(daemon).fetcher for daemon in daemons]
    tasks = [asyncio.create_task(fetcher.soon.run(), name="soon") for fetcher in fetchers if fetcher]
    yield
    await cancelled(tasks)


async def until_fetched(daemon: ApiDaemon, connection: str, at: str) -> None:
    async with asyncio.timeout(20):
        while (await one(daemon, connection))["fetchedAt"] != at:
            await asyncio.sleep(0.01)


async def test_news_is_fetched_within_seconds_without_the_schedule(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    async with beginning_soon(daemon):
        daemon.clock.advance(3600)
        for _ in range(3):
            await hook(daemon, plaid, webhook_type="HOLDINGS", webhook_code="DEFAULT_UPDATE")
        daemon.clock.advance(6)
        await until_fetched(daemon, connection, "2026-11-20T11:00:06Z")
        await fetched(daemon)
    assert plaid.requests()["investments/holdings/get"] == 2


async def test_news_that_was_fetched_before_its_turn_came_is_not_fetched_again(
    daemon: ApiDaemon, plaid: FakePlaid
) -> None:
    connection = (await connect(daemon))["id"]
    fetcher = connections(daemon).fetcher
    assert fetcher is not None
    async with beginning_soon(daemon):
        await hook(daemon, plaid, webhook_type="HOLDINGS", webhook_code="DEFAULT_UPDATE")
        assert await fetcher.fetch(connection) == "fetched"
        daemon.clock.advance(6)
        while fetcher.soon.waiting:
            await asyncio.sleep(0.01)
        await fetched(daemon)
    assert plaid.requests()["investments/holdings/get"] == 2


async def test_news_that_another_daemon_hears_of_while_it_is_fetched_is_fetched_within_seconds_after_it(
    daemon: ApiDaemon, database: Any, plaid: FakePlaid
) -> None:
    connection = (await connect(daemon))["id"]
    async with api_daemon(database, keys=KEYS, settings=settings_of(plaid), clock=daemon.clock) as other:
        fetcher, hearing = connections(daemon).fetcher, connections(other).fetcher
        assert fetcher is not None
        assert hearing is not None

        async def meanwhile(found: Connection) -> None:
            await hook(other, plaid, webhook_type="HOLDINGS", webhook_code="DEFAULT_UPDATE")
            daemon.clock.advance(6)
            while hearing.soon.waiting:
                await asyncio.sleep(0.01)
            await fetched(other)
            fetcher.on_fetched = nothing

        async def nothing(found: Connection) -> None:
            pass

        async with beginning_soon(daemon, other):
            fetcher.on_fetched = meanwhile
            assert await fetcher.fetch(connection) == "fetched"
            daemon.clock.advance(6)
            await until_fetched(daemon, connection, "2026-11-20T10:00:12Z")
            await fetched(daemon)
        await connections(other).close()
    assert plaid.requests()["investments/holdings/get"] == 3


async def test_news_that_comes_while_it_is_fetched_is_fetched_after_it(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    fetcher = connections(daemon).fetcher
    assert fetcher is not None

    async def meanwhile(found: Connection) -> None:
        await hook(daemon, plaid, webhook_type="HOLDINGS", webhook_code="DEFAULT_UPDATE")

    fetcher.on_fetched = meanwhile
    await fetcher.fetch(connection)
    daemon.clock.advance(10)
    assert await due(daemon) == {"fetched": 1}


async def test_when_all_of_the_past_is_there_all_of_it_is_fetched(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    await connect(daemon)
    await hook(daemon, plaid, webhook_type="INVESTMENTS_TRANSACTIONS", webhook_code="HISTORICAL_UPDATE")
    daemon.clock.advance(10)
    await due(daemon)
    daemon.clock.advance(28 * 3600)
    await due(daemon)
    starts = list(dict.fromkeys(windows(plaid)))
    assert starts == ["2024-11-20", "2026-10-21"]
    assert windows(plaid).count("2024-11-20") == 6


async def test_all_of_the_past_is_fetched_however_often_that_fails(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    await connect(daemon)
    await hook(daemon, plaid, webhook_type="INVESTMENTS_TRANSACTIONS", webhook_code="HISTORICAL_UPDATE")
    plaid.fail("server_error", "investments/holdings/get", times=2)
    for _ in range(3):
        daemon.clock.advance(600)
        await due(daemon)
    assert windows(plaid) == ["2024-11-20"] * 6


async def test_what_was_lost_here_is_fetched_anew(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    await daemon.parts.broker_data.delete(connection)
    daemon.clock.advance(28 * 3600)
    await due(daemon)
    assert (await kept(daemon, connection)).first_day == TODAY + 1 - 730


async def test_what_cannot_be_read_here_any_more_is_fetched_anew(
    daemon: ApiDaemon, plaid: FakePlaid, database: Any
) -> None:
    connection = (await connect(daemon))["id"]
    await kept(daemon, connection)  # so that it is in memory no longer
    await database["broker_data"].update_many({"pieces": {"$exists": True}}, {"$set": {"pieces": [b"damaged"]}})
    daemon.clock.advance(28 * 3600)
    assert await due(daemon) == {"fetched": 1}
    data = await kept(daemon, connection)
    assert (data.first_day, len(data.transactions)) == (TODAY + 1 - 730, 1203)


async def test_one_that_is_deleted_while_it_is_fetched_is_ended_soon(
    daemon: ApiDaemon, plaid: FakePlaid, database: Any
) -> None:
    connection = (await connect(daemon))["id"]
    fetcher = connections(daemon).fetcher
    assert fetcher is not None

    async def meanwhile(found: Connection) -> None:
        status, _ = await daemon.call("DELETE", f"{BASE}/{connection}", headers=ANN)
        assert status == 200
        await fetched(daemon)

    fetcher.on_fetched = meanwhile
    await fetcher.fetch(connection)
    assert len(plaid.tokens()) == 1
    daemon.clock.advance(10)
    assert await due(daemon) == {"removed": 1}
    assert plaid.tokens() == []
    assert await database["broker_data"].count_documents({}) == 0


async def test_a_webhook_says_how_the_login_stands(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    error = {"error_code": "ITEM_LOGIN_REQUIRED", "error_type": "ITEM_ERROR"}
    status, answer = await hook(daemon, plaid, webhook_type="ITEM", webhook_code="ERROR", error=error)
    assert (status, answer) == (200, {"status": "noted"})
    assert (await one(daemon, connection))["state"] == "login_required"
    _, answer = await hook(daemon, plaid, webhook_type="ITEM", webhook_code="LOGIN_REPAIRED")
    assert answer == {"status": "fetching"}
    daemon.clock.advance(10)
    assert await due(daemon) == {"fetched": 1}
    assert (await one(daemon, connection))["state"] == "active"
    await hook(daemon, plaid, webhook_type="ITEM", webhook_code="USER_PERMISSION_REVOKED")
    now = await one(daemon, connection)
    assert (now["state"], now["nextFetchAt"], now["action"]) == ("revoked", None, "connect")
    assert (await hook(daemon, plaid, webhook_type="HOLDINGS", webhook_code="DEFAULT_UPDATE"))[1] == {"status": "noted"}
    assert (await one(daemon, connection))["nextFetchAt"] is None


@pytest.mark.parametrize(
    ("event", "notice"),
    [
        (
            {"webhook_code": "PENDING_EXPIRATION", "consent_expiration_time": "2026-11-27T09:30:00Z"},
            {"code": "expires_soon", "until": "2026-11-27T09:30:00Z", "brokerAccountId": None},
        ),
        (
            {
                "webhook_code": "PENDING_DISCONNECT",
                "reason": "INSTITUTION_MIGRATION",
                "disconnect_time": "2026-11-26T00:00:00+00:00",
            },
            {"code": "expires_soon", "until": "2026-11-26T00:00:00Z", "brokerAccountId": None},
        ),
        (
            {"webhook_code": "PENDING_DISCONNECT", "reason": "INSTITUTION_TOKEN_EXPIRATION"},
            {"code": "expires_soon", "until": "2026-11-27T10:00:00Z", "brokerAccountId": None},
        ),
        (
            {"webhook_code": "NEW_ACCOUNTS_AVAILABLE", "error": None},
            {"code": "new_accounts", "until": None, "brokerAccountId": None},
        ),
        (
            {"webhook_code": "USER_ACCOUNT_REVOKED", "account_id": "acc1"},
            {"code": "account_revoked", "until": None, "brokerAccountId": "acc1"},
        ),
    ],
    ids=lambda value: value.get("webhook_code"),
)
async def test_what_a_user_has_to_do_though_it_works_is_said_until_it_is_done(
    daemon: ApiDaemon, plaid: FakePlaid, event: dict[str, Any], notice: dict[str, Any]
) -> None:
    connection = (await connect(daemon))["id"]
    assert ((await one(daemon, connection))["notices"], (await one(daemon, connection))["action"]) == ([], None)
    for _ in range(2):
        assert await hook(daemon, plaid, webhook_type="ITEM", **event) == (200, {"status": "noted"})
    now = await one(daemon, connection)
    assert now["notices"] == [{"since": "2026-11-20T10:00:00Z", **notice}]
    assert (now["state"], now["action"]) == ("active", "link")
    await ask(daemon, connection)  # nobody was in Link yet
    await fetched(daemon)
    assert len((await one(daemon, connection))["notices"]) == 1
    assert (await daemon.call("POST", BASE + "/link-token", json={"connectionId": connection}, headers=ANN))[0] == 200
    is_of_accounts = notice["code"] != "expires_soon"
    assert plaid.log[-1][1].get("update") == ({"account_selection_enabled": True} if is_of_accounts else None)
    assert len((await one(daemon, connection))["notices"]) == 1
    await ask(daemon, connection)
    await fetched(daemon)
    now = await one(daemon, connection)
    assert (now["notices"], now["action"]) == ([], None)


async def test_that_access_ends_is_told_and_taken_back_as_plaid_tells_it_with_the_holdings(
    daemon: ApiDaemon, plaid: FakePlaid
) -> None:
    item = plaid._public[PUBLIC]
    item.consent_until = "2026-11-25T00:00:00Z"
    connection = (await connect(daemon))["id"]
    (notice,) = (await one(daemon, connection))["notices"]
    assert (notice["code"], notice["until"]) == ("expires_soon", "2026-11-25T00:00:00Z")
    item.consent_until = "2027-05-25T00:00:00Z"
    daemon.clock.advance(28 * 3600)
    await due(daemon)
    assert (await one(daemon, connection))["notices"] == []


async def test_access_that_was_to_end_and_goes_on_is_no_news_any_more(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    await hook(daemon, plaid, webhook_type="ITEM", webhook_code="PENDING_DISCONNECT")
    daemon.clock.advance(6 * 86400)
    await due(daemon)
    assert len((await one(daemon, connection))["notices"]) == 1
    daemon.clock.advance(2 * 86400)
    await due(daemon)
    assert (await one(daemon, connection))["notices"] == []


async def test_a_login_that_is_repaired_leaves_nothing_to_do(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    await hook(daemon, plaid, webhook_type="ITEM", webhook_code="PENDING_DISCONNECT")
    await hook(daemon, plaid, webhook_type="ITEM", webhook_code="LOGIN_REPAIRED")
    now = await one(daemon, connection)
    assert (now["state"], now["notices"], now["action"]) == ("active", [], None)


async def test_webhooks_of_no_concern_are_ignored_and_unsigned_ones_refused(
    daemon: ApiDaemon, plaid: FakePlaid
) -> None:
    await connect(daemon)
    for event in (
        {"item_id": "item-unknown", "webhook_type": "HOLDINGS", "webhook_code": "DEFAULT_UPDATE"},
        {"webhook_type": "TRANSACTIONS", "webhook_code": "DEFAULT_UPDATE"},
        {"webhook_type": "ITEM", "webhook_code": "WEBHOOK_UPDATE_ACKNOWLEDGED"},
        {"webhook_type": "ITEM", "webhook_code": "ERROR", "error": {"error_code": "SOMETHING_NEW"}},
    ):
        assert await hook(daemon, plaid, **event) == (200, {"status": "ignored"})
    body = {"webhook_type": "HOLDINGS", "webhook_code": "DEFAULT_UPDATE", "item_id": "item-1"}
    for headers in ({}, {"Plaid-Verification": "a.b.c"}, ANN):
        status, problem = await daemon.call("POST", "/api/plaid/webhook", json=body, headers=headers)
        assert (status, problem["code"]) == (401, "webhook_not_verified")
    headers, signed = plaid.webhook({"x": "y" * (64 << 10)}, daemon.clock.time())
    status, problem = await daemon.call("POST", "/api/plaid/webhook", data=signed, headers=headers)
    assert (status, problem["code"]) == (413, "body_too_large")


# ---- ended


async def test_a_deleted_connection_is_ended_at_plaid_too(daemon: ApiDaemon, plaid: FakePlaid, database: Any) -> None:
    connection = (await connect(daemon))["id"]
    status, answer = await daemon.call("DELETE", f"{BASE}/{connection}", headers=ANN)
    assert (status, answer) == (200, {"deleted": connection, "rowsDeleted": 0})
    assert (await daemon.get(f"{BASE}/{connection}", headers=ANN))[0] == 404
    await fetched(daemon)
    assert plaid.tokens() == []
    assert await database["connections"].count_documents({}) == 0
    assert await database["broker_data"].count_documents({}) == 0
    assert (await daemon.call("DELETE", f"{BASE}/{connection}", headers=ANN))[0] == 404


async def test_it_is_ended_at_plaid_however_long_that_is_away(
    daemon: ApiDaemon, plaid: FakePlaid, database: Any
) -> None:
    connection = (await connect(daemon))["id"]
    plaid.fail("server_error", times=None)
    status, _ = await daemon.call("DELETE", f"{BASE}/{connection}", headers=ANN)
    assert status == 200
    await fetched(daemon)
    assert len(plaid.tokens()) == 1
    assert (await daemon.get(BASE, headers=ANN))[1] == {"connections": []}
    assert (await hook(daemon, plaid, webhook_type="HOLDINGS", webhook_code="DEFAULT_UPDATE"))[0] in (200, 503)
    plaid.heal()
    daemon.clock.advance(120)
    assert await due(daemon) == {"removed": 1}
    assert plaid.tokens() == []
    assert await database["connections"].count_documents({}) == 0


async def test_what_is_being_removed_is_not_connected_until_it_is_gone(
    daemon: ApiDaemon, plaid: FakePlaid, database: Any
) -> None:
    first = (await connect(daemon))["id"]
    plaid.fail("slow", "item/remove")
    assert (await daemon.call("DELETE", f"{BASE}/{first}", headers=ANN))[0] == 200
    while not plaid.requests()["item/remove"]:
        await asyncio.sleep(0.01)
    status, problem = await daemon.call("POST", BASE, json={"publicToken": PUBLIC}, headers=ANN)
    assert (status, problem["code"]) == (409, "connection_being_removed")
    await fetched(daemon)
    assert await database["connections"].count_documents({}) == 0
    second = await connect(daemon)
    assert second["id"] != first
    assert (await one(daemon, second["id"]))["state"] == "active"


@pytest.mark.parametrize("with_rows", [False, True])
async def test_its_rows_stay_unless_they_are_to_go(daemon: ApiDaemon, with_rows: bool) -> None:
    portfolio = await made(daemon)
    connection = (await connect(daemon, portfolioId=portfolio))["id"]
    rows = [
        {"date": "2026-11-02", "type": "buy", "symbol": "AAPL", "quantity": 1, "price": 1, "externalId": external}
        for external in (f"{connection}/1", f"{connection}/2", "own", f"x{connection}/3")
    ]
    target = f"/api/portfolios/{portfolio}/transactions"
    status, _ = await daemon.call("POST", target, json={"transactions": rows}, headers=ANN)
    assert status == 201
    query = f"?deleteRows={str(with_rows).lower()}"
    status, answer = await daemon.call("DELETE", f"{BASE}/{connection}{query}", headers=ANN)
    assert (status, answer["rowsDeleted"]) == (200, 2 if with_rows else 0)
    left = {found["externalId"] for found in await listed(daemon, portfolio)}
    assert left == {"own", f"x{connection}/3"} | (set() if with_rows else {f"{connection}/1", f"{connection}/2"})


async def test_rows_that_others_depend_on_keep_the_connection(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    connection = (await connect(daemon, portfolioId=portfolio))["id"]
    buy = {"date": "2026-11-02", "type": "buy", "symbol": "AAPL", "quantity": 1, "price": 1}
    rows = [{**buy, "externalId": f"{connection}/1"}, {**buy, "date": "2026-11-03", "type": "sell"}]
    target = f"/api/portfolios/{portfolio}/transactions"
    status, _ = await daemon.call("POST", target, json={"transactions": rows}, headers=ANN)
    assert status == 201
    status, _ = await daemon.call("DELETE", f"{BASE}/{connection}?deleteRows=true", headers=ANN)
    assert status == 422
    assert (await one(daemon, connection))["state"] == "active"
    assert len(await listed(daemon, portfolio)) == 2


# ---- posted


async def test_a_posted_connection_is_listed_and_deleted_and_not_fetched(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    posted = await connections(daemon).store.create_posted("ann", "My broker", None, START)
    now = await one(daemon, posted.id)
    assert (now["provider"], now["source"], now["portfolioId"]) == ("posted", "My broker", None)
    status, problem = await daemon.call("POST", f"{BASE}/{posted.id}/fetch", headers=ANN)
    assert (status, problem["code"]) == (409, "nothing_to_fetch")
    assert (await daemon.call("DELETE", f"{BASE}/{posted.id}", headers=ANN))[0] == 200
    assert (await daemon.get(BASE, headers=ANN))[1] == {"connections": []}
    assert plaid.log == []


# ---- secrets


async def test_tokens_are_encrypted_and_move_to_a_new_key(daemon: ApiDaemon, database: Any, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    before = (await database["connections"].find_one({"_id": connection}))["sealed"]
    new = base64.urlsafe_b64encode(b"2" * 32).decode()
    both = settings_of(plaid, secrets_key=f"{new},{KEY}")
    async with api_daemon(database, keys=KEYS, settings=both, clock=daemon.clock) as other:
        await ask(daemon, connection)
        await fetched(daemon)
        assert (await database["connections"].find_one({"_id": connection}))["sealed"] == before
        await ask(other, connection)
        await fetched(other)
        await connections(other).close()
    assert (await database["connections"].find_one({"_id": connection}))["sealed"] != before
    await ask(daemon, connection)  # which has the former key only
    await fetched(daemon)
    assert (await one(daemon, connection))["failure"]["code"] == "secret_unreadable"
    assert (await one(daemon, connection))["state"] == "active"


async def test_a_login_whose_key_is_lost_is_replaced_by_a_new_one(
    daemon: ApiDaemon, database: Any, plaid: FakePlaid
) -> None:
    connection = await connect(daemon)
    lost = settings_of(plaid, secrets_key=base64.urlsafe_b64encode(b"3" * 32).decode())
    async with api_daemon(database, keys=KEYS, settings=lost, clock=daemon.clock) as other:
        await ask(other, connection["id"])
        await fetched(other)
        now = await one(other, connection["id"])
        assert (now["failure"]["code"], now["action"]) == ("secret_unreadable", "connect")
        anew(plaid)
        status, again = await other.call("POST", BASE, json={"publicToken": SECOND}, headers=ANN)
        assert (status, again["id"]) == (200, connection["id"])
        await fetched(other)
        now = await one(other, connection["id"])
        assert (now["state"], now["failure"], now["action"]) == ("active", None, None)
        await connections(other).close()


async def test_no_token_is_ever_told(
    daemon: ApiDaemon,
    database: Any,
    plaid: FakePlaid,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[Any] = [await connect(daemon)]
    connection = shown[0]["id"]
    (token,) = plaid.tokens()
    for mode in ("INVALID_ACCESS_TOKEN", "INTERNAL_SERVER_ERROR", "NO_INVESTMENT_ACCOUNTS", "html", "words"):
        more = {"message": f"no access by {token}"} if mode.isupper() else {}
        plaid.fail(mode, "investments/holdings/get", **more)
        shown.append(await ask(daemon, connection))
        await fetched(daemon)
        shown.append(await one(daemon, connection))
        shown.append(await daemon.get("/cache/runs?job=broker_fetch", headers=ANN))
        shown.append([found async for found in database["runs"].find()])
    shown.append(await daemon.call("POST", BASE, json={"publicToken": "public-sandbox-nobody"}, headers=ANN))
    stored = [
        json.dumps(found, default=str)
        for name in await database.list_collection_names()
        if not name.startswith("system.")
        async for found in database[name].find()
    ]
    shown.append(repr(await connections(daemon).store.find(connection)))
    logged = capsys.readouterr().out
    assert "a connection cannot be fetched" in logged
    text = "\n".join([*map(str, shown), *stored, caplog.text, logged])
    for secret in (token, PUBLIC, PLAID_SECRET, "public-sandbox-nobody", KEY):
        assert secret not in text


async def test_without_keys_of_plaid_it_says_so(database: Any) -> None:
    async with api_daemon(database, keys=KEYS) as daemon:
        calls = (
            ("POST", BASE, {"publicToken": PUBLIC}, ANN),
            ("POST", BASE + "/link-token", {}, ANN),
            ("POST", "/api/plaid/webhook", {}, {}),
        )
        for method, target, body, headers in calls:
            status, problem = await daemon.call(method, target, json=body, headers=headers)
            assert (status, problem["code"]) == (503, "plaid_not_configured")
        assert (await daemon.get(BASE, headers=ANN)) == (200, {"connections": []})
        assert FETCH_JOB not in [job["id"] for job in daemon.services.jobs.status()["jobs"]]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"plaid_client_id": "only"}, "plaid_keys_incomplete"),
        ({"plaid_secret_key": "only"}, "plaid_keys_incomplete"),
        ({"plaid_client_id": "a", "plaid_secret_key": "b", "secrets_key": "c"}, "secrets_key_bad"),
    ],
)
async def test_settings_that_cannot_work_are_told_at_the_start(
    database: Any, settings: dict[str, Any], code: str
) -> None:
    with pytest.raises(Misconfigured) as raised:
        async with api_daemon(database, settings=settings):
            pass
    assert raised.value.code == code


async def test_without_a_key_to_encrypt_with_no_token_is_asked_for(database: Any, plaid: FakePlaid) -> None:
    shared = settings_of(plaid, secrets_key="", mongodb_uri="mongodb://127.0.0.1/")
    async with api_daemon(database, keys=KEYS, settings=shared) as daemon:
        status, problem = await daemon.call("POST", BASE, json={"publicToken": PUBLIC}, headers=ANN)
        assert (status, problem["code"]) == (503, "secrets_key_missing")
        assert "openssl" in problem["detail"]
        assert plaid.log == []
        await connections(daemon).close()


async def test_with_a_private_mongod_the_key_is_a_file_of_the_data_directory(
    database: Any, plaid: FakePlaid, tmp_path: Any
) -> None:
    private = settings_of(plaid, secrets_key="", data_dir=tmp_path)
    async with api_daemon(database, keys=KEYS, settings=private) as daemon:
        await connect(daemon)
        assert (tmp_path / "secrets.key").stat().st_mode & 0o777 == 0o600
        await connections(daemon).close()
    (tmp_path / "secrets.key").chmod(0o640)
    async with api_daemon(database, keys=KEYS, settings=private) as daemon:
        status, problem = await daemon.call("POST", BASE, json={"publicToken": "public-sandbox-2"}, headers=ANN)
        assert (status, problem["code"]) == (503, "secrets_key_bad")
        await connections(daemon).close()


async def test_a_fetch_that_is_cut_off_is_begun_again(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    connection = (await connect(daemon))["id"]
    daemon.clock.advance(28 * 3600)
    plaid.fail("slow", "investments/holdings/get", seconds=5)
    fetcher = connections(daemon).fetcher
    assert fetcher is not None
    going = asyncio.create_task(fetcher.fetch(connection))
    while plaid.requests()["investments/holdings/get"] < 2:
        await asyncio.sleep(0.01)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert await due(daemon) == {"fetched": 1}
    assert (await one(daemon, connection))["failure"] is None


async def test_what_is_connected_has_a_history_by_itself(daemon: ApiDaemon, plaid: FakePlaid) -> None:
    queue = daemon.parts.reconstructions.queue
    working = asyncio.create_task(queue.run(), name="queue")
    connection = await connect(daemon, portfolioName="Old age")
    await fetched(daemon)
    async with asyncio.timeout(20):
        while (record := await queue.store.find(connection["id"])) is None or record.state != "done":
            await asyncio.sleep(0.01)
    await queue.stop()
    await cancelled([working])
    _, answer = await daemon.get("/api/portfolios", headers=ANN)
    assert [(one["id"], one["name"]) for one in answer["portfolios"]] == [(record.portfolio, "Old age")]
    assert (await one(daemon, connection["id"]))["portfolioId"] == record.portfolio


async def test_one_whose_portfolio_was_deleted_is_not_fetched_until_it_is_to_have_another(
    daemon: ApiDaemon, plaid: FakePlaid
) -> None:
    queue = daemon.parts.reconstructions.queue
    working = asyncio.create_task(queue.run(), name="queue")

    async def ended() -> Any:
        async with asyncio.timeout(20):
            while (record := await queue.store.find(connection)) is None or record.state not in ("done", "failed"):
                await asyncio.sleep(0.01)
        return record

    connection = (await connect(daemon))["id"]
    portfolio = (await ended()).portfolio
    assert (await daemon.call("DELETE", f"/api/portfolios/{portfolio}", headers=ANN))[0] < 300
    daemon.clock.advance(28 * 3600)
    await due(daemon)
    now = await one(daemon, connection)
    assert (now["failure"]["code"], now["nextFetchAt"]) == ("portfolio_gone", None)
    record = await queue.store.find(connection)
    assert record is None or record.state not in ("waiting", "failed")  # nothing has failed of what was meant
    target = "/api/portfolio/reconstruction/request"
    status, answer = await daemon.call("POST", target, json={"connectionId": connection}, headers=ANN)
    assert status == 202, answer
    record = await ended()
    assert record.state == "done"
    assert record.portfolio != portfolio
    assert await due(daemon) == {"fetched": 1}
    now = await one(daemon, connection)
    assert (now["failure"], now["portfolioId"]) == (None, record.portfolio)
    await queue.stop()
    await cancelled([working])
