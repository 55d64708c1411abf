"""Stored histories: one document for each portfolio that says what is there, one for each of its years and months."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from bson import Binary
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache.core.chunks import Span, between, joined, spans, with_flows
from pricecache.core.history import GrossFlows, History
from pricecache.core.ledger import Rules
from pricecache.core.materialised import Materialised, Point
from pricecache.core.scopes import Scope
from pricecache.core.stamps import SeriesFacts, Stamp
from pricecache.core.valuation import FIELDS
from pricecache.errors import Corrupt
from pricecache.stores.ledger import LedgerMoved, as_moved
from pricecache.stores.packed_history import pack_rows, unpack_rows

Document = dict[str, Any]
_RULES = tuple(one.name for one in fields(Rules))
LOOKS = 4
"""How often a reader looks again when what it read was being written."""
IN_THREAD_FROM = 200_000
"""Bytes of rows from which on they are unpacked in a thread."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One stored year or month, and the version of the history that it was written in."""

    span: Span
    version: int


@dataclass(frozen=True, slots=True)
class StoredHead:
    """What is stored of a portfolio: the days `start` to `through`, computed from what `stamp` says, in `chunks`.

    `version` grows with every write. `scopes`: the portfolio and its accounts, counted. `stored_at`: seconds since 1970
    UTC.
    """

    portfolio: str
    version: int
    stamp: Stamp
    start: int
    through: int
    chunks: tuple[Chunk, ...]
    currency: str
    scopes: int
    stored_at: float


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    head: StoredHead
    kept: Materialised


