"""The latest quote of each instrument, kept so that a restart begins with them; and each batch, for other daemons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote

_PLAIN = [f.name for f in fields(Quote) if f.name != "instrument"]


class QuoteStore:
    """The collections `quotes` (one document an instrument) and `quote_batches` (one a batch, gone after an hour).

    Loop-only. `shared_as`: the name under which batches are published to other daemons; None where there are none.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], clock: Clock, *, shared_as: str | None = None) -> None:
        self._quotes = database["quotes"]
        self._batches = database["quote_batches"]
        self._clock = clock
        self._owner = shared_as

    async def save(self, quotes: Iterable[Quote]) -> None:
        """Durable when it returns. An older quote never replaces a newer one, whichever daemon wrote it."""
        documents = [quote_document(quote) for quote in quotes]
        if not documents:
            return
        await self._quotes.bulk_write(
            [
                UpdateOne(
                    {"_id": document["_id"]},
                    [
                        {
                            "$replaceWith": {
                                "$cond": [{"$gt": ["$as_of", document["as_of"]]}, "$$ROOT", {"$literal": document}]
                            }
                        }
                    ],
                    upsert=True,
                )
                for document in documents
            ],
            ordered=False,
        )
        if self._owner is not None:
            await self._batches.insert_one({"at": self._clock.now(), "owner": self._owner, "quotes": documents})

    async def load(self) -> list[Quote]:
        return [quote_from(document) for document in await self._quotes.find({}).to_list()]


def quote_document(quote: Quote) -> dict[str, Any]:
    return {"_id": str(quote.instrument)} | {name: getattr(quote, name) for name in _PLAIN}


def quote_from(document: Mapping[str, Any]) -> Quote:
    symbol, _, market = document["_id"].rpartition(":")
    return Quote(Instrument(symbol, market), **{name: document[name] for name in _PLAIN if name in document})
