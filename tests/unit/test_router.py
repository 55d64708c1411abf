"""The table finds its row by what was sent, and refuses what is not one clean piece of text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.api.routes import ROUTES
from pricecache.api.routing import MethodNotAllowed, Route, Router, clean_segment
from pricecache.errors import Invalid, NotFound


async def _handler(call: Any) -> Any:
    raise NotImplementedError


def route(method: str, path: str) -> Route:
    return Route(method, path, _handler)


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(
        [
            route("GET", "/"),
            route("GET", "/cache/live"),
            route("GET", "/cache/live/{symbol}"),
            route("PUT", "/cache/live/{symbol}"),
            route("DELETE", "/api/things/{id}/parts/{part}"),
        ]
    )


@pytest.mark.parametrize(
    ("method", "path", "found", "parameters"),
    [
        ("GET", "/", "/", {}),
        ("GET", "/cache/live", "/cache/live", {}),
        ("HEAD", "/cache/live", "/cache/live", {}),
        ("GET", "/cache/live/AAPL", "/cache/live/{symbol}", {"symbol": "AAPL"}),
        ("HEAD", "/cache/live/%5EGSPC", "/cache/live/{symbol}", {"symbol": "^GSPC"}),
        ("PUT", "/cache/live/EURUSD=X", "/cache/live/{symbol}", {"symbol": "EURUSD=X"}),
        ("DELETE", "/api/things/a%20b/parts/7", "/api/things/{id}/parts/{part}", {"id": "a b", "part": "7"}),
    ],
)
def test_a_request_finds_its_row(
    router: Router, method: str, path: str, found: str, parameters: dict[str, str]
) -> None:
    row, decoded = router.match(method, path)
    assert (row.path, decoded) == (found, parameters)


@pytest.mark.parametrize(
    "path",
    ["", "/cache", "/cache/live/", "/cache/live/A/B", "//cache/live", "/Cache/live", "/cache/l%69ve", "/" * 3000, "*"],
)
def test_another_path_is_not_found(router: Router, path: str) -> None:
    with pytest.raises((NotFound, Invalid)) as caught:
        router.match("GET", path)
    assert caught.value.code in ("no_such_path", "invalid_path")


def test_another_method_is_refused_with_those_allowed(router: Router) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        router.match("POST", "/cache/live/AAPL")
    assert caught.value.allowed == "GET, HEAD, PUT"
    assert router.allowed("/cache/live") == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    "segment",
    ["", "%2f", "a%2Fb", "..%2f..%2fetc", "%00", "A%00B", "A%0d%0aX:1", "%ff%fe", "%C0%AF", "a%5Cb", "%E2%80%AE", "%7f",
     "%E2%80%8B", "%ED%A0%80", "%EF%BF%BF"],
)  # fmt: skip
def test_a_segment_with_slash_control_or_invisible_characters_is_refused(segment: str) -> None:
    with pytest.raises(Invalid) as caught:
        clean_segment(segment)
    assert caught.value.code == "invalid_path"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40))
def test_decoding_never_surprises(raw: str) -> None:
    """Whatever is sent, a parameter is one clean piece of text or a refusal."""
    try:
        text = clean_segment(raw)
    except Invalid:
        return
    assert text
    assert text.isprintable()
    assert "/" not in text


def test_a_row_that_stands_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="twice"):
        Router([route("GET", "/a/{x}"), route("GET", "/a/{x}")])


SIGNED = {"/api/plaid/webhook"}
"""Open to everybody, and believing only who signs what is sent."""


def test_the_table_says_all_of_every_route() -> None:
    faults = []
    for row in ROUTES:
        if not (row.summary and row.tags and row.answers):
            faults.append(f"{row.method} {row.path} lacks a summary, a tag or its answers")
        if row.method != "GET" and row.scope is None and row.path not in SIGNED:
            faults.append(f"{row.method} {row.path} changes something and is open to everybody")
        if row.method == "GET" and row.body is not None:
            faults.append(f"{row.method} {row.path} takes a body")
    assert not faults, "\n".join(faults)
    Router(ROUTES)
