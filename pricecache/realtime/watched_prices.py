"""Keeps the columns of a live book at what quotes, bars and rates say now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.daychange import Session
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules
from pricecache.core.live_columns import ColumnKey, column_facts
from pricecache.core.livebook import LiveBook
from pricecache.core.marketdata import MarketData
from pricecache.core.quotes import Quote
from pricecache.errors import Unavailable
from pricecache.portfolio.latest import LatestSessions
from pricecache.portfolio.market import Markets, pair_of
from pricecache.realtime.shapes import PriceNow
from pricecache.realtime.signatures import Signature, Signatures

COLUMNS_AT_ONCE = 50
"""Columns that are worked out before the event loop gets its turn."""
_UNKNOWN = PriceNow(None, None, None, None, True, None, None)
_NONE: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(slots=True, eq=False)
class Watched:
    """One instrument that followed portfolios hold, or whose rate they need.

    `bases`: currencies in which the book has a column of it. `needs`: columns that its rate is in. `signature`: what
    the facts of its columns were worked out by, with the quote since; `session` and `price` are of then, and
    `ratio`: by what a split since the session of the quote divides its price. `present`: the
    same object for as long as nothing of it changes.
    """

    entry: Entry
    bases: set[str] = field(default_factory=set)
    needs: set[ColumnKey] = field(default_factory=set)
    signature: Signature | None = None
    quote: Quote | None = None
    session: Session | None = None
    price: tuple[int, float] | None = None
    ratio: float = 1.0
    present: PriceNow = _UNKNOWN

    def tell(self) -> None:
        """Bring `present` up to the rest. That a price has grown stale changes the signature."""
        session = self.session
        if session is None:
            return
        quote, of_quote = self.quote, None if self.signature is None else self.signature.session
        market = session.day, session.previous
        if quote is not None and of_quote is not None:
            self.present = PriceNow(
                quote.price / self.ratio, of_quote, quote.as_of, quote.source, session.stale, *market
            )
        else:
            day, price = (None, None) if self.price is None else self.price
            self.present = PriceNow(price, day, session.price_at, session.source, session.stale, *market)


class WatchedPrices:
    """Loop-only. A quote of the session that is known already is one number in the book; whatever else changed of an
    instrument makes its columns doubted until `refresh` has worked them out anew."""

    def __init__(
        self,
        book: LiveBook,
        catalog: Catalog,
        markets: Markets,
        latest: LatestSessions,
        signatures: Signatures,
        clock: Clock,
    ) -> None:
        self._book = book
        self._catalog = catalog
        self._markets = markets
        self._latest = latest
        self._signatures = signatures
        self._clock = clock
        self._watched: dict[str, Watched] = {}
        self._doubted: set[ColumnKey] = set()
        self._rolled: set[ColumnKey] = set()
        self._rebuilt: set[int] = set()

    def __len__(self) -> int:
        return len(self._watched)

    @property
    def doubted(self) -> int:
        return len(self._doubted)

    def watched(self, instrument: Instrument) -> Watched:
        """What is kept of it, for as long as the book has a column of it. It is watched."""
        return self._watched[instrument.key]

    def day(self, instrument: Instrument) -> int | None:
        """The latest session of its market, days since 1970-01-01."""
        watched = self._watched.get(instrument.key)
        return None if watched is None or watched.session is None else watched.session.day

    def watch(self, key: ColumnKey) -> None:
        """Keep this column of the book up to date from now on; until `refresh` it is doubted."""
        name, base = key
        if isinstance(name, str):
            if not self._watch_rate(pair_of(name, base), key):
                return
        elif (entry := self._catalog.find(name)) is not None:
            watched = self._watched.setdefault(entry.instrument.key, Watched(entry))
            if base in watched.bases and watched.signature is not None:
                return
            watched.bases.add(base)
            self._watch_rate(pair_of(entry.currency, base), key)
        self._doubted.add(key)

    def doubt(self, keys: Iterable[ColumnKey]) -> None:
        """Work these out anew at the next `refresh`."""
        self._doubted.update(keys)

    def take(self, quotes: Sequence[Quote]) -> NDArray[np.int64]:
        """Columns that these quotes concern: int64. Their prices are in the book, or they are doubted."""
        numbers, prices, concerned = list[int](), list[float](), list[int]()
        for quote in quotes:
            watched = self._watched.get(quote.instrument.key)
            if watched is None:
                continue
            try:
                signature, current = self._signatures.of(watched.entry)
            except Unavailable:  # its calendar is being built: who holds it waits for that as well
                continue
            if signature != watched.signature:
                concerned += self._doubt(watched)
            elif signature.session is not None and current is not None:
                concerned += self._numbers(watched.needs)
                self._doubted |= watched.needs
                watched.quote = current
                watched.tell()
                own = self._numbers(self._own(watched))
                numbers += own
                prices += [current.price / watched.ratio] * len(own)
        if numbers:
            self._book.set_prices(np.array(numbers, np.int64), np.array(prices))
        return np.array([*numbers, *concerned], np.int64) if numbers or concerned else _NONE

    def look(self) -> NDArray[np.int64]:
        """Columns of which something else than a price changed, by time or by a commit: they are doubted now."""
        concerned = list[int]()
        for watched in self._watched.values():
            concerned += self._changed(watched)
        return np.array(concerned, np.int64)

    def look_at(self, instrument: Instrument) -> NDArray[np.int64]:
        """The same of one instrument."""
        watched = self._watched.get(instrument.key)
        return _NONE if watched is None else np.array(self._changed(watched), np.int64)

    async def refresh(self) -> None:
        """Work out what is doubted. Raises `Unavailable` while a calendar is built, and what the database raises; what
        was not worked out then stays doubted."""
        while self._doubted:
            base = next(iter(self._doubted))[1]
            keys = list(islice((key for key in self._doubted if key[1] == base), COLUMNS_AT_ONCE))
            await self._work_out(keys, base)
            await asyncio.sleep(0)  # all of it may have been at hand

    def doubt_all(self) -> NDArray[np.int64]:
        """A day has begun: every column may read differently. Their numbers: int64."""
        keys = {key for key in self._book.columns.keys if key is not None}
        self._doubted |= keys
        return np.array(self._numbers(keys), np.int64)

    def depending_on(self, instrument: Instrument) -> NDArray[np.int64]:
        """Columns that have the rate of this pair of currencies in them: int64."""
        watched = self._watched.get(instrument.key)
        return _NONE if watched is None else np.array(self._numbers(watched.needs), np.int64)

    def take_rolled(self) -> list[int]:
        """Columns of which another session is the latest one now than when this was asked last."""
        keys, self._rolled = self._rolled, set()
        return self._numbers(keys)

    def take_rebuilt(self) -> list[int]:
        """Slots of the book whose rows have to be made anew, of all that was worked out since this was asked last."""
        slots, self._rebuilt = self._rebuilt, set()
        return sorted(slots)

    async def _work_out(self, keys: Sequence[ColumnKey], base: str) -> None:
        known = [key for key in keys if self._is_held(key)]
        self._doubted.difference_update(keys)
        try:
            instruments = [name for name, _ in known if not isinstance(name, str)]
            currencies = [name for name, _ in known if isinstance(name, str)]
            seen = {one: self._signatures.of(self._watched[one.key].entry) for one in instruments}
            market, sessions, end = await self._told(instruments, currencies, base)
            facts = column_facts([name for name, _ in known], market, sessions, base, end)
        except BaseException:
            self._doubted.update(keys)
            raise
        numbers = [self._book.columns.find(key) for key in known]
        there = [at for at, number in enumerate(numbers) if number is not None]  # the last row may have gone meanwhile
        columns = np.array([numbers[at] for at in there], np.int64)
        self._rebuilt.update(self._book.set_columns(columns, facts[:, there]).tolist())
        for one in instruments:
            column, signature = market.prices[one], seen[one][0]
            ratio = 1.0 if signature.session is None else column.ratio(signature.session, end)
            self._worked_out(one, base, *seen[one], sessions[one], column.price_on(end), ratio)

    async def _told(
        self, instruments: Sequence[Instrument], currencies: Sequence[str], base: str
    ) -> tuple[MarketData, dict[Instrument, Session], int]:
        view = await self._markets.view(Ledger((), Rules(base)), more=instruments, currencies=currencies)
        now, prices = self._clock.time(), view.market.prices
        sessions = await self._latest.of({one: self._watched[one.key].entry for one in instruments}, prices, now)
        end = max([int(now // DAY_SECONDS), *(session.day for session in sessions.values())])
        told = {one: self._latest.with_previous(one, prices[one], sessions[one]) for one in instruments}
        return MarketData(told, view.market.rates), sessions, end

    def _worked_out(
        self,
        instrument: Instrument,
        base: str,
        signature: Signature,
        quote: Quote | None,
        session: Session,
        price: tuple[int, float] | None,
        ratio: float,
    ) -> None:
        watched = self._watched[instrument.key]
        present, current = self._signatures.of(watched.entry)
        if present != signature:  # something changed while the database was waited for
            self._doubted.add((instrument, base))
            return
        if watched.session is None or watched.session.day != session.day:
            self._rolled |= self._own(watched)
        watched.signature, watched.quote, watched.session, watched.price = signature, current, session, price
        watched.ratio = ratio
        watched.tell()
        if current is not quote and current is not None and signature.session is not None:
            numbers = np.array(self._numbers(self._own(watched)), np.int64)
            self._book.set_prices(numbers, np.full(len(numbers), current.price / ratio))

    def _changed(self, watched: Watched) -> list[int]:
        if watched.signature is None:
            return []  # who holds it is waiting already
        try:
            is_other = watched.signature != self._signatures.of(watched.entry)[0]
            return self._doubt(watched) if is_other else []
        except Unavailable:  # as above
            return []

    def _watch_rate(self, pair: Instrument | None, key: ColumnKey) -> bool:
        """Whether it was not watched for this column before."""
        entry = None if pair is None else self._catalog.find(pair)
        if entry is None:
            return False
        watched = self._watched.setdefault(entry.instrument.key, Watched(entry))
        is_new = key not in watched.needs
        watched.needs.add(key)
        if watched.signature is None:
            watched.signature, watched.quote = self._signatures.of(entry)
        return is_new

    def _doubt(self, watched: Watched) -> list[int]:
        own = self._own(watched)
        self._doubted |= own | watched.needs
        watched.signature = None if own else self._signatures.of(watched.entry)[0]
        return self._numbers(own | watched.needs)

    def _own(self, watched: Watched) -> set[ColumnKey]:
        return {(watched.entry.instrument, base) for base in watched.bases}

    def _is_held(self, key: ColumnKey) -> bool:
        """Whether the book has a column of it; what it has no more is watched no more."""
        name, base = key
        if self._book.columns.find(key) is not None and (isinstance(name, str) or name.key in self._watched):
            return True
        for watched in list(self._watched.values()):
            watched.needs.discard(key)
            if watched.entry.instrument == name:
                watched.bases.discard(base)
            if not watched.bases and not watched.needs:
                del self._watched[watched.entry.instrument.key]
        return False

    def _numbers(self, keys: Iterable[ColumnKey]) -> list[int]:
        find = self._book.columns.find
        return [number for key in keys if (number := find(key)) is not None]
