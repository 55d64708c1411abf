"""The latest quote of each instrument, kept so that a restart begins with them, and told to other daemons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from pymongo import DeleteOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote

QUOTES_AT_ONCE = 100
"""Quotes of one write, and of one batch: the driver encodes them while the event loop waits."""

_PLAIN = [f.name for f in fields(Quote) if f.name not in ("instrument", "series")]
_BY_SERIES = {"_id": {"$type": "number"}}


class QuoteStore:
    """The collections `quotes` (one document an instrument, under the id of its series, as its symbol may change and
    become another's; the symbol in it is the one it was published under) and `quote_batches` (what each daemon saved
    last, in portions of `QUOTES_AT_ONCE`, gone after an hour). Others follow the changes of the latter, which bring
    every batch whole though the next one replaces it; kept side by side, a stream's would be a hundred megabytes an
    hour.

    Loop-only. `shared_as`: the name under which batches are published to other daemons; None where there are none.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], clock: Clock, *, shared_as: str | None = None) -> None:
        self._quotes = database["quotes"]
        self._batches = database["quote_batches"]
        self._clock = clock
        self._owner = shared_as

    async def save(self, quotes: Iterable[Quote]) -> None:
        """Durable when it returns. An older quote never replaces a newer one, whichever daemon wrote it. Each has its
        `series`."""
        waiting = list(quotes)
        for i in range(0, len(waiting), QUOTES_AT_ONCE):
            documents = [quote_document(quote) for quote in waiting[i : i + QUOTES_AT_ONCE]]
            await self._quotes.bulk_write([_unless_newer(one) for one in documents], ordered=False)
            if self._owner is not None:
                batch = {"at": self._clock.now(), "owner": self._owner, "quotes": documents}
                await self._batches.replace_one({"_id": f"{self._owner}/{i // QUOTES_AT_ONCE}"}, batch, upsert=True)

    async def load(self) -> list[Quote]:
        return [quote_from(document) for document in await self._quotes.find(_BY_SERIES).to_list()]

    async def adopt(self, series_of: Callable[[Instrument], int | None]) -> None:
        """Put what an earlier release stored by symbol under the id of its series, once; what has none is dropped."""
        documents = await self._quotes.find({"_id": {"$type": "string"}}).to_list()
        writes: list[UpdateOne | DeleteOne] = []
        for document in documents:
            quote = quote_from(document)
            if (series := series_of(quote.instrument)) is not None:
                writes.append(_unless_newer(quote_document(replace(quote, series=series))))
        writes += [DeleteOne({"_id": document["_id"]}) for document in documents]
        if writes:
            await self._quotes.bulk_write(writes)


def _unless_newer(document: dict[str, Any]) -> UpdateOne:
    kept = {"$cond": [{"$gt": ["$as_of", document["as_of"]]}, "$$ROOT", {"$literal": document}]}
    return UpdateOne({"_id": document["_id"]}, [{"$replaceWith": kept}], upsert=True)


def quote_document(quote: Quote) -> dict[str, Any]:
    assert quote.series is not None, "a quote that was not published belongs to nothing"
    values = {name: getattr(quote, name) for name in _PLAIN}
    return {"_id": quote.series, "instrument": str(quote.instrument)} | values


def quote_from(document: Mapping[str, Any]) -> Quote:
    """Of an earlier release's document, `series` is None."""
    by_symbol = isinstance(document["_id"], str)
    symbol, _, market = (document["_id"] if by_symbol else document["instrument"]).rpartition(":")
    values = {name: document[name] for name in _PLAIN if name in document}
    return Quote(Instrument(symbol, market), **values, series=None if by_symbol else document["_id"])
