"""When followed portfolios are computed anew: changes are merged, waited out, put in order and kept to a rate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

from pricecache.core.rate_windows import RateWindows, grown, room_for

RETRY_SECONDS = 5.0

Small = NDArray[np.uint8] | np.uint8


class Priority(IntEnum):
    """Taken in the order manual, market, bulk. Manual ones are due at once and never deferred."""

    MARKET = 1
    BULK = 2
    MANUAL = 3


class Reason(IntFlag):
    """Why a portfolio is computed anew; without `LEDGER` or `MANUAL` its holdings are as they were."""

    PRICE = 1
    LEDGER = 2
    MANUAL = 4
    SCHEDULE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What is to be computed now, each slot once, the most urgent first and of these the one that waited longest.

    `slots`: int64; `reasons`: uint8, `Reason` bits of all marks since the slot was last taken; `priorities`: uint8,
    the most urgent `Priority` of those. All of shape (n,).
    """

    slots: NDArray[np.int64]
    reasons: NDArray[np.uint8]
    priorities: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Where the queue stands. `pending` counts slots and is the sum of the three after it; totals are since the start.

    `coalesced`: marks that merged into a pending one; `deferred`: how often the rate limit put a due slot off;
    `computed`: slots taken; `put_back`: those whose computation failed; `batches`: takes that were not empty;
    `rate_limit_windows`: slots taken within the last minute, `full_windows`: those of them that may not be again yet;
    `oldest_waiting_seconds`: since the first mark of the one that waits longest, 0.0 when none does;
    `latest_batch`: slots in the last batch, `latest_batch_seconds`: since then, None before the first.
    """

    pending: int
    pending_market: int
    pending_bulk: int
    pending_manual: int
    coalesced: int
    deferred: int
    computed: int
    put_back: int
    batches: int
    rate_limit_windows: int
    full_windows: int
    oldest_waiting_seconds: float
    latest_batch: int
    latest_batch_seconds: float | None
    nbytes: int


_RANK = np.array([0, 2, 1, 3], np.uint8)
"""By priority how urgent it is, and by that the priority again. 0 is that of a slot which is idle."""
_MANUAL_RANK = 3
_REASON = {Priority.MARKET: Reason.PRICE, Priority.BULK: Reason.LEDGER, Priority.MANUAL: Reason.MANUAL}


class UpdateQueue:
    """Says which portfolios, by their slots, are due. Computes nothing, and knows no clock.

    Slots are small ints ≥ 0 that the caller gives; what is kept grows to the highest by doubling, 26 bytes a slot, and
    8 × `per_minute` more for one that was ever taken. Which symbols changed is not kept: the live book knows which of
    its prices changed, and a computation takes them all. Instants are seconds of a clock that never goes back.

    `debounce`: seconds from the last mark until a slot is due, but no more than `max_wait` from the first.
    `per_minute`: computations of one slot in any 60 s, 0 for no limit; what is due beyond them is deferred until there
    is a place, never dropped. Manual ones are counted and not held back. Used by one thread at a time.
    """

    def __init__(self, debounce: float = 2.0, max_wait: float = 5.0, per_minute: int = 20) -> None:
        if not 0 <= debounce <= max_wait or per_minute < 0:
            raise ValueError("Needs 0 <= debounce <= max_wait, and a limit of 0 or more.")
        self._debounce, self._max_wait = debounce, max_wait
        self._windows = RateWindows(per_minute) if per_minute else None
        self._due: NDArray[np.float64] = np.empty(0)
        self._first: NDArray[np.float64] = np.empty(0)
        self._not_before: NDArray[np.float64] = np.empty(0)
        self._ranks: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._reasons: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._coalesced = self._deferred = self._computed = self._failed = self._batches = 0
        self._latest, self._latest_batch = 0.0, 0

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        own = sum(one.nbytes for one in (self._due, self._first, self._not_before, self._ranks, self._reasons))
        return own + (self._windows.nbytes if self._windows else 0)

    def mark(
        self,
        slots: NDArray[np.int64],
        now: float,
        priority: Priority = Priority.MARKET,
        reasons: Reason | None = None,
    ) -> None:
        """Something changed for each of `slots`, which may repeat. `reasons` follow from the priority when not given:
        a price, the ledger, or that somebody asked. A pending slot keeps its most urgent priority and all reasons."""
        if not len(slots):
            return
        reason = _REASON[priority] if reasons is None else reasons
        self._coalesced += len(slots) - self._merge(slots, now, _RANK[priority], np.uint8(int(reason)))
        due = self._due[slots]
        if priority == Priority.MANUAL:
            self._due[slots] = np.minimum(due, now)
            return
        calm = np.minimum(now + self._debounce, self._first[slots] + self._max_wait)
        waited = np.maximum(calm, self._not_before[slots])
        self._due[slots] = np.where(self._ranks[slots] == _MANUAL_RANK, due, waited)

    def take(self, now: float, most: int | None = None) -> Taken:
        """All slots that are due and may be computed, or the first `most` of them. From here on they are idle and count
        in their windows. With `most` always used up by more urgent ones, bulk waits for as long."""
        slots = self._within_limit(np.flatnonzero(self._due <= now), now)
        slots = slots[np.lexsort((self._first[slots], -self._ranks[slots].astype(np.int8)))][:most]
        taken = Taken(slots, self._reasons[slots], _RANK[self._ranks[slots]])
        if len(slots):
            self._rest(slots)
            if self._windows:
                self._windows.begin(slots, now)
            self._computed += len(slots)
            self._batches += 1
            self._latest, self._latest_batch = now, len(slots)
        return taken

    def put_back(
        self,
        slots: NDArray[np.int64],
        reasons: NDArray[np.uint8],
        now: float,
        priorities: NDArray[np.uint8] | None = None,
    ) -> None:
        """What was taken, each slot once, and could not be computed: due again in `RETRY_SECONDS`, or as soon as
        somebody asks. It stays counted in its window. Without `priorities` these follow from the reasons. Slots that
        were forgotten since are not to be put back."""
        if not len(slots):
            return
        retry = now + RETRY_SECONDS
        asked_since = self._ranks[slots] == _MANUAL_RANK
        self._merge(slots, now, _RANK[_priorities_of(reasons) if priorities is None else priorities], reasons)
        self._failed += len(slots)
        self._not_before[slots] = np.maximum(self._not_before[slots], retry)
        due = self._due[slots]
        later = np.where(due == np.inf, retry, np.maximum(due, retry))
        self._due[slots] = np.where(asked_since, due, later)

    def next_due(self, now: float) -> float | None:
        """When to take next, `now` at the earliest; None when nothing is pending."""
        first = float(self._due.min(initial=np.inf))
        return None if first == np.inf else max(first, now)

    def forget(self, slot: int) -> None:
        """The slot is free: what was pending is dropped, and the next owner starts with an empty window."""
        if slot < len(self._due):
            self._rest(np.array([slot]))
        if self._windows:
            self._windows.forget(slot)

    def stats(self, now: float) -> QueueStats:
        by_rank = np.bincount(self._ranks, minlength=4)
        used, full = self._windows.in_use(now) if self._windows else (0, 0)
        oldest = float(self._first.min(initial=np.inf))
        return QueueStats(
            pending=int(by_rank[1:].sum()),
            pending_market=int(by_rank[_RANK[Priority.MARKET]]),
            pending_bulk=int(by_rank[_RANK[Priority.BULK]]),
            pending_manual=int(by_rank[_RANK[Priority.MANUAL]]),
            coalesced=self._coalesced,
            deferred=self._deferred,
            computed=self._computed,
            put_back=self._failed,
            batches=self._batches,
            rate_limit_windows=used,
            full_windows=full,
            oldest_waiting_seconds=0.0 if oldest == np.inf else now - oldest,
            latest_batch=self._latest_batch,
            latest_batch_seconds=now - self._latest if self._batches else None,
            nbytes=self.nbytes,
        )

    def _merge(self, slots: NDArray[np.int64], now: float, ranks: Small, reasons: Small) -> int:
        """Returns how many were idle."""
        self._reach(int(slots.max()) + 1)
        pending = np.count_nonzero(self._ranks)
        self._ranks[slots] = np.maximum(self._ranks[slots], ranks)
        self._reasons[slots] |= reasons
        self._first[slots] = np.minimum(self._first[slots], now)
        return int(np.count_nonzero(self._ranks) - pending)

    def _within_limit(self, slots: NDArray[np.int64], now: float) -> NDArray[np.int64]:
        if self._windows is None or not len(slots):
            return slots
        opens = self._windows.open_at(slots)
        held = (opens > now) & (self._ranks[slots] != _MANUAL_RANK)
        if not held.any():
            return slots
        late = slots[held]
        # Kept beside `due`, or a mark while it is deferred would make it due, and be counted as put off, once more.
        self._due[late] = self._not_before[late] = opens[held]
        self._deferred += len(late)
        return slots[~held]

    def _rest(self, slots: NDArray[np.int64]) -> None:
        self._due[slots] = self._first[slots] = np.inf
        self._not_before[slots] = -np.inf
        self._ranks[slots] = self._reasons[slots] = 0

    def _reach(self, needed: int) -> None:
        size = room_for(needed, len(self._due))
        self._due, self._first = grown(self._due, size, np.inf), grown(self._first, size, np.inf)
        self._not_before = grown(self._not_before, size, -np.inf)
        self._ranks, self._reasons = grown(self._ranks, size, 0), grown(self._reasons, size, 0)


def _priorities_of(reasons: NDArray[np.uint8]) -> NDArray[np.uint8]:
    market = np.where(reasons & (Reason.PRICE | Reason.SCHEDULE), Priority.MARKET, Priority.BULK)
    return np.where(reasons & Reason.MANUAL, Priority.MANUAL, market).astype(np.uint8)
