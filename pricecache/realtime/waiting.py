"""Portfolios that wait to be summed up from their ledgers, those first that somebody waits for."""

from __future__ import annotations


class Waiting:
    """Slots with why they wait, as bits of `Reason`, in two queues: each is taken in the order in which it came.
    Every call takes as long however many there are. Loop-only."""

    def __init__(self) -> None:
        self._urgent: dict[int, int] = {}
        self._others: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def add(self, slot: int, reasons: int, *, is_urgent: bool) -> None:
        """One that waits already keeps its place, and is urgent once it was."""
        if slot in self._urgent:
            self._urgent[slot] |= reasons
        elif is_urgent:
            self._urgent[slot] = self._others.pop(slot, 0) | reasons
        else:
            self._others[slot] = self._others.get(slot, 0) | reasons

    def hurry(self, slot: int) -> None:
        """Somebody waits for it now, if it waits."""
        if slot in self._others:
            self._urgent[slot] = self._others.pop(slot)

    def take(self) -> tuple[int, int] | None:
        """The next one and its reasons; it waits no more."""
        queue = self._urgent or self._others
        if not queue:
            return None
        slot = next(iter(queue))
        return slot, queue.pop(slot)

    def drop(self, slot: int) -> None:
        self._urgent.pop(slot, None)
        self._others.pop(slot, None)
