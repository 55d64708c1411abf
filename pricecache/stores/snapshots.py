"""Snapshots: what portfolios closed at, by block and day; the blocks they are taken of; and how each day went."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from bson import Binary
from cachetools import LRUCache
from numpy.typing import NDArray
from pymongo import InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from pricecache.core.packed_arrays import pack_arrays, unpack_arrays
from pricecache.core.snapshot_blocks import Block, Ids, ids_of, unpack_ids
from pricecache.core.snapshot_values import FIELDS
from pricecache.errors import Corrupt
from pricecache.stores.client import DUPLICATE_KEY, WRITE_CONFLICT
from pricecache.stores.ledger import LedgerMoved, as_moved

Document = dict[str, Any]

KNOWN, CLOSED, FINAL, ESTIMATED = 1, 2, 4, 8
"""Flags of a row: there is one; a session of what the portfolio names closed on its day; nothing but a revision changes
it; it holds something without a price of that day."""
BLOCKS_READ = 16
"""Blocks that are decoded before the event loop gets its turn."""
KEPT_BYTES = 64 << 20
"""Of blocks that stay in memory from one day to the next: some 180,000 portfolios of 25 positions."""
LEDGERS_READ = 5000
"""The same of ledgers."""
_MARKET = "market"


@dataclass(frozen=True, slots=True)
class BlockHead:
    """`version` grows with every write of the block. `latest`: the last day since which one of its portfolios only
    holds; `size`: how many these are."""

    number: int
    version: int
    latest: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class StoredBlock:
    """`block`: None where it cannot be read; `ids`: of its portfolios then too. `roster`: since which version of it the
    block is of the same portfolios and accounts."""

    version: int
    roster: int
    block: Block | None
    ids: Ids


@dataclass(frozen=True, slots=True)
class Roster:
    """Whose the rows of a block are, in their order: portfolios, and the accounts of each."""

    portfolios: tuple[str, ...]
    accounts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class DayRows:
    """One block at the close of one day. `version`: 0 for what is not stored. `roster`: whose rows these are.

    `values`: float64, shape (FIELDS, scopes), the portfolio before its accounts. `flags`: uint8, `at`: int64, when each
    was captured, seconds since 1970 UTC, both by portfolio.
    """

    block: int
    day: int
    version: int
    roster: int
    values: NDArray[np.float64]
    flags: NDArray[np.uint8]
    at: NDArray[np.int64]
    failed: int = 0

    @cached_property
    def counts(self) -> Counts:
        due = (self.flags & CLOSED) > 0
        known = (self.flags & KNOWN) > 0
        is_open = due & ((self.flags & FINAL) == 0)
        all_due, captured, still_open = (int(np.count_nonzero(one)) for one in (due, due & known, is_open))
        return Counts(all_due + self.failed, captured, still_open + self.failed)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one day: portfolios that a session closed for, those of them with a row, and those whose row is not final."""

    due: int = 0
    captured: int = 0
    open: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.due + other.due, self.captured + other.captured, self.open + other.open)


