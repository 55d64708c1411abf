"""Who may do what: the whole table against every kind of caller, tokens, sessions, origins, and what is refused."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pricecache.api.auth import check_exposure
from pricecache.api.routes import ROUTES
from pricecache.errors import Misconfigured
from tests.integration.api_daemon import ApiDaemon, api_daemon

SECRET = "a secret of at least thirty-two bytes"
KEYS = ("reader:read:read-key", "operator:ops:ops-key", "root:admin:admin-key")
ORIGIN = "https://pages.example"


def key(name: str, **more: str) -> dict[str, str]:
    return {"X-API-Key": f"{name}-key", **more}


def token(
    daemon: ApiDaemon, user: str = "alice", *, secret: Any = SECRET, algorithm: str = "HS256", **claims: Any
) -> str:
    headers = {"kid": claims.pop("kid")} if "kid" in claims else None
    facts = {"sub": user, "exp": daemon.clock.time() + 600, **claims}
    return jwt.encode({k: v for k, v in facts.items() if v is not None}, secret, algorithm, headers=headers)


def bearer(daemon: ApiDaemon, user: str = "alice", **options: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(daemon, user, **options)}"}


@pytest.fixture
async def guarded(database: Any) -> AsyncIterator[ApiDaemon]:
    """A daemon with three keys, tokens by secret, and one allowed origin."""
    async with api_daemon(database, keys=KEYS, jwt_secret=SECRET, origins=[ORIGIN]) as daemon:
        yield daemon


@pytest.fixture
async def open_daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    """A daemon without keys or tokens, on loopback."""
    async with api_daemon(database) as daemon:
        yield daemon


# For each caller the scopes that let it in. Every route is tried by every one of them.
CALLERS = {
    "nobody": set(),
    "wrong key": set(),
    "reader": {"read"},
    "operator": {"read", "ops"},
    "admin": {"read", "ops", "admin"},
    "operator for a user": {"read", "ops", "user"},
    "user": {"read", "user"},
}

# What each route is open to. A new route must be entered here.
EXPECTED = {
    "GET /cache/status": "read",
    "GET /cache/historical/{symbol}": "read",
    "GET /cache/live": "read",
    "GET /cache/live/{symbol}": "read",
    "GET /cache/coverage": "read",
    "GET /cache/coverage/{symbol}": "read",
    "GET /cache/actions/{symbol}": "read",
    "GET /cache/corrections/{symbol}": "read",
    "GET /cache/quarantine": "read",
    "GET /cache/providers": "read",
    "GET /cache/symbols": "read",
    "GET /cache/symbols/search": "read",
    "GET /cache/symbols/{symbol}": "read",
    "PATCH /cache/symbols/{symbol}": "ops",
    "POST /cache/symbols/{symbol}/rename": "ops",
    "POST /cache/quarantine/{id}/approve": "ops",
    "POST /cache/quarantine/{id}/drop": "ops",
    "POST /cache/providers/{name}/reset": "ops",
    "POST /cache/symbols": "ops",
    "DELETE /cache/symbols": "ops",
    "DELETE /cache/symbols/{symbol}": "ops",
    "PUT /cache/historical/{symbol}": "ops",
    "DELETE /cache/historical/{symbol}": "ops",
    "PUT /cache/actions/{symbol}": "ops",
    "DELETE /cache/actions/{symbol}": "ops",
    "POST /cache/refresh-live": "ops",
    "POST /cache/sync-historical": "ops",
    "POST /cache/backfill-symbol": "ops",
    "GET /cache/scheduler/status": "read",
    "GET /cache/runs": "read",
    "GET /cache/runs/{id}": "read",
    "POST /api/admin/verify": "admin",
    "GET /api/admin/keys": "admin",
    "POST /api/admin/history/materialize": "ops",
    "GET /api/admin/history/stats": "ops",
    "POST /api/admin/history/invalidate": "ops",
    "POST /api/admin/keys": "admin",
    "DELETE /api/admin/keys/{id}": "admin",
    "POST /api/session": "user",
    "DELETE /api/session": "user",
    "GET /health": None,
    "GET /healthz": None,
    "GET /readyz": None,
    "GET /metrics": "read",
    "GET /openapi.json": None,
    "GET /docs": None,
    "GET /docs/{name}": None,
    "GET /static/stream.js": None,
    "GET /": None,
    "POST /api/portfolio/daily-snapshots/capture": "ops",
    "GET /api/portfolio/daily-snapshots": "user",
    "POST /api/portfolios": "user",
    "GET /api/portfolios": "user",
    "GET /api/portfolios/{id}": "user",
    "PATCH /api/portfolios/{id}": "user",
    "DELETE /api/portfolios/{id}": "user",
    "POST /api/portfolios/{id}/accounts": "user",
    "GET /api/portfolios/{id}/accounts": "user",
    "PATCH /api/portfolios/{id}/accounts/{accountId}": "user",
    "DELETE /api/portfolios/{id}/accounts/{accountId}": "user",
    "POST /api/portfolios/{id}/transactions": "user",
    "GET /api/portfolios/{id}/transactions": "user",
    "POST /api/portfolios/{id}/transactions/import": "user",
    "GET /api/portfolios/{id}/transactions/export": "user",
    "GET /api/portfolios/{id}/transactions/{transactionId}": "user",
    "PUT /api/portfolios/{id}/transactions/{transactionId}": "user",
    "DELETE /api/portfolios/{id}/transactions/{transactionId}": "user",
    "GET /api/portfolios/{id}/holdings": "user",
    "GET /api/portfolio/history": "user",
    "GET /api/portfolio/history-data/{period}": "user",
    "GET /api/portfolio/performance": "user",
    "GET /api/portfolio/summary": "user",
    "GET /api/portfolio/account-breakdown": "user",
    "POST /api/portfolios/{id}/refresh": "user",
    "POST /api/portfolio/live-tracking/start": "user",
    "DELETE /api/portfolio/live-tracking/stop": "user",
    "GET /api/portfolio/live-tracking/status": "user",
    "GET /api/admin/queue-stats": "ops",
    "PUT /api/portfolios/{id}/orders/{orderId}": "user",
    "GET /api/portfolios/{id}/orders": "user",
    "GET /api/portfolios/{id}/orders/{orderId}": "user",
    "GET /api/portfolios/{id}/events": "user",
    "GET /ws/portfolio": "user",
    "GET /api/stream": "user",
    "POST /api/stream/ticket": "user",
    "GET /api/admin/websocket-stats": "ops",
    "POST /api/portfolio/connections/link-token": "user",
    "POST /api/portfolio/connections": "user",
    "GET /api/portfolio/connections": "user",
    "GET /api/portfolio/connections/{id}": "user",
    "POST /api/portfolio/connections/{id}/fetch": "user",
    "DELETE /api/portfolio/connections/{id}": "user",
    "POST /api/plaid/webhook": None,
    "POST /api/portfolio/reconstruction/request": "user",
    "GET /api/portfolio/reconstruction/status": "user",
    "GET /api/portfolio/reconstruction/metrics": "ops",
    "GET /api/portfolio/mappings": "user",
    "PUT /api/portfolio/mappings/{id}": "user",
    "DELETE /api/portfolio/mappings/{id}": "user",
    "GET /api/admin/mappings": "ops",
    "PUT /api/admin/mappings/{id}": "ops",
    "DELETE /api/admin/mappings/{id}": "ops",
}


def headers_of(daemon: ApiDaemon, caller: str) -> dict[str, str]:
    return {
        "nobody": {},
        "wrong key": key("wrong"),
        "reader": key("read"),
        "operator": key("ops"),
        "admin": key("admin"),
        "operator for a user": key("ops", **{"X-User-Id": "bob"}),
        "user": bearer(daemon),
    }[caller]


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_route_lets_in_whom_it_should(guarded: ApiDaemon, caller: str) -> None:
    """Inputs are left out, so that whoever is let in is told of them, and nothing is done."""
    assert EXPECTED.keys() == {f"{route.method} {route.path}" for route in ROUTES}
    faults = []
    for route in ROUTES:
        scope = EXPECTED[f"{route.method} {route.path}"]
        path = route.path.replace("{symbol}", "NOPE").replace("{id}", "nope").replace("{name}", "docs.js")
        path = path.replace("{accountId}", "nope").replace("{transactionId}", "nope").replace("{period}", "1Y")
        guarded.services.identity.attempts = type(guarded.services.identity.attempts)()
        status, answer = await guarded.call(
            route.method,
            path + "?nothing=1" * (route.method == "POST" or route.takes_ticket),
            headers=headers_of(guarded, caller),
        )
        if scope is None or scope in CALLERS[caller]:
            if status in (401, 403):
                faults.append(f"{route.method} {route.path}: {status} {answer['code']}")
        elif status != (403 if CALLERS[caller] else 401):
            faults.append(f"{route.method} {route.path}: {status}, and scope {scope} is needed")
    assert not faults, "\n".join(faults)


async def test_who_is_unknown_is_told_how_to_become_known(guarded: ApiDaemon) -> None:
    async with guarded.session.get(guarded.base + "/cache/status") as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="pricecache", ApiKey realm="pricecache"'
        assert (await response.json())["code"] == "unauthorized"


async def test_a_kept_answer_asks_who_it_is_for_every_time(guarded: ApiDaemon) -> None:
    await guarded.stored()
    for _ in range(2):
        assert (await guarded.get("/cache/historical/AAPL", headers=key("read")))[0] == 200
        assert (await guarded.get("/cache/historical/AAPL"))[0] == 401
        assert (await guarded.get("/cache/historical/AAPL", headers=key("wrong")))[0] == 401
        assert (await guarded.get("/cache/historical/AAPL", headers=bearer(guarded)))[0] == 200
        assert (await guarded.get("/cache/historical/AAPL", headers=key("read", **{"X-User-Id": "bob"})))[0] == 403


@pytest.mark.parametrize(
    "bad", ["", "read-ke", "read-key ", "READ-KEY", "read-key\xff", "k" * 8000, "secret' or '1'='1"]
)
async def test_a_key_is_right_or_wrong(guarded: ApiDaemon, bad: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.door.port)
    writer.write(b"GET /cache/status HTTP/1.1\r\nHost: localhost\r\nX-API-Key:" + bad.encode("latin-1") + b"\r\n\r\n")
    line = await reader.readline()
    writer.close()
    # a space at the end is no part of a header's value
    assert line.split()[1] == (b"200" if bad.strip() == "read-key" else b"401")


async def test_a_key_in_the_query_is_not_taken(guarded: ApiDaemon) -> None:
    assert (await guarded.get("/cache/status?X-API-Key=read-key"))[0] == 401
    assert (await guarded.get("/cache/status?api_key=read-key", headers=key("read")))[0] == 422


async def test_who_tries_keys_is_stopped_and_who_has_one_is_not(guarded: ApiDaemon) -> None:
    await guarded.stored()
    assert (await guarded.get("/cache/historical/AAPL", headers=key("read")))[0] == 200
    for _ in range(10):
        assert (await guarded.get("/cache/status", headers=key("wrong")))[0] == 401
    for target in ("/cache/status", "/cache/historical/AAPL"):
        async with guarded.session.get(guarded.base + target, headers=key("wrong")) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "60"
            assert (await response.json())["code"] == "too_many_attempts"
        assert (await guarded.get(target, headers=key("read")))[0] == 200
    guarded.clock.advance(61)
    assert (await guarded.get("/cache/historical/AAPL", headers=key("wrong")))[0] == 401


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({}, 200, None),
        ({"exp": 1795168800 + 1}, 200, None),
        ({"exp": 1795168800 - 60}, 401, "token_expired"),
        ({"nbf": 1795168800 + 60}, 401, "bad_token"),
        ({"exp": None}, 401, "bad_token"),
        ({"user": None, "sub": None}, 401, "bad_token"),
        ({"sub": ""}, 401, "bad_token"),
        ({"sub": "a\nb"}, 401, "bad_token"),
        ({"sub": "x" * 200}, 401, "bad_token"),
        ({"exp": "tomorrow"}, 401, "bad_token"),
        ({"aud": "somebody", "iss": "issuer"}, 200, None),
        ({"secret": "another secret of thirty-two bytes!"}, 401, "bad_token"),
        ({"secret": SECRET * 2, "algorithm": "HS512"}, 401, "bad_token"),
        ({"secret": None, "algorithm": "none"}, 401, "bad_token"),
    ],
)
async def test_a_token_is_held_against_the_clock_and_the_secret(
    guarded: ApiDaemon, claims: dict[str, Any], status: int, code: str | None
) -> None:
    for _ in range(2):
        got, answer = await guarded.get("/cache/symbols", headers=bearer(guarded, **claims))
        assert (got, answer.get("code")) == (status, code)


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer x", "Basic dXNlcjpwYXNz", "Bearer a.b.c", "bearer  ", "Bearer " + "x" * 7000]
)
async def test_what_is_no_token_is_refused(guarded: ApiDaemon, value: str) -> None:
    status, problem = await guarded.get("/cache/symbols", headers={"Authorization": value})
    assert (status, problem["code"]) == (401, "bad_token")


async def test_a_token_that_was_good_ends_when_it_expires(guarded: ApiDaemon) -> None:
    await guarded.stored()
    headers = bearer(guarded)
    assert (await guarded.get("/cache/historical/AAPL", headers=headers))[0] == 200
    assert (await guarded.get("/cache/historical/AAPL", headers=headers))[0] == 200
    guarded.clock.advance(700)
    assert (await guarded.get("/cache/historical/AAPL", headers=headers))[0] == 401


@pytest.mark.parametrize(
    ("headers", "user_id", "code"),
    [
        (key("ops"), "alice", None),
        (key("admin"), "alice", None),
        (key("read"), "alice", "not_your_user"),
        (key("ops"), "", "bad_user"),
        (key("ops"), "x" * 200, "bad_user"),
    ],
)
async def test_only_keys_of_operators_act_for_a_user(
    guarded: ApiDaemon, headers: dict[str, str], user_id: str, code: str | None
) -> None:
    status, answer = await guarded.get("/cache/symbols", headers={**headers, "X-User-Id": user_id})
    assert (status, answer.get("code")) == (403 if code else 200, code)


async def test_a_user_acts_for_nobody_else(guarded: ApiDaemon) -> None:
    headers = bearer(guarded, "alice")
    assert (await guarded.get("/cache/symbols", headers={**headers, "X-User-Id": "alice"}))[0] == 200
    status, problem = await guarded.get("/cache/symbols", headers={**headers, "X-User-Id": "bob"})
    assert (status, problem["code"]) == (403, "not_your_user")


async def test_a_key_is_made_used_and_revoked(guarded: ApiDaemon) -> None:
    body = {"name": "robot", "scopes": ["read"], "user": "carol"}
    status, made = await guarded.call("POST", "/api/admin/keys", json=body, headers=key("admin"))
    assert status == 201
    assert made["secret"].startswith("pc_")
    robot = {"X-API-Key": made["secret"]}
    assert (await guarded.get("/cache/symbols", headers=robot))[0] == 200
    assert (await guarded.get("/cache/symbols", headers={**robot, "X-User-Id": "carol"}))[0] == 200
    assert (await guarded.get("/cache/symbols", headers={**robot, "X-User-Id": "dave"}))[0] == 403
    _, listed = await guarded.get("/api/admin/keys", headers=key("admin"))
    assert [(k["name"], k["scopes"], k["user"]) for k in listed["keys"]] == [("robot", ["read"], "carol")]
    assert made["secret"] not in json.dumps(listed)
    assert (await guarded.call("DELETE", f"/api/admin/keys/{made['id']}", headers=key("admin")))[0] == 200
    assert (await guarded.get("/cache/symbols", headers=robot))[0] == 401
    assert (await guarded.call("DELETE", "/api/admin/keys/nope", headers=key("admin")))[0] == 404


async def test_a_key_revoked_by_another_daemon_ends_within_half_a_minute(guarded: ApiDaemon) -> None:
    await guarded.stored()
    stored, secret = await guarded.services.keys.create_key("robot", ["read"])
    robot = {"X-API-Key": secret}
    await guarded.services.identity.reload()
    assert (await guarded.get("/cache/historical/AAPL", headers=robot))[0] == 200
    await guarded.services.keys.revoke_key(stored.id)
    guarded.clock.advance(31)
    await guarded.get("/cache/historical/AAPL", headers=robot)
    await guarded.services.identity.close()
    assert (await guarded.get("/cache/historical/AAPL", headers=robot))[0] == 401


@pytest.mark.parametrize(
    "body", [{"name": "a b", "scopes": ["read"]}, {"name": "a", "scopes": []}, {"name": "a", "scopes": ["root"]}]
)
async def test_a_bad_key_is_not_made(guarded: ApiDaemon, body: dict[str, Any]) -> None:
    assert (await guarded.call("POST", "/api/admin/keys", json=body, headers=key("admin")))[0] == 422


# Page sessions


async def session_cookie(daemon: ApiDaemon, user: str = "alice", **headers: str) -> str:
    async with daemon.session.post(
        daemon.base + "/api/session", headers={**bearer(daemon, user), **headers}
    ) as response:
        assert response.status == 200, await response.text()
        daemon.session.cookie_jar.clear()
        return response.headers["Set-Cookie"]


async def test_a_token_is_exchanged_for_a_cookie_that_pages_send(guarded: ApiDaemon) -> None:
    cookie = await session_cookie(guarded, Origin=ORIGIN)
    name, *attributes = [part.strip() for part in cookie.split(";")]
    assert attributes == ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"]
    headers = {"Cookie": f"theme=dark; {name}"}
    assert (await guarded.get("/cache/symbols", headers=headers))[0] == 200
    assert (await guarded.get("/api/admin/keys", headers=headers))[0] == 403


async def test_the_cookie_is_secure_where_the_page_is_not_on_loopback(guarded: ApiDaemon) -> None:
    assert "; Secure" in await session_cookie(guarded, Host="prices.example", Origin=ORIGIN)


async def test_a_session_ends_when_it_is_told_to(guarded: ApiDaemon) -> None:
    name = (await session_cookie(guarded)).split(";")[0]
    headers = {"Cookie": name, "Origin": ORIGIN}
    assert (await guarded.get("/cache/symbols", headers=headers))[0] == 200
    async with guarded.session.delete(guarded.base + "/api/session", headers=headers) as response:
        assert response.status == 200
        assert "Max-Age=0" in response.headers["Set-Cookie"]
    status, problem = await guarded.get("/cache/symbols", headers=headers)
    assert (status, problem["code"]) == (401, "session_ended")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None, "http://pages.example"])
async def test_a_cookie_writes_only_from_a_page_of_ours(guarded: ApiDaemon, origin: str | None) -> None:
    name = (await session_cookie(guarded)).split(";")[0]
    headers = {"Cookie": name} | ({"Origin": origin} if origin else {})
    status, problem = await guarded.call("DELETE", "/api/session", headers=headers)
    assert (status, problem["code"]) == (403, "foreign_origin")


async def test_a_foreign_page_exchanges_no_token(guarded: ApiDaemon) -> None:
    headers = {**bearer(guarded), "Origin": "https://evil.example"}
    status, problem = await guarded.call("POST", "/api/session", headers=headers)
    assert (status, problem["code"]) == (403, "foreign_origin")


async def test_a_key_is_exchanged_for_no_session(guarded: ApiDaemon) -> None:
    headers = key("ops", **{"X-User-Id": "bob"})
    status, problem = await guarded.call("POST", "/api/session", headers=headers)
    assert (status, problem["code"]) == (403, "token_needed")


# Other origins


async def test_a_page_of_ours_may_read_and_others_may_not(guarded: ApiDaemon) -> None:
    await guarded.stored()
    for target in ("/cache/historical/AAPL", "/cache/symbols", "/cache/live/NOPE"):
        for _ in range(2):
            async with guarded.session.get(guarded.base + target, headers=key("read", Origin=ORIGIN)) as ours:
                assert ours.headers["Access-Control-Allow-Origin"] == ORIGIN
                assert ours.headers["Access-Control-Allow-Credentials"] == "true"
                assert "Origin" in ours.headers["Vary"]
            foreign = key("read", Origin="https://evil.example")
            async with guarded.session.get(guarded.base + target, headers=foreign) as theirs:
                assert "Access-Control-Allow-Origin" not in theirs.headers


async def test_a_preflight_is_answered_to_pages_of_ours(guarded: ApiDaemon) -> None:
    asked = {"Access-Control-Request-Method": "PUT", "Origin": ORIGIN}
    async with guarded.session.options(guarded.base + "/cache/historical/AAPL", headers=asked) as ours:
        assert ours.status == 204
        assert ours.headers["Access-Control-Allow-Methods"] == "DELETE, GET, HEAD, OPTIONS, PUT"
        assert "X-API-Key" in ours.headers["Access-Control-Allow-Headers"]
    asked["Origin"] = "https://evil.example"
    async with guarded.session.options(guarded.base + "/cache/historical/AAPL", headers=asked) as theirs:
        assert theirs.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"
        assert not [name for name in theirs.headers if name.startswith("Access-Control")]


# Without keys


async def test_without_keys_everybody_on_this_machine_may_do_everything(open_daemon: ApiDaemon) -> None:
    assert (await open_daemon.get("/api/admin/keys"))[0] == 200
    assert (await open_daemon.call("POST", "/cache/sync-historical"))[1]["requestedBy"] == "local"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.0.7"])
async def test_without_keys_only_loopback_names_are_answered(open_daemon: ApiDaemon, host: str) -> None:
    """A page whose name was made to point here (DNS rebinding) reads nothing, kept answers included."""
    await open_daemon.stored()
    for _ in range(2):
        assert (await open_daemon.get("/cache/historical/AAPL"))[0] == 200
        status, problem = await open_daemon.get("/cache/historical/AAPL", headers={"Host": host})
        assert (status, problem["code"]) == (403, "foreign_host")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_keys_a_foreign_page_is_refused(open_daemon: ApiDaemon, origin: str, method: str) -> None:
    await open_daemon.stored()
    await open_daemon.get("/cache/historical/AAPL")
    target = "/cache/historical/AAPL" if method == "GET" else "/cache/sync-historical"
    status, problem = await open_daemon.call(method, target, headers={"Origin": origin})
    assert (status, problem["code"]) == (403, "foreign_origin")


async def test_without_keys_the_daemons_own_pages_work(open_daemon: ApiDaemon) -> None:
    assert (await open_daemon.get("/cache/symbols", headers={"Origin": open_daemon.base}))[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_a_form_is_no_json(open_daemon: ApiDaemon, kind: str) -> None:
    status, problem = await open_daemon.call(
        "POST", "/cache/backfill-symbol", data=b'{"symbol": "AAPL"}', headers={"Content-Type": kind}
    )
    assert (status, problem["code"]) == (415, "unsupported_media_type")


async def test_the_first_key_closes_the_open_door(open_daemon: ApiDaemon) -> None:
    body = {"name": "me", "scopes": ["admin"]}
    _, made = await open_daemon.call("POST", "/api/admin/keys", json=body)
    assert (await open_daemon.get("/cache/symbols"))[0] == 401
    mine = {"X-API-Key": made["secret"]}
    assert (await open_daemon.get("/cache/symbols", headers=mine))[0] == 200
    await open_daemon.call("DELETE", f"/api/admin/keys/{made['id']}", headers=mine)
    assert (await open_daemon.get("/cache/symbols"))[0] == 200


async def test_elsewhere_than_on_loopback_nobody_is_local(database: Any) -> None:
    async with api_daemon(database, loopback=False) as daemon:
        assert (await daemon.get("/cache/symbols"))[0] == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "prices.example", ""])
def test_listening_to_the_world_without_keys_is_refused(host: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        check_exposure(host, has_credentials=False)
    assert caught.value.code == "exposed_without_keys"
    assert "PRICECACHE_API_KEYS" in caught.value.detail
    check_exposure(host, has_credentials=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    check_exposure(host, has_credentials=False)


# Keys published at a URL


class KeyServer:
    """Publishes a key set over HTTP on a thread of its own, and counts who asks. `down` makes it answer 500."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked = 0
        self.down = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body = json.dumps({"keys": outer.keys}).encode()
                self.send_response(500 if outer.down else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/jwks.json"

    def publish(self, key_id: str, algorithm: str) -> Any:
        if algorithm == "RS256":
            private: Any = rsa.generate_private_key(65537, 2048)
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))
        else:
            private = ec.generate_private_key(ec.SECP256R1())
            public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private.public_key()))
        self.keys.append({**public, "kid": key_id, "alg": algorithm, "use": "sig"})
        return private

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    server = KeyServer()
    yield server
    server.stop()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_published_keys_are_fetched_once_and_used(database: Any, key_server: KeyServer, algorithm: str) -> None:
    private = key_server.publish("one", algorithm)
    async with api_daemon(database, jwks_url=key_server.url) as daemon:
        for user in ("alice", "bob"):
            headers = bearer(daemon, user, secret=private, algorithm=algorithm, kid="one")
            assert (await daemon.get("/cache/symbols", headers=headers))[0] == 200
        assert key_server.asked == 1


