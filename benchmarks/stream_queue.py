"""What the update queue costs: marking 10,000 portfolios, taking them, and the bytes of 1,000 that wait."""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.measure import Row
from pricecache.core.updates import UpdateQueue

SLOTS, PENDING, ROUNDS = 10_000, 1_000, 60


def queue_rows() -> list[Row]:
    """Times beside the aim of 1 ms; the reference of the bytes is the 5 MB that 1,000 pending may take."""
    slots = np.random.default_rng(7).permutation(SLOTS)
    queue, now = UpdateQueue(), 0.0
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        queue.mark(slots, now)
        idle = time.perf_counter()
        queue.mark(slots, now + 1)
        pending = time.perf_counter()
        taken = queue.take(now + 5)
        end = time.perf_counter()
        assert len(taken) == SLOTS
        times.append((idle - begin, pending - idle, end - pending))
        now += 10.0
    marked, again, took = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    small = UpdateQueue()
    for at in (0.0, 10.0):  # the second time each has its ring of starts
        small.take(at)
        small.mark(np.arange(PENDING), at)
    return [
        _aimed("mark of 10,000 idle slots; the aim", marked, 1.0, "ms"),
        _aimed("mark of 10,000 pending slots; the aim", again, 1.0, "ms"),
        _aimed("take of 10,000 slots; the aim", took, 1.0, "ms"),
        _aimed("1,000 pending that were computed before; the aim", small.nbytes / 1e6, 5.0, "MB"),
    ]


def _aimed(what: str, ours: float, aim: float, unit: str) -> Row:
    return Row(what, ours, aim, unit, ours / aim, "the aim", ours <= aim)
