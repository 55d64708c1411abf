"""Followed portfolios while others come, go and change: nobody is told what is another's or of another time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import Unavailable
from pricecache.realtime import valuing
from pricecache.stores.ledger import LedgerMoved, LedgerStore
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_live_values import settle, tick, value_of
from tests.integration.test_portfolio_summary import HOUR, holding_ten
from tests.integration.test_portfolios import ANN, BUY, KEYS, add, made, priced

EURO = Instrument("USDEUR=X", "FX")


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    """It is Friday, 16:00 UTC: New York has been open for an hour and a half."""
    async with api_daemon(database, keys=KEYS) as started:
        started.clock.advance(6 * HOUR)
        yield started


async def settled(daemon: ApiDaemon, times: int = 2) -> None:
    for _ in range(times):
        daemon.clock.advance(3)
        await settle(daemon)


async def in_two_currencies(daemon: ApiDaemon) -> list[str]:
    """Ten shares, once in dollars and once in euros, as of Friday."""
    await priced(daemon, EURO, {TODAY - 18: 0.8, TODAY - 1: 0.8})
    dollars = await holding_ten(daemon)
    euros = await made(daemon, baseCurrency="EUR")
    await add(daemon, euros, {**BUY, "price": 90})
    await tick(daemon, 120.0)
    await settled(daemon)
    return [dollars, euros]


async def test_a_new_session_begins_the_range_in_every_base_currency(daemon: ApiDaemon) -> None:
    portfolios = await in_two_currencies(daemon)
    daemon.clock.advance(3 * 86400)  # Monday
    await tick(daemon, 140.0, session=TODAY + 3, open=131.0, previous_close=120.0)
    await settled(daemon)
    assert [value_of(daemon, one).day for one in portfolios] == [TODAY + 3] * 2
    assert [value_of(daemon, one).high for one in portfolios] == [1400, 1120]


async def test_a_portfolio_that_is_deleted_is_followed_no_more(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon)
    await settled(daemon)
    await daemon.call("DELETE", f"/api/portfolios/{portfolio}", headers=ANN)
    await settled(daemon)
    assert value_of(daemon, portfolio) is None


async def test_prices_while_nobody_was_followed_count_for_who_comes_next(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon)
    await tick(daemon, 120.0)
    await settled(daemon)
    await daemon.call("DELETE", f"/api/portfolios/{portfolio}", headers=ANN)
    await settled(daemon)
    follower = daemon.parts.realtime.follower
    assert not len(follower)
    await tick(daemon, 130.0)
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "price": 90})
    await settled(daemon)
    follower.look([portfolio])
    await settled(daemon)
    assert value_of(daemon, portfolio).value == 1300


async def test_a_price_while_a_row_is_made_counts_though_its_column_had_gone(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon)
    await tick(daemon, 120.0)
    await settled(daemon)
    realtime, book = daemon.parts.realtime, daemon.parts.realtime.follower._book
    await daemon.call("DELETE", f"/api/portfolios/{portfolio}", headers=ANN)
    await settled(daemon)
    book.merge()
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "price": 90})
    computed = daemon.parts.portfolio.summaries.computed

    async def meanwhile(asked: Any, account: str | None = None) -> Any:
        found = await computed(asked, account)
        await tick(daemon, 130.0)
        return found

    daemon.parts.portfolio.summaries.computed = meanwhile  # type: ignore[method-assign]
    await settled(daemon, 1)
    daemon.parts.portfolio.summaries.computed = computed  # type: ignore[method-assign]
    realtime.follower.look([portfolio])
    await settled(daemon)
    assert value_of(daemon, portfolio).value == 1300


async def test_a_fault_halfway_through_a_new_session_loses_no_row_that_it_changes(daemon: ApiDaemon) -> None:
    portfolios = await in_two_currencies(daemon)
    for portfolio in portfolios:
        await add(daemon, portfolio, {**BUY, "date": "2026-11-20", "price": 120, "externalId": "today"})
    await settled(daemon, 3)
    prices, calls = daemon.parts.realtime.follower._prices, list[str]()
    told = prices._told

    async def faulty(instruments: Any, currencies: Any, base: str) -> Any:
        calls.append(base)
        if len(calls) == 2:
            raise Unavailable("The database is away.")
        return await told(instruments, currencies, base)

    prices._told = faulty  # type: ignore[method-assign]
    daemon.clock.advance(3 * 86400)  # Monday
    await tick(daemon, 140.0, session=TODAY + 3, open=131.0, previous_close=120.0)
    await settled(daemon, 4)
    assert set(calls) == {"USD", "EUR"}
    assert [value_of(daemon, one).change for one in portfolios] == [400, 320]


async def test_whoever_goes_while_listeners_are_told_mixes_nothing_up(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    realtime = daemon.parts.realtime
    await priced(daemon, AAPL, {TODAY - 18: 90.0, TODAY - 2: 100.0, TODAY - 1: 110.0})
    portfolios = []
    for quantity in (1, 2, 3):
        portfolios.append(await made(daemon))
        await add(daemon, portfolios[-1], {**BUY, "quantity": quantity, "price": 90})
        await realtime.hub._register._feeds.snapshot(portfolios[-1])
    await tick(daemon, 120.0)
    await settled(daemon)
    first, second, third = portfolios
    told = dict[str, float]()

    def tell(portfolio: str, values: Any) -> None:
        told[portfolio] = values["account"]["totalValue"]
        if portfolio == first:  # it goes on with the next portion after this one
            realtime.follower.unlisten(second)
            realtime.follower.drop(realtime.follower._followed.get(second))  # type: ignore[arg-type]

    realtime.follower.valuer._listeners.publish_values = tell  # type: ignore[method-assign]
    monkeypatch.setattr(valuing, "FIGURES_AT_ONCE", 1)
    await tick(daemon, 130.0)
    await settled(daemon)
    assert told == {first: 130, third: 390}


async def test_a_portfolio_found_gone_takes_nothing_from_who_has_its_slot_now(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    portfolio = await holding_ten(daemon)
    await tick(daemon, 120.0)
    await settled(daemon)
    follower = daemon.parts.realtime.follower
    gone, find = follower.touch("gone"), daemon.parts.portfolio.store.find
    other = await made(daemon)

    async def meanwhile(portfolio_id: str) -> Any:
        if portfolio_id == "gone":
            follower.drop(gone)
            assert follower.touch(other).slot == gone.slot
        return await find(portfolio_id)

    monkeypatch.setattr(daemon.parts.portfolio.store, "find", meanwhile)
    await settled(daemon, 3)
    assert value_of(daemon, "gone") is None
    assert value_of(daemon, other).value == 0
    assert value_of(daemon, portfolio).value == 1200


async def test_a_second_listener_takes_no_news_from_the_first(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    portfolio = await holding_ten(daemon)
    await tick(daemon, 120.0)
    realtime, told = daemon.parts.realtime, list[float]()
    await realtime.hub._register._feeds.snapshot(portfolio)
    await settled(daemon)
    monkeypatch.setattr(
        realtime.hub, "publish_values", lambda portfolio, values: told.append(values["account"]["totalValue"])
    )
    await tick(daemon, 130.0)
    state = await realtime.hub._register._feeds.snapshot(portfolio)  # before the pass that the price is waiting for
    assert state.values["account"]["totalValue"] == 1300
    await settled(daemon)
    assert told == [1300]


async def test_no_fault_of_one_instrument_ends_the_updates_of_the_others(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    portfolios = await in_two_currencies(daemon)
    follower, prices = daemon.parts.realtime.follower, daemon.parts.realtime.follower._prices
    of = prices._signatures.of

    def without_euros(entry: Any) -> Any:
        if entry.instrument == EURO:
            raise Unavailable("The sessions are being loaded.", code="calendar_loading")
        return of(entry)

    monkeypatch.setattr(prices._signatures, "of", without_euros)
    now = daemon.clock.time()
    rate = Quote(EURO, 0.9, "EUR", now, now, "scripted", session=TODAY)
    price = Quote(AAPL, 130.0, "USD", now, now, "scripted", session=TODAY, open=112.0, previous_close=110.0)
    published = await daemon.parts.prices.publisher.publish([rate, price], way="stream")
    assert not published.refused
    monkeypatch.setattr(prices, "_told", None)  # a fault of ours
    prices.doubt([(AAPL, "USD")])
    await follower.work()
    monkeypatch.undo()
    await settled(daemon)
    assert value_of(daemon, portfolios[0]).value == 1300


async def test_a_change_of_unknown_outcome_is_valued_as_well(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    portfolio = await holding_ten(daemon)
    await tick(daemon, 120.0)
    await settled(daemon, 3)
    commit, tries = LedgerStore.commit, list[str]()

    async def lost(self: LedgerStore, portfolio_id: str, *facts: Any) -> Any:
        committed = await commit(self, portfolio_id, *facts)
        tries.append(portfolio_id)
        if len(tries) == 1:
            raise LedgerMoved  # as when the answer is lost on its way
        return committed

    monkeypatch.setattr(LedgerStore, "commit", lost)
    status, answer = await add(daemon, portfolio, {**BUY, "quantity": 5, "price": 90, "externalId": "more"})
    assert status in (200, 201), answer
    await settled(daemon, 3)
    assert len(tries) == 1
    assert value_of(daemon, portfolio).value == 1800


async def test_a_snapshot_tells_the_whole_range_though_others_took_its_place_meanwhile(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    portfolio = await holding_ten(daemon)
    for price in (120.0, 130.0, 125.0):
        await tick(daemon, price)
        await settled(daemon, 3)
    realtime, of = daemon.parts.realtime, daemon.parts.portfolio.summaries.of
    await realtime.ranges.save()

    async def meanwhile(asked: Any, account: str | None = None) -> Any:
        found = await of(asked, account)
        realtime.follower.drop(realtime.follower.touch(portfolio))
        return found

    monkeypatch.setattr(daemon.parts.portfolio.summaries, "of", meanwhile)
    state = await realtime.hub._register._feeds.snapshot(portfolio)
    assert state.values["account"]["dayHigh"] == 1300
