"""How far a reconstruction has come, in percent of all of it, and what a person is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pricecache.clock import Clock
from pricecache.stores.reconstructions import Progress

STAGES: Mapping[str, tuple[int, int, str]] = {
    "reading": (0, 3, "Reading what the broker said"),
    "mapping": (3, 10, "Finding out what the securities are"),
    "prices": (10, 85, "Fetching prices"),
    "walking": (85, 90, "Walking back through the transactions"),
    "storing": (90, 96, "Storing the transactions"),
    "materialising": (96, 100, "Computing the history"),
}
"""By name: from and to how many percent each goes, and what is said of it."""
TELLING_FROM = 5
"""Percent before which nobody can tell how long it takes."""


class ProgressTeller:
    """Belongs to one attempt. Loop-only."""

    def __init__(self, tell: Callable[[Progress], object], clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._began = clock.monotonic()
        self._entered = self._began
        self._stage = ""
        self._done, self._total = 0, 0
        self._security: str | None = None
        self.seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """It has come to this stage."""
        self._leave()
        self._stage, self._entered = name, self._clock.monotonic()
        low, _, message = STAGES[name]
        self._say(low, message, None)

    def securities(self, done: int, total: int, security: str | None) -> None:
        """So many securities have their prices; `security` is the one that got them last, None: the one told before."""
        self._done, self._total = done, total
        self._security = security = security or self._security
        low, high, message = STAGES["prices"]
        percent = low + (high - low) * done // max(total, 1)
        if security is not None:
            message = f"Processing {security}, {done} of {total} securities, {percent} %"
        self._say(percent, message, security)

    def end(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._stage:
            self.seconds[self._stage] = self._clock.monotonic() - self._entered

    def _say(self, percent: int, message: str, security: str | None) -> None:
        elapsed = self._clock.monotonic() - self._began
        left = elapsed * (100 - percent) / percent if percent >= TELLING_FROM and elapsed > 0 else None
        eta = None if left is None else round(left, 1)
        self._tell(Progress(percent, self._stage, message, security, self._done, self._total or None, eta))
