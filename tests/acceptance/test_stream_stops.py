"""A real daemon with streams open is stopped: they are told, and it ends in time."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.daemon import DaemonProcess
from tests.mongod import TestMongod

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(tmp_path: Path, mongod: TestMongod) -> Iterator[DaemonProcess]:
    process = DaemonProcess(
        tmp_path, providers="sample", symbols="AAPL", mongodb_uri=mongod.uri, mongodb_database="stream_stops"
    )
    yield process.start()
    process.stop()


async def test_a_hundred_streams_are_closed_with_1001_and_the_daemon_ends(daemon: DaemonProcess) -> None:
    status, made = daemon.post("/api/portfolios", {"name": "p", "baseCurrency": "USD"})
    assert status == 201
    daemon.settings["PRICECACHE_STREAM_CONNECTIONS_PER_USER"] = "1000"
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.process is not None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sockets = [await session.ws_connect(daemon.url + "/ws/portfolio") for _ in range(100)]
        stream = await session.get(daemon.url + "/api/stream")
        for websocket in sockets:
            await websocket.send_json({"type": "subscribe"})
            while (message := await websocket.receive_json(timeout=10))["type"] != "snapshot":
                pass
            assert message["portfolioId"] == made["id"]
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        for websocket in sockets:
            while (await websocket.receive(timeout=10)).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                pass
            assert websocket.close_code == 1001
        said = [json.loads(line[6:]) for line in (await stream.text()).splitlines() if line.startswith("data: ")]
        assert said[-1] == {"type": "closing", "code": 1001, "reason": "stopping"}
        assert await asyncio.to_thread(daemon.process.wait, 20) == 0
        assert time.monotonic() - began < 10
    assert "Traceback" not in daemon.log()
