"""The ledgers of portfolios: their transactions, exact, and the one document that every change of a ledger moves on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, ReplaceOne, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.portfolios import LedgerState
from pricecache.core.stream_events import StreamEvent, numbered
from pricecache.errors import Unavailable
from pricecache.stores.client import DUPLICATE_KEY, WRITE_CONFLICT
from pricecache.stores.ids import instant_of
from pricecache.stores.ledger_batches import PACKED_FROM, LedgerBatches, Piece, merged, pack
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.stream_events import StreamEventStore

Document = dict[str, Any]
Companion = Callable[[AsyncClientSession], Awaitable[None]]
"""Writes something else within the transaction of a change; raises `LedgerMoved` when that is not as it was."""

RACES = 40
"""How often a change is planned anew when other writers are faster."""
ROWS_AT_ONCE = 500
"""Rows that are decoded, or encoded, before the event loop gets its turn."""
ENCODED_HERE = 100
"""New rows up to which they are encoded at once, which is sooner than in a thread."""
ENCODED_AT_ONCE = 2000
"""Rows that are sent in one message once they are encoded, which is a copy of some bytes."""
_OPTIONAL_NAMES = (
    "series", "currency", "account", "toAccount", "exDate", "acquiredOn", "adjustedAsOf", "link", "externalId", "note",
)  # fmt: skip
_OPTIONAL = attrgetter("to_account", "ex_date", "acquired_on", "adjusted_as_of", "link", "external_id", "note")
_AMOUNT_NAMES = ("fxRate", "quantity", "price", "amount", "fees", "taxes", "ratio")
_AMOUNTS_OF = attrgetter("fx_rate", "quantity", "price", "amount", "fees", "taxes", "ratio")


class LedgerMoved(Exception):
    """Another writer changed the ledger between reading and writing it: plan anew from what it is now."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stored transaction. `series`: the id of its instrument, which outlives a renaming; `place`: the order of
    entry, which a row keeps when it is changed. Times are seconds since 1970 UTC."""

    transaction: Transaction
    series: int | None
    place: int
    version: int
    created_at: float
    updated_at: float

    @property
    def id(self) -> str:
        return self.transaction.id


@dataclass(frozen=True, slots=True)
class LedgerChange:
    """Rows to put in, to put in the place of those with the same id, and to take out; `affected_from`: the first day
    whose history may be another afterwards, None where none is.

    `events`: what it tells, not numbered yet, kept under `id`, which no other change has. `companions`: what else is
    written with it, or not at all. `corrects`: it changes what had been before.
    """

    inserted: Sequence[Row] = ()
    replaced: Sequence[Row] = ()
    deleted: Sequence[Row] = ()
    affected_from: int | None = None
    events: Sequence[StreamEvent] = ()
    companions: Sequence[Companion] = ()
    id: str = ""
    corrects: bool = False

    @property
    def has_rows(self) -> bool:
        return bool(self.inserted or self.replaced or self.deleted)

    @property
    def is_empty(self) -> bool:
        return not (self.has_rows or self.events or self.companions)


@dataclass(frozen=True, slots=True)
class Committed:
    """Where a ledger stands after a change, and the change's events with their numbers."""

    state: LedgerState
    events: tuple[StreamEvent, ...]


