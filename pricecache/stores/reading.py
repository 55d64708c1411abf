"""Reads the packed years of series, each series in one committed state.

What a reader gets carries, year by year, the revision that the series' head names, else it is read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.actions import Action
from pricecache.core.bars import MANUAL, Bars, flags_of, unpack_blocks, unpack_provenance
from pricecache.core.catalog import Entry
from pricecache.errors import Corrupt
from pricecache.stores.commits import RACE_ATTEMPTS, YEAR_BASE, Overtaken, pause
from pricecache.stores.heads import HEAD_READINGS, Heads
from pricecache.stores.journal import Replayed
from pricecache.stores.packed import Block, is_sound, sources_fit
from pricecache.stores.restating import PackedYear, joined

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """The bars of one series as they stood at one revision, and the actions that were held with them."""

    rev: int
    bars: Bars
    actions: tuple[Action, ...] = ()


class RecordReader:
    """Reads the packed records of series, and keeps their sessions in the entries. Loop-only."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], heads: Heads) -> None:
        self._revisions = database["revisions"]
        self._years = database["bar_years"]
        self._heads = heads
        self._told_broken: set[int] = set()

    async def read(self, entry: Entry) -> Bars:
        """The bars in the packed record of one series."""
        return (await self.read_many([entry]))[entry.id].bars

    async def read_many(self, entries: Sequence[Entry]) -> dict[int, Record]:
        """The packed records of several series by id, in one query. Each is one committed state of its series.

        Raises `Corrupt` for a single one that cannot be read; of several, such a one is left out and logged.
        """
        found: dict[int, Record] = {}
        waiting = list(entries)
        contradicted: Counter[tuple[int, int]] = Counter()
        for attempt in range(RACE_ATTEMPTS):
            blocks, broken = await self._blocks(waiting)
            headless = await self._headless(waiting)
            for entry in waiting:
                stored = blocks.get(entry.id, {})
                revs = {year: block.rev for year, block in stored.items()}
                if entry.id not in broken and entry.id not in headless and revs == entry.head.years:
                    found[entry.id] = _taken(entry, list(stored.values()))
            contradicted.update((e.id, e.head.rev) for e in waiting if e.id not in found)
            broken |= {
                entry.id: "Its packed years do not match its head."
                for entry in waiting
                if entry.id not in broken and contradicted[entry.id, entry.head.rev] >= HEAD_READINGS
            }
            self._tell_broken(waiting, broken, alone=len(entries) == 1)
            waiting = [entry for entry in waiting if entry.id not in found and entry.id not in broken]
            if not waiting:
                return found
            await self._heads.follow(waiting)
            await pause(attempt)
        self._tell_broken(
            waiting, {e.id: "Its packed years do not match its head." for e in waiting}, alone=len(entries) == 1
        )
        return found

    async def _headless(self, entries: Sequence[Entry]) -> set[int]:
        """Those without a head of which something was committed all the same: the head was lost, or is new."""
        first = [{"s": entry.id, "rev": 1} for entry in entries if entry.head.rev == 0]
        if not first:
            return set()
        found = await self._revisions.find({"_id": {"$in": first}}, {"_id": 1}).to_list()
        return {document["_id"]["s"] for document in found}

    def _tell_broken(self, entries: Sequence[Entry], broken: Mapping[int, str], *, alone: bool) -> None:
        for entry in entries:
            if entry.id in broken:
                detail = f"{entry.instrument}: {broken[entry.id]} Run `pricecache doctor --verify --rebuild`."
                if alone:
                    raise Corrupt(detail, series=entry.id)
                tell = log.debug if entry.id in self._told_broken else log.error
                self._told_broken.add(entry.id)
                tell("a series is corrupt", symbol=str(entry.instrument), detail=detail)

    async def _blocks(self, entries: Sequence[Entry]) -> tuple[dict[int, dict[int, Block]], dict[int, str]]:
        """Every packed year by series and year, and what is wrong with which series."""
        if len(entries) == 1:
            low = entries[0].id * YEAR_BASE
            query: dict[str, Any] = {"_id": {"$gte": low, "$lt": low + YEAR_BASE}}
        else:
            ids = [entry.id * YEAR_BASE + year for entry in entries for year in entry.head.years]
            query = {"_id": {"$in": ids}}
        blocks: dict[int, dict[int, Block]] = {}
        broken: dict[int, str] = {}
        columns = {"b": 1, "r": 1, "k": 1, "p": 1, "kp": 1}
        for document in await self._years.find(query, columns).sort("_id", 1).to_list():
            series_id, year = divmod(document["_id"], YEAR_BASE)
            if not is_sound(document):
                broken[series_id] = f"Year {year} fails its checksum."
            else:
                block = Block(document.get("r"), document["b"], document["p"])
                blocks.setdefault(series_id, {})[year] = block
        return blocks, broken

    async def held(self, entry: Entry) -> NDArray[np.int64]:
        """The sessions in the packed record of `entry`: int64, ascending."""
        if entry.sessions is None:
            await self.read(entry)
        assert entry.sessions is not None
        return entry.sessions

    async def manual(self, entry: Entry) -> NDArray[np.int64]:
        """The sessions in the packed record of `entry` whose bars were put in by hand: int64, ascending."""
        if entry.manual is None:
            await self.read(entry)
        assert entry.manual is not None
        return entry.manual

    async def packed_years(self, query: Mapping[str, Any]) -> dict[int, dict[int, PackedYear]]:
        """The packed years that `query` finds, by series and year, checksums verified. Raises `Corrupt`."""
        found: dict[int, dict[int, PackedYear]] = {}
        for document in await self._years.find(query).sort("_id", 1).to_list():
            series_id, year = divmod(document["_id"], YEAR_BASE)
            if not (is_sound(document) and sources_fit(document)):
                raise Corrupt(
                    f"Year {year} of series {series_id} fails its checksum. "
                    "Run `pricecache doctor --verify --rebuild`.",
                    series=series_id,
                )
            found.setdefault(series_id, {})[year] = PackedYear(
                document.get("r", 0), unpack_blocks([document["b"]]), unpack_provenance(document["p"], document["src"])
            )
        return found

    async def packed(self, entry: Entry) -> dict[int, PackedYear]:
        """Every packed year of one series with its provenance, checksums verified."""
        low = entry.id * YEAR_BASE
        return (await self.packed_years({"_id": {"$gte": low, "$lt": low + YEAR_BASE}})).get(entry.id, {})

    async def sound_years(self, entry: Entry) -> dict[int, PackedYear]:
        """Those packed years of one series that can be read, whatever its head names."""
        found: dict[int, PackedYear] = {}
        for document in await self.year_ids(entry):
            try:
                found |= (await self.packed_years({"_id": document["_id"]})).get(entry.id, {})
            except Corrupt:
                continue
        return found

    async def whole(self, entry: Entry) -> Replayed:
        """One series joined, with provenance. Raises `Overtaken` when its years are not those its head names."""
        years = await self.packed(entry)
        if {year: packed.rev for year, packed in years.items()} != entry.head.years:
            raise Overtaken
        return joined(years)

    async def year_ids(self, entry: Entry) -> list[dict[str, Any]]:
        """Of every packed year of one series `_id` and revision `r`, unread and unchecked."""
        low = entry.id * YEAR_BASE
        return await self._years.find({"_id": {"$gte": low, "$lt": low + YEAR_BASE}}, {"r": 1}).to_list()

    def sound_again(self, entry: Entry) -> None:
        """Its record was written anew: should it break again, that is told again."""
        self._told_broken.discard(entry.id)


def _taken(entry: Entry, blocks: Sequence[Block]) -> Record:
    bars = unpack_blocks([block.bars for block in blocks])
    flags = np.frombuffer(b"".join(flags_of(block.origin) for block in blocks), np.uint8)
    manual = bars.sessions[(flags & MANUAL) != 0]
    # a copy of the sessions: a view would keep the whole block in memory for as long as the entry
    entry.sessions, entry.manual = bars.sessions.copy(), manual
    return Record(entry.head.rev, bars, entry.actions)
