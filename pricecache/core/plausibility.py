"""Which bars can be believed: a check of every row by itself, so that one bad row never costs the good ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import CLOSE, HIGH, LOW, OPEN, VOLUME, Bars
from pricecache.core.coverage import contains
from pricecache.core.sessions import SessionCalendar

RANGE_RTOL = 1e-9
OUTSIDE_RTOL = 1e-4
"""How far open and close may lie outside low and high, because Yahoo rounds the four apart."""
HIGHEST = 1e15
LOWEST = 1e-12
"""No price or number of shares is higher; what is would overflow once it is multiplied."""
EARLIEST_DATE_ON_EARTH = 14 * 3600
"""Seconds by which a date begins before its midnight in UTC, in the easternmost time zone."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was refused: its session (days since 1970-01-01), a stable code, and why in words."""

    session: int
    code: str
    detail: str


_DETAILS = {
    "not_a_session": "the market has no session on this day",
    "not_due": "the session is not over, or its final bar not due yet",
    "in_the_future": "the day has not come yet",
    "bad_close": "the close is not a number from 1e-12 to below 1e15",
    "bad_price": "open, high or low is not from 1e-12 to below 1e15",
    "high_below_low": "the high is below the low",
    "outside_range": "open or close lies outside low and high",
    "bad_volume": "the volume is not between 0 and 1e15",
}


def check(bars: Bars, calendar: SessionCalendar, now: float, lag: float) -> tuple[Bars, list[Rejection]]:
    """The believable bars of a provider's answer, and why each of the others is not.

    `now`: seconds since 1970 UTC; `lag`: seconds after a close until its bar is final. An unknown (NaN) open, high,
    low or volume is no fault.
    """
    last_due = calendar.last_closed(now, lag)
    due = np.zeros(len(bars), bool) if last_due is None else bars.sessions <= last_due
    known = contains(calendar.sessions, bars.sessions)
    return _sifted(bars, {"not_a_session": ~known, "not_due": ~due} | _value_faults(bars))


def check_manual(bars: Bars, now: float) -> tuple[Bars, list[Rejection]]:
    """The same for bars that a person put in: they may stand on any day that has begun somewhere on Earth."""
    future = bars.sessions * 86400 > now + EARLIEST_DATE_ON_EARTH
    return _sifted(bars, {"in_the_future": future} | _value_faults(bars))


def _value_faults(bars: Bars) -> dict[str, NDArray[np.bool_]]:
    values = bars.values
    close, low, high = values[CLOSE], values[LOW], values[HIGH]
    inner, outer = values[[OPEN, CLOSE]], values[OPEN : LOW + 1]
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # every comparison with an unknown value is false, hence no fault
        return {
            "bad_close": ~((close >= LOWEST) & (close < HIGHEST)),
            "bad_price": ((outer < LOWEST) | (outer >= HIGHEST)).any(axis=0),
            "high_below_low": high < low * (1 - RANGE_RTOL),
            "outside_range": ((inner > high * (1 + OUTSIDE_RTOL)) | (inner < low * (1 - OUTSIDE_RTOL))).any(axis=0),
            "bad_volume": (values[VOLUME] < 0) | (values[VOLUME] >= HIGHEST),
        }


def _sifted(bars: Bars, faults: dict[str, NDArray[np.bool_]]) -> tuple[Bars, list[Rejection]]:
    bad = np.logical_or.reduce(list(faults.values()))
    if not bad.any():
        return bars, []
    codes = list(faults)
    which = np.argmax(np.stack(list(faults.values())), axis=0)
    rejections = [
        Rejection(int(bars.sessions[i]), codes[which[i]], _DETAILS[codes[which[i]]]) for i in np.flatnonzero(bad)
    ]
    return Bars(bars.sessions[~bad], np.ascontiguousarray(bars.values[:, ~bad])), rejections
