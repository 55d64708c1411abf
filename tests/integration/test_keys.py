"""API keys and page sessions: given out once, stored as digests."""

from __future__ import annotations

import re

import pytest

from pricecache.errors import Invalid, NotFound
from pricecache.stores.client import Database
from pricecache.stores.keys import KeyStore, digest_of, implied, widest


@pytest.mark.parametrize(
    ("granted", "may"),
    [
        (["read"], {"read"}),
        (["ops"], {"read", "ops"}),
        (["admin"], {"read", "ops", "admin"}),
        (["read", "admin"], {"read", "ops", "admin"}),
    ],
)
def test_a_scope_includes_the_lesser_ones(granted: list[str], may: set[str]) -> None:
    assert implied(granted) == may


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "write"], [""]])
def test_other_scopes_are_refused(scopes: list[str]) -> None:
    with pytest.raises(Invalid) as refusal:
        implied(scopes)
    assert refusal.value.code == "invalid_scope"


def test_scopes_are_shown_by_the_widest() -> None:
    assert widest({"read", "ops", "admin"}) == ["admin"]
    assert widest({"read", "ops"}) == ["ops"]
    assert widest({"read"}) == ["read"]


def test_what_a_header_may_hold_has_a_digest() -> None:
    assert len({digest_of(text) for text in ("é", b"\xe9".decode("utf-8", "surrogateescape"), "\ud800")}) == 3


async def test_a_key_is_found_by_the_digest_of_its_secret(database: Database) -> None:
    keys = KeyStore(database)
    key, secret = await keys.create_key("grafana", ["ops"], user="u1")
    assert re.fullmatch(r"pc_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", secret)
    assert secret.split("_")[1] == key.id
    assert key.digest == digest_of(secret)
    assert key.scopes == {"read", "ops"}
    assert await keys.load_keys() == [key]


async def test_no_secret_and_no_token_is_stored(database: Database) -> None:
    keys = KeyStore(database)
    _, secret = await keys.create_key("one", ["read"])
    token = await keys.create_session("u1", 1)
    stored = await database["api_keys"].find().to_list() + await database["page_sessions"].find().to_list()
    assert len(stored) == 2
    assert secret.split("_", 2)[2] not in str(stored)
    assert token not in str(stored)


async def test_a_revoked_key_is_valid_no_more(database: Database) -> None:
    keys = KeyStore(database)
    kept, _ = await keys.create_key("kept", ["read"])
    gone, _ = await keys.create_key("gone", ["read"])
    revoked = await keys.revoke_key(gone.id)
    assert revoked.revoked_at is not None
    assert await keys.revoke_key(gone.id) == revoked
    assert await keys.load_keys() == [kept]
    assert await keys.load_keys(with_revoked=True) == [kept, revoked]


async def test_an_unknown_key_cannot_be_revoked(database: Database) -> None:
    with pytest.raises(NotFound) as missing:
        await KeyStore(database).revoke_key("nonsense")
    assert missing.value.code == "unknown_key"


@pytest.mark.parametrize("name", ["", " x", "a\nb", "x" * 65, "\ud800", "nul\0"])
async def test_names_that_cannot_be_shown_are_refused(database: Database, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await KeyStore(database).create_key(name, ["read"])
    assert refusal.value.code == "invalid_name"
    assert await KeyStore(database).load_keys() == []


async def test_a_session_has_a_user_until_it_is_ended(database: Database) -> None:
    keys = KeyStore(database)
    token = await keys.create_session("$user", 12)
    assert await keys.get_session(digest_of(token)) == "$user"
    assert await keys.get_session(digest_of(token + "x")) is None
    await keys.end_session(digest_of(token))
    await keys.end_session(digest_of(token))
    assert await keys.get_session(digest_of(token)) is None


async def test_a_session_that_has_run_out_is_unknown_before_it_is_removed(database: Database) -> None:
    keys = KeyStore(database)
    token = await keys.create_session("u1", 0)
    assert await database["page_sessions"].count_documents({}) == 1
    assert await keys.get_session(digest_of(token)) is None


async def test_sessions_expire_by_a_date(database: Database) -> None:
    await KeyStore(database).create_session("u1", 1)
    assert await database["page_sessions"].count_documents({"expiresAt": {"$type": "date"}}) == 1
    assert (await database["page_sessions"].index_information())["expiresAt_1"]["expireAfterSeconds"] == 0
