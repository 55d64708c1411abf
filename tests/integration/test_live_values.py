"""Followed portfolios: a price finds who holds it, one pass values all that is due, day range, tracking, close."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.stores.day_ranges import Close, DayRangeStore
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_portfolio_summary import HOUR, holding_ten, summary
from tests.integration.test_portfolios import ANN, BOB, BUY, KEYS, add, made, priced

MSFT = Instrument("MSFT")


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    """It is Friday, 16:00 UTC: New York has been open for an hour and a half."""
    async with live_daemon(database) as started:
        started.clock.advance(6 * HOUR)
        yield started


@asynccontextmanager
async def live_daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    """A daemon whose follower is worked by the test, so that nothing waits for a clock."""
    async with api_daemon(database, keys=KEYS) as started:
        yield started


async def settle(daemon: ApiDaemon) -> None:
    """Let everything that is due be computed."""
    await daemon.parts.realtime.follower.work()


async def tick(daemon: ApiDaemon, price: float, instrument: Instrument = AAPL, **facts: Any) -> None:
    """A pushed price of the session that runs."""
    now = daemon.clock.time()
    known = {"session": TODAY, "open": 112.0, "previous_close": 110.0, **facts}
    quote = Quote(instrument, price, "USD", now, now, "scripted", **known)
    published = await daemon.parts.prices.publisher.publish([quote], way="stream")
    assert not published.refused


def value_of(daemon: ApiDaemon, portfolio: str) -> Any:
    return daemon.parts.realtime.follower.present(portfolio)


async def stats(daemon: ApiDaemon) -> dict[str, Any]:
    status, answer = await daemon.get("/api/admin/queue-stats", headers={"X-API-Key": "ops-key"})
    assert status == 200, answer
    return dict(answer)


async def followed(daemon: ApiDaemon) -> str:
    portfolio = await holding_ten(daemon)
    await tick(daemon, 120.0)
    for _ in range(3):
        await settle(daemon)
        daemon.clock.advance(2)
    await settle(daemon)
    return portfolio


async def test_a_hundred_rapid_prices_are_one_computation_with_the_last_of_them(daemon: ApiDaemon) -> None:
    portfolio = await followed(daemon)
    before = daemon.parts.realtime.follower.valuer.counts.passes
    for number in range(100):
        await tick(daemon, 120.0 + number / 10)
        await settle(daemon)
    daemon.clock.advance(2)
    await settle(daemon)
    assert daemon.parts.realtime.follower.valuer.counts.passes - before == 1
    assert value_of(daemon, portfolio).value == 1299
    assert (await summary(daemon))["totalValue"] == 1299


async def test_a_price_marks_only_who_holds_it(daemon: ApiDaemon) -> None:
    await followed(daemon)
    await priced(daemon, MSFT, {TODAY - 2: 50.0, TODAY - 1: 60.0})
    await tick(daemon, 61.0, MSFT, open=60.0, previous_close=60.0)
    assert (await stats(daemon))["pendingUpdates"] == 0
    await tick(daemon, 121.0)
    assert (await stats(daemon))["pendingUpdates"] == 1


async def test_the_day_range_is_of_the_prices_seen_and_survives_a_restart(database: Any) -> None:
    async with live_daemon(database) as daemon:
        daemon.clock.advance(6 * HOUR)
        await followed(daemon)
        for price in (130.0, 115.0, 125.0):
            await tick(daemon, price)
            daemon.clock.advance(5)
            await settle(daemon)
        got = await summary(daemon)
        assert (got["dayHigh"], got["dayLow"], got["totalValue"]) == (1300, 1150, 1250)
        assert got["dayRangeSince"] == "2026-11-20T16:00:02Z"
        await daemon.parts.realtime.ranges.save()
        await daemon.parts.prices.publisher.save_pushed()
    async with live_daemon(database) as daemon:
        daemon.clock.advance(6 * HOUR + 60)
        await daemon.parts.load()
        got = await summary(daemon)
        assert (got["dayHigh"], got["dayLow"], got["totalValue"]) == (1300, 1150, 1250)


async def test_a_purchase_is_no_high_and_a_correction_begins_the_range_anew(daemon: ApiDaemon) -> None:
    portfolio = await followed(daemon)
    await tick(daemon, 130.0)
    daemon.clock.advance(2)
    await settle(daemon)
    await tick(daemon, 120.0)
    await add(daemon, portfolio, {**BUY, "date": "2026-11-20", "quantity": 10, "price": 120, "externalId": "x"})
    daemon.clock.advance(2)
    await settle(daemon)
    got = await summary(daemon)
    assert (got["totalValue"], got["dayChange"], got["dayHigh"], got["dayLow"]) == (2400, 100, 2500, 2400)
    await add(daemon, portfolio, {**BUY, "date": "2026-11-20", "quantity": 10, "price": 1, "externalId": "x"})
    daemon.clock.advance(2)
    await settle(daemon)
    got = await summary(daemon)
    assert (got["dayChange"], got["dayHigh"], got["dayLow"]) == (1290, 2400, 2400)
    await add(daemon, portfolio, {**BUY, "date": "2026-11-20", "quantity": 10, "price": 120, "externalId": "x"})
    daemon.clock.advance(2)
    await settle(daemon)
    got = await summary(daemon)
    assert (got["dayChange"], got["dayHigh"], got["dayLow"]) == (100, 2400, 2400)


async def test_a_new_session_measures_from_the_close_before_and_begins_its_own_range(daemon: ApiDaemon) -> None:
    portfolio = await followed(daemon)
    await tick(daemon, 130.0)
    daemon.clock.advance(2)
    await settle(daemon)
    daemon.clock.advance(3 * 86400 - 60)  # Monday
    await tick(daemon, 140.0, session=TODAY + 3, open=131.0, previous_close=130.0)
    for _ in range(2):
        daemon.clock.advance(3)
        await settle(daemon)
    now = value_of(daemon, portfolio)
    assert (now.day, now.value, now.change, now.high, now.low) == (TODAY + 3, 1400, 100, 1400, 1400)
    got = await summary(daemon)
    assert (got["totalValue"], got["dayChange"], got["dayHigh"], got["dayLow"]) == (1400, 100, 1400, 1400)


async def test_tracking_is_started_shown_kept_and_stopped(database: Any) -> None:
    start, stop, status = (f"/api/portfolio/live-tracking/{name}" for name in ("start", "stop", "status"))
    async with live_daemon(database) as daemon:
        daemon.clock.advance(6 * HOUR)
        portfolio = await holding_ten(daemon)
        code, answer = await daemon.call("POST", start, headers=ANN)
        assert (code, answer["tracking"], answer["portfolioIds"]) == (201, True, [portfolio])
        assert (await daemon.call("POST", start, headers=ANN))[0] == 200
        await settle(daemon)
        daemon.clock.advance(5)
        await settle(daemon)
        await daemon.parts.realtime.tracking.turn()
        answer = (await daemon.get(status, headers=ANN))[1]
        assert (answer["marketOpen"], answer["instruments"], answer["nextUpdate"]) == (True, 1, "2026-11-20T16:00:35Z")
        assert (await daemon.get(status, headers=BOB))[1]["tracking"] is False
    async with live_daemon(database) as daemon:
        daemon.clock.advance(6 * HOUR)
        await daemon.parts.load()
        await daemon.parts.realtime.tracking.turn()
        assert daemon.parts.realtime.tracking.portfolios == [portfolio]
        code, answer = await daemon.call("DELETE", stop, headers=ANN)
        assert (code, answer["tracking"], daemon.parts.realtime.tracking.portfolios) == (200, False, [])


async def test_what_a_portfolio_closed_at_is_kept_a_minute_after_the_close(daemon: ApiDaemon) -> None:
    portfolio = await followed(daemon)
    await daemon.call("POST", "/api/portfolio/live-tracking/start", headers=ANN)
    daemon.clock.advance(5 * HOUR - 60)  # 20:59:02 UTC
    await tick(daemon, 128.0)
    daemon.clock.advance(5)
    await settle(daemon)
    tracking = daemon.parts.realtime.tracking
    await tracking.turn()
    assert (await tracking.status("ann")).closes == ()
    daemon.clock.advance(120)
    await tracking.turn()
    _, answer = await daemon.get("/api/portfolio/live-tracking/status", headers=ANN)
    (close,) = answer["closes"]
    assert (close["portfolioId"], close["date"], close["totalValue"]) == (portfolio, "2026-11-20", 1280)
    assert (close["dayChange"], close["dayHigh"], close["dayLow"]) == (180, 1280, 1200)
    assert (answer["marketOpen"], answer["nextUpdate"], answer["nextOpen"]) == (False, None, "2026-11-23T14:30:00Z")


async def test_what_holds_a_coin_too_closed_on_the_day_of_the_exchange(daemon: ApiDaemon) -> None:
    portfolio, coin = await followed(daemon), Instrument("BTC-USD", "CRYPTO")
    await priced(daemon, coin, {TODAY - 18: 40.0, TODAY - 1: 50.0})
    await add(daemon, portfolio, {**BUY, "symbol": "BTC-USD", "market": "CRYPTO", "quantity": 2, "price": 40})
    await daemon.call("POST", "/api/portfolio/live-tracking/start", headers=ANN)
    tracking = daemon.parts.realtime.tracking
    daemon.clock.advance(5 * HOUR - 60)
    await tick(daemon, 120.0)
    daemon.clock.advance(120)  # a minute after the close of New York
    await tick(daemon, 60.0, coin, session=None, open=50.0, previous_close=50.0)
    for _ in range(3):
        daemon.clock.advance(3)
        await settle(daemon)
    await tracking.turn()
    (close,) = (await tracking.status("ann")).closes
    assert (close.day, close.value) == (TODAY, 10 * 120 + 2 * 60)
    daemon.clock.advance(20 * HOUR)  # Saturday: the coin goes on
    await tracking.turn()
    assert (await tracking.status("ann")).closes == (close,)


async def test_a_sale_of_what_traded_last_leaves_the_range(daemon: ApiDaemon) -> None:
    portfolio = await followed(daemon)
    sale = {"date": "2026-11-20", "type": "sell", "symbol": "AAPL", "quantity": 10, "price": 120}
    assert (await add(daemon, portfolio, sale))[0] == 201
    got = await summary(daemon)
    assert (got["totalValue"], got["dayChange"], got["dayHigh"]) == (0, 100, 0)


async def test_who_stops_or_starts_during_a_look_is_left_so(daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    await holding_ten(daemon)
    tracking, all_of = daemon.parts.realtime.tracking, daemon.parts.realtime.tracking._users.all
    await tracking.start("ann", "test")

    async def meanwhile() -> Any:
        found = await all_of()
        await tracking.stop("ann")
        await tracking.start("bob", "test")
        return found

    monkeypatch.setattr(tracking._users, "all", meanwhile)
    await tracking.turn()
    assert set(tracking._tracked) == {"bob"}


async def test_the_first_that_was_seen_after_a_close_stays(database: Any) -> None:
    store = DayRangeStore(database)

    def seen(value: float, at: float, closed_at: float) -> Close:
        return Close("p", TODAY, value, None, None, None, at, closed_at)

    for close in (seen(10, 160, 100), seen(11, 170, 100), seen(12, 560, 500), seen(13, 580, 500), seen(14, 590, 100)):
        await store.close([close])
    assert await store.closes(["p"]) == {"p": seen(12, 560, 500)}


async def test_a_correction_that_changes_nothing_of_the_day_leaves_the_range(daemon: ApiDaemon) -> None:
    portfolio = await followed(daemon)
    for price in (130.0, 115.0, 120.0):
        await tick(daemon, price)
        daemon.clock.advance(3)
        await settle(daemon)
    (old,) = (await daemon.get(f"/api/portfolios/{portfolio}/transactions", headers=ANN))[1]["transactions"]
    target = f"/api/portfolios/{portfolio}/transactions/{old['id']}"
    noted = {**BUY, "price": 90, "note": "what it was for"}
    assert (await daemon.call("PUT", target, json=noted, headers=ANN))[0] == 200
    assert (await daemon.call("PATCH", f"/api/portfolios/{portfolio}", json={"costBasis": "lifo"}, headers=ANN))[
        0
    ] == 200
    assert (await add(daemon, portfolio, {**BUY, "date": "2026-11-18", "quantity": 0.0001}))[0] == 201
    for _ in range(2):
        daemon.clock.advance(3)
        await settle(daemon)
    got = await summary(daemon)
    assert (got["dayHigh"], got["dayLow"]) == (pytest.approx(1300, abs=0.02), pytest.approx(1150, abs=0.02))
    assert (await add(daemon, portfolio, {**BUY, "date": "2026-11-18", "quantity": 10}))[0] == 201
    got = await summary(daemon)
    assert (got["dayHigh"], got["dayLow"]) == (got["totalValue"], got["totalValue"])


async def test_a_split_put_in_by_hand_reaches_what_is_told(daemon: ApiDaemon) -> None:
    """Long before the latest session, so that no price of today tells of it."""
    portfolio = await followed(daemon)
    split = {"actions": [{"date": "2026-11-10", "kind": "split", "ratio": 2.0}]}
    assert (await daemon.call("PUT", "/cache/actions/AAPL?market=US", json=split, headers={"X-API-Key": "ops-key"}))[
        0
    ] == 200
    for _ in range(3):
        daemon.clock.advance(3)
        await settle(daemon)
    assert value_of(daemon, portfolio).value == 2400
    assert (await summary(daemon))["totalValue"] == 2400


async def test_a_price_put_in_by_hand_is_as_old_as_its_day(daemon: ApiDaemon) -> None:
    """Its time stands still while the day goes on, so that nothing is told for nothing."""
    bars = {"currency": "USD", "bars": [{"date": "2026-11-19", "close": 10}, {"date": "2026-11-20", "close": 11}]}
    key = {"X-API-Key": "ops-key"}
    assert (await daemon.call("PUT", "/cache/historical/FUND?market=CUSTOM", json=bars, headers=key))[0] == 200
    await add(daemon, await made(daemon), {**BUY, "symbol": "FUND", "market": "CUSTOM", "price": 9, "currency": "USD"})
    first = (await summary(daemon))["positions"][0]
    daemon.clock.advance(60)
    assert (await summary(daemon))["positions"][0]["priceTime"] == first["priceTime"] == "2026-11-20T00:00:00Z"
