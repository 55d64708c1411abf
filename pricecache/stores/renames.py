"""A change of symbol: the instrument, and whatever stood in the way, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.catalog import Alias
from pricecache.core.instruments import Instrument
from pricecache.errors import Conflict


class Renamer:
    """Moves instruments to other symbols. Loop-only; safe beside any number of other daemons."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._client = database.client
        self._instruments = database["instruments"]
        self._series = database["series"]
        self._states = database["sync_state"]
        self._quotes = database["quotes"]

    async def move(
        self, series_id: int, before: Instrument, after: Instrument, aliases: Sequence[Alias] | None = None
    ) -> int | None:
        """Give `before` the symbol of `after`, and `aliases` unless None. An instrument of that name which holds
        nothing is forgotten; its id is returned.

        Raises `Conflict` with code `symbol_taken` when that one holds bars or actions, and `conflict` when `before`
        has another symbol by now. Then nothing is changed.
        """

        async def work(session: AsyncClientSession) -> int | None:
            return await self._move(session, series_id, before, after, aliases)

        async with self._client.start_session() as session:
            return await session.with_transaction(work)

    async def _move(
        self,
        session: AsyncClientSession,
        series_id: int,
        before: Instrument,
        after: Instrument,
        aliases: Sequence[Alias] | None,
    ) -> int | None:
        gone = await self._make_room(session, series_id, after)
        change: dict[str, Any] = {"symbol": after.symbol, "market": after.market}
        if aliases is not None:
            change["aliases"] = [alias_fields(alias) for alias in aliases]
        named = {"_id": series_id, "symbol": before.symbol, "market": before.market}
        if not (await self._instruments.update_one(named, {"$set": change}, session=session)).matched_count:
            raise Conflict(f"{before} was renamed meanwhile. Look at it and try again.")
        return gone

    async def _make_room(self, session: AsyncClientSession, series_id: int, name: Instrument) -> int | None:
        named = {"symbol": name.symbol, "market": name.market, "_id": {"$ne": series_id}}
        other = await self._instruments.find_one(named, session=session)
        if other is None:
            return None
        key = {"_id": other["_id"]}
        head = await self._series.find_one(key, session=session)
        if head is not None and (head.get("rev") or head.get("tail")):
            raise Conflict(
                f"{name} is another instrument here, and has a history of its own.",
                code="symbol_taken",
                symbol=name.symbol,
                market=name.market,
            )
        for collection in (self._series, self._states, self._quotes, self._instruments):
            # a first commit of it that is under way then finds no head to move on, or this finds its bars
            await collection.delete_one(key, session=session)
        return int(other["_id"])


def alias_fields(alias: Alias) -> dict[str, Any]:
    return {"symbol": alias.symbol, "market": alias.market, "since": alias.since, "until": alias.until}


def alias_from(fields: dict[str, Any]) -> Alias:
    return Alias(fields["symbol"], fields["market"], fields.get("since"), fields.get("until"))
