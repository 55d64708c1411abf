"""How reconstructions fare and what they cost, from what was counted: nothing here is assumed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pricecache.clock import Clock
from pricecache.stores.reconstruction_days import ReconstructionDays
from pricecache.stores.reconstructions import ReconstructionStore

SuccessRate = Callable[[int], Awaitable[float | None]]
_NONE_ENDED = "No reconstruction has ended in this time."


async def _nothing_captured(days: int) -> float | None:
    return None


class ReconstructionMetrics:
    """Loop-only. `dollars`: what providers have cost so far. `snapshots`: percent of the snapshots due in so many days
    that were captured, None where none was due."""

    def __init__(
        self, store: ReconstructionStore, days: ReconstructionDays, clock: Clock, dollars: Callable[[], float]
    ) -> None:
        self._store = store
        self._days = days
        self._clock = clock
        self._dollars = dollars
        self.snapshots: SuccessRate = _nothing_captured

    async def __call__(self, days: int) -> dict[str, Any]:
        """By snake_case name, rates in percent; what was not measured is None, with its reason under `reasons`."""
        totals = await self._days.totals(self._clock.time(), days)
        users, counts = await self._store.users(), await self._store.counts()
        dollars, captured = self._dollars(), await self.snapshots(days)
        values: dict[str, Any] = {
            "total_users": users,
            "reconstruction_queue_size": counts["queued"] + counts["waiting"],
            "reconstruction_success_rate": totals.success_rate,
            "average_processing_time_seconds": totals.average_seconds,
            "daily_snapshot_success_rate": captured,
            "api_cost_per_user": None if not users else dollars / users,
            "cache_hit_rate": totals.cache_hit_rate,
        }
        reasons = {
            "reconstruction_success_rate": _NONE_ENDED,
            "average_processing_time_seconds": _NONE_ENDED.replace("ended", "been done"),
            "daily_snapshot_success_rate": "No snapshot was due in this time, or none was ever captured.",
            "api_cost_per_user": "Nobody has asked for a reconstruction yet.",
            "cache_hit_rate": "No reconstruction has needed prices in this time.",
        }
        return {
            **{name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()},
            "reconstructions_running": counts["running"],
            "reconstructions_waiting": counts["waiting"],
            "reconstructions_done": totals.done,
            "reconstructions_failed": totals.failed,
            "attempts_retried": totals.retried,
            "api_cost_total": round(dollars, 6),
            "days": days,
            "reasons": {name: why for name, why in reasons.items() if values[name] is None},
        }
