"""What healing remembers of each series, in the collection `sync_state`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pymongo import ReplaceOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.catalog import Entry
from pricecache.core.coverage import Divergence, Hole, SyncState, Withheld
from pricecache.errors import Unavailable
from pricecache.stores.commits import RACE_ATTEMPTS, pause

_BY_NAME = ("holes", "absent", "divergences", "parked", "refused", "not_found_days")
_PLAIN = [f.name for f in fields(SyncState) if f.name not in _BY_NAME]


_OF_FAILING = (
    "attempts",
    "refusals",
    "failing_since",
    "next_retry",
    "code",
    "reason",
    "empty_since",
    "not_found",
    "not_found_days",
    "quarantined_at",
)


@dataclass(slots=True)
class _Saving:
    # `base`: what `state` was made from; `version`: the stored one that it is to replace
    entry: Entry
    base: SyncState
    state: SyncState
    version: int = 0


def state_document(state: SyncState) -> dict[str, Any]:
    """Sessions as strings of days since 1970 where they are keys, instants as seconds since 1970 UTC."""
    plain = {name: getattr(state, name) for name in _PLAIN}
    return plain | {
        "holes": {str(session): asdict(hole) for session, hole in state.holes.items()},
        "absent": {str(session): at for session, at in state.absent.items()},
        "divergences": {kind: asdict(divergence) for kind, divergence in state.divergences.items()},
        "parked": {str(session): asdict(row) for session, row in state.parked.items()},
        "refused": {str(session): asdict(row) for session, row in state.refused.items()},
        "not_found_days": list(state.not_found_days),
    }


def state_from(document: Mapping[str, Any]) -> SyncState:
    return SyncState(
        **{name: document[name] for name in _PLAIN if name in document},
        holes={int(session): Hole(**hole) for session, hole in document.get("holes", {}).items()},
        absent={int(session): at for session, at in document.get("absent", {}).items()},
        divergences={kind: Divergence(**found) for kind, found in document.get("divergences", {}).items()},
        parked={int(session): _withheld_from(row) for session, row in document.get("parked", {}).items()},
        refused={int(session): _withheld_from(row) for session, row in document.get("refused", {}).items()},
        not_found_days=tuple(document.get("not_found_days", ())),
    )


def _withheld_from(stored: Any) -> Withheld:
    if isinstance(stored, int | float):  # the time of asking, which was all that used to be kept
        return Withheld("not stored", float(stored))
    return Withheld(**stored)


def take_state(entry: Entry, document: Mapping[str, Any] | None) -> None:
    """Bring `entry` up to a stored state; one that is older than what it has is left."""
    if document is None or "wanted_from" not in document or document.get("version", 0) < entry.state_version:
        return
    entry.state_version = document.get("version", 0)
    state = state_from(document)
    if state != entry.state:
        entry.state = state
        entry.touch()


class SyncStateStore:
    """Saves states and brings the entries they belong to up to them. Loop-only.

    Each stored state has a version. One that somebody else saved meanwhile, in this process or another, is not
    overwritten blindly: what is saved now is laid over it by groups of fields (`merged`).
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._states = database["sync_state"]

    async def save(self, entry: Entry, state: SyncState) -> None:
        await self.save_many([(entry, state)])

    async def save_many(self, states: Sequence[tuple[Entry, SyncState]]) -> None:
        """Durable when it returns. Each state has to be made from its entry's present one, without waiting between."""
        waiting = [
            _Saving(entry, entry.state, state, entry.state_version) for entry, state in states if entry.state != state
        ]
        for attempt in range(RACE_ATTEMPTS):
            if not waiting:
                return
            await self._ensure([saving.entry for saving in waiting if saving.version == 0])
            stored = await self._states.bulk_write([_replacement(saving) for saving in waiting])
            if stored.matched_count == len(waiting):
                for saving in waiting:
                    _bring_up(saving)
                return
            waiting = await self._overtaken(waiting)
            await pause(attempt)
        raise Unavailable("The database is too busy to save.", code="commit_conflict", retry_after=2.0)

    async def _ensure(self, entries: Sequence[Entry]) -> None:
        if entries:
            first = [UpdateOne({"_id": e.id}, {"$setOnInsert": {"version": 0}}, upsert=True) for e in entries]
            await self._states.bulk_write(first, ordered=False)

    async def _overtaken(self, waiting: Sequence[_Saving]) -> list[_Saving]:
        """What is still to be saved, laid over what others saved meanwhile."""
        wanted = {saving.entry.id: saving for saving in waiting}
        found = await self._states.find({"_id": {"$in": list(wanted)}}).to_list()
        left = []
        for document in found:
            saving = wanted[document["_id"]]
            take_state(saving.entry, document)
            if document["version"] == saving.version + 1 and state_from(document) == saving.state:
                continue  # ours
            if document["version"] > saving.version:
                now = saving.entry.state
                saving.base, saving.state = now, merged(saving.base, saving.state, now)
                # of what it is laid over: whoever saves before the next attempt is seen by that
                saving.version = saving.entry.state_version
            left.append(saving)
        return left


def merged(base: SyncState, mine: SyncState, theirs: SyncState) -> SyncState:
    """`mine` laid over `theirs`, both made from `base` side by side.

    Of each field mine where I changed it, else theirs; what is said of failing is of one piece. What a person decided
    stands on either side: a delisting, with the failures it ended; a row that was reviewed. History once wanted
    deeper stays wanted.
    """
    fresh = {f.name: getattr(mine, f.name) for f in fields(SyncState) if getattr(mine, f.name) != getattr(base, f.name)}
    if theirs.delisted_after != base.delisted_after and "delisted_after" not in fresh:
        fresh = {name: value for name, value in fresh.items() if name not in _OF_FAILING}
    elif not fresh.keys().isdisjoint({"delisted_after", *_OF_FAILING}):
        fresh |= {name: getattr(mine, name) for name in _OF_FAILING}
    fresh["parked"] = _withheld(base.parked, mine.parked, theirs.parked)
    fresh["refused"] = _withheld(base.refused, mine.refused, theirs.refused)
    return replace(theirs, **fresh | {"wanted_from": min(mine.wanted_from, theirs.wanted_from)})


def _withheld(
    base: Mapping[int, Withheld], mine: Mapping[int, Withheld], theirs: Mapping[int, Withheld]
) -> dict[int, Withheld]:
    settled = base.keys() - (mine.keys() & theirs.keys())
    news = {session: row for session, row in mine.items() if base.get(session) != row}
    return {session: row for session, row in {**theirs, **news}.items() if session not in settled}


def _bring_up(saving: _Saving) -> None:
    entry = saving.entry
    if entry.state_version <= saving.version:  # else somebody read what was saved, and went on from there
        entry.state_version = saving.version + 1
        entry.state = saving.state
        entry.touch()


def _replacement(saving: _Saving) -> ReplaceOne[dict[str, Any]]:
    key, version = saving.entry.id, saving.version
    return ReplaceOne(
        {"_id": key, "version": version}, {"_id": key, "version": version + 1, **state_document(saving.state)}
    )
