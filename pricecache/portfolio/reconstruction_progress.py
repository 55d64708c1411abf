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
OWN_SECONDS = 1.0
"""How long what comes after the prices may take, measured for a hundred securities."""
MEASURED_SECONDS = 1.0
"""How long securities have to come one after another before their pace is known."""


class Pace:
    """How fast securities get their prices, from the first that came on: what comes before that, as the building of a
    calendar, says nothing of it. Pure. Times are those of a clock, in seconds."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def note(self, at: float, done: int) -> None:
        """So many have their prices; those that have them at the first time were there before."""
        if self._last is None:
            self._last = at, done
        elif done > self._last[1]:
            self._last = at, done
            self._began = self._began or self._last

    def left(self, now: float, total: int) -> float | None:
        """In how many seconds all have them; None while nobody can tell. While none comes it is less and less, but not
        less than those take that come after the next."""
        if self._last is not None and self._last[1] >= total:
            return 0.0
        if self._began is None or self._last is None or self._last[0] - self._began[0] < MEASURED_SECONDS:
            return None
        each = (self._last[0] - self._began[0]) / (self._last[1] - self._began[1])
        return each * (total - self._last[1]) - min(now - self._last[0], each)


class ProgressTeller:
    """Belongs to one attempt. Loop-only."""

    def __init__(self, tell: Callable[[Progress], object], clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._entered = clock.monotonic()
        self._stage = ""
        self._done, self._total = 0, 0
        self._security: str | None = None
        self._pace = Pace()
        self._priced_at: float | None = None
        self.seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """It has come to this stage."""
        self._leave()
        self._stage, self._entered = name, self._clock.monotonic()
        if name == "walking":
            self._priced_at = self._entered
        low, _, message = STAGES[name]
        self._say(low, message, None)

    def securities(self, done: int, total: int, security: str | None) -> None:
        """So many securities have their prices; `security` is the one that got them last, None: the one told before."""
        self._done, self._total = done, total
        self._security = security = security or self._security
        self._pace.note(self._clock.monotonic(), done)
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
        left = self._left()
        eta = None if left is None else round(left, 1)
        self._tell(Progress(percent, self._stage, message, security, self._done, self._total or None, eta))

    def _left(self) -> float | None:
        now = self._clock.monotonic()
        if self._priced_at is not None:  # what goes on for longer waits for something
            left = self._priced_at + OWN_SECONDS - now
            return left if left > 0 else None
        left_of_prices = self._pace.left(now, self._total) if self._stage == "prices" and self._total else None
        return None if left_of_prices is None else left_of_prices + OWN_SECONDS
