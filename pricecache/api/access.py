"""Keys and page sessions: made, listed, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from pricecache.api.call import Answer, Call
from pricecache.api.wire import instant
from pricecache.stores.keys import widest

if TYPE_CHECKING:
    from pricecache.stores.keys import StoredKey

log = structlog.get_logger(__name__)


async def keys(call: Call) -> Answer:
    return Answer({"keys": [_key_fields(key) for key in await call.services.keys.load_keys()]})


async def create_key(call: Call) -> Answer:
    key, secret = await call.services.keys.create_key(call.body.name, call.body.scopes, call.body.user)
    await call.services.identity.reload()
    log.info("api key made", key=key.name, id=key.id, scopes=sorted(key.scopes), by=call.principal.name)
    return Answer({**_key_fields(key), "secret": secret}, 201)


async def revoke_key(call: Call) -> Answer:
    key = await call.services.keys.revoke_key(call.path["id"])
    await call.services.identity.reload()
    call.services.streams.check_soon()
    log.info("api key revoked", key=key.name, id=key.id, by=call.principal.name)
    return Answer(_key_fields(key))


async def open_session(call: Call) -> Answer:
    cookie = await call.services.identity.open_session(call.principal, call.headers)
    return Answer({"user": call.principal.user}, 200, {"Set-Cookie": cookie})


async def end_session(call: Call) -> Answer:
    cookie = await call.services.identity.end_session(call.headers)
    call.services.streams.check_soon()
    return Answer({"user": None}, 200, {"Set-Cookie": cookie})


def _key_fields(key: StoredKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": widest(key.scopes),
        "user": key.user,
        "createdAt": instant(key.created_at),
    }
