"""`scripts/bench prices`: what the price cache costs, each figure beside a named reference measured in the same run.

Nothing is asserted: the machine decides the figures, the ratios tell. `--only NAME` runs one part of it.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable

from benchmarks import http_answers, live_cache, price_store, stalls, starting
from benchmarks.databases import on_a_mongod
from benchmarks.measure import Row, load, print_table
from pricecache import logs


def store() -> list[Row]:
    """Reads and ingest, on a private mongod of its own."""
    return on_a_mongod(price_store.run)


PARTS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "http": ("Answers over HTTP; a bare aiohttp handler that returns the same bytes", http_answers.run),
    "store": ("Bars on MongoDB; plain pymongo on a time-series collection of the same rows", store),
    "live": ("Live cache; a dictionary", live_cache.run),
    "start": ("Start; an empty aiohttp daemon", starting.run),
    "loop": ("Event loop", stalls.run),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench prices", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="run one part")
    chosen = parser.parse_args(arguments).only
    logs.configure("warning")
    print(f"Python {platform.python_version()}, {load()}")
    for name, (title, run) in PARTS.items():
        if chosen in (None, name):
            print_table(title, run())
    print(f"\nat the end: {load()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
