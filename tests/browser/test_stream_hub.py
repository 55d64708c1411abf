"""The client of pages with the daemon's hub behind it: it follows, resumes, falls back, says how old values are."""

from __future__ import annotations

import time
from collections.abc import Iterator

import jwt
import pytest
from playwright.sync_api import Page

from tests.browser.following import SNAPSHOT, Follower
from tests.browser.hub_daemon import HubDaemon
from tests.fakes.faulty_proxy import FaultyProxy
from tests.mongod import TestMongod

SECRET = "a secret of the tests, long enough for HS256"
OPEN_SESSION = """async (token) => {
    await fetch("/api/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
}"""


@pytest.fixture(scope="module")
def daemon(mongod: TestMongod) -> Iterator[HubDaemon]:
    with HubDaemon(mongod, f"pages_{time.time_ns()}") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def private_daemon(mongod: TestMongod) -> Iterator[HubDaemon]:
    """One that wants to know who asks."""
    with HubDaemon(mongod, f"pages_{time.time_ns()}", jwt_secret=SECRET) as daemon:
        yield daemon


@pytest.fixture
def proxy(daemon: HubDaemon) -> Iterator[FaultyProxy]:
    with FaultyProxy(daemon.port) as proxy:
        yield proxy


@pytest.fixture
def follower(page: Page, proxy: FaultyProxy) -> Follower:
    return Follower(page, proxy.url)


@pytest.fixture
def portfolio(daemon: HubDaemon) -> str:
    return daemon.make()


def token(user: str = "ann") -> str:
    return jwt.encode({"sub": user, "exp": time.time() + 600}, SECRET)


def bearer(user: str = "ann") -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user)}"}


def test_a_page_gets_a_snapshot_and_then_what_changes(daemon: HubDaemon, follower: Follower, portfolio: str) -> None:
    daemon.value(portfolio, 100.0)
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT)
    assert follower.value(portfolio) == 100.0
    daemon.value(portfolio, 101.5)
    daemon.trade(portfolio)
    follower.until("stream.portfolio(id).seq === 1", id=portfolio)
    follower.until("stream.portfolio(id).account.totalValue === 101.5", id=portfolio)
    assert follower.page.evaluate("[stream.state, stream.transport]") == ["live", "websocket"]
    assert follower.page.evaluate("(id) => stream.portfolio(id).positions.get('AAPL:US').stale", portfolio) is False
    assert follower.errors == []


def test_two_portfolios_are_kept_apart(daemon: HubDaemon, follower: Follower, portfolio: str) -> None:
    other = daemon.make()
    daemon.value(portfolio, 1.0)
    follower.follow(portfolioIds=[portfolio, other])
    follower.until("told.filter((one) => one.event === 'snapshot').length === 2")
    daemon.trade(portfolio)
    daemon.trade(other)
    daemon.value(other, 7.0)
    follower.until("stream.portfolio(id).account?.totalValue === 7", id=other)
    assert (follower.numbers(portfolio), follower.numbers(other)) == ([1], [1])
    assert follower.value(portfolio) == 1.0


def test_who_names_no_portfolio_follows_all(
    daemon: HubDaemon, proxy: FaultyProxy, follower: Follower, portfolio: str
) -> None:
    other = daemon.make()
    follower.follow()
    follower.until("stream.portfolio(id)?.seq === 0", id=other)
    daemon.trade(other)
    follower.until("stream.portfolio(id).seq === 1", id=other)
    proxy.cut()
    daemon.trade(portfolio)
    daemon.trade(other)
    follower.until("stream.portfolio(id).seq === 2", id=other)
    follower.until("stream.portfolio(id).seq === 1", id=portfolio)
    assert (follower.numbers(portfolio), follower.numbers(other)) == ([1], [1, 2])
    later = daemon.make()
    follower.until("stream.portfolio(id)?.seq === 0", id=later)


