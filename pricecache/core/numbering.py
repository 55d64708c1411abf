"""Where many numbers stand among a few that are known, by a table where that is small."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

TABLE = 1 << 22
"""Entries of a table at most: 16 MB."""
_NO_NUMBER = np.iinfo(np.int64).max


class Numbering:
    """`known`: int64, ascending, each once. Of those from 0 on, all that differ in their lowest `bits` alone lie side
    by side, so the table is by what is above these bits. Immutable."""

    def __init__(self, known: Numbers, bits: int = 0) -> None:
        self.known = known
        self.none = len(known)
        self._padded = np.append(known, _NO_NUMBER)
        self._bits, self._below = bits, int(known.searchsorted(0))
        self._table, self._steps = _table(known[self._below :] >> bits, self._below, self.none)

    @property
    def is_tabled(self) -> bool:
        return self._table is not None

    def places(self, numbers: Numbers) -> NDArray[np.int32]:
        """Of each of these in `known`; `none` for one that is not there."""
        if self._table is None:
            return self._searched(numbers)
        found = self._table.take(numbers >> self._bits, mode="clip")
        for _ in range(self._steps):
            found += self._padded[found] < numbers
        found[self._padded[found] != numbers] = self.none
        if self._below:
            is_below = numbers < 0
            found[is_below] = self._searched(numbers[is_below])
        return found

    def _searched(self, numbers: Numbers) -> NDArray[np.int32]:
        found = self.known.searchsorted(numbers).astype(np.int32)
        found[self._padded[found] != numbers] = self.none
        return found


def _table(upper: Numbers, first: int, none: int) -> tuple[NDArray[np.int32] | None, int]:
    """By what is above the bits the place of the first such number; and how many places on the last may be."""
    if not len(upper) or int(upper[-1]) >= TABLE - 1:
        return None, 0
    starts = np.flatnonzero(np.diff(upper, prepend=-1))
    table = np.full(int(upper[-1]) + 2, none, np.int32)
    table[upper[starts]] = starts + first
    return table, int(np.diff(starts, append=len(upper)).max()) - 1
