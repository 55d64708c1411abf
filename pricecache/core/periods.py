"""Named periods: how far back `1W`, `3M` or `YTD` reach from a date."""

from __future__ import annotations

import calendar
from datetime import date, timedelta

from pricecache.errors import Invalid

_MONTHS = {"1M": 1, "3M": 3, "6M": 6, "1Y": 12, "2Y": 24, "5Y": 60}
PERIODS = ("1W", *_MONTHS, "YTD", "MAX")
"""Every name there is, shortest first."""


def period_start(period: str, end: date) -> date | None:
    """The first date of `period` ending on `end`, both included; None for `MAX`. Case does not matter.

    The same date so many months or years back, clipped to the end of its month; `1W` is seven days back, `YTD` the
    31 December before. Raises `Invalid` with code `unknown_period`.
    """
    name = period.upper() if len(period) <= 4 else ""
    if name not in PERIODS:
        raise Invalid(f"Periods are {', '.join(PERIODS)}.", code="unknown_period")
    if name == "MAX":
        return None
    if name == "YTD":
        return date(end.year - 1, 12, 31)
    if name == "1W":
        return end - timedelta(days=7)
    return _months_back(end, _MONTHS[name])


def _months_back(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last))
