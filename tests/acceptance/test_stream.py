"""A real daemon whose vendor streams: pushed prices are served, counted and stored, and a drop shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from tests.daemon import DaemonProcess
from tests.fakes.yahoo import FakeYahoo, sessions_back
from tests.fakes.yahoo_stream import FakeYahooStream
from tests.mongod import TestMongod


@pytest.fixture
def stream() -> Iterator[FakeYahooStream]:
    with FakeYahooStream() as stream:
        yield stream


@contextmanager
def running(folder: Path, mongod: TestMongod, **settings: str) -> Iterator[DaemonProcess]:
    with FakeYahoo() as yahoo:
        today = date.today()  # noqa: DTZ011 - any session of the last days will do
        yahoo.put("AAPL", {day: [100.0] * 4 + [1000.0] for day in sessions_back(today, 30)})
        daemon = DaemonProcess(
            folder,
            mongod=str(mongod.program),
            providers="yfinance",
            symbols="AAPL",
            backfill_days="20",
            yahoo_url=yahoo.url,
            **settings,
        ).start()
        yield daemon
        assert daemon.stop() == 0


@pytest.fixture
def daemon(tmp_path: Path, mongod: TestMongod, stream: FakeYahooStream) -> Iterator[DaemonProcess]:
    with running(tmp_path, mongod, yahoo_stream_url=stream.url) as daemon:
        yield daemon


def metric(daemon: DaemonProcess, name: str) -> float:
    lines = daemon.request("GET", "/metrics")[1].decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def price(daemon: DaemonProcess) -> float | None:
    status, quote = daemon.get("/cache/live/AAPL")
    return float(quote["price"]) if status == 200 else None


def test_pushed_prices_are_served_and_a_drop_shows_and_heals(daemon: DaemonProcess, stream: FakeYahooStream) -> None:
    stream.until(lambda: stream.subscribed == {"AAPL"}, 30)
    daemon.wait(lambda: price(daemon) == 100.0, "polled")
    stream.push("AAPL", 101.25, at=time.time())
    daemon.wait(lambda: price(daemon) == 101.25, "pushed")
    state = daemon.get("/cache/status")[1]["live"]["stream"]
    assert (state["connected"], state["subscribed"], state["messages"], state["published"]) == (True, 1, 1, 1)
    assert (state["ignored"], state["reconnects"], state["lastError"]) == ({}, 0, None)
    assert metric(daemon, "pricecache_stream_connected") == 1
    assert metric(daemon, "pricecache_stream_messages_total") == 1

    stream.end()
    daemon.wait(lambda: stream.handshakes > 1 and metric(daemon, "pricecache_stream_connected") == 1, "back")
    assert metric(daemon, "pricecache_stream_reconnects_total") == 1
    stream.push("AAPL", 102.5, at=time.time())
    daemon.wait(lambda: price(daemon) == 102.5, "pushed again")
    daemon.wait(lambda: [e for e in daemon.events() if e["event"] == "price stream is back"] != [], "told")
    told = [(event["level"], event["event"]) for event in daemon.events() if "price stream" in event["event"]]
    assert told == [("warning", "price stream lost"), ("info", "price stream is back")]


def test_a_daemon_told_not_to_stream_polls(tmp_path: Path, mongod: TestMongod, stream: FakeYahooStream) -> None:
    with running(tmp_path, mongod, yahoo_stream_url=stream.url, stream="false") as daemon:
        daemon.wait(lambda: price(daemon) == 100.0, "polled")
        assert daemon.get("/cache/status")[1]["live"]["stream"] is None
        assert stream.handshakes == 0


def test_requests_that_are_sent_elsewhere_meet_the_vendor_by_no_other_way(tmp_path: Path, mongod: TestMongod) -> None:
    with running(tmp_path, mongod) as daemon:
        daemon.wait(lambda: price(daemon) == 100.0, "polled")
        assert daemon.get("/cache/status")[1]["live"]["stream"] is None
