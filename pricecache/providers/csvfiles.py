"""Prices from a folder of CSV files, one for each instrument. No network."""

from __future__ import annotations

import csv
import io
import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from cachetools import LRUCache

from pricecache.clock import Clock
from pricecache.core.actions import Action
from pricecache.core.asking import Capability, Found, Pace
from pricecache.core.bars import CLOSE, DAY_SECONDS, FIELDS, HIGH, LOW, OPEN, VOLUME, Bars, day_number
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.errors import (
    Misconfigured,
    ProviderAnswerBad,
    ProviderError,
    ProviderUnavailable,
    SymbolNotFound,
    Unavailable,
)
from pricecache.providers.base import History, Quotes
from pricecache.providers.spelling import csv_names, from_csv

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_KEPT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _File:
    """What a file says, whatever the time: every usable row."""

    stamp: tuple[int, int]
    bars: Bars
    actions: tuple[Action, ...]
    rejected: tuple[tuple[int | None, str], ...]

    @property
    def nbytes(self) -> int:
        return self.bars.nbytes + 200 * (len(self.actions) + len(self.rejected)) + 500


class CsvProvider:
    """Bars, splits and dividends from `folder`. Thread-safe.

    `SYMBOL.csv` is an instrument of market US, `SYMBOL_MARKET.csv` one of any other (`AAPL.csv`, `SAP_DE.csv`,
    `EURUSD=X_FX.csv`): upper case, UTF-8, comma-separated. A class of shares is `BRK.B.csv` or `BRK-B.csv`, a number
    of Hong Kong's has its leading zeros or not; of two files for one instrument the one spelled as the instrument
    counts. The first line names the columns, in any order and case:
    `date` and `close` are needed; `open`, `high`, `low`, `volume`, `dividend` (cash a share on its ex-date) and
    `split` (new shares for one old, `4` or `4:1`) may be there; others are passed over. Dates are YYYY-MM-DD, prices
    as traded in the market's currency, an empty field is unknown. A row that cannot be used is left out and reported
    with its line number; of two rows for one date the later stands.

    A session counts as final `final_lag` seconds after its close; rows of later ones are left alone until then. The
    quote of an instrument is the close of its last final row, `as_of` that session's close.

    Raises `Misconfigured` with code `csv_folder_missing` when `folder` is no folder.
    """

    name = "csv"
    capabilities: frozenset[Capability] = frozenset({"history", "live", "actions", "search"})
    pace = Pace(per_second=1000, burst=1000, concurrency=2, timeout=60, local=True)
    final_lag = 0.0
    always_moving = False
    control: Instrument | None = None

    def __init__(self, folder: Path, clock: Clock, calendars: CalendarBook) -> None:
        if not folder.is_dir():
            raise Misconfigured(f"The folder of the csv provider is missing: {folder}.", code="csv_folder_missing")
        self._folder = folder
        self._clock = clock
        self._calendars = calendars
        self._lock = threading.Lock()
        self._files: LRUCache[str, _File] = LRUCache(_KEPT_BYTES, getsizeof=lambda file: file.nbytes)

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        file = self._file(instrument)
        final = self._final(file, instrument)
        first = int(final.sessions[0]) if len(final) else None
        return History(
            final.between(start, end),
            actions=tuple(action for action in file.actions if start <= action.ex_date <= end),
            first_available=first if first is not None and start < first else None,
            rejected=tuple(row for row in file.rejected if row[0] is None or start <= row[0] <= end),
        )

    def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        quotes: list[Quote] = []
        failures: dict[Instrument, ProviderError] = {}
        for instrument in instruments:
            try:
                quotes.append(self._quote(instrument))
            except ProviderError as exc:
                failures[instrument] = exc
        return Quotes(quotes, failures).checked()

    def search(self, text: str, limit: int) -> Sequence[Found]:
        """Instruments with a file whose symbol has `text` in it, those that begin with it first."""
        wanted = text.strip().upper()
        try:
            named = {found for path in self._folder.iterdir() if (found := from_csv(path.name)) is not None}
        except OSError as exc:
            raise ProviderUnavailable(f"The folder of the csv provider cannot be read: {exc.strerror}.") from exc
        hits = [instrument for instrument in named if wanted in instrument.symbol]
        hits.sort(key=lambda hit: (hit.symbol != wanted, not hit.symbol.startswith(wanted), hit))
        return [Found(hit, source=self.name) for hit in hits[:limit]]

    def close(self) -> None:
        """Nothing is held open."""

    def _file(self, instrument: Instrument) -> _File:
        names = csv_names(instrument)
        if not names:
            raise SymbolNotFound(f"{instrument} cannot be the name of a file.")
        for name in names:
            if (file := self._file_named(name)) is not None:
                return file
        raise SymbolNotFound(f"There is no file {' or '.join(names)} in the folder of the csv provider.")

    def _file_named(self, name: str) -> _File | None:
        path = self._folder / name
        try:
            facts = path.stat()
            if not path.resolve().is_relative_to(self._folder.resolve()) or not path.is_file():
                # a link that leads out of the folder, a pipe that would block the thread for ever
                raise ProviderUnavailable(f"{name} is no file of the csv provider's folder.")
            stamp = facts.st_mtime_ns, facts.st_size
            with self._lock:
                kept = self._files.get(name)
            if kept is not None and kept.stamp == stamp:
                return kept
            file = _parsed(path.read_bytes(), stamp, name)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ProviderUnavailable(f"{name} cannot be read: {exc.strerror}.") from exc
        self._keep(name, file)
        return file

    def _keep(self, name: str, file: _File) -> None:
        with self._lock:
            self._files.pop(name, None)
            if file.nbytes <= _KEPT_BYTES:
                self._files[name] = file

    def _calendar(self, instrument: Instrument) -> SessionCalendar:
        try:
            return self._calendars.get(instrument.place.calendar)
        except Unavailable as exc:
            raise ProviderUnavailable(exc.detail) from exc

    def _final(self, file: _File, instrument: Instrument) -> Bars:
        last = self._calendar(instrument).last_closed(self._clock.time(), self.final_lag)
        return file.bars.between(None, last) if last is not None else Bars.empty()

    def _quote(self, instrument: Instrument) -> Quote:
        file = self._file(instrument)
        bars = self._final(file, instrument)
        if not len(bars):
            raise SymbolNotFound(f"The file of {instrument} has no finished session.")
        session = int(bars.sessions[-1])
        closed_at = self._calendar(instrument).close_of(session)
        values: list[float | None] = [None if math.isnan(value) else value for value in bars.values[:, -1].tolist()]
        return Quote(
            instrument,
            float(bars.close[-1]),
            instrument.currency,
            as_of=float((session + 1) * DAY_SECONDS) if closed_at is None else closed_at,
            received_at=self._clock.time(),
            source=self.name,
            session=session,
            previous_close=_previous_close(bars, file.actions),
            open=values[OPEN],
            day_high=values[HIGH],
            day_low=values[LOW],
            volume=values[VOLUME],
        )


