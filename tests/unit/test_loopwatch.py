"""Lag of the event loop: a stall is seen, its length about right, and forgotten in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from pricecache.clock import SystemClock
from pricecache.loopwatch import LoopWatch


class JumpingClock(SystemClock):
    """Its monotonic time is what the test says."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def lags() -> asyncio.Queue[float]:
    return asyncio.Queue()


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
async def watch(clock: JumpingClock, lags: asyncio.Queue[float]) -> AsyncIterator[LoopWatch]:
    watch = LoopWatch(clock, lags.put_nowait, interval=0.001)
    watch.start()
    yield watch
    watch.stop()


async def late(lags: asyncio.Queue[float]) -> float:
    """The next lag that is one: on a busy machine a timer may have run in time before the clock jumped."""
    while not (lag := await lags.get()):
        pass
    return lag


async def test_a_real_stall_is_measured(lags: asyncio.Queue[float]) -> None:
    watch = LoopWatch(SystemClock(), lags.put_nowait, interval=0.005)
    watch.start()
    until = time.perf_counter() + 0.05
    while time.perf_counter() < until:
        pass
    lag = await lags.get()
    watch.stop()
    assert watch.worst == lag >= 0.044


async def test_the_lag_is_what_the_timer_ran_late(
    watch: LoopWatch, clock: JumpingClock, lags: asyncio.Queue[float]
) -> None:
    clock.at += 0.251
    assert await late(lags) == pytest.approx(0.25)
    assert watch.worst == pytest.approx(0.25)


async def test_a_loop_in_time_has_no_lag(watch: LoopWatch, lags: asyncio.Queue[float]) -> None:
    assert [await lags.get() for _ in range(3)] == [0, 0, 0]


async def test_a_lag_stands_for_a_minute_at_least_and_two_at_most(
    watch: LoopWatch, clock: JumpingClock, lags: asyncio.Queue[float]
) -> None:
    clock.at += 500
    await late(lags)
    clock.at += 61
    await late(lags)
    assert watch.recent_worst() == pytest.approx(500, rel=1e-3)
    clock.at += 61
    await late(lags)
    assert watch.recent_worst() == pytest.approx(61, rel=1e-3)
    assert watch.worst == pytest.approx(500, rel=1e-3)


async def test_a_reset_begins_a_measurement(watch: LoopWatch, clock: JumpingClock, lags: asyncio.Queue[float]) -> None:
    clock.at += 1
    await late(lags)
    watch.reset()
    await lags.get()
    assert (watch.worst, watch.recent_worst()) == (0, 0)


async def test_a_stopped_watch_leaves_no_timer(watch: LoopWatch, clock: JumpingClock) -> None:
    others: asyncio.Queue[float] = asyncio.Queue()
    running = LoopWatch(clock, others.put_nowait, interval=0.001)
    watch.stop()
    running.start()
    clock.at += 1
    for _ in range(3):
        await others.get()
    running.stop()
    assert watch.worst == 0