@dataclass(frozen=True, slots=True, eq=False)
class Writing:
    """What is to be stored of a portfolio, and what was when it was computed."""

    portfolio: str
    before: StoredHead | None
    kept: Materialised


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all that is stored: `portfolios` with rows and with a ledger, `rows` (days times scopes), `days`, and how many
    days there could be up to the day before today; `first`, `last` of them (days since 1970-01-01), None without
    any; `data_bytes` uncompressed, `disk_bytes` with its share of free space."""

    portfolios: int
    ledgers: int
    rows: int
    days: int
    days_due: int
    first: int | None
    last: int | None
    data_bytes: int
    disk_bytes: int


class HistoryStore:
    """The collections `history_heads` and `history`. Loop-only; safe against writers in any process.

    A write is one transaction with the ledger's state: it goes through only while the ledger is at the generation that
    the rows were computed from, and takes the ledger's `dirtyFrom` back.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self.database = database
        self._client = database.client
        self._heads = database["history_heads"]
        self._chunks = database["history"]
        self._states = database["ledger_state"]

    async def head(self, portfolio: str) -> StoredHead | None:
        document = await self._heads.find_one({"_id": portfolio})
        return None if document is None else _head_of(document)

    async def heads(self, portfolios: Sequence[str] | None = None) -> list[StoredHead]:
        """Of these portfolios, or of all."""
        key: Document = {} if portfolios is None else {"_id": {"$in": list(portfolios)}}
        return [_head_of(document) for document in await self._heads.find(key).to_list()]

    async def load_many(
        self, heads: Sequence[StoredHead], cash_tracking: Mapping[str, bool]
    ) -> dict[str, Materialised]:
        """What is stored of several portfolios with one query; what cannot be read, or was changed since `heads` were
        read, is left out. `cash_tracking`: by portfolio."""
        ranges = [_all_of(head.portfolio) for head in heads]
        documents = await self._chunks.find({"$or": ranges}).to_list() if ranges else []
        by_portfolio: dict[str, list[Document]] = {}
        for document in documents:
            by_portfolio.setdefault(document["_id"]["p"], []).append(document)

        def joined_each() -> dict[str, Materialised]:
            found = {}
            for head in heads:
                chosen = _chosen(head, by_portfolio.get(head.portfolio, ()))
                with suppress(Corrupt):
                    if chosen is not None:
                        found[head.portfolio] = _joined(head, chosen, cash_tracking[head.portfolio])
            return found

        return await asyncio.to_thread(joined_each)

    async def load(self, portfolio: str, cash_tracking: bool) -> Stored | None:
        """What is stored, as one; None where nothing is. Raises `Corrupt` when it cannot be read."""
        for _ in range(LOOKS):
            head, documents = await asyncio.gather(self.head(portfolio), self._documents(portfolio))
            if head is None:
                return None
            whole = _chosen(head, documents)
            if whole is not None:
                if sum(len(document["rows"]) for document in whole) < IN_THREAD_FROM:
                    return Stored(head, _joined(head, whole, cash_tracking))
                return Stored(head, await asyncio.to_thread(_joined, head, whole, cash_tracking))
            await asyncio.sleep(0)  # it was being written: the next look sees it whole
        raise Corrupt(f"The stored history of {portfolio} is not what its head says.")

    async def _documents(self, portfolio: str) -> list[Document]:
        return await self._chunks.find(_all_of(portfolio)).to_list()

    async def write(self, portfolio: str, before: StoredHead | None, kept: Materialised, now: float) -> StoredHead:
        """Make `kept` what is stored, where `before` was. What of it is there already is not written again.

        Raises `LedgerMoved` when the ledger or what is stored is not as it was, or the outcome is not known.
        """
        (head,) = await self.write_many([Writing(portfolio, before, kept)], now)
        return head

    async def write_many(self, writings: Sequence[Writing], now: float) -> list[StoredHead]:
        """The same for several portfolios in one transaction: all of them or none."""
        heads = [_head_after(one, now) for one in writings]
        chunks = await asyncio.to_thread(_chunk_operations, writings, heads)
        try:
            async with self._client.start_session() as session, await session.start_transaction():
                await self._claim(session, heads)
                await self._write_heads(session, writings, heads)
                if chunks:
                    await self._chunks.bulk_write(chunks, session=session, ordered=False)
        except PyMongoError as exc:
            raise as_moved(exc) from exc
        return heads

    async def _claim(self, session: Any, heads: Sequence[StoredHead]) -> None:
        """Every ledger has to be where its rows are from; what was doubtful of it no longer is."""
        clean: list[Any] = [
            UpdateOne(
                {"_id": head.portfolio, "generation": head.stamp.generation},
                {"$unset": {"dirtyFrom": ""}, "$set": {"cleanAt": head.stamp.generation}},
            )
            for head in heads
        ]
        claimed = await self._states.bulk_write(clean, session=session, ordered=False)
        if claimed.matched_count != len(heads):
            raise LedgerMoved

    async def _write_heads(self, session: Any, writings: Sequence[Writing], heads: Sequence[StoredHead]) -> None:
        operations: list[Any] = []
        for one, head in zip(writings, heads, strict=True):
            document = _head_document(head)
            if one.before is None:
                operations.append(InsertOne(document))
            else:
                operations.append(ReplaceOne({"_id": head.portfolio, "version": one.before.version}, document))
        written = await self._heads.bulk_write(operations, session=session, ordered=False)
        if written.inserted_count + written.matched_count != len(operations):
            raise LedgerMoved

    async def any(self) -> str | None:
        """The id of a portfolio with stored rows, by chance."""
        found = await (await self._heads.aggregate([{"$sample": {"size": 1}}, {"$project": {"_id": 1}}])).to_list()
        return found[0]["_id"] if found else None

    async def totals(self, today: int) -> Totals:
        """`today`: days since 1970-01-01."""
        days = {"$subtract": [{"$add": ["$through", 1]}, "$start"]}
        group = {
            "_id": None,
            "portfolios": {"$sum": 1},
            "rows": {"$sum": {"$multiply": [days, "$scopes"]}},
            "days": {"$sum": days},
            "due": {"$sum": {"$max": [{"$subtract": [today, "$start"]}, 0]}},
            "first": {"$min": "$start"},
            "last": {"$max": "$through"},
        }
        found = await (await self._heads.aggregate([{"$group": group}])).to_list()
        sums: Document = (
            found[0] if found else {"portfolios": 0, "rows": 0, "days": 0, "due": 0, "first": None, "last": None}
        )
        ledgers = await self._states.count_documents({"places": {"$gt": 0}})
        sizes = [await self._sizes(collection.name) for collection in (self._heads, self._chunks)]
        data, disk = (sum(size) for size in zip(*sizes, strict=True))
        return Totals(
            sums["portfolios"],
            ledgers,
            sums["rows"],
            sums["days"],
            sums["due"],
            sums["first"],
            sums["last"],
            data,
            disk,
        )

    async def _sizes(self, collection: str) -> tuple[int, int]:
        found = await self.database.command("collStats", collection)
        return int(found["size"]), int(found["storageSize"] + found["totalIndexSize"])

    async def drop(self, portfolio: str) -> None:
        """Store nothing of a portfolio any more: what is left behind when it has gone, or cannot be read."""
        async with self._client.start_session() as session, await session.start_transaction():
            await drop_history(self.database, portfolio, session)


async def drop_history(database: AsyncDatabase[Document], portfolio: str, session: Any) -> None:
    """As part of a transaction."""
    await database["history_heads"].delete_one({"_id": portfolio}, session=session)
    await database["history"].delete_many(_all_of(portfolio), session=session)


def _head_after(one: Writing, now: float) -> StoredHead:
    kept, version = one.kept, 1 if one.before is None else one.before.version + 1
    standing = _standing(one.before, kept)
    return StoredHead(
        one.portfolio,
        version,
        kept.stamp,
        kept.start,
        kept.through,
        tuple(standing.get(span) or Chunk(span, version) for span in spans(kept.start, kept.through)),
        kept.history.currency,
        len(kept.history.scopes),
        now,
    )


