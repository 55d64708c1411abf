"""How commands talk: what was named on the command line, runs followed, answers shown, exit codes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pricecache import display
from pricecache.client import Daemon, Refusal
from pricecache.core.instruments import Instrument
from pricecache.errors import Invalid

DONE, FAILED, USAGE = 0, 1, 2
"""Exit codes."""
MEDIA = {"csv": "text/csv", "json": "application/json"}
MOST_LISTED = 5000
"""Rows that are asked for at once."""
QUOTED_ROWS = 20
"""Rows that are shown where there may be many."""


def print_json(answer: object) -> int:
    """Print what the daemon answered, for programs; returns `DONE`."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    return DONE


def follow(
    daemon: Daemon, started: Sequence[tuple[str, dict[str, Any]]], options: argparse.Namespace, *, many: bool = False
) -> int:
    """Show runs, `started` by their labels, when they have ended, or at once with `--no-wait`; the worst exit code."""
    if not options.no_wait:
        started = finished(daemon, started)
    runs = [run for _, run in started]
    if options.json:
        print_json({"runs": runs} if many else runs[0])
    else:
        for label, report in started:
            display.show_run(report, label)
    return max((outcome_of(report) for report in runs), default=DONE)


def finished(daemon: Daemon, started: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Wait for runs, showing how far they are; their last reports, by label."""
    reports = []
    with display.progress() as follower:
        for label, run in started:
            report = run
            for report in daemon.follow(run):
                follower(label, report)
            reports.append((label, report))
    return reports


def outcome_of(report: dict[str, Any]) -> int:
    """The exit code for a run; one that goes on is no failure."""
    if report["state"] in ("queued", "running"):
        return DONE
    clean = report["state"] == "succeeded" and not (report.get("failuresTotal") or report.get("failures"))
    return DONE if clean else FAILED


def instruments_named(options: argparse.Namespace) -> list[Instrument]:
    """Those that stand on the command line. Raises `Invalid` for a symbol that cannot be one."""
    return [instrument_named(symbol, options.market) for symbol in options.symbols]


def instrument_named(symbol: str, market: str | None) -> Instrument:
    """Raises `Invalid` for a symbol that cannot be one."""
    return Instrument.parse_in(symbol, market)


def named(instruments: Iterable[Instrument]) -> list[dict[str, str]]:
    """As a body of the API names them."""
    return [{"symbol": instrument.symbol, "market": instrument.market} for instrument in instruments]


def exit_code_of(refusal: Refusal) -> int:
    """`USAGE` when the request was at fault."""
    return USAGE if refusal.status in (400, 422) else FAILED


def place_of(row: dict[str, Any]) -> str:
    """The place of a fault as whoever wrote the file looks for it."""
    column = row.get("column") or row.get("field")
    if "path" in row:
        return str(row["path"])
    if "line" in row:
        return f"line {row['line']}" + (f", {column}" if column else "")
    return str(column or row.get("row", ""))


def content_of(file: str) -> bytes:
    """Of a file, or of standard input for `-`. Raises `Invalid` when it cannot be read."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as exc:
        raise Invalid(f"{file} cannot be read: {exc.strerror or exc}.") from exc
