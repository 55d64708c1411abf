"""The client of pages with a real daemon behind it, and a proxy in between where something is to go wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.following import SNAPSHOT, Follower
from tests.daemon import DaemonProcess
from tests.fakes.faulty_proxy import FaultyProxy
from tests.mongod import TestMongod

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, mongod: TestMongod) -> Iterator[DaemonProcess]:
    """Open to this machine, on sample prices that move every second."""
    daemon = DaemonProcess(
        tmp_path_factory.mktemp("pages"),
        mongodb_uri=mongod.uri,
        mongodb_database=f"pages_{time.time_ns()}",
        providers="sample",
        symbols="AAPL,AAPLX-USD:CRYPTO",
        live_seconds="1",
        sync_start_delay_seconds="0",
    )
    try:
        daemon.start()
        daemon.wait(lambda: bool(daemon.get("/cache/live/AAPL")[0] == 200), "quoted")
        yield daemon
        assert daemon.stop() == 0
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture
def proxy(daemon: DaemonProcess) -> Iterator[FaultyProxy]:
    with FaultyProxy(daemon.port) as proxy:
        yield proxy


@pytest.fixture
def follower(page: Page, proxy: FaultyProxy) -> Follower:
    return Follower(page, proxy.url)


@pytest.fixture
def portfolio(daemon: DaemonProcess) -> str:
    return made(daemon)


def made(daemon: DaemonProcess) -> str:
    """A portfolio that holds ten shares; its first event is of their purchase."""
    status, answer = daemon.post("/api/portfolios", {"name": "pages", "baseCurrency": "USD"})
    assert status == 201
    buy(daemon, answer["id"], 10)
    return str(answer["id"])


def buy(daemon: DaemonProcess, portfolio: str, quantity: int = 1, symbol: str = "AAPL", market: str = "US") -> None:
    row = {"date": "2026-01-05", "type": "buy", "symbol": symbol, "market": market, "quantity": quantity, "price": 100}
    assert daemon.post(f"/api/portfolios/{portfolio}/transactions", row)[0] == 201


def test_without_any_stream_a_page_polls_values_and_events(
    daemon: DaemonProcess, proxy: FaultyProxy, follower: Follower, portfolio: str
) -> None:
    proxy.faults = {"/ws/": "close", "/api/stream": 503}
    follower.follow(portfolioIds=[portfolio])
    follower.until("stream.state === 'polling'")
    before = follower.value(portfolio)
    assert before > 0
    buy(daemon, portfolio, 30)
    follower.page.evaluate("dispatchEvent(new Event('online'))")
    follower.until("stream.portfolio(id).seq === 2", id=portfolio)
    assert follower.value(portfolio) > 3 * before
    assert [one["type"] for one in follower.told("event")] == ["trade:executed"]


def test_a_page_gets_a_snapshot_and_then_values_that_move(
    daemon: DaemonProcess, follower: Follower, portfolio: str
) -> None:
    for symbol in ("AAPLX-USD", "IBMX-USD", "AIMX-USD"):  # whose market never closes; one alone may stand still
        buy(daemon, portfolio, 1000, symbol, "CRYPTO")
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT)
    first = follower.value(portfolio)
    follower.until(f"stream.portfolio(id).account.totalValue !== {first}", seconds=40, id=portfolio)
    assert follower.page.evaluate("[stream.state, stream.transport]") == ["live", "websocket"]
    assert follower.page.evaluate("(id) => stream.portfolio(id).positions.get('AAPL:US').quantity", portfolio) == 10
    assert follower.errors == []


@pytest.mark.parametrize("blocked", [(), ("/ws/",)], ids=["websocket", "sse"])
def test_a_trade_is_told_of_and_moves_the_values(
    daemon: DaemonProcess, proxy: FaultyProxy, follower: Follower, portfolio: str, blocked: tuple[str, ...]
) -> None:
    proxy.faults = dict.fromkeys(blocked, "close")
    other = made(daemon)
    follower.follow(portfolioIds=[portfolio, other])
    follower.until("told.filter((one) => one.event === 'snapshot').length === 2")
    before = follower.value(portfolio)
    buy(daemon, portfolio, 30)
    buy(daemon, other, 1)
    follower.until("stream.portfolio(id).seq === 2", id=portfolio)
    follower.until("stream.portfolio(id).seq === 2", id=other)
    follower.until(f"stream.portfolio(id).account.totalValue > {3 * before}", seconds=10, id=portfolio)
    assert (follower.numbers(portfolio), follower.numbers(other)) == ([2], [2])


def test_a_daemon_that_starts_again_is_resumed_with_everything_once(
    daemon: DaemonProcess, follower: Follower, portfolio: str
) -> None:
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT)
    buy(daemon, portfolio)
    follower.until("stream.portfolio(id).seq === 2", id=portfolio)
    daemon.kill()
    follower.until("stream.state !== 'live'")
    daemon.start()
    buy(daemon, portfolio)
    buy(daemon, portfolio)
    follower.page.evaluate("dispatchEvent(new Event('online'))")
    follower.until("stream.portfolio(id).seq === 4", seconds=40, id=portfolio)
    assert follower.numbers(portfolio) == [2, 3, 4]
    assert [one["resync"] for one in follower.told("snapshot")] == [False, False]


def test_a_reload_goes_on_where_the_page_was(daemon: DaemonProcess, follower: Follower, portfolio: str) -> None:
    follower.follow(portfolioIds=[portfolio], keeps=True)
    follower.until(SNAPSHOT)
    follower.page.reload()
    buy(daemon, portfolio)
    follower.follow(portfolioIds=[portfolio], keeps=True)
    follower.until(SNAPSHOT)
    assert follower.numbers(portfolio) == [2]
    assert follower.errors == []


@pytest.mark.parametrize("blocked", [(), ("/ws/", "/api/stream")], ids=["websocket", "polling"])
def test_open_orders_are_known_until_they_are_filled(
    daemon: DaemonProcess, proxy: FaultyProxy, follower: Follower, portfolio: str, blocked: tuple[str, ...]
) -> None:
    def order(**fields: Any) -> None:
        body = {"symbol": "AAPL", "side": "buy", "quantity": 3, "type": "limit", "limitPrice": 90} | fields
        status, answer, _ = daemon.request("PUT", f"/api/portfolios/{portfolio}/orders/o-1", body)
        assert status in (200, 201), answer

    proxy.faults = dict.fromkeys(blocked, "close")
    order(status="new")
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT)
    known = follower.page.evaluate("(id) => stream.portfolio(id).orders.get('o-1')", portfolio)
    assert (known["type"], known["orderType"], known["status"]) == ("order:updated", "limit", "new")
    order(status="filled", averagePrice=89.5)
    follower.page.evaluate("dispatchEvent(new Event('online'))")
    follower.until("stream.portfolio(id).orders.size === 0", id=portfolio)
    assert [one["type"] for one in follower.told("event")] == ["order:updated", "trade:executed"]
