"""Tells prices that are no quotes: of instruments that have bars only, such as those put in by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

import structlog
from pymongo.errors import PyMongoError

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS, day_of
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.currencies import major
from pricecache.core.events import BarsChanged
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules
from pricecache.errors import PricecacheError
from pricecache.portfolio.market import Markets
from pricecache.realtime.shapes import Event

log = structlog.get_logger(__name__)


class PriceListeners(Protocol):
    """Whom prices are told."""

    def wants_price(self, key: str) -> bool: ...
    def publish_prices(self, prices: Mapping[str, Event]) -> object: ...


class BarPrices:
    """Loop-only. An instrument with a quote that is not stale is left to its quotes."""

    def __init__(
        self, listeners: PriceListeners, markets: Markets, catalog: Catalog, live: LiveCache, clock: Clock
    ) -> None:
        self._listeners = listeners
        self._markets = markets
        self._catalog = catalog
        self._live = live
        self._clock = clock
        self._wanted: dict[str, Entry] = {}
        self._wake = asyncio.Event()

    def on_bars(self, event: BarsChanged) -> None:
        """Bars of a series are others. Neither raises nor blocks."""
        if self._listeners.wants_price(event.entry.instrument.key):
            self._want(event.entry)

    def ask(self, keys: Iterable[str]) -> None:
        """Somebody listens to these now (`Instrument.key`), of which there is no quote: tell what there is."""
        for key in keys:
            symbol, _, market = key.rpartition(":")
            if (entry := self._catalog.find(Instrument(symbol, market))) is not None:
                self._want(entry)

    async def run(self) -> None:
        """Tell what is wanted, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted, self._wanted = self._wanted, {}
            for entry in wanted.values():
                try:
                    await self._tell(entry)
                except (PyMongoError, PricecacheError) as exc:  # told at the next bar, and by whoever holds it
                    log.debug("a bar's price not told", instrument=str(entry.instrument), error=str(exc)[:200])

    def _want(self, entry: Entry) -> None:
        self._wanted[entry.instrument.key] = entry
        self._wake.set()

    async def _tell(self, entry: Entry) -> None:
        instrument, now = entry.instrument, self._clock.time()
        if self._live.fresh(instrument.key, now) is not None:
            return
        view = await self._markets.view(Ledger((), Rules(major(entry.currency))), more=[instrument])
        column = view.market.prices.get(instrument)
        price = None if column is None else column.price_on(int(now // DAY_SECONDS))
        if price is not None:
            self._listeners.publish_prices({instrument.key: _event(entry, *price)})


def _event(entry: Entry, day: int, price: float) -> Event:
    return {
        "type": "price:updated",
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "price": price,
        **dict.fromkeys(("previousClose", "open", "dayHigh", "dayLow", "volume")),
        "currency": entry.currency,
        "asOf": None,
        "date": day_of(day).isoformat(),
        "source": None,
        "stale": entry.instrument.place.has_provider,  # where there are quotes, one should be here
    }
