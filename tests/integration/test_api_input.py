"""Bad input over HTTP: always a 4xx with a code, never a surprise, nothing stored, no provider called."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pricecache.api.routes import ROUTES
from pricecache.api.routing import Route, Router
from pricecache.core.instruments import Instrument
from pricecache.errors import Corrupt, Invalid
from tests.integration.api_daemon import ApiDaemon, api_daemon

NAUGHTY = [
    "..%2f..%2fetc", "%2e%2e", "..", "%00", "A%00B", "A%0d%0aX-Header:1", "%ff%fe", "%", "%zz", "$gt", "A" * 9000,
    "%7B%22%24gt%22:%22%22%7D", "A" * 33, quote("🚀"), quote("\u202eLPAA"), quote("İ"), quote("AAPL\u200b"),
    quote("ＡＡＰＬ"), quote("<script>alert(1)</script>"), quote("{{7*7}}"), quote("AAPL' OR '1'='1"), "CON", "-rf",
    "--help", "A..B", "*", "AAPL;ls", "AAPL:MARS", "AAPL:US:US", quote("A B"), "null", "undefined", "__proto__", "~",
]  # fmt: skip
"""Sent as they stand where a symbol is expected; those that are symbols after all are simply not known."""


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, max_body_bytes=1 << 20) as started:
        yield started


async def raw(daemon: ApiDaemon, request: bytes, *, end: bool = False) -> tuple[int, bytes]:
    """Status and everything answered to bytes sent as they are, until the daemon closes or the answer is whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.door.port)
    writer.write(request)
    if end:
        writer.write_eof()
    try:
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
    finally:
        writer.close()
    return int(head.split()[1]), body


def unchanged(daemon: ApiDaemon) -> bool:
    return not daemon.provider.calls and len(daemon.services.catalog) == 0


@pytest.mark.parametrize("where", ["historical", "live", "coverage", "actions"])
async def test_a_naughty_symbol_in_the_path_is_a_4xx_with_a_code(daemon: ApiDaemon, where: str) -> None:
    for text in NAUGHTY:
        status, problem = await daemon.get(f"/cache/{where}/{text}")
        assert 400 <= status < 500, text
        assert problem["code"], text
        assert problem["status"] == status
        if len(text) < 2000:
            assert problem["code"] in (
                "invalid_path",
                "invalid_symbol",
                "unknown_symbol",
                "unknown_market",
                "no_such_path",
            )
    assert unchanged(daemon)


async def test_a_naughty_symbol_in_a_query_or_body_is_a_4xx_with_a_code(daemon: ApiDaemon) -> None:
    for text in NAUGHTY:
        if len(text) < 8000:
            status, answer = await daemon.get(f"/cache/live?symbols={text}")
            # a name that could be a symbol is listed as missing
            assert status in (400, 422) or answer["missing"][0]["code"] == "unknown_symbol", text
        try:
            Instrument.parse(text)
        except Invalid:
            status, problem = await daemon.call("POST", "/cache/backfill-symbol", json={"symbol": text})
            assert (status, problem["code"]) in ((422, "invalid_symbol"), (422, "unknown_market")), text
    assert unchanged(daemon)


