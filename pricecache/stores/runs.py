"""The log of job runs: what was asked for, how far it came, and how it ended."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from bson import ObjectId
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.instruments import Instrument
from pricecache.errors import NotFound
from pricecache.stores.leases import is_gone

RunState = Literal["queued", "running", "succeeded", "failed", "interrupted"]
Document = dict[str, Any]

UNFINISHED: tuple[RunState, ...] = ("queued", "running")
FAILURES_KEPT = 1000
TEXT_KEPT = 500
HEARTBEAT_SECONDS = 5.0
_ABANDONED_AFTER_MS = 60_000


def new_run_id() -> str:
    """24 hexadecimal digits that no other run has; later ones are greater."""
    return str(ObjectId())


@dataclass(slots=True)
class Run:
    """One run of a job. Times are seconds since 1970-01-01T00:00Z.

    `requested_by`: `schedule`, `start`, `operator`, `symbols`, ... `parameters`: JSON values. `started_at`: when it
    was asked for, until it starts. `done` of `total` is its progress, `total` None while unknown. `counts`: what it
    did, by name. `failures`: the first 1,000 of `failures_total`, each `{"symbol", "market", "code", "detail"}`; a
    run with failures of single symbols can have succeeded. `error`: why the run as a whole failed or was interrupted.
    `owner`: the daemon that runs it. `version` grows with every save. `kept_until`: when its record goes, if before
    the 30 days of all: nothing in it is worth a look.
    """

    id: str
    job: str
    state: RunState
    requested_by: str
    parameters: dict[str, Any]
    started_at: float
    ended_at: float | None = None
    done: int = 0
    total: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    failures_total: int = 0
    message: str = ""
    error: str | None = None
    owner: str = ""
    version: int = 0
    kept_until: float | None = None

    @property
    def is_finished(self) -> bool:
        return self.state not in UNFINISHED


class RunHandle:
    """What a routine has of its run. Loop-only.

    What it tells is stored at most once a second, and at the end. Once `stopping` is True the routine should return
    soon; with `done` short of `total` the run then counts as interrupted. `failed`: the instruments (or ids of
    portfolios or connections) of which at least one failure was told.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.stopping = False
        self.changed = False
        self.failed: set[Hashable] = set()

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.run.parameters

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        """`total` counts everything that the run has to do with, what fails of it included."""
        self.run.done, self.run.total, self.run.message = done, total, plain_text(message)
        self.changed = True

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of the run's counts; 0 makes it show."""
        self.run.counts[name] = self.run.counts.get(name, 0) + number
        self.changed = True

    def fail(self, instrument: Instrument, code: str, detail: str) -> None:
        """One instrument failed, which does not fail the run."""
        self._fail(instrument, {"symbol": instrument.symbol, "market": instrument.market}, code, detail)

    def fail_portfolio(self, portfolio_id: str, code: str, detail: str) -> None:
        """The same for a portfolio."""
        self._fail(portfolio_id, {"portfolio_id": portfolio_id}, code, detail)

    def fail_connection(self, connection_id: str, code: str, detail: str) -> None:
        """The same for a connection."""
        self._fail(connection_id, {"connection_id": connection_id}, code, detail)

    def _fail(self, who: Hashable, names: dict[str, str], code: str, detail: str) -> None:
        self.failed.add(who)
        self.run.failures_total += 1
        if len(self.run.failures) < FAILURES_KEPT:
            self.run.failures.append({**names, "code": code, "detail": plain_text(detail)})
        self.changed = True


def plain_text(text: str) -> str:
    """At most 500 characters that BSON can hold: a vendor's words may be long, and hold lone surrogates."""
    return text[:TEXT_KEPT].encode("utf-8", "replace").decode()


class RunStore:
    """Runs in MongoDB, kept for 30 days. Loop-only."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._runs = database["runs"]

    async def save(self, run: Run) -> None:
        """Store the run as it is now. An older state that arrives late replaces nothing."""
        run.version += 1
        document = _to_document(run)
        fresh = {"$mergeObjects": [{"$literal": document}, {"heartbeatAt": "$$NOW"}]}
        is_late = {"$gt": [{"$ifNull": ["$version", 0]}, document["version"]]}
        await self._runs.update_one(
            {"_id": run.id}, [{"$replaceWith": {"$cond": [is_late, "$$ROOT", fresh]}}], upsert=True
        )

    async def get(self, run_id: str) -> Run:
        """Raises `NotFound` with code `unknown_run`."""
        document = await self._runs.find_one({"_id": run_id})
        if document is None:
            raise NotFound(
                "There is no such run. Runs are kept for 30 days; GET /cache/runs lists them.", code="unknown_run"
            )
        return _from_document(document)

    async def recent(self, limit: int, job: str | None = None, *, uneventful: bool = True) -> list[Run]:
        """The latest runs, newest first, without their `failures` (`failures_total` says how many there were).

        `uneventful` False leaves out those that are kept for a short time only.
        """
        query: Document = {} if job is None else {"job": job}
        if not uneventful:
            query["keptUntil"] = None
        found = self._runs.find(query, {"failures": 0})
        return [_from_document(document) async for document in found.sort("startedAt", -1).limit(limit)]

    async def interrupt_abandoned(self, owner: str) -> int:
        """End the unfinished runs of daemons that are gone, and count them. `owner`: who asks; its own are left alone.

        Gone is who has not saved a run for a minute by the server's clock, and at once who was a process of this
        machine that no longer exists.
        """
        unfinished = {"state": {"$in": list(UNFINISHED)}, "owner": {"$ne": owner}}
        gone = [other for other in await self._runs.distinct("owner", unfinished) if is_gone(other, owner)]
        is_silent = {"$expr": {"$lt": ["$heartbeatAt", {"$subtract": ["$$NOW", _ABANDONED_AFTER_MS]}]}}
        result = await self._runs.update_many(
            {**unfinished, "$or": [{"owner": {"$in": gone}}, is_silent]},
            [{"$set": {"state": "interrupted", "endedAt": "$heartbeatAt", "error": "The daemon that ran it ended."}}],
        )
        return result.modified_count


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _seconds(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


def _to_document(run: Run) -> Document:
    return {
        "_id": run.id,
        "job": run.job,
        "state": run.state,
        "requestedBy": run.requested_by,
        "parameters": run.parameters,
        "startedAt": _instant(run.started_at),
        "endedAt": _instant(run.ended_at),
        "done": run.done,
        "total": run.total,
        "counts": dict(run.counts),
        "failures": list(run.failures),
        "failuresTotal": run.failures_total,
        "message": run.message,
        "error": run.error,
        "owner": run.owner,
        "version": run.version,
        "keptUntil": _instant(run.kept_until),
    }


def _from_document(document: Document) -> Run:
    return Run(
        id=document["_id"],
        job=document["job"],
        state=document["state"],
        requested_by=document["requestedBy"],
        parameters=document["parameters"],
        started_at=document["startedAt"].timestamp(),
        ended_at=_seconds(document["endedAt"]),
        done=document["done"],
        total=document["total"],
        counts=document["counts"],
        failures=document.get("failures", []),
        failures_total=document["failuresTotal"],
        message=document["message"],
        error=document["error"],
        owner=document["owner"],
        version=document["version"],
    )
