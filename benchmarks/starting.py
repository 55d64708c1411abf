"""From the start of the process to the first answer, against an aiohttp daemon that does nothing else."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.http_answers import KEY, weekdays
from benchmarks.measure import Row, row
from benchmarks.processes import free_port, get, running, wait_for, write_csv
from pricecache.stores.embedded import PrivateMongod

ROUNDS = 9
SYMBOLS, BARS = 500, 2500


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = filled(folder)
        alive, ready = [], []
        for _ in range(ROUNDS):
            ours, ready_after = started(environment)
            alive.append((ours, empty_daemon()))
            ready.append((ready_after, mongod_alone(environment)))
    what = f"/readyz from the start, {SYMBOLS} x {BARS:,} bars; its mongod alone"
    median = row(what, ready, "ms")
    later = median.ours - median.reference
    return [
        row("first /healthz", alive, "ms", most=1.7),
        replace(median, goal=f"under 1,000 ms after mongod (is {later:.0f})", met=later < 1000),
    ]


def started(environment: dict[str, str]) -> tuple[float, float]:
    """Milliseconds from the start of a daemon to its first `/healthz` and to `/readyz`."""
    port = free_port()
    begin = time.perf_counter()
    with running(["-m", "pricecache", "serve"], environment | {"PRICECACHE_PORT": str(port)}, pinned=False):
        wait_for(port, "/healthz")
        alive = time.perf_counter() - begin
        wait_for(port, "/readyz")
        return alive * 1e3, (time.perf_counter() - begin) * 1e3


def mongod_alone(environment: dict[str, str]) -> float:
    """Milliseconds until the same mongod on the same data is writable, with nothing else going on."""

    async def ready() -> float:
        mongod = PrivateMongod(Path(environment["PRICECACHE_DATA_DIR"]))
        begin = time.perf_counter()
        await mongod.start()
        took = time.perf_counter() - begin
        await mongod.stop()
        return took * 1e3

    return asyncio.run(ready())


def empty_daemon() -> float:
    port = free_port()
    begin = time.perf_counter()
    with running(["-m", "benchmarks.reference_server", str(port)], pinned=False):
        wait_for(port, "/healthz")
        return (time.perf_counter() - begin) * 1e3


def filled(folder: Path) -> dict[str, str]:
    """The environment of a daemon whose database holds 500 symbols."""
    (folder / "csv").mkdir()
    names = [f"S{i:03}" for i in range(SYMBOLS)]
    days = weekdays(BARS + 100)
    for name in names:
        write_csv(folder / "csv", name, days)
    environment = {
        "PRICECACHE_DATA_DIR": str(folder / "data"),
        "PRICECACHE_PROVIDERS": "csv",
        "PRICECACHE_CSV_DIR": str(folder / "csv"),
        "PRICECACHE_API_KEYS": "bench:read:bench-secret,boss:admin:boss-secret",
        "PRICECACHE_BACKFILL_DAYS": "4000",
    }
    port = free_port()
    with running(
        ["-m", "pricecache", "serve"],
        environment | {"PRICECACHE_PORT": str(port), "PRICECACHE_SYMBOLS": ",".join(names)},
    ):
        wait_for(port, "/readyz")
        for _ in range(1200):
            status, body = get(port, "/cache/coverage", KEY)
            if (
                status == 200
                and body.count(b'"pending"') == 0
                and body.count(b'"bars":0') == 0
                and body.count(b'"symbol"') == SYMBOLS
            ):
                return environment
            time.sleep(0.5)
    raise TimeoutError("the symbols were not filled")


if __name__ == "__main__":
    from benchmarks.measure import load, print_table

    print(load())
    print_table("prices: start", run())