@pytest.mark.parametrize(
    "symbol", ['{"$gt": ""}', '{"$ne": null}', '["AAPL"]', "1", "null", "true", "1e999", "NaN", '"' + "A" * 9000 + '"']
)
async def test_a_symbol_that_is_no_text_never_gets_near_a_query(daemon: ApiDaemon, symbol: str) -> None:
    for body in (f'{{"symbol": {symbol}}}', f'{{"symbol": "AAPL", "symbol": {symbol}}}'):
        status, problem = await daemon.call(
            "POST", "/cache/backfill-symbol", data=body.encode(), headers={"Content-Type": "application/json"}
        )
        assert status in (400, 422)
        assert problem["code"] in ("invalid_symbol", "malformed_json")
    assert unchanged(daemon)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("start=2024-02-01&end=2024-01-01", "start_after_end"),
        ("start=2999-01-01", "start_after_end"),
        ("start=0000-00-00", "bad_date"),
        ("start=2024-01-01&start=2024-01-02", "repeated_parameter"),
        ("from=2024-01-01", "unknown_parameter"),
        ("symbol[$gt]=", "unknown_parameter"),
        ("period=1Y&start=2024-01-01", "period_and_start"),
        ("interval=2m", "unsupported_interval"),
        ("interval=", "unsupported_interval"),
        ("market=", "unknown_market"),
        ("market=MARS", "unknown_market"),
        ("fields=close,close,nope", "invalid_value"),
        ("format=xml", "invalid_value"),
        ("adjust=%ff", "bad_query"),
        ("&".join(f"a{i}=1" for i in range(150)), "bad_query"),
        ("start=%00", "bad_date"),
        ("start=" + "9" * 5000, "bad_date"),
    ],
)
async def test_a_bad_query_is_refused_by_name(daemon: ApiDaemon, query: str, code: str) -> None:
    await daemon.stored()
    status, problem = await daemon.get(f"/cache/historical/AAPL?{query}")
    assert (status, problem["code"]) == (400 if code == "bad_query" else 422, code)
    assert daemon.provider.calls == []


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/cache/status?x=1", "unknown_parameter"),
        ("/healthz?x=1", "unknown_parameter"),
        ("/cache/runs?limit=-1", "invalid_value"),
        ("/cache/runs?limit=1e9", "invalid_value"),
        ("/cache/runs?job=$where", "invalid_value"),
        ("/cache/symbols?state=dead", "invalid_value"),
    ],
)
async def test_a_bad_parameter_is_refused_elsewhere_too(daemon: ApiDaemon, target: str, code: str) -> None:
    status, problem = await daemon.get(target)
    assert (status, problem["code"]) == (422, code)
    assert problem["errors"][0]["field"]


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "1e999", "x", ""])
async def test_a_wait_has_bounds(daemon: ApiDaemon, wait: str) -> None:
    status, _ = await daemon.call("POST", f"/cache/sync-historical?wait={wait}")
    assert status == 422
    assert (await daemon.get("/cache/runs"))[1]["runs"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 200_000, 400),
        (b'{"symbol":' * 20_000, 400),
        (b'{"symbol": "\xff"}', 400),
        (b'{"symbol": "\\ud800"}', 400),
        ("{}".encode("utf-16"), 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"symbol": ' + b"9" * 5000 + b"}", 400),
        (b"null", 422),
        (b"[]", 422),
        (b'{"symbol": "AAPL", "$where": "sleep(1)"}', 422),
        (b'{"symbol": "AAPL", "start": NaN}', 422),
    ],
)
async def test_a_body_that_is_no_good_is_refused(daemon: ApiDaemon, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    got, problem = await daemon.call("POST", "/cache/backfill-symbol", data=body, headers=headers)
    assert got == status
    assert problem["code"]
    assert unchanged(daemon)


async def test_a_body_that_is_needed_and_not_sent_is_asked_for(daemon: ApiDaemon) -> None:
    for headers in ({"Content-Type": "application/json"}, {}):
        status, problem = await daemon.call("POST", "/cache/backfill-symbol", data=b"", headers=headers)
        assert (status, problem["code"]) == (400, "missing_body")
        assert "JSON body" in problem["detail"]


async def test_a_body_where_none_is_taken_is_refused(daemon: ApiDaemon) -> None:
    status, problem = await daemon.call("DELETE", "/cache/symbols/AAPL", json={"x": 1})
    assert (status, problem["code"]) == (422, "unexpected_body")


async def test_a_body_that_is_too_long_is_refused_before_it_is_read(daemon: ApiDaemon) -> None:
    request = (
        b"POST /cache/backfill-symbol HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10000000000\r\n\r\n{"
    )
    status, body = await raw(daemon, request)
    assert (status, json.loads(body)["code"]) == (413, "body_too_large")


async def test_a_long_body_that_does_not_say_so_is_refused_too(daemon: ApiDaemon) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 32768

    headers = {"Content-Type": "application/json"}
    status, problem = await daemon.call("POST", "/cache/backfill-symbol", data=pieces(), headers=headers)
    assert (status, problem["code"]) == (413, "body_too_large")


async def test_a_packed_body_counts_unpacked(daemon: ApiDaemon) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * (64 << 20))
    status, problem = await daemon.call("POST", "/cache/backfill-symbol", data=bomb, headers=headers)
    assert (status, problem["code"]) == (413, "body_too_large")
    status, problem = await daemon.call("POST", "/cache/backfill-symbol", data=b"not gzip", headers=headers)
    assert (status, problem["code"]) == (400, "malformed")


