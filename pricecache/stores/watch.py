"""Hears what other daemons on the same database wrote, and brings the catalog and the live cache up to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.quotes import Quote
from pricecache.core.stream_events import StreamEvent
from pricecache.errors import Corrupt
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.quotes import QuoteStore, quote_from
from pricecache.stores.stream_events import events_of

log = structlog.get_logger(__name__)

_WATCHED = (
    *("series", "actions", "sync_state", "instruments", "quote_batches"),
    *("portfolios", "ledger_state", "stream_events", "reconstructions"),
)
RETRY_SECONDS = 1.0


class ChangeWatcher:
    """One change stream over the small collections. Loop-only.

    An event is a hint: what it names is read again from the database. The catalog and the `heads` of portfolios are
    trusted only while the stream is open, and everything is loaded anew each time that it opens. What others committed
    is announced by `bars` to its subscribers. `owner`: this daemon, whose own batches of quotes and stream events
    are passed over. `on_quotes` is given what others published, `on_stream_events` what others' changes of portfolios
    told, `on_portfolio` the id of each portfolio that changed or whose ledger did, whoever changed it,
    `on_reconstruction` the connection of each that came further, whoever does it,
    `on_portfolio_created` owner and id of each that is new, `on_portfolio_deleted` the id of each that is no more;
    `on_reopened` is called after each opening: what happened before it may have gone unseen.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        catalog: Catalog,
        instruments: InstrumentStore,
        bars: BarStore,
        quotes: QuoteStore,
        owner: str,
        on_quotes: Callable[[Sequence[Quote]], object],
        clock: Clock,
        heads: PortfolioHeads,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._instruments = instruments
        self._bars = bars
        self._quotes = quotes
        self._heads = heads
        self._owner = owner
        self._on_quotes = on_quotes
        self._clock = clock
        self.on_stream_events: Callable[[str, Sequence[StreamEvent]], object] = lambda portfolio_id, events: None
        self.on_portfolio: Callable[[str], object] = lambda portfolio_id: None
        self.on_portfolio_created: Callable[[str, str], object] = lambda owner, portfolio_id: None
        self.on_portfolio_deleted: Callable[[str], object] = lambda portfolio_id: None
        self.on_reconstruction: Callable[[str], Awaitable[object]] = _unheard
        self.on_reopened: Callable[[], object] = lambda: None
        self._handlers: Mapping[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "series": self._on_series,
            "actions": self._on_series,
            "sync_state": self._on_state,
            "instruments": self._on_instrument,
            "quote_batches": self._on_batch,
            "portfolios": self._on_portfolio_itself,
            "ledger_state": self._on_portfolio,
            "stream_events": self._on_events,
            "reconstructions": self._on_reconstruction,
        }

    async def run(self, started: Callable[[], object] = lambda: None) -> None:
        """Follow the stream until cancelled. `started` is called each time that nothing can go unseen any more."""
        self._trust(False)
        down = False
        while True:
            try:
                await self._follow(started)
                down = False
            except Exception as exc:  # whatever ends it, the stream is opened again: unseen changes are the harm
                tell = log.debug if down else log.warning
                tell("change stream lost", error=f"{type(exc).__name__}: {exc}"[:300])
                down = True
            finally:
                self._trust(False)
            await self._clock.sleep(RETRY_SECONDS)

    async def _follow(self, started: Callable[[], object]) -> None:
        pipeline = [{"$match": {"ns.coll": {"$in": list(_WATCHED)}}}]
        async with await self._database.watch(pipeline, max_await_time_ms=1000) as stream:
            self._bars.announcer.begin(self._catalog)
            await self._instruments.load_all()
            await self._bars.announcer.catch_up(self._catalog)
            self._on_quotes(await self._quotes.load())
            self._trust(True)
            started()
            self.on_reopened()
            while stream.alive:
                event = await stream.try_next()
                if event is None:
                    await asyncio.sleep(0)
                elif "documentKey" in event:
                    await self._handlers[event["ns"]["coll"]](event)

    def _trust(self, is_followed: bool) -> None:
        self._heads.forget_all()
        self._catalog.trusted = self._heads.trusted = is_followed

    async def _on_series(self, event: dict[str, Any]) -> None:
        entry = self._catalog.by_id(event["documentKey"]["_id"])
        rev = event.get("updateDescription", {}).get("updatedFields", {}).get("rev")
        if entry is None:
            return
        if rev is None or rev > entry.head.rev:
            await self._refresh(entry)
        else:
            await self._bars.announcer.catch_up([entry])

    async def _refresh(self, entry: Entry) -> None:
        with suppress(Corrupt):  # it is doubted from here on: whoever reads it is told, and the others are followed on
            await self._bars.refresh([entry])

    async def _on_state(self, event: dict[str, Any]) -> None:
        entry = self._catalog.by_id(event["documentKey"]["_id"])
        version = (event.get("fullDocument") or {}).get("version")
        if entry is None or version is None or version > entry.state_version:
            await self._instruments.load([event["documentKey"]["_id"]])

    async def _on_instrument(self, event: dict[str, Any]) -> None:
        await self._instruments.load([event["documentKey"]["_id"]])

    async def _on_batch(self, event: dict[str, Any]) -> None:
        batch = event.get("fullDocument") or {}
        if batch.get("owner") not in (None, self._owner):
            self._on_quotes([quote_from(document) for document in batch["quotes"]])

    async def _on_portfolio_itself(self, event: dict[str, Any]) -> None:
        await self._on_portfolio(event)
        portfolio_id, document = event["documentKey"]["_id"], event.get("fullDocument")
        if event["operationType"] == "insert" and document is not None:
            self.on_portfolio_created(document["owner"], portfolio_id)
        elif event["operationType"] == "delete":
            self.on_portfolio_deleted(portfolio_id)

    async def _on_portfolio(self, event: dict[str, Any]) -> None:
        changed = event.get("updateDescription", {}).get("updatedFields", {})
        if changed.keys() != {"events"}:  # an order that is no transaction yet leaves the ledger as it was
            self._heads.forget(event["documentKey"]["_id"])
            self.on_portfolio(event["documentKey"]["_id"])

    async def _on_reconstruction(self, event: dict[str, Any]) -> None:
        changed = event.get("updateDescription", {}).get("updatedFields", {})
        if changed.keys() != {"heartbeatAt"} and event["operationType"] != "delete":
            await self.on_reconstruction(event["documentKey"]["_id"])

    async def _on_events(self, event: dict[str, Any]) -> None:
        document = event.get("fullDocument")
        if event["operationType"] == "insert" and document is not None and document["owner"] != self._owner:
            self.on_stream_events(document["portfolio"], events_of(document))


async def _unheard(connection: str) -> None:
    pass
