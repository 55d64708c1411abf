"""The client of pages, in a real browser: it follows, resumes, falls back, and knows how old what it shows is.

What a real daemon is needed for is in test_stream_daemon.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests import documents
from tests.browser.following import SNAPSHOT, Follower
from tests.fakes.faulty_proxy import FaultyProxy
from tests.fakes.streaming_daemon import StreamingDaemon


@pytest.fixture
def daemon() -> Iterator[StreamingDaemon]:
    with StreamingDaemon("p1", "p2") as daemon:
        yield daemon


@pytest.fixture
def proxy(daemon: StreamingDaemon) -> Iterator[FaultyProxy]:
    with FaultyProxy(daemon.port) as proxy:
        yield proxy


@pytest.fixture
def follower(page: Page, proxy: FaultyProxy) -> Follower:
    return Follower(page, proxy.url)


def test_a_page_gets_a_snapshot_and_then_what_changes(daemon: StreamingDaemon, follower: Follower) -> None:
    daemon.value("p1", 100.0)
    follower.follow(portfolioIds=["p1"])
    follower.until(SNAPSHOT)
    assert follower.value() == 100.0
    daemon.value("p1", 101.5)
    daemon.trade("p1")
    follower.until("stream.portfolio('p1').seq === 1")
    assert follower.value() == 101.5
    assert follower.page.evaluate("[stream.state, stream.transport]") == ["live", "websocket"]
    assert follower.page.evaluate("stream.portfolio('p1').positions.get('AAPL:US').stale") is False
    assert follower.errors == []


def test_two_portfolios_are_kept_apart(daemon: StreamingDaemon, follower: Follower) -> None:
    follower.follow(portfolioIds=["p1", "p2"])
    follower.until("told.filter((one) => one.event === 'snapshot').length === 2")
    daemon.trade("p1")
    daemon.trade("p2")
    daemon.value("p2", 7.0)
    follower.until("stream.portfolio('p2').account.totalValue === 7")
    assert (follower.numbers("p1"), follower.numbers("p2")) == ([1], [1])
    assert follower.value("p1") == 0.0


def test_who_names_no_portfolio_follows_all(daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower) -> None:
    follower.follow()
    follower.until("told.filter((one) => one.event === 'snapshot').length === 2")
    daemon.trade("p2")
    follower.until("stream.portfolio('p2').seq === 1")
    proxy.cut()
    daemon.trade("p2")
    follower.until("stream.portfolio('p2').seq === 2")
    assert follower.numbers("p2") == [1, 2]


@pytest.mark.parametrize("blocked", [(), ("/ws/",)], ids=["websocket", "sse"])
def test_what_happened_while_the_connection_was_lost_comes_once(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower, blocked: tuple[str, ...]
) -> None:
    proxy.faults = dict.fromkeys(blocked, "close")
    daemon.trade()
    follower.follow(portfolioIds=["p1"])
    follower.until("stream.state === 'live' && stream.portfolio('p1').seq === 1")
    daemon.trade()
    follower.until("stream.portfolio('p1').seq === 2")
    proxy.cut()
    follower.until("stream.state !== 'live'")
    daemon.trade()
    daemon.trade()
    follower.until("stream.portfolio('p1').seq === 4")
    assert follower.numbers() == [2, 3, 4]
    assert [one["resync"] for one in follower.told("snapshot")] == [False, False]


def test_a_number_that_is_missing_is_asked_for(daemon: StreamingDaemon, follower: Follower) -> None:
    follower.follow(portfolioIds=["p1"])
    follower.until(SNAPSHOT)
    daemon.trade()
    daemon.trade(told=False)
    daemon.trade()
    follower.until("stream.portfolio('p1').seq === 3")
    assert follower.numbers() == [1, 2, 3]
    assert [asked.get("since") for asked in daemon.heard] == [None, 1]


def test_what_comes_twice_is_told_once(daemon: StreamingDaemon, follower: Follower) -> None:
    follower.follow(portfolioIds=["p1"])
    follower.until(SNAPSHOT)
    daemon.trade()
    event = daemon.portfolios["p1"].events[0]
    daemon.send({"type": "update", "epoch": "e1", "seq": 1, "portfolioId": "p1", "events": [event]})
    daemon.trade()
    follower.until("stream.portfolio('p1').seq === 2")
    assert follower.numbers() == [1, 2]


def test_another_database_is_told_as_a_reason_to_fetch_anew(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower
) -> None:
    daemon.trade()
    follower.follow(portfolioIds=["p1"])
    follower.until(SNAPSHOT)
    daemon.portfolios["p1"].epoch = "e2"
    daemon.portfolios["p1"].events.clear()
    proxy.cut()
    follower.until("told.some((one) => one.detail.resync)")
    daemon.trade()
    follower.until("stream.portfolio('p1').seq === 1")
    assert follower.numbers() == [1]


def test_a_reload_goes_on_where_the_page_was(daemon: StreamingDaemon, follower: Follower) -> None:
    daemon.trade()
    follower.follow(portfolioIds=["p1"], keeps=True)
    follower.until(SNAPSHOT)
    daemon.trade()
    follower.until("stream.portfolio('p1').seq === 2")
    follower.page.goto("about:blank")
    daemon.trade()
    follower.page.go_back()
    follower.follow(portfolioIds=["p1"], keeps=True)
    follower.until(SNAPSHOT)
    assert follower.numbers() == [3]
    assert follower.errors == []


def test_a_proxy_that_swallows_upgrades_costs_two_seconds(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower
) -> None:
    proxy.faults = {"/ws/": "swallow"}
    daemon.value("p1", 5.0)
    follower.follow(portfolioIds=["p1"])
    follower.until(SNAPSHOT)
    assert follower.page.evaluate("[stream.state, stream.transport]") == ["live", "sse"]
    daemon.value("p1", 6.0)
    follower.until("stream.portfolio('p1').account.totalValue === 6")


@pytest.mark.parametrize("fault", ["swallow", "mute", "close", 503, 403])
def test_without_any_stream_a_page_polls_and_comes_back_to_it(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower, fault: str | int
) -> None:
    proxy.faults = {"/ws/": fault, "/api/stream": fault}
    daemon.value("p1", 5.0)
    daemon.trade()
    follower.page.clock.install()
    follower.follow(portfolioIds=["p1"])
    follower.page.clock.run_for(2000)
    proxy.until(lambda: any("/api/stream" in asked for asked in proxy.asked))
    follower.page.clock.run_for(2000)
    follower.until("stream.state === 'polling'")
    assert follower.value() == 5.0
    daemon.value("p1", 6.0)
    daemon.trade()
    follower.page.clock.run_for(5000)
    follower.until("stream.portfolio('p1').account.totalValue === 6")
    proxy.faults.clear()
    follower.page.clock.run_for(30000)
    follower.until("stream.transport === 'websocket'")
    daemon.trade()
    follower.until("stream.portfolio('p1').seq === 3")
    assert follower.numbers() == [2, 3]
    assert "unauthorized" not in follower.states()


def test_a_connection_that_says_nothing_is_found_out_and_replaced(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower
) -> None:
    follower.page.clock.install()
    follower.follow(portfolioIds=["p1"])
    follower.until(SNAPSHOT)
    for _ in range(3):
        follower.page.clock.run_for(15000)  # quiet, but alive: each ping has its answer
        follower.until("stream.staleness().ageSeconds < 1")
    assert follower.told("stale") == []
    proxy.freeze()
    daemon.trade()
    follower.page.clock.run_for(26000)
    follower.until("stream.portfolio('p1').seq === 1")
    assert follower.numbers() == [1]
    assert follower.told("stale") == []


def test_values_that_nobody_confirms_are_called_stale(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower
) -> None:
    follower.page.clock.install()
    follower.follow(portfolioIds=["p1"])
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


def test_a_token_buys_tickets_and_a_bad_one_ends_it(daemon: StreamingDaemon, follower: Follower) -> None:
    daemon.tickets = set()
    follower.follow(portfolioIds=["p1"], token="good")
    follower.until(SNAPSHOT)
    daemon.close(4401)
    follower.until("told.filter((one) => one.event === 'snapshot').length === 2")
    assert follower.states() == ["connecting", "live", "unauthorized", "connecting", "live"]


def test_who_is_not_let_in_is_told_and_asks_no_further(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower
) -> None:
    daemon.tickets = set()
    follower.follow(portfolioIds=["p1"], token="bad")
    follower.until("stream.state === 'unauthorized'")
    follower.page.clock.install()
    follower.page.clock.run_for(60000)
    assert [path for path in proxy.asked if "api" in path] == ["POST /api/stream/ticket"] * 2
    assert follower.states()[-1] == "unauthorized"
    follower.page.evaluate("stream.start()")
    follower.until("told.length > 4")


def test_a_stopped_stream_is_quiet(daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower) -> None:
    follower.follow(portfolioIds=["p1"])
    follower.until(SNAPSHOT)
    follower.page.evaluate("stream.stop()")
    daemon.trade()
    follower.page.evaluate("stream.start()")
    follower.until("stream.portfolio('p1').seq === 1")
    assert follower.states() == ["connecting", "live", "stopped", "connecting", "live"]
    assert follower.errors == []


def test_the_example_of_the_manual_shows_values_and_news(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower
) -> None:
    (example,) = [block.text for block in documents.blocks(documents.MANUAL) if block.language == "js"]
    names = ["value", "news", "state", "age"]
    follower.page.evaluate("(ids) => (document.body.innerHTML = ids.map((id) => `<p id=${id}>`).join(''))", names)
    follower.page.add_script_tag(content=example, type="module")
    follower.until("document.getElementById('value').textContent === '0'")
    daemon.value("p1", 1234.5)
    follower.until("document.getElementById('value').textContent === '1234.5'")
    daemon.trade("p1")
    follower.until("document.getElementById('news').textContent === 'trade:executed AAPL'")
    assert follower.page.text_content("#state") == "live"
    assert follower.errors == []
