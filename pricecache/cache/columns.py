"""Decoded bars in RAM, bounded in bytes, each valid for one revision of its series."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from cachetools import LRUCache

from pricecache.core.actions import Action, Adjust, adjusted
from pricecache.core.bars import Bars
from pricecache.core.catalog import Entry
from pricecache.stores.bars import BarStore, Record


@dataclass(frozen=True, slots=True)
class _Kept:
    rev: int
    applied: tuple[Action, ...]
    bars: Bars


class ColumnCache:
    """The columns of whole series, as traded or adjusted, least recently used out first. Loop-only.

    A hit costs two dictionary look-ups and a comparison of revisions; a miss reads the packed years once, however
    many wait for it.
    """

    def __init__(self, store: BarStore, max_bytes: int) -> None:
        self.store = store
        self._kept: LRUCache[tuple[int, Adjust], _Kept] = LRUCache(max_bytes, getsizeof=lambda kept: kept.bars.nbytes)
        self._loading: dict[int, asyncio.Task[Record]] = {}
        self.hits = 0
        self.misses = 0

    @property
    def nbytes(self) -> int:
        return int(self._kept.currsize)

    @property
    def max_bytes(self) -> int:
        return int(self._kept.maxsize)

    def _held(self, entry: Entry, adjust: Adjust, applied: tuple[Action, ...]) -> Bars | None:
        kept = self._kept.get((entry.id, adjust))
        return kept.bars if kept is not None and kept.rev == entry.head.rev and kept.applied == applied else None

    async def get(self, entry: Entry, adjust: Adjust = "none", actions: tuple[Action, ...] = ()) -> Bars:
        """All bars of a series, adjusted by `actions`: those of the entry that are in effect (`core.actions`)."""
        if (bars := self._held(entry, adjust, actions)) is not None:
            self.hits += 1
            return bars
        self.misses += 1
        traded = self._held(entry, "none", ())
        if traded is None:
            traded = await self._load(entry)
        if adjust == "none":
            return traded
        bars = adjusted(traded, actions, adjust, entry.currency)
        self._keep(entry, adjust, actions, Record(entry.head.rev, bars))
        return bars

    async def _load(self, entry: Entry) -> Bars:
        record = Record(-1, Bars.empty())
        while record.rev != entry.head.rev:  # something was committed since it was read
            task = self._loading.get(entry.id)
            if task is None:
                task = asyncio.create_task(self._read(entry), name=f"columns-{entry.id}")
                self._loading[entry.id] = task
                task.add_done_callback(partial(self._loaded, entry.id))
            record = await asyncio.shield(task)
        self._keep(entry, "none", (), record)
        return record.bars

    def _loaded(self, series_id: int, task: asyncio.Task[Record]) -> None:
        self._loading.pop(series_id, None)
        if not task.cancelled():
            task.exception()  # those who wait have it; there may be none left

    async def _read(self, entry: Entry) -> Record:
        return (await self.store.read_many([entry]))[entry.id]

    async def close(self) -> None:
        """End what is being loaded."""
        for task in self._loading.values():
            task.cancel()
        if self._loading:
            await asyncio.wait(self._loading.values())

    def _keep(self, entry: Entry, adjust: Adjust, applied: tuple[Action, ...], record: Record) -> None:
        if record.bars.nbytes <= self._kept.maxsize:
            self._kept[entry.id, adjust] = _Kept(record.rev, applied, record.bars)
