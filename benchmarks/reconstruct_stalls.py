"""How long the event loop is held while 100,000 rows are reconstructed, and again with other ids for a third of them.

Who sleeps for a millisecond over and over tells how late it is woken. On a machine that others use the clock tells of
them, too: what the process computed within the same gap, all its threads together, says what of it is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.broker_users import payload
from benchmarks.databases import on_a_mongod
from benchmarks.measure import Row
from benchmarks.reconstruct_users import LONG, LONG_ROWS, TODAY, Daemon
from pricecache import garbage, logs
from pricecache.app import SWITCH_SECONDS

PAUSE = 0.001
GOAL = 30.0
"""Milliseconds."""


class Gaps:
    """How late a pause ended, in milliseconds by the clock, with what the process computed within."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []

    @contextlib.asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        while True:
            clock, processor = time.perf_counter(), time.process_time()
            await asyncio.sleep(PAUSE)
            self.found.append((
                (time.perf_counter() - clock - PAUSE) * 1e3, (time.process_time() - processor) * 1e3,
            ))  # fmt: skip

    def rows(self, what: str) -> list[Row]:
        clock, processor = max(self.found)
        computed = max(one for _, one in self.found)
        held = sum(one > GOAL for one, _ in self.found)
        return [
            Row(what, clock, GOAL, "ms", clock / GOAL, f"under {GOAL:g} ms", clock < GOAL),
            Row("  computed within it, by all threads", processor, clock, "ms", processor / clock, "", None),
            Row("  most that was computed within any gap", computed, GOAL, "ms", computed / GOAL, "", None),
            Row(f"  gaps longer than {GOAL:g} ms, of all", held, len(self.found), "", held / len(self.found), "", None),
        ]


def rows() -> list[Row]:
    return on_a_mongod(_measured)


async def _measured(database: AsyncDatabase[dict[str, Any]], uri: str) -> list[Row]:
    logs.configure("warning")
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)  # as the daemon does
    try:
        async with Daemon(database).running() as daemon:
            await daemon.user(0, daemon.market.count)  # so that everything is mapped for somebody
            first = payload("long", 0, daemon.market, TODAY, LONG, LONG_ROWS)
            bodies = [json.dumps(one).encode() for one in (first, _with_other_ids(first))]
            del first
            garbage.exempt_what_is_there()
            found: list[Row] = []
            for body, what in zip(bodies, ("the first post", "another one, a third of the ids new"), strict=True):
                gaps = Gaps()
                async with gaps.measured():
                    record = await daemon.posted("long", body)
                assert record.state == "done", record
                found += gaps.rows(f"longest stall: {what}")
            return found
    finally:
        sys.setswitchinterval(before)


def _with_other_ids(given: dict[str, Any]) -> dict[str, Any]:
    """Of every third row."""
    name = "investment_transaction_id"
    rows = [
        row if number % 3 else {**row, name: f"{row[name]}-anew"}
        for number, row in enumerate(given["investment_transactions"])
    ]
    return {**given, "investment_transactions": rows}
