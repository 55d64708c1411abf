"""Until when a quote is fresh, and when a newer one can be had: shares, funds, currencies, coins."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from pricecache.core.bars import day_number
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import VENDOR_DELAY, Quote, fund_has_news, fund_stale_from, has_news, stale_from
from tests.fakes.calendars import calendar_of

XNYS, FX, COINS = calendar_of("XNYS"), calendar_of("24/5"), calendar_of("24/7")
THURSDAY, FRIDAY = day_number(date(2026, 11, 19)), day_number(date(2026, 11, 20))
INTERVAL, LAG, FUND_LAG = 900.0, 1800.0, 45000.0


def utc(day: int, hour: int, minute: int = 0) -> float:
    """An instant of November 2026."""
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC).timestamp()


def quote(session: int | None, received_at: float) -> Quote:
    return Quote(Instrument("VFIAX"), 500.0, "USD", received_at, received_at, "test", session)


def test_a_fund_is_fresh_until_the_price_of_the_next_session_is_due() -> None:
    assert fund_stale_from(THURSDAY, utc(20, 2), XNYS, FUND_LAG) == utc(20, 21) + FUND_LAG


def test_a_fund_stays_fresh_over_the_weekend() -> None:
    assert fund_stale_from(FRIDAY, utc(21, 2), XNYS, FUND_LAG) == utc(23, 21) + FUND_LAG


@pytest.mark.parametrize("session", [None, FRIDAY + 1], ids=["of no session", "of a Saturday"])
def test_a_funds_price_of_no_session_is_stale_when_it_comes(session: int | None) -> None:
    assert fund_stale_from(session, utc(20, 2), XNYS, FUND_LAG) == utc(20, 2)


@pytest.mark.parametrize(
    ("session", "at", "news"),
    [
        (THURSDAY, utc(20, 15), False),  # the market is open, and funds do not move
        (THURSDAY, utc(20, 21, 1), True),
        (THURSDAY, utc(22, 12), True),
        (FRIDAY, utc(22, 12), False),
        (None, utc(20, 15), True),
    ],
)
def test_a_fund_has_news_once_a_later_session_is_over(session: int | None, at: float, news: bool) -> None:
    assert fund_has_news(quote(session, utc(20, 2)), XNYS, at) is news


def test_a_fund_never_quoted_has_news() -> None:
    assert fund_has_news(None, XNYS, utc(20, 15))


def test_a_currency_rests_from_friday_evening_in_new_york_until_monday() -> None:
    assert stale_from(utc(20, 22), utc(21, 12), FX, INTERVAL, LAG) == utc(23, 0) + 2 * INTERVAL
    assert stale_from(utc(20, 12), utc(21, 12), FX, INTERVAL, LAG) == utc(21, 12)
    assert not has_news(quote(FRIDAY, utc(21, 1)), FX, utc(22, 12), LAG)


@pytest.mark.parametrize(
    ("made", "received", "stale"),
    [
        (utc(19, 21), utc(20, 14, 35), utc(20, 15)),  # yesterday's close until half an hour after the open
        (utc(19, 21), utc(20, 15, 10), utc(20, 15, 10)),  # and then not at all
        (utc(20, 13), utc(20, 14, 35), utc(20, 15)),  # of before the open
        (utc(20, 14, 31), utc(20, 14, 50), utc(20, 15, 21)),  # as a vendor gives it who is 19 minutes late
        (utc(20, 16), utc(20, 19), utc(20, 19)),  # the last trade was long ago
        (utc(20, 20, 45), utc(20, 21, 5), utc(23, 15)),  # the close, as good as it is known yet
        (utc(20, 20, 59), utc(20, 22), utc(23, 15)),
        (utc(20, 20, 20), utc(20, 21, 5), utc(20, 21, 10)),  # the close may still come
        (utc(20, 20, 20), utc(20, 22), utc(20, 22)),
    ],
)
def test_what_counts_is_when_a_price_was_made_and_in_which_session(made: float, received: float, stale: float) -> None:
    assert stale_from(made, received, XNYS, INTERVAL, LAG) == stale


def test_a_coin_never_rests() -> None:
    for instant in (utc(21, 12), utc(21, 23, 59), utc(22, 0)):
        assert stale_from(instant, instant + 300, COINS, INTERVAL, LAG) == instant + 2 * INTERVAL + VENDOR_DELAY
    assert stale_from(utc(21, 12), utc(22, 0, 5), COINS, INTERVAL, LAG) == utc(22, 0, 5)
    assert has_news(quote(FRIDAY, utc(21, 12)), COINS, utc(21, 13), LAG)
