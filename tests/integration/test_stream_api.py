"""The stream as clients meet it: who is let in and how, what both transports say, limits, bad frames, the end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pricecache.api.streams import CHECK_SECONDS, is_admitted
from pricecache.errors import NotFound, Unavailable
from pricecache.realtime import joining
from pricecache.realtime.hub import PortfolioState
from tests.feeds import MemoryFeeds, account, position, price
from tests.integration.api_daemon import ApiDaemon, api_daemon
from tests.streams import frames_in, settle, texts_in

SECRET = "a secret of at least thirty-two bytes"
ORIGIN = "https://pages.example"
KEYS = ("reader:read:read-key", "operator:ops:ops-key", "root:admin:admin-key")
OPS = {"X-API-Key": "ops-key", "X-User-Id": "alice"}
PATIENCE = 5.0


@pytest.fixture
async def open_daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, feeds=MemoryFeeds()) as daemon:
        yield daemon


@pytest.fixture
async def guarded(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, feeds=MemoryFeeds(), keys=KEYS, jwt_secret=SECRET, origins=[ORIGIN]) as daemon:
        yield daemon


def feeds_of(daemon: ApiDaemon) -> MemoryFeeds:
    assert daemon.feeds is not None
    return daemon.feeds


def bearer(daemon: ApiDaemon, user: str = "alice", seconds: float = 600) -> dict[str, str]:
    token = jwt.encode({"sub": user, "exp": daemon.clock.time() + seconds}, SECRET, "HS256")
    return {"Authorization": f"Bearer {token}"}


async def cookie(daemon: ApiDaemon, user: str = "alice") -> dict[str, str]:
    async with daemon.session.post(daemon.base + "/api/session", headers=bearer(daemon, user)) as response:
        return {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}


async def portfolio(daemon: ApiDaemon, headers: dict[str, str] | None = None) -> str:
    status, made = await daemon.call(
        "POST", "/api/portfolios", json={"name": "a", "baseCurrency": "USD"}, headers=headers
    )
    assert status == 201
    return str(made["id"])


async def until(what: Callable[[], Any]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not what():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def socket_of(daemon: ApiDaemon, target: str = "/ws/portfolio", **headers: str) -> AsyncIterator[Any]:
    async with daemon.session.ws_connect(daemon.base + target, headers=headers) as found:
        yield found


async def said(websocket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    found: dict[str, Any] = await websocket.receive_json(timeout=PATIENCE)
    return found


async def subscribed(websocket: aiohttp.ClientWebSocketResponse, **message: Any) -> dict[str, Any]:
    """Subscribe, and read up to the snapshot, which is given."""
    await websocket.send_json({"type": "subscribe", **message})
    while (found := await said(websocket))["type"] != "snapshot":
        assert found["type"] in ("subscribed", "update"), found
    return found


async def refusal(daemon: ApiDaemon, target: str = "/ws/portfolio", **headers: str) -> tuple[int, str]:
    """Status and code with which a handshake is refused."""
    more = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    upgrade = more if target.startswith("/ws") else {}
    async with daemon.session.get(daemon.base + target, headers={**upgrade, **headers}) as response:
        if response.status in (101, 200):
            return response.status, ""
        assert response.content_type == "application/problem+json"
        return response.status, (await response.json())["code"]


class EventStream:
    """A server-sent stream as a client reads it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""

    async def next(self) -> dict[str, Any]:
        """The next message; an empty one at the end."""
        data = ""
        async with asyncio.timeout(PATIENCE):
            while line := (await self.response.content.readline()).decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "data":
                    data = value
                elif not name and data:
                    return dict(json.loads(data))
        return {}


@asynccontextmanager
async def events_of(daemon: ApiDaemon, query: str = "", **headers: str) -> AsyncIterator[EventStream]:
    async with daemon.session.get(daemon.base + "/api/stream" + query, headers=headers) as response:
        assert response.status == 200, await response.text()
        yield EventStream(response)


# ---- what is said


async def test_both_transports_say_the_same(open_daemon: ApiDaemon) -> None:
    feeds, mine = feeds_of(open_daemon), await portfolio(open_daemon)
    for _ in range(3):
        feeds.store(mine, symbol="AAPL")
    feeds.set(mine, {"account": account(5.0), "position:AAPL:US": position("AAPL", 5.0)})
    async with socket_of(open_daemon) as websocket, events_of(open_daemon, "?since=1&epoch=e1") as stream:
        await websocket.send_json({"type": "subscribe", "portfolioId": mine, "since": 1, "epoch": "e1"})
        begin = [await said(websocket) for _ in range(3)]
        assert begin == [await stream.next() for _ in range(3)]
        assert [message["type"] for message in begin] == ["subscribed", "update", "snapshot"]
        feeds.happen(mine, symbol="MSFT")
        feeds.set(mine, {"account": account(6.0)})
        update = await said(websocket)
        assert update == await stream.next()
        assert [event["type"] for event in update["events"]] == ["trade:executed", "account:updated"]
        assert stream.last_id == f"e1:{mine}=4"


async def test_every_message_has_the_documented_shape(open_daemon: ApiDaemon) -> None:
    mine = await portfolio(open_daemon)
    async with socket_of(open_daemon) as websocket:
        snapshot = await subscribed(websocket)
        feeds_of(open_daemon).happen(mine)
        for message in (snapshot, await said(websocket)):
            assert message.keys() >= {"type", "seq", "portfolioId", "at", "events"}
        await websocket.send_json({"type": "ping"})
        assert await said(websocket) == {"type": "pong"}
        await websocket.send_json({"type": "unsubscribe", "portfolioId": mine})
        left = await said(websocket)
        assert (left["type"], left["portfolioId"]) == ("unsubscribed", mine)


