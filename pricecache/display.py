"""What a person sees of the daemon's answers: tables and summaries on standard output, progress on standard error."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

_UNBOUNDED = 100_000
"""Columns of a console that is no terminal: a script that cuts words out of a table must find them whole."""


class Follower(Protocol):
    """Is told of each state of a run that is being waited for."""

    def __call__(self, label: str, run: Mapping[str, Any]) -> None: ...


def show_mapping(answer: Mapping[str, Any], title: str | None = None) -> None:
    """Plain facts in a table of two columns, then each nested part under its own name."""
    plain = {key: value for key, value in answer.items() if not _nested(value)}
    if title:
        _console().print(f"\n{title}")
    if plain:
        _two_columns(plain)
    for key, value in answer.items():
        if isinstance(value, Mapping) and value:
            show_mapping(value, _words(key))
        elif isinstance(value, list) and _nested(value):
            show_rows(value, title=_words(key))


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] = (),
    title: str | None = None,
    *,
    most: int = _UNBOUNDED,
) -> None:
    """A table of `columns`, or of all keys in the order they are met in; `most` rows of it. Nothing without rows."""
    if title and rows:
        _console().print(f"\n{title}")
    names = columns or tuple(dict.fromkeys(key for row in rows for key in row))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(_words(name), justify="right" if numeric else "left")
    for row in rows[:most]:
        table.add_row(*(_cell(row.get(name)) for name in names))
    if rows:
        _console().print(table)
    if len(rows) > most:
        _console().print(f"... and {len(rows) - most} more; --json has them all")


def show_run(run: Mapping[str, Any], label: str | None = None) -> None:
    """One line of what became of a run, then what failed in it."""
    seconds = f" in {run['durationMs'] / 1000:.1f} s" if run.get("durationMs") is not None else ""
    counts = ", ".join(_counted(value, _words(name)) for name, value in (run.get("counts") or {}).items())
    what = f"{label or run.get('job') or 'run'} {run['state']}{seconds}"
    _console().print("".join([what, f": {counts}" if counts else "", f" ({run['error']})" if run.get("error") else ""]))
    if run.get("total") == 0 and run.get("message"):
        _console().print(run["message"])
    failures = run.get("failures") or []
    show_rows(failures, title=f"failures ({run.get('failuresTotal') or len(failures)})")


@contextmanager
def progress() -> Iterator[Follower]:
    """A bar for each run that is followed, when standard error is a terminal; else silence."""
    console = Console(stderr=True, markup=False, highlight=False)
    columns = (
        TextColumn("{task.fields[label]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    tasks: dict[str, TaskID] = {}

    def follow(label: str, run: Mapping[str, Any]) -> None:
        if label not in tasks:
            tasks[label] = bars.add_task("", total=None, label=label, note="")
        bars.update(
            tasks[label], total=run.get("total"), completed=run.get("done") or 0, note=str(run.get("message") or "")
        )

    with bars:
        yield follow


def say(text: str) -> None:
    """A line on standard output."""
    print(text)


def complain(text: str) -> None:
    """A line on standard error."""
    print(f"pricecache: {text}", file=sys.stderr)


def _console() -> Console:
    terminal = sys.stdout.isatty()
    return Console(markup=False, highlight=False, emoji=False, width=None if terminal else _UNBOUNDED)


def _two_columns(facts: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for key, value in facts.items():
        table.add_row(_words(key), _cell(value))
    _console().print(table)


def _nested(value: object) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _counted(value: int, what: str) -> str:
    return f"{value} {what.removesuffix('s') if value == 1 and what != 'series' else what}"


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").lower()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(key))} {_cell(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "-"
    return str(value)
