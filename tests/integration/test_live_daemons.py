"""Two daemons on one database: what one accepts reaches the clients of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from pricecache.background import BackgroundTasks
from pricecache.core.instruments import Instrument
from tests.clock import START, RunningClock
from tests.integration.api_daemon import ApiDaemon, api_daemon
from tests.integration.test_live_values import tick
from tests.integration.test_portfolio_summary import HOUR, holding_ten
from tests.integration.test_portfolios import ANN, BUY, KEYS, add

PATIENCE = 20.0
Pair = tuple[ApiDaemon, ApiDaemon]


@pytest.fixture
async def daemons(database: Any) -> AsyncIterator[Pair]:
    """Both on one clock, Friday 16:00 UTC, and each follows what the other writes."""
    clock, background = RunningClock(START + 6 * HOUR), BackgroundTasks()
    async with AsyncExitStack() as stack:
        pair = []
        for number in range(2):
            shared = {"mongodb_uri": "mongodb://the.same", "debounce_seconds": 0, "max_updates_per_minute": 0}
            daemon = await stack.enter_async_context(api_daemon(database, keys=KEYS, clock=clock, settings=shared))
            opened = asyncio.Event()
            background.start(daemon.parts.prices.watcher.run(opened.set), f"watch-{number}")
            background.start(daemon.parts.realtime.follower.run(), f"live-values-{number}")
            background.start(daemon.parts.realtime.hub.run(), f"realtime-{number}")
            async with asyncio.timeout(PATIENCE):
                await opened.wait()
            pair.append(daemon)
        yield pair[0], pair[1]
        await background.end()


async def listening(daemon: ApiDaemon, portfolio: str) -> aiohttp.ClientWebSocketResponse:
    socket = await daemon.session.ws_connect(daemon.base + "/ws/portfolio", headers=ANN)
    channels = ["positions", "account", "trades", "orders", "prices"]
    await socket.send_json({"type": "subscribe", "portfolioId": portfolio, "channels": channels})
    await until(socket, lambda message: message["type"] == "snapshot")
    return socket


async def until(socket: aiohttp.ClientWebSocketResponse, found: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while not found(message := await socket.receive_json()):
            assert message["type"] != "error", message
    return message


async def until_all(socket: aiohttp.ClientWebSocketResponse, *wanted: Callable[[Any], bool]) -> None:
    """Until each was found, in whatever order."""
    waiting = set(wanted)

    def is_over(message: Any) -> bool:
        waiting.difference_update([found for found in waiting if found(message)])
        return not waiting

    await until(socket, is_over)


def has(kind: str, **facts: Any) -> Callable[[Any], bool]:
    """Whether a message has such an event."""
    return lambda message: any(
        event["type"] == kind and facts.items() <= event.items() for event in message.get("events", ())
    )


async def test_a_price_accepted_by_one_reaches_the_clients_of_the_other(daemons: Pair) -> None:
    one, other = daemons
    portfolio = await holding_ten(one)
    await one.parts.realtime.follower.work()
    socket = await listening(other, portfolio)
    await tick(one, 123.0)
    await one.parts.prices.publisher.save_pushed()
    price, value = has("price:updated", symbol="AAPL", price=123.0), has("account:updated", totalValue=1230.0)
    await until_all(socket, price, value)
    await socket.close()


async def test_a_change_of_a_ledger_by_one_reaches_the_clients_of_the_other_with_its_number(daemons: Pair) -> None:
    one, other = daemons
    portfolio = await holding_ten(one)
    socket = await listening(other, portfolio)
    await tick(one, 120.0)
    await one.parts.prices.publisher.save_pushed()
    await until(socket, has("account:updated", totalValue=1200.0))
    assert (await add(one, portfolio, {**BUY, "quantity": 5}))[0] == 201
    await until_all(socket, has("trade:executed", quantity=5, seq=2), has("account:updated", totalValue=1800.0))
    await socket.close()


async def test_a_client_goes_on_at_another_daemon_where_it_left_off(daemons: Pair) -> None:
    one, other = daemons
    portfolio = await holding_ten(one)
    socket = await listening(one, portfolio)
    await add(one, portfolio, {**BUY, "quantity": 2})
    first = await until(socket, has("trade:executed", quantity=2))
    await socket.close()
    await add(one, portfolio, {**BUY, "quantity": 3})
    await add(other, portfolio, {"date": "2026-11-20", "type": "sell", "symbol": "AAPL", "quantity": 15, "price": 120})
    socket = await other.session.ws_connect(other.base + "/ws/portfolio", headers=ANN)
    place = {"since": first["seq"], "epoch": first["epoch"]}
    await socket.send_json({"type": "subscribe", "portfolioId": portfolio, **place})
    heard = list[tuple[int, str]]()

    def taken(message: Any) -> bool:
        heard.extend((event["seq"], event["type"]) for event in message.get("events", ()) if "seq" in event)
        return bool(message["type"] == "snapshot")

    snapshot = await until(socket, taken)
    assert heard == [(3, "trade:executed"), (4, "trade:executed"), (5, "position:closed")]
    assert (snapshot["seq"], snapshot["resync"]) == (5, False)
    await socket.close()


async def test_a_deleted_portfolio_is_followed_no_more_and_its_listeners_are_told(daemons: Pair) -> None:
    one, other = daemons
    portfolio = await holding_ten(one)
    socket, there = await listening(other, portfolio), await listening(one, portfolio)
    assert (await one.call("DELETE", f"/api/portfolios/{portfolio}", headers=ANN))[0] == 200
    async with asyncio.timeout(PATIENCE):
        while other.parts.realtime.follower.present(portfolio) is not None:
            await asyncio.sleep(0)
    for listener in (socket, there):
        last = await until(listener, lambda message: message["type"] == "unsubscribed")
        assert (last["portfolioId"], last["reason"]) == (portfolio, "portfolio_deleted")
        await listener.send_json({"type": "ping"})
        assert (await listener.receive_json())["type"] == "pong"
        await listener.close()


async def test_listeners_hear_of_a_deletion_that_went_unseen_when_all_is_looked_at(database: Any) -> None:
    background, settings = BackgroundTasks(), {"debounce_seconds": 0, "max_updates_per_minute": 0}
    clock = RunningClock(START + 6 * HOUR)
    async with api_daemon(database, keys=KEYS, clock=clock, settings=settings) as daemon:
        background.start(daemon.parts.realtime.follower.run(), "live-values")
        background.start(daemon.parts.realtime.hub.run(), "realtime")
        portfolio = await holding_ten(daemon)
        socket = await listening(daemon, portfolio)
        await daemon.parts.portfolio.store.delete("ann", portfolio)
        daemon.parts.realtime.on_reopened()
        last = await until(socket, lambda message: message["type"] == "unsubscribed")
        assert last["reason"] == "portfolio_deleted"
        await socket.close()
        await background.end()


async def test_a_portfolio_made_on_one_is_heard_on_the_other_by_who_hears_all(daemons: Pair) -> None:
    one, other = daemons
    socket = await other.session.ws_connect(other.base + "/ws/portfolio", headers=ANN)
    await socket.send_json({"type": "subscribe"})
    assert (await socket.receive_json())["portfolioId"] is None
    portfolio = await holding_ten(one)
    snapshot = await until(socket, lambda message: message["type"] == "snapshot")
    assert snapshot["portfolioId"] == portfolio
    await socket.close()


async def test_a_hundred_prices_in_a_moment_are_a_handful_of_values_and_the_last_of_them_comes(database: Any) -> None:
    clock, background = RunningClock(START + 6 * HOUR), BackgroundTasks()
    settings = {"debounce_seconds": 0.2, "max_wait_seconds": 0.5}
    async with api_daemon(database, keys=KEYS, clock=clock, settings=settings) as daemon:
        background.start(daemon.parts.realtime.follower.run(), "live-values")
        background.start(daemon.parts.realtime.hub.run(), "realtime")
        portfolio = await holding_ten(daemon)
        await tick(daemon, 119.0)
        socket = await listening(daemon, portfolio)
        before = daemon.parts.realtime.follower.valuer.counts.passes
        values, prices = list[float](), list[float]()

        def taken(message: Any) -> bool:
            for event in message.get("events", ()):
                if event["type"] == "account:updated":
                    values.append(event["totalValue"])
                elif event["type"] == "price:updated":
                    prices.append(event["price"])
            return bool(values and values[-1] == 1299.0 and prices and prices[-1] == 129.9)

        for number in range(100):
            await tick(daemon, 120.0 + number / 10)
        await until(socket, taken)
        assert len(values) <= 5
        assert daemon.parts.realtime.follower.valuer.counts.passes - before <= 5
        await socket.close()
        await background.end()


async def test_a_price_put_in_by_hand_comes_on_the_prices_of_every_daemon(daemons: Pair) -> None:
    one, other = daemons
    background = BackgroundTasks()
    for number, daemon in enumerate(daemons):
        background.start(daemon.parts.realtime.bar_prices.run(), f"bar-prices-{number}")
    key = {"X-API-Key": "ops-key"}

    async def put(price: float) -> None:
        bars = {"currency": "USD", "bars": [{"date": "2026-11-20", "close": price}]}
        assert (await one.call("PUT", "/cache/historical/FUND?market=CUSTOM", json=bars, headers=key))[0] == 200

    await put(10.5)
    async with asyncio.timeout(PATIENCE):
        while other.services.catalog.find(Instrument("FUND", "CUSTOM")) is None:
            await asyncio.sleep(0)
    sockets = [await daemon.session.ws_connect(daemon.base + "/ws/portfolio", headers=ANN) for daemon in daemons]
    for socket in sockets:
        await socket.send_json({"type": "subscribe", "channels": ["prices"], "symbols": ["FUND:CUSTOM"]})
        await until(socket, has("price:updated", symbol="FUND", price=10.5, date="2026-11-20", stale=False))
    await put(11.5)
    for socket in sockets:
        await until(socket, has("price:updated", symbol="FUND", price=11.5))
        await socket.close()
    await background.end()