async def test_prices_of_named_instruments_in_any_notation(open_daemon: ApiDaemon) -> None:
    async with socket_of(open_daemon) as websocket:
        await websocket.send_json({"type": "subscribe", "channels": ["prices"], "symbols": ["aapl", "SAP.DE"]})
        assert (await said(websocket))["symbols"] == ["AAPL:US", "SAP:DE"]
        open_daemon.parts.realtime.hub.publish_prices({"AAPL:US": price("AAPL", 2.0), "MSFT:US": price("MSFT", 3.0)})
        message = await said(websocket)
        assert (message["type"], message["seq"], message["events"]) == ("prices", None, [price("AAPL", 2.0)])


async def test_a_client_that_comes_again_goes_on_where_it_was(open_daemon: ApiDaemon) -> None:
    feeds, mine = feeds_of(open_daemon), await portfolio(open_daemon)
    async with socket_of(open_daemon) as websocket:
        await subscribed(websocket)
        feeds.happen(mine)
        last = (await said(websocket))["seq"]
    feeds.store(mine)
    async with socket_of(open_daemon) as websocket:
        await websocket.send_json({"type": "subscribe", "since": last, "epoch": "e1"})
        assert (await said(websocket))["type"] == "subscribed"
        assert [event["seq"] for event in (await said(websocket))["events"]] == [2]


async def test_a_server_sent_stream_of_several_portfolios_resumes_each_by_its_last_event_id(
    open_daemon: ApiDaemon,
) -> None:
    feeds = feeds_of(open_daemon)
    first, second = await portfolio(open_daemon), await portfolio(open_daemon)
    async with events_of(open_daemon) as stream:
        for _ in range(4):
            await stream.next()
        feeds.happen(second)
        await stream.next()
        feeds.happen(second)
        open_daemon.clock.advance(1)
        await stream.next()
        place = stream.last_id
    assert place == f"e1:{first}=0,{second}=2"
    feeds.store(first)
    feeds.store(second)
    async with events_of(open_daemon, **{"Last-Event-ID": place}) as stream:
        found = [await stream.next() for _ in range(6)]
    updates = {m["portfolioId"]: [e["seq"] for e in m["events"]] for m in found if m["type"] == "update"}
    assert updates == {first: [1], second: [3]}
    async with events_of(open_daemon, **{"Last-Event-ID": "e1:1"}) as stream:
        found = [await stream.next() for _ in range(4)]
    assert [m["resync"] for m in found if m["type"] == "snapshot"] == [True, True]


async def test_a_server_sent_stream_cut_after_any_message_goes_on_without_loss_or_repetition(
    open_daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "REPLAYED_AT_ONCE", 1)
    feeds, messages_until_live, messages = feeds_of(open_daemon), 9, 12
    for cut in range(1, messages + 1):
        ids = [await portfolio(open_daemon) for _ in range(2)]
        first, second = ids
        for one in ids * 3:
            feeds.store(one)
        query, heard = f"?portfolioId={first}&portfolioId={second}", []
        async with events_of(open_daemon, query, **{"Last-Event-ID": f"e1:{first}=1,{second}=0"}) as stream:
            for _ in range(min(cut, messages_until_live)):
                heard.append(await stream.next())
            for one in [second, first, second][: max(0, cut - messages_until_live)]:
                feeds.happen(one)
                open_daemon.clock.advance(1)
                heard.append(await stream.next())
            place = stream.last_id or f"e1:{first}=1,{second}=0"
        for one in ids:
            feeds.store(one)
        async with events_of(open_daemon, query, **{"Last-Event-ID": place}) as stream:
            while [message["type"] for message in heard[cut:]].count("snapshot") < 2:
                heard.append(await stream.next())
        assert not any(message.get("resync") for message in heard)
        for one, since in ((first, 1), (second, 0)):
            told = [e["seq"] for m in heard if m.get("portfolioId") == one for e in m.get("events", ()) if "seq" in e]
            assert told == list(range(since + 1, feeds.last(one) + 1)), cut


async def test_a_portfolio_that_nothing_was_told_of_before_a_cut_is_told_as_it_is(open_daemon: ApiDaemon) -> None:
    feeds = feeds_of(open_daemon)
    first, second = await portfolio(open_daemon), await portfolio(open_daemon)
    for one in (first, second):
        feeds.store(one)
    async with events_of(open_daemon) as stream:
        assert [(await stream.next())["type"] for _ in range(2)] == ["subscribed", "snapshot"]
        place = stream.last_id
    assert place == f"e1:{first}=1"
    async with events_of(open_daemon, **{"Last-Event-ID": place}) as stream:
        found = [await stream.next() for _ in range(4)]
    assert [m["resync"] for m in found if m["type"] == "snapshot"] == [False, False]


async def test_a_portfolio_that_has_to_begin_anew_still_has_to_after_a_cut(open_daemon: ApiDaemon) -> None:
    first, second = await portfolio(open_daemon), await portfolio(open_daemon)
    async with events_of(open_daemon, f"?since={first}:0&since={second}:0&epoch=e0") as stream:
        assert [(await stream.next()).get("resync") for _ in range(2)] == [None, True]
        place = stream.last_id
    async with events_of(open_daemon, **{"Last-Event-ID": place}) as stream:
        found = [await stream.next() for _ in range(4)]
    assert [m["resync"] for m in found if m["type"] == "snapshot"] == [False, True]


