"""From samples of a price to bars of a minute to an hour, counted from the open of each session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pricecache.core.sessions import SessionCalendar

INTERVALS: Mapping[str, int] = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600}
"""Every interval there is, and its seconds; each is a multiple of those before it."""

OPENING_SECONDS = 900.0
"""A first sample made longer after the open than this says nothing of the opening price."""
AFTER_CLOSE_SECONDS = 900
"""How long after its close a session's closing auction may still make the last price."""
_TRADES_ON = {"XNYS": 60, "XTSE": 60}
"""Where trading goes on after the close, prices made longer after it than this are not the session's."""
_RESET_SECONDS = 1800
"""A count of shares that halves so early in a session was still that of the session before."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Prices of one series at instants, in any order.

    `instants`: int64, shape (n,), ms since 1970 UTC. `prices`: float64. `volumes`: float64, traded so far in the
    session as the provider counts it; NaN is unknown. `sources`: where they came from, in no order.
    """

    instants: NDArray[np.int64]
    prices: NDArray[np.float64]
    volumes: NDArray[np.float64]
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.instants)

    @classmethod
    def empty(cls) -> Samples:
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True, eq=False)
class IntradayBars:
    """Bars of one interval in ascending order; those in which no sample was made are not there.

    `starts`: int64, shape (n,), ms since 1970 UTC. `ends`: the same, where the next bar would begin or the session
    closes. `sessions`: int64, days since 1970-01-01. `values`: float64, shape (5, n), rows open, high, low, close,
    volume; only volume may be unknown (NaN). `counted`: float64, traded in the session up to the end of the bar.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    sessions: NDArray[np.int64]
    values: NDArray[np.float64]
    counted: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.starts)

    def between(self, start: int, end: int) -> IntradayBars:
        """The bars that start from `start` to `end`, both included (ms since 1970 UTC)."""
        low, high = int(self.starts.searchsorted(start)), int(self.starts.searchsorted(end, side="right"))
        part = slice(low, high)
        return IntradayBars(
            self.starts[part], self.ends[part], self.sessions[part], self.values[:, part], self.counted[part]
        )


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the samples of one session say of it so far; `open` is None when the first came too late to tell."""

    open: float | None
    high: float
    low: float


def after_close_seconds(calendar: SessionCalendar) -> int:
    """How long after a close a price still belongs to the session."""
    return _TRADES_ON.get(calendar.name, AFTER_CLOSE_SECONDS)


def intraday_bars(samples: Samples, calendar: SessionCalendar, seconds: int) -> IntradayBars:
    """The bars of `samples`, `seconds` long, counted from the open of each session; the last one ends at the close.

    Open is the first price in a bar, close the last. Volume is by how much the session's count grew since the bar
    before; that of the first bar seen is unknown unless the session opened with it. A count never shrinks: where the
    provider takes some back, nothing is added until it is made up for. Samples outside sessions are left out, but for
    those of the closing auction, which belong to the last bar.
    """
    at, instants, prices, volumes = _in_sessions(samples, calendar)
    counted = _counted(at, instants - calendar.opens[at] * 1000, volumes)
    instants = np.minimum(instants, calendar.closes[at] * 1000 - 1)
    return _grouped(calendar, seconds, at, instants, np.stack([prices] * 4), counted)


