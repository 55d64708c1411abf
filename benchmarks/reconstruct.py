"""`scripts/bench reconstruct`: what reconstructing users costs, each figure beside a named reference of the same run.

Each part is a module whose `rows()` gives its table. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import import_module

import numpy as np

from benchmarks.measure import load, print_table

PARTS = {
    "users": (
        "A user of three accounts and two years, from the post to the stored history",
        "benchmarks.reconstruct_users",
    ),
    "loop": ("100,000 rows: how long the event loop is held", "benchmarks.reconstruct_stalls"),
    "memory": ("Six long posts at once: what the daemon takes", "benchmarks.reconstruct_memory"),
    "mapping": ("Securities mapped", "benchmarks.reconstruct_mapping"),
    "snapshots": ("End-of-day snapshots of 100,000 portfolios", "benchmarks.reconstruct_snapshots"),
    "simulation": ("Prices of 1,000,000 users; each user fetching their own", "benchmarks.reconstruct_simulation"),
}
"""By name: the title of its table, and the module."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench reconstruct", description=__doc__)
    parser.add_argument("--only", choices=[*PARTS], action="append", help="only this part; may be given twice")
    chosen = parser.parse_args().only or [*PARTS]
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, load {load()}", file=sys.stderr)
    for name, (title, module) in PARTS.items():
        if name in chosen:
            print_table(title, import_module(module).rows())


if __name__ == "__main__":
    main()
