"""Named periods: how far back `1W`, `3M` or `YTD` reach from a date."""

from __future__ import annotations

import calendar
from datetime import date

from pricecache.errors import Invalid

_DAYS = {"1D": 1, "1W": 7}
_MONTHS = {"1M": 1, "3M": 3, "6M": 6, "1Y": 12, "2Y": 24, "5Y": 60}
PERIODS = (*_DAYS, *_MONTHS, "YTD", "MAX")
"""Every name there is, shortest first."""


def period_start(period: str, end: date) -> date | None:
    """The first date of `period` ending on `end`, both included; None for `MAX`. Case does not matter.

    The same date so many months or years back, clipped to the end of its month; `1D` is one day back, `1W` seven,
    `YTD` the 31 December before. Never before `date.min`. Raises `Invalid` with code `unknown_period`.
    """
    name = period.upper() if len(period) <= 4 else ""
    if name not in PERIODS:
        raise Invalid(f"Periods are {', '.join(PERIODS)}.", code="unknown_period")
    if name == "MAX":
        return None
    if name == "YTD":
        return _date_or_first(end.replace(month=1, day=1).toordinal() - 1)
    if name in _DAYS:
        return _date_or_first(end.toordinal() - _DAYS[name])
    return _months_back(end, _MONTHS[name])


def _date_or_first(ordinal: int) -> date:
    return date.fromordinal(max(ordinal, 1))


def _months_back(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    if year < date.min.year:
        return date.min
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last))
