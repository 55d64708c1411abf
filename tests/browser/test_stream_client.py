"""The client of pages against a stream that skips, repeats, forgets and refuses, as a daemon's hub would not."""

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


def test_a_portfolio_that_was_deleted_while_the_page_was_away_is_forgotten(
    daemon: StreamingDaemon, follower: Follower
) -> None:
    follower.follow()
    follower.until("told.filter((one) => one.event === 'snapshot').length === 2")
    daemon.send({"type": "error", "code": "unknown_portfolio", "detail": "It has gone.", "portfolioId": "p2"})
    follower.until("stream.portfolio('p2') === undefined")
    assert follower.told("deleted") == [{"portfolioId": "p2"}]
    assert follower.told("problem") == []


@pytest.mark.parametrize("fault", ["swallow", "mute", 503])
def test_without_any_stream_a_page_polls_and_comes_back_to_it(
    daemon: StreamingDaemon, proxy: FaultyProxy, follower: Follower, fault: str | int
) -> None:
    proxy.faults = {"/ws/": fault, "/api/stream": fault}
    daemon.value("p1", 5.0)
    daemon.trade()
    follower.page.clock.install()
    follower.follow(portfolioIds=["p1"])
    follower.pass_until("stream.state === 'polling'", seconds=5)
    assert follower.value() == 5.0
    daemon.value("p1", 6.0)
    daemon.trade()
    follower.pass_until("stream.portfolio('p1').account.totalValue === 6", seconds=10)
    proxy.faults.clear()
    follower.pass_until("stream.transport === 'websocket'", seconds=90, step=1)
    daemon.trade()
    follower.until("stream.portfolio('p1').seq === 3")
    assert follower.numbers() == [2, 3]
    assert "unauthorized" not in follower.states()


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
