"""When slots were last begun, and from when on each may be begun again: at most so many times in any minute."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

WINDOW_SECONDS = 60.0
_SMALLEST = 16

T = TypeVar("T", bound=np.generic)


class RateWindows:
    """The last `most` starts of each slot, in a ring of its own: a sliding window, not a bucket that fills.

    Slots are small ints, without repetition in one call; instants are seconds of a clock that never goes back. A window
    holds the starts of (t - 60 s, t], so a start leaves it exactly 60 s later. Only slots that were begun have a ring.
    `most` is at least 1. Pure; used by one thread at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ring_of: NDArray[np.int32] = np.empty(0, np.int32)
        self._starts: NDArray[np.float64] = np.empty((0, most))
        self._oldest: NDArray[np.int32] = np.empty(0, np.int32)
        self._made = 0
        self._free: list[int] = []

    @property
    def nbytes(self) -> int:
        return self._ring_of.nbytes + self._starts.nbytes + self._oldest.nbytes

    def open_at(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """From when on there is a place for each: float64, shape of `slots`, -inf where it never was full."""
        self._reach(slots)
        opens = np.full(len(slots), -np.inf)
        if self._made:
            rings = self._ring_of[slots]
            known = rings >= 0
            rings = rings[known]
            opens[known] = self._starts[rings, self._oldest[rings]] + WINDOW_SECONDS
        return opens

    def begin(self, slots: NDArray[np.int64], now: float) -> None:
        """Each of `slots` begins, whether there is a place for it or not."""
        self._reach(slots)
        new = slots[self._ring_of[slots] < 0]
        if len(new):
            self._ring_of[new] = self._new_rings(len(new))
        rings = self._ring_of[slots]
        self._starts[rings, self._oldest[rings]] = now
        self._oldest[rings] = (self._oldest[rings] + 1) % self._most

    def forget(self, slot: int) -> None:
        """The slot was never begun."""
        if slot < len(self._ring_of) and (ring := int(self._ring_of[slot])) >= 0:
            self._ring_of[slot] = -1
            self._starts[ring] = -np.inf
            self._free.append(ring)

    def in_use(self, now: float) -> tuple[int, int]:
        """How many slots have starts in the window that ends `now`, and how many of these have no place left."""
        inside = self._starts[: self._made] + WINDOW_SECONDS > now
        return int(np.count_nonzero(inside.any(axis=1))), int(np.count_nonzero(inside.all(axis=1)))

    def _new_rings(self, count: int) -> NDArray[np.int32]:
        again = [self._free.pop() for _ in range(min(count, len(self._free)))]
        made = self._made + count - len(again)
        size = room_for(made, len(self._oldest))
        self._starts, self._oldest = grown(self._starts, size, -np.inf), grown(self._oldest, size, 0)
        rings = np.r_[np.array(again, np.int32), np.arange(self._made, made, dtype=np.int32)]
        self._made = made
        return rings

    def _reach(self, slots: NDArray[np.int64]) -> None:
        if len(slots):
            self._ring_of = grown(self._ring_of, room_for(int(slots.max()) + 1, len(self._ring_of)), -1)


def room_for(needed: int, size: int) -> int:
    """`size`, or if that is less than `needed` the next power of two that is not."""
    return size if needed <= size else max(_SMALLEST, 1 << (needed - 1).bit_length())


def grown(array: NDArray[T], size: int, fill: float) -> NDArray[T]:
    """`array` itself when it has `size` rows, or else a copy with further rows of `fill` up to that."""
    if size == len(array):
        return array
    larger = np.full((size, *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger
