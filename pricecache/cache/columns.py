"""Decoded bars in RAM, bounded in bytes, each valid for one revision of its series."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
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
        self._loading: dict[int, asyncio.Task[Mapping[int, Record]]] = {}
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

    async def load(self, entries: Iterable[Entry]) -> None:
        """Read what is missing of several series as traded, with one query for all of it."""
        cold = [entry for entry in entries if self._held(entry, "none", ()) is None]
        if len(cold) > 1:
            self._begin([entry for entry in cold if entry.id not in self._loading])
        await asyncio.gather(*(self.get(entry) for entry in cold))

    async def _load(self, entry: Entry) -> Bars:
        record = Record(-1, Bars.empty())
        while record.rev != entry.head.rev:  # something was committed since it was read
            if entry.id not in self._loading:
                self._begin([entry])
            record = (await asyncio.shield(self._loading[entry.id]))[entry.id]
        self._keep(entry, "none", (), record)
        return record.bars

    def _begin(self, entries: Sequence[Entry]) -> None:
        if entries:
            task = asyncio.create_task(self.store.read_many(entries), name=f"columns of {len(entries)}")
            self._loading |= dict.fromkeys((entry.id for entry in entries), task)
            task.add_done_callback(partial(self._loaded, [entry.id for entry in entries]))

    def _loaded(self, series: Sequence[int], task: asyncio.Task[Mapping[int, Record]]) -> None:
        for series_id in series:
            self._loading.pop(series_id, None)
        if not task.cancelled():
            task.exception()  # those who wait have it; there may be none left

    async def close(self) -> None:
        """End what is being loaded."""
        tasks = set(self._loading.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _keep(self, entry: Entry, adjust: Adjust, applied: tuple[Action, ...], record: Record) -> None:
        if record.bars.nbytes <= self._kept.maxsize:
            self._kept[entry.id, adjust] = _Kept(record.rev, applied, record.bars)
