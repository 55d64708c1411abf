"""Rows of a ledger that are too many for one transaction: committed packed, then put in their places."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import bson
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument
from pymongo import ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

Document = dict[str, Any]

PACKED_FROM = 5000
"""Rows from which on a change is packed: mongod refuses a transaction that does not fit in a part of its cache, and
with the usual half a GiB that is some 45,000 rows."""
ROWS_IN_ONE = 1000
_OPTIONS: CodecOptions[Document] = CodecOptions(tz_aware=True)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows. `are_new`: there is no older version of any of them."""

    rows: bytes
    are_new: bool


def pack(inserted: Iterable[Document], replaced: Iterable[Document]) -> list[Piece]:
    """`ROWS_IN_ONE` to a piece. Blocking."""
    return [
        Piece(zlib.compress(bson.encode({"rows": part}), 1), are_new)
        for rows, are_new in ((inserted, True), (replaced, False))
        for part in _in_parts(rows)
    ]


def _in_parts(documents: Iterable[Document]) -> Iterator[list[Document]]:
    rest = iter(documents)
    while part := list(islice(rest, ROWS_IN_ONE)):
        yield part


def _unpacked(piece: bytes) -> list[Document]:
    rows: list[Document] = bson.decode(zlib.decompress(piece), _OPTIONS)["rows"]
    return rows


def _as_they_stand(piece: bytes) -> list[RawBSONDocument]:
    """Of rows that nothing is to be looked up in."""
    rows: list[RawBSONDocument] = bson.decode(zlib.decompress(piece), DEFAULT_RAW_BSON_OPTIONS)["rows"]
    return rows


class LedgerBatches:
    """The collection `ledger_batches`. Loop-only; safe against writers in any process.

    A row that stands here counts, and counts instead of an older version in `transactions`. Each piece moves there in
    a transaction of its own, so who reads here first and there second misses none. Before a row of a ledger is changed
    its pieces are moved.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._client = database.client
        self._batches = database["ledger_batches"]
        self._transactions = database["transactions"]

    async def insert(self, portfolio: str, pieces: Sequence[Piece], session: AsyncClientSession) -> None:
        """Within the transaction that moves the ledger on."""
        documents = [
            {"_id": ObjectId(), "portfolio": portfolio, "rows": one.rows, "new": one.are_new} for one in pieces
        ]
        await self._batches.insert_many(documents, session=session)

    async def documents(self, portfolio: str) -> list[Document]:
        """The rows that are not in their places yet."""
        found = await self._batches.find({"portfolio": portfolio}).to_list()
        if not found:
            return []
        return await asyncio.to_thread(lambda: [row for one in found for row in _unpacked(one["rows"])])

    async def has_any(self, portfolio: str, session: AsyncClientSession) -> bool:
        return await self._batches.find_one({"portfolio": portfolio}, {"_id": 1}, session=session) is not None

    async def unplaced(self, portfolios: Sequence[str]) -> set[str]:
        """Those that have rows here."""
        return set(await self._batches.distinct("portfolio", {"portfolio": {"$in": list(portfolios)}}))

    async def place(self, portfolio: str) -> None:
        """Put every row in its place. Raises what the database does; what is left is placed by whoever comes next."""
        async for one in self._batches.find({"portfolio": portfolio}, {"_id": 1}).sort("_id", 1):
            async with self._client.start_session() as session, await session.start_transaction():
                piece = await self._batches.find_one_and_delete({"_id": one["_id"]}, session=session)
                if piece is None:  # somebody else has placed it
                    continue
                if piece.get("new"):
                    new = await asyncio.to_thread(_as_they_stand, piece["rows"])
                    await self._transactions.insert_many(new, session=session, ordered=False)
                else:
                    await self._replace(await asyncio.to_thread(_unpacked, piece["rows"]), session)

    async def _replace(self, rows: Sequence[Document], session: AsyncClientSession) -> None:
        for first in range(0, len(rows), ROWS_IN_ONE // 2):
            part = rows[first : first + ROWS_IN_ONE // 2]
            operations = [ReplaceOne({"_id": row["_id"]}, row, upsert=True) for row in part]
            await self._transactions.bulk_write(operations, session=session, ordered=False)

    async def delete(self, portfolio: str, session: AsyncClientSession) -> None:
        await self._batches.delete_many({"portfolio": portfolio}, session=session)


def merged(placed: Iterable[Document], packed: Iterable[Document], after: int | None = None) -> list[Document]:
    """The later version of each row, of days after `after` only, by day and order of entry."""
    rows = {row["_id"]: row for row in packed}
    for row in placed:
        held = rows.get(row["_id"])
        if held is None or held["version"] < row["version"]:
            rows[row["_id"]] = row
    wanted = (row for row in rows.values() if after is None or row["day"] > after)
    return sorted(wanted, key=lambda row: (row["day"], row["place"]))
