"""The queue of reconstructions: one document a connection, claimed by whoever does it, and never forgotten."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import orjson
from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from pricecache.core.walk.footing import WalkFooting
from pricecache.stores.ids import instant_of, new_id
from pricecache.stores.leases import is_gone
from pricecache.stores.ledger import Companion, LedgerMoved

Document = dict[str, Any]
ReconstructionState = Literal["queued", "running", "waiting", "done", "failed"]
STATES: tuple[str, ...] = get_args(ReconstructionState)
ABANDONED_AFTER_MS = 60_000
"""How long who does one may be silent until others take it, by the server's clock."""
CANDIDATES = 50
FINDINGS_KEPT = 10_000


class ClaimLost(Exception):
    """Somebody else does this reconstruction by now, or it is no longer wanted: whoever did it stops."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one has come: `percent` of all of it, in which stage, with which security; `done` of `total` securities;
    `eta_seconds`: until the end, None while nobody can tell."""

    percent: int = 0
    stage: str = "queued"
    message: str = ""
    security: str | None = None
    done: int = 0
    total: int | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last attempt failed. `at`: seconds since 1970 UTC."""

    code: str
    detail: str
    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that is over: from when to when, seconds since 1970 UTC, and why it failed, None where it did not."""

    started_at: float | None
    ended_at: float
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ReconstructionRecord:
    """A connection's reconstruction. Times are seconds since 1970 UTC.

    `waiting` is a failed attempt that is made again at `not_before`. `is_wanted_again`: it was asked for once more
    while it runs. `digest`: what the data is known by that was asked for last, None where nobody knows. `seconds`: what
    the attempts since it was asked for took. `started_at`, `ended_at`, `progress`, `failure`: of the present attempt,
    unknown of one that is queued; `last`: the attempt before it. `is_counted`: what it found in the cache is counted.
    `result`: of the last one that was done, JSON values by snake_case name; `walked`: what it walked by, None where
    that was not kept.
    """

    connection: str
    user: str
    portfolio: str | None
    state: ReconstructionState
    requested_at: float
    queued_at: float
    requested_by: str
    not_before: float | None = None
    attempts: int = 0
    is_wanted_again: bool = False
    digest: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    seconds: float = 0.0
    progress: Progress = field(default_factory=Progress)
    failure: Failure | None = None
    last: Ended | None = None
    is_counted: bool = False
    result: Mapping[str, Any] | None = None
    walked: WalkFooting | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do one, until it is finished, handed back or taken over. `token`: no other claim has it."""

    token: str
    record: ReconstructionRecord
    at: float

    @property
    def connection(self) -> str:
        return self.record.connection


class ReconstructionStore:
    """The collections `reconstructions` and `reconstruction_findings`. Loop-only; safe against any number of daemons.

    Two unique indexes bound what goes on at once, whoever does it: one document a slot, one document a user.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._client = database.client
        self._records = database["reconstructions"]
        self._findings = database["reconstruction_findings"]

    # asking

    async def request(
        self,
        connection: str,
        user: str,
        portfolio: str | None,
        by: str,
        now: float,
        *,
        digest: str | None = None,
        force: bool = False,
    ) -> ReconstructionRecord:
        """Queue it, or join what is queued already, which keeps its place; what waits to be tried again is due at once.
        One that runs is done once more afterwards, unless it was begun for the very same data (`digest`) and `force` is
        not said."""
        is_running = {"$eq": ["$state", "running"]}
        is_queued = {"$eq": ["$state", "queued"]}
        is_same = digest is not None and not force
        same = {"$eq": ["$digest", digest]} if is_same else False
        again = {"$and": [is_running, {"$or": [{"$eq": ["$again", True]}, {"$not": [same]}]}]}
        asked: Document = {
            "user": {"$literal": user},
            "portfolio": {"$literal": portfolio},
            "by": {"$literal": by},
            "requestedAt": instant_of(now),
            "queuedAt": {"$cond": [{"$or": [is_queued, is_running]}, "$queuedAt", instant_of(now)]},
            "state": {"$cond": [is_running, "running", "queued"]},
            "again": again,
            "digest": digest,
            "notBefore": None,
            "attempts": {"$cond": [is_running, "$attempts", 0]},
            "seconds": {"$cond": [is_running, "$seconds", 0.0]},
            "counted": {"$and": [is_running, {"$eq": ["$counted", True]}]},
            "progress": {"$cond": [is_running, "$progress", {"$literal": _progress_fields(Progress())}]},
        }
        for is_last in (False, True):
            try:
                document = await self._records.find_one_and_update(
                    {"_id": connection}, [{"$set": asked}], upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # two asked at once
                if is_last:
                    raise
                continue
            assert document is not None  # an upsert that returns the document after it
            return record_of(document)
        raise AssertionError("unreachable")

    async def find(self, connection: str) -> ReconstructionRecord | None:
        document = await self._records.find_one({"_id": connection})
        return None if document is None else record_of(document)

    async def all_of(self, user: str, portfolio: str | None = None) -> list[ReconstructionRecord]:
        """Of one user, by connection; `portfolio`: only of those whose rows go there."""
        key: Document = {"user": user} if portfolio is None else {"user": user, "portfolio": portfolio}
        return [record_of(found) for found in await self._records.find(key).sort("_id", 1).to_list()]

    async def unfinished(self, portfolio: str) -> list[ReconstructionRecord]:
        """Of one portfolio, those that are not done."""
        found = await self._records.find({"portfolio": portfolio, "state": {"$ne": "done"}}).sort("_id", 1).to_list()
        return [record_of(one) for one in found]

    async def walked(self) -> AsyncIterator[ReconstructionRecord]:
        """All of which it is known what they walked by."""
        async for found in self._records.find({"walked.series": {"$exists": True}}):
            yield record_of(found)

    async def walked_by(self, series: int, since: int | None) -> AsyncIterator[ReconstructionRecord]:
        """Those that go without the prices of a series, and with `since` (days since 1970-01-01) those that were told
        of it and walked to that day or later."""
        ways: list[Document] = [{"walked.awaited": series}]
        if since is not None:
            ways.append({"walked.series": series, "walked.last": {"$gte": since}})
        async for found in self._records.find({"$or": ways}):
            yield record_of(found)

    async def awaited(self) -> list[int]:
        """The series that some go without the prices of."""
        return await self._records.distinct("walked.awaited", {"walked.awaited": {"$exists": True}})

    async def place(self, record: ReconstructionRecord) -> int | None:
        """How many users' turn comes before or at this one's, from 1 on; None when it does not wait in the queue."""
        if record.state != "queued":
            return None
        ahead = {"state": "queued", "queuedAt": {"$lt": instant_of(record.queued_at)}, "user": {"$ne": record.user}}
        return len(await self._records.distinct("user", ahead)) + 1

    async def counts(self) -> dict[str, int]:
        """How many there are in each state."""
        found = await (await self._records.aggregate([{"$group": {"_id": "$state", "n": {"$sum": 1}}}])).to_list()
        return dict.fromkeys(STATES, 0) | {one["_id"]: one["n"] for one in found}

    async def pending(self) -> int:
        """How many are queued, or wait to be tried again."""
        return await self._records.count_documents({"state": {"$in": ["queued", "waiting"]}})

    async def users(self) -> int:
        """How many users have had one asked for."""
        found = self._records.aggregate([{"$group": {"_id": "$user"}}, {"$count": "n"}])
        documents = await (await found).to_list()
        return int(documents[0]["n"]) if documents else 0

    async def forget(self, connection: str) -> None:
        """Its connection is no more: whoever does it stops. Idempotent."""
        await self._records.delete_one({"_id": connection})
        await self._findings.delete_one({"_id": connection})

    # doing

    async def claim(self, slot: int, owner: str, now: float) -> Claim | None:
        """Take the one whose turn it is into a slot: of the users that nothing is done for now, who waits longest.

        None when nothing is due, or somebody else has the slot.
        """
        found = self._records.find(_due(now), {"user": 1, "queuedAt": 1}).sort([("queuedAt", 1), ("_id", 1)])
        first, running = await asyncio.gather(
            anext(found, None), self._records.distinct("running", {"running": {"$exists": True}})
        )
        if first is None:
            return None
        busy, tried = set(running), 0
        async for one in _after(first, found):
            if one["user"] in busy:
                continue
            if (claimed := await self._claim(one, slot, owner, now)) is not None:
                return claimed
            tried += 1
            if tried >= CANDIDATES or await self._records.find_one({"slot": slot}, {"_id": 1}) is not None:
                return None
        return None

    async def _claim(self, one: Document, slot: int, owner: str, now: float) -> Claim | None:
        token = new_id()
        taken: Document = {
            "state": "running",
            "running": {"$literal": one["user"]},
            "slot": slot,
            "claim": token,
            "owner": {"$literal": owner},
            "heartbeatAt": "$$NOW",
            "last": {
                "$cond": [
                    {"$ifNull": ["$endedAt", False]},
                    {"startedAt": "$startedAt", "endedAt": "$endedAt", "failure": "$failure"},
                    {"$ifNull": ["$last", None]},
                ]
            },
            "startedAt": instant_of(now),
            "endedAt": None,
            "failure": None,
            "again": False,
            "attempts": {"$add": [{"$ifNull": ["$attempts", 0]}, 1]},
            "progress": {"$literal": _progress_fields(Progress(stage="reading", message="Begun"))},
        }
        due = {"_id": one["_id"], **_due(now)}  # still: it may have been tried meanwhile, and wait for another time now
        try:
            document = await self._records.find_one_and_update(
                due, [{"$set": taken}], return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:  # the slot is taken, or somebody does something for this user
            return None
        return None if document is None else Claim(token, record_of(document), now)

    async def beat(self, claim: Claim, progress: Progress | None = None) -> None:
        """Say that it is still being done, and how far it has come. Raises `ClaimLost`."""
        told: Document = {"heartbeatAt": "$$NOW"}
        if progress is not None:
            told["progress"] = {"$literal": _progress_fields(progress)}
        result = await self._records.update_one(_key(claim), [{"$set": told}])
        if not result.matched_count:
            raise ClaimLost

    async def go_into(self, claim: Claim, portfolio: str) -> None:
        """Its rows go into this portfolio. Raises `ClaimLost`."""
        told = {"$set": {"portfolio": portfolio}}
        if not (await self._records.update_one(_key(claim), told)).matched_count:
            raise ClaimLost

    def holding(self, claim: Claim) -> Companion:
        """Makes a change of a ledger fail unless the claim still stands when it is committed: raises `LedgerMoved`
        then, and whoever plans anew asks `beat` first."""

        async def write(session: AsyncClientSession) -> None:
            result = await self._records.update_one(_key(claim), [{"$set": {"heartbeatAt": "$$NOW"}}], session=session)
            if not result.matched_count:
                raise LedgerMoved

        return write

    async def finish(
        self,
        claim: Claim,
        result: Mapping[str, Any],
        findings: Sequence[Mapping[str, Any]],
        now: float,
        walked: WalkFooting | None = None,
    ) -> ReconstructionRecord:
        """It is done, with its findings, in one step; what was asked for meanwhile is queued again. Raises
        `ClaimLost`."""
        packed = await asyncio.to_thread(lambda: zlib.compress(orjson.dumps(list(findings[:FINDINGS_KEPT])), 1))
        kept = {"_id": claim.connection, "total": len(findings), "findings": packed}
        progress = _progress_fields(Progress(100, "done", "Done", None, *_counts(result)))
        told: Document = {"result": {"$literal": dict(result)}, "progress": {"$literal": progress}, "failure": None}
        told["walked"] = {"$literal": None if walked is None else _walked_fields(walked)}

        async def work(session: AsyncClientSession) -> ReconstructionRecord:
            record = await self._end(claim, "done", now, told, session)
            await self._findings.replace_one({"_id": claim.connection}, kept, upsert=True, session=session)
            return record

        async with self._client.start_session() as session:  # who reads that it is done reads what was found, too
            return await session.with_transaction(work)

    async def fail(
        self, claim: Claim, failure: Failure, not_before: float | None, *, is_counted: bool = False
    ) -> ReconstructionRecord:
        """The attempt failed: it is made again at `not_before` (seconds since 1970 UTC), or never by itself.
        `is_counted`: what it found in the cache is counted, and not again of the next attempt."""
        told: Document = {
            **({"counted": True} if is_counted else {}),
            "failure": {"$literal": {"code": failure.code, "detail": failure.detail, "at": instant_of(failure.at)}},
        }
        if not_before is None:
            return await self._end(claim, "failed", failure.at, told)
        when = {"notBefore": instant_of(not_before), "queuedAt": instant_of(not_before)}
        return await self._end(claim, "waiting", failure.at, {**told, **when})

    async def hand_back(self, claim: Claim, now: float) -> None:
        """It was begun and is not done, for no fault of its own: whoever comes next does it."""
        told = {"attempts": {"$max": [0, {"$subtract": ["$attempts", 1]}]}}
        await self._records.update_one(_key(claim), _ended("queued", now, claim.at, told))

    async def _end(
        self,
        claim: Claim,
        state: ReconstructionState,
        now: float,
        told: Document,
        session: AsyncClientSession | None = None,
    ) -> ReconstructionRecord:
        document = await self._records.find_one_and_update(
            _key(claim), _ended(state, now, claim.at, told), return_document=ReturnDocument.AFTER, session=session
        )
        if document is None:
            raise ClaimLost
        return record_of(document)

    async def reap(self, owner: str, now: float, most_attempts: int) -> int:
        """Give back what was begun by daemons that are gone, or that nobody speaks of any more, and count it. One that
        was begun `most_attempts` times and never ended is given up: it may be what ends them. `owner`: who asks."""
        running: Document = {"state": "running"}
        gone = [other for other in await self._records.distinct("owner", running) if is_gone(other, owner)]
        is_silent = {"$expr": {"$lt": ["$heartbeatAt", {"$subtract": ["$$NOW", ABANDONED_AFTER_MS]}]}}
        left = {**running, "$or": [{"owner": {"$in": gone}}, is_silent]}
        why = {
            "code": "reconstruction_abandoned",
            "detail": "Whoever began it ended, each time.",
            "at": instant_of(now),
        }
        given_up = await self._records.update_many(
            {**left, "attempts": {"$gte": most_attempts}}, _ended("failed", now, now, {"failure": {"$literal": why}})
        )
        back = await self._records.update_many(left, _ended("queued", now, now, {}))
        return given_up.modified_count + back.modified_count

    async def next_due(self) -> float | None:
        """When the next of those that wait to be tried again is due, seconds since 1970 UTC."""
        one = await self._records.find_one({"state": "waiting"}, {"notBefore": 1}, sort=[("notBefore", 1)])
        return None if one is None else one["notBefore"].timestamp()

    async def findings(self, connection: str, first: int, count: int) -> tuple[int, list[Document]]:
        """How many the last one had, and `count` of them from number `first` (from 0) on."""
        document = await self._findings.find_one({"_id": connection})
        if document is None:
            return 0, []
        kept = orjson.loads(zlib.decompress(document["findings"]))
        return document["total"], kept[first : first + count]


async def _after(first: Document, rest: AsyncIterator[Document]) -> AsyncIterator[Document]:
    yield first
    async for one in rest:
        yield one


def _due(now: float) -> Document:
    return {"$or": [{"state": "queued"}, {"state": "waiting", "notBefore": {"$lte": instant_of(now)}}]}


def _key(claim: Claim) -> Document:
    return {"_id": claim.connection, "claim": claim.token, "state": "running"}


def _ended(state: str, now: float, began: float, told: Document) -> list[Document]:
    """One that runs becomes `state`, or is queued again where it was asked for meanwhile."""
    again = {"$eq": ["$again", True]}
    fields = {
        "state": {"$cond": [again, "queued", state]},
        "queuedAt": {"$cond": [again, "$requestedAt", told.get("queuedAt", "$queuedAt")]},
        "attempts": {"$cond": [again, 0, told.get("attempts", "$attempts")]},
        "endedAt": instant_of(now),
        "seconds": {"$add": [{"$ifNull": ["$seconds", 0.0]}, max(0.0, now - began)]},
        "again": False,
        "counted": {"$and": [{"$not": [again]}, told.get("counted", {"$eq": ["$counted", True]})]},
    }
    return [{"$set": {**told, **fields}}, {"$unset": ["running", "slot", "claim", "owner"]}]


def _counts(result: Mapping[str, Any]) -> tuple[int, int | None]:
    securities = result.get("securities") or {}
    total = securities.get("total")
    return total or 0, total


def _progress_fields(progress: Progress) -> Document:
    return {
        "percent": progress.percent,
        "stage": progress.stage,
        "message": progress.message,
        "security": progress.security,
        "done": progress.done,
        "total": progress.total,
        "eta": progress.eta_seconds,
    }


def record_of(document: Mapping[str, Any]) -> ReconstructionRecord:
    """A document of `reconstructions` as a value."""
    get = document.get
    is_queued = document["state"] == "queued"
    over = _ended_from(document) if get("endedAt") is not None else None
    return ReconstructionRecord(
        connection=document["_id"],
        user=document["user"],
        portfolio=document["portfolio"],
        state=document["state"],
        requested_at=document["requestedAt"].timestamp(),
        queued_at=document["queuedAt"].timestamp(),
        requested_by=document["by"],
        not_before=_seconds(get("notBefore")),
        attempts=get("attempts") or 0,
        is_wanted_again=bool(get("again")),
        digest=get("digest"),
        started_at=None if is_queued else _seconds(get("startedAt")),
        ended_at=None if is_queued else _seconds(get("endedAt")),
        seconds=get("seconds") or 0.0,
        progress=Progress() if is_queued else _progress_from(get("progress") or {}),
        failure=None if is_queued else _failure_from(get("failure")),
        is_counted=bool(get("counted")),
        last=over if is_queued else _ended_from(get("last")),
        result=get("result"),
        walked=None if get("walked") is None else _walked_from(document["walked"]),
    )


def _progress_from(fields: Mapping[str, Any]) -> Progress:
    get = fields.get
    return Progress(
        get("percent", 0),
        get("stage", "queued"),
        get("message", ""),
        get("security"),
        get("done", 0),
        get("total"),
        get("eta"),
    )


def _failure_from(fields: Mapping[str, Any] | None) -> Failure | None:
    return None if fields is None else Failure(fields["code"], fields["detail"], fields["at"].timestamp())


def _ended_from(fields: Mapping[str, Any] | None) -> Ended | None:
    if fields is None:
        return None
    failure = _failure_from(fields.get("failure"))
    return Ended(_seconds(fields.get("startedAt")), fields["endedAt"].timestamp(), failure)


def _walked_fields(walked: WalkFooting) -> Document:
    """What is awaited stands there only where something is, so that the index has only that."""
    ratios = {str(series): [list(one) for one in found] for series, found in walked.ratios.items()}
    fields = {"first": walked.first_day, "last": walked.last_day, "series": sorted(walked.series), "ratios": ratios}
    return {**fields, "awaited": sorted(walked.awaited)} if walked.awaited else fields


def _walked_from(fields: Mapping[str, Any]) -> WalkFooting:
    ratios = {int(series): tuple((day, value) for day, value in found) for series, found in fields["ratios"].items()}
    facts = (frozenset(fields["series"]), ratios, frozenset(fields.get("awaited", ())))
    return WalkFooting(fields["first"], fields["last"], *facts)


def _seconds(instant: Any) -> float | None:
    return None if instant is None else float(instant.timestamp())
