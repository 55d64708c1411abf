"""Which portfolios are followed, why, and in which slot of the live book each of them is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pricecache.core.instruments import Instrument
from pricecache.core.live_rows import LiveRow
from pricecache.core.portfolios import Portfolio
from pricecache.realtime.shapes import Event, Positions
from pricecache.realtime.watched_prices import Watched


@dataclass(slots=True, eq=False)
class Followed:
    """One portfolio that is kept at what it is worth now; `portfolio` is None until it is summed up first.

    `is_tracked`, `is_listened`: why, beside that somebody looked at it or changed it of late. `row`: what the live book
    has of it; None: it is summed up each time anew. `is_doubted`: its row is to be made anew before it is used.
    `positions`: those of the row, and `watched` what their prices are kept in. `held`: instruments that it has some of;
    `names`: all that its ledger names.
    `day`: the latest session of these, days since 1970-01-01; `value`, `change`: of the whole, in base currency, when
    it was summed up last, None unknown. `concern`: where it has no row, the instruments whose quotes concern it
    (`Instrument.key`). `values`: what listeners have been told, empty while nobody has been told anything.
    """

    slot: int
    id: str
    portfolio: Portfolio | None = None
    is_tracked: bool = False
    is_listened: bool = False
    is_doubted: bool = True
    row: LiveRow | None = None
    positions: Positions = field(default_factory=Positions)
    watched: tuple[Watched, ...] = ()
    held: frozenset[Instrument] = frozenset()
    names: frozenset[Instrument] = frozenset()
    concern: frozenset[str] = frozenset()
    day: int | None = None
    value: float | None = None
    change: float | None = None
    values: dict[str, Event] = field(default_factory=dict)

    def begin_telling(self, values: dict[str, Event]) -> None:
        """Whoever listens first is told these; what changes from here on is told next."""
        self.values = values
        self.positions.told = [None] * len(self.positions.told)

    @property
    def is_needed(self) -> bool:
        return self.is_tracked or self.is_listened


@dataclass(frozen=True, slots=True)
class PresentNow:
    """What a followed portfolio is at this moment: `day`, its latest session (days since 1970-01-01); the rest in base
    currency, None while it is not known."""

    day: int | None
    held: frozenset[Instrument]
    value: float | None
    change: float | None
    high: float | None
    low: float | None


class FollowedPortfolios:
    """Loop-only. Those that are neither tracked nor listened to stay until more than `most` of them are there; then the
    one that nobody looked at for longest goes."""

    def __init__(self, most: int) -> None:
        self._by_id: dict[str, Followed] = {}
        self._by_slot: list[Followed | None] = []
        self._free: list[int] = []
        self._idle: OrderedDict[str, Followed] = OrderedDict()
        self._irregular: dict[str, set[int]] = {}
        self._most = most

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Followed]:
        return iter(list(self._by_id.values()))

    def get(self, portfolio_id: str) -> Followed | None:
        return self._by_id.get(portfolio_id)

    def at(self, slot: int) -> Followed | None:
        return self._by_slot[slot] if slot < len(self._by_slot) else None

    def follow(self, portfolio_id: str) -> Followed:
        """Followed from now on, if it was not."""
        found = self._by_id.get(portfolio_id)
        if found is None:
            slot = self._free.pop() if self._free else len(self._by_slot)
            found = Followed(slot, portfolio_id)
            if slot == len(self._by_slot):
                self._by_slot.append(found)
            else:
                self._by_slot[slot] = found
            self._by_id[portfolio_id] = found
        self.rest(found)
        return found

    def rest(self, followed: Followed) -> None:
        """Look again at why it is followed."""
        self._idle.pop(followed.id, None)
        if not followed.is_needed:
            self._idle[followed.id] = followed

    def set_irregular(self, followed: Followed, keys: frozenset[str]) -> bool:
        """It has no row, and quotes of these instruments (`Instrument.key`) concern it; none: it has one. Whether some
        of them did not before."""
        is_new = not keys <= followed.concern
        for key in followed.concern - keys:
            slots = self._irregular[key]
            slots.discard(followed.slot)
            if not slots:
                del self._irregular[key]
        for key in keys - followed.concern:
            self._irregular.setdefault(key, set()).add(followed.slot)
        followed.concern = keys
        return is_new

    def irregular(self, instruments: Iterable[Instrument]) -> NDArray[np.int64]:
        """Slots without a row that quotes of these concern: int64."""
        if not self._irregular:
            return np.empty(0, np.int64)
        slots = {slot for one in instruments for slot in self._irregular.get(one.key, ())}
        return np.array(sorted(slots), np.int64)

    def surplus(self) -> list[Followed]:
        """Those that nobody needs and that there are too many of, the longest left alone first; they are to be
        dropped."""
        count = max(len(self._idle) - self._most, 0)
        return list(islice(self._idle.values(), count))

    def drop(self, followed: Followed) -> None:
        if self._by_id.pop(followed.id, None) is not None:
            self._idle.pop(followed.id, None)
            self.set_irregular(followed, frozenset())
            self._by_slot[followed.slot] = None
            self._free.append(followed.slot)
