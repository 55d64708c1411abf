"""Instruments: which there are, under which id, and whether their prices are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pymongo import InsertOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from pricecache.core.catalog import Catalog, Entry
from pricecache.core.coverage import SyncState
from pricecache.core.instruments import Instrument
from pricecache.stores.client import next_id
from pricecache.stores.series import apply_head
from pricecache.stores.sync_state import SyncStateStore, take_state

_DUPLICATE_KEY = 11000


class InstrumentStore:
    """The collection `instruments` and the catalog that mirrors it. Loop-only.

    An instrument's id is a number of ours and never changes; its symbol may. It is the id of its daily series too.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], catalog: Catalog) -> None:
        self._database = database
        self._instruments = database["instruments"]
        self._catalog = catalog
        self._states = SyncStateStore(database)

    async def load_all(self) -> None:
        """Fill the catalog with everything stored: four queries, whatever the number of instruments."""
        await self._load({})

    async def load(self, series_ids: Sequence[int]) -> None:
        """Bring some instruments of the catalog up to the database."""
        await self._load({"_id": {"$in": list(series_ids)}})

    async def _load(self, query: dict[str, Any]) -> None:
        instruments = await self._instruments.find(query).to_list()
        states, series, actions = [
            {document["_id"]: document for document in await self._database[name].find(query).to_list()}
            for name in ("sync_state", "series", "actions")
        ]
        for document in instruments:
            entry = self._keep(document)
            take_state(entry, states.get(entry.id))
            if head := series.get(entry.id):
                apply_head(entry, head, actions.get(entry.id))

    def _keep(self, document: dict[str, Any]) -> Entry:
        entry = self._catalog.by_id(document["_id"])
        if entry is None:
            entry = Entry(
                id=document["_id"],
                instrument=Instrument(document["symbol"], document["market"]),
                currency=document["currency"],
                state=SyncState(wanted_from=document["wantedFrom"]),
            )
            self._catalog.add(entry)
        before = replace(entry, sessions=None)
        entry.currency = document["currency"]
        entry.tracked = document["tracked"]
        entry.tracked_since = document["trackedSince"].timestamp() if document.get("trackedSince") else None
        entry.tracked_by = document.get("trackedBy")
        entry.source = document.get("source")
        entry.notice = document.get("notice")
        if replace(entry, sessions=None) != before:
            entry.touch()
        return entry

    async def add(
        self, instruments: Sequence[Instrument], *, wanted_from: int, tracked: bool, by: str, now: float
    ) -> list[Entry]:
        """Make every one of `instruments` known, and tracked if asked; those known already keep what they have.

        `wanted_from`: the depth of new ones, days since 1970-01-01; those that become tracked are wanted from there on
        too, if they were not from an earlier day on. Two daemons may add the same one at once.
        """
        new = [i for i in dict.fromkeys(instruments) if self._catalog.get(i) is None]
        if new:
            await self._insert(new, wanted_from, by, now)
        entries = [self._catalog.require(instrument) for instrument in instruments]
        if tracked:
            untracked = [entry for entry in entries if not entry.tracked]
            await self._deepen(untracked, wanted_from)
            await self.set_tracked(untracked, True, by=by, now=now)
        return entries

    async def _deepen(self, entries: Sequence[Entry], wanted_from: int) -> None:
        # bars put in by hand made them known with the first of these as their depth
        await self._states.save_many(
            [(e, replace(e.state, wanted_from=wanted_from)) for e in entries if e.state.wanted_from > wanted_from]
        )

    async def _insert(self, new: Sequence[Instrument], wanted_from: int, by: str, now: float) -> None:
        first = await next_id(self._database, "series", len(new))
        documents = [
            {
                "_id": first + i,
                "symbol": instrument.symbol,
                "market": instrument.market,
                "currency": instrument.place.currency,
                "tracked": False,
                "addedBy": by,
                "addedAt": _instant(now),
                "wantedFrom": wanted_from,
            }
            for i, instrument in enumerate(new)
        ]
        try:
            await self._instruments.bulk_write([InsertOne(document) for document in documents], ordered=False)
        except BulkWriteError as exc:
            if any(error["code"] != _DUPLICATE_KEY for error in exc.details["writeErrors"]):
                raise
        wanted = [{"symbol": i.symbol, "market": i.market} for i in new]
        found = await self._instruments.find({"$or": wanted}, {"_id": 1}).to_list()
        await self.load([document["_id"] for document in found])

    async def set_tracked(self, entries: Sequence[Entry], tracked: bool, *, by: str, now: float) -> None:
        """Start or stop keeping the prices of `entries`. What is stored of them stays."""
        if not entries:
            return
        change = {"tracked": tracked, "trackedSince": _instant(now) if tracked else None, "trackedBy": by}
        await self._instruments.update_many({"_id": {"$in": [entry.id for entry in entries]}}, {"$set": change})
        for entry in entries:
            entry.tracked = tracked
            entry.tracked_since = now if tracked else None
            entry.tracked_by = by
            entry.touch()

    async def set_facts(
        self, entry: Entry, *, currency: str | None = None, source: str | None = None, notice: str | None = None
    ) -> None:
        """Keep what a provider said of an instrument. None leaves what is known."""
        facts = {"currency": currency, "source": source, "notice": notice}
        change = {k: v for k, v in facts.items() if v is not None and v != getattr(entry, k)}
        if change:
            await self._instruments.update_one({"_id": entry.id}, {"$set": change})
            for name, value in change.items():
                setattr(entry, name, value)
            entry.touch()


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
