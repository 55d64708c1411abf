"""Live prices by push, with polling behind it: the real client libraries, a fake stream and a fake Yahoo."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock, SystemClock
from pricecache.core.bars import day_number
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import VENDOR_DELAY, Quote, QuoteBatch
from pricecache.core.sessions import SessionCalendar
from pricecache.loopwatch import LoopWatch
from pricecache.providers.pool import ProviderPool
from pricecache.providers.yahoo import YahooProvider
from pricecache.providers.yahoo_stream import YahooStream
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quotes import QuoteStore
from pricecache.sync.publish import QuotePublisher
from pricecache.sync.refresh import LiveRefresher
from pricecache.sync.streamfeed import QuoteStream, StreamFeed
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.fakes.yahoo import FakeYahoo, sessions_back
from tests.fakes.yahoo_stream import FakeYahooStream, frame

AAPL, MSFT, IBM, FUND = (Instrument.parse(text) for text in ("AAPL", "MSFT", "IBM", "MYFUND:CUSTOM"))
FRIDAY = date(2026, 11, 20)
OPEN = datetime(2026, 11, 20, 15, tzinfo=UTC)
NIGHT = datetime(2026, 11, 21, 2, tzinfo=UTC)
INTERVAL, LAG = 900.0, 1800.0
BUSY = 2
"""Tasks of a feed that wait for the clock while it is connected and has nothing to publish."""


class Calendars:
    def __init__(self) -> None:
        self._book = xnys_book()

    async def get(self, name: str) -> SessionCalendar:
        return self._book.get(name)


@dataclass
class Live:
    """The live side of a daemon."""

    clock: Any
    server: FakeYahooStream
    yahoo: FakeYahoo
    catalog: Catalog
    cache: LiveCache
    instruments: InstrumentStore
    quotes: QuoteStore
    feed: StreamFeed
    refresher: LiveRefresher
    batches: list[int] = field(default_factory=list)

    async def track(self, *instruments: Instrument, tracked: bool = True) -> list[Entry]:
        entries = await self.instruments.add(
            instruments, wanted_from=day_number(FRIDAY) - 100, tracked=True, by="test", now=self.clock.time()
        )
        if not tracked:
            await self.instruments.set_tracked(entries, False, by="test", now=self.clock.time())
        return entries

    async def subscribed(self, *symbols: str) -> None:
        """Wait until exactly these are subscribed to and the feed says so."""
        await asyncio.to_thread(self.server.until, lambda: self.server.subscribed == set(symbols))
        await until(lambda: self.feed.connected and self.feed.state()["subscribed"] == len(symbols))

    async def disconnected(self) -> None:
        await until(lambda: not self.feed.connected)

    async def pushed(self, symbol: str, price: float, **fields: Any) -> Quote:
        """Push a price and wait until it is published."""
        key = f"{symbol}:US"
        self.server.push(symbol, price, at=self.clock.time(), **fields)
        await until(lambda: (quote := self.cache.get(key)) is not None and quote.price == price)
        quote = self.cache.get(key)
        assert quote is not None
        return quote

    async def later(self, seconds: float) -> None:
        """Move the clock on in steps of a second, each time that the feed is at rest."""
        for _ in range(round(seconds)):
            await self.clock.until_sleeping(1)
            self.clock.advance(1)
            for _ in range(5):
                await asyncio.sleep(0)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def server() -> Iterator[FakeYahooStream]:
    with FakeYahooStream() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(OPEN)


@pytest.fixture
def yahoo(clock: ManualClock) -> Iterator[FakeYahoo]:
    with FakeYahoo(clock) as yahoo:
        for symbol, price in (("AAPL", 100.0), ("MSFT", 50.0), ("IBM", 20.0)):
            yahoo.put(symbol, {day: [price] * 4 + [1000.0] for day in sessions_back(FRIDAY, 5)})
        yield yahoo


@asynccontextmanager
async def living(
    database: Any,
    clock: Clock,
    server: FakeYahooStream,
    yahoo: FakeYahoo,
    folder: Path,
    open_stream: Callable[[], QuoteStream] | None = None,
    silence: float = 60.0,
) -> AsyncIterator[Live]:
    catalog, cache, calendars = Catalog(), LiveCache(), Calendars()
    instruments, quotes = InstrumentStore(database, catalog), QuoteStore(database, clock)
    pool = ProviderPool(YahooProvider(folder, clock, yahoo.url, request_timeout=5), clock)
    publisher = QuotePublisher(
        catalog, cache, quotes, BarStore(database), calendars, instruments, clock, interval=INTERVAL, lag=LAG
    )
    feed = StreamFeed(
        open_stream or (lambda: YahooStream(clock, server.url)),
        catalog,
        publisher,
        calendars,
        clock,
        random.Random(3),
        silence=silence,
    )
    refresher = LiveRefresher(
        catalog, cache, publisher, pool, calendars, clock, interval=INTERVAL, lag=LAG, streamed=feed.streamed
    )
    live = Live(clock, server, yahoo, catalog, cache, instruments, quotes, feed, refresher)
    publisher.subscribe(lambda news: live.batches.append(len(news)))
    task = asyncio.create_task(feed.run())
    yield live
    assert not task.done(), task
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await publisher.close()
    await pool.close()


@pytest.fixture
async def live(
    database: Any, clock: ManualClock, server: FakeYahooStream, yahoo: FakeYahoo, tmp_path: Path
) -> AsyncIterator[Live]:
    async with living(database, clock, server, yahoo, tmp_path) as live:
        yield live


@pytest.fixture
async def patient(
    database: Any, clock: ManualClock, server: FakeYahooStream, yahoo: FakeYahoo, tmp_path: Path
) -> AsyncIterator[Live]:
    """One whose stream may be silent for a day."""
    async with living(database, clock, server, yahoo, tmp_path, silence=86400) as live:
        yield live


async def test_push_brings_prices_polling_takes_over_when_it_drops_and_it_recovers(patient: Live) -> None:
    live = patient
    await live.track(AAPL, MSFT)
    with capture_logs() as logs:
        await live.later(1)
        await live.subscribed("AAPL", "MSFT")
        assert (await live.refresher.refresh()).asked == 2
        live.clock.advance(INTERVAL)

        quote = await live.pushed("AAPL", 101.5, day_volume=5000)
        assert (quote.source, quote.session, quote.volume) == ("yfinance", day_number(FRIDAY), 5000.0)
        assert (quote.as_of, quote.stale_at) == (live.clock.time(), live.clock.time() + 2 * INTERVAL + VENDOR_DELAY)
        assert quote.open == 100.0  # of the session, from the poll before

        live.yahoo.reset_counts()
        report = await live.refresher.refresh()
        assert (report.asked, report.streamed) == (1, 1)
        assert live.yahoo.charts() == {"MSFT": 1}

        live.server.refusing = True
        live.server.drop()
        await live.disconnected()
        report = await live.refresher.refresh()
        assert (report.asked, report.streamed) == (2, 0)
        assert live.yahoo.charts() == {"MSFT": 2, "AAPL": 1}

        for _ in range(20):  # it is tried again and again, and each time refused
            await live.later(1)
        assert live.server.handshakes > 2
        live.server.refusing = False
        await live.later(300)
        await live.subscribed("AAPL", "MSFT")
        await live.pushed("AAPL", 102.0)
        await live.later(1)
        report = await live.refresher.refresh()
        assert (report.asked, report.streamed) == (1, 1)
    told = [(line["log_level"], line["event"]) for line in logs if line["log_level"] != "debug"]
    assert told == [("warning", "price stream lost"), ("info", "price stream is back")]
    state = live.feed.state()
    assert (state["connected"], state["subscribed"], state["published"]) == (True, 2, 2)
    assert state["reconnects"] == 1
    assert state["last_message_at"] == live.clock.time()
    assert "Yahoo" in state["last_error"]


async def test_what_is_pushed_survives_a_restart_within_a_second(live: Live, database: Any) -> None:
    await live.track(AAPL)
    await live.later(1)
    await live.subscribed("AAPL")
    await live.pushed("AAPL", 101.5)
    await live.clock.until_sleeping(BUSY)
    live.clock.advance(1)
    async with asyncio.timeout(5):
        while not await live.quotes.load():
            await asyncio.sleep(0.001)
    # another daemon, or this one after a kill: it has what the database has
    catalog, cache = Catalog(), LiveCache()
    await InstrumentStore(database, catalog).load_all()
    cache.publish(QuoteBatch.of(await QuoteStore(database, live.clock).load()))
    quote, pushed = cache.get(AAPL.key), live.cache.get(AAPL.key)
    assert quote is not None
    assert (quote.price, quote) == (101.5, pushed)


async def test_a_pushed_price_goes_stale_when_nothing_follows_and_is_asked_for_again(
    patient: Live,
) -> None:
    live = patient
    await live.track(AAPL)
    await live.later(1)
    await live.subscribed("AAPL")
    await live.pushed("AAPL", 101.5)
    live.clock.advance(INTERVAL + 1)
    report = await live.refresher.refresh()
    assert (report.asked, report.streamed) == (1, 0)


async def test_somebody_who_asks_by_name_is_not_put_off_with_the_stream(live: Live) -> None:
    await live.track(AAPL)
    await live.later(1)
    await live.subscribed("AAPL")
    await live.pushed("AAPL", 101.5)
    assert (await live.refresher.refresh([AAPL], force=True)).asked == 1


async def test_subscriptions_follow_what_is_tracked(live: Live) -> None:
    await live.track(AAPL, FUND)
    await live.later(1)
    await live.subscribed("AAPL")
    await live.track(MSFT)
    await live.later(1)
    await live.subscribed("AAPL", "MSFT")
    await live.track(AAPL, tracked=False)
    await live.later(1)
    await live.subscribed("MSFT")
    await live.track(MSFT, tracked=False)
    await live.later(1)
    await asyncio.to_thread(live.server.until, lambda: live.server.connections == 0)
    assert live.server.handshakes == 1


async def test_what_trades_no_more_is_not_subscribed_to(live: Live) -> None:
    (entry,) = await live.track(AAPL)
    await live.track(MSFT)
    await live.later(1)
    await live.subscribed("AAPL", "MSFT")
    entry.state = replace(entry.state, delisted_after=day_number(FRIDAY) - 3)
    await live.later(1)
    await live.subscribed("MSFT")


async def test_another_spelling_reaches_the_stream_that_is_open(
    database: Any, clock: ManualClock, server: FakeYahooStream, yahoo: FakeYahoo, tmp_path: Path
) -> None:
    spelled: dict[Instrument, Instrument] = {}

    def open_stream() -> YahooStream:
        return YahooStream(clock, server.url, spelling=lambda instrument: spelled.get(instrument, instrument))

    async with living(database, clock, server, yahoo, tmp_path, open_stream) as live:
        (entry,) = await live.track(IBM)
        await live.track(MSFT)
        await live.later(1)
        await live.subscribed("IBM", "MSFT")
        spelled[IBM] = AAPL
        entry.touch()
        await live.later(1)
        await live.subscribed("AAPL", "MSFT")
        server.push("AAPL", 20.5, at=clock.time())
        await until(lambda: (quote := live.cache.get(IBM.key)) is not None and quote.price == 20.5)
        assert server.handshakes == 1


async def test_only_connections_that_stand_count_as_opened_again(patient: Live) -> None:
    live = patient
    live.server.refusing = True
    await live.track(AAPL)
    await live.later(5)
    await until(lambda: live.server.handshakes > 0)
    live.server.refusing = False
    await live.later(300)
    await live.subscribed("AAPL")
    assert live.feed.reconnects == 0


async def test_an_end_in_good_order_is_followed_by_another_connection(live: Live) -> None:
    await live.track(AAPL)
    await live.later(1)
    await live.subscribed("AAPL")
    live.server.end()
    await live.disconnected()
    await live.later(3)
    await live.subscribed("AAPL")
    assert live.feed.reconnects == 1


async def test_silence_in_market_hours_is_a_drop(live: Live) -> None:
    await live.track(AAPL)
    await live.later(1)
    await live.subscribed("AAPL")
    await live.later(30)
    await live.pushed("AAPL", 101.5)
    live.server.freeze()
    await live.later(59)
    assert live.feed.connected
    await live.later(3)
    await live.disconnected()
    await until(lambda: live.clock.sleeping == 1)  # closed, which takes a second of real time
    await live.later(3)
    await live.subscribed("AAPL")
    assert live.server.handshakes == 2


async def test_a_silence_that_comes_again_is_waited_for_longer_each_time(live: Live) -> None:
    """Who tracks only what seldom trades is not to reconnect all day long."""
    await live.track(AAPL)
    await live.later(1)
    await live.subscribed("AAPL")
    await live.later(62)
    await live.disconnected()
    await live.later(3)
    await live.subscribed("AAPL")
    await live.later(100)
    assert live.feed.connected


async def test_silence_at_night_means_nothing(live: Live) -> None:
    live.clock.set(NIGHT)
    await live.track(AAPL)
    await live.later(1)
    await live.subscribed("AAPL")
    await live.later(300)
    assert live.feed.connected
    assert live.server.handshakes == 1


async def test_refused_prices_are_left_to_the_polls(live: Live) -> None:
    await live.track(AAPL)
    await live.later(1)
    await live.subscribed("AAPL")
    assert (await live.refresher.refresh()).updated == 1
    live.server.push("AAPL", 10_000.0, at=live.clock.time())
    await until(lambda: live.feed.messages == 1)
    await live.later(1)
    assert (await live.refresher.refresh()).asked == 1
    quote = live.cache.get(AAPL.key)
    assert quote is not None
    assert quote.price == 100.0


async def test_a_surprise_is_a_drop_like_any_other(
    database: Any, clock: ManualClock, server: FakeYahooStream, yahoo: FakeYahoo, tmp_path: Path
) -> None:
    class Broken(YahooStream):
        async def subscribe(self, instruments: Any) -> None:
            raise RuntimeError("oops")

    streams = iter([YahooStream(clock, server.url), Broken(clock, server.url)])

    def open_stream() -> YahooStream:
        return next(streams, None) or YahooStream(clock, server.url)

    with capture_logs() as logs:
        async with living(database, clock, server, yahoo, tmp_path, open_stream) as live:
            await live.clock.until_sleeping(1)
            await live.track(AAPL)
            await live.later(1)
            await until(lambda: live.feed.last_error is not None)
            await live.later(3)
            await live.subscribed("AAPL")
    assert live.feed.last_error == "RuntimeError: oops"
    assert [line["event"] for line in logs][:2] == ["price stream broke", "price stream lost"]


class OwnTime(SystemClock):
    """Goes on only while the loop's own thread computes: what the fake server and others on the machine take is not
    ours. Nothing on the way of a message waits in another way: a turn holds the loop for as long as it computes."""

    def monotonic(self) -> float:
        return time.thread_time()


async def test_a_flood_costs_a_few_batches_and_does_not_hold_the_loop(
    database: Any, server: FakeYahooStream, yahoo: FakeYahoo, tmp_path: Path
) -> None:
    clock = SystemClock()
    symbols = [f"S{i}" for i in range(100)]
    lags: list[float] = []
    async with living(database, clock, server, yahoo, tmp_path) as live:
        await live.track(*(Instrument(symbol) for symbol in symbols))
        await live.subscribed(*symbols)
        now = clock.time()
        messages = [frame(symbols[i % 100], 100 + i / 100, at=now + i / 5000) for i in range(5000)]
        watch = LoopWatch(OwnTime(), lags.append, interval=0.002)
        watch.start()
        sent = await asyncio.to_thread(server.flood, messages, 5000, 1.0)
        await until(lambda: live.feed.messages >= sent)
        watch.stop()
        await until(lambda: sum(live.batches) > 0)
        assert sent >= 4000
        assert len(live.batches) <= 8
        assert live.feed.published <= 800
        assert (
            sum(lag > 0.01 for lag in lags) <= 2
        )  # a collection of garbage, which the daemon keeps short, may come in between
