"""Real sessions for tests: the exchange calendars as the arrays that the package works with."""

from __future__ import annotations

import warnings
from datetime import date
from functools import cache

import numpy as np

from pricecache.core.bars import day_number
from pricecache.core.sessions import CalendarBook, SessionCalendar, every_day

FIRST, LAST = date(1990, 1, 1), date(2027, 12, 31)


@cache
def calendar_of(name: str, first: date = FIRST, last: date = LAST) -> SessionCalendar:
    """Every session of `name` (an exchange_calendars name, `24/7` or `24/5`) from `first` to `last`."""
    if name in ("24/7", "24/5"):
        return every_day(name, day_number(first), day_number(last), weekdays_only=name == "24/5")
    import exchange_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own use of pandas
        table = exchange_calendars.get_calendar(name, start=str(first), end=str(last)).schedule
    days = table.index.values.astype("datetime64[D]").astype(np.int64)
    opens = table["open"].to_numpy("datetime64[s]").astype(np.int64)
    closes = table["close"].to_numpy("datetime64[s]").astype(np.int64)
    return SessionCalendar(name, days, opens, closes)


def xnys_book() -> CalendarBook:
    """A book of its own with XNYS, 24/7 and 24/5 from 1990 to 2027."""
    return CalendarBook({name: calendar_of(name) for name in ("XNYS", "24/7", "24/5")})
