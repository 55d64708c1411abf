"""The door: what it says before anybody is behind it, while it is open, and while it closes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pricecache.api.routing import Route
from pricecache.api.server import FrontDoor
from pricecache.errors import Misconfigured
from tests.integration.api_daemon import ApiDaemon, api_daemon

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def door() -> AsyncIterator[FrontDoor]:
    opened = FrontDoor("127.0.0.1", 0, keepalive_seconds=0.2)
    await opened.start()
    yield opened
    await opened.stop(0)


async def ask(door: FrontDoor, path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{door.port}{path}") as response,
    ):
        return response.status, json.loads(await response.read()), dict(response.headers)


async def test_before_anybody_is_behind_it_the_door_says_so(door: FrontDoor) -> None:
    door.checks = {"mongodb": "waiting"}
    assert (await ask(door, "/healthz"))[:2] == (200, {"status": "ok"})
    for path in ("/readyz", "/health"):
        assert (await ask(door, path))[:2] == (503, {"status": "starting", "checks": {"mongodb": "waiting"}})
    status, problem, headers = await ask(door, "/cache/live/AAPL?market=US")
    assert (status, problem["code"], headers["Retry-After"]) == (503, "starting", "1")
    assert headers["Content-Type"] == "application/problem+json"


async def test_a_connection_from_before_is_served_by_who_came(door: FrontDoor) -> None:
    async def arrived(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="here")

    async with aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{door.port}"
        async with session.get(base + "/x") as response:
            assert response.status == 503
        door.open(arrived)
        async with session.get(base + "/x") as response:
            assert await response.text() == "here"


async def test_an_idle_or_half_sent_request_is_closed(door: FrontDoor) -> None:
    for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: loc"):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(sent)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_port_that_is_taken_is_said_plainly(door: FrontDoor) -> None:
    second = FrontDoor("127.0.0.1", door.port)
    with pytest.raises(Misconfigured) as caught:
        await second.start()
    assert caught.value.code == "address_unusable"
    assert str(door.port) in caught.value.detail
    assert not second.is_listening
    assert door.is_listening


def test_the_door_loads_nothing_heavy() -> None:
    program = "import sys, pricecache.api.server; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in answer.stdout.split()}
    assert not loaded & {"pydantic", "pymongo", "bson", "numpy", "orjson", "structlog", "jwt", "prometheus_client"}


class Gate:
    """A route whose answers a test holds back."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.may_go = asyncio.Event()

    async def __call__(self, call: Any) -> web.Response:
        self.entered.set()
        await self.may_go.wait()
        return web.Response(text="done")

    @property
    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", "/slow", self, None, summary="x", tags=("x",)),)


async def test_a_stop_lets_a_request_under_way_finish(database: Any) -> None:
    gate = Gate()
    async with api_daemon(database, routes=gate.routes) as daemon:
        asked = asyncio.create_task(daemon.get("/slow"))
        await gate.entered.wait()
        stopping = asyncio.create_task(daemon.door.stop(5))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", daemon.door.port)
        assert not asked.done()
        gate.may_go.set()
        assert await asked == (200, "done")
        await stopping


async def test_a_stop_cuts_what_does_not_end_in_time(database: Any) -> None:
    gate = Gate()
    async with api_daemon(database, routes=gate.routes) as daemon:
        asked = asyncio.create_task(daemon.get("/slow"))
        await gate.entered.wait()
        async with asyncio.timeout(5):
            await daemon.door.stop(0.05)
        with pytest.raises(aiohttp.ClientError):
            await asked


async def test_while_it_drains_it_is_not_ready_and_serves_on(database: Any) -> None:
    async with api_daemon(database) as daemon:
        daemon.door.drain()
        daemon.door.drain()
        assert (await daemon.get("/readyz")) == (503, {"status": "stopping", "checks": {"stop": "stopping"}})
        assert (await daemon.get("/healthz"))[0] == 200
        assert (await daemon.get("/cache/symbols"))[0] == 200


async def test_readiness_follows_the_checks(database: Any) -> None:
    async with api_daemon(database) as daemon:
        assert await daemon.get("/readyz") == (200, {"status": "ok", "checks": {"mongodb": "ok"}})
        assert await daemon.get("/health") == (200, {"status": "ok"})
        daemon.checks_now["mongodb"] = "does not answer"
        for path in ("/readyz", "/health"):
            assert (await daemon.get(path))[0] == 503
        assert await daemon.get("/healthz") == (200, {"status": "ok"})


async def test_a_reader_that_never_reads_holds_up_nobody(database: Any) -> None:
    """Answers pile up behind a slow client only as far as its socket takes them."""
    async with api_daemon(database) as daemon:
        await daemon.stored(count=1200)
        await daemon.get("/cache/historical/AAPL")
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.door.port, limit=1024)
        writer.write(b"GET /cache/historical/AAPL HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        await writer.drain()
        for _ in range(20):
            assert (await daemon.get("/cache/historical/AAPL"))[0] == 200
        held = sum(
            connection.transport.get_write_buffer_size()
            for connection in daemon.door._connections.connections  # type: ignore[union-attr]
            if connection.transport is not None
        )
        assert held < 1 << 20
        writer.close()
        reader.feed_eof()


async def test_a_thousand_requests_at_once_are_answered(database: Any) -> None:
    async with api_daemon(database) as daemon:
        await daemon.stored()
        daemon.quoted()
        targets = ["/cache/live/AAPL", "/cache/historical/AAPL", "/cache/coverage/AAPL", "/cache/status"] * 250
        answers = await asyncio.gather(*(daemon.get(target) for target in targets))
        assert {status for status, _ in answers} == {200}


async def test_a_daemon_helper_gives_everything_back(database: Any) -> None:
    before = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    async with api_daemon(database) as daemon:
        assert isinstance(daemon, ApiDaemon)
        await daemon.get("/cache/symbols")
    await asyncio.sleep(0)
    mine = {task.get_name() for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    assert not [name for name in mine if not name.startswith(("Task-", "pymongo"))]
