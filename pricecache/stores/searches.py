"""What providers answered to searches, kept for a day, so that typing a name costs few calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock
from pricecache.core.asking import Found
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.instruments import Instrument
from pricecache.core.markets import MARKETS

KEPT_SECONDS = float(DAY_SECONDS)


class SearchStore:
    """The collection `searches`: one document for each text and set of providers. Loop-only."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], clock: Clock) -> None:
        self._searches = database["searches"]
        self._clock = clock

    async def get(self, text: str, providers: str) -> list[Found] | None:
        """What was found a day ago at most; None when that is not known."""
        kept = await self._searches.find_one({"_id": {"text": text, "providers": providers}})
        if kept is None or kept["at"].timestamp() < self._clock.time() - KEPT_SECONDS:
            return None
        return [_found_from(fields) for fields in kept["found"] if fields["market"] in MARKETS]

    async def put(self, text: str, providers: str, found: Sequence[Found]) -> None:
        key = {"_id": {"text": text, "providers": providers}}
        document = key | {"at": self._clock.now(), "found": [_found_fields(one) for one in found]}
        await self._searches.replace_one(key, document, upsert=True)


def _found_fields(found: Found) -> dict[str, Any]:
    return {
        "symbol": found.instrument.symbol,
        "market": found.instrument.market,
        "name": found.name,
        "kind": found.kind,
        "currency": found.currency,
        "source": found.source,
    }


def _found_from(fields: dict[str, Any]) -> Found:
    instrument = Instrument(fields["symbol"], fields["market"])
    return Found(instrument, fields["name"], fields["kind"], fields["currency"], fields["source"])
