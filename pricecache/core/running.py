"""The bar of a session that no provider has given yet, from the latest quote and from samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.intraday import Sampled
from pricecache.core.quotes import Quote
from pricecache.core.sessions import SessionCalendar


def running_session(
    quote: Quote | None, calendar: SessionCalendar, currency: str, now: float, lag: float
) -> int | None:
    """The session that runs at instant `now`, or was the last to run, if `quote` is of it; else None.

    A stale quote says nothing of it, nor does one in another currency than `currency`, or whose price was made more
    than `lag` seconds after the close. Whether its price can be believed was asked before it was published.
    """
    if quote is None or now >= quote.stale_at or quote.currency != currency:
        return None
    running = running_at(calendar, now, lag)
    return running.session if running is not None and running.has(quote) else None


@dataclass(frozen=True, slots=True)
class Running:
    """The session that runs or was the last to run, and when its prices are made: from `starts` on, before `ends`, in
    seconds since 1970 UTC."""

    session: int
    starts: float
    ends: float

    def has(self, quote: Quote) -> bool:
        """Whether `quote` is of it."""
        return self.starts <= quote.as_of < self.ends and quote.session in (None, self.session)


def running_at(calendar: SessionCalendar, now: float, lag: float) -> Running | None:
    """At instant `now`; None before the first session. `lag`: seconds after a close in which a price may still come."""
    at = int(calendar.opens.searchsorted(now, side="right")) - 1
    if at < 0:
        return None
    ends = float(calendar.closes[at]) + lag
    if at + 1 < len(calendar.opens):
        ends = min(ends, float(calendar.opens[at + 1]))
    return Running(int(calendar.sessions[at]), float(calendar.opens[at]), ends)


def bar_of(quote: Quote, sampled: Sampled | None) -> NDArray[np.float64]:
    """Open, high, low, close and volume of the session of `quote`: float64, shape (5, 1), NaN is unknown.

    What the quote does not say is taken from `sampled`. High and low take in the open and the price, which a provider
    may have told at another moment.
    """
    open_, high, low = quote.open, quote.day_high, quote.day_low
    if sampled is not None:
        open_ = sampled.open if open_ is None else open_
        # samples that begin later than the session may have missed its extremes
        high = sampled.high if high is None and sampled.open is not None else high
        low = sampled.low if low is None and sampled.open is not None else low
    known = [value for value in (open_, quote.price) if value is not None]
    high = None if high is None else max(high, *known)
    low = None if low is None else min(low, *known)
    volume = quote.volume if quote.volume is not None and quote.volume >= 0 else None
    values = (open_, high, low, quote.price, volume)
    return np.array([[np.nan if value is None else value] for value in values])


def lacks_day(quote: Quote) -> bool:
    """Whether samples could say something of the day that `quote` does not."""
    return quote.open is None or quote.day_high is None or quote.day_low is None
