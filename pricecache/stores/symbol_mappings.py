"""Which instrument each security of a broker's is: what is known for everybody, and what each user's securities are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from pricecache.clock import Clock
from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.broker.security_matching import MappingState
from pricecache.core.instruments import Instrument
from pricecache.errors import NotFound
from pricecache.stores.client import DUPLICATE_KEY
from pricecache.stores.ids import instant_of

Document = dict[str, Any]
OVERLAP_SECONDS = 10.0
"""How far behind the last change seen changes are read again: one may be readable later than its time says."""
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """What a person decided: `instrument`, or None for the broker's own price. `series`: its id, which stays when its
    symbol changes; `at`: seconds since 1970 UTC."""

    instrument: Instrument | None
    series: int | None
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found by itself. `instrument`: mapped to, or the likeliest; `is_complete`: everybody who should have
    been asked answered; `is_checked`: its price was held against the broker's; `at`: seconds since 1970 UTC."""

    state: MappingState = "unmapped"
    instrument: Instrument | None = None
    series: int | None = None
    confidence: float = 0.0
    reasons: tuple[str, ...] = ()
    is_complete: bool = True
    is_checked: bool = False
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class SymbolMapping:
    """One security. `keys`: what it is found by, each of no other mapping; `ticker`: what may be found by it too, where
    the name agrees. `user`: whose it is, None: everybody's. `shared`: of a user's, the one for everybody, if any."""

    id: str
    security: BrokerSecurity
    keys: tuple[str, ...]
    ticker: str | None
    verdict: Verdict
    override: Target | None = None
    user: str | None = None
    shared: str | None = None

    @property
    def state(self) -> MappingState:
        return "overridden" if self.override is not None else self.verdict.state


