"""Whose portfolios are tracked live, kept so that a restart goes on with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock


@dataclass(frozen=True, slots=True)
class TrackedUser:
    """`since`: seconds since 1970 UTC; `by`: who asked for it."""

    user: str
    since: float
    by: str


class TrackedUserStore:
    """The collection `tracked_users`: one document a user. Loop-only."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], clock: Clock) -> None:
        self._users = database["tracked_users"]
        self._clock = clock

    async def start(self, user: str, by: str) -> bool:
        """Whether it was not tracked before. Durable when it returns."""
        fields = {"since": self._clock.now(), "by": by}
        done = await self._users.update_one({"_id": user}, {"$setOnInsert": fields}, upsert=True)
        return done.upserted_id is not None

    async def stop(self, user: str) -> bool:
        """Whether it was tracked before."""
        return bool((await self._users.delete_one({"_id": user})).deleted_count)

    async def get(self, user: str) -> TrackedUser | None:
        document = await self._users.find_one({"_id": user})
        return None if document is None else _tracked(document)

    async def all(self) -> list[TrackedUser]:
        """By the user's id."""
        return [_tracked(document) for document in await self._users.find().sort("_id", 1).to_list()]


def _tracked(document: dict[str, Any]) -> TrackedUser:
    return TrackedUser(document["_id"], document["since"].timestamp(), document["by"])
