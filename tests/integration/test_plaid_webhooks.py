"""Webhooks: Plaid's are believed, and nobody else's, nor old ones, nor changed ones."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pricecache.brokers.plaid_client import PlaidClient
from pricecache.brokers.plaid_webhooks import Webhook, WebhookVerifier
from pricecache.errors import BrokerUnavailable, Unauthorized
from tests.clock import START, ManualClock
from tests.fakes.plaid import FakePlaid

EVENT = {"webhook_type": "HOLDINGS", "webhook_code": "DEFAULT_UPDATE", "item_id": "item-1", "error": None}


@pytest.fixture
def plaid() -> Iterator[FakePlaid]:
    with FakePlaid() as server:
        yield server


@pytest.fixture
async def client(plaid: FakePlaid) -> AsyncIterator[PlaidClient]:
    client = PlaidClient(plaid.client_id, plaid.secret, plaid.url)
    yield client
    await client.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def verifier(client: PlaidClient, clock: ManualClock) -> WebhookVerifier:
    async def is_ours(item: str) -> bool:
        return item == "item-1"

    return WebhookVerifier(client.verification_key, is_ours, clock)


async def refused(verifier: WebhookVerifier, signed: str | None, body: bytes) -> None:
    with pytest.raises(Unauthorized) as raised:
        await verifier.verified(signed, body)
    assert raised.value.code == "webhook_not_verified"


async def test_a_header_that_is_no_text_is_refused(verifier: WebhookVerifier, plaid: FakePlaid) -> None:
    for header in ("\udce9", "é", "a.é.c", "\x00"):
        await refused(verifier, header, b"{}")


async def test_what_plaid_signed_is_read_and_its_key_is_asked_for_once(
    verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock
) -> None:
    for _ in range(3):
        headers, body = plaid.webhook(EVENT, clock.time())
        told = await verifier.verified(headers["Plaid-Verification"], body)
        assert told == Webhook("HOLDINGS", "DEFAULT_UPDATE", "item-1")
    assert plaid.requests()["webhook_verification_key/get"] == 1
    error = {"error_code": "ITEM_LOGIN_REQUIRED", "error_type": "ITEM_ERROR"}
    headers, body = plaid.webhook({**EVENT, "error": error}, clock.time())
    told = await verifier.verified(headers["Plaid-Verification"], body)
    assert told.error == ("ITEM_LOGIN_REQUIRED", "ITEM_ERROR")


async def test_a_changed_body_is_refused(verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock) -> None:
    headers, body = plaid.webhook(EVENT, clock.time())
    await refused(verifier, headers["Plaid-Verification"], body.replace(b"item-1", b"item-2"))
    await refused(verifier, headers["Plaid-Verification"], body + b" ")


@pytest.mark.parametrize(("after", "is_taken"), [(-61, False), (-60, True), (300, True), (301, False)])
async def test_one_is_believed_for_five_minutes(
    verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock, after: float, is_taken: bool
) -> None:
    headers, body = plaid.webhook(EVENT, START - after)
    if is_taken:
        await verifier.verified(headers["Plaid-Verification"], body)
    else:
        await refused(verifier, headers["Plaid-Verification"], body)


@pytest.mark.parametrize("signed", [None, "", "x", "a.b.c", "." * 3, "e30.e30.", "ü.ü.ü"])
async def test_what_is_no_token_is_refused_and_plaid_is_not_asked(
    verifier: WebhookVerifier, plaid: FakePlaid, signed: str | None
) -> None:
    await refused(verifier, signed, b"{}")
    assert plaid.log == []


async def test_no_other_algorithm_is_taken(verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock) -> None:
    body = b"{}"
    claims = {"iat": int(clock.time()), "request_body_sha256": hashlib.sha256(body).hexdigest()}
    kid: dict[str, Any] = {"kid": "key-1"}
    await refused(verifier, jwt.encode(claims, "s" * 32, "HS256", headers=kid), body)
    await refused(verifier, jwt.encode(claims, "", "none", headers=kid), body)
    other = ec.generate_private_key(ec.SECP256R1())
    await refused(verifier, jwt.encode(claims, other, "ES256", headers=kid), body)
    for bad in ({"iat": "now"}, {"iat": True}, {"request_body_sha256": 5}, {"iat": None}):
        signed = jwt.encode({**claims, **bad}, plaid.keys["key-1"][0], "ES256", headers=kid)
        await refused(verifier, signed, body)


async def test_an_expired_key_signs_nothing_any_more(
    verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock
) -> None:
    plaid.new_key("key-2", expired_at=int(START) + 1800)
    headers, body = plaid.webhook(EVENT, clock.time(), key_id="key-2")
    await verifier.verified(headers["Plaid-Verification"], body)
    clock.advance(1801)
    headers, body = plaid.webhook(EVENT, clock.time(), key_id="key-2")
    await refused(verifier, headers["Plaid-Verification"], body)


async def test_a_key_that_is_taken_out_of_use_is_noticed_within_an_hour(
    verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock
) -> None:
    headers, body = plaid.webhook(EVENT, clock.time())
    await verifier.verified(headers["Plaid-Verification"], body)
    plaid.keys["key-1"] = (plaid.keys["key-1"][0], int(clock.time()) + 10)
    clock.advance(3600)
    headers, body = plaid.webhook(EVENT, clock.time())
    await refused(verifier, headers["Plaid-Verification"], body)


async def test_strangers_cannot_make_us_ask_plaid_without_end(
    verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock
) -> None:
    headers, body = plaid.webhook(EVENT, clock.time())
    await verifier.verified(headers["Plaid-Verification"], body)
    private = ec.generate_private_key(ec.SECP256R1())
    signed = [jwt.encode({"iat": 1}, private, "ES256", headers={"kid": f"stranger-{i}"}) for i in range(30)]
    for one in signed[:9]:
        await refused(verifier, one, body)
    with pytest.raises(BrokerUnavailable):
        await verifier.verified(signed[9], body)
    assert plaid.requests()["webhook_verification_key/get"] == 10
    await verifier.verified(headers["Plaid-Verification"], body)  # a known one is not held up
    clock.advance(61)
    await refused(verifier, signed[10], body)


async def test_strangers_keep_nothing_out_that_plaid_says_of_ours(
    verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    for number in range(30):
        signed = jwt.encode({"iat": 1}, private, "ES256", headers={"kid": f"stranger-{number}"})
        with pytest.raises((Unauthorized, BrokerUnavailable)):
            await verifier.verified(signed, b'{"item_id": "guessed"}')
    assert plaid.requests()["webhook_verification_key/get"] == 10
    headers, body = plaid.webhook(EVENT, clock.time())
    assert (await verifier.verified(headers["Plaid-Verification"], body)).item == "item-1"


async def test_while_plaid_does_not_tell_its_keys_it_is_told_to_come_again(
    verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock
) -> None:
    plaid.fail("server_error")
    headers, body = plaid.webhook(EVENT, clock.time())
    with pytest.raises(BrokerUnavailable):
        await verifier.verified(headers["Plaid-Verification"], body)
    await verifier.verified(headers["Plaid-Verification"], body)


@pytest.mark.parametrize("event", [{}, {"webhook_type": 1, "item_id": None}, {"error": "x"}])
async def test_a_signed_body_of_any_form_is_read(
    verifier: WebhookVerifier, plaid: FakePlaid, clock: ManualClock, event: dict[str, Any]
) -> None:
    headers, body = plaid.webhook(event, clock.time())
    assert await verifier.verified(headers["Plaid-Verification"], body) == Webhook("", "", "")
