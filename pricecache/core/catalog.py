"""What the daemon knows of every instrument without asking the database: the RAM twin of the small collections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.coverage import SyncState
from pricecache.core.instruments import Instrument
from pricecache.errors import NotFound


@dataclass(frozen=True, slots=True)
class SeriesHead:
    """The committed state of one series: which revision it is at, and which revision each year was last changed in.

    `first`, `last`: sessions, days since 1970-01-01; `count`: bars; all of the packed record, without the tail.
    """

    rev: int = 0
    years: dict[int, int] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None
    count: int = 0


@dataclass(slots=True)
class Entry:
    """All that is known of one instrument. Loop-only: written by `Catalog`, read by anybody on the loop.

    `tail`: provisional bars of sessions newer than anything committed. `currency`: of its prices. `notice`: what every
    reader is to be told. `sessions`: the sessions held in the packed record (int64), or None until first needed.
    `version` grows with every change of any of it; whoever keeps something derived compares it. `current` is False
    while a commit's outcome is unknown: whoever answers from here then asks the database first. `state_version` is
    the stored version of `state`.
    """

    id: int
    instrument: Instrument
    currency: str
    state: SyncState
    tracked: bool = False
    tracked_since: float | None = None
    tracked_by: str | None = None
    source: str | None = None
    notice: str | None = None
    head: SeriesHead = field(default_factory=SeriesHead)
    tail: Bars = field(default_factory=Bars.empty)
    actions: tuple[Action, ...] = ()
    sessions: NDArray[np.int64] | None = None
    version: int = 0
    current: bool = True
    state_version: int = 0

    def touch(self) -> None:
        self.version += 1

    def doubt(self) -> None:
        """The database may be ahead of this."""
        self.current = False
        self.touch()


class Catalog:
    """Every instrument the database holds, by name and by id. Loop-only.

    `trusted` is False while changes by other daemons may be going unseen: whoever answers from here then asks the
    database first.
    """

    def __init__(self) -> None:
        self.trusted = True
        self._by_instrument: dict[Instrument, Entry] = {}
        self._by_id: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_id.values())

    def get(self, instrument: Instrument) -> Entry | None:
        return self._by_instrument.get(instrument)

    def by_id(self, series_id: int) -> Entry | None:
        return self._by_id.get(series_id)

    def require(self, instrument: Instrument) -> Entry:
        """Raises `NotFound` with code `unknown_symbol` and what to do next."""
        entry = self._by_instrument.get(instrument)
        if entry is None:
            named = f'{{"symbol": "{instrument.symbol}", "market": "{instrument.market}"}}'
            by_hand = f"Put its prices with PUT /cache/historical/{instrument.symbol}?market={instrument.market}."
            asked = f"Track it with POST /cache/symbols, or POST /cache/backfill-symbol with {named}."
            raise NotFound(
                f"{instrument} is not known here. {asked if instrument.place.has_provider else by_hand}",
                code="unknown_symbol",
                symbol=instrument.symbol,
                market=instrument.market,
            )
        return entry

    def tracked(self) -> list[Entry]:
        return [entry for entry in self._by_id.values() if entry.tracked]

    def add(self, entry: Entry) -> None:
        self._by_instrument[entry.instrument] = entry
        self._by_id[entry.id] = entry