async def test_since_may_be_given_for_each_portfolio(open_daemon: ApiDaemon) -> None:
    feeds = feeds_of(open_daemon)
    first, second = await portfolio(open_daemon), await portfolio(open_daemon)
    for one in (first, second):
        feeds.store(one)
        feeds.store(one)
    query = f"?portfolioId={first}&portfolioId={second}&since={first}:1&since={second}:0&channels=trades"
    async with events_of(open_daemon, query) as stream:
        found = [await stream.next() for _ in range(6)]
    updates = {m["portfolioId"]: [e["seq"] for e in m["events"]] for m in found if m["type"] == "update"}
    assert updates == {first: [2], second: [1, 2]}
    status, answer = await open_daemon.get("/api/stream?since=1")
    assert (status, answer["code"]) == (422, "portfolio_needed")


async def test_the_websockets_library_is_a_client_too(open_daemon: ApiDaemon) -> None:
    mine = await portfolio(open_daemon)
    async with connect(open_daemon.base.replace("http", "ws") + "/ws/portfolio") as websocket:
        assert websocket.protocol.extensions == []
        await websocket.send(json.dumps({"type": "subscribe"}))
        assert json.loads(await websocket.recv())["type"] == "subscribed"
        assert json.loads(await websocket.recv())["type"] == "snapshot"
        feeds_of(open_daemon).happen(mine, note="x" * 70_000)
        assert len(await websocket.recv()) > 70_000
        await asyncio.wait_for(await websocket.ping(), PATIENCE)
    await until(lambda: not open_daemon.parts.realtime.hub.connections())
    assert open_daemon.parts.realtime.hub.stats.closed == {"client": 1}


# ---- all portfolios of a user


async def named(listener: Any, count: int) -> list[tuple[str, str | None]]:
    """Kinds and portfolios of the next messages, of either transport."""
    found = [await (listener.next() if isinstance(listener, EventStream) else said(listener)) for _ in range(count)]
    return [(one["type"], one["portfolioId"]) for one in found]


async def test_who_has_no_portfolio_yet_is_answered_and_hears_the_first(open_daemon: ApiDaemon) -> None:
    async with socket_of(open_daemon) as websocket, events_of(open_daemon) as stream:
        await websocket.send_json({"type": "subscribe"})
        nothing = {
            "type": "subscribed",
            "portfolioId": None,
            "channels": ["positions", "account", "trades", "orders"],
            "seq": None,
            "epoch": None,
        }
        assert (await said(websocket), await stream.next()) == (nothing, nothing)
        mine = await portfolio(open_daemon)
        for listener in (websocket, stream):
            assert await named(listener, 2) == [("subscribed", mine), ("snapshot", mine)]
        feeds_of(open_daemon).happen(mine)
        assert (await said(websocket))["events"][0]["seq"] == (await stream.next())["events"][0]["seq"] == 1


async def test_who_hears_all_portfolios_hears_those_made_later_and_others_do_not(open_daemon: ApiDaemon) -> None:
    first = await portfolio(open_daemon)
    async with socket_of(open_daemon) as everything, socket_of(open_daemon) as one, events_of(open_daemon) as stream:
        assert (await subscribed(everything, channels=["trades"]))["portfolioId"] == first
        await subscribed(one, portfolioId=first)
        assert await named(stream, 2) == [("subscribed", first), ("snapshot", first)]
        second = await portfolio(open_daemon)
        told = await said(everything)
        assert (told["type"], told["portfolioId"], told["channels"]) == ("subscribed", second, ["trades"])
        assert (await said(everything))["portfolioId"] == second
        assert await named(stream, 2) == [("subscribed", second), ("snapshot", second)]
        assert stream.last_id == f"e1:{first}=0,{second}=0"
        await everything.send_json({"type": "unsubscribe"})
        assert (await said(everything))["type"] == "unsubscribed"
        await portfolio(open_daemon)
        for websocket in (everything, one):
            await websocket.send_json({"type": "ping"})
            assert await said(websocket) == {"type": "pong"}
    newcomers = open_daemon.parts.api.streams.newcomers
    await until(lambda: not newcomers._by_user)


async def test_a_portfolio_of_another_user_is_no_newcomer(guarded: ApiDaemon) -> None:
    async with socket_of(guarded, **bearer(guarded, "alice")) as websocket:
        await websocket.send_json({"type": "subscribe"})
        assert (await said(websocket))["type"] == "subscribed"
        await portfolio(guarded, bearer(guarded, "bob"))
        mine = await portfolio(guarded, bearer(guarded, "alice"))
        assert await named(websocket, 2) == [("subscribed", mine), ("snapshot", mine)]


