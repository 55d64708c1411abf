"""What brokers said, kept for each connection: a head with its version, and the pieces that belong to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, PyMongoError

from pricecache.core.broker import BrokerData
from pricecache.errors import Corrupt, VersionMismatch
from pricecache.stores.packed_broker_data import pack, unpack

Document = dict[str, Any]

BYTES_IN_ONE = 4 << 20
"""Of a document: well below MongoDB's 16 MB, so that the driver never holds the event loop for long."""
LOOKS = 4
"""How often a reader looks again when what it read was being written."""
_MOVED = ("TransientTransactionError", "UnknownTransactionCommitResult")


class BrokerDataStore:
    """The collection `broker_data`. Loop-only; safe against writers in any process.

    A head has the id of its connection; the documents of its pieces carry its version, and are replaced with it in one
    transaction: who reads a head finds all of its pieces, or by then a later head.
    """

    def __init__(self, database: AsyncDatabase[Document], *, bytes_in_one: int = BYTES_IN_ONE) -> None:
        self._bytes_in_one = bytes_in_one
        self._client = database.client
        self._stored = database["broker_data"]

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
            key = {"connection": connection, "version": head["version"]}
            documents = await self._stored.find(key).sort("number", 1).to_list()
            if len(documents) == head["count"]:
                pieces = [piece for document in documents for piece in document["pieces"]]
                return await asyncio.to_thread(unpack, pieces), int(head["version"])
        raise Corrupt("Pieces of what a broker said are missing.")

    async def save(self, connection: str, data: BrokerData, expected_version: int) -> int:
        """Put `data` in the place of the version that was read, 0 for none; the new version. All of it or nothing.
        Raises `VersionMismatch` when another one stands there by now."""
        pieces = await asyncio.to_thread(pack, data)
        documents = _documents(connection, expected_version + 1, pieces, self._bytes_in_one)
        try:
            async with self._client.start_session() as session, await session.start_transaction():
                await self._move_on(connection, expected_version, len(documents), session)
                await self._stored.delete_many({"connection": connection}, session=session)
                for document in documents:
                    await self._stored.insert_one(document, session=session)
        except PyMongoError as exc:
            if any(map(exc.has_error_label, _MOVED)):
                raise VersionMismatch from exc
            raise
        return expected_version + 1

    async def delete(self, connection: str) -> None:
        await self._stored.delete_many({"$or": [{"_id": connection}, {"connection": connection}]})

    async def _move_on(self, connection: str, expected: int, count: int, session: AsyncClientSession) -> None:
        head = {"_id": connection, "version": expected + 1, "count": count}
        if expected:
            key = {"_id": connection, "version": expected}
            replaced = await self._stored.replace_one(key, head, session=session)
            if not replaced.matched_count:
                raise VersionMismatch
            return
        try:
            await self._stored.insert_one(head, session=session)
        except DuplicateKeyError as exc:
            raise VersionMismatch from exc


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
