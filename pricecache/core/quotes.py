"""The latest price of an instrument, and until when it counts as fresh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pricecache.core.instruments import Instrument
from pricecache.core.sessions import SessionCalendar


@dataclass(frozen=True, slots=True)
class Quote:
    """What an instrument costs now. Prices in `currency` (empty until it is published when its source did not say),
    unknown ones None.

    `as_of`: when the price was made; `received_at`: when it came here; `stale_at`: from when on it is stale; all in
    seconds since 1970-01-01T00:00Z. `session`: the session it belongs to, days since 1970-01-01. `open`, `day_high`,
    `day_low` and `volume` are of that session, `previous_close` of the one before.
    `series`: the id of what it was published for, which stays when the symbol changes; None until then.
    """

    instrument: Instrument
    price: float
    currency: str
    as_of: float
    received_at: float
    source: str
    session: int | None = None
    previous_close: float | None = None
    open: float | None = None
    day_high: float | None = None
    day_low: float | None = None
    volume: float | None = None
    stale_at: float = 0.0
    series: int | None = None


@dataclass(frozen=True, slots=True)
class QuoteBatch:
    """Quotes that become visible together, by `Instrument.key`, with the oldest and newest `as_of` among them."""

    quotes: Mapping[str, Quote]
    oldest: float
    newest: float

    @classmethod
    def of(cls, quotes: Iterable[Quote]) -> QuoteBatch:
        by_key = {quote.instrument.key: quote for quote in quotes}
        instants = [quote.as_of for quote in by_key.values()]
        return cls(by_key, min(instants, default=0.0), max(instants, default=0.0))


VENDOR_DELAY = 1200.0
"""Seconds by which a vendor may pass on an exchange's prices late: Yahoo does by 15 or 20 minutes for some."""
FX_CLOSES_EARLY = 4 * 3600.0
"""Currencies stop on Friday at 17:00 New York, some hours before the UTC day that is their session is over."""


def stale_from(as_of: float, received_at: float, calendar: SessionCalendar, interval: float, lag: float) -> float:
    """From which instant on a price made at `as_of` is stale, `received_at` or later.

    While the market is open, two refresh intervals after the price was made and `VENDOR_DELAY` more; a price from
    before the open two intervals after the open. Once a session is over and its last price is in, not before the next
    one has been open for two intervals; until `lag` seconds after the close the last price may still be to come.
    """
    opens = calendar.next_open(received_at)
    last = calendar.current(received_at)
    close = calendar.close_of(last) if last is not None else None
    closing = max(2 * interval, FX_CLOSES_EARLY if calendar.name == "24/5" else 0.0)
    moves_until = as_of + 2 * interval + VENDOR_DELAY
    if calendar.is_open(received_at):
        opened = calendar.opened_after_rest(received_at)
        if opened is not None and as_of < opened:
            moves_until = opened + 2 * interval
    elif close is None or as_of >= close - closing:
        return (opens if opens is not None else received_at) + 2 * interval
    elif not calendar.is_open(received_at, lag):
        return received_at  # a price from long before the close is no closing price
    return max(received_at, moves_until)


def fund_stale_from(session: int | None, received_at: float, calendar: SessionCalendar, lag: float) -> float:
    """From which instant on the price that a fund had for `session` is stale: the close of the next session, and
    `lag` seconds more, in which its price is worked out. What belongs to no session is stale when it comes."""
    close = calendar.close_of(session) if session is not None else None
    due = calendar.next_due(close, 0.0) if close is not None else None
    return received_at if due is None else due + lag


def has_news(quote: Quote | None, calendar: SessionCalendar, now: float, lag: float) -> bool:
    """Whether a newer price than `quote` can be had: its market is open or was up to `lag` seconds ago, or closed
    since `quote` was received."""
    if quote is None or calendar.is_open(now, lag):
        return True
    last = calendar.last_closed(now)
    close = calendar.close_of(last) if last is not None else None
    return close is not None and quote.received_at < close


def fund_has_news(quote: Quote | None, calendar: SessionCalendar, now: float) -> bool:
    """Whether a fund can have a newer price than `quote`: a later session than its own is over."""
    last = calendar.last_closed(now)
    return quote is None or quote.session is None or (last is not None and last > quote.session)
