"""A fake Plaid: a real HTTP server on loopback that answers the real client from a table of truth, and signs webhooks.

    with FakePlaid("client", "secret") as plaid:
        item = plaid.add("public-sandbox-1", holdings={...}, transactions=[...])
        plaid.fail("PRODUCT_NOT_READY", "investments/transactions/get", times=2)
        client = PlaidClient("client", "secret", plaid.url)
        headers, body = plaid.webhook({"webhook_type": "HOLDINGS", ...}, at=clock.time())

A request without the right keys in its headers is refused as Plaid refuses it; so is a token that was never given out
or that was taken back. Every exchange of one public token opens the same item, with an access token of its own.

`fail`: for one endpoint (its path without the first slash) or for all, for the next `times` requests (None: until
`heal`). A mode in capitals is an error code of Plaid's with its type and status; others are `rate_limited` (429, with
`retry_after` if given), `server_error` (500), `html`, `words` (200, not JSON), `list` (200, no object), `empty` (200,
`{}`), `slow` (`seconds` late), `disconnect`, `redirect`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.vendor_server import VendorServer

Json = dict[str, Any]

_TYPES = {
    "PRODUCT_NOT_READY": ("ITEM_ERROR", 400),
    "ITEM_LOGIN_REQUIRED": ("ITEM_ERROR", 400),
    "INVALID_ACCESS_TOKEN": ("INVALID_INPUT", 400),
    "INVALID_PUBLIC_TOKEN": ("INVALID_INPUT", 400),
    "INVALID_API_KEYS": ("INVALID_INPUT", 400),
    "ITEM_NOT_FOUND": ("INVALID_INPUT", 400),
    "INVALID_WEBHOOK_VERIFICATION_KEY_ID": ("INVALID_INPUT", 400),
    "USER_PERMISSION_REVOKED": ("ITEM_ERROR", 400),
    "NO_INVESTMENT_ACCOUNTS": ("ITEM_ERROR", 400),
    "INTERNAL_SERVER_ERROR": ("API_ERROR", 500),
    "INSTITUTION_DOWN": ("INSTITUTION_ERROR", 400),
    "RATE_LIMIT": ("RATE_LIMIT_EXCEEDED", 429),
}


@dataclass
class Item:
    """What is true of one item. `holdings`: as `/investments/holdings/get` has it, without `item`; `transactions`:
    rows, newest first; `tokens`: the access tokens that open it. `error`: what is told to be wrong with the
    login beside what is there; `consent_until`: when access ends. `between`: called after each page that is told."""

    id: str
    institution: str
    holdings: Json
    transactions: list[Json]
    tokens: list[str] = field(default_factory=list)
    error: Json | None = None
    consent_until: str | None = None
    between: Callable[[Item], None] | None = None


@dataclass
class _Failure:
    mode: str
    endpoint: str | None
    left: int | None
    options: Json


class FakePlaid(VendorServer):
    """Use it as a context manager. Settable from any thread while it serves."""

    def __init__(self, client_id: str = "client", secret: str = "the-secret") -> None:
        super().__init__("fake-plaid")
        self.client_id = client_id
        self.secret = secret
        self.log: list[tuple[str, Json]] = []
        """Endpoint and body of every request."""
        self.keys: dict[str, tuple[ec.EllipticCurvePrivateKey, int | None]] = {}
        """By id: what webhooks are signed with, and since when it is not in use any more."""
        self.new_key("key-1")
        self._public: dict[str, Item] = {}
        self._failures: list[_Failure] = []
        self._numbers = itertools.count(1)

    def add(
        self,
        public_token: str,
        *,
        holdings: Mapping[str, Any] | None = None,
        transactions: Sequence[Json] = (),
        institution: str = "First Broker",
    ) -> Item:
        """An item that `public_token` opens."""
        none = {"accounts": [], "holdings": [], "securities": []}
        item = Item(f"item-{next(self._numbers)}", institution, {**none, **(holdings or {})}, list(transactions))
        with self._lock:
            self._public[public_token] = item
        return item

    def tokens(self) -> list[str]:
        """Every access token that was ever given out and not taken back."""
        with self._lock:
            return [token for item in self._public.values() for token in item.tokens]

    def fail(self, mode: str, endpoint: str | None = None, *, times: int | None = 1, **options: Any) -> None:
        with self._lock:
            self._failures.append(_Failure(mode, endpoint, times, options))

    def heal(self) -> None:
        with self._lock:
            self._failures.clear()

    def requests(self) -> Counter[str]:
        """How often each endpoint was asked."""
        with self._lock:
            return Counter(endpoint for endpoint, _ in self.log)

    # ---- webhooks

    def new_key(self, key_id: str, *, expired_at: int | None = None) -> None:
        self.keys[key_id] = (ec.generate_private_key(ec.SECP256R1()), expired_at)

    def webhook(self, event: Mapping[str, Any], at: float, *, key_id: str = "key-1") -> tuple[dict[str, str], bytes]:
        """Headers and body of a webhook that was signed at an instant."""
        body = json.dumps({"environment": "sandbox", **event}, indent=2).encode()
        claims = {"iat": int(at), "request_body_sha256": hashlib.sha256(body).hexdigest()}
        signed = jwt.encode(claims, self.keys[key_id][0], "ES256", headers={"kid": key_id})
        return {"Content-Type": "application/json", "Plaid-Verification": signed}, body

    # ---- the server

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        endpoint, body = request.path.removeprefix("/"), json.loads(await request.read() or b"{}")
        with self._lock:
            self.log.append((endpoint, body))
            failure = self._next_failure(endpoint)
        if failure is not None and (failed := await self._failed(failure, request)) is not None:
            return failed
        keys = request.headers.get("PLAID-CLIENT-ID"), request.headers.get("PLAID-SECRET")
        if keys != (self.client_id, self.secret):
            return refused("INVALID_API_KEYS", "invalid client_id or secret provided")
        answer = getattr(self, "_" + endpoint.replace("/", "_"), None)
        if answer is None:
            return web.json_response({"error_type": "INVALID_REQUEST", "error_code": "NOT_FOUND"}, status=404)
        with self._lock:
            return answer(body)  # type: ignore[no-any-return]

    def _next_failure(self, endpoint: str) -> _Failure | None:
        for failure in self._failures:
            if failure.endpoint in (None, endpoint) and failure.left != 0:
                if failure.left is not None:
                    failure.left -= 1
                return failure
        return None

    async def _failed(self, failure: _Failure, request: web.BaseRequest) -> web.StreamResponse | None:
        if failure.mode in _TYPES:
            return refused(failure.mode, failure.options.get("message", "it went wrong"))
        if failure.mode == "slow":
            await asyncio.sleep(failure.options.get("seconds", 1.0))
            return None
        if failure.mode == "disconnect" and request.transport is not None:
            request.transport.close()
            return web.Response()
        if failure.mode == "rate_limited":
            after = failure.options.get("retry_after")
            headers = None if after is None else {"Retry-After": str(after)}
            return refused("RATE_LIMIT", "rate limit exceeded", headers)
        return _ANSWERS[failure.mode]()

    # ---- endpoints

    def _link_token_create(self, body: Json) -> web.Response:
        if body.get("access_token") is not None and self._item_of(body["access_token"]) is None:
            return _no_access()
        token = f"link-sandbox-{next(self._numbers):08}"
        return _told({"link_token": token, "expiration": "2026-11-20T14:00:00Z"})

    def _item_public_token_exchange(self, body: Json) -> web.Response:
        item = self._public.get(body["public_token"])
        if item is None:
            return refused("INVALID_PUBLIC_TOKEN", f"could not find matching public token {body['public_token']}")
        item.tokens.append(f"access-sandbox-{next(self._numbers):08}-{item.id}")
        return _told({"access_token": item.tokens[-1], "item_id": item.id})

    def _item_remove(self, body: Json) -> web.Response:
        item = self._item_of(body["access_token"])
        if item is None:
            return _no_access()
        item.tokens.clear()
        return _told({})

    def _accounts_get(self, body: Json) -> web.Response:
        item = self._item_of(body["access_token"])
        if item is None:
            return _no_access()
        return _told({"accounts": item.holdings["accounts"], "item": _item_fields(item)})

    def _investments_holdings_get(self, body: Json) -> web.Response:
        item = self._item_of(body["access_token"])
        return _no_access() if item is None else _told({**item.holdings, "item": _item_fields(item)})

    def _investments_transactions_get(self, body: Json) -> web.Response:
        item = self._item_of(body["access_token"])
        if item is None:
            return _no_access()
        options = {"count": 100, "offset": 0, **body.get("options", {})}
        if options["count"] > 500:
            return web.json_response({"error_type": "INVALID_INPUT", "error_code": "INVALID_FIELD"}, status=400)
        rows = [row for row in item.transactions if body["start_date"] <= row["date"] <= body["end_date"]]
        page = rows[options["offset"] : options["offset"] + options["count"]]
        named = {row["security_id"] for row in page}
        answer = {
            "accounts": item.holdings["accounts"],
            "securities": [one for one in item.holdings["securities"] if one["security_id"] in named],
            "investment_transactions": page,
            "total_investment_transactions": len(rows),
            "item": _item_fields(item),
        }
        if item.between is not None:
            item.between(item)
        return _told(answer)

    def _webhook_verification_key_get(self, body: Json) -> web.Response:
        if body["key_id"] not in self.keys:
            return refused("INVALID_WEBHOOK_VERIFICATION_KEY_ID", "invalid webhook verification key ID")
        private, expired_at = self.keys[body["key_id"]]
        point = private.public_key().public_numbers()
        jwk = {
            "alg": "ES256",
            "created_at": 1_700_000_000,
            "crv": "P-256",
            "expired_at": expired_at,
            "kid": body["key_id"],
            "kty": "EC",
            "use": "sig",
            "x": _base64(point.x),
            "y": _base64(point.y),
        }
        return _told({"key": jwk})

    def _item_of(self, token: str) -> Item | None:
        return next((item for item in self._public.values() if token in item.tokens), None)


def refused(code: str, words: str, headers: Mapping[str, str] | None = None) -> web.Response:
    kind, status = _TYPES[code]
    body = {"error_type": kind, "error_code": code, "error_message": words, "display_message": None, "request_id": "r"}
    return web.json_response(body, status=status, headers=headers)


def _no_access() -> web.Response:
    return refused("INVALID_ACCESS_TOKEN", "could not find matching access token")


def _told(body: Json) -> web.Response:
    return web.json_response({**body, "request_id": "r"})


def _item_fields(item: Item) -> Json:
    return {
        "item_id": item.id,
        "institution_id": "ins_1",
        "institution_name": item.institution,
        "webhook": "",
        "error": item.error,
        "available_products": [],
        "billed_products": ["investments"],
        "consent_expiration_time": item.consent_until,
        "update_type": "background",
    }


def _base64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


_ANSWERS: Mapping[str, Callable[[], web.Response]] = {
    "server_error": lambda: web.Response(status=500, text="Internal Server Error"),
    "html": lambda: web.Response(status=503, text="<html>Sorry \xff</html>", content_type="text/html"),
    "words": lambda: web.Response(text="not JSON"),
    "list": lambda: web.json_response([]),
    "empty": lambda: web.json_response({}),
    "redirect": lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/elsewhere"}),
}
