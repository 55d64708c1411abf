"""How late the event loop runs what is due: a timer that is always set, and by how much it is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pricecache.clock import Clock

_WINDOW = 60.0


class LoopWatch:
    """Measures the lag of the loop it is started on. Loop-only.

    A timer falls due every `interval` seconds; a stall shows as the time by which it runs late. What part of a stall
    lies before the timer is due is not seen, so a lag is short of its stall by `interval` at most: 50 ms cost 0.25 %
    of a processor, a measurement wants less. `observe` is called with every lag, in seconds. `worst` is the longest
    lag since the start or the last `reset`.
    """

    def __init__(self, clock: Clock, observe: Callable[[float], None], *, interval: float = 0.05) -> None:
        self._clock = clock
        self._observe = observe
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._window_ends = 0.0
        self._window = (0.0, 0.0)
        self.worst = 0.0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._window_ends = self._clock.monotonic() + _WINDOW
        self._wait()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reset(self) -> None:
        """Forget the lags so far, as before a measurement."""
        self.worst = 0.0
        self._window = (0.0, 0.0)

    def recent_worst(self) -> float:
        """The longest lag of the last one to two minutes, in seconds."""
        return max(self._window)

    def _wait(self) -> None:
        self._due = self._clock.monotonic() + self._interval
        self._timer = self._loop.call_later(self._interval, self._tick)

    def _tick(self) -> None:
        now = self._clock.monotonic()
        lag = max(0.0, now - self._due)
        if now >= self._window_ends:
            self._window = (self._window[1], 0.0)
            self._window_ends = now + _WINDOW
        self._window = (self._window[0], max(self._window[1], lag))
        self.worst = max(self.worst, lag)
        self._observe(lag)
        self._wait()