@dataclass(slots=True)
class _Known:
    by_id: dict[str, SymbolMapping] = field(default_factory=dict)
    by_key: dict[str, SymbolMapping] = field(default_factory=dict)
    by_ticker: dict[str, dict[str, SymbolMapping]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    until: datetime | None = None


class SymbolMappingStore:
    """The collections `symbol_mappings`, which is mirrored in RAM, and `user_mappings`. Loop-only.

    Any number of daemons may write both: `refresh` brings what others wrote, and costs a small query.
    """

    def __init__(self, database: AsyncDatabase[Document], clock: Clock) -> None:
        self._shared = database["symbol_mappings"]
        self._users = database["user_mappings"]
        self._clock = clock
        self._known = _Known()

    # for everybody

    async def refresh(self) -> None:
        """Know what was changed since the last time, by whomever; all there is at the first."""
        known = self._known
        if known.until is None:
            async for document in self._shared.find():
                self._take(document)
            return
        since = {"changedAt": {"$gt": instant_of(known.until.timestamp() - OVERLAP_SECONDS)}}
        found = await self._shared.find(since, {"version": 1}, batch_size=_AT_ONCE).to_list()
        await self._reload([one["_id"] for one in found if known.versions.get(one["_id"]) != one["version"]])

    def _take(self, document: Document) -> None:
        known, one = self._known, _mapping(document)
        before = known.by_id.get(one.id)
        if before is not None:
            self._forget(before)
        known.by_id[one.id] = one
        known.by_key.update(dict.fromkeys(one.keys, one))
        if one.ticker is not None:
            known.by_ticker.setdefault(one.ticker, {})[one.id] = one
        known.versions[one.id] = document["version"]
        known.until = max(known.until or document["changedAt"], document["changedAt"])

    def _forget(self, one: SymbolMapping) -> None:
        for key in one.keys:
            self._known.by_key.pop(key, None)
        if one.ticker is not None:
            self._known.by_ticker.get(one.ticker, {}).pop(one.id, None)

    def __len__(self) -> int:
        return len(self._known.by_id)

    def all(self) -> Iterable[SymbolMapping]:
        """Those for everybody, as far as they are known here."""
        return self._known.by_id.values()

    def by_id(self, mapping_id: str) -> SymbolMapping | None:
        return self._known.by_id.get(mapping_id)

    def by_key(self, key: str) -> SymbolMapping | None:
        return self._known.by_key.get(key)

    def by_ticker(self, ticker: str) -> Iterable[SymbolMapping]:
        return self._known.by_ticker.get(ticker, {}).values()

    async def put(self, mappings: Sequence[SymbolMapping]) -> None:
        """Keep the keys and verdicts of these; what a person decided stays. Where another daemon has made one with a
        key of one of these meanwhile, that one stands, and is known here."""
        if not mappings:
            return
        updates = [_update(one) for one in mappings]
        all_are_kept = await _written(self._shared.bulk_write(updates, ordered=False))
        await self._reload([one.id for one in mappings])
        if not all_are_kept:
            await self.refresh()

    async def override(self, mapping_id: str, target: Target | None) -> SymbolMapping:
        """Decide for everybody, or with None take it back. Raises `NotFound` with code `unknown_mapping`."""
        done = await self._shared.update_one({"_id": mapping_id}, _decision(target))
        if not done.matched_count:
            raise _unknown()
        await self._reload([mapping_id])
        return self._known.by_id[mapping_id]

    async def _reload(self, ids: Sequence[str]) -> None:
        if ids:
            async for document in self._shared.find({"_id": {"$in": list(ids)}}, batch_size=_AT_ONCE):
                self._take(document)

    # of users

    async def of_user(self, user: str) -> dict[str, SymbolMapping]:
        """A user's securities by their one key, in the order of their ids."""
        found = await self._users.find({"user": user}).sort("_id", 1).to_list()
        return {document["keys"][0]: _mapping(document) for document in found}

    async def put_of_user(self, changed: Sequence[SymbolMapping], new: Sequence[SymbolMapping]) -> None:
        """The same as `put` of users' mappings that are there, and of such that are not; a new one that another
        daemon has made meanwhile stays as that one made it."""
        if changed:
            await self._users.bulk_write([_update(one) for one in changed], ordered=False)
        if new:  # inserts cost a third of upserts
            documents = [{"_id": one.id, **_fields(one)} for one in new]
            await _written(self._users.insert_many(documents, ordered=False))

    async def override_of_user(self, user: str, mapping_id: str, target: Target | None) -> SymbolMapping:
        """Decide for this user, or with None take it back. Raises `NotFound` with code `unknown_mapping`."""
        mine = {"_id": mapping_id, "user": user}
        done = await self._users.update_one(mine, _decision(target))
        if not done.matched_count:
            raise _unknown()
        document = await self._users.find_one(mine)
        assert document is not None
        return _mapping(document)

    async def users_of(self, mapping_id: str) -> list[str]:
        """Who has a security that is this one of everybody's."""
        return sorted(await self._users.distinct("user", {"shared": mapping_id}))


async def _written(writing: Any) -> bool:
    """Whether all of it was, and nothing stood there already."""
    try:
        await writing
    except BulkWriteError as exc:
        if any(error["code"] != DUPLICATE_KEY for error in exc.details["writeErrors"]):
            raise
        return False
    return True


def _unknown() -> NotFound:
    return NotFound("There is no such mapping.", code="unknown_mapping")


_CHANGED: Document = {"$currentDate": {"changedAt": True}, "$inc": {"version": 1}}
"""By the clock of the server, which is the same for all daemons."""


def _update(one: SymbolMapping) -> UpdateOne:
    return UpdateOne({"_id": one.id}, {"$set": _fields(one), **_CHANGED}, upsert=True)


def _decision(target: Target | None) -> Document:
    if target is None:
        return {"$unset": {"override": ""}, **_CHANGED}
    fields = {**_named(target.instrument, target.series), "by": target.by, "at": instant_of(target.at)}
    return {"$set": {"override": fields}, **_CHANGED}


def _named(instrument: Instrument | None, series: int | None) -> Document:
    symbol, market = (None, None) if instrument is None else instrument
    return {"symbol": symbol, "market": market, "series": series}


def _fields(one: SymbolMapping) -> Document:
    security, verdict = one.security, one.verdict
    facts = {name: getattr(security, name) for name in _FACTS if getattr(security, name) is not None}
    fields: Document = {
        "keys": list(one.keys),
        "ticker": one.ticker,
        "security": facts,
        "state": verdict.state,
        **_named(verdict.instrument, verdict.series),
        "confidence": verdict.confidence,
        "reasons": list(verdict.reasons),
        "complete": verdict.is_complete,
        "checked": verdict.is_checked,
        "at": instant_of(verdict.at),
    }
    if one.user is not None:
        fields |= {"user": one.user, "shared": one.shared}
    return fields


_FACTS = ("id", "kind", "name", "ticker", "exchange", "isin", "cusip", "sedol", "currency", "scope")


def _mapping(document: Document) -> SymbolMapping:
    override = document.get("override")
    verdict = Verdict(
        state=document["state"],
        instrument=_instrument(document),
        series=document["series"],
        confidence=document["confidence"],
        reasons=tuple(document["reasons"]),
        is_complete=document["complete"],
        is_checked=document["checked"],
        at=document["at"].timestamp(),
    )
    return SymbolMapping(
        id=document["_id"],
        security=BrokerSecurity(**document["security"]),
        keys=tuple(document["keys"]),
        ticker=document["ticker"],
        verdict=verdict,
        override=None
        if override is None
        else Target(_instrument(override), override["series"], override["by"], override["at"].timestamp()),
        user=document.get("user"),
        shared=document.get("shared"),
    )


def _instrument(document: Document) -> Instrument | None:
    return None if document["symbol"] is None else Instrument(document["symbol"], document["market"])
