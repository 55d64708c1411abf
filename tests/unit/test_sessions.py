"""Questions to a calendar: what is open, what is over, what comes next."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest

from pricecache.core.bars import day_number
from pricecache.core.sessions import CalendarBook, SessionCalendar, every_day
from pricecache.errors import Unavailable

DAYS = [day_number(date(2025, 11, day)) for day in (26, 28)]  # Thanksgiving is between them, the 28th a half-day
OPENS = [datetime(2025, 11, day, 14, 30, tzinfo=UTC).timestamp() for day in (26, 28)]
CLOSES = [datetime(2025, 11, 26, 21, tzinfo=UTC).timestamp(), datetime(2025, 11, 28, 18, tzinfo=UTC).timestamp()]
CALENDAR = SessionCalendar("XNYS", np.array(DAYS), np.array(OPENS, np.int64), np.array(CLOSES, np.int64))


def test_a_session_is_over_at_its_close_and_due_a_lag_later() -> None:
    assert CALENDAR.last_closed(CLOSES[1] - 1) == DAYS[0]
    assert CALENDAR.last_closed(CLOSES[1]) == DAYS[1]
    assert CALENDAR.last_closed(CLOSES[1] + 1799, 1800) == DAYS[0]
    assert CALENDAR.last_closed(CLOSES[1] + 1800, 1800) == DAYS[1]
    assert CALENDAR.last_closed(OPENS[0]) is None


def test_the_next_due_instant_is_the_next_close_and_the_lag() -> None:
    assert CALENDAR.next_due(CLOSES[0], 1800) == CLOSES[0] + 1800
    assert CALENDAR.next_due(CLOSES[0] + 1800, 1800) == CLOSES[1] + 1800
    assert CALENDAR.next_due(CLOSES[1] + 1800, 1800) is None


def test_open_from_the_open_up_to_the_close_and_the_lag() -> None:
    assert [CALENDAR.is_open(at) for at in (OPENS[0] - 1, OPENS[0], CLOSES[0] - 1, CLOSES[0])] == [
        False,
        True,
        True,
        False,
    ]
    assert CALENDAR.is_open(CLOSES[1] + 1799, 1800)
    assert not CALENDAR.is_open(CLOSES[1] + 1800, 1800)


def test_the_current_session_is_the_last_that_opened() -> None:
    assert CALENDAR.current(OPENS[0] - 1) is None
    assert CALENDAR.current(OPENS[1] - 1) == DAYS[0]
    assert CALENDAR.current(OPENS[1]) == DAYS[1]
    assert CALENDAR.next_open(CLOSES[0]) == OPENS[1]
    assert CALENDAR.next_open(OPENS[1]) is None


def test_a_day_without_session_has_no_close() -> None:
    assert CALENDAR.close_of(DAYS[1]) == CLOSES[1]
    assert CALENDAR.close_of(DAYS[0] + 1) is None
    assert CALENDAR.close_of(DAYS[1] + 1) is None


def test_both_ends_of_a_range_are_included() -> None:
    assert CALENDAR.between(DAYS[0], DAYS[1]).tolist() == DAYS
    assert CALENDAR.between(DAYS[0] + 1, DAYS[1] - 1).tolist() == []


def test_every_day_trades_round_the_clock_and_weekdays_leave_out_the_week_end() -> None:
    friday = day_number(date(2026, 11, 20))
    always = every_day("24/7", friday, friday + 3)
    assert always.sessions.tolist() == [friday, friday + 1, friday + 2, friday + 3]
    assert always.closes[0] == always.opens[1] == (friday + 1) * 86400
    assert every_day("24/5", friday, friday + 3, weekdays_only=True).sessions.tolist() == [friday, friday + 3]


def test_a_calendar_still_being_built_is_unavailable_for_a_moment() -> None:
    book = CalendarBook()
    with pytest.raises(Unavailable) as refused:
        book.get("XNYS")
    assert refused.value.code == "calendar_loading"
    book.add(CALENDAR)
    assert "XNYS" in book
    assert book.get("XNYS") is CALENDAR