def _previous_close(bars: Bars, actions: Sequence[Action]) -> float | None:
    """In the units of the last session: divided by the splits that took effect since."""
    if len(bars) < 2:
        return None
    before, last = bars.sessions[-2:].tolist()
    ratio = math.prod(a.value for a in actions if a.kind == "split" and before < a.ex_date <= last)
    return float(bars.close[-2]) / ratio


def _parsed(content: bytes, stamp: tuple[int, int], name: str) -> _File:
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), skipinitialspace=True)
        columns = {title.strip().lower(): i for i, title in reversed(list(enumerate(next(rows, []))))}
        if not {"date", "close"} <= columns.keys():
            raise ProviderAnswerBad(f"The first line of {name} must name the columns date and close.")
        return _Reader(columns).read(((rows.line_num, row) for row in rows), stamp)
    except (UnicodeDecodeError, csv.Error) as exc:
        raise ProviderAnswerBad(f"{name} is no CSV file in UTF-8: {exc}.") from exc


class _Reader:
    """Collects the rows of one file. For one use."""

    def __init__(self, columns: Mapping[str, int]) -> None:
        self._columns = columns
        self._line_of: dict[int, int] = {}
        self._bars: dict[int, list[float]] = {}
        self._actions: dict[int, list[Action]] = {}
        self._rejected: list[tuple[int | None, str]] = []

    def read(self, rows: Iterable[tuple[int, list[str]]], stamp: tuple[int, int]) -> _File:
        for line, row in rows:
            if any(field.strip() for field in row):
                self._take(line, row)
        values = np.array(list(self._bars.values()), np.float64).reshape(-1, 5).T
        actions = sorted(action for several in self._actions.values() for action in several)
        return _File(stamp, Bars.of(self._bars, values), tuple(actions), tuple(self._rejected))

    def _take(self, line: int, row: list[str]) -> None:
        session = None
        try:
            session = _session(self._field(row, "date"))
            self._replace(session, line)
            self._actions[session] = self._actions_of(row, session)
            self._bars[session] = self._bar(row)
        except ValueError as exc:
            self._rejected.append((session, f"line {line}: {exc}"))

    def _replace(self, session: int, line: int) -> None:
        if (before := self._line_of.get(session)) is not None:
            self._rejected.append((session, f"line {before}: line {line} has the same date and stands"))
            self._bars.pop(session, None)
            self._actions.pop(session, None)
        self._line_of[session] = line

    def _bar(self, row: list[str]) -> list[float]:
        bar = [_number(self._field(row, name), name) for name in FIELDS]
        if math.isnan(bar[CLOSE]):
            raise ValueError("no close")
        for name, value in zip(FIELDS[:VOLUME], bar, strict=False):
            if value <= 0:
                raise ValueError(f"{name} is not above 0")
        if bar[VOLUME] < 0:
            raise ValueError("volume is below 0")
        return bar

    def _actions_of(self, row: list[str], session: int) -> list[Action]:
        actions = []
        dividend = _number(self._field(row, "dividend"), "dividend")
        if dividend < 0:
            raise ValueError("dividend is below 0")
        if dividend > 0:
            actions.append(Action(session, "dividend", dividend, None, CsvProvider.name))
        ratio = _ratio(self._field(row, "split"))
        if ratio not in (0.0, 1.0):
            actions.append(Action(session, "split", ratio, None, CsvProvider.name))
        return actions

    def _field(self, row: list[str], name: str) -> str:
        i = self._columns.get(name)
        return row[i].strip() if i is not None and i < len(row) else ""


def _session(text: str) -> int:
    try:
        if _DATE.fullmatch(text):
            return day_number(date.fromisoformat(text))
    except ValueError:
        pass
    raise ValueError(f"{text[:40]!r} is not a date like 2024-01-31")


def _number(text: str, name: str) -> float:
    if not text:
        return math.nan
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise ValueError(f"{name} {text[:40]!r} is not a number")
    return value


def _ratio(text: str) -> float:
    """`4`, `4:1` and `4/1` are four for one; empty and 0 are none (0.0)."""
    new, divider, old = text.replace("/", ":").partition(":")
    ratio = _number(new.strip(), "split")
    if divider:
        shares = _number(old.strip(), "split")
        ratio = ratio / shares if shares > 0 else math.nan
    if (divider and not ratio > 0) or ratio < 0:
        raise ValueError(f"split {text[:40]!r} is not a ratio")
    return 0.0 if math.isnan(ratio) else ratio
