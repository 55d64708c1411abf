"""How long messages are gathered: not at all after a quiet moment, else a window that grows with what sending costs."""

from __future__ import annotations

SHARE = 0.3
"""The share of the event loop's time that sending may take."""
WIDEST_SECONDS = 1.0
_QUIET_SECONDS = 2 * WIDEST_SECONDS


class Window:
    """When the next flush is due. Pure; times are of one monotonic clock, in seconds.

    `base`: the narrowest window.
    """

    __slots__ = ("_base", "_began_at", "seconds")

    def __init__(self, base: float) -> None:
        self._base = base
        self._began_at = float("-inf")
        self.seconds = base

    def wait(self, now: float) -> float:
        """Seconds until a flush is due: 0 when none began within the last window."""
        return max(0.0, self._began_at + self.seconds - now)

    def at(self, now: float) -> float:
        """The window as it is then: the narrowest once there has been nothing to send for a while."""
        return self.seconds if now - self._began_at < _QUIET_SECONDS else self._base

    def flushed(self, began_at: float, cost: float) -> None:
        """A flush that began then has held the loop for `cost` seconds in all; the next window follows from it."""
        self._began_at = began_at
        self.seconds = min(WIDEST_SECONDS, max(self._base, cost / SHARE))