def _chunk_operations(writings: Sequence[Writing], heads: Sequence[StoredHead]) -> list[Any]:
    operations: list[Any] = []
    for one, head in zip(writings, heads, strict=True):
        for chunk in head.chunks:
            if chunk.version == head.version:
                document = _chunk_document(one.portfolio, one.kept, chunk.span, head.version)
                operations.append(ReplaceOne({"_id": document["_id"]}, document, upsert=True))
        firsts = {chunk.span.first for chunk in head.chunks}
        gone = [] if one.before is None else [old.span.first for old in one.before.chunks]
        operations += [DeleteOne({"_id": _key(one.portfolio, first)}) for first in gone if first not in firsts]
    return operations


def _standing(before: StoredHead | None, kept: Materialised) -> dict[Span, Chunk]:
    """Chunks of `before` that hold what `kept` has of these days."""
    if before is None or kept.stored is None or kept.stored[0] != before.version:
        return {}
    return {chunk.span: chunk for chunk in before.chunks if chunk.span.last <= kept.stored[1]}


def _key(portfolio: str, first: int) -> Document:
    return {"p": portfolio, "c": first}


def _all_of(portfolio: str) -> Document:
    return {"_id": {"$gte": _key(portfolio, -(1 << 40)), "$lte": _key(portfolio, 1 << 40)}}


def _chunk_document(portfolio: str, kept: Materialised, span: Span, version: int) -> Document:
    part = between(kept.history, span.first, span.last)
    rows = pack_rows(with_flows(part), part.estimated)
    point = next(point for point in kept.points if point.day == span.last).pack()
    return {
        "_id": _key(portfolio, span.first),
        "last": span.last,
        "version": version,
        "scopes": [account for account, _ in part.scopes],
        "rows": Binary(rows),
        "point": Binary(point),
        "check": zlib.crc32(point, zlib.crc32(rows)),
    }


def _chosen(head: StoredHead, documents: Iterable[Document]) -> list[Document] | None:
    """Those that `head` names, in order; None where one of them is not there, or of another version."""
    found = {document["_id"]["c"]: document for document in documents}
    chosen = [found.get(chunk.span.first) for chunk in head.chunks]
    whole = [
        document
        for document, chunk in zip(chosen, head.chunks, strict=True)
        if document is not None and document["version"] == chunk.version
    ]
    return whole if len(whole) == len(head.chunks) else None


def _joined(head: StoredHead, documents: Sequence[Document], cash_tracking: bool) -> Materialised:
    parts = [_part(head, document) for document in documents]
    points = tuple(Point(document["last"], bytes(document["point"])) for document in documents)
    stored = head.version, head.through
    return Materialised(head.stamp, joined(parts, cash_tracking), points, head.through, stored)


def _part(head: StoredHead, document: Document) -> History:
    rows, point = bytes(document["rows"]), bytes(document["point"])
    if zlib.crc32(point, zlib.crc32(rows)) != document["check"]:
        raise Corrupt(f"A stored chunk of the history of {head.portfolio} is damaged.")
    first = document["_id"]["c"]
    scopes: tuple[Scope, ...] = tuple((account, None) for account in document["scopes"])
    values, estimated = unpack_rows(rows, len(scopes), document["last"] + 1 - first)
    gross = GrossFlows(first, *values[len(FIELDS) :])
    return History(head.currency, first, scopes, values[: len(FIELDS)], estimated, {}, (), gross)


def _head_document(head: StoredHead) -> Document:
    stamp = head.stamp
    return {
        "_id": head.portfolio,
        "version": head.version,
        "generation": stamp.generation,
        "engine": stamp.engine,
        "rules": [getattr(stamp.rules, name) for name in _RULES],
        "series": [[key, None if facts is None else facts.to_list()] for key, facts in stamp.series.items()],
        "start": head.start,
        "through": head.through,
        "chunks": [[chunk.span.first, chunk.span.last, chunk.version] for chunk in head.chunks],
        "currency": head.currency,
        "scopes": head.scopes,
        "storedAt": head.stored_at,
    }


def _head_of(document: Document) -> StoredHead:
    series = {key: None if plain is None else SeriesFacts.from_list(plain) for key, plain in document["series"]}
    return StoredHead(
        document["_id"],
        document["version"],
        Stamp(document["generation"], document["engine"], Rules(*document["rules"]), series),
        document["start"],
        document["through"],
        tuple(Chunk(Span(first, last), version) for first, last, version in document["chunks"]),
        document["currency"],
        document["scopes"],
        document["storedAt"],
    )