async def test_a_body_that_drips_is_given_up(database: Any) -> None:
    async with api_daemon(database, body_seconds=0.05) as daemon:
        request = (
            b"POST /cache/backfill-symbol HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        status, body = await raw(daemon, request)
        assert (status, json.loads(body)["code"]) == (408, "body_too_slow")


async def test_a_client_that_asks_first_is_told_to_go_on(daemon: ApiDaemon) -> None:
    body = b'{"symbol": "../x"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.door.port)
    writer.write(
        b"POST /cache/backfill-symbol HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readline()).split()[1] == b"422"
    writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"A" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"A" * 20000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /cache/symbols HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header\r\n\r\n", 400),
        (b"TRACE /cache/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"PATCH /cache/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    ],
)  # fmt: skip
async def test_what_is_no_proper_request_is_a_problem_too(daemon: ApiDaemon, request_bytes: bytes, status: int) -> None:
    got, body = await raw(daemon, request_bytes)
    assert got == status
    assert json.loads(body)["code"]


async def test_old_clients_are_served(daemon: ApiDaemon) -> None:
    await daemon.stored()
    for _ in range(2):
        status, body = await raw(daemon, b"GET /cache/historical/AAPL HTTP/1.0\r\n\r\n")
        assert status == 200
        assert json.loads(body)["symbol"] == "AAPL"


async def test_requests_sent_ahead_are_answered_in_order(daemon: ApiDaemon) -> None:
    daemon.quoted()
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.door.port)
    writer.write(b"GET /cache/live/AAPL HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    for _ in range(20):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["symbol"] == "AAPL"
    writer.close()


async def test_a_path_and_a_target_in_full_are_the_same(daemon: ApiDaemon) -> None:
    request = b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert (await raw(daemon, request))[0] == 200


FIELDS = [
    "symbol",
    "symbols",
    "market",
    "start",
    "bars",
    "date",
    "close",
    "$gt",
    "actions",
    "kind",
    "ratio",
    "currency",
]
SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
NAMES = st.sampled_from(FIELDS) | st.text()
JSON: st.SearchStrategy[Any] = st.deferred(
    lambda: SCALARS | st.lists(JSON, max_size=3) | st.dictionaries(NAMES, JSON, max_size=3)
)
WITH_BODY = [route for route in ROUTES if route.body is not None and route.path != "/api/admin/keys"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_makes_a_server_error(data: st.DataObject) -> None:
    """Any JSON at all against every model: it is taken or refused, and a refusal can always be told."""
    from pydantic import ValidationError

    from pricecache.api.wire import invalid_input, problem_of, status_of

    route: Route = data.draw(st.sampled_from(WITH_BODY))
    assert route.body is not None
    try:
        route.body.model_validate_json(json.dumps(data.draw(JSON)))
    except ValidationError as exc:
        told = invalid_input(exc, "body")
        assert status_of(told) in (400, 422)
        json.dumps(problem_of(told, 422, "/", "id"), allow_nan=False)


async def test_a_fault_of_ours_is_told_without_its_inside(database: Any, capfd: pytest.CaptureFixture[str]) -> None:
    async def broken(call: Any) -> Any:
        raise RuntimeError("hunter2")

    routes = (Route("GET", "/broken", broken, None, summary="x", tags=("x",)),)
    Router(routes)
    async with api_daemon(database, routes=routes) as daemon:
        status, problem = await daemon.get("/broken")
        assert (status, problem["code"]) == (500, "internal_error")
        assert "hunter2" not in json.dumps(problem)
        assert problem["requestId"] in capfd.readouterr().out


async def test_a_handler_that_takes_too_long_is_given_up(database: Any) -> None:
    async def slow(call: Any) -> Any:
        await asyncio.Event().wait()

    routes = (Route("GET", "/slow", slow, None, summary="x", tags=("x",)),)
    async with api_daemon(database, routes=routes, request_seconds=0.05) as daemon:
        status, problem = await daemon.get("/slow")
        assert (status, problem["code"], problem["retryAfter"]) == (503, "deadline_exceeded", 1.0)


async def test_a_change_outlasts_the_request_that_asked_for_it(database: Any) -> None:
    """It is told that it takes too long, and is neither cut in half nor forgotten when the daemon stops."""
    entered, leave, done = asyncio.Event(), asyncio.Event(), []

    async def slow(call: Any) -> Any:
        entered.set()
        await leave.wait()
        done.append(call.path)

    routes = (Route("PUT", "/slow", slow, None, summary="x", tags=("x",)),)
    async with api_daemon(database, routes=routes, request_seconds=0.05) as daemon:
        status, problem = await daemon.call("PUT", "/slow")
        assert (status, problem["code"]) == (503, "deadline_exceeded")
        assert "goes on" in problem["detail"]
        assert entered.is_set()
        assert not done
        closing = asyncio.create_task(daemon.dispatcher.close())
        leave.set()
        await closing
        assert done == [{}]


async def test_a_change_that_never_ends_is_cancelled_at_the_stop(database: Any) -> None:
    ended = []

    async def endless(call: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(call.path)

    routes = (Route("DELETE", "/endless", endless, None, summary="x", tags=("x",)),)
    async with api_daemon(database, routes=routes, request_seconds=0.05) as daemon:
        assert (await daemon.call("DELETE", "/endless"))[0] == 503
        await daemon.dispatcher.close()
        assert ended == [{}]


async def test_a_fault_of_a_late_change_is_told(database: Any) -> None:
    leave = asyncio.Event()

    async def broken(call: Any) -> Any:
        await leave.wait()
        raise RuntimeError("late")

    routes = (Route("PUT", "/late", broken, None, summary="x", tags=("x",)),)
    async with api_daemon(database, routes=routes, request_seconds=0.05) as daemon:
        with capture_logs() as lines:
            assert (await daemon.call("PUT", "/late"))[0] == 503
            leave.set()
            await daemon.dispatcher.close()
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["request failed"]


async def test_corrupt_data_are_told_once_a_series_and_answered_each_time(database: Any) -> None:
    async def corrupt(call: Any) -> Any:
        raise Corrupt(f"{call.path['symbol']}: year {next(years)} is broken.", series=call.path["symbol"])

    years = itertools.count(2001)
    routes = (Route("GET", "/corrupt/{symbol}", corrupt, None, summary="x", tags=("x",)),)
    async with api_daemon(database, routes=routes) as daemon:
        with capture_logs() as lines:
            for symbol in ("AAPL", "IBM", "AAPL", "AAPL"):
                status, problem = await daemon.get(f"/corrupt/{symbol}")
                assert (status, problem["code"]) == (500, "corrupt")
    told = [(line["log_level"], line["detail"].split()[0]) for line in lines if line["event"] == "request refused"]
    assert told == [("error", "AAPL:"), ("error", "IBM:"), ("debug", "AAPL:"), ("debug", "AAPL:")]


async def test_a_symbol_that_looks_odd_and_is_one_is_served(daemon: ApiDaemon) -> None:
    for symbol, sent in (
        ("^GSPC", "%5EGSPC"),
        ("EURUSD=X", "EURUSD%3DX"),
        ("BRK.B", "brk-b"),
        ("0700", "0700"),
        ("AAPL", quote("ＡＡＰＬ")),
    ):
        await daemon.stored(Instrument.parse(symbol), count=3)
        status, answer = await daemon.get(f"/cache/historical/{sent}")
        assert (status, answer.get("symbol")) == (200, symbol)
