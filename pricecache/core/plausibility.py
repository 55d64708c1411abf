"""Which bars can be believed: a check of every row by itself, so that one bad row never costs the good ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import CLOSE, DAY_SECONDS, FIELDS, HIGH, LOW, OPEN, VOLUME, Bars
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


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer, row by row: `good` to be stored, `rejections` of rows, and `fields`: rows that are good but for what
    was made unknown (NaN) in them."""

    good: Bars
    rejections: tuple[Rejection, ...]
    fields: tuple[Rejection, ...]


def check(bars: Bars, calendar: SessionCalendar, now: float, lag: float) -> Checked:
    """The believable bars of a provider's answer, and why each of the others is not.

    `now`: seconds since 1970 UTC; `lag`: seconds after a close until its bar is final. An unknown (NaN) open, high,
    low or volume is no fault. One that is impossible is made unknown where nothing speaks against the close: an open,
    high or low that is no price, an open outside low and high, both high and low where the high is below the low, a
    volume that is none. A close that lies outside low and high is contradicted by its own row, which is refused.
    """
    last_due = calendar.last_closed(now, lag)
    due = np.zeros(len(bars), bool) if last_due is None else bars.sessions <= last_due
    known = contains(calendar.sessions, bars.sessions)
    days = {"not_a_session": ~known, "not_due": ~due}
    mended = _without_impossible(bars)
    good, rejections = _sifted(mended, days | _value_faults(mended))
    if mended is bars:
        return Checked(good, tuple(rejections), ())
    _, found = _sifted(bars, days | _value_faults(bars))
    refused = {rejection.session for rejection in rejections}
    fields = tuple(_of_fields(one, bars, mended) for one in found if one.session not in refused)
    return Checked(good, tuple(rejections), fields)


def _without_impossible(bars: Bars) -> Bars:
    """`bars` itself where nothing in it is impossible."""
    values = bars.values.copy()
    outer = values[OPEN : LOW + 1]  # a view
    with np.errstate(invalid="ignore", over="ignore"):
        outer[~((outer >= LOWEST) & (outer < HIGHEST))] = np.nan
        volume = values[VOLUME]
        volume[~((volume >= 0) & (volume < HIGHEST))] = np.nan
        low, high = np.fmin(values[LOW], values[HIGH]), np.fmax(values[LOW], values[HIGH])
        is_crossed = values[HIGH] < values[LOW] * (1 - RANGE_RTOL)
        # what of two crossed values is wrong nobody can tell; a close between them is in doubt by neither
        low, high = np.where(is_crossed, low, values[LOW]), np.where(is_crossed, high, values[HIGH])
        is_out = _is_outside(values[[OPEN, CLOSE]], low, high)
        values[OPEN, is_out[0]] = np.nan
        lost = is_crossed & ~is_out[1]
        values[HIGH, lost], values[LOW, lost] = np.nan, np.nan
    return bars if np.array_equal(values, bars.values, equal_nan=True) else Bars(bars.sessions, values)


def _is_outside(prices: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((prices > high * (1 + OUTSIDE_RTOL)) | (prices < low * (1 - OUTSIDE_RTOL)))


def _of_fields(found: Rejection, bars: Bars, mended: Bars) -> Rejection:
    at = int(bars.sessions.searchsorted(found.session))
    lost = np.isnan(mended.values[:, at]) & ~np.isnan(bars.values[:, at])
    names = ", ".join(name for name, is_lost in zip(FIELDS, lost.tolist(), strict=True) if is_lost)
    return Rejection(found.session, found.code, f"{found.detail}; the close is stored, without {names}")


def check_manual(bars: Bars, now: float, *, may_be_worthless: bool = False) -> tuple[Bars, list[Rejection]]:
    """The same for bars that a person put in: they may stand on any day that has begun somewhere on Earth.
    `may_be_worthless`: a close of 0 is one too."""
    future = bars.sessions * DAY_SECONDS > now + EARLIEST_DATE_ON_EARTH
    faults = {"in_the_future": future} | _value_faults(bars)
    if may_be_worthless:
        faults["bad_close"] &= bars.values[CLOSE] != 0
    return _sifted(bars, faults)


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
            "outside_range": _is_outside(inner, low, high).any(axis=0),
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