async def test_a_portfolio_that_is_made_while_the_list_is_read_is_heard_once(
    open_daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, made = open_daemon.parts.portfolio.store, list[str]()
    all_of = store.all_of

    async def slow(owner: str) -> Any:
        found = await all_of(owner)
        if not made:
            made.append(await portfolio(open_daemon))
        return found

    monkeypatch.setattr(store, "all_of", slow)
    async with socket_of(open_daemon) as websocket:
        await websocket.send_json({"type": "subscribe"})
        assert await named(websocket, 3) == [("subscribed", None), ("subscribed", made[0]), ("snapshot", made[0])]
        open_daemon.parts.api.streams.newcomers.created("local", made[0])
        await websocket.send_json({"type": "ping"})
        assert await said(websocket) == {"type": "pong"}


async def test_portfolios_that_were_made_unseen_are_found_when_all_is_looked_at(
    open_daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with socket_of(open_daemon) as websocket:
        await websocket.send_json({"type": "subscribe"})
        assert (await said(websocket))["portfolioId"] is None
        with monkeypatch.context() as patched:
            patched.setattr(open_daemon.parts.api.streams.newcomers, "created", lambda user, portfolio_id: None)
            unseen = await portfolio(open_daemon)
        open_daemon.parts.prices.watcher.on_reopened()
        assert await named(websocket, 2) == [("subscribed", unseen), ("snapshot", unseen)]


# ---- what is wrong


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "malformed_json"),
        ("{", "malformed_json"),
        ("[" * 50_000, "malformed_json"),
        ("null", "invalid_value"),
        ("[]", "invalid_value"),
        ("{}", "unknown_type"),
        ('{"type": "shout"}', "unknown_type"),
        ('{"type": {"$gt": ""}}', "unknown_type"),
        ('{"type": "subscribe", "channels": []}', "too_few"),
        ('{"type": "subscribe", "channels": ["secrets"]}', "invalid_value"),
        ('{"type": "subscribe", "colour": "red"}', "unknown_field"),
        ('{"type": "subscribe", "since": -1}', "invalid_value"),
        ('{"type": "subscribe", "since": 1e999}', "invalid_value"),
        ('{"type": "subscribe", "since": true}', "invalid_value"),
        ('{"type": "subscribe", "portfolioId": {"$ne": null}}', "invalid_value"),
        ('{"type": "subscribe", "portfolioId": "6b0000000000000000000000"}', "unknown_portfolio"),
        ('{"type": "subscribe", "portfolioId": "\\ud800"}', "malformed_json"),
        ('{"type": "subscribe", "symbols": ["AAPL"]}', "prices_needed"),
        ('{"type": "subscribe", "channels": ["prices"], "symbols": ["../etc"]}', "invalid_symbol"),
        (json.dumps({"type": "subscribe", "channels": ["prices"], "symbols": ["A"] * 1001}), "too_many"),
    ],
)
async def test_what_is_wrong_with_a_message_is_said_and_the_connection_stays(
    open_daemon: ApiDaemon, text: str, code: str
) -> None:
    async with socket_of(open_daemon) as websocket:
        await websocket.send_str(text)
        answer = await said(websocket)
        assert (answer["type"], answer["code"]) == ("error", code)
        assert answer["detail"]
        await websocket.send_json({"type": "ping"})
        assert await said(websocket) == {"type": "pong"}


async def test_what_is_wrong_with_a_field_is_told_by_the_name_that_the_client_gave_it(open_daemon: ApiDaemon) -> None:
    async with socket_of(open_daemon) as websocket:
        await websocket.send_json({"type": "subscribe", "channels": ["trades", "all"], "since": -1, "colour": "red"})
        answer = await said(websocket)
        assert [row["field"] for row in answer["errors"]] == ["channels.1", "since", "colour"]
        assert answer["detail"].startswith("3 faults; the first: channels.1: ")


