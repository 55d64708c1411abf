"""The edge's language: problems, camelCase, instants, and kept answers byte by byte."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pricecache import errors
from pricecache.api import wire
from pricecache.api.auth import FailedAttempts, parse_key
from pricecache.api.inputs import BarsBody, HistoryQuery, TrackBody
from pricecache.api.kept import HttpDate, Kept, KeptForever, KeptResponses, accepts_gzip, matches
from pricecache.api.origins import Origins, is_loopback, names_loopback


def every_error() -> list[type[errors.PricecacheError]]:
    found = [errors.PricecacheError]
    for family in found:
        found += family.__subclasses__()
    return found


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Invalid(), 422),
        (wire.Malformed(), 400),
        (wire.TooLarge(), 413),
        (wire.TooSlow(), 408),
        (wire.UnsupportedBody(), 415),
        (wire.NotAcceptable(), 406),
        (wire.TooManyAttempts(30.0), 429),
        (errors.NotFound(), 404),
        (errors.Conflict(), 409),
        (errors.Unauthorized(), 401),
        (errors.Forbidden(), 403),
        (errors.Unavailable(), 503),
        (errors.SymbolNotFound(), 404),
        (errors.RateLimited(), 503),
        (errors.ProviderUnavailable(), 503),
        (errors.ProviderAnswerBad(), 502),
        (errors.Corrupt(), 500),
    ],
)
def test_each_family_of_errors_has_its_status(error: errors.PricecacheError, status: int) -> None:
    assert wire.status_of(error) == status


def test_a_problem_says_what_rfc_9457_wants_and_the_facts() -> None:
    error = errors.Invalid("2 bad rows", code="invalid", rows=[{"row": 1, "code": "x_y"}], first_row=1)
    problem = wire.problem_of(error, 422, "/cache/x", "abc")
    assert problem == {
        "type": "urn:pricecache:problem:invalid",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "2 bad rows",
        "instance": "/cache/x",
        "code": "invalid",
        "requestId": "abc",
        "firstRow": 1,
        "errors": [{"row": 1, "code": "x_y"}],
    }


def test_facts_never_replace_the_members_of_a_problem() -> None:
    problem = wire.problem_of(errors.NotFound("gone", code="gone", status="fake", instance="fake"), 404, "/a", "id")
    assert (problem["status"], problem["instance"]) == (404, "/a")


def test_what_passes_says_when_to_try_again() -> None:
    assert wire.problem_of(errors.Unavailable(retry_after=7), 503, "/", "i")["retryAfter"] == 7
    assert wire.problem_of(errors.RateLimited(), 503, "/", "i")["retryAfter"] == 1.0


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_every_error_has_a_code_and_a_status(error: type[errors.PricecacheError]) -> None:
    assert error.code.replace("_", "").isalpha()
    assert 400 <= wire.status_of(error.__new__(error)) <= 503


def test_nan_and_infinity_never_leave() -> None:
    sent = wire.encode({"a": math.nan, "b": [math.inf], "c": np.array([1.5, math.nan])})
    assert json.loads(sent) == {"a": None, "b": [None], "c": [1.5, None]}
    assert sent.endswith(b"\n")


def test_keys_become_camel_case_and_names_stay() -> None:
    assert wire.camel({"data_bytes": 1, "AAPL_X": {"next_retry": 2}, "BRK-B": 3, "rows": [{"a_b": 4}]}) == {
        "dataBytes": 1,
        "AAPL_X": {"nextRetry": 2},
        "BRK-B": 3,
        "rows": [{"aB": 4}],
    }


def test_instants_are_rfc_3339_in_utc() -> None:
    assert wire.instant(1795168800.9) == "2026-11-20T10:00:00Z"
    assert wire.instant(None) is None
    assert wire.iso_day(20777) == "2026-11-20"


BODY = b'{"bars": [{"date": "2024-01-02", "close": 1}]}'


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"[" * 200_000, 400, "malformed_json"),
        (b'{"bars":' * 100_000, 400, "malformed_json"),
        (b'{"currency": "\xff\xfe"}', 400, "malformed_json"),
        (b'{"currency": "\\ud800"}', 400, "malformed_json"),
        ('{"bars": []}'.encode("utf-16"), 400, "malformed_json"),
        (BODY.replace(b"1}", b"9" * 5000 + b"}"), 400, "malformed_json"),
        (BODY.replace(b"1}", b"NaN}"), 422, "not_finite"),
        (BODY.replace(b"1}", b"1e999}"), 422, "not_finite"),
        (BODY.replace(b"1}", b"true}"), 422, "invalid_value"),
        (BODY.replace(b"1}", b'{"$gt": ""}}'), 422, "invalid_value"),
        (BODY.replace(b"2024-01-02", b"2024-02-30"), 422, "bad_date"),
        (BODY.replace(b'"2024-01-02"', b"1704153600"), 422, "bad_date"),
        (BODY.replace(b'"close"', b'"$where": 1, "close"'), 422, "unknown_field"),
        (b'{"bars": []}', 422, "too_few"),
        (b"[]", 422, "invalid_value"),
        (b"null", 422, "invalid_value"),
    ],
)
def test_a_bad_body_is_told_apart_from_an_unreadable_one(body: bytes, status: int, code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BarsBody.model_validate_json(body)
    told = wire.invalid_input(caught.value, "body")
    assert (wire.status_of(told), told.code) == (status, code)


def test_every_bad_row_is_told_at_once() -> None:
    rows = [{"date": "2024-01-02", "close": 1}, {"date": "x", "close": 1}, {"close": 2}, {"date": "2024-01-03"}]
    with pytest.raises(ValidationError) as caught:
        BarsBody.model_validate_json(json.dumps({"bars": rows}))
    told = wire.invalid_input(caught.value, "body")
    assert [(row["row"], row["field"], row["code"]) for row in told.rows] == [
        (1, "bars.1.date", "bad_date"),
        (2, "bars.2.date", "missing"),
        (3, "bars.3.close", "missing"),
    ]


def test_what_was_sent_is_never_echoed() -> None:
    with pytest.raises(ValidationError) as caught:
        TrackBody.model_validate_json(json.dumps({"symbols": ["<script>" * 20, {"symbol": {"$gt": "hunter2"}}]}))
    told = wire.invalid_input(caught.value, "body")
    assert "script" not in json.dumps(told.rows)
    assert "hunter2" not in json.dumps(told.rows)


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"start": "2024-02-01", "end": "2024-01-01"}, "start_after_end", "start"),
        ({"start": "0000-00-00"}, "bad_date", "start"),
        ({"end": "2024-1-1"}, "bad_date", "end"),
        ({"period": "7Q"}, "unknown_period", "period"),
        ({"period": "1Y", "start": "2024-01-01"}, "period_and_start", "period"),
        ({"interval": "2m"}, "unsupported_interval", "interval"),
        ({"market": "MARS"}, "unknown_market", "market"),
        ({"market": "\u0130"}, "unknown_market", "market"),
        ({"fields": ["close,price"]}, "invalid_value", "fields.1"),
        ({"fields": [""]}, "too_few", "fields"),
        ({"format": "xml"}, "invalid_value", "format"),
        ({"adjust": "1"}, "invalid_value", "adjust"),
        ({"limit": "1"}, "unknown_parameter", "limit"),
    ],
)
def test_a_bad_query_names_its_field(query: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HistoryQuery.model_validate(query)
    told = wire.invalid_input(caught.value, "query")
    assert (told.code, told.rows[0]["field"]) == (code, field)


DATE = HttpDate().at(1795168800.5)


def test_a_kept_answer_is_a_whole_http_answer() -> None:
    kept = KeptForever(b'{"a":1}\n', '"tag"')
    found = kept.wire(None, None, DATE)
    assert found is not None
    head, _, body = found[1].partition(b"\r\n\r\n")
    assert head.decode().splitlines() == [
        "HTTP/1.1 200 OK",
        "Content-Type: application/json",
        'ETag: "tag"',
        "Cache-Control: private, no-cache",
        "Vary: Accept-Encoding, Origin",
        "X-Content-Type-Options: nosniff",
        "Server: pricecache",
        "Content-Length: 8",
        "Date: Fri, 20 Nov 2026 10:00:00 GMT",
    ]
    assert body == b'{"a":1}\n'


def test_the_date_of_a_kept_answer_moves_on() -> None:
    kept = KeptForever(b"x", '"tag"')
    first, second = kept.wire(None, None, DATE), kept.wire(None, None, HttpDate().at(1795168861))
    assert first is not None
    assert second is not None
    assert b"10:00:00 GMT" in first[1]
    assert second[1] == first[1].replace(b"10:00:00", b"10:01:01")


def test_who_has_it_already_gets_304_and_no_body() -> None:
    kept = KeptForever(b"x" * 5000, '"tag"')
    for header in ('"tag"', 'W/"tag"', '"other", "tag"', '"tag-gz"', "*"):
        found = kept.wire(header, "gzip", DATE)
        assert found is not None
        assert found[0] == 304
        assert found[1].endswith(b"\r\n\r\n")
        assert b"Content-Length" not in found[1]
    assert not matches('"ta"', '"tag"')


def test_the_gzip_twin_is_made_when_first_asked_for() -> None:
    body = b"0123456789" * 500
    kept = KeptForever(body, '"tag"')
    assert kept.wire(None, "gzip, br", DATE) is None
    before = kept.nbytes
    kept.make_gzip()
    found = kept.wire(None, "gzip, br", DATE)
    assert found is not None
    head, _, packed = found[1].partition(b"\r\n\r\n")
    assert gzip.decompress(packed) == body
    assert b'ETag: "tag-gz"' in head
    assert b"Content-Encoding: gzip" in head
    assert kept.nbytes > before


def test_a_short_answer_is_never_packed() -> None:
    found = KeptForever(b"short", '"tag"').wire(None, "gzip", DATE)
    assert found is not None
    assert b"gzip" not in found[1]


@pytest.mark.parametrize(
    ("header", "taken"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
def test_accept_encoding_is_read(header: str, taken: bool) -> None:
    assert accepts_gzip(header) is taken


def test_kept_answers_are_bounded_in_bytes() -> None:
    responses = KeptResponses(100_000)
    for number in range(50):
        responses.put(f"/{number}", KeptForever(b"x" * 5000, '"t"'))
    assert responses.nbytes <= 100_000
    assert responses.get("/49") is not None
    assert responses.get("/0") is None
    responses.put("/big", KeptForever(b"x" * 50_000, '"t"'))
    assert responses.get("/big") is None


def test_a_kept_answer_must_say_whether_it_is_current() -> None:
    with pytest.raises(NotImplementedError):
        Kept(b"", '""').current(0.0)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.2:8080", "localhost", "LOCALHOST:1", "localhost.:80", "[::1]", "[::1]:8080", "::1"]
)
def test_loopback_names_are_known(host: str) -> None:
    assert names_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::1].evil", "127.0.0.1:80@evil"),
        *("0.0.0.0", "10.0.0.1:8080", "", ":80", "[::]", "2130706433"),
    ],
)
def test_other_names_are_not_loopback(host: str) -> None:
    assert not names_loopback(host)
    assert not is_loopback(host)


def test_origins_are_those_named_and_the_host_itself() -> None:
    origins = Origins(["https://pages.example", "http://localhost:3000/"])
    assert origins.allows("https://pages.example", "api.example")
    assert origins.allows("https://api.example:8443", "api.example:8443")
    for foreign in ("null", "http://pages.example", "https://pages.example.evil", "https://evil", "api.example", ""):
        assert not origins.allows(foreign, "api.example")
    assert origins.answer_headers("https://evil") == {}


@pytest.mark.parametrize("origin", ["pages.example", "https://a/b", "ftp://a", "https://", "*", "https://a?b"])
def test_a_setting_that_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(errors.Misconfigured):
        Origins([origin])


def test_a_key_of_the_settings_has_its_scopes_and_what_they_include() -> None:
    digest, principal = parse_key("grafana:read+ops:s:e:c")
    assert principal.name == "key:grafana"
    assert principal.scopes == {"read", "ops"}
    assert len(digest) == 32
    assert parse_key("root:admin:x")[1].scopes == {"read", "ops", "admin"}


@pytest.mark.parametrize("setting", ["", "a", "a:read", "a:read:", ":read:x", "a:write:x", "a:read+:x", "a::x"])
def test_a_setting_that_is_no_key_is_refused_without_its_secret(setting: str) -> None:
    with pytest.raises(errors.Misconfigured) as caught:
        parse_key(setting + "hunter2" if setting.endswith("x") else setting)
    assert "hunter2" not in caught.value.detail


def test_ten_wrong_keys_a_minute_and_no_more() -> None:
    attempts = FailedAttempts()
    for _ in range(10):
        attempts.check("a", 0.0)
        attempts.add("a", 0.0)
    with pytest.raises(wire.TooManyAttempts) as caught:
        attempts.check("a", 20.0)
    assert caught.value.retry_after == 40.0
    attempts.check("b", 20.0)
    attempts.check("a", 60.0)
    assert not attempts.blocking
