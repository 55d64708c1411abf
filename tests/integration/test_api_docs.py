"""What the daemon says of itself: the OpenAPI document, the page that shows it, the metrics."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

from pricecache.api.openapi import openapi_document
from pricecache.api.routes import ROUTES
from tests.integration.api_daemon import ApiDaemon, api_daemon


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database) as started:
        yield started


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document(ROUTES)


async def test_the_document_is_served_and_valid(daemon: ApiDaemon, document: dict[str, Any]) -> None:
    status, served = await daemon.get("/openapi.json")
    assert status == 200
    assert served == document
    OpenAPIV31SpecValidator(served).validate()


def test_every_route_stands_in_the_document(document: dict[str, Any]) -> None:
    written = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert written == {f"{route.method} {route.path}" for route in ROUTES}


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_parameters_are_those_that_are_checked(document: dict[str, Any]) -> None:
    parameters = {p["name"]: p for p in document["paths"]["/cache/historical/{symbol}"]["get"]["parameters"]}
    assert parameters.keys() == {
        *("symbol", "market", "start", "end", "period", "interval", "adjust", "fields", "format", "provisional"),
        "asKnownOn",
    }
    assert parameters["symbol"]["in"] == "path"
    assert parameters["start"]["schema"] == {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}
    assert parameters["interval"]["schema"]["enum"] == ["1d", "1m", "5m", "15m", "1h"]
    assert parameters["format"]["schema"]["enum"] == ["json", "columns", "csv", "arrow"]
    assert parameters["fields"]["explode"] is False


AS_OTHERS_SAY = {"WebhookBody", "ReconstructionMetricsOut"}


def test_names_on_the_wire_are_camel_case(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field in schema.get("properties", {}) if name not in AS_OTHERS_SAY else ():
            assert re.fullmatch(r"[a-z][a-zA-Z0-9]*", field), f"{name}.{field}"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"#/components/schemas/([A-Za-z0-9_]+)", str(document)))
    assert references <= document["components"]["schemas"].keys()


class Page(HTMLParser):
    """Collects what a page loads, where it leads, and what a strict policy would forbid."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        facts = dict(attributes)
        if tag == "a" and facts.get("href"):
            self.links.append(str(facts["href"]))
        elif url := facts.get("src") or (facts.get("href") if tag == "link" else None):
            self.loads.append(str(url))
        elif tag in ("script", "style"):
            self.inline.append(tag)
        self.inline += [name for name in facts if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_are_whole_without_anybody_else(daemon: ApiDaemon, path: str) -> None:
    """Everything a page loads or links to is ours and there, and nothing in it needs a laxer policy."""
    async with daemon.session.get(daemon.base + path) as response:
        policy = response.headers["Content-Security-Policy"]
        page = Page(await response.text())
    assert policy.startswith("default-src 'self';")
    assert page.inline == []
    for url in {*page.loads, *page.links}:
        assert url.startswith("/")
        status, _ = await daemon.get(url)
        assert status == 200, url


async def test_no_other_file_is_served(daemon: ApiDaemon) -> None:
    for name in ("index.html", "docs.html", "..%2fserver.py", "%2e%2e", "docs.js%00", "DOCS.JS"):
        assert (await daemon.get(f"/docs/{name}"))[0] in (404, 422)


@pytest.mark.parametrize("path", ["/docs/docs.js", "/static/stream.js"])
async def test_a_script_writes_text_and_never_markup(daemon: ApiDaemon, path: str) -> None:
    _, script = await daemon.get(path)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?:", script)


async def test_metrics_can_be_read_by_prometheus(daemon: ApiDaemon) -> None:
    await daemon.stored()
    for _ in range(3):
        await daemon.get("/cache/historical/AAPL")
    await daemon.get("/cache/live/NOPE")
    await daemon.get("/nope")
    async with daemon.session.get(daemon.base + "/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        families = {family.name: family for family in text_string_to_metric_families(await response.text())}
    counted = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["pricecache_http_requests"].samples
    }
    assert counted["/cache/historical/{symbol}", "200"] == 3
    assert counted["/cache/live/{symbol}", "404"] == 1
    assert counted["(none)", "404"] == 1
    assert all("AAPL" not in str(sample) for family in families.values() for sample in family.samples)
