"""How the daemon is: whether the database answers, whether what has to go on goes on, how much is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pymongo
import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache.background import BackgroundTasks
from pricecache.clock import Clock

log = structlog.get_logger(__name__)

PING_SECONDS = 2.0
STORAGE_SECONDS = 10.0


class Health:
    """What `/readyz` and `/cache/status` say of the daemon as a whole. Loop-only.

    `is_scheduling`: whether jobs run by their schedule. The database counts as answering until a ping shows that it
    does not.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        clock: Clock,
        background: BackgroundTasks,
        is_scheduling: Callable[[], bool],
    ) -> None:
        self._database = database
        self._clock = clock
        self._background = background
        self._is_scheduling = is_scheduling
        self._answers = True
        self._storage: tuple[float, Mapping[str, Any]] = (float("-inf"), {})

    @property
    def is_ready(self) -> bool:
        return all(state == "ok" for state in self.checks().values())

    def checks(self) -> Mapping[str, str]:
        """What readiness depends on, by name: `ok`, or what is wrong."""
        return {
            "mongodb": "ok" if self._answers else "does not answer",
            "scheduler": "ok" if self._is_scheduling() else "starting",
            **self._background.checks(),
        }

    async def keep_pinging(self) -> None:
        """Keep knowing whether the database answers."""
        while True:
            await self._ping()
            await self._clock.sleep(PING_SECONDS)

    async def _ping(self) -> None:
        try:
            with pymongo.timeout(PING_SECONDS):
                await self._database.command("ping")
            answers = True
        except PyMongoError:
            answers = False
        if answers and not self._answers:
            log.info("database answers again")
        elif self._answers and not answers:
            log.warning("database does not answer")
        self._answers = answers

    async def storage(self) -> Mapping[str, Any]:
        """Sizes of the database, at most ten seconds old. Raises what the driver raises."""
        now = self._clock.monotonic()
        if now - self._storage[0] > STORAGE_SECONDS:
            self._storage = now, _sizes(await self._database.command("dbStats"))
        return self._storage[1]


def _sizes(stats: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "data_bytes": int(stats["dataSize"]),
        "disk_bytes": int(stats["storageSize"] + stats["indexSize"]),
        "documents": int(stats["objects"]),
    }
