"""Days of a history as the bytes they are sent as, in rows, columns or CSV: encoded once, cut to what is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
from cachetools import LRUCache
from numpy.typing import NDArray

from pricecache.api.wire import camel
from pricecache.core.history import History
from pricecache.core.rows import Note, notes, rounded
from pricecache.core.scopes import Scope
from pricecache.core.valuation import FIELDS

if TYPE_CHECKING:
    from pricecache.core.portfolios import Portfolio

IN_THREAD_FROM = 500
"""Days from which on rows are encoded in a thread."""
Format = Literal["json", "columns", "csv"]
NAMES: tuple[str, ...] = tuple(camel(dict.fromkeys(FIELDS)))
COLUMNS = ("date", *NAMES, "estimated")
HEADER = ",".join((*COLUMNS, "isArchived", "reasons")).encode() + b"\n"
NO_CASH = {"cash": "cash_not_tracked"}


class Pages:
    """The days of one scope of `history`, encoded in one format, without what stands around them. Immutable."""

    def __init__(self, history: History, scope: Scope, form: Format, is_archived: bool, tracks_cash: bool) -> None:
        place = history.scopes.index(scope)
        values = rounded(history)[:, place]
        self.start = history.start
        self.days = history.days
        self._notes = notes(values, history.estimated[place], tracks_cash=tracks_cash)
        tokens = _tokens(history.start, values, history.estimated[place])
        if form == "columns":
            self._parts = [_Part(column, b",") for column in tokens]
        elif form == "csv":
            self._parts = [_Part(_csv_rows(tokens, self._notes, is_archived), b"")]
        else:
            self._parts = [_Part(_json_rows(tokens, self._notes, is_archived), b",")]

    @property
    def nbytes(self) -> int:
        return sum(len(part.blob) + part.ends.nbytes for part in self._parts) + 500

    def reasons(self, first: int, last: int) -> dict[str, str]:
        """What there is to say of fields, by name, on any day from `first` to `last`."""
        days = slice(first - self.start, last + 1 - self.start)
        return {NAMES[one.field]: one.code for one in reversed(self._notes) if one.on[days].any()}

    def cut(self, first: int, last: int) -> list[bytes | memoryview]:
        """From day `first` to day `last`, both included, both in it: one piece, or one for each of `COLUMNS`."""
        return [part.cut(first - self.start, last - self.start) for part in self._parts]


class PageCache:
    """The encoded settled days of portfolios, bounded in bytes. Loop-only; long ones are encoded in a thread.

    Kept for as long as the very same settled history is: nothing is compared but which object it is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._kept: LRUCache[tuple[Any, ...], tuple[History, Pages]] = LRUCache(
            max_bytes, getsizeof=lambda kept: kept[1].nbytes
        )

    async def of(self, history: History, whose: Portfolio, scope: Scope, form: Format) -> Pages:
        key = (whose.id, scope, form, whose.is_archived, whose.rules.cash_tracking)
        held = self._kept.get(key)
        if held is not None and held[0] is history:
            return held[1]
        pages = await encoded(history, scope, form, whose.is_archived, whose.rules.cash_tracking)
        if pages.nbytes <= self._kept.maxsize:
            self._kept[key] = history, pages
        return pages


async def encoded(history: History, scope: Scope, form: Format, is_archived: bool, tracks_cash: bool) -> Pages:
    if history.days < IN_THREAD_FROM:
        return Pages(history, scope, form, is_archived, tracks_cash)
    return await asyncio.to_thread(Pages, history, scope, form, is_archived, tracks_cash)


@dataclass(init=False, slots=True)
class _Part:
    """Pieces one after another. `ends`: int64, where each ends, the mark behind it not counted."""

    blob: bytes
    ends: NDArray[np.int64]
    gap: int

    def __init__(self, pieces: Sequence[bytes], mark: bytes) -> None:
        self.blob = mark.join(pieces)
        self.gap = len(mark)
        self.ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)) + self.gap) - self.gap

    def cut(self, first: int, last: int) -> bytes | memoryview:
        if first > last:
            return b""
        low = 0 if first == 0 else int(self.ends[first - 1]) + self.gap
        return memoryview(self.blob)[low : int(self.ends[last])]


def _tokens(start: int, values: NDArray[np.float64], estimated: NDArray[np.bool_]) -> list[list[bytes]]:
    """The columns in the order of `COLUMNS`, each value as JSON."""
    days = np.arange(start, start + values.shape[1]).astype("datetime64[D]").astype(str).tolist()
    found = [[b'"%b"' % day.encode() for day in days]]
    for row in values:
        found.append(orjson.dumps(np.ascontiguousarray(row), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b","))
    found.append([b"true" if one else b"false" for one in estimated.tolist()])
    return found


_ROW = b"{%b" % b",".join(b'"%b":%%b' % name.encode() for name in COLUMNS)


def _json_rows(tokens: list[list[bytes]], said: Sequence[Note], is_archived: bool) -> list[bytes]:
    end = b',"isArchived":true' if is_archived else b',"isArchived":false'
    row = _ROW + end + b"}"
    rows = [row % one for one in zip(*tokens, strict=True)]
    for column, reasons in _by_day(said).items():
        rows[column] = rows[column][:-1] + b',"reasons":%b}' % orjson.dumps(reasons)
    return rows


def _csv_rows(tokens: list[list[bytes]], said: Sequence[Note], is_archived: bool) -> list[bytes]:
    end = b",true," if is_archived else b",false,"
    plain = [[b"" if token == b"null" else token for token in column] for column in tokens]
    plain[0] = [day.strip(b'"') for day in plain[0]]
    rows = [b",".join(one) + end for one in zip(*plain, strict=True)]
    for column, reasons in _by_day(said).items():
        rows[column] += ";".join(f"{name}={why}" for name, why in reasons.items()).encode()
    return [row + b"\n" for row in rows]


def _by_day(said: Sequence[Note]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for one in said:
        for column in np.flatnonzero(one.on).tolist():
            found.setdefault(column, {})[NAMES[one.field]] = one.code
    return found
