"""A person's decision about what was parked: believed after all, or not to be asked about again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pricecache.clock import Clock
from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.healing import reviewed
from pricecache.errors import Conflict, Invalid, NotFound
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.quarantine import UNSETTLED, Item, QuarantineStore
from pricecache.stores.sync_state import SyncStateStore

_HAND = "manual"
_WAYS_OUT = {
    "basis_unexplained": "Nothing of the answer was stored, so there is no bar to approve. If a split or a change of "
    "unit explains the ratio, put it with PUT /cache/actions/{symbol}; else put the bars you believe with "
    "PUT /cache/historical/{symbol}, or drop this. It settles itself when the provider agrees again.",
    "basis_mixed": "The provider was in the middle of a change, and nothing of its answer was stored. It is asked "
    "again by itself. If it stays so, put the bars you believe with PUT /cache/historical/{symbol}: what is put in by "
    "hand is not compared.",
    "action_withdrawn": "A split was listed, withdrawn and is applied no more. If it did happen, put it with "
    "PUT /cache/actions/{symbol}; else drop this.",
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
        `ex_date` (days since 1970-01-01). An approval that was begun and cut short is carried through as it was begun.

        Raises `NotFound` with code `unknown_item`, `Conflict` with code `already_decided`, and `Invalid` with code
        `ex_date_missing` or `cannot_be_approved`, which says what can be done.
        """
        item, entry = await self._open(item_id)
        _check_approval(item, ex_date)
        # decided first, so that nobody drops what is being stored
        item = await self._begun(item, by, ex_date)
        await self._bars.commit([self._approved(item, entry)])
        if item.session is not None:
            await self._states.save(entry, reviewed(entry.state, item.session))
        settled = await self.quarantine.approved(item.id) or await self.quarantine.get(item.id) or item
        return Decision(settled, entry, look_again=item.suggestion is not None)

    async def drop(self, item_id: str, by: str) -> Decision:
        """Do not believe it: the same values are not parked again. Raises as `approve` does."""
        item, entry = await self._open(item_id)
        dropped = await self.quarantine.decide(item.id, "dropped", by, self._clock.time())
        if dropped is None:  # somebody else was faster
            raise _already(await self.quarantine.get(item.id) or item)
        if item.session is not None:
            await self._states.save(entry, reviewed(entry.state, item.session))
        return Decision(dropped, entry)

    async def put_by_hand(self, entry: Entry, sessions: Sequence[int]) -> None:
        """Bars of `sessions` were put in by hand: what was open of these is settled by that."""
        put = set(sessions)
        state = entry.state
        if not put.isdisjoint(state.withheld):
            for session in put & state.withheld.keys():
                state = reviewed(state, session)
            await self._states.save(entry, state)
        settled = put & await self.quarantine.open_sessions(entry.id)
        await self.quarantine.resolve(entry.id, self._clock.time(), sessions=settled)

    async def _begun(self, item: Item, by: str, ex_date: int | None) -> Item:
        begun = await self.quarantine.decide(item.id, "approving", by, self._clock.time(), ex_date=ex_date)
        begun = begun or await self.quarantine.get(item.id) or item
        if begun.state != "approving":  # somebody else was faster
            raise _already(begun)
        return begun

    def _approved(self, item: Item, entry: Entry) -> Change:
        now = self._clock.time()
        if item.suggestion is not None:
            assert item.ex_date is not None
            split = Action(item.ex_date, "split", float(item.suggestion["ratio"]), None, _HAND, manual=True)
            return Change(entry, Bars.empty(), _HAND, now, manual=True, actions=(split,))
        bar = Bars(np.array([item.session], np.int64), np.array([item.bar], np.float64).T)
        return Change(entry, bar, item.source, now, approved=True)

    async def _open(self, item_id: str) -> tuple[Item, Entry]:
        item = await self.quarantine.get(item_id)
        entry = None if item is None else self._catalog.by_id(item.series)
        if item is None or entry is None:
            raise NotFound("There is no such item in the quarantine.", code="unknown_item")
        if item.state not in UNSETTLED:
            raise _already(item)
        return item, entry


def _check_approval(item: Item, ex_date: int | None) -> None:
    if item.state == "approving":
        return
    if item.suggestion is None and (item.bar is None or item.session is None or item.state != "parked"):
        raise Invalid(_way_out(item), code="cannot_be_approved")
    if item.suggestion is not None and ex_date is None:
        raise Invalid(
            "Say when the split took effect: a body with exDate, its first session in new shares.",
            code="ex_date_missing",
            rows=[{"field": "exDate", "code": "ex_date_missing", "detail": "no rows tell the day of a split"}],
        )


def _already(item: Item) -> Conflict:
    return Conflict(f"This is {item.state} already.", code="already_decided", state=item.state)


def _way_out(item: Item) -> str:
    if item.code in _WAYS_OUT:
        return _WAYS_OUT[item.code].replace("{symbol}", item.instrument.symbol)
    return (
        f"What was rejected cannot be true: {item.detail}. Put the bar you believe with "
        f"PUT /cache/historical/{item.instrument.symbol}, or drop this."
    )
