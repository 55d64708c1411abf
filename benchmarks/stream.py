"""`scripts/bench stream`: what real time costs, each figure beside a named reference of the same run.

Prices that revalue portfolios, the queue before that, and the stream behind it. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import platform
import sys

import numpy as np

from benchmarks import stream_fanout, stream_queue, stream_revaluation
from benchmarks.measure import load, print_table

PARTS = ("queue", "revaluation", "fanout")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench stream", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given twice")
    chosen = parser.parse_args().only or PARTS
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, load {load()}", file=sys.stderr)
    if "queue" in chosen:
        print_table("The update queue", stream_queue.queue_rows())
    if "revaluation" in chosen:
        print_table("Revaluation: 10,000 portfolios of 50 positions, 500 symbols", stream_revaluation.rows())
    if "fanout" in chosen:
        notes: list[str] = []
        table = stream_fanout.rows(notes.append)
        print_table("The stream", table)
        print("\n".join(notes))


if __name__ == "__main__":
    main()
