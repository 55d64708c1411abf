"""How whole everything is: coverage of every tracked series, kept until the series changes or a minute has passed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pricecache.cache.reader import Reader
from pricecache.clock import Clock
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.coverage import Absence
from pricecache.errors import Corrupt, Unavailable

SERIES_AT_ONCE = 50
"""Series looked at before others get a turn on the event loop: under 10 ms of them."""
ROW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Extent:
    """Of one series, or of several together: sessions expected and present, and those not held by class."""

    expected: int
    present: int
    holes: Mapping[Absence, int]

    @property
    def ratio(self) -> float | None:
        """Present ÷ expected as a fraction; None when nothing is expected."""
        return self.present / self.expected if self.expected else None


def together(extents: Iterable[Extent]) -> Extent:
    expected = present = 0
    holes: Counter[Absence] = Counter()
    for extent in extents:
        expected += extent.expected
        present += extent.present
        holes.update(extent.holes)
    return Extent(expected, present, dict(holes))


class Wholeness:
    """Knows the extent of every tracked series. Loop-only.

    `total` is that of all of them when last looked at.
    """

    def __init__(self, catalog: Catalog, reader: Reader, clock: Clock) -> None:
        self._catalog = catalog
        self._reader = reader
        self._clock = clock
        self._known: dict[int, tuple[int, float, Extent]] = {}
        self.total = Extent(0, 0, {})

    async def look(self) -> list[tuple[Entry, Extent]]:
        """Every tracked series with its extent, by market and symbol. Lets others in between every few series."""
        entries = sorted(self._catalog.tracked(), key=lambda e: (e.instrument.market, e.instrument.symbol))
        now = self._clock.time()
        old = [entry for entry in entries if not self._is_current(entry, now)]
        for at in range(0, len(old), SERIES_AT_ONCE):
            chunk = old[at : at + SERIES_AT_ONCE]
            await self._reader.columns.store.read_many([entry for entry in chunk if entry.sessions is None])
            for entry in chunk:
                version = entry.version
                self._known[entry.id] = version, now + ROW_SECONDS, await self._extent(entry)
            await asyncio.sleep(0)
        for gone in self._known.keys() - {entry.id for entry in entries}:
            del self._known[gone]
        seen = [(entry, self._known[entry.id][2]) for entry in entries if entry.id in self._known]
        self.total = together(extent for _, extent in seen)
        return seen

    def _is_current(self, entry: Entry, now: float) -> bool:
        version, until, _ = self._known.get(entry.id, (-1, 0.0, self.total))
        return version == entry.version and now < until

    async def _extent(self, entry: Entry) -> Extent:
        try:
            found = await self._reader.coverage(entry)
        except Unavailable:
            return Extent(0, 0, {})  # its calendar is being built: nothing is known to be expected yet
        except Corrupt:
            return Extent(entry.head.count, 0, {"failing": entry.head.count})
        holes: Counter[Absence] = Counter()
        for stretch in found.missing:
            holes[stretch.absence] += stretch.count
        return Extent(found.expected, found.present, dict(holes))
