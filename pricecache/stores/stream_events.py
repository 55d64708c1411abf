"""Durable events of portfolios: written with the change they tell of, read again from any number on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pymongo import ASCENDING, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from pricecache.core.stream_events import EventsPage, StreamEvent
from pricecache.stores.ids import instant_of, new_id

Document = dict[str, Any]

DAYS_KEPT = 30
MOST_READ = 10_000
"""Events of one page."""


class StreamEventStore:
    """The collection `stream_events`, where all events of one change are one document. Loop-only; safe against writers
    in any process.

    Their numbers come from `ledger_state`, which is moved on in the same transaction. `owner`: this daemon.
    `keep_days`: how long what is written from now on is kept.
    """

    def __init__(self, database: AsyncDatabase[Document], owner: str = "", keep_days: float = DAYS_KEPT) -> None:
        self._events = database["stream_events"]
        self._states = database["ledger_state"]
        self._settings = database["settings"]
        self._owner = owner
        self._keep = timedelta(days=keep_days)
        self._epoch: str | None = None

    async def insert(
        self, portfolio: str, change: str, events: Sequence[StreamEvent], session: AsyncClientSession
    ) -> None:
        """Within the transaction that gave them their numbers. `change`: an id that no other change has."""
        at = instant_of(events[0].at)
        document = {
            "_id": change,
            "portfolio": portfolio,
            "first": events[0].seq,
            "last": events[-1].seq,
            "at": at,
            "expiresAt": at + self._keep,
            "owner": self._owner,
            "events": [{"type": one.type, "data": one.data} for one in events],
        }
        await self._events.insert_one(document, session=session)

    async def of_change(self, change: str) -> tuple[StreamEvent, ...]:
        """What the change of this id told, nothing when it was never made."""
        document = await self._events.find_one({"_id": change})
        return () if document is None else events_of(document)

    async def last(self, portfolio: str) -> int:
        """The number of the portfolio's last event, 0 for none."""
        state = await self._states.find_one({"_id": portfolio}, {"events": 1})
        return 0 if state is None else state.get("events", 0)

    async def after(self, portfolio: str, seq: int, limit: int = MOST_READ) -> EventsPage:
        """The next `limit` events with numbers above `seq`; none of them when some before them are not kept any more.

        Whatever was committed before this was called is in it.
        """
        epoch, last = await self.epoch(), await self.last(portfolio)
        oldest, events = await self._oldest(portfolio, last), list[StreamEvent]()
        found = self._events.find({"portfolio": portfolio, "last": {"$gt": seq}}).sort("last", ASCENDING)
        async for document in found.limit(limit):
            expected = events[-1].seq + 1 if events else max(seq + 1, oldest)
            if document["first"] > expected:  # expired out of turn: the setting was another one meanwhile
                oldest, events = document["first"], []
            events += [one for one in events_of(document) if one.seq > seq]
            if len(events) >= limit:
                break
        kept = tuple(events[:limit]) if oldest <= seq + 1 else ()
        return EventsPage(epoch, max([last, *(one.seq for one in kept[-1:])]), oldest, kept)

    async def _oldest(self, portfolio: str, last: int) -> int:
        first = await self._events.find_one({"portfolio": portfolio}, {"first": 1}, sort=[("last", ASCENDING)])
        return last + 1 if first is None else int(first["first"])

    async def epoch(self) -> str:
        """The same text for as long as this database goes on, on every daemon."""
        if self._epoch is None:
            try:
                document = await self._made_epoch()
            except DuplicateKeyError:  # two made it at once
                document = await self._made_epoch()
            self._epoch = document["value"]
        return self._epoch

    async def _made_epoch(self) -> Document:
        document = await self._settings.find_one_and_update(
            {"_id": "epoch"},
            {"$setOnInsert": {"value": new_id()}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert document is not None  # an upsert that returns the document after it
        return document


def events_of(document: Document) -> tuple[StreamEvent, ...]:
    """A document of `stream_events` as values."""
    at = document["at"].timestamp()
    return tuple(
        StreamEvent(seq, one["type"], at, one["data"]) for seq, one in enumerate(document["events"], document["first"])
    )
