"""Whether a webhook is Plaid's own word: its signature, its age, and the hash of its body."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import importlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from pricecache.clock import Clock
from pricecache.errors import BrokerError, BrokerUnavailable, Unauthorized

OLDEST_SECONDS = 300.0
"""Plaid's rule: an older one is not to be believed."""
_AHEAD_SECONDS = 60.0
_KEY_LIVES_SECONDS = 3600.0
_MOST_KEYS = 64
_LONGEST_KEY_ID = 128
_UNKNOWN_A_MINUTE = 10


@dataclass(frozen=True, slots=True)
class Webhook:
    """What Plaid tells. `kind` and `code` as `INVESTMENTS_TRANSACTIONS` and `DEFAULT_UPDATE`; `error`: the code of
    what went wrong with the item, and its type; `until`: when access ends, seconds since 1970 UTC; `account`: the one
    it is about, by Plaid's id."""

    kind: str
    code: str
    item: str
    error: tuple[str, str] | None = None
    until: float | None = None
    account: str = ""


@dataclass(frozen=True, slots=True)
class _Key:
    public: Any
    expired_at: float | None
    known_until: float


class WebhookVerifier:
    """Believes what Plaid signed. Loop-only.

    Plaid signs with ES256 a JWT whose `request_body_sha256` is the hash of the very bytes that were sent, and names
    the key, which `fetch_key` asks Plaid for: once an hour each, and ten unknown ones a minute at most, as anybody may
    send us any name (plaid.com/docs/api/webhooks/webhook-verification). Those that come with an item that `is_ours`
    are counted apart: strangers do not know the name of one, and so keep nothing of Plaid's out.
    """

    def __init__(
        self,
        fetch_key: Callable[[str], Awaitable[dict[str, Any]]],
        is_ours: Callable[[str], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        self._fetch_key = fetch_key
        self._is_ours = is_ours
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        self._asked: dict[bool, deque[float]] = {ours: deque(maxlen=_UNKNOWN_A_MINUTE) for ours in (True, False)}
        self._jwt: Any = None

    async def verified(self, signed: str | None, body: bytes) -> Webhook:
        """What the webhook says. `signed`: its header `Plaid-Verification`.

        Raises `Unauthorized` with code `webhook_not_verified`, `BrokerUnavailable` while Plaid does not tell its keys.
        """
        jwt = await self._library()
        claims: dict[str, Any] = {}
        try:
            header = jwt.get_unverified_header(signed or "")
            # said by the sender, so it chooses nothing: no other algorithm is taken
            if header.get("alg") == "ES256":
                key = await self._key(header.get("kid"), body)
                options: Any = {"verify_iat": False, "verify_exp": False, "verify_nbf": False, "verify_aud": False}
                claims = jwt.decode(signed or "", key, algorithms=["ES256"], options=options)
        except (jwt.PyJWTError, ValueError):  # of a header that is no text at all
            pass
        if not self._is_fresh(claims.get("iat")) or not _is_hash_of(claims.get("request_body_sha256"), body):
            raise _not_verified()
        return _read(body)

    async def _library(self) -> Any:
        if self._jwt is None:  # an import of some 50 ms
            self._jwt = await asyncio.to_thread(importlib.import_module, "jwt")
        return self._jwt

    def _is_fresh(self, issued_at: Any) -> bool:
        if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
            return False
        return -_AHEAD_SECONDS <= self._clock.time() - issued_at <= OLDEST_SECONDS

    async def _key(self, key_id: Any, body: bytes) -> Any:
        if not isinstance(key_id, str) or not 0 < len(key_id) <= _LONGEST_KEY_ID:
            raise _not_verified()
        now = self._clock.time()
        key = self._keys.get(key_id)
        if key is None or now >= key.known_until:
            key = await self._fetched(key_id, body, now)
        if key.expired_at is not None and now >= key.expired_at:
            raise _not_verified()
        return key.public

    async def _fetched(self, key_id: str, body: bytes, now: float) -> _Key:
        if key_id not in self._keys:
            item = _read(body).item
            asked = self._asked[bool(item) and await self._is_ours(item)]
            if len(asked) == _UNKNOWN_A_MINUTE and now - asked[0] < 60.0:
                raise BrokerUnavailable("Too many unknown keys.", code="plaid_unavailable", retry_after=60.0)
            asked.append(now)
        try:
            told = await self._fetch_key(key_id)
        except BrokerUnavailable:
            raise
        except BrokerError:
            self._keys.pop(key_id, None)
            raise _not_verified() from None
        if len(self._keys) >= _MOST_KEYS:
            self._keys.clear()
        self._keys[key_id] = key = _Key(
            self._jwt.PyJWK({**told, "alg": "ES256"}).key, _seconds(told.get("expired_at")), now + _KEY_LIVES_SECONDS
        )
        return key


def instant_in(value: Any) -> float | None:
    """An instant as Plaid writes it, seconds since 1970 UTC; None where it is none."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _seconds(instant: Any) -> float | None:
    return float(instant) if isinstance(instant, int | float) else None


def _is_hash_of(told: Any, body: bytes) -> bool:
    expected = hashlib.sha256(body).hexdigest().encode()
    return isinstance(told, str) and hmac.compare_digest(told.encode("utf-8", "replace"), expected)


def _read(body: bytes) -> Webhook:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        return Webhook("", "", "")
    error = told.get("error")
    found = (str(error.get("error_code")), str(error.get("error_type"))) if isinstance(error, dict) else None
    until = instant_in(told.get("consent_expiration_time")) or instant_in(told.get("disconnect_time"))
    kind, code, item = _word(told, "webhook_type"), _word(told, "webhook_code"), _word(told, "item_id")
    return Webhook(kind, code, item, found, until, _word(told, "account_id"))


def _word(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    return value[:128] if isinstance(value, str) else ""


def _not_verified() -> Unauthorized:
    return Unauthorized("This is not signed by Plaid, or not now.", code="webhook_not_verified")
