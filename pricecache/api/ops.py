"""Health, metrics, the OpenAPI document, and the pages that explain the daemon to a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pricecache.api.call import Answer, Call, Document
from pricecache.api.encoding import etag_of
from pricecache.api.kept import Kept, KeptForever
from pricecache.api.openapi import openapi_document
from pricecache.api.wire import encode
from pricecache.errors import NotFound
from pricecache.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from pricecache.api.routing import Route

_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
}
_SCRIPT = "text/javascript; charset=utf-8"
_STATIC = {"docs.js": _SCRIPT, "docs.css": "text/css; charset=utf-8"}


async def healthz(call: Call) -> Answer:
    return Answer({"status": "ok"})


async def health(call: Call) -> Answer:
    return Answer({"status": "ok"}) if call.services.status.is_ready else await readyz(call)


async def readyz(call: Call) -> Answer:
    checks = dict(call.services.status.checks())
    if call.services.status.is_ready:
        return Answer({"status": "ok", "checks": checks})
    return Answer({"status": "unavailable", "checks": checks}, 503, {"Retry-After": "1"})


async def metrics(call: Call) -> Document:
    return Document(call.services.metrics.exposition(), CONTENT_TYPE)


async def start_page(call: Call) -> Kept:
    return _page("index.html", "text/html; charset=utf-8")


async def docs_page(call: Call) -> Kept:
    return _page("docs.html", "text/html; charset=utf-8")


async def static_file(call: Call) -> Kept:
    name = call.path["name"]
    if name not in _STATIC:
        raise NotFound("There is no such file.", code="no_such_path")
    return _page(name, _STATIC[name])


async def stream_client(call: Call) -> Kept:
    return _page("stream.js", _SCRIPT)


class OpenApi:
    """`GET /openapi.json`: the document of a table of routes, made when first asked for."""

    def __init__(self, routes: Callable[[], Sequence[Route]]) -> None:
        self._routes = routes
        self._body: bytes | None = None

    async def __call__(self, call: Call) -> Kept:
        if self._body is None:
            self._body = encode(openapi_document(self._routes()))
        return KeptForever(self._body, etag_of(self._body))


def _page(name: str, content_type: str) -> Kept:
    body = _static_bytes(name)
    return KeptForever(body, etag_of(body), content_type=content_type, headers=_PAGE_HEADERS)


@cache
def _static_bytes(name: str) -> bytes:
    return files("pricecache.api").joinpath("static", name).read_bytes()
