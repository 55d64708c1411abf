"""The latest quote of every instrument in RAM: readers take no lock, a batch is seen whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch


class LiveCache:
    """Thread-safe. A reader takes the dictionary that stands; a writer, one at a time, puts a new one in its place."""

    def __init__(self) -> None:
        self._quotes: dict[Instrument, Quote] = {}
        self._newest = 0.0
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return len(self._quotes)

    def get(self, instrument: Instrument) -> Quote | None:
        """The latest quote, stale or not."""
        return self._quotes.get(instrument)

    def fresh(self, instrument: Instrument, now: float) -> Quote | None:
        """The latest quote if it is not stale at instant `now` (seconds since 1970 UTC)."""
        try:
            quote = self._quotes[instrument]
        except KeyError:
            return None
        return quote if now < quote.stale_at else None

    def snapshot(self) -> Mapping[Instrument, Quote]:
        """All quotes as they stood together at one moment. Never changes afterwards: do not write into it."""
        return self._quotes

    def publish(self, batch: QuoteBatch) -> Mapping[Instrument, Quote]:
        """Make a batch visible at once, and return what of it was taken: a price made earlier than the one held is
        not."""
        with self._writing:
            held = self._quotes
            taken = batch.quotes
            if batch.oldest < self._newest:
                taken = {i: q for i, q in taken.items() if (old := held.get(i)) is None or q.as_of >= old.as_of}
            self._newest = max(self._newest, batch.newest)
            self._quotes = {**held, **taken}
            return taken
