"""Tells of every revision that became durable, each once and in order, whoever committed it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache.core.catalog import Entry
from pricecache.core.events import BarsChanged
from pricecache.errors import Corrupt
from pricecache.stores.revisions import Revision, revisions_between

log = structlog.get_logger(__name__)

Listener = Callable[[BarsChanged], object]


class Announcer:
    """Knows up to which revision each series was announced; gaps are read from `revisions`. Loop-only.

    A listener is called on the loop, after the entry is brought up to the revision, and must neither raise nor block.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._database = database
        self._listeners: list[Listener] = []
        self._announced: dict[int, int] = {}
        self._catching_up: set[asyncio.Task[None]] = set()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every revision from now on; what is given back ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def begin(self, entries: Iterable[Entry]) -> None:
        """What `entries` are at now needs no announcement, unless some of it was announced before."""
        for entry in entries:
            self._announced.setdefault(entry.id, entry.head.rev)

    def committed(self, events: Sequence[BarsChanged]) -> None:
        """Announce what this process has committed just now."""
        behind = []
        for event in events:
            if self._announced.setdefault(event.entry.id, event.rev - 1) == event.rev - 1:
                self._tell(event)
            elif self._announced[event.entry.id] < event.rev:
                behind.append(event.entry)
        if behind:
            task = asyncio.create_task(self._catch_up_sometime(behind), name="announce")
            self._catching_up.add(task)
            task.add_done_callback(self._catching_up.discard)

    async def catch_up(self, entries: Iterable[Entry]) -> None:
        """Announce what others committed up to the revision each of `entries` is at."""
        for entry in entries:
            after, up_to = self._announced.get(entry.id, 0), entry.head.rev
            if after >= up_to:
                continue
            if not self._listeners:
                self._announced[entry.id] = up_to
                continue
            try:
                revisions = await revisions_between(self._database, entry.id, after, up_to)
            except Corrupt:
                revisions = []
            self._tell_all(entry, revisions, up_to)

    async def drain(self) -> None:
        """Return when nothing waits to be announced."""
        while self._catching_up:
            await asyncio.wait(self._catching_up)

    async def _catch_up_sometime(self, entries: Sequence[Entry]) -> None:
        try:
            await self.catch_up(entries)
        except PyMongoError as exc:
            log.debug("announcement put off", error=str(exc)[:300])  # the next commit or refresh makes up for it

    def _tell_all(self, entry: Entry, revisions: Sequence[Revision], up_to: int) -> None:
        """`revisions`: those found after what was announced when they were asked for, and up to `up_to`."""
        for revision in revisions:
            announced = self._announced.get(entry.id, 0)
            if revision.rev <= announced:
                continue  # told of while they were being read
            if revision.rev > announced + 1:
                break
            self._tell(_event(entry, revision))
        if self._announced.get(entry.id, 0) < up_to:
            self._tell(BarsChanged(entry, up_to, None, None, None, True, None, ""))

    def _tell(self, event: BarsChanged) -> None:
        self._announced[event.entry.id] = event.rev
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:  # one listener's fault is neither the writer's nor the next one's
                log.exception("a listener failed", series=event.entry.id, rev=event.rev)


def _event(entry: Entry, revision: Revision) -> BarsChanged:
    facts = (revision.actions is not None, revision.first, revision.source)
    if revision.changed is None:
        return BarsChanged(entry, revision.rev, None, None, None, *facts)
    changed = revision.changed
    return BarsChanged(entry, revision.rev, changed.added, changed.replaced, changed.removed, *facts)
