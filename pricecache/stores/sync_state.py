"""What healing remembers of each series, in the collection `sync_state`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pymongo import ReplaceOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.catalog import Entry
from pricecache.core.coverage import Hole, SyncState

_PLAIN = [f.name for f in fields(SyncState) if f.name not in ("holes", "absent")]


def state_document(state: SyncState) -> dict[str, Any]:
    """Sessions as strings of days since 1970 where they are keys, instants as seconds since 1970 UTC."""
    plain = {name: getattr(state, name) for name in _PLAIN}
    return plain | {
        "holes": {str(session): asdict(hole) for session, hole in state.holes.items()},
        "absent": {str(session): at for session, at in state.absent.items()},
    }


def state_from(document: Mapping[str, Any]) -> SyncState:
    return SyncState(
        **{name: document[name] for name in _PLAIN if name in document},
        holes={int(session): Hole(**hole) for session, hole in document.get("holes", {}).items()},
        absent={int(session): at for session, at in document.get("absent", {}).items()},
    )


class SyncStateStore:
    """Saves states and brings the entries they belong to up to them. Loop-only."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._states = database["sync_state"]

    async def save(self, entry: Entry, state: SyncState) -> None:
        await self.save_many([(entry, state)])

    async def save_many(self, states: list[tuple[Entry, SyncState]]) -> None:
        """Durable when it returns."""
        changed = [(entry, state) for entry, state in states if entry.state != state]
        if not changed:
            return
        await self._states.bulk_write(
            [
                ReplaceOne({"_id": entry.id}, {"_id": entry.id, **state_document(state)}, upsert=True)
                for entry, state in changed
            ],
            ordered=False,
        )
        for entry, state in changed:
            entry.state = state
            entry.touch()