class LedgerStore:
    """The collections `transactions` and `ledger_state`. Loop-only; safe against writers in any process. A change of
    very many rows goes by way of `ledger_batches`.

    Who asks has made sure that the portfolio is theirs.
    """

    def __init__(
        self, database: AsyncDatabase[Document], heads: PortfolioHeads, events: StreamEventStore | None = None
    ) -> None:
        self._client = database.client
        self._heads = heads
        self.events = events or StreamEventStore(database)
        self._transactions = database["transactions"]
        self._states = database["ledger_state"]
        self._batches = LedgerBatches(database)

    async def state(self, portfolio: str) -> LedgerState | None:
        """None when there is no such portfolio any more."""
        kept = self._heads.state(portfolio)
        return kept if kept is not None else await self.stored_state(portfolio)

    async def stored_state(self, portfolio: str) -> LedgerState | None:
        """What the database says, whatever is known already."""
        ticket = self._heads.ticket
        document = await self._states.find_one({"_id": portfolio})
        if document is None:
            return None
        state = state_of(document)
        self._heads.keep_state(portfolio, state, ticket)
        return state

    async def states(self, portfolios: Sequence[str]) -> dict[str, LedgerState]:
        """Of these portfolios, as they are in the database."""
        ticket = self._heads.ticket
        documents = await self._states.find({"_id": {"$in": list(portfolios)}}).to_list()
        found = {document["_id"]: state_of(document) for document in documents}
        for portfolio, state in found.items():
            self._heads.keep_state(portfolio, state, ticket)
        return found

    async def rows(self, portfolio: str, after: int | None = None) -> list[Row]:
        """Every row, or those of days after `after`, by day and order of entry."""
        packed = await self._batches.documents(portfolio)
        key: Document = {"portfolio": portfolio} if after is None else {"portfolio": portfolio, "day": {"$gt": after}}
        found = self._transactions.find(key, batch_size=ROWS_AT_ONCE)
        documents = await found.sort([("day", 1), ("place", 1)]).to_list()
        if packed:
            documents = await asyncio.to_thread(merged, documents, packed, after)
        if len(documents) <= ROWS_AT_ONCE:
            return [row_of(document) for document in documents]
        return await asyncio.to_thread(_rows_of, documents)

    async def rows_of(self, portfolios: Sequence[str]) -> dict[str, list[Row]]:
        """Every row of each of these portfolios, with one query; those with rows that are not in their places yet are
        left out."""
        packed = await self._batches.unplaced(portfolios)  # before the rows, as in `rows`
        rows: dict[str, list[Row]] = {portfolio: [] for portfolio in portfolios if portfolio not in packed}
        found = self._transactions.find({"portfolio": {"$in": list(rows)}}, batch_size=ROWS_AT_ONCE)
        documents = await found.sort([("portfolio", 1), ("day", 1), ("place", 1)]).to_list()

        def decoded() -> None:
            for document in documents:
                rows[document["portfolio"]].append(row_of(document))

        if len(documents) <= ROWS_AT_ONCE:
            decoded()
        else:
            await asyncio.to_thread(decoded)
        return rows

    async def commit(self, portfolio: str, base: LedgerState, change: LedgerChange) -> Committed:
        """Make all of `change` durable in one transaction, if the ledger is still at `base`; where it stands then.

        Raises `LedgerMoved` when it is not, or when the outcome is not known: whoever plans anew looks for the ids of
        his rows first. Raises `Unavailable` when the database stays away, and what the server refuses for good.
        """
        places = len(change.inserted)
        pieces, encoded = list[Piece](), list[RawBSONDocument]()
        if len(change.inserted) + len(change.replaced) >= PACKED_FROM:
            new, others = (map(partial(_document, portfolio), rows) for rows in (change.inserted, change.replaced))
            pieces = await asyncio.to_thread(pack, new, others)
            change = replace(change, inserted=(), replaced=())
        elif len(change.inserted) > ENCODED_HERE:
            encoded = await asyncio.to_thread(_encoded, portfolio, change.inserted)
            change = replace(change, inserted=())
        ticket = self._heads.ticket
        with self._heads.changing(portfolio):
            try:
                if base.places:  # else there never was a row
                    await self._batches.place(portfolio)
                async with self._client.start_session() as session, await session.start_transaction():
                    last = await move_on(self._states, session, portfolio, base.generation, change.affected_from,
                                         places=places, events=len(change.events),
                                         corrects=change.corrects)  # fmt: skip
                    # before the rows: what others write there all the time is then held for as long as those take
                    for write in change.companions:
                        await write(session)
                    for first in range(0, len(encoded), ENCODED_AT_ONCE):
                        some = encoded[first : first + ENCODED_AT_ONCE]
                        await self._transactions.insert_many(some, session=session, ordered=False)
                    for part in _operations(portfolio, change):
                        await self._transactions.bulk_write(part, session=session, ordered=False)
                    if pieces:
                        await self._batches.insert(portfolio, pieces, session)
                    events = await self._write_events(portfolio, change, last, session)
            except PyMongoError as exc:
                raise as_moved(exc) from exc
        state = base.moved(change.affected_from, places, corrects=change.corrects)
        self._heads.keep_state(portfolio, state, ticket + 1)  # but for the end of this change nothing may have moved
        if pieces:
            with suppress(PyMongoError):  # they are stored, and count where they are; the next writer places them
                await self._batches.place(portfolio)
        return Committed(state, events)

    async def commit_beside(self, portfolio: str, change: LedgerChange) -> tuple[StreamEvent, ...]:
        """The same for a change without rows, whatever the ledger is at: it and its histories stay as they are. The
        events with their numbers."""
        try:
            async with self._client.start_session() as session, await session.start_transaction():
                last = await count_events(self._states, session, portfolio, len(change.events))
                events = await self._write_events(portfolio, change, last, session)
                for write in change.companions:
                    await write(session)
                return events
        except PyMongoError as exc:
            raise as_moved(exc) from exc

    async def _write_events(
        self, portfolio: str, change: LedgerChange, last: int, session: AsyncClientSession
    ) -> tuple[StreamEvent, ...]:
        events = numbered(change.events, last)
        if events:
            await self.events.insert(portfolio, change.id, events, session)
        return events

    async def doubt(self, portfolio: str, day: int) -> None:
        """Let what was computed of `day` and the days after it be computed again. Raises `LedgerMoved` as `commit`
        does, also when the portfolio is gone."""
        with self._heads.changing(portfolio):
            try:
                async with self._client.start_session() as session, await session.start_transaction():
                    await move_on(self._states, session, portfolio, None, day)
            except PyMongoError as exc:
                raise as_moved(exc) from exc


def _rows_of(documents: list[Document]) -> list[Row]:
    """Gives each document back as soon as it is read: all at once would hold up the loop."""
    documents.reverse()
    rows = []
    while documents:
        rows.append(row_of(documents.pop()))
    return rows