@pytest.mark.parametrize("blocked", [(), ("/ws/",)], ids=["websocket", "sse"])
def test_what_happened_while_the_connection_was_lost_comes_once(
    daemon: HubDaemon, proxy: FaultyProxy, follower: Follower, portfolio: str, blocked: tuple[str, ...]
) -> None:
    proxy.faults = dict.fromkeys(blocked, "close")
    other = daemon.make()
    daemon.trade(portfolio)
    follower.follow(portfolioIds=[portfolio, other])
    follower.until("stream.state === 'live' && stream.portfolio(id).seq === 1", id=portfolio)
    daemon.trade(portfolio)
    follower.until("stream.portfolio(id).seq === 2", id=portfolio)
    proxy.cut()
    follower.until("stream.state !== 'live'")
    daemon.trade(portfolio)
    daemon.trade(portfolio)
    daemon.trade(other)
    follower.until("stream.portfolio(id).seq === 4", id=portfolio)
    follower.until("stream.portfolio(id).seq === 1", id=other)
    assert (follower.numbers(portfolio), follower.numbers(other)) == ([2, 3, 4], [1])
    assert not any(one["resync"] for one in follower.told("snapshot"))


def test_a_reload_goes_on_where_the_page_was(daemon: HubDaemon, follower: Follower, portfolio: str) -> None:
    daemon.trade(portfolio)
    follower.follow(portfolioIds=[portfolio], keeps=True)
    follower.until(SNAPSHOT)
    daemon.trade(portfolio)
    follower.until("stream.portfolio(id).seq === 2", id=portfolio)
    follower.page.reload()
    daemon.trade(portfolio)
    follower.follow(portfolioIds=[portfolio], keeps=True)
    follower.until(SNAPSHOT)
    assert follower.numbers(portfolio) == [3]
    assert follower.errors == []


def test_a_proxy_that_swallows_upgrades_costs_two_seconds(
    daemon: HubDaemon, proxy: FaultyProxy, follower: Follower, portfolio: str
) -> None:
    proxy.faults = {"/ws/": "swallow"}
    daemon.value(portfolio, 5.0)
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT, seconds=5)
    assert follower.page.evaluate("[stream.state, stream.transport]") == ["live", "sse"]
    daemon.value(portfolio, 6.0)
    follower.until("stream.portfolio(id).account.totalValue === 6", id=portfolio)


def test_a_connection_that_says_nothing_is_found_out_and_replaced(
    daemon: HubDaemon, proxy: FaultyProxy, follower: Follower, portfolio: str
) -> None:
    follower.page.clock.install()
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT)
    for _ in range(3):
        follower.page.clock.run_for(15000)  # quiet, but alive: each ping has its answer
        follower.until("stream.staleness().ageSeconds < 1")
    assert follower.told("stale") == []
    proxy.freeze()
    daemon.trade(portfolio)
    follower.page.clock.run_for(26000)
    follower.until("stream.portfolio(id).seq === 1", id=portfolio)
    assert follower.numbers(portfolio) == [1]
    assert follower.told("stale") == []


def test_values_that_nobody_confirms_are_called_stale(proxy: FaultyProxy, follower: Follower, portfolio: str) -> None:
    follower.page.clock.install()
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT)
    proxy.faults = {"/": "close"}
    proxy.cut()
    follower.until("stream.state !== 'live'")
    follower.page.clock.run_for(29000)
    assert follower.told("stale") == []
    follower.page.clock.run_for(2000)
    assert [one["isStale"] for one in follower.told("stale")] == [True]
    assert follower.page.evaluate("stream.staleness().ageSeconds") >= 30
    proxy.faults.clear()
    follower.page.evaluate("dispatchEvent(new Event('online'))")
    follower.until("stream.state === 'live'")
    assert [one["isStale"] for one in follower.told("stale")] == [True, False]


def test_a_stopped_stream_is_quiet(daemon: HubDaemon, follower: Follower, portfolio: str) -> None:
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT)
    follower.page.evaluate("stream.stop()")
    daemon.trade(portfolio)
    assert follower.numbers(portfolio) == []
    follower.page.evaluate("stream.start()")
    follower.until("stream.portfolio(id).seq === 1", id=portfolio)
    assert follower.states() == ["connecting", "live", "stopped", "connecting", "live"]
    assert follower.errors == []


