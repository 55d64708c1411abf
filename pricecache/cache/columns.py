"""Decoded bars in RAM, bounded in bytes, each valid for one revision of its series."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from pricecache.core.actions import Adjust, adjusted
from pricecache.core.bars import Bars
from pricecache.core.catalog import Entry
from pricecache.stores.bars import BarStore


@dataclass(frozen=True, slots=True)
class _Kept:
    rev: int
    bars: Bars


class ColumnCache:
    """The columns of whole series, as traded or adjusted, least recently used out first. Loop-only.

    A hit costs two dictionary look-ups and a comparison of revisions; a miss reads the packed years once, however
    many wait for it.
    """

    def __init__(self, store: BarStore, max_bytes: int) -> None:
        self.store = store
        self._kept: LRUCache[tuple[int, Adjust], _Kept] = LRUCache(max_bytes, getsizeof=lambda kept: kept.bars.nbytes)
        self._loading: dict[int, asyncio.Task[Bars]] = {}
        self.hits = 0
        self.misses = 0

    @property
    def nbytes(self) -> int:
        return int(self._kept.currsize)

    @property
    def max_bytes(self) -> int:
        return int(self._kept.maxsize)

    def held(self, entry: Entry, adjust: Adjust = "none") -> Bars | None:
        """The columns if they are here and current."""
        kept = self._kept.get((entry.id, adjust))
        if kept is not None and kept.rev == entry.head.rev:
            self.hits += 1
            return kept.bars
        return None

    async def get(self, entry: Entry, adjust: Adjust = "none") -> Bars:
        """All bars of a series, adjusted by all actions known."""
        if (bars := self.held(entry, adjust)) is not None:
            return bars
        self.misses += 1
        while True:
            traded = self.held(entry) if adjust != "none" else None
            rev = entry.head.rev
            if traded is None:
                traded = await self._load(entry)
                if entry.head.rev != rev:
                    continue
            bars = adjusted(traded, entry.actions, adjust)
            self._keep(entry, adjust, bars)
            return bars

    async def warm(self, entries: Sequence[Entry]) -> None:
        """Load many at once, in one query."""
        cold = [entry for entry in entries if self.held(entry) is None]
        if cold:
            loaded = await self.store.read_many(cold)
            for entry in cold:
                self._keep(entry, "none", loaded[entry.id])

    async def _load(self, entry: Entry) -> Bars:
        task = self._loading.get(entry.id)
        if task is None:
            task = asyncio.create_task(self.store.read(entry), name=f"columns-{entry.id}")
            self._loading[entry.id] = task
            task.add_done_callback(lambda _: self._loading.pop(entry.id, None))
        bars = await asyncio.shield(task)
        self._keep(entry, "none", bars)
        return bars

    def _keep(self, entry: Entry, adjust: Adjust, bars: Bars) -> None:
        if bars.nbytes <= self._kept.maxsize:
            self._kept[entry.id, adjust] = _Kept(entry.head.rev, bars)
