"""A folder of csv files with the faults that vendors' files have, for the chapters of the manual about such.

The last sessions of the New York exchange before now; a quiet walk about 76, and in each file one thing that is wrong.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from pricecache.calendars import build
from pricecache.core.bars import day_of
from pricecache.core.sessions import SessionCalendar

SYMBOLS = ("ACME", "BOLT", "COIL", "DRUM", "EDGE", "FB")
RESTATED = ("DRUM", "EDGE")
SESSIONS = 60
BACKFILL_DAYS = 75
"""So far back that fewer sessions are wanted than the files have."""

Row = list[float]


def write(folder: Path) -> None:
    """The files as the daemon finds them first."""
    rows = _walk()
    _save(folder, "ACME", _with(_with(rows, -10, [100, 100, 100, 100, 1]), -20, [1, 1, 1, 1.05, 1]))
    _save(folder, "BOLT", _with(rows, -8, [3, 3, 3, 3, 1]))
    _save(folder, "COIL", [rows[-7] if place in (-6, -5, -4) else rows[place] for place in range(-SESSIONS, 0)])
    for symbol in ("DRUM", "EDGE", "FB"):
        _save(folder, symbol, rows)


def restate(folder: Path) -> None:
    """The files as the vendor sends them later: DRUM in other units, EDGE with one close corrected."""
    rows = _walk()
    _save(folder, "DRUM", [[0.5 * value for value in row[:4]] + [2 * row[4]] for row in rows])
    _save(folder, "EDGE", _with(rows, -5, [1, 1, 1, 1.002, 1.01]))


def _walk() -> list[Row]:
    rows = []
    for place in range(SESSIONS):
        close = 76 + (place * 7 % 11) / 4
        rows.append([close - 0.25, close + 0.75, close - 1, close, 1_000_000 + 10_000 * (place % 9)])
    return rows


def _with(rows: list[Row], place: int, factors: Row) -> list[Row]:
    changed = [list(row) for row in rows]
    changed[place] = [value * factor for value, factor in zip(rows[place], factors, strict=True)]
    return changed


def _save(folder: Path, symbol: str, rows: list[Row]) -> None:
    lines = ["date,open,high,low,close,volume"]
    lines += [
        f"{day},{','.join(f'{value:.2f}' for value in row[:4])},{row[4]:.0f}"
        for day, row in zip(_sessions(), rows, strict=True)
    ]
    (folder / f"{symbol}.csv").write_text("\n".join(lines) + "\n")


@cache
def _sessions() -> list[str]:
    calendar = asyncio.run(_calendar())
    over = calendar.closes < time.time()
    return [day_of(session).isoformat() for session in calendar.sessions[over][-SESSIONS:].tolist()]


async def _calendar() -> SessionCalendar:
    (calendar,) = [calendar async for calendar in build(["XNYS"], datetime.now(UTC).date() + timedelta(days=7))]
    return calendar
