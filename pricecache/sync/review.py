"""A person's decision about what was parked: believed after all, or not to be asked about again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricecache.clock import Clock
from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.healing import reviewed
from pricecache.errors import Conflict, Invalid, NotFound
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.quarantine import OPEN, Item, QuarantineStore
from pricecache.stores.sync_state import SyncStateStore

_HAND = "manual"
_WAYS_OUT = {
    "basis_unexplained": "Nothing of the answer was stored, so there is no bar to approve. If a split or a change of "
    "unit explains the ratio, put it with PUT /cache/actions/{symbol}; else put the bars you believe with "
    "PUT /cache/historical/{symbol}, or drop this. It settles itself when the provider agrees again.",
    "basis_mixed": "The provider was in the middle of a change, and nothing of its answer was stored. It is asked "
    "again by itself. If it stays so, put the bars you believe with PUT /cache/historical/{symbol}: what is put in by "
    "hand is not compared.",
    "other_currency": "Prices in another currency are not stored. If the instrument has changed its currency, say "
    "since when with PATCH /cache/symbols/{symbol}; else drop this, and it settles itself when the provider does.",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """An item as it was left, and the instrument it is of. `look_again`: whether the series is to be asked for now."""

    item: Item
    entry: Entry
    look_again: bool = False


class Reviewer:
    """Carries out decisions about quarantined items. Loop-only."""

    def __init__(
        self, catalog: Catalog, bars: BarStore, states: SyncStateStore, quarantine: QuarantineStore, clock: Clock
    ) -> None:
        self._catalog = catalog
        self._bars = bars
        self._states = states
        self._clock = clock
        self.quarantine = quarantine

    async def approve(self, item_id: str, by: str, ex_date: int | None = None) -> Decision:
        """Believe a parked bar: it is stored as its provider gave it. Or a suggested split, which took effect on
        `ex_date` (days since 1970-01-01).

        Raises `NotFound` with code `unknown_item`, `Conflict` with code `already_decided`, and `Invalid` with code
        `ex_date_missing` or `cannot_be_approved`, which says what can be done.
        """
        item, entry = await self._open(item_id)
        if item.suggestion is not None:
            return await self._approve_split(item, entry, by, ex_date)
        if item.bar is None or item.session is None or item.state != "parked":
            raise Invalid(_way_out(item), code="cannot_be_approved")
        bar = Bars(np.array([item.session], np.int64), np.array([item.bar], np.float64).T)
        await self._bars.commit([Change(entry, bar, item.source, self._clock.time(), approved=True)])
        await self._states.save(entry, reviewed(entry.state, item.session))
        return Decision(await self._decided(item, "approved", by), entry)

    async def drop(self, item_id: str, by: str) -> Decision:
        """Do not believe it: the same values are not parked again. Raises as `approve` does."""
        item, entry = await self._open(item_id)
        if item.session is not None:
            await self._states.save(entry, reviewed(entry.state, item.session))
        return Decision(await self._decided(item, "dropped", by), entry)

    async def _approve_split(self, item: Item, entry: Entry, by: str, ex_date: int | None) -> Decision:
        if ex_date is None:
            raise Invalid(
                "Say when the split took effect: a body with exDate, its first session in new shares.",
                code="ex_date_missing",
                rows=[{"field": "exDate", "code": "ex_date_missing", "detail": "no rows tell the day of a split"}],
            )
        assert item.suggestion is not None
        split = Action(ex_date, "split", float(item.suggestion["ratio"]), None, _HAND, manual=True)
        now = self._clock.time()
        await self._bars.commit([Change(entry, Bars.empty(), _HAND, now, manual=True, actions=(split,))])
        return Decision(await self._decided(item, "approved", by), entry, look_again=True)

    async def _open(self, item_id: str) -> tuple[Item, Entry]:
        item = await self.quarantine.get(item_id)
        entry = None if item is None else self._catalog.by_id(item.series)
        if item is None or entry is None:
            raise NotFound("There is no such item in the quarantine.", code="unknown_item")
        if item.state not in OPEN:
            raise _already(item)
        return item, entry

    async def _decided(self, item: Item, state: str, by: str) -> Item:
        decided = await self.quarantine.decide(
            item.id, "approved" if state == "approved" else "dropped", by, self._clock.time()
        )
        if decided is None:  # somebody else was faster
            now = await self.quarantine.get(item.id)
            raise _already(now or item)
        return decided


def _already(item: Item) -> Conflict:
    return Conflict(f"This is {item.state} already.", code="already_decided", state=item.state)


def _way_out(item: Item) -> str:
    if item.code in _WAYS_OUT:
        return _WAYS_OUT[item.code].replace("{symbol}", item.instrument.symbol)
    return (
        f"What was rejected cannot be true: {item.detail}. Put the bar you believe with "
        f"PUT /cache/historical/{item.instrument.symbol}, or drop this."
    )
