"""What becomes of quotes, polled or pushed: on a real mongod, with a clock that stands still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
import structlog.testing
from pymongo.errors import PyMongoError

from pricecache.cache.live import LiveCache
from pricecache.core.actions import Action
from pricecache.core.bars import Bars, day_number
from pricecache.core.catalog import FUND_LAG, Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import VENDOR_DELAY, Quote
from pricecache.core.sessions import SessionCalendar
from pricecache.metrics import Metrics
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quotes import QuoteStore
from pricecache.sync.publish import Published, QuotePublisher, Way
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book

AAPL, MSFT, EUR, BTC = (Instrument.parse(text) for text in ("AAPL", "MSFT", "EURUSD=X:FX", "BTC-USD:CRYPTO"))
OPEN = datetime(2026, 11, 20, 15, tzinfo=UTC).timestamp()
FRIDAY = day_number(date(2026, 11, 20))
INTERVAL, LAG, HOUR = 900.0, 1800.0, 3600.0


class Calendars:
    def __init__(self) -> None:
        self._book = xnys_book()

    async def get(self, name: str) -> SessionCalendar:
        return self._book.get(name)


@dataclass
class Bench:
    """A publisher and what it works with."""

    clock: ManualClock
    catalog: Catalog
    live: LiveCache
    quotes: QuoteStore
    bars: BarStore
    instruments: InstrumentStore
    publisher: QuotePublisher
    metrics: Metrics

    async def track(self, *instruments: Instrument) -> list[Entry]:
        return await self.instruments.add(
            instruments, wanted_from=FRIDAY - 100, tracked=True, by="test", now=self.clock.time()
        )

    async def record(self, entry: Entry, close: float, *, last: int = FRIDAY - 1) -> None:
        """A daily record of five sessions that ended with this close."""
        sessions = xnys_book().get("XNYS").between(last - 30, last)[-5:]
        await self.bars.commit([Change(entry, Bars(sessions, np.full((5, 5), close)), "yfinance", self.clock.time())])

    async def take(self, *quotes: Quote, way: Way = "poll") -> Published:
        return await self.publisher.publish(quotes, way=way)

    async def code(self, quote: Quote) -> str | None:
        """Why it was refused, or None."""
        refused = (await self.take(quote)).refused
        return refused[quote.instrument].code if refused else None

    def at(self, price: float, instrument: Instrument = AAPL, **facts: Any) -> Quote:
        now = self.clock.time()
        return Quote(
            instrument, price, **{"currency": "USD", "as_of": now, "received_at": now, "source": "yfinance"} | facts
        )


@pytest.fixture
def bench(database: Any) -> Bench:
    clock, catalog, live, metrics = ManualClock(OPEN), Catalog(), LiveCache(), Metrics("0")
    quotes, bars, instruments = QuoteStore(database, clock), BarStore(database), InstrumentStore(database, catalog)
    publisher = QuotePublisher(
        catalog, live, quotes, bars, Calendars(), instruments, clock, interval=INTERVAL, lag=LAG, metrics=metrics
    )
    return Bench(clock, catalog, live, quotes, bars, instruments, publisher, metrics)


def held(bench: Bench, instrument: Instrument = AAPL) -> Quote:
    quote = bench.live.get(instrument.key)
    assert quote is not None
    return quote


async def test_what_is_polled_is_stored_before_anybody_hears_of_it(bench: Bench) -> None:
    await bench.track(AAPL)
    heard: list[Sequence[Quote]] = []
    bench.publisher.subscribe(heard.append)
    published = await bench.take(bench.at(100.0))
    assert [quote.price for quote in await bench.quotes.load()] == [100.0]
    assert heard == [list(published.taken.values())]
    assert held(bench).stale_at == OPEN + 2 * INTERVAL + VENDOR_DELAY


async def test_what_is_pushed_is_seen_at_once_and_stored_by_the_next_save(bench: Bench) -> None:
    await bench.track(AAPL, MSFT)
    await bench.take(bench.at(100.0), bench.at(50.0, MSFT), way="stream")
    bench.clock.advance(0.5)
    await bench.take(bench.at(101.0), way="stream")
    assert held(bench).price == 101.0
    assert await bench.quotes.load() == []
    await bench.publisher.save_pushed()
    assert {quote.instrument: quote.price for quote in await bench.quotes.load()} == {AAPL: 101.0, MSFT: 50.0}


async def test_pushed_quotes_that_cannot_be_saved_wait_for_the_next_time(bench: Bench) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0), way="stream")
    save = bench.quotes.save

    async def fail(*_: object) -> None:
        raise PyMongoError("away")

    bench.quotes.save = fail  # type: ignore[method-assign]
    await bench.publisher.close()
    bench.quotes.save = save  # type: ignore[method-assign]
    await bench.publisher.close()
    assert len(await bench.quotes.load()) == 1


async def test_a_listener_that_fails_costs_nobody_a_price_and_is_told_once(bench: Bench) -> None:
    await bench.track(AAPL)
    heard: list[Sequence[Quote]] = []

    def fail(quotes: Sequence[Quote]) -> None:
        raise RuntimeError("oops")

    bench.publisher.subscribe(fail)
    bench.publisher.subscribe(heard.append)
    with structlog.testing.capture_logs() as logs:
        await bench.take(bench.at(100.0))
        bench.clock.advance(1)
        await bench.take(bench.at(101.0))
    assert [line["event"] for line in logs] == ["a listener to quotes failed"]
    assert [quotes[0].price for quotes in heard] == [100.0, 101.0]


async def test_the_same_price_again_is_no_news(bench: Bench) -> None:
    await bench.track(AAPL)
    quote = bench.at(100.0)
    assert len((await bench.take(quote)).news) == 1
    bench.clock.advance(60)
    published = await bench.take(quote)
    assert (len(published.taken), len(published.news)) == (1, 0)
    assert held(bench).stale_at == OPEN + 2 * INTERVAL + VENDOR_DELAY


@pytest.mark.parametrize("older", [{"as_of": OPEN - 1}, {"session": FRIDAY - 1}], ids=["time", "session"])
async def test_an_older_price_changes_nothing_and_is_no_failure(bench: Bench, older: dict[str, Any]) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0), way="stream")
    published = await bench.take(bench.at(90.0, **older))
    assert (published.taken, published.refused) == ({}, {})
    assert held(bench).price == 100.0
    assert await bench.quotes.load() == []


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"price": float("inf")}, "bad_quote"),
        ({"price": -1.0}, "bad_quote"),
        ({"as_of": float("nan")}, "bad_quote"),
        ({"as_of": OPEN + HOUR}, "bad_quote"),
        ({"session": FRIDAY + 7}, "bad_quote"),
        ({"currency": "EUR"}, "currency_changed"),
    ],
)
async def test_what_cannot_be_is_refused_and_counted(bench: Bench, bad: dict[str, Any], code: str) -> None:
    (entry,) = await bench.track(AAPL)
    await bench.record(entry, 100.0)
    assert await bench.code(replace(bench.at(100.0), **bad)) == code
    assert bench.publisher.refusals == {code: 1}
    sample = f'pricecache_quotes_refused_total{{code="{code}",provider="yfinance"}} 1.0'
    assert sample in bench.metrics.exposition().decode()
    assert bench.live.get(AAPL.key) is None


async def test_an_instrument_not_known_here_is_refused_alone(bench: Bench) -> None:
    await bench.track(AAPL)
    published = await bench.take(bench.at(1.0, MSFT), bench.at(100.0))
    assert (list(published.taken), list(published.refused)) == ([AAPL.key], [MSFT])


@pytest.mark.parametrize("factor", [100.0, 0.01, 25.0, 0.04])
async def test_a_leap_that_nothing_explains_is_refused(bench: Bench, factor: float) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0))
    bench.clock.advance(60)
    assert await bench.code(bench.at(100.0 * factor)) == "implausible_quote"
    assert await bench.code(bench.at(100.0 * factor)) == "implausible_quote"
    assert held(bench).price == 100.0
    assert await bench.code(bench.at(105.0)) is None


async def test_a_change_of_unit_is_called_one(bench: Bench) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0))
    refused = (await bench.take(bench.at(1.01))).refused[AAPL]
    assert "unit" in refused.detail


async def test_a_first_quote_is_held_against_the_record_or_its_own_previous_close(bench: Bench) -> None:
    entry, _ = await bench.track(AAPL, MSFT)
    await bench.record(entry, 100.0)
    assert await bench.code(bench.at(1.0)) == "implausible_quote"
    assert await bench.code(bench.at(1.0, MSFT, previous_close=100.0)) == "implausible_quote"
    assert await bench.code(bench.at(1.0, MSFT)) is None


async def test_a_leap_that_another_provider_confirms_is_taken(bench: Bench) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0))
    assert await bench.code(bench.at(2500.0)) == "implausible_quote"
    assert await bench.code(bench.at(7000.0, source="fmp")) == "implausible_quote"
    assert await bench.code(bench.at(2550.0, source="fmp")) is None
    assert held(bench).price == 2550.0


async def test_a_leap_that_the_daily_record_agrees_with_is_taken(bench: Bench) -> None:
    (entry,) = await bench.track(AAPL)
    await bench.take(bench.at(1.0))
    await bench.record(entry, 100.0)
    assert await bench.code(bench.at(101.0)) is None


async def test_a_leap_that_is_a_known_split_is_taken(bench: Bench) -> None:
    (entry,) = await bench.track(AAPL)
    await bench.take(bench.at(1.0, as_of=OPEN - 86400))
    entry.actions = (Action(FRIDAY, "split", 0.02),)
    assert await bench.code(bench.at(50.0)) is None


async def test_a_record_of_long_ago_speaks_against_nothing(bench: Bench) -> None:
    (entry,) = await bench.track(AAPL)
    await bench.record(entry, 100.0, last=FRIDAY - 200)
    assert await bench.code(bench.at(1.0)) is None


async def test_what_a_push_leaves_out_is_what_the_session_had_before(bench: Bench) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0, previous_close=98.0, open=99.0, day_high=100.5, day_low=98.5, volume=1000.0))
    bench.clock.advance(1)
    await bench.take(bench.at(101.0, currency="", volume=1200.0), way="stream")
    quote = held(bench)
    assert (quote.previous_close, quote.open, quote.day_high, quote.day_low) == (98.0, 99.0, 101.0, 98.5)
    assert (quote.volume, quote.currency) == (1200.0, "USD")


async def test_nothing_is_carried_over_into_another_session(bench: Bench) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0, as_of=OPEN - 86400, previous_close=98.0, volume=1000.0))
    await bench.take(bench.at(101.0), way="stream")
    assert (held(bench).session, held(bench).previous_close, held(bench).volume) == (FRIDAY, None, None)


async def test_the_price_of_a_fund_is_fresh_until_the_next_one_is_due(bench: Bench) -> None:
    (entry,) = await bench.track(AAPL)
    entry.kind = "fund"
    thursday_evening = datetime(2026, 11, 20, 1, tzinfo=UTC).timestamp()
    await bench.take(bench.at(100.0, as_of=thursday_evening, session=FRIDAY - 1))
    friday_close = datetime(2026, 11, 20, 21, tzinfo=UTC).timestamp()
    assert held(bench).stale_at == friday_close + LAG + FUND_LAG


async def test_coins_are_never_at_rest_and_currencies_are_at_the_weekend(bench: Bench) -> None:
    await bench.track(EUR, BTC)
    bench.clock.set(datetime(2026, 11, 21, 12, tzinfo=UTC))
    friday_end = datetime(2026, 11, 20, 22, tzinfo=UTC).timestamp()
    await bench.take(bench.at(1.15, EUR, as_of=friday_end), bench.at(90_000.0, BTC))
    monday = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
    assert held(bench, EUR).stale_at == monday + 2 * INTERVAL
    assert held(bench, BTC).stale_at == bench.clock.time() + 2 * INTERVAL + VENDOR_DELAY


async def test_where_a_session_is_a_utc_day_the_vendors_own_day_does_not_matter(bench: Bench) -> None:
    await bench.track(BTC)
    await bench.take(bench.at(90_000.0, BTC, session=FRIDAY + 1))
    assert held(bench, BTC).session == FRIDAY


async def test_a_vendors_clock_that_is_ahead_makes_nothing_that_follows_look_old(bench: Bench) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0, as_of=OPEN + 600))
    assert held(bench).as_of == OPEN
    bench.clock.advance(1)
    assert AAPL.key in (await bench.take(bench.at(101.0))).taken


async def test_a_price_of_before_the_open_is_of_no_session_to_come(bench: Bench) -> None:
    await bench.track(AAPL)
    bench.clock.set(datetime(2026, 11, 23, 10, tzinfo=UTC))
    await bench.take(bench.at(100.0, session=FRIDAY + 3))
    assert held(bench).session == FRIDAY


async def test_a_figure_of_the_day_that_is_of_another_order_is_unknown(bench: Bench) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(99.0, as_of=OPEN - 86400))
    await bench.take(bench.at(100.0, previous_close=2001.0, open=4.9, day_high=1e30, day_low=1e-30, volume=-1.0))
    quote = held(bench)
    assert (quote.price, quote.previous_close, quote.open, quote.day_high, quote.day_low) == (100.0, *[None] * 4)
    assert quote.volume is None


async def test_the_range_of_the_day_takes_in_the_price(bench: Bench) -> None:
    await bench.track(AAPL)
    await bench.take(bench.at(100.0, day_high=99.0, day_low=98.0))
    assert (held(bench).day_low, held(bench).day_high) == (98.0, 100.0)


async def test_a_quote_of_before_a_rename_is_saved_under_its_series(bench: Bench) -> None:
    (entry,) = await bench.track(AAPL)
    await bench.take(bench.at(100.0), way="stream")
    await bench.instruments.rename(entry, MSFT, FRIDAY)
    (anew,) = await bench.track(AAPL)
    assert anew.id != entry.id
    bench.clock.advance(1)
    await bench.take(bench.at(101.0, MSFT), way="stream")
    await bench.publisher.save_pushed()
    assert [(quote.series, quote.price) for quote in await bench.quotes.load()] == [(entry.id, 101.0)]


async def test_a_quote_whose_symbol_changes_while_it_is_saved_is_published_under_the_new_one(bench: Bench) -> None:
    (entry,) = await bench.track(AAPL)
    save = bench.quotes.save

    async def renaming(quotes: Any) -> None:
        await save(quotes)
        await bench.instruments.rename(entry, MSFT, FRIDAY)

    bench.quotes.save = renaming  # type: ignore[method-assign]
    await bench.take(bench.at(100.0))
    assert bench.live.get(AAPL.key) is None
    assert held(bench, MSFT).price == 100.0
