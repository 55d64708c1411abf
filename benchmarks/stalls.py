"""How long the event loop is held while everything happens at once: a first sync, reads, pages of status."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks.http_answers import KEY, weekdays
from benchmarks.measure import Row
from benchmarks.processes import free_port, get, running, wait_for, write_csv

SYMBOLS, BARS = 150, 2500
PATHS = ("/cache/live/S000", "/cache/historical/S001?period=5Y", "/cache/coverage", "/cache/status", "/metrics")


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "csv").mkdir()
        names = [f"S{i:03}" for i in range(SYMBOLS)]
        days = weekdays(BARS + 100)
        for name in names:
            write_csv(folder / "csv", name, days)
        port = free_port()
        environment = {
            "PRICECACHE_DATA_DIR": str(folder / "data"),
            "PRICECACHE_PORT": str(port),
            "PRICECACHE_PROVIDERS": "csv",
            "PRICECACHE_CSV_DIR": str(folder / "csv"),
            "PRICECACHE_API_KEYS": "bench:ops:bench-secret",
            "PRICECACHE_BACKFILL_DAYS": "4000",
            "PRICECACHE_SYMBOLS": ",".join(names),
        }
        with running(["-m", "pricecache", "serve"], environment, pinned=False):
            wait_for(port, "/readyz")
            quiet = lag(port)
            busy(port)
            worst = lag(port)
    return [
        Row(
            "longest lag of the loop, first sync under load; start",
            worst,
            quiet,
            "ms",
            worst / quiet,
            "under 30 ms",
            worst < 30,
        )
    ]


def busy(port: int) -> None:
    """Read everything over and over, at a pace that leaves the processors room, until all symbols are filled."""
    for _ in range(20_000):
        for path in PATHS:
            get(port, path, KEY)
            time.sleep(0.01)
        rows = json.loads(get(port, "/cache/coverage", KEY)[1])["symbols"]
        if len(rows) == SYMBOLS and all(row["bars"] for row in rows):
            return
    raise TimeoutError("the symbols were not filled")


def lag(port: int) -> float:
    """The longest lag of the last minute or two, in milliseconds, as the daemon itself measures it."""
    for line in get(port, "/metrics", KEY)[1].decode().splitlines():
        if line.startswith("pricecache_event_loop_lag_max_seconds "):
            return float(line.split()[1]) * 1e3
    raise LookupError("no such metric")


if __name__ == "__main__":
    from benchmarks.measure import load as machine_load
    from benchmarks.measure import print_table

    print(machine_load())
    print_table("prices: event loop", run())
