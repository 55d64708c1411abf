"""What was refused or waits for a person: bars and whole answers that were not stored, in the collection `quarantine`.

An item is one fault of one kind on one session of one series; seeing it again only counts it up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite, isnan
from typing import Any, Literal

from pymongo import DESCENDING, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.bars import DAY_SECONDS
from pricecache.core.instruments import Instrument
from pricecache.core.text import plain_text

ItemKind = Literal["bar", "answer"]
ItemState = Literal["parked", "rejected", "approving", "approved", "dropped", "resolved"]
OPEN: tuple[ItemState, ...] = ("parked", "rejected")
UNSETTLED: tuple[ItemState, ...] = (*OPEN, "approving")
"""What a person may have to do something about: with an approval that was begun and not carried through."""
KEPT_SECONDS = 90.0 * DAY_SECONDS
"""How long what was rejected or resolved is kept; what is parked or was decided stays."""
MOST_REJECTED = 10_000
MOST_REJECTED_OF_AN_ANSWER = 200
LISTED = 200


@dataclass(frozen=True, slots=True)
class Observation:
    """One fault as an answer showed it. `session`: days since 1970-01-01, None for a whole answer.

    `bar`: open, high, low, close, volume as traded, or None; `ratio`, `suggestion`: of a whole answer whose prices
    are off by one ratio.
    """

    code: str
    detail: str
    source: str
    state: Literal["parked", "rejected"]
    session: int | None = None
    bar: tuple[float, ...] | None = None
    ratio: float | None = None
    suggestion: Mapping[str, Any] | None = None

    @property
    def kind(self) -> ItemKind:
        return "answer" if self.session is None else "bar"


@dataclass(frozen=True, slots=True)
class Item:
    """One fault as it is kept. Instants are seconds since 1970 UTC; `series`: the instrument's id. `ex_date`: of the
    split that an approval is putting in, days since 1970-01-01."""

    id: str
    series: int
    instrument: Instrument
    kind: ItemKind
    code: str
    detail: str
    source: str
    state: ItemState
    session: int | None
    bar: tuple[float, ...] | None
    ratio: float | None
    suggestion: Mapping[str, Any] | None
    first_seen: float
    last_seen: float
    times: int
    decided_by: str | None = None
    decided_at: float | None = None
    ex_date: int | None = None


class QuarantineStore:
    """The collection `quarantine`. Loop-only; several daemons may note the same at once.

    `parked`: items that await review, when last counted.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._items = database["quarantine"]
        self.parked = 0

    async def observe(
        self, series: int, instrument: Instrument, seen: Sequence[Observation], now: float
    ) -> tuple[list[Observation], list[Observation]]:
        """Note what an answer showed. Returns which of it is new (or open again), and which a person had dropped with
        the very same values: that is left as it is, and so is what is being approved."""
        if not seen:
            return [], []
        ids = {_id(series, observation): observation for observation in seen}
        known = {
            document["_id"]: document
            async for document in self._items.find({"_id": {"$in": list(ids)}}, {"state": 1, "bar": 1, "ratio": 1})
        }
        dropped = {
            item_id: observation
            for item_id, observation in ids.items()
            if item_id in known and known[item_id]["state"] == "dropped" and _same(known[item_id], observation)
        }
        noted = {
            item_id: observation
            for item_id, observation in ids.items()
            if item_id not in dropped and known.get(item_id, {}).get("state") != "approving"
        }
        new = [o for i, o in noted.items() if known.get(i, {}).get("state") != o.state]
        updates = [_update(i, series, instrument, o, known.get(i), now) for i, o in noted.items()]
        if updates:
            await self._items.bulk_write(updates, ordered=False)
        if any(observation.state == "rejected" for observation in new):
            await self._keep_bounded()
        if any(observation.state == "parked" for observation in new):
            await self.count()
        return new, list(dropped.values())

    async def resolve(
        self, series: int, now: float, *, sessions: Iterable[int] = (), answers_of: str | None = None
    ) -> int:
        """Providers have come to agree about bars of `sessions`, or the one named about whole answers. Returns how
        many items were settled by that."""
        which: list[dict[str, Any]] = []
        if days := list(sessions):
            which.append({"kind": "bar", "session": {"$in": days}})
        if answers_of is not None:
            which.append({"kind": "answer", "source": answers_of})
        if not which:
            return 0
        query = {"series": series, "state": {"$in": list(OPEN)}, "$or": which}
        settled = await self._items.update_many(query, {"$set": {"state": "resolved", "expiresAt": _expiry(now)}})
        await self.count()
        return settled.modified_count

    async def open_sessions(self, series: int) -> set[int]:
        """The sessions of a series, days since 1970-01-01, of which an item is open."""
        query = {"series": series, "kind": "bar", "state": {"$in": list(OPEN)}}
        return {document["session"] async for document in self._items.find(query, {"session": 1})}

    async def decide(
        self,
        item_id: str,
        state: Literal["approving", "dropped"],
        by: str,
        now: float,
        *,
        ex_date: int | None = None,
    ) -> Item | None:
        """Note a person's decision about an open item; None when it is not open any more. `ex_date`: of the split that
        is to be put in."""
        decision = {"state": state, "decidedBy": by, "decidedAt": _instant(now), "expiresAt": None, "exDate": ex_date}
        return await self._moved(item_id, OPEN, decision)

    async def approved(self, item_id: str) -> Item | None:
        """Note that an approval was carried through; None when it was not begun, or somebody else noted it."""
        return await self._moved(item_id, ("approving",), {"state": "approved"})

    async def _moved(self, item_id: str, states: Sequence[ItemState], facts: Mapping[str, Any]) -> Item | None:
        document = await self._items.find_one_and_update(
            {"_id": item_id, "state": {"$in": list(states)}}, {"$set": facts}, return_document=True
        )
        await self.count()
        return None if document is None else _item(document)

    async def get(self, item_id: str) -> Item | None:
        document = await self._items.find_one({"_id": item_id})
        return None if document is None else _item(document)

    async def items(
        self,
        *,
        series: int | None = None,
        states: Sequence[str] = UNSETTLED,
        code: str | None = None,
        market: str | None = None,
        limit: int = LISTED,
    ) -> list[Item]:
        """Items, those seen last first."""
        query: dict[str, Any] = {"state": {"$in": list(states)}}
        query |= {} if series is None else {"series": series}
        query |= {} if code is None else {"code": code}
        query |= {} if market is None else {"market": market}
        found = self._items.find(query).sort([("lastSeen", DESCENDING), ("_id", 1)]).limit(limit)
        return [_item(document) async for document in found]

    async def tally(self) -> list[tuple[str, str, int]]:
        """How many items there are of each state and code."""
        pipeline = [{"$group": {"_id": ["$state", "$code"], "n": {"$sum": 1}}}]
        found = await (await self._items.aggregate(pipeline)).to_list()
        return sorted((*row["_id"], row["n"]) for row in found)

    async def count(self) -> int:
        """Count what awaits review, and keep the number for `parked`."""
        self.parked = await self._items.count_documents({"state": "parked"})
        return self.parked

    async def _keep_bounded(self) -> None:
        oldest = await (
            self._items.find({"state": "rejected"}, {"lastSeen": 1})
            .sort("lastSeen", DESCENDING)
            .skip(MOST_REJECTED)
            .limit(1)
            .to_list()
        )
        if oldest:
            await self._items.delete_many({"state": "rejected", "lastSeen": {"$lte": oldest[0]["lastSeen"]}})


