"""What brokers said, kept for each connection: a head with its version, and the pieces that belong to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from cachetools import FIFOCache
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, PyMongoError

from pricecache.core.broker.data import BrokerData
from pricecache.errors import Corrupt, VersionMismatch
from pricecache.garbage import young_only
from pricecache.stores.client import DUPLICATE_KEY
from pricecache.stores.ids import new_id
from pricecache.stores.ledger import Companion
from pricecache.stores.packed_broker_data import pack, unpack

Document = dict[str, Any]

BYTES_IN_ONE = 4 << 20
"""Of a document: well below MongoDB's 16 MB, so that the driver never holds the event loop for long."""
ROWS_KEPT = 20_000
"""Transactions of what was saved here last and nobody has read yet that stay in memory, all connections together."""
MANY_BYTES = 64 << 10
"""Of pieces: those of some 3,000 transactions."""
LOOKS = 4
"""How often a reader looks again when what it read was being written."""
_MOVED = ("TransientTransactionError", "UnknownTransactionCommitResult")


class BrokerDataStore:
    """The collection `broker_data`. Loop-only; safe against writers in any process.

    A head has the id of its connection; the documents of its pieces carry its version, and are replaced with it in one
    transaction: who reads a head finds all of its pieces, or by then a later head. Every save has an id of its own, by
    which what was saved here is known again: who reads it first here gets the very values.
    """

    def __init__(self, database: AsyncDatabase[Document], *, bytes_in_one: int = BYTES_IN_ONE) -> None:
        self._bytes_in_one = bytes_in_one
        self._client = database.client
        self._stored = database["broker_data"]
        self._saved: FIFOCache[str, tuple[str, BrokerData]] = FIFOCache(ROWS_KEPT, getsizeof=_rows_of)

    async def version(self, connection: str) -> int:
        """0 where nothing is stored."""
        head = await self._stored.find_one({"_id": connection}, {"version": 1})
        return 0 if head is None else int(head["version"])

    async def load(self, connection: str) -> tuple[BrokerData, int] | None:
        """What is stored and its version; None where nothing is. Raises `Corrupt` when it cannot be read."""
        for _ in range(LOOKS):
            head = await self._stored.find_one({"_id": connection})
            if head is None:
                return None
            saved, data = self._saved.pop(connection, (None, None))
            if data is not None and saved == head.get("save"):
                return data, int(head["version"])
            key = {"connection": connection, "version": head["version"]}
            documents = await self._stored.find(key).sort("number", 1).to_list()
            if len(documents) == head["count"]:
                pieces = [piece for document in documents for piece in document["pieces"]]
                # many rows are left out of later looks for garbage, each of which would hold up the loop
                with young_only() if sum(map(len, pieces)) >= MANY_BYTES else nullcontext():
                    return await asyncio.to_thread(unpack, pieces), int(head["version"])
        raise Corrupt("Pieces of what a broker said are missing.")

    async def save(
        self, connection: str, data: BrokerData, expected_version: int, companion: Companion | None = None
    ) -> int:
        """Put `data` in the place of the version that was read, 0 for none; the new version. All of it or nothing, and
        so what `companion` writes. Raises `VersionMismatch` when another one stands there by now."""
        pieces, save = await asyncio.to_thread(pack, data), new_id()
        documents = _documents(connection, expected_version + 1, pieces, self._bytes_in_one)
        head = {"_id": connection, "version": expected_version + 1, "count": len(documents), "save": save}
        self._saved.pop(connection, None)
        try:
            async with self._client.start_session() as session, await session.start_transaction():
                if expected_version:
                    await self._replace_head(head, expected_version, session)
                    await self._stored.delete_many({"connection": connection}, session=session)
                else:
                    documents.insert(0, head)
                for some in _together(documents, self._bytes_in_one):
                    await self._stored.insert_many(some, session=session)
                if companion is not None:
                    await companion(session)
        except PyMongoError as exc:
            if any(map(exc.has_error_label, _MOVED)) or (not expected_version and _is_duplicate(exc)):
                raise VersionMismatch from exc
            raise
        with suppress(ValueError):  # more rows than are kept
            self._saved[connection] = save, data
        return expected_version + 1

    async def delete(self, connection: str) -> None:
        await self._stored.delete_many({"$or": [{"_id": connection}, {"connection": connection}]})

    async def _replace_head(self, head: Document, expected: int, session: AsyncClientSession) -> None:
        key = {"_id": head["_id"], "version": expected}
        if not (await self._stored.replace_one(key, head, session=session)).matched_count:
            raise VersionMismatch


def _rows_of(saved: tuple[str, BrokerData]) -> int:
    return len(saved[1].transactions) + 1


def _is_duplicate(exc: PyMongoError) -> bool:
    return isinstance(exc, BulkWriteError) and any(one["code"] == DUPLICATE_KEY for one in exc.details["writeErrors"])


def _together(documents: Sequence[Document], most: int) -> Iterator[list[Document]]:
    """Portions of so many bytes of pieces, or of one document."""
    part: list[Document] = []
    size = 0
    for document in documents:
        own = sum(map(len, document.get("pieces", ())))
        if part and size + own > most:
            yield part
            part, size = [], 0
        part.append(document)
        size += own
    yield part


def _documents(connection: str, version: int, pieces: Sequence[bytes], most: int) -> list[Document]:
    documents: list[Document] = []
    size = most
    for piece in pieces:
        if size + len(piece) > most:
            number = len(documents)
            key = f"{connection}/{version}/{number}"
            documents.append({"_id": key, "connection": connection, "version": version, "number": number, "pieces": []})
            size = 0
        documents[-1]["pieces"].append(piece)
        size += len(piece)
    return documents