async def test_an_error_names_the_portfolio_it_is_about(
    open_daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = [await portfolio(open_daemon) for _ in range(3)]
    feeds, snapshot = feeds_of(open_daemon), feeds_of(open_daemon).snapshot
    errors: dict[str, Exception] = {}

    async def failing(portfolio_id: str) -> PortfolioState:
        if portfolio_id in errors:
            raise errors[portfolio_id]
        return await snapshot(portfolio_id)

    monkeypatch.setattr(feeds, "snapshot", failing)
    async with socket_of(open_daemon) as websocket:
        unknown = "6b0000000000000000000000"
        await websocket.send_json({"type": "subscribe", "portfolioId": unknown})
        answer = await said(websocket)
        assert (answer["code"], answer["portfolioId"]) == ("unknown_portfolio", unknown)
        errors[first] = NotFound("It has gone.", code="unknown_portfolio")
        errors[third] = Unavailable("Not now.", code="calendar_loading")
        await websocket.send_json({"type": "subscribe"})
        heard = [await said(websocket) for _ in range(4)]
        assert [(one["type"], one["portfolioId"], one.get("code")) for one in heard] == [
            ("error", first, "unknown_portfolio"),
            ("subscribed", second, None),
            ("snapshot", second, None),
            ("error", third, "calendar_loading"),
        ]
    async with events_of(open_daemon, f"?portfolioId={third}") as stream:
        answer, last = await stream.next(), await stream.next()
        assert (answer["code"], answer["portfolioId"]) == ("calendar_loading", third)
        assert last == {"type": "closing", "code": 1013, "reason": "unavailable"}


async def test_a_fault_of_ours_is_told_once_to_the_client_and_in_the_log_on_both_transports(
    open_daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, hub = await portfolio(open_daemon), open_daemon.parts.realtime.hub

    async def broken(portfolio_id: str) -> PortfolioState:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(feeds_of(open_daemon), "snapshot", broken)
    with capture_logs() as logs:
        async with socket_of(open_daemon) as websocket, events_of(open_daemon) as stream:
            await websocket.send_json({"type": "subscribe"})
            for answer in (await said(websocket), await stream.next()):
                assert (answer["type"], answer["code"]) == ("error", "internal_error")
                assert answer["portfolioId"] == mine
            assert await stream.next() == {"type": "closing", "code": 1011, "reason": "failed"}
            assert await stream.next() == {}
            await websocket.send_json({"type": "ping"})
            assert await said(websocket) == {"type": "pong"}
    told = [(line["event"], str(line["exc_info"])) for line in logs if line["log_level"] == "error"]
    assert told == 2 * [("stream message failed", "nobody thought of this")]
    assert hub.status()["failures"] == 2


async def test_a_portfolio_of_somebody_else_is_unknown_here(guarded: ApiDaemon) -> None:
    theirs = await portfolio(guarded, bearer(guarded, "bob"))
    async with socket_of(guarded, **bearer(guarded, "alice")) as websocket:
        await websocket.send_json({"type": "subscribe", "portfolioId": theirs})
        assert (await said(websocket))["code"] == "unknown_portfolio"
        await websocket.send_json({"type": "subscribe"})
        assert (await said(websocket))["portfolioId"] is None
        feeds_of(guarded).set(theirs, {"account": account(1.0)})
        feeds_of(guarded).store(theirs)
        await websocket.send_json({"type": "ping"})
        assert await said(websocket) == {"type": "pong"}
    assert await refusal(guarded, f"/api/stream?portfolioId={theirs}", **bearer(guarded, "alice")) == (
        404,
        "unknown_portfolio",
    )


async def test_two_users_get_each_their_own(guarded: ApiDaemon) -> None:
    feeds = feeds_of(guarded)
    hers, his = await portfolio(guarded, bearer(guarded, "alice")), await portfolio(guarded, bearer(guarded, "bob"))
    async with (
        socket_of(guarded, **bearer(guarded, "alice")) as alice,
        socket_of(guarded, **OPS | {"X-User-Id": "bob"}) as bob,
    ):
        assert (await subscribed(alice))["portfolioId"] == hers
        assert (await subscribed(bob))["portfolioId"] == his
        for one in (hers, his):
            feeds.happen(one, whose=one)
            feeds.set(one, {"account": account(1.0)})
        assert (await said(alice))["events"][0]["whose"] == hers
        assert (await said(bob))["events"][0]["whose"] == his


# ---- who is let in


async def test_who_is_not_known_is_refused_before_the_upgrade(guarded: ApiDaemon) -> None:
    for target in ("/ws/portfolio", "/api/stream"):
        assert await refusal(guarded, target) == (401, "unauthorized")
        assert await refusal(guarded, target, **{"X-API-Key": "wrong"}) == (401, "bad_key")
        assert await refusal(guarded, target, **{"X-API-Key": "ops-key"}) == (403, "user_needed")
        assert await refusal(guarded, target + "?ticket=made-up") == (401, "bad_ticket")
        assert await refusal(guarded, target, Authorization="Bearer x.y.z") == (401, "bad_token")
    assert guarded.parts.realtime.hub.stats.opened == {"websocket": 0, "sse": 0}


@pytest.mark.parametrize("target", ["/ws/portfolio", "/api/stream"])
async def test_origins_by_credential(guarded: ApiDaemon, target: str) -> None:
    own, admitted = f"http://127.0.0.1:{guarded.door.port}", 101 if target.startswith("/ws") else 200
    session = await cookie(guarded)
    for headers in (OPS, bearer(guarded)):
        assert (await refusal(guarded, target, **headers))[0] == admitted
    assert await refusal(guarded, target, **session) == (403, "foreign_origin")
    for headers in (OPS, bearer(guarded), session):
        assert (await refusal(guarded, target, **headers, Origin=ORIGIN))[0] == admitted
        assert (await refusal(guarded, target, **headers, Origin=own))[0] == admitted
        for origin in ("https://evil.example", "null", "https://pages.example.evil.example", "file://"):
            assert await refusal(guarded, target, **headers, Origin=origin) == (403, "foreign_origin")
    assert (await refusal(guarded, target, **session, **{"Sec-Fetch-Site": "same-origin"}))[0] == admitted
    assert await refusal(guarded, target, **session, **{"Sec-Fetch-Site": "cross-site"}) == (403, "foreign_origin")


async def test_an_open_daemon_serves_its_own_machine_only(open_daemon: ApiDaemon) -> None:
    assert (await refusal(open_daemon))[0] == 101
    assert await refusal(open_daemon, Host="pages.example") == (403, "foreign_host")
    assert await refusal(open_daemon, Origin="https://evil.example") == (403, "foreign_origin")


async def test_a_page_of_an_allowed_origin_may_read_the_stream_of_events(guarded: ApiDaemon) -> None:
    async with events_of(guarded, **bearer(guarded), Origin=ORIGIN) as stream:
        assert stream.response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"


async def test_a_ticket_opens_one_stream_for_who_asked_for_it(guarded: ApiDaemon) -> None:
    hers = await portfolio(guarded, bearer(guarded))
    for target in ("/ws/portfolio", "/api/stream"):
        status, made = await guarded.call("POST", "/api/stream/ticket", headers=bearer(guarded))
        assert (status, made["expiresInSeconds"]) == (200, 30)
        query = f"{target}?ticket={made['ticket']}"
        assert await refusal(guarded, query, Origin="https://evil.example") == (403, "foreign_origin")
        assert await refusal(guarded, query) == (401, "bad_ticket")
        status, made = await guarded.call("POST", "/api/stream/ticket", headers=bearer(guarded))
        query = f"{target}?ticket={made['ticket']}"
        if target.startswith("/ws"):
            async with socket_of(guarded, query) as websocket:
                assert (await subscribed(websocket))["portfolioId"] == hers
        else:
            async with events_of(guarded, f"?ticket={made['ticket']}") as stream:
                assert (await stream.next())["portfolioId"] == hers
        assert await refusal(guarded, query) == (401, "bad_ticket")


async def test_a_ticket_is_stored_as_its_digest_and_runs_out(guarded: ApiDaemon, database: Any) -> None:
    _, made = await guarded.call("POST", "/api/stream/ticket", headers=bearer(guarded))
    (stored,) = await database["stream_tickets"].find().to_list()
    assert made["ticket"] not in repr(stored)
    await database["stream_tickets"].update_one({}, [{"$set": {"expiresAt": {"$subtract": ["$expiresAt", 31_000]}}}])
    assert await refusal(guarded, f"/ws/portfolio?ticket={made['ticket']}") == (401, "bad_ticket")


async def test_a_ticket_ends_with_the_key_that_made_it(guarded: ApiDaemon) -> None:
    _, key = await guarded.call(
        "POST", "/api/admin/keys", json={"name": "k", "scopes": ["ops"]}, headers={"X-API-Key": "admin-key"}
    )
    headers = {"X-API-Key": key["secret"], "X-User-Id": "alice"}
    _, made = await guarded.call("POST", "/api/stream/ticket", headers=headers)
    await guarded.call("DELETE", f"/api/admin/keys/{key['id']}", headers={"X-API-Key": "admin-key"})
    assert await refusal(guarded, f"/ws/portfolio?ticket={made['ticket']}") == (401, "bad_ticket")


# ---- revocation


async def closed_with(websocket: aiohttp.ClientWebSocketResponse) -> int | None:
    async with asyncio.timeout(PATIENCE):
        while (message := await websocket.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
            assert message.type is aiohttp.WSMsgType.TEXT
    return websocket.close_code


async def test_streams_of_a_revoked_key_end_at_once_and_others_stay(guarded: ApiDaemon) -> None:
    admin = {"X-API-Key": "admin-key"}
    _, key = await guarded.call("POST", "/api/admin/keys", json={"name": "k", "scopes": ["ops"]}, headers=admin)
    headers = {"X-API-Key": key["secret"], "X-User-Id": "alice"}
    await portfolio(guarded, headers)
    async with (
        socket_of(guarded, **headers) as websocket,
        socket_of(guarded, **OPS) as other,
        events_of(guarded, **headers) as stream,
    ):
        await subscribed(websocket)
        await guarded.call("DELETE", f"/api/admin/keys/{key['id']}", headers=admin)
        assert await closed_with(websocket) == 4401
        while (message := await stream.next())["type"] != "closing":
            pass
        assert (message["code"], message["reason"]) == (4401, "access_revoked")
        assert await stream.next() == {}
        await subscribed(other)


async def test_streams_of_an_ended_session_and_of_an_expired_token_end(guarded: ApiDaemon) -> None:
    session = await cookie(guarded)
    async with (
        socket_of(guarded, **session, Origin=ORIGIN) as by_session,
        socket_of(guarded, **bearer(guarded, seconds=65)) as by_token,
        socket_of(guarded, **bearer(guarded, seconds=6000)) as stays,
    ):
        await guarded.call("DELETE", "/api/session", headers={**session, "Origin": ORIGIN})
        assert await closed_with(by_session) == 4401
        for _ in range(7):
            guarded.clock.advance(10)
            await settle()
            for websocket in (by_token, stays):
                await websocket.send_json({"type": "ping"})
                assert await said(websocket) == {"type": "pong"}
        guarded.clock.advance(CHECK_SECONDS)  # it runs out after the ten seconds by which clocks may differ
        assert await closed_with(by_token) == 4401
        await stays.send_json({"type": "ping"})
        assert await said(stays) == {"type": "pong"}


async def test_when_the_first_key_is_made_the_streams_of_everybody_end(open_daemon: ApiDaemon) -> None:
    async with socket_of(open_daemon) as websocket:
        await open_daemon.call("POST", "/api/admin/keys", json={"name": "k", "scopes": ["admin"]})
        await open_daemon.parts.api.streams.check()
        assert await closed_with(websocket) == 4401


# ---- limits and switches


async def test_refusals_for_a_limit_are_logged_once_until_they_are_over(database: Any) -> None:
    limits = {"stream_connections": 3, "stream_connections_per_user": 2}
    his = {**OPS, "X-User-Id": "bob"}
    async with api_daemon(database, feeds=MemoryFeeds(), keys=KEYS, settings=limits) as daemon:
        with capture_logs() as logs:
            async with socket_of(daemon, **OPS), socket_of(daemon, **OPS), socket_of(daemon, **his):
                for headers in (OPS, his, OPS, his):
                    await refusal(daemon, **headers)
            await until(lambda: not daemon.parts.realtime.hub.connections())
            for _ in range(2):
                await refusal(daemon, **OPS)
        told = [line for line in logs if line["event"].startswith("streams are")]
        for line in told:
            line["kind"] = line.pop("event"), line.pop("log_level")
        refused, again = ("streams are refused", "warning"), ("streams are taken in again", "info")
        assert told == [
            {"kind": refused, "code": "too_many_user_connections", "limit": 2, "user": "alice"},
            {"kind": refused, "code": "too_many_connections", "limit": 3},
            {"kind": again},
            {"kind": again, "user": "alice"},
        ]


async def test_handshakes_refused_for_who_asks_are_logged_once_a_minute_and_code(guarded: ApiDaemon) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            await refusal(guarded)
            await refusal(guarded, "/api/stream", **OPS, Origin="https://evil.example")
        guarded.clock.advance(60)
        await refusal(guarded)
        assert (await guarded.get("/api/portfolios"))[0] == 401
    told = [(line["code"], line["count"]) for line in logs if line["event"] == "stream refused"]
    assert told == [("unauthorized", 1), ("foreign_origin", 1), ("unauthorized", 3)]


async def test_streams_are_limited_by_user_and_in_all(database: Any) -> None:
    limits = {"stream_connections": 3, "stream_connections_per_user": 2}
    async with api_daemon(database, feeds=MemoryFeeds(), keys=KEYS, settings=limits) as daemon:
        hers, his = OPS, {**OPS, "X-User-Id": "bob"}
        async with socket_of(daemon, **hers), events_of(daemon, **hers) as stream:
            assert await refusal(daemon, **hers) == (429, "too_many_user_connections")
            assert await refusal(daemon, "/api/stream", **hers) == (429, "too_many_user_connections")
            async with socket_of(daemon, **his):
                assert await refusal(daemon, **his) == (503, "too_many_connections")
            del stream
        await until(lambda: not daemon.parts.realtime.hub.connections())
        async with socket_of(daemon, **hers):
            _, figures = await daemon.get("/api/admin/websocket-stats", headers={"X-API-Key": "ops-key"})
            assert (figures["activeConnections"], figures["opened"], figures["connectionLimit"]) == (1, 4, 3)
            assert figures["users"] == 1


async def test_a_storm_of_connections_leaves_the_figures_right(open_daemon: ApiDaemon) -> None:
    async def visit() -> None:
        async with socket_of(open_daemon) as websocket:
            await websocket.send_json({"type": "ping"})
            await said(websocket)

    for _ in range(10):
        await asyncio.gather(*[visit() for _ in range(15)])
    hub = open_daemon.parts.realtime.hub
    await until(lambda: not hub.connections())
    assert sum(hub.stats.opened.values()) == sum(hub.stats.closed.values()) == 150
    assert open_daemon.parts.api.streams.status()["users"] == 0


async def test_streams_can_be_switched_off(database: Any) -> None:
    off = {"enable_realtime_portfolio": False}
    async with api_daemon(database, feeds=MemoryFeeds(), settings=off) as daemon:
        assert await refusal(daemon) == (503, "realtime_off")
        assert await refusal(daemon, "/api/stream") == (503, "realtime_off")
        for target in ("/api/stream/ticket", "/api/portfolio/live-tracking/start"):
            status, problem = await daemon.call("POST", target)
            assert (status, problem["code"], problem["retryAfter"]) == (503, "realtime_off", 3600)
        assert (await daemon.get("/api/portfolios"))[0] == 200
        _, figures = await daemon.get("/api/admin/websocket-stats")
        assert (figures["status"], figures["enabled"]) == ("offline", False)


async def test_a_share_of_users_is_admitted(database: Any) -> None:
    async with api_daemon(database, feeds=MemoryFeeds(), keys=KEYS, settings={"realtime_percent": 30}) as daemon:
        for user in ("u1", "u2", "u3", "u4", "u5", "u6"):
            found = await refusal(daemon, **OPS | {"X-User-Id": user})
            assert found == ((101, "") if is_admitted(user, 30) else (403, "realtime_not_admitted"))


def test_who_is_admitted_stays_so_when_the_share_grows() -> None:
    users = [f"user{number}" for number in range(5000)]
    some, more = ({user for user in users if is_admitted(user, percent)} for percent in (10, 40))
    assert some < more
    assert 0.08 < len(some) / len(users) < 0.12
    assert all(is_admitted(user, 100) for user in users)
    assert not any(is_admitted(user, 0) for user in users)


async def test_a_handshake_that_is_none_is_refused(open_daemon: ApiDaemon) -> None:
    assert (await open_daemon.get("/ws/portfolio"))[1]["code"] == "upgrade_needed"
    assert await refusal(open_daemon, **{"Sec-WebSocket-Version": "12"}) == (400, "bad_handshake")
    assert await refusal(open_daemon, **{"Sec-WebSocket-Key": "short"}) == (400, "bad_handshake")
    assert (await open_daemon.call("HEAD", "/api/stream"))[0] == 405
    reader, writer = await asyncio.open_connection("127.0.0.1", open_daemon.door.port)
    writer.write(b"GET /api/stream HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert b"http_1_1_needed" in await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    assert open_daemon.parts.api.streams.status()["users"] == 0


# ---- raw frames


class Raw:
    """A WebSocket client that may send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def frame(self, first: int, payload: bytes, length: int | None = None) -> None:
        size = len(payload) if length is None else length
        head = bytes([first]) + (
            bytes([0x80 | size])
            if size < 126
            else b"\xfe" + struct.pack("!H", size)
            if size < 65536
            else b"\xff" + struct.pack("!Q", size)
        )
        self.writer.write(head + bytes(4) + payload)

    async def close_code(self) -> int:
        """The code of the close frame that comes last."""
        async with asyncio.timeout(PATIENCE):
            frames = frames_in(await self.reader.read())
        assert frames[-1][0] == 0x88
        return int.from_bytes(frames[-1][1][:2], "big")


@asynccontextmanager
async def raw_of(daemon: ApiDaemon, receive_buffer: int | None = None) -> AsyncIterator[Raw]:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", daemon.door.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    writer.write(
        b"GET /ws/portfolio HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


async def a_binary(raw: Raw) -> None:
    raw.frame(0x82, b"\x00\x01")


async def invalid_utf8(raw: Raw) -> None:
    raw.frame(0x81, b"\xff\xfe")


async def five_megabytes(raw: Raw) -> None:
    raw.frame(0x81, b"x" * (5 << 20))


async def an_endless_length(raw: Raw) -> None:
    raw.frame(0x81, b"", 1 << 62)


async def fragments_without_end(raw: Raw) -> None:
    raw.frame(0x01, b"x" * 1000)
    for _ in range(200):
        raw.frame(0x00, b"x" * 1000)


async def reserved_bits(raw: Raw) -> None:
    raw.frame(0xF1, b"{}")


async def unknown_opcode(raw: Raw) -> None:
    raw.frame(0x83, b"{}")


async def a_flood_of_pings(raw: Raw) -> None:
    for _ in range(5000):
        raw.frame(0x89, b"x" * 100)


async def a_flood_of_messages(raw: Raw) -> None:
    for _ in range(200):
        raw.frame(0x81, b'{"type": "ping"}')


async def a_flood_of_pongs(raw: Raw) -> None:
    for _ in range(200):
        raw.frame(0x8A, b"")


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (a_binary, 1003),
        (invalid_utf8, 1007),
        (five_megabytes, 1009),
        (an_endless_length, 1009),
        (fragments_without_end, 1009),
        (reserved_bits, 1002),
        (unknown_opcode, 1002),
        (a_flood_of_pings, 1008),
        (a_flood_of_messages, 1008),
        (a_flood_of_pongs, 1008),
    ],
)
async def test_a_bad_frame_ends_its_connection_with_the_reason_and_no_other(
    open_daemon: ApiDaemon, send: Callable[[Raw], Awaitable[None]], code: int
) -> None:
    async with socket_of(open_daemon) as other, raw_of(open_daemon) as raw:
        await send(raw)
        assert await raw.close_code() == code
        await other.send_json({"type": "ping"})
        assert await said(other) == {"type": "pong"}
    await until(lambda: not open_daemon.parts.realtime.hub.connections())
    assert open_daemon.parts.api.streams.status()["users"] == 0


async def test_fragments_of_nothing_without_end_are_not_even_looked_at(open_daemon: ApiDaemon) -> None:
    async with socket_of(open_daemon) as other, raw_of(open_daemon) as raw:
        raw.frame(0x01, b"")
        raw.writer.write(500_000 * (b"\x00\x80" + bytes(4)))
        assert (await raw.reader.readexactly(4)) == b"\x88\x10" + (1008).to_bytes(2, "big")
        await other.send_json({"type": "ping"})
        assert await said(other) == {"type": "pong"}
        open_daemon.clock.advance(3)
        await until(lambda: len(open_daemon.parts.realtime.hub.connections()) == 1)


async def test_a_message_may_come_in_fragments_with_pings_between(open_daemon: ApiDaemon) -> None:
    async with raw_of(open_daemon) as raw:
        raw.frame(0x01, b'{"type":')
        raw.frame(0x89, b"here?")
        raw.frame(0x80, b'"ping"}')
        assert await raw.reader.readexactly(7) == b"\x8a\x05here?"
        assert texts_in(await raw.reader.readexactly(17)) == [{"type": "pong"}]


async def test_ten_messages_a_second_are_taken(open_daemon: ApiDaemon) -> None:
    async with socket_of(open_daemon) as websocket:
        for _ in range(20):
            await websocket.send_json({"type": "ping"})
            await said(websocket)
        for _ in range(20):
            open_daemon.clock.advance(0.1)
            await websocket.send_json({"type": "ping"})
            await said(websocket)
        await websocket.send_json({"type": "ping"})
        assert await closed_with(websocket) == 1008


async def test_a_client_that_never_reads_costs_one_message_delays_nobody_and_is_dropped(
    open_daemon: ApiDaemon,
) -> None:
    feeds, mine, clock = feeds_of(open_daemon), await portfolio(open_daemon), open_daemon.clock
    hub, note = open_daemon.parts.realtime.hub, "x" * 20_000
    async with socket_of(open_daemon) as quick, raw_of(open_daemon, receive_buffer=4096) as stuck:
        await subscribed(quick)
        stuck.frame(0x81, b'{"type": "subscribe"}')
        await until(lambda: len(hub.connections()) == 2 and all(one.topics for one in hub.connections()))
        slow = next(
            one
            for one in hub.connections()
            if one.transport.get_extra_info("peername") == stuck.writer.get_extra_info("sockname")
        )
        most = 0
        for value in range(400):
            feeds.set(mine, {"account": {**account(value), "note": note}})
            await settle()
            clock.advance(0.03)
            update = await said(quick)
            assert update["events"][0]["totalValue"] == value
            most = max(most, slow.transport.get_write_buffer_size())
        assert hub.behind == 1
        assert 0 < most < 2 * len(note)
        for _ in range(32):
            clock.advance(1)
            await quick.send_json({"type": "ping"})
            assert await said(quick) == {"type": "pong"}
        await until(lambda: len(hub.connections()) == 1)
        assert hub.stats.dropped_slow == 1


async def test_a_client_that_reads_again_gets_every_event_once_and_the_latest_values(open_daemon: ApiDaemon) -> None:
    feeds, mine, clock = feeds_of(open_daemon), await portfolio(open_daemon), open_daemon.clock
    hub, note = open_daemon.parts.realtime.hub, "x" * 20_000
    async with raw_of(open_daemon, receive_buffer=4096) as slow:
        slow.frame(0x81, b'{"type": "subscribe"}')
        await until(lambda: any(one.topics for one in hub.connections()))
        number = 0
        while not hub.behind or number % 50:
            number += 1
            feeds.happen(mine, note=note)
            feeds.set(mine, {"account": account(number)})
            await settle()
            clock.advance(0.03)
            await settle()
        raw = b""
        async with asyncio.timeout(20):
            while f'"totalValue":{number}}}'.encode() not in raw[-200:]:
                raw += await slow.reader.read(1 << 20)
        found = texts_in(raw)
        assert [e["seq"] for m in found for e in m.get("events", ()) if "seq" in e] == list(range(1, number + 1))


# ---- the end


async def test_at_the_stop_sockets_are_closed_with_1001_and_streams_are_told(database: Any) -> None:
    async with api_daemon(database, feeds=MemoryFeeds()) as daemon:
        await portfolio(daemon)
        async with socket_of(daemon) as websocket, events_of(daemon) as stream:
            await subscribed(websocket)
            closing = asyncio.create_task(daemon.parts.realtime.hub.close())
            assert await closed_with(websocket) == 1001
            while (message := await stream.next())["type"] != "closing":
                pass
            assert message == {"type": "closing", "code": 1001, "reason": "stopping"}
            assert await stream.next() == {}
            await asyncio.wait_for(closing, PATIENCE)
            assert await refusal(daemon) == (503, "stopping")


async def test_a_client_that_does_not_answer_the_close_holds_the_stop_up_for_two_seconds(database: Any) -> None:
    async with api_daemon(database, feeds=MemoryFeeds()) as daemon, raw_of(daemon):
        began = asyncio.get_running_loop().time()
        await daemon.parts.realtime.hub.close()
        assert asyncio.get_running_loop().time() - began < 3


async def test_a_client_of_the_websockets_library_is_told_why(open_daemon: ApiDaemon) -> None:
    async with connect(open_daemon.base.replace("http", "ws") + "/ws/portfolio", max_size=None) as websocket:
        await websocket.send("x" * (65 << 10))
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
