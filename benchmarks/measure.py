"""How the benchmarks measure: two ways in turn, many rounds, medians, and the ratio pair by pair."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. `ours` and `reference` in `unit`; `goal` in words; `ratio` ours ÷ reference."""

    what: str
    ours: float
    reference: float
    unit: str
    ratio: float
    goal: str
    met: bool | None


def row(what: str, pairs: list[tuple[float, float]], unit: str, *, most: float | None = None,
        least: float | None = None, rate: bool = False) -> Row:  # fmt: skip
    """From pairs of (ours, reference) measured in turn. Goals are on the median ratio.

    `rate` says that the figures are rates (bigger is better) and not times.
    """
    ratio = statistics.median(a / b for a, b in pairs)
    goal = f"at most {most:g} x" if most is not None else f"at least {least:g} x" if least is not None else ""
    met = ratio <= most if most is not None else ratio >= least if least is not None else None
    return Row(
        what, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), unit, ratio, goal, met
    )


def in_turn(
    ours: Callable[[], object], reference: Callable[[], object], rounds: int, scale: float = 1e3
) -> list[tuple[float, float]]:
    """Time both, alternating. Returns pairs in seconds × `scale`."""
    pairs = []
    for _ in range(rounds):
        times = []
        for call in (ours, reference):
            begin = time.perf_counter()
            call()
            times.append((time.perf_counter() - begin) * scale)
        pairs.append((times[0], times[1]))
    return pairs


async def in_turn_async(
    ours: Callable[[], Awaitable[object]], reference: Callable[[], Awaitable[object]], rounds: int, scale: float = 1e3
) -> list[tuple[float, float]]:
    """The same for coroutines."""
    pairs = []
    for _ in range(rounds):
        times = []
        for call in (ours, reference):
            begin = time.perf_counter()
            await call()
            times.append((time.perf_counter() - begin) * scale)
        pairs.append((times[0], times[1]))
    return pairs


def print_table(title: str, rows: list[Row]) -> None:
    print(f"\n{title}")
    width = max(len(r.what) for r in rows)
    print(f"  {'':{width}}  {'ours':>12}  {'reference':>12}  {'unit':8}  {'ratio':>7}  goal")
    for r in rows:
        verdict = "" if r.met is None else ("  met" if r.met else "  MISSED")
        print(f"  {r.what:{width}}  {r.ours:12.4g}  {r.reference:12.4g}  {r.unit:8}  {r.ratio:7.3f}  {r.goal}{verdict}")


def load() -> str:
    """The machine's load, for the head of a table."""
    return f"{os.cpu_count()} cores, load average {', '.join(f'{x:.2f}' for x in os.getloadavg())}"
