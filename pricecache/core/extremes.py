"""The highest and the lowest change of the day of many portfolios, as they were told."""

from __future__ import annotations

import numpy as np

from pricecache.core.live_matrix import Numbers
from pricecache.core.livebook import LiveBook


class Extremes:
    """Follows the changes of a book. Loop-only.

    Of the change and not of the value, so that a deposit is no high: the highest value is what there was before, with
    what came in since, and the highest change. Rounded as the change is that is told.
    """

    def __init__(self, book: LiveBook) -> None:
        self._book = book
        self._high, self._low = np.full((2, 0), np.nan)

    def track(self) -> Numbers:
        """After each `revalue` of the book. Returns the slots whose high or low moved, in order.

        The changes of all are looked at before rounding; only where one may be beyond what is known, by what rounding
        can do, is the change worked out that is told.
        """
        change = self._book.change
        self._grow(len(change))
        slack = self._book.slack
        high, low = self._high[: len(change)], self._low[: len(change)]
        within = (change <= high - slack) & (change >= low + slack)
        near = np.flatnonzero(~within & ~np.isnan(change))
        if not len(near):
            return near
        told = self._book.changes(near)
        moved = ~((told <= self._high[near]) & (told >= self._low[near])) & ~np.isnan(told)
        self._high[near], self._low[near] = np.fmax(told, self._high[near]), np.fmin(told, self._low[near])
        return near[moved]

    def range(self, slot: int) -> tuple[float, float] | None:
        """The highest and the lowest change; None before there was one."""
        if slot >= len(self._high) or np.isnan(self._high[slot]):
            return None
        return float(self._high[slot]), float(self._low[slot])

    def set_range(self, slot: int, high: float, low: float) -> None:
        """What was known of it before."""
        self._grow(slot + 1)
        self._high[slot], self._low[slot] = high, low

    def restart(self, slot: int) -> None:
        """A new session begins, or another portfolio is in `slot`."""
        self._grow(slot + 1)
        self._high[slot] = self._low[slot] = np.nan

    def _grow(self, size: int) -> None:
        missing = size - len(self._high)
        if missing > 0:
            unknown = np.full(missing, np.nan)
            self._high, self._low = np.concatenate([self._high, unknown]), np.concatenate([self._low, unknown])
