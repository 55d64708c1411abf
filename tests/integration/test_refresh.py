"""Polling for live prices: who is asked for, who is left alone, and who is asked for more rarely."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from pricecache.cache.live import LiveCache
from pricecache.core.bars import day_number
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import ProviderUnavailable
from pricecache.providers.pool import ProviderPool
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quotes import QuoteStore
from pricecache.sync.publish import QuotePublisher
from pricecache.sync.refresh import LiveRefresher
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.fakes.provider import ScriptedProvider

AAPL, DEAD = Instrument("AAPL"), Instrument("DEAD")
OPEN = datetime(2026, 11, 20, 15, tzinfo=UTC).timestamp()
INTERVAL, LAG, HOUR, DAY = 900.0, 1800.0, 3600.0, 86400.0


class Calendars:
    def __init__(self) -> None:
        self._book = xnys_book()

    async def get(self, name: str) -> SessionCalendar:
        return self._book.get(name)


@dataclass
class Polling:
    clock: ManualClock
    provider: ScriptedProvider
    live: LiveCache
    refresher: LiveRefresher
    entries: dict[Instrument, Entry]

    def asked(self, instrument: Instrument) -> int:
        return sum(instrument in call.instruments for call in self.provider.calls)

    async def runs(self, seconds: float) -> None:
        """The scheduled runs of so long a time; each comes a little before or after its moment."""
        for number in range(round(seconds / INTERVAL)):
            self.clock.advance(INTERVAL + (-2 if number % 2 else 2))
            self.provider.prices[AAPL] = Quote(AAPL, 100.0, "USD", self.clock.time(), 0.0, "scripted")
            await self.refresher.refresh()


@pytest.fixture
async def polling(database: Any) -> AsyncIterator[Polling]:
    clock, provider, catalog, live = ManualClock(OPEN), ScriptedProvider(), Catalog(), LiveCache()
    provider.always_moving = True
    instruments, calendars, pool = InstrumentStore(database, catalog), Calendars(), ProviderPool(provider, clock)
    publisher = QuotePublisher(
        catalog,
        live,
        QuoteStore(database, clock),
        BarStore(database),
        calendars,
        instruments,
        clock,
        interval=INTERVAL,
        lag=LAG,
        always_moving=True,
    )
    refresher = LiveRefresher(
        catalog, live, publisher, pool, calendars, clock, interval=INTERVAL, lag=LAG, always_moving=True
    )
    entries = await instruments.add(
        [AAPL, DEAD], wanted_from=day_number(date(2026, 11, 1)), tracked=True, by="test", now=OPEN
    )
    yield Polling(clock, provider, live, refresher, {entry.instrument: entry for entry in entries})
    await pool.close()


async def test_a_symbol_nobody_knows_is_asked_for_ever_more_rarely(polling: Polling) -> None:
    await polling.runs(DAY)
    assert polling.asked(AAPL) == 96
    assert polling.asked(DEAD) == 7  # at once, then after 1/4, 1/2, 1, 2, 4 and 8 hours
    await polling.runs(10 * DAY)
    assert 10 <= polling.asked(DEAD) - 7 <= 11


async def test_who_asks_by_name_does_not_wait(polling: Polling) -> None:
    await polling.runs(DAY)
    before = polling.asked(DEAD)
    report = await polling.refresher.refresh(force=True)
    assert (report.asked, report.backing_off) == (1, 1)
    assert (await polling.refresher.refresh([DEAD], force=True)).asked == 1
    assert polling.asked(DEAD) == before + 1


async def test_a_symbol_that_is_found_again_is_asked_for_at_each_run(polling: Polling) -> None:
    await polling.runs(DAY)
    polling.provider.prices[DEAD] = Quote(DEAD, 1.0, "USD", polling.clock.time(), 0.0, "scripted")
    await polling.refresher.refresh([DEAD], force=True)
    before = polling.asked(DEAD)
    await polling.runs(4 * INTERVAL)
    assert polling.asked(DEAD) == before + 4


async def test_an_outage_makes_nobody_wait(polling: Polling) -> None:
    polling.provider.script_quotes(*[ProviderUnavailable("down")] * 4)
    for _ in range(4):
        await polling.refresher.refresh()
    assert (await polling.refresher.refresh()).backing_off == 0


async def test_a_symbol_in_quarantine_is_asked_for_once_a_day(polling: Polling) -> None:
    entry = polling.entries[DEAD]
    entry.state = replace(entry.state, quarantined_at=polling.clock.time())
    await polling.runs(0.5 * DAY)
    assert polling.asked(DEAD) == 0
    await polling.runs(3 * DAY)
    assert 3 <= polling.asked(DEAD) <= 4


async def test_a_fund_is_not_asked_for_while_the_market_is_open(database: Any, polling: Polling) -> None:
    polling.refresher._always_moving = False
    entry = polling.entries[AAPL]
    entry.kind = "fund"
    thursday_night = OPEN - 14 * HOUR
    polling.provider.prices[AAPL] = Quote(
        AAPL, 100.0, "USD", thursday_night, 0.0, "scripted", session=day_number(date(2026, 11, 19))
    )
    assert (await polling.refresher.refresh([AAPL])).asked == 1
    assert (await polling.refresher.refresh([AAPL])).quiet == 1
    polling.clock.set(OPEN + 6 * HOUR + 60)  # the close
    assert (await polling.refresher.refresh([AAPL])).asked == 1
