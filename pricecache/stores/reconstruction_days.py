"""What reconstructions came to, counted by day, so that their metrics are true after a restart and on any daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from pricecache.core.bars import DAY_SECONDS

COUNTS = ("done", "failed", "retried", "securities_needed", "securities_cached", "transactions")


@dataclass(frozen=True, slots=True)
class ReconstructionTotals:
    """Of some days: reconstructions `done` and `failed` for good, attempts `retried`, and what those done took together
    in seconds; the distinct instruments of providers that each request needed, as its first attempt found them, and
    those of them whose prices were here already."""

    done: int = 0
    failed: int = 0
    retried: int = 0
    seconds: float = 0.0
    securities_needed: int = 0
    securities_cached: int = 0
    transactions: int = 0

    @property
    def success_rate(self) -> float | None:
        """Percent of those that ended; None without any."""
        ended = self.done + self.failed
        return None if not ended else 100.0 * self.done / ended

    @property
    def average_seconds(self) -> float | None:
        return None if not self.done else self.seconds / self.done

    @property
    def cache_hit_rate(self) -> float | None:
        """Percent."""
        return None if not self.securities_needed else 100.0 * self.securities_cached / self.securities_needed


class ReconstructionDays:
    """The collection `reconstruction_days`: one document a UTC day. Loop-only; safe against writers in any process."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._days = database["reconstruction_days"]

    async def count(self, now: float, *, seconds: float = 0.0, **counts: int) -> None:
        """Add to today's, which is that of instant `now`."""
        update = {"$inc": {**counts, "seconds": seconds}}
        try:
            await self._days.update_one({"_id": int(now // DAY_SECONDS)}, update, upsert=True)
        except DuplicateKeyError:  # two were the first of the day
            await self._days.update_one({"_id": int(now // DAY_SECONDS)}, update)

    async def totals(self, now: float, days: int) -> ReconstructionTotals:
        """Of the last `days` days, today among them."""
        sums: dict[str, Any] = {name: {"$sum": f"${name}"} for name in (*COUNTS, "seconds")}
        first = {"_id": {"$gt": int(now // DAY_SECONDS) - days}}
        pipeline: list[dict[str, Any]] = [{"$match": first}, {"$group": {"_id": None, **sums}}, {"$unset": "_id"}]
        found = await (await self._days.aggregate(pipeline)).to_list()
        return ReconstructionTotals(**found[0]) if found else ReconstructionTotals()
