"""What healing remembers of each series, in the collection `sync_state`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from pymongo import ReplaceOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.catalog import Entry
from pricecache.core.coverage import Divergence, Hole, SyncState
from pricecache.errors import Unavailable
from pricecache.stores.commits import ATTEMPTS, pause

_BY_NAME = ("holes", "absent", "divergences", "parked", "not_found_days")
_PLAIN = [f.name for f in fields(SyncState) if f.name not in _BY_NAME]


def state_document(state: SyncState) -> dict[str, Any]:
    """Sessions as strings of days since 1970 where they are keys, instants as seconds since 1970 UTC."""
    plain = {name: getattr(state, name) for name in _PLAIN}
    return plain | {
        "holes": {str(session): asdict(hole) for session, hole in state.holes.items()},
        "absent": {str(session): at for session, at in state.absent.items()},
        "divergences": {kind: asdict(divergence) for kind, divergence in state.divergences.items()},
        "parked": {str(session): at for session, at in state.parked.items()},
        "not_found_days": list(state.not_found_days),
    }


def state_from(document: Mapping[str, Any]) -> SyncState:
    return SyncState(
        **{name: document[name] for name in _PLAIN if name in document},
        holes={int(session): Hole(**hole) for session, hole in document.get("holes", {}).items()},
        absent={int(session): at for session, at in document.get("absent", {}).items()},
        divergences={kind: Divergence(**found) for kind, found in document.get("divergences", {}).items()},
        parked={int(session): at for session, at in document.get("parked", {}).items()},
        not_found_days=tuple(document.get("not_found_days", ())),
    )


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

    Each stored state has a version. One that another daemon saved meanwhile is not overwritten blindly: the newer
    findings go over it, but history once wanted deeper stays wanted, and what was said of a delisting stays said.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._states = database["sync_state"]

    async def save(self, entry: Entry, state: SyncState) -> None:
        await self.save_many([(entry, state)])

    async def save_many(self, states: Sequence[tuple[Entry, SyncState]]) -> None:
        """Durable when it returns."""
        waiting = [(entry, state) for entry, state in states if entry.state != state]
        for attempt in range(ATTEMPTS):
            if not waiting:
                return
            await self._ensure([entry for entry, _ in waiting if entry.state_version == 0])
            stored = await self._states.bulk_write([_replacement(entry, state) for entry, state in waiting])
            if stored.matched_count == len(waiting):
                for entry, state in waiting:
                    entry.state_version += 1
                    entry.state = state
                    entry.touch()
                return
            waiting = await self._overtaken(waiting)
            await pause(attempt)
        raise Unavailable("The database is too busy to save.", code="commit_conflict", retry_after=2.0)

    async def _ensure(self, entries: Sequence[Entry]) -> None:
        if entries:
            first = [UpdateOne({"_id": e.id}, {"$setOnInsert": {"version": 0}}, upsert=True) for e in entries]
            await self._states.bulk_write(first, ordered=False)

    async def _overtaken(self, waiting: Sequence[tuple[Entry, SyncState]]) -> list[tuple[Entry, SyncState]]:
        """What is still to be saved, laid over what others saved meanwhile."""
        wanted = {entry.id: (entry, state) for entry, state in waiting}
        found = await self._states.find({"_id": {"$in": list(wanted)}}).to_list()
        left = []
        for document in found:
            entry, state = wanted[document["_id"]]
            if document["version"] == entry.state_version + 1 and _is(document, state):
                take_state(entry, document)  # ours
                continue
            if document["version"] > entry.state_version and "wanted_from" in document:
                before = entry.state
                take_state(entry, document)
                state = replace(state, wanted_from=min(state.wanted_from, entry.state.wanted_from))
                if state.delisted_after == before.delisted_after:
                    state = replace(state, delisted_after=entry.state.delisted_after)
            left.append((entry, state))
        return left


def _replacement(entry: Entry, state: SyncState) -> ReplaceOne[dict[str, Any]]:
    version = entry.state_version
    return ReplaceOne(
        {"_id": entry.id, "version": version}, {"_id": entry.id, "version": version + 1, **state_document(state)}
    )


def _is(document: Mapping[str, Any], state: SyncState) -> bool:
    return state_from(document) == state