async def test_a_new_published_key_is_found(database: Any, key_server: KeyServer) -> None:
    key_server.publish("one", "ES256")
    async with api_daemon(database, jwks_url=key_server.url) as daemon:
        stranger = ec.generate_private_key(ec.SECP256R1())
        for _ in range(5):
            headers = bearer(daemon, secret=stranger, algorithm="ES256", kid="two")
            assert (await daemon.get("/cache/symbols", headers=headers))[0] == 401
        assert key_server.asked == 1
        private = key_server.publish("two", "ES256")
        daemon.clock.advance(31)
        headers = bearer(daemon, secret=private, algorithm="ES256", kid="two")
        assert (await daemon.get("/cache/symbols", headers=headers))[0] == 200


async def test_a_public_key_is_no_shared_secret(database: Any, key_server: KeyServer) -> None:
    """The old trick: sign with HS256 and the published key as the secret."""
    key_server.publish("one", "RS256")
    async with api_daemon(database, jwks_url=key_server.url) as daemon:
        headers = bearer(daemon, secret=key_server.keys[0]["n"], algorithm="HS256", kid="one")
        status, problem = await daemon.get("/cache/symbols", headers=headers)
        assert (status, problem["code"]) == (401, "bad_token")


async def test_keys_that_cannot_be_fetched_are_not_the_callers_fault(database: Any, key_server: KeyServer) -> None:
    private = key_server.publish("one", "ES256")
    key_server.down = True
    async with api_daemon(database, jwks_url=key_server.url) as daemon:
        headers = bearer(daemon, secret=private, algorithm="ES256", kid="one")
        status, problem = await daemon.get("/cache/symbols", headers=headers)
        assert (status, problem["code"], problem["retryAfter"]) == (503, "jwks_unavailable", 5.0)
        key_server.down = False
        daemon.clock.advance(31)
        assert (await daemon.get("/cache/symbols", headers=headers))[0] == 200
        key_server.down = True
        daemon.clock.advance(500)
        other = bearer(daemon, "bob", secret=private, algorithm="ES256", kid="one")
        assert (await daemon.get("/cache/symbols", headers=other))[0] == 200


async def test_no_answer_carries_a_secret(guarded: ApiDaemon) -> None:
    """Everything that can be read, and the refusals, searched for what must not leave."""
    seen = []
    async with aiohttp.ClientSession() as session:
        for route in ROUTES:
            path = route.path.replace("{symbol}", "AAPL").replace("{id}", "x").replace("{name}", "docs.js")
            path = path.replace("{accountId}", "x").replace("{transactionId}", "x").replace("{period}", "1Y")
            async with session.request(route.method, guarded.base + path, headers=key("admin")) as response:
                seen.append(await response.text() + str(response.headers))
    for secret in (SECRET, "admin-key", "ops-key", "mongod.sock", "Traceback", "aiohttp"):
        assert not [text for text in seen if secret in text]
