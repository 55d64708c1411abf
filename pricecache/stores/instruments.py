"""Instruments: which there are, under which id, and whether their prices are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import structlog
from pymongo import InsertOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from pricecache.core.bars import day_of
from pricecache.core.catalog import Alias, Catalog, Entry
from pricecache.core.coverage import SyncState
from pricecache.core.healing import delisted
from pricecache.core.instruments import Instrument, InstrumentKind
from pricecache.errors import Conflict, Invalid
from pricecache.stores.client import DUPLICATE_KEY, next_id
from pricecache.stores.renames import Renamer, alias_from
from pricecache.stores.series import apply_head
from pricecache.stores.sync_state import SyncStateStore, take_state

log = structlog.get_logger(__name__)

NO_FACTS: Mapping[Instrument, Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Own:
    """An instrument of a user's own. `currency`: of its prices, None where that is not known."""

    instrument: Instrument
    currency: str | None = None
    name: str | None = None


class InstrumentStore:
    """The collection `instruments` and the catalog that mirrors it. Loop-only.

    An instrument's id is a number of ours and never changes; its symbol may. It is the id of its daily series too.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], catalog: Catalog) -> None:
        self._database = database
        self._instruments = database["instruments"]
        self._catalog = catalog
        self._states = SyncStateStore(database)
        self._renamer = Renamer(database)
        self.on_renamed: Callable[[Instrument, Instrument], object] = lambda before, after: None
        """Is told of every instrument that has another symbol now: the former one and the present one."""
        self.on_repriced: Callable[[Entry], object] = lambda entry: None
        """Is told of every instrument whose prices are in another currency now."""

    async def load_all(self) -> None:
        """Fill the catalog with everything stored: four queries, whatever the number of instruments."""
        known = [entry.id for entry in self._catalog]
        self._forget(set(known) - await self._load({}))
        await self._make_canonical()

    async def load(self, series_ids: Sequence[int]) -> None:
        """Bring some instruments of the catalog up to the database; one that is not there any more is left out."""
        self._forget(set(series_ids) - await self._load({"_id": {"$in": list(series_ids)}}))

    def _forget(self, series_ids: Iterable[int]) -> None:
        for series_id in series_ids:
            if (entry := self._catalog.by_id(series_id)) is not None:
                self._catalog.remove(entry)

    async def _load(self, query: dict[str, Any]) -> set[int]:
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
        return {document["_id"] for document in instruments}

    async def _make_canonical(self) -> None:
        """Give those stored under a notation that is read as another symbol now that symbol, with all they have."""
        for entry in list(self._catalog):
            before, after = entry.instrument, _canonical(entry.instrument)
            if before == after:
                continue
            try:
                await self._moved(entry, after, None)
            except Conflict as exc:
                if exc.code == "symbol_taken" and entry.tracked:
                    log.warning("instrument stored under two notations", kept=str(after), left=str(before))
                    await self._untrack_for_good(entry)

    async def _untrack_for_good(self, entry: Entry) -> None:
        # nobody can name it any more, so nobody could end it
        change = {"tracked": False, "trackedSince": None, "trackedBy": "notation"}
        await self._instruments.update_one({"_id": entry.id}, {"$set": change})
        await self.load([entry.id])

    def _keep(self, document: dict[str, Any]) -> Entry:
        instrument = Instrument(document["symbol"], document["market"])
        aliases = tuple(alias_from(alias) for alias in document.get("aliases", ()))
        entry = self._catalog.by_id(document["_id"])
        if entry is None:
            entry = Entry(
                id=document["_id"],
                instrument=instrument,
                currency=document["currency"],
                state=SyncState(wanted_from=document["wantedFrom"]),
                aliases=aliases,
            )
            self._catalog.add(entry)
        elif (entry.instrument, entry.aliases) != (instrument, aliases):
            former = entry.instrument
            self._catalog.rename(entry, instrument, aliases)
            if former != instrument:
                self.on_renamed(former, instrument)
        before = replace(entry, sessions=None)
        entry.currency = document["currency"]
        if entry.currency != before.currency:
            self.on_repriced(entry)
        entry.tracked = document["tracked"]
        entry.tracked_since = document["trackedSince"].timestamp() if document.get("trackedSince") else None
        entry.tracked_by = document.get("trackedBy")
        entry.source = document.get("source")
        entry.notice = document.get("notice")
        entry.kind = document.get("kind") or instrument.kind
        entry.name = document.get("name")
        entry.spellings = document.get("spellings", {})
        entry.currencies = tuple((since, code) for since, code in document.get("currencies", ()))
        entry.fixed = frozenset(document.get("fixed", ()))
        entry.owner = document.get("owner")
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
            await self.deepen([(entry, wanted_from) for entry in untracked])
            await self.set_tracked(untracked, True, by=by, now=now)
        return entries

    async def add_own(self, wanted: Sequence[Own], owner: str, *, wanted_from: int, by: str, now: float) -> list[Entry]:
        """Make instruments of a user's own known; of those known already the owner stays who it is, which the caller
        has to look at. None is tracked."""
        facts = {one.instrument: _own_facts(one, owner) for one in wanted}
        new = [instrument for instrument in facts if self._catalog.get(instrument) is None]
        if new:
            await self._insert(new, wanted_from, by, now, facts)
        return [self._catalog.require(one.instrument) for one in wanted]

    async def deepen(self, wanted: Sequence[tuple[Entry, int]]) -> list[Entry]:
        """Want each of these from a day on (days since 1970-01-01); those that were not, which are wanted deeper now.
        One that bars put in by hand made known has the first of these as its depth."""
        deeper = [(entry, day) for entry, day in wanted if entry.state.wanted_from > day]
        await self._states.save_many([(entry, replace(entry.state, wanted_from=day)) for entry, day in deeper])
        return [entry for entry, _ in deeper]

    async def _insert(
        self,
        new: Sequence[Instrument],
        wanted_from: int,
        by: str,
        now: float,
        facts: Mapping[Instrument, Mapping[str, Any]] = NO_FACTS,
    ) -> None:
        first = await next_id(self._database, "series", len(new))
        documents = [
            {
                "_id": first + i,
                "symbol": instrument.symbol,
                "market": instrument.market,
                "currency": instrument.currency,
                "kind": instrument.kind,
                "tracked": False,
                "addedBy": by,
                "addedAt": _instant(now),
                "wantedFrom": wanted_from,
                **facts.get(instrument, {}),
            }
            for i, instrument in enumerate(new)
        ]
        try:
            await self._instruments.bulk_write([InsertOne(document) for document in documents], ordered=False)
        except BulkWriteError as exc:
            if any(error["code"] != DUPLICATE_KEY for error in exc.details["writeErrors"]):
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
        self,
        entry: Entry,
        *,
        currency: str | None = None,
        source: str | None = None,
        notice: str | None = None,
        kind: InstrumentKind | None = None,
        name: str | None = None,
    ) -> None:
        """Keep what a provider said of an instrument. None leaves what is known, and so does a fact set by hand; of
        one whose currency changed, the currencies are known."""
        facts = {"currency": currency, "source": source, "notice": notice, "kind": kind, "name": name}
        left = entry.fixed | ({"currency"} if entry.currencies else set())
        change = {k: v for k, v in facts.items() if v is not None and k not in left and v != getattr(entry, k)}
        if change:
            await self._instruments.update_one({"_id": entry.id}, {"$set": change})
            for name_, value in change.items():
                setattr(entry, name_, value)
            entry.touch()
            if "currency" in change:
                self.on_repriced(entry)

    async def set_by_hand(self, entry: Entry, facts: Mapping[str, Any]) -> None:
        """Keep what a person said of an instrument: any of `kind`, `name` (None: let the providers say), `spellings`,
        `currencies` (both whole) and `currency`."""
        fixed = set(entry.fixed)
        for name in ("kind", "name"):
            if name in facts:
                (fixed.discard if facts[name] is None else fixed.add)(name)
        change = {**facts, "fixed": sorted(fixed)}
        await self._instruments.update_one({"_id": entry.id}, {"$set": change})
        await self.load([entry.id])

    async def set_delisted(self, entry: Entry, after: int | None) -> None:
        """Note that an instrument traded for the last time on session `after`; None: it trades on."""
        await self._states.save(entry, delisted(entry.state, after))

    async def rename(self, entry: Entry, to: Instrument, on: int) -> None:
        """Give an instrument the symbol `to` from the day `on` (days since 1970-01-01); its id, bars and quote stay
        its own, and its former symbol leads to it. On the day of its last rename that one is put right: the symbol it
        gave is forgotten, and the one before it may be given back.

        Raises `Invalid` with code `rename_out_of_order` or `rename_of_another_kind`, and `Conflict` as `Renamer.move`
        does.
        """
        if to == entry.instrument:
            return
        _require_alike(entry.instrument, to)
        since = entry.named_since
        if since is not None and on < since:
            raise Invalid(
                f"It has been {entry.instrument} since {day_of(since)} only: give that day or a later one.",
                code="rename_out_of_order",
                rows=[{"field": "on", "code": "rename_out_of_order", "detail": "before the last rename"}],
            )
        if since == on:
            aliases = tuple(alias for alias in entry.aliases if not _led_to(alias, to, on))
        else:
            former = Alias(entry.instrument.symbol, entry.instrument.market, since, on - 1)
            aliases = (*entry.aliases, former)
        await self._moved(entry, to, aliases)

    async def _moved(self, entry: Entry, to: Instrument, aliases: tuple[Alias, ...] | None) -> None:
        gone = await self._renamer.move(entry.id, entry.instrument, to, aliases)
        self._forget([] if gone is None else [gone])
        await self.load([entry.id])


def _led_to(alias: Alias, instrument: Instrument, on: int) -> bool:
    return (alias.symbol, alias.market) == instrument and alias.until == on - 1


def _require_alike(before: Instrument, after: Instrument) -> None:
    """A company keeps what it is and when it trades when it is called something else."""
    if (before.kind, before.place.calendar) != (after.kind, after.place.calendar):
        raise Invalid(
            f"{before} cannot become {after}, which is of another kind or trades at other times. Track that one by "
            "itself.",
            code="rename_of_another_kind",
            rows=[{"field": "to", "code": "rename_of_another_kind", "detail": "of another kind or other hours"}],
        )


def _canonical(instrument: Instrument) -> Instrument:
    symbol, market = instrument
    if symbol.isalnum() and market not in ("HK", "FX", "CRYPTO"):
        return instrument  # nearly all, and reading ten thousand of them takes a while
    try:
        return Instrument.parse_in(symbol, market)
    except Invalid:
        return instrument


def _own_facts(one: Own, owner: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"owner": owner, "currency": one.currency, "name": one.name}
    return {name: value for name, value in facts.items() if value is not None}


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
