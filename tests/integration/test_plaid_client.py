"""The real plaid-python client against a fake Plaid server, in every way that Plaid says no."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Any

import pytest

from pricecache.brokers.plaid_client import LinkRequest, PlaidClient
from pricecache.errors import AccessRevoked, BrokerError, BrokerUnavailable, LoginRequired
from tests.fakes.plaid import FakePlaid

SECRET = "s3cr3t-of-plaid"
FIRST, LAST = date(2026, 1, 1), date(2026, 11, 20)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"investment_transaction_id": f"t{i}", "date": "2026-10-01", "security_id": None} for i in range(count)]


@pytest.fixture
def plaid() -> Iterator[FakePlaid]:
    with FakePlaid("the-client", SECRET) as server:
        server.add("public-sandbox-1", transactions=rows(7))
        yield server


@pytest.fixture
async def client(plaid: FakePlaid) -> AsyncIterator[PlaidClient]:
    client = PlaidClient("the-client", SECRET, plaid.url, deadline=5.0)
    yield client
    await client.close()


def test_importing_the_client_does_not_load_the_library() -> None:
    code = "import sys, pricecache.brokers.plaid_client; print({'plaid', 'urllib3'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


async def test_an_item_is_opened_read_and_removed(client: PlaidClient, plaid: FakePlaid) -> None:
    access = await client.exchange("public-sandbox-1")
    assert (access.item, [access.token]) == ("item-1", plaid.tokens())
    told = await client.holdings(access.token)
    assert (told["holdings"], told["item"]["institution_name"]) == ([], "First Broker")
    page = await client.transactions(access.token, FIRST, LAST, offset=5, count=5)
    assert [row["investment_transaction_id"] for row in page["investment_transactions"]] == ["t5", "t6"]
    assert page["total_investment_transactions"] == 7
    await client.remove(access.token)
    with pytest.raises(AccessRevoked):
        await client.holdings(access.token)


async def test_link_is_opened_for_investments_or_to_log_in_again(client: PlaidClient, plaid: FakePlaid) -> None:
    wanted = LinkRequest("u-1", "My app", countries=("US", "CA"), webhook="https://app.example/hook")
    made = await client.create_link_token(wanted)
    assert made.token.startswith("link-sandbox-")
    assert made.expiration == "2026-11-20T14:00:00Z"
    _, body = plaid.log[-1]
    assert (body["products"], body["country_codes"]) == (["investments"], ["US", "CA"])
    assert (body["user"], body["webhook"]) == ({"client_user_id": "u-1"}, "https://app.example/hook")
    access = await client.exchange("public-sandbox-1")
    await client.create_link_token(LinkRequest("u-1", "My app", access_token=access.token))
    _, body = plaid.log[-1]
    assert body["access_token"] == access.token
    assert "products" not in body


@pytest.mark.parametrize(
    ("mode", "kind", "code"),
    [
        ("PRODUCT_NOT_READY", BrokerUnavailable, "plaid_not_ready"),
        ("ITEM_LOGIN_REQUIRED", LoginRequired, "login_required"),
        ("INVALID_ACCESS_TOKEN", AccessRevoked, "access_revoked"),
        ("ITEM_NOT_FOUND", AccessRevoked, "access_revoked"),
        ("USER_PERMISSION_REVOKED", AccessRevoked, "access_revoked"),
        ("INVALID_API_KEYS", BrokerError, "plaid_keys_refused"),
        ("NO_INVESTMENT_ACCOUNTS", BrokerError, "plaid_refused"),
        ("INTERNAL_SERVER_ERROR", BrokerUnavailable, "plaid_unavailable"),
        ("INSTITUTION_DOWN", BrokerUnavailable, "plaid_unavailable"),
        ("rate_limited", BrokerUnavailable, "plaid_rate_limited"),
        ("server_error", BrokerUnavailable, "plaid_unavailable"),
        ("html", BrokerUnavailable, "plaid_unavailable"),
        ("words", BrokerUnavailable, "plaid_unavailable"),
        ("disconnect", BrokerUnavailable, "plaid_unavailable"),
        ("redirect", BrokerUnavailable, "plaid_unavailable"),
        ("list", BrokerError, "plaid_answer_bad"),
    ],
)
async def test_a_refusal_says_what_can_be_done(
    client: PlaidClient, plaid: FakePlaid, mode: str, kind: type[BrokerError], code: str
) -> None:
    access = await client.exchange("public-sandbox-1")
    plaid.fail(mode, "investments/holdings/get")
    with pytest.raises(BrokerError) as raised:
        await client.holdings(access.token)
    assert (type(raised.value), raised.value.code) == (kind, code)
    await client.holdings(access.token)  # it is the next one's turn as if nothing had been
    assert plaid.requests()["investments/holdings/get"] == 2


async def test_access_of_another_environment_is_not_taken_for_revoked(client: PlaidClient, plaid: FakePlaid) -> None:
    words = 'provided access token is for the wrong Plaid environment. expected "production", got "sandbox"'
    plaid.fail("INVALID_ACCESS_TOKEN", message=words)
    with pytest.raises(BrokerError) as raised:
        await client.holdings("access-sandbox-1")
    assert (type(raised.value), raised.value.code) == (BrokerError, "plaid_keys_refused")


async def test_an_unknown_public_token_is_told_and_not_shown(client: PlaidClient) -> None:
    with pytest.raises(BrokerError) as raised:
        await client.exchange("public-sandbox-unknown-7")
    assert raised.value.code == "bad_public_token"
    assert "unknown-7" not in str(raised.value)


async def test_an_answer_without_what_was_asked_for_is_refused(client: PlaidClient, plaid: FakePlaid) -> None:
    plaid.fail("empty", times=2)
    for asked in (client.exchange("public-sandbox-1"), client.verification_key("key-1")):
        with pytest.raises(BrokerError) as raised:
            await asked
        assert raised.value.code == "plaid_answer_bad"


async def test_plaids_own_word_on_when_to_come_again_is_kept(client: PlaidClient, plaid: FakePlaid) -> None:
    plaid.fail("rate_limited", retry_after=17)
    with pytest.raises(BrokerUnavailable) as raised:
        await client.holdings("access-sandbox-1")
    assert raised.value.retry_after == 17


async def test_a_call_that_is_not_answered_ends_by_its_deadline(plaid: FakePlaid) -> None:
    client = PlaidClient("the-client", SECRET, plaid.url, deadline=0.05)
    plaid.fail("slow", seconds=0.5)
    with pytest.raises(BrokerUnavailable) as raised:
        await client.exchange("public-sandbox-1")
    assert raised.value.code == "plaid_unavailable"
    await client.close()


async def test_many_calls_at_once_do_not_hold_up_the_loop(client: PlaidClient, plaid: FakePlaid) -> None:
    access = await client.exchange("public-sandbox-1")
    plaid.fail("slow", "investments/holdings/get", times=4, seconds=0.1)
    calls = [asyncio.create_task(client.holdings(access.token)) for _ in range(4)]
    turns = 0
    while not all(call.done() for call in calls):
        await asyncio.sleep(0.005)
        turns += 1
    assert turns > 5
    assert all("holdings" in call.result() for call in calls)


async def test_no_secret_stands_in_errors_or_logs(
    client: PlaidClient, plaid: FakePlaid, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    access = await client.exchange("public-sandbox-1")
    shown = [repr(access), repr(LinkRequest("u", "app", access_token=access.token)), repr(client)]
    modes = ("INVALID_ACCESS_TOKEN", "INTERNAL_SERVER_ERROR", "server_error", "disconnect", "words", "rate_limited")
    for mode in modes:
        plaid.fail(mode, "investments/holdings/get", **({"message": f"bad {access.token}"} if mode.isupper() else {}))
        with pytest.raises(BrokerError) as raised:
            await client.holdings(access.token)
        shown.append("".join(traceback.format_exception(raised.value)) + str(raised.value.facts))
    text = "\n".join([*shown, caplog.text])
    for secret in (access.token, SECRET, "public-sandbox-1"):
        assert secret not in text