def expected_bars(calendar: SessionCalendar, start: int, end: int, seconds: int) -> int:
    """How many bars of `seconds` start from `start` to `end`, both included (ms since 1970 UTC)."""
    low = int(calendar.closes.searchsorted(start // 1000, side="right"))
    high = int(calendar.opens.searchsorted(end // 1000, side="right"))
    opens, closes, step = calendar.opens[low:high] * 1000, calendar.closes[low:high] * 1000, seconds * 1000
    first = -((opens - np.maximum(opens, start)) // step)
    last = (np.minimum(closes - 1, end) - opens) // step
    return int(np.maximum(last - first + 1, 0).sum())


def sampled(samples: Samples, calendar: SessionCalendar, session: int) -> Sampled | None:
    """What `samples` say of `session`; None when none of them is of it."""
    at, instants, prices, _ = _in_sessions(samples, calendar)
    of_it = calendar.sessions[at] == session
    if not of_it.any():
        return None
    instants, prices = instants[of_it], prices[of_it]
    opened = int(calendar.opens[at[of_it][0]])
    in_time = instants[0] <= (opened + OPENING_SECONDS) * 1000
    return Sampled(float(prices[0]) if in_time else None, float(prices.max()), float(prices.min()))


def _in_sessions(
    samples: Samples, calendar: SessionCalendar
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Which session each usable sample is of (its place in the calendar), instants, prices, volumes; in order."""
    if not len(calendar.sessions):
        samples = Samples.empty()
    instants, prices, volumes = samples.instants, samples.prices, samples.volumes
    if not (instants[1:] > instants[:-1]).all():
        # of two at one instant the one that counts more was later; the price only makes the order a certain one
        order = np.lexsort((prices, volumes, instants))
        instants, prices, volumes = instants[order], prices[order], volumes[order]
    at = calendar.opens.searchsorted(instants // 1000, side="right") - 1
    inside = instants <= (calendar.closes[at] + after_close_seconds(calendar)) * 1000
    usable = (at >= 0) & inside & np.isfinite(prices) & (prices > 0)
    volumes = np.where(np.isfinite(volumes) & (volumes >= 0), volumes, np.nan)
    return at[usable], instants[usable], prices[usable], volumes[usable]


def _counted(at: NDArray[np.int64], since_open: NDArray[np.int64], volumes: NDArray[np.float64]) -> NDArray[np.float64]:
    counted = np.empty(len(at))
    bounds = [0, *(np.flatnonzero(np.diff(at)) + 1).tolist(), len(at)]
    for first, last in pairwise(bounds):
        counted[first:last] = _counted_in(since_open[first:last], volumes[first:last])
    return counted


def _counted_in(since_open: NDArray[np.int64], volumes: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.flatnonzero(~np.isnan(volumes))
    if not len(known):
        return volumes
    counts = volumes[known]
    early = since_open[known[1:]] <= _RESET_SECONDS * 1000
    resets = np.flatnonzero((counts[1:] < counts[:-1] / 2) & early) + 1
    begin = int(resets[-1]) if len(resets) else 0
    counts[:begin] = 0.0
    counts = np.maximum.accumulate(counts)
    latest = known.searchsorted(np.arange(len(volumes)), side="right") - 1
    return np.where(latest < 0, np.nan, counts[latest])


def _grouped(
    calendar: SessionCalendar,
    seconds: int,
    at: NDArray[np.int64],
    instants: NDArray[np.int64],
    prices: NDArray[np.float64],
    counted: NDArray[np.float64],
) -> IntradayBars:
    """`prices`: float64, shape (4, n), rows open, high, low, close, in order of `instants`."""
    if not len(instants):
        nothing = np.empty(0, np.int64)
        return IntradayBars(nothing, nothing, nothing, np.empty((5, 0)), np.empty(0))
    opens, step = calendar.opens[at] * 1000, seconds * 1000
    starts = opens + (instants - opens) // step * step
    first = np.append(0, np.flatnonzero(np.diff(starts)) + 1)
    last = np.append(first[1:], len(starts)) - 1
    open_, high, low, close = prices
    begin, end, session = starts[first], counted[last], at[first]
    values = np.stack(
        [
            open_[first],
            np.maximum.reduceat(high, first),
            np.minimum.reduceat(low, first),
            close[last],
            end - _counted_before(session, begin == opens[first], end),
        ]
    )
    ends = np.minimum(begin + step, calendar.closes[session] * 1000)
    return IntradayBars(begin, ends, calendar.sessions[session], values, end)


def _counted_before(
    session: NDArray[np.int64], opens_it: NDArray[np.bool_], counted: NDArray[np.float64]
) -> NDArray[np.float64]:
    before = np.append(np.nan, counted[:-1])
    is_first = np.append(True, np.diff(session) != 0)
    return np.where(is_first, np.where(opens_it, 0.0, np.nan), before)
