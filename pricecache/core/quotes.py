"""The latest price of an instrument, and until when it counts as fresh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pricecache.core.instruments import Instrument
from pricecache.core.sessions import SessionCalendar


@dataclass(frozen=True, slots=True)
class Quote:
    """What an instrument costs now. Prices in `currency`, unknown ones None.

    `as_of`: when the price was made; `received_at`: when it came here; `stale_at`: from when on it is stale; all in
    seconds since 1970-01-01T00:00Z. `session`: the session it belongs to, days since 1970-01-01. `open`, `day_high`,
    `day_low` and `volume` are of that session, `previous_close` of the one before.
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


def stale_from(as_of: float, received_at: float, calendar: SessionCalendar, interval: float, lag: float) -> float:
    """From which instant on a quote is stale.

    While its market can have news (open, or within `lag` seconds after the close) two refresh intervals after it was
    received. Once a session is over and its last price is in, not before the next session has been open for two
    intervals.
    """
    if calendar.is_open(received_at, lag):
        return received_at + 2 * interval
    last = calendar.current(received_at)
    close = calendar.close_of(last) if last is not None else None
    if close is not None and as_of < close - 2 * interval:
        return received_at  # a price from long before the close is no closing price
    opens = calendar.next_open(received_at)
    return (opens if opens is not None else received_at) + 2 * interval
