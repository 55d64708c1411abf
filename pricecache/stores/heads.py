"""Brings entries up to what is committed of their series: heads, tails, splits and dividends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.catalog import Entry
from pricecache.errors import Corrupt
from pricecache.stores.announcing import Announcer
from pricecache.stores.commits import pause
from pricecache.stores.series import apply_head

HEAD_READINGS = 4
"""Readings in a row that contradict an unmoved head before a series counts as corrupt, not as just being changed."""


class Heads:
    """Reads heads and actions, each pair of one revision. Loop-only."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], announcer: Announcer) -> None:
        self._series = database["series"]
        self._actions = database["actions"]
        self._announcer = announcer

    async def refresh(self, entries: Sequence[Entry]) -> None:
        """Bring the heads, tails and actions of `entries` up to what is committed now.

        Raises `Corrupt` for a single one whose actions are not those its head names; of several, such a one is left
        doubted.
        """
        waiting = await self.follow(entries)
        if waiting and len(entries) == 1:
            raise Corrupt(
                f"{entries[0].instrument}: Its splits and dividends are not those its head names. "
                "Run `pricecache doctor --verify --rebuild`.",
                series=entries[0].id,
            )

    async def follow(self, entries: Sequence[Entry]) -> list[Entry]:
        """Refresh, and give back those whose head and actions stay apart, however often they are read."""
        self._announcer.begin(entries)
        waiting = list(entries)
        for attempt in range(HEAD_READINGS):
            by_id = {entry.id: entry for entry in waiting}
            query = {"_id": {"$in": list(by_id)}}
            heads = await self._series.find(query).to_list()
            actions = {document["_id"]: document for document in await self._actions.find(query).to_list()}
            waiting = [
                by_id[head["_id"]]
                for head in heads
                if not apply_head(by_id[head["_id"]], head, actions.get(head["_id"]))
            ]
            if not waiting:
                break
            await pause(attempt)
        await self._announcer.catch_up(entries)
        return waiting