def test_a_deleted_portfolio_is_forgotten(daemon: HubDaemon, follower: Follower, portfolio: str) -> None:
    other = daemon.make()
    follower.follow(portfolioIds=[portfolio, other])
    follower.until("told.filter((one) => one.event === 'snapshot').length === 2")
    daemon.delete(other)
    follower.until("told.some((one) => one.event === 'deleted')")
    assert follower.told("deleted") == [{"portfolioId": other}]
    assert follower.page.evaluate("(id) => stream.portfolio(id)", other) is None
    daemon.trade(portfolio)
    follower.until("stream.portfolio(id).seq === 1", id=portfolio)
    assert follower.told("problem") == []


def test_what_is_followed_can_be_changed(daemon: HubDaemon, follower: Follower, portfolio: str) -> None:
    other = daemon.make()
    follower.follow(portfolioIds=[portfolio])
    follower.until(SNAPSHOT)
    follower.page.evaluate("(id) => stream.subscribe({ portfolioIds: [id] })", other)
    follower.until("stream.portfolio(id)?.seq === 0", id=other)
    daemon.trade(portfolio)
    daemon.trade(other)
    follower.until("stream.portfolio(id).seq === 1", id=other)
    assert follower.numbers(portfolio) == []


# who asks


@pytest.mark.parametrize("blocked", [(), ("/ws/",)], ids=["websocket", "sse"])
def test_a_token_is_enough(private_daemon: HubDaemon, page: Page, blocked: tuple[str, ...]) -> None:
    with FaultyProxy(private_daemon.port) as proxy:
        proxy.faults = dict.fromkeys(blocked, "close")
        portfolio = private_daemon.make(headers=bearer())
        follower = Follower(page, proxy.url)
        follower.follow(portfolioIds=[portfolio], token=token())
        follower.until(SNAPSHOT)
        private_daemon.trade(portfolio)
        follower.until("stream.portfolio(id).seq === 1", id=portfolio)
        assert follower.page.evaluate("stream.transport") == ("sse" if blocked else "websocket")


def test_a_session_is_enough_until_it_ends(private_daemon: HubDaemon, page: Page) -> None:
    with FaultyProxy(private_daemon.port) as proxy:
        portfolio = private_daemon.make(headers=bearer())
        follower = Follower(page, proxy.url)
        page.evaluate(OPEN_SESSION, token())
        follower.follow(portfolioIds=[portfolio])
        follower.until(SNAPSHOT)
        assert follower.page.evaluate("stream.transport") == "websocket"
        page.evaluate("fetch('/api/session', { method: 'DELETE' })")
        follower.until("told.filter((one) => one.event === 'state').length === 5")
        assert follower.states() == ["connecting", "live", "unauthorized", "connecting", "unauthorized"]


def test_who_is_not_let_in_is_told_and_asks_no_further(private_daemon: HubDaemon, page: Page) -> None:
    with FaultyProxy(private_daemon.port) as proxy:
        follower = Follower(page, proxy.url)
        page.clock.install()
        follower.follow(token="bad")
        follower.until("told.filter((one) => one.event === 'state').length === 4")
        page.clock.run_for(60000)
        asked = [path for path in proxy.asked if "api" in path or "ws" in path]
        assert asked == ["POST /api/stream/ticket"] * 2
        assert follower.states() == ["connecting", "unauthorized", "connecting", "unauthorized"]
        page.evaluate("stream.start()")
        proxy.until(lambda: proxy.asked.count("POST /api/stream/ticket") == 4)


def test_another_users_portfolio_is_refused(private_daemon: HubDaemon, page: Page) -> None:
    with FaultyProxy(private_daemon.port) as proxy:
        portfolio = private_daemon.make(headers=bearer("bob"))
        private_daemon.value(portfolio, 1.0)
        follower = Follower(page, proxy.url)
        follower.follow(portfolioIds=[portfolio], token=token("ann"))
        follower.until("told.some((one) => one.event === 'problem')")
        assert follower.told("problem")[0]["code"] == "unknown_portfolio"
        assert follower.page.evaluate("(id) => stream.portfolio(id).account", portfolio) is None