@dataclass(frozen=True, slots=True)
class DayHead:
    """What is stored of a block and day, without its rows."""

    block: int
    day: int
    version: int
    roster: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class DayRecord:
    """How a day stands. `is_complete`: every portfolio was looked at."""

    day: int
    counts: Counts
    is_complete: bool


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """Up to which revision each series was looked at, and what stood beside its bars then (a digest): int64 both, by
    `ids`, ascending. Every series that a stored block names is among them, at no later revision than it was made from.
    `at`: since when revisions may not have been looked at, seconds since 1970 UTC.
    """

    version: int = 0
    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    revs: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    digests: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    at: float = 0.0

    @classmethod
    def of(cls, version: int, facts: Mapping[int, tuple[int, int]], at: float) -> Examined:
        """`facts`: revision and digest by series."""
        ids = np.array(sorted(facts), np.int64)
        both = np.array([facts[one] for one in ids.tolist()], np.int64).reshape(-1, 2)
        return cls(version, ids, both[:, 0].copy(), both[:, 1].copy(), at)

    @property
    def facts(self) -> dict[int, tuple[int, int]]:
        pairs = zip(self.revs.tolist(), self.digests.tolist(), strict=True)
        return dict(zip(self.ids.tolist(), pairs, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class PortfolioRow:
    """One portfolio at the close of `day`. `values`: float64, shape (FIELDS, scopes); `accounts`: of the scopes after
    the first. `at`: seconds since 1970 UTC."""

    day: int
    values: NDArray[np.float64]
    accounts: tuple[str, ...]
    flags: int
    at: int


class BlocksMoved(Exception):
    """Another daemon changed a block between reading and writing it."""


class SnapshotStore:
    """The collections `snapshots`, `snapshot_blocks`, `snapshot_rosters`, `snapshot_days` and `snapshot_gone`.

    Loop-only; safe against writers in any process: what was changed since it was read is left as it is.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._client = database.client
        self._rows = database["snapshots"]
        self._blocks = database["snapshot_blocks"]
        self._rosters = database["snapshot_rosters"]
        self._days = database["snapshot_days"]
        self._gone = database["snapshot_gone"]
        self._kept: LRUCache[int, StoredBlock] = LRUCache(KEPT_BYTES, getsizeof=_nbytes)
        self._states = database["ledger_state"]

    # what there is

    async def changed(self) -> dict[str, int]:
        """Of every portfolio that changed since it was captured last: the generation of its ledger."""
        return await self._generations({"unseen": True, "places": {"$gt": 0}})

    async def everybody(self) -> dict[str, int]:
        """The same of all that ever had a transaction."""
        return await self._generations({"places": {"$gt": 0}})

    async def _generations(self, key: Document) -> dict[str, int]:
        found = await self._states.find(key, {"generation": 1}).batch_size(LEDGERS_READ).to_list()
        return await asyncio.to_thread(lambda: {one["_id"]: one["generation"] for one in found})

    async def seen(self, generations: Mapping[str, int]) -> None:
        """What is captured now of these portfolios is what their ledgers say at these generations."""
        operations: list[Any] = [
            UpdateOne({"_id": name, "generation": one, "unseen": True}, {"$unset": {"unseen": ""}})
            for name, one in generations.items()
        ]
        if operations:
            await self._states.bulk_write(operations, ordered=False)

    async def gone(self) -> list[str]:
        """Portfolios that were deleted, and may be in blocks still."""
        return [one["_id"] async for one in self._gone.find()]

    async def heads(self) -> list[BlockHead]:
        """Of all blocks, by number."""
        found = self._blocks.find({"_id": {"$gte": 0}}, {"version": 1, "latest": 1, "size": 1}, sort=[("_id", 1)])
        return [BlockHead(one["_id"], one["version"], one["latest"], one["size"]) for one in await found.to_list()]

    async def ids(self, heads: Sequence[BlockHead]) -> dict[int, Ids]:
        """Of the portfolios in each block, by number; those that stand in memory as their heads say are not read."""
        kept = {number: one.ids for number, one in self._kept_of(heads).items()}
        missing = [head.number for head in heads if head.number not in kept]
        found = await self._blocks.find({"_id": {"$in": missing}}, {"ids": 1}).to_list() if missing else []
        return kept | {one["_id"]: _ids_of(one) for one in found}

    def _kept_of(self, heads: Sequence[BlockHead]) -> dict[int, StoredBlock]:
        known = ((head, self._kept.get(head.number)) for head in heads)
        return {head.number: one for head, one in known if one is not None and one.version == head.version}

    async def blocks(self, heads: Sequence[BlockHead]) -> dict[int, StoredBlock]:
        """By number; those that stand in memory as their heads say are not read."""
        kept = self._kept_of(heads)
        missing = [head.number for head in heads if head.number not in kept]
        if missing:
            found = await self._blocks.find({"_id": {"$in": missing}}).batch_size(BLOCKS_READ).to_list()
            read = await asyncio.to_thread(lambda: {one["_id"]: _block_of(one) for one in found})
            self._keep(read)
            kept |= read
        return kept

    def _keep(self, blocks: Mapping[int, StoredBlock]) -> None:
        for number, one in blocks.items():
            if one.block is not None and one.block.nbytes < self._kept.maxsize:
                self._kept[number] = one

    async def write_blocks(self, blocks: Mapping[int, StoredBlock]) -> None:
        """Put each, which is of the version that follows, in the place of what there was, all or none. A roster of that
        version goes with it. Raises `BlocksMoved`.
        """
        if not blocks:
            return
        documents = await asyncio.to_thread(lambda: [_block_document(number, one) for number, one in blocks.items()])
        operations: list[Any] = [
            ReplaceOne({"_id": one["_id"], "version": one["version"] - 1}, one)
            if one["version"] > 1
            else InsertOne(one)
            for one in documents
        ]
        rosters = [_roster_document(number, one) for number, one in blocks.items() if one.roster == one.version]
        try:
            async with self._client.start_session() as session, await session.start_transaction():
                written = await self._blocks.bulk_write(operations, session=session, ordered=False)
                if written.inserted_count + written.matched_count != len(operations):
                    raise BlocksMoved
                if rosters:
                    await self._rosters.insert_many(rosters, session=session, ordered=False)
        except PyMongoError as exc:
            if isinstance(as_moved(exc), LedgerMoved):
                raise BlocksMoved from exc
            raise
        self._keep(blocks)

    async def rosters(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Roster]:
        """By block and version."""
        wanted = [{"b": block, "v": version} for block, version in keys]
        found = await self._rosters.find({"_id": {"$in": wanted}}).to_list() if wanted else []
        return {(one["_id"]["b"], one["_id"]["v"]): _roster_of(one) for one in found}

    async def forget(self, portfolios: Sequence[str]) -> None:
        """Of portfolios that are gone nothing says any more whose their rows were."""
        for one in portfolios:
            nobody = {"$set": {"portfolios.$[gone]": ""}}
            await self._rosters.update_many({"portfolios": one}, nobody, array_filters=[{"gone": one}])
            await self._gone.delete_one({"_id": one})

    # rows

    async def day_heads(self, numbers: Sequence[int], days: Sequence[int]) -> dict[tuple[int, int], DayHead]:
        """By block and day."""
        keys = [{"b": number, "d": day} for number in numbers for day in days]
        fields = {"version": 1, "roster": 1, "counts": 1}
        found = await self._rows.find({"_id": {"$in": keys}}, fields).to_list()
        return {
            (one["_id"]["b"], one["_id"]["d"]): DayHead(
                one["_id"]["b"], one["_id"]["d"], one["version"], one["roster"], Counts(*one["counts"])
            )
            for one in found
        }

    async def day_rows(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], DayRows]:
        """The same with the rows; what cannot be read is left out."""
        wanted = [{"b": block, "d": day} for block, day in keys]
        if not wanted:
            return {}
        found = await self._rows.find({"_id": {"$in": wanted}}).batch_size(BLOCKS_READ).to_list()
        rows = await asyncio.to_thread(_all_rows_of, found)
        return {(one.block, one.day): one for one in rows}

    async def write_rows(self, rows: Sequence[DayRows]) -> int:
        """Put each in the place of that of its version (0: of none); how many were. The others somebody else wrote
        meanwhile."""
        if not rows:
            return 0
        operations = await asyncio.to_thread(lambda: [_row_operation(one) for one in rows])
        try:
            written = await self._rows.bulk_write(operations, ordered=False)
        except BulkWriteError as exc:
            if not _is_race(exc):
                raise
            return int(exc.details["nInserted"] + exc.details["nMatched"])
        return written.inserted_count + written.matched_count

    async def of_portfolio(self, portfolio: str, start: int, end: int) -> list[PortfolioRow]:
        """Every row there is of it from day `start` to `end`, both included, oldest first."""
        places: dict[tuple[int, int], tuple[int, int, tuple[str, ...]]] = {}
        for document in await self._rosters.find({"portfolios": portfolio}).to_list():
            roster = _roster_of(document)
            at = roster.portfolios.index(portfolio)
            scope = sum(len(accounts) + 1 for accounts in roster.accounts[:at])
            places[document["_id"]["b"], document["_id"]["v"]] = at, scope, roster.accounts[at]
        found = {}
        for block in {block for block, _ in places}:
            key = {"$gte": {"b": block, "d": start}, "$lte": {"b": block, "d": end}}
            documents = await self._rows.find({"_id": key}).batch_size(BLOCKS_READ).to_list()
            for row in await asyncio.to_thread(_all_rows_of, documents):
                if (place := places.get((row.block, row.roster))) is not None:
                    at, scope, accounts = place
                    values = row.values[:, scope : scope + len(accounts) + 1]
                    found[row.day] = PortfolioRow(row.day, values, accounts, int(row.flags[at]), int(row.at[at]))
        return [found[day] for day in sorted(found) if found[day].flags & KNOWN]

    # how it went

    async def days(self, start: int, end: int) -> list[DayRecord]:
        """Oldest first."""
        key = {"_id": {"$gte": start, "$lte": end}}
        return [_record_of(one) for one in await self._days.find(key, sort=[("_id", 1)]).to_list()]

    async def last_complete(self) -> int | None:
        """The last day that every portfolio was looked at for."""
        found = await self._days.find_one({"complete": True}, sort=[("_id", -1)])
        return None if found is None else int(found["_id"])

    async def record(self, one: DayRecord) -> None:
        """A day that is complete stays so."""
        counts = {"due": one.counts.due, "captured": one.counts.captured, "open": one.counts.open}
        change: Document = {"$set": counts}
        change |= {"$max": {"complete": True}} if one.is_complete else {"$setOnInsert": {"complete": False}}
        await self._days.update_one({"_id": one.day}, change, upsert=True)

    # what the blocks were computed from

    async def examined(self) -> Examined:
        found = await self._blocks.find_one({"_id": _MARKET})
        if found is None:
            return Examined()
        try:
            arrays = unpack_arrays(bytes(found["arrays"]))
        except Corrupt:
            return Examined(found["version"])
        return Examined(found["version"], arrays["ids"], arrays["revs"], arrays["digests"], found["at"])

    async def examine(self, after: Examined) -> bool:
        """Put it in the place of what was read; False when somebody else did meanwhile."""
        arrays = {"ids": after.ids, "revs": after.revs, "digests": after.digests}
        document = {"_id": _MARKET, "version": after.version + 1, "at": after.at, "arrays": Binary(pack_arrays(arrays))}
        try:
            key = {"_id": _MARKET, "version": after.version}
            written = await self._blocks.replace_one(key, document, upsert=after.version == 0)
        except OperationFailure as exc:
            if _is_race(exc):
                return False
            raise
        return bool(written.matched_count or written.upserted_id is not None)


def _block_document(number: int, one: StoredBlock) -> Document:
    block = one.block
    assert block is not None
    return {
        "_id": number,
        "version": one.version,
        "roster": one.roster,
        "latest": block.latest,
        "size": len(block),
        "ids": Binary(block.ids.tobytes()),
        "zones": list(block.zones),
        "arrays": Binary(block.pack()),
    }


def _block_of(document: Document) -> StoredBlock:
    block = None
    with suppress(Corrupt):  # it is computed again
        block = Block.unpack(document["arrays"], document["ids"], document["zones"])
    return StoredBlock(document["version"], document["roster"], block, _ids_of(document))


def _nbytes(one: StoredBlock) -> int:
    return 1000 if one.block is None else one.block.nbytes


def _ids_of(document: Document) -> Ids:
    with suppress(Corrupt):
        return unpack_ids(document["ids"])
    return ids_of([])


def _roster_document(number: int, one: StoredBlock) -> Document:
    block = one.block
    assert block is not None
    accounts = [list(ids) for ids in block.account_ids]
    return {"_id": {"b": number, "v": one.roster}, "portfolios": list(block.portfolios), "accounts": accounts}


def _roster_of(document: Document) -> Roster:
    return Roster(tuple(document["portfolios"]), tuple(tuple(ids) for ids in document["accounts"]))


def _row_operation(one: DayRows) -> Any:
    counts = one.counts
    document = {
        "_id": {"b": one.block, "d": one.day},
        "version": one.version + 1,
        "roster": one.roster,
        "counts": [counts.due, counts.captured, counts.open],
        "failed": one.failed,
        "rows": Binary(pack_arrays({"values": one.values.ravel(), "flags": one.flags, "at": one.at.astype(np.uint32)})),
    }
    if one.version == 0:
        return InsertOne(document)
    return ReplaceOne({"_id": document["_id"], "version": one.version}, document)


def _rows_of(document: Document) -> DayRows | None:
    try:
        arrays = unpack_arrays(bytes(document["rows"]))
        values = arrays["values"].reshape(FIELDS, -1)
    except (Corrupt, ValueError):
        return None
    key = document["_id"]
    return DayRows(
        key["b"], key["d"], document["version"], document["roster"], values, arrays["flags"],
        arrays["at"].astype(np.int64), document["failed"],
    )  # fmt: skip


def _all_rows_of(documents: Iterable[Document]) -> list[DayRows]:
    return [row for document in documents if (row := _rows_of(document)) is not None]


def _record_of(document: Document) -> DayRecord:
    counts = Counts(document["due"], document["captured"], document["open"])
    return DayRecord(document["_id"], counts, document["complete"])


def _is_race(exc: OperationFailure) -> bool:
    errors = (exc.details or {}).get("writeErrors") if isinstance(exc, BulkWriteError) else None
    codes = {exc.code} if errors is None else {one["code"] for one in errors}
    return bool(codes) and codes <= {DUPLICATE_KEY, WRITE_CONFLICT}
