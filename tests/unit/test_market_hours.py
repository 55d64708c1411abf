"""Which markets are open, and since when all of those of a portfolio are closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook, every_day
from pricecache.realtime.market_hours import Closed, MarketHours
from tests.fakes.calendars import xnys_book

HOUR, MONDAY = 3600.0, 20780
AAPL, TOYOTA, COIN = Instrument("AAPL"), Instrument("7203", "T"), Instrument("BTC-USD", "CRYPTO")


@pytest.fixture
def book() -> CalendarBook:
    """New York, and a Tokyo that closes at 06:00 UTC."""
    book = xnys_book()
    days = every_day(TOYOTA.place.calendar, MONDAY - 40, MONDAY + 40, weekdays_only=True)
    return CalendarBook({
        "XNYS": book.get("XNYS"),
        COIN.place.calendar: every_day(COIN.place.calendar, MONDAY - 40, MONDAY + 40),
        TOYOTA.place.calendar: replace(days, closes=days.opens + 6 * 3600),
    })  # fmt: skip


def at(book: CalendarBook, hours: float) -> MarketHours:
    return MarketHours(book, MONDAY * 86400 + hours * HOUR)


def test_what_is_held_in_two_parts_of_the_world_closes_with_each_of_them(book: CalendarBook) -> None:
    held = [AAPL, TOYOTA, COIN]
    tokyo, new_york = Closed(MONDAY, MONDAY * 86400 + 6 * HOUR), Closed(MONDAY, MONDAY * 86400 + 21 * HOUR)
    assert at(book, 5).closed(held) is None
    assert at(book, 6.01).closed(held) is None  # the last price of the session is waited for
    assert at(book, 7).closed(held) == tokyo
    assert at(book, 16).closed(held) is None
    assert at(book, 21.5).closed(held) == new_york


def test_what_trades_every_day_never_closes(book: CalendarBook) -> None:
    assert at(book, 7).closed([COIN]) is None
    assert at(book, 7).any_open([AAPL, COIN])
    assert not at(book, 7).any_open([AAPL, TOYOTA])


def test_a_market_whose_calendar_is_being_built_neither_opens_nor_closes() -> None:
    hours = at(CalendarBook(), 7)
    assert not hours.any_open([AAPL])
    assert hours.closed([AAPL]) is None
