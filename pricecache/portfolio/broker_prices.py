"""The prices that a broker tells of what nobody else prices, kept as bars of the user's own instrument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import numpy as np

from pricecache.clock import Clock
from pricecache.core.actions import Action
from pricecache.core.bars import CLOSE, Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.plausibility import check_manual
from pricecache.stores.bars import BarStore, Change

BROKER_SOURCE = "broker"


class BrokerPriceWriter:
    """Writes what brokers say of prices. Loop-only."""

    def __init__(self, catalog: Catalog, bars: BarStore, clock: Clock) -> None:
        self._catalog = catalog
        self._bars = bars
        self._clock = clock

    def currencies(self, instruments: Iterable[Instrument]) -> dict[Instrument, str]:
        """Of those that are known."""
        entries = {one: self._catalog.get(one) for one in instruments}
        return {one: entry.currency for one, entry in entries.items() if entry is not None}

    async def write_splits(self, splits: Mapping[Instrument, Sequence[Action]], source: str) -> bool:
        """Have `splits` be all that `source` tells of these instruments; whether any of it is new. Raises as `write`,
        and what `BarStore.commit` raises."""
        changes = [change for one, told in splits.items() if (change := self._splits(one, told, source)) is not None]
        committed = await self._bars.commit(changes) if changes else []
        return any(one.actions_changed for one in committed)

    def _splits(self, instrument: Instrument, splits: Sequence[Action], source: str) -> Change | None:
        entry = self._require(instrument)
        held = {action for action in entry.actions if action.source == source}
        if held == set(splits):
            return None
        gone = tuple(sorted(held - set(splits)))
        return Change(entry, Bars.empty(), source, self._clock.time(), actions=tuple(splits), gone=gone)

    async def write(self, prices: Mapping[Instrument, Mapping[int, Decimal]], source: str = BROKER_SOURCE) -> int:
        """Lay prices by day (days since 1970-01-01), in the currency of the instrument, over the bars of each; returns
        how many days are new or have another price. 0 is a price: it is worth nothing. What is there already commits
        nothing, what is no price (negative, of a day to come) is left out, and a price that the user put in by hand
        stays.

        Raises `NotFound` with code `unknown_symbol`, `ValueError` for an instrument that providers have prices of, and
        what `BarStore.commit` raises.
        """
        changes = [change for one, days in prices.items() if (change := self._change(one, days, source)) is not None]
        committed = await self._bars.commit(changes) if changes else []
        return sum(len(one.added) + len(one.replaced) for one in committed)

    def _change(self, instrument: Instrument, prices: Mapping[int, Decimal], source: str) -> Change | None:
        entry = self._require(instrument)
        now = self._clock.time()
        bars = _believable(prices, now)
        return Change(entry, bars, source, now) if len(bars) else None

    def _require(self, instrument: Instrument) -> Entry:
        entry = self._catalog.require(instrument)
        if entry.instrument.place.has_provider:
            raise ValueError(f"{instrument} is priced by providers")
        return entry


def _believable(prices: Mapping[int, Decimal], now: float) -> Bars:
    values = np.full((5, len(prices)), np.nan)
    values[CLOSE] = [float(price) for price in prices.values()]
    good, _ = check_manual(Bars.of(list(prices), values), now, may_be_worthless=True)
    return good
