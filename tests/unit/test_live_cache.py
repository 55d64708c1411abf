"""The live cache: readers never wait, batches are whole, older prices never win."""

from __future__ import annotations

import threading

import pytest

from pricecache.cache.live import LiveCache
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import VENDOR_DELAY, Quote, QuoteBatch, stale_from
from pricecache.core.sessions import SessionCalendar, every_day

INSTRUMENTS = [Instrument(f"S{i}") for i in range(200)]


def batch(as_of: float, price: float, instruments: list[Instrument] = INSTRUMENTS) -> QuoteBatch:
    return QuoteBatch.of(Quote(i, price, "USD", as_of, as_of, "test", stale_at=as_of + 60) for i in instruments)


def test_the_latest_price_is_read_and_goes_stale() -> None:
    cache = LiveCache()
    cache.publish(batch(100.0, 5.0))
    quote = cache.fresh("S3:US", 159.0)
    assert quote is not None
    assert quote.price == 5.0
    assert cache.fresh("S3:US", 160.0) is None
    assert cache.get("S3:US") is quote
    assert cache.get("NO:US") is None
    assert cache.fresh("NO:US", 0.0) is None


def test_an_older_price_never_replaces_a_newer_one() -> None:
    cache = LiveCache()
    cache.publish(batch(100.0, 5.0))
    taken = cache.publish(batch(99.0, 4.0, [*INSTRUMENTS[:5], Instrument("NEW")]))
    assert list(taken) == ["NEW:US"]
    assert cache.snapshot()["S1:US"].price == 5.0
    assert len(cache) == 201


def test_a_snapshot_stands_still() -> None:
    cache = LiveCache()
    cache.publish(batch(1.0, 1.0))
    before = cache.snapshot()
    cache.publish(batch(2.0, 2.0))
    assert {quote.price for quote in before.values()} == {1.0}


def test_300_concurrent_operations_end_without_an_error_and_no_batch_is_seen_in_part() -> None:
    """100 batches published, 100 snapshots and 100 single reads from 30 threads: no error, no mixed snapshot."""
    cache = LiveCache()
    cache.publish(batch(0.0, 0.0))
    errors: list[BaseException] = []
    mixed: list[set[float]] = []
    begin = threading.Barrier(30)

    def work(number: int) -> None:
        try:
            begin.wait()
            for turn in range(10):
                if number % 3 == 0:
                    cache.publish(batch(float(number * 10 + turn), float(number * 10 + turn)))
                elif number % 3 == 1:
                    seen = {quote.price for quote in cache.snapshot().values()}
                    if len(seen) != 1:
                        mixed.append(seen)
                else:
                    assert cache.get(f"S{turn}:US") is not None
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not mixed


@pytest.fixture
def calendar() -> SessionCalendar:
    """Monday to Friday; each session is its UTC day."""
    return every_day("weekdays", 20_000, 20_100, weekdays_only=True)


def test_a_price_of_an_open_market_is_stale_two_intervals_and_a_vendors_delay_after_it_was_made(
    calendar: SessionCalendar,
) -> None:
    noon = 20_005 * 86400 + 43_200.0  # a Wednesday
    assert calendar.is_open(noon)
    assert stale_from(noon, noon, calendar, 900, 1800) == noon + 1800 + VENDOR_DELAY
    assert stale_from(noon, noon + 600, calendar, 900, 1800) == noon + 1800 + VENDOR_DELAY
    assert stale_from(noon - 7200, noon, calendar, 900, 1800) == noon  # when it comes


def test_a_closing_price_stays_fresh_until_the_next_session_has_gone_on_for_two_intervals(
    calendar: SessionCalendar,
) -> None:
    friday_close = 20_008 * 86400.0
    assert not calendar.is_open(friday_close + 3600, 1800)
    monday = 20_010 * 86400.0
    assert stale_from(friday_close - 60, friday_close + 3600, calendar, 900, 1800) == monday + 1800


def test_a_price_from_long_before_the_close_is_stale_once_the_session_is_over(calendar: SessionCalendar) -> None:
    friday_close = 20_008 * 86400.0
    received = friday_close + 3600
    assert stale_from(friday_close - 7200, received, calendar, 900, 1800) == received
