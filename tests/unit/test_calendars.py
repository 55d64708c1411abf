"""Real calendars, built in a process of their own: half-days, daylight saving, changed weekdays, and no pandas here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, date, datetime

import numpy as np
import pytest

from pricecache.calendars import build
from pricecache.core.bars import day_number, day_of
from pricecache.core.markets import MARKETS
from pricecache.core.sessions import SessionCalendar

LAST = date(2027, 12, 25)


@pytest.fixture(scope="module")
def calendars() -> dict[str, SessionCalendar]:
    """Those of all markets. Made once: it takes a second each."""

    async def built() -> dict[str, SessionCalendar]:
        names = {market.calendar for market in MARKETS.values()} - {"24/7", "24/5"}
        return {calendar.name: calendar async for calendar in build(sorted(names), LAST)}

    return asyncio.run(built())


def instant(calendar: SessionCalendar, day: date) -> str | None:
    close = calendar.close_of(day_number(day))
    return None if close is None else datetime.fromtimestamp(close, UTC).strftime("%H:%M")


def test_new_york_has_half_days_holidays_and_daylight_saving(calendars: dict[str, SessionCalendar]) -> None:
    new_york = calendars["XNYS"]
    assert instant(new_york, date(2025, 11, 28)) == "18:00"
    assert instant(new_york, date(2025, 11, 26)) == "21:00"
    assert instant(new_york, date(2025, 7, 2)) == "20:00"
    assert instant(new_york, date(2025, 11, 27)) is None
    assert day_of(new_york.sessions[0]) == date(1990, 1, 2)
    assert 0 <= day_number(LAST) - new_york.sessions[-1] < 7


def test_tel_aviv_traded_on_sundays_until_2026_and_on_fridays_since(calendars: dict[str, SessionCalendar]) -> None:
    tel_aviv = calendars["XTAE"]
    assert instant(tel_aviv, date(2025, 12, 28)) is not None  # a Sunday
    assert instant(tel_aviv, date(2025, 12, 26)) is None  # a Friday
    assert instant(tel_aviv, date(2026, 1, 9)) is not None  # a Friday
    assert instant(tel_aviv, date(2026, 1, 11)) is None  # a Sunday


def test_behind_the_last_year_whose_holidays_are_known_weekdays_are_assumed(
    calendars: dict[str, SessionCalendar],
) -> None:
    shanghai = calendars["XSHG"]
    assert day_of(shanghai.sessions[-1]) == date(2027, 12, 24)
    assert instant(shanghai, date(2027, 7, 1)) == "07:00"
    assert instant(shanghai, date(2027, 7, 3)) is None  # a Saturday
    assert instant(shanghai, date(2026, 10, 1)) is None  # a holiday that is known


def test_every_market_has_a_calendar_from_1990_or_where_it_begins(calendars: dict[str, SessionCalendar]) -> None:
    assert calendars.keys() == {market.calendar for market in MARKETS.values()} - {"24/7", "24/5"}
    for calendar in calendars.values():
        assert day_of(calendar.sessions[0]).year in (1990, 1997)
        assert (np.diff(calendar.sessions) > 0).all()
        assert (calendar.closes > calendar.opens).all()
        assert (calendar.opens[1:] >= calendar.closes[:-1]).all()
        assert len(calendar.sessions) == len(calendar.opens) == len(calendar.closes)


async def test_a_calendar_nobody_knows_does_not_cost_the_others(caplog: pytest.LogCaptureFixture) -> None:
    assert [calendar.name async for calendar in build(["NOWHERE", "XLON"], LAST)] == ["XLON"]


def test_importing_it_loads_neither_pandas_nor_the_library() -> None:
    code = "import sys, pricecache.calendars; print({'pandas', 'exchange_calendars'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
