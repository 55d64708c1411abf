"""What is told of a reconstruction, as JSON takes it: by the status, and by the stream while it goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pricecache.portfolio.reconstruction_queue import ReconstructionQueue
from pricecache.stores.reconstructions import Failure, ReconstructionRecord, ReconstructionState, ReconstructionStore

MESSAGES: Mapping[ReconstructionState, str] = {
    "queued": "Waiting for its turn",
    "waiting": "Failed, and tried again later",
    "done": "Done",
    "failed": "Failed",
}
"""What is said of one that does not go on."""


def progress_data(record: ReconstructionRecord) -> dict[str, Any]:
    """How far the present attempt has come. `etaSeconds` is null while nobody can tell."""
    progress, last = record.progress, record.last
    return {
        "connectionId": record.connection,
        "portfolioId": record.portfolio,
        "state": record.state,
        "percent": 100 if record.state == "done" else progress.percent,
        "stage": progress.stage if record.state == "running" else record.state,
        "message": MESSAGES.get(record.state, progress.message),
        "security": progress.security if record.state == "running" else None,
        "securitiesDone": progress.done,
        "securitiesTotal": progress.total,
        "etaSeconds": progress.eta_seconds if record.state == "running" else None,
        "attempts": record.attempts,
        "nextAttempt": _instant(record.not_before if record.state == "waiting" else None),
        "error": None if record.state == "done" else _error(record.failure),
        "requestedAt": _instant(record.requested_at),
        "startedAt": _instant(record.started_at),
        "endedAt": _instant(record.ended_at),
        "lastAttempt": None
        if last is None
        else {
            "startedAt": _instant(last.started_at),
            "endedAt": _instant(last.ended_at),
            "error": _error(last.failure),
        },
    }


def _error(failure: Failure | None) -> dict[str, Any] | None:
    return None if failure is None else {"code": failure.code, "detail": failure.detail, "at": _instant(failure.at)}


def progress_event(record: ReconstructionRecord) -> dict[str, Any]:
    """The same as a value of the stream: the latest counts."""
    is_over = record.state in ("done", "failed")
    return {"type": f"reconstruction:{'finished' if is_over else 'progress'}", **progress_data(record)}


def value_key(connection: str) -> str:
    """Under which it is kept among the values of a portfolio."""
    return f"reconstruction:{connection}"


class ReconstructionNews:
    """Tells the stream of what came further: here at once, on other daemons when they have kept it. Loop-only.

    `publish(portfolio_id, values)`: who tells those that listen.
    """

    def __init__(
        self, queue: ReconstructionQueue, publish: Callable[[str, Mapping[str, dict[str, Any]]], object]
    ) -> None:
        self._queue = queue
        self._publish = publish

    def tell(self, record: ReconstructionRecord) -> None:
        if record.portfolio is not None:
            self._publish(record.portfolio, {value_key(record.connection): progress_event(record)})

    async def look(self, connection: str) -> None:
        """Somebody kept how far it has come."""
        if self._queue.is_doing(connection):  # which is told already, and further by now
            return
        record = await self._queue.store.find(connection)
        if record is not None and not self._queue.is_doing(connection):
            self.tell(record)


def unfinished_values(store: ReconstructionStore) -> Callable[[str], Awaitable[dict[str, dict[str, Any]]]]:
    """The values of those of a portfolio that are not done: what a new listener has to be told of them."""

    async def values(portfolio_id: str) -> dict[str, dict[str, Any]]:
        found = await store.unfinished(portfolio_id)
        return {value_key(one.connection): progress_event(one) for one in found}

    return values


def _instant(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
