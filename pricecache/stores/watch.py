"""Hears what other daemons on the same database wrote, and brings the catalog and the live cache up to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.core.catalog import Catalog
from pricecache.core.quotes import Quote
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quotes import quote_from

log = structlog.get_logger(__name__)

_WATCHED = ("series", "actions", "sync_state", "instruments", "quote_batches")
RETRY_SECONDS = 1.0


class ChangeWatcher:
    """One change stream over the small collections. Loop-only.

    An event is a hint: what it names is read again from the database. While the stream is down the catalog is not
    trusted, and before it is trusted again everything is loaded anew.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        catalog: Catalog,
        instruments: InstrumentStore,
        bars: BarStore,
        owner: str,
        on_quotes: Callable[[list[Quote]], None],
        clock: Clock,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._instruments = instruments
        self._bars = bars
        self._owner = owner
        self._on_quotes = on_quotes
        self._clock = clock

    async def run(self, started: Callable[[], None]) -> None:
        """Follow the stream until cancelled. `started` is called when nothing can go unseen any more."""
        down = False
        while True:
            try:
                await self._follow(started)
            except PyMongoError as exc:
                self._catalog.trusted = False
                if not down:
                    log.warning("change stream lost", error=str(exc))
                down = True
            await self._clock.sleep(RETRY_SECONDS)

    async def _follow(self, started: Callable[[], None]) -> None:
        pipeline = [{"$match": {"ns.coll": {"$in": list(_WATCHED)}}}]
        async with await self._database.watch(pipeline, max_await_time_ms=1000) as stream:
            await self._instruments.load_all()
            self._catalog.trusted = True
            started()
            handlers: Mapping[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
                "series": self._on_series,
                "actions": self._on_series,
                "sync_state": self._on_instrument,
                "instruments": self._on_instrument,
                "quote_batches": self._on_batch,
            }
            while stream.alive:
                event = await stream.try_next()
                if event is None:
                    await asyncio.sleep(0)
                elif "documentKey" in event:
                    await handlers[event["ns"]["coll"]](event)

    async def _on_series(self, event: dict[str, Any]) -> None:
        entry = self._catalog.by_id(event["documentKey"]["_id"])
        rev = event.get("updateDescription", {}).get("updatedFields", {}).get("rev")
        if entry is not None and (rev is None or rev > entry.head.rev):
            await self._bars.refresh([entry])

    async def _on_instrument(self, event: dict[str, Any]) -> None:
        await self._instruments.load(event["documentKey"]["_id"])

    async def _on_batch(self, event: dict[str, Any]) -> None:
        batch = event.get("fullDocument") or {}
        if batch.get("owner") not in (None, self._owner):
            self._on_quotes([quote_from(document) for document in batch["quotes"]])