async def move_on(
    states: Any, session: AsyncClientSession, portfolio: str, generation: int | None, day: int | None, *,
    places: int = 0, events: int = 0, corrects: bool = False,
) -> int:  # fmt: skip
    """One step of a ledger's state within a transaction: the compare-and-set that every writer passes through.

    `generation`: what it has to be at, None: at any. `day`: the first day that is doubtful from now on, or None. The
    number of the last of the portfolio's events, `events` of which are new. `corrects`: what had been is another now.
    It counts as `unseen` until its next snapshot is taken.
    """
    key = {"_id": portfolio} if generation is None else {"_id": portfolio, "generation": generation}
    update: Document = {"$inc": {"generation": 1, "places": places, "events": events}, "$set": {"unseen": True}}
    if corrects:
        update["$inc"]["corrections"] = 1
    if day is not None:
        update["$min"] = {"dirtyFrom": day}
    return await _moved(states, session, key, update)


async def count_events(states: Any, session: AsyncClientSession, portfolio: str, events: int) -> int:
    """Numbers for so many events, within a transaction that leaves the ledger as it is; the last of them."""
    return await _moved(states, session, {"_id": portfolio}, {"$inc": {"events": events}})


async def _moved(states: Any, session: AsyncClientSession, key: Document, update: Document) -> int:
    after = await states.find_one_and_update(
        key, update, {"events": 1}, return_document=ReturnDocument.AFTER, session=session
    )
    if after is None:
        raise LedgerMoved
    return int(after["events"])


def as_moved(error: PyMongoError) -> Exception:
    """What to raise for an error of a transaction: `LedgerMoved` where trying again helps, else the error itself."""
    if not isinstance(error, OperationFailure):
        return LedgerMoved()
    if any(map(error.has_error_label, ("TransientTransactionError", "UnknownTransactionCommitResult"))):
        return LedgerMoved()
    codes = {error.code} | {fault["code"] for fault in (error.details or {}).get("writeErrors", ())}
    return LedgerMoved() if codes & {DUPLICATE_KEY, WRITE_CONFLICT} else error


def gave_up() -> Unavailable:
    """After too many attempts."""
    return Unavailable("Too many writers on one portfolio, or the database does not answer.", code="ledger_busy")


def _encoded(portfolio: str, rows: Sequence[Row]) -> list[RawBSONDocument]:
    return [RawBSONDocument(bson.encode(_document(portfolio, row))) for row in rows]


def _operations(portfolio: str, change: LedgerChange) -> Iterator[list[Any]]:
    """In portions that are encoded without holding up the event loop."""
    operations: Iterator[Any] = chain(
        (InsertOne(_document(portfolio, row)) for row in change.inserted),
        (ReplaceOne({"_id": row.id}, _document(portfolio, row)) for row in change.replaced),
        (DeleteOne({"_id": row.id}) for row in change.deleted),
    )
    while part := list(islice(operations, ROWS_AT_ONCE)):
        yield part


def state_of(document: Document) -> LedgerState:
    """A document of `ledger_state` as a value."""
    return LedgerState(
        document["generation"],
        document.get("dirtyFrom"),
        document["places"],
        document.get("cleanAt", 0),
        document.get("corrections", 0),
    )


def _document(portfolio: str, row: Row) -> Document:
    one, created_at = row.transaction, instant_of(row.created_at)
    document: Document = {"_id": one.id, "portfolio": portfolio, "day": one.day, "place": row.place, "type": one.type}
    if one.instrument is not None:
        document["symbol"], document["market"] = one.instrument
    optional = (row.series, one.currency, one.account or None, *_OPTIONAL(one))
    document.update([(name, value) for name, value in zip(_OPTIONAL_NAMES, optional, strict=True) if value is not None])
    for name, amount in zip(_AMOUNT_NAMES, _AMOUNTS_OF(one), strict=True):
        if amount is not None:
            document[name] = str(amount)
    document["version"], document["createdAt"] = row.version, created_at
    document["updatedAt"] = created_at if row.updated_at == row.created_at else instant_of(row.updated_at)
    return document


def row_of(document: Document) -> Row:
    """The inverse of what is stored, exactly."""
    get = document.get
    symbol = get("symbol")
    transaction = Transaction(
        document["day"],
        document["type"],
        None if symbol is None else Instrument(symbol, document["market"]),
        quantity=_exact(get("quantity")),
        price=_exact(get("price")),
        amount=_exact(get("amount")),
        fees=_exact(get("fees")) or ZERO,
        taxes=_exact(get("taxes")) or ZERO,
        currency=get("currency"),
        fx_rate=_exact(get("fxRate")),
        account=get("account") or "",
        to_account=get("toAccount"),
        ratio=_exact(get("ratio")),
        ex_date=get("exDate"),
        acquired_on=get("acquiredOn"),
        adjusted_as_of=get("adjustedAsOf"),
        link=get("link"),
        external_id=get("externalId"),
        note=get("note"),
        id=document["_id"],
    )
    times = document["createdAt"].timestamp(), document["updatedAt"].timestamp()
    return Row(transaction, get("series"), document["place"], document["version"], *times)


def _exact(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