def _id(series: int, observation: Observation) -> str:
    where = "all" if observation.session is None else observation.session
    return f"{series}-{where}-{observation.code}-{observation.kind}"


def _update(
    item_id: str,
    series: int,
    instrument: Instrument,
    seen: Observation,
    known: Mapping[str, Any] | None,
    now: float,
) -> UpdateOne:
    facts = {
        "symbol": instrument.symbol,
        "market": instrument.market,
        "detail": plain_text(seen.detail),
        "source": seen.source,
        "state": seen.state,
        "bar": None if seen.bar is None else [value if isfinite(value) else None for value in seen.bar],
        "ratio": seen.ratio,
        "suggestion": None if seen.suggestion is None else dict(seen.suggestion),
        "lastSeen": _instant(now),
        "expiresAt": _expiry(now) if seen.state == "rejected" else None,
    }
    first: dict[str, Any] = {"series": series, "session": seen.session, "code": seen.code, "kind": seen.kind}
    opening = {"firstSeen": _instant(now), "decidedBy": None, "decidedAt": None}
    if known is not None and known["state"] != seen.state:
        facts |= opening
    else:
        first |= opening
    return UpdateOne({"_id": item_id}, {"$set": facts, "$setOnInsert": first, "$inc": {"times": 1}}, upsert=True)


def _same(known: Mapping[str, Any], seen: Observation) -> bool:
    if seen.bar is None:
        return known.get("ratio") == seen.ratio
    values = known.get("bar")
    return values is not None and all(
        isnan(new) if old is None else abs(old - new) <= 1e-6 * abs(old)
        for old, new in zip(values[:4], seen.bar[:4], strict=True)
    )


def _item(document: Mapping[str, Any]) -> Item:
    bar = document.get("bar")
    return Item(
        id=document["_id"],
        series=document["series"],
        instrument=Instrument(document["symbol"], document["market"]),
        kind=document["kind"],
        code=document["code"],
        detail=document["detail"],
        source=document["source"],
        state=document["state"],
        session=document.get("session"),
        bar=None if bar is None else tuple(float("nan") if value is None else float(value) for value in bar),
        ratio=document.get("ratio"),
        suggestion=document.get("suggestion"),
        first_seen=document["firstSeen"].timestamp(),
        last_seen=document["lastSeen"].timestamp(),
        times=document["times"],
        decided_by=document.get("decidedBy"),
        decided_at=document["decidedAt"].timestamp() if document.get("decidedAt") else None,
        ex_date=document.get("exDate"),
    )


def _expiry(now: float) -> datetime:
    return _instant(now + KEPT_SECONDS)


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
