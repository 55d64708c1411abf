"""The latest quotes in RAM, by `Instrument.key`: readers take no lock, a batch is seen whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch


class LiveCache:
    """Thread-safe; readers never wait.

    One dictionary with interned string keys. Writers, one at a time, lay a batch over it with a single `dict.update`,
    which runs no Python code and so cannot be interrupted by a reader under the interpreter's lock. A reader of one
    key just looks it up; a reader of many takes a `snapshot`, copied in one such step too.

    `get(key)` is the latest quote, stale or not, or None. `fresh(key, now)` is the latest quote if it is not stale at
    instant `now` (seconds since 1970 UTC). Both are made once, over the dictionary itself: a look-up through `self`
    would cost a tenth more.
    """

    def __init__(self) -> None:
        self._quotes: dict[str, Quote] = {}
        self._newest = 0.0
        self._writing = threading.Lock()
        self.get: Callable[[str], Quote | None] = self._quotes.get
        self.fresh: Callable[[str, float], Quote | None] = _fresh_reader(self._quotes)

    def __len__(self) -> int:
        return len(self._quotes)

    def snapshot(self) -> Mapping[str, Quote]:
        """All quotes as they stood together at one moment."""
        return self._quotes.copy()

    def publish(self, batch: QuoteBatch) -> Mapping[str, Quote]:
        """Make a batch visible at once, and return what of it was taken: a price made earlier than the one held is
        not."""
        with self._writing:
            held, taken = self._quotes, batch.quotes
            if batch.oldest < self._newest:
                taken = {key: q for key, q in taken.items() if (old := held.get(key)) is None or q.as_of >= old.as_of}
            self._newest = max(self._newest, batch.newest)
            held.update(taken)
            return taken

    def reprice(self, instrument: Instrument, currency: str) -> None:
        """Its prices are in `currency` from now on: a quote in another one is stale."""
        with self._writing:
            quote = self._quotes.get(instrument.key)
            if quote is not None and quote.currency != currency:
                self._quotes[instrument.key] = replace(quote, stale_at=0.0)

    def rename(self, before: Instrument, after: Instrument) -> None:
        """Let the quote of `before` be that of `after` from now on, unless `after` has a newer one."""
        with self._writing:
            quote, there = self._quotes.get(before.key), self._quotes.get(after.key)
            if quote is not None:
                if there is None or there.as_of < quote.as_of:
                    self._quotes[after.key] = replace(quote, instrument=after)
                del self._quotes[before.key]


def _fresh_reader(quotes: dict[str, Quote]) -> Callable[[str, float], Quote | None]:
    def fresh(key: str, now: float) -> Quote | None:
        try:
            if now < (quote := quotes[key]).stale_at:
                return quote
        except KeyError:
            pass
        return None

    return fresh
