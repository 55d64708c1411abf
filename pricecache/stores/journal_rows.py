"""Rows of the journal to and from BSON as columns: no Python object for a bar, so that the event loop is not held.

The layout is as https://bsonspec.org has it: for each element its type, its name, its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bson
import numpy as np
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from numpy.typing import NDArray

from pricecache.core.bars import DAY_SECONDS, Bars, years_of

DAY_MS = 1000 * DAY_SECONDS

_DOUBLE, _DOCUMENT, _OBJECT_ID, _DATE, _INT32 = b"\x01", b"\x03", b"\x07", b"\x09", b"\x10"
_ROW = np.dtype(
    [
        ("size", "<i4"),
        ("ts_head", "V4"),
        ("ts", "<i8"),
        ("meta_head", "V6"),
        ("meta_size", "<i4"),
        ("s_head", "V3"),
        ("meta_s", "<i4"),
        ("y_head", "V3"),
        ("meta_y", "<i4"),
        ("meta_end", "V1"),
        ("b_head", "V3"),
        ("b", "V12"),
        *[field for name in "ohlcv" for field in ((f"{name}_head", "V3"), (name, "<f8"))],
        ("end", "V1"),
    ]
)
_CONSTANTS: dict[str, Any] = {
    "size": _ROW.itemsize,
    "ts_head": np.void(_DATE + b"ts\0"),
    "meta_head": np.void(_DOCUMENT + b"meta\0"),
    "meta_size": 19,
    "s_head": np.void(_INT32 + b"s\0"),
    "y_head": np.void(_INT32 + b"y\0"),
    "b_head": np.void(_OBJECT_ID + b"b\0"),
    **{f"{name}_head": np.void(_DOUBLE + name.encode() + b"\0") for name in "ohlcv"},
}
_KINDS: dict[str, tuple[int, str]] = {
    "ts": (_DATE[0], "<i8"),
    "b": (_OBJECT_ID[0], "V12"),
    **dict.fromkeys("ohlcv", (_DOUBLE[0], "<f8")),
}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of one series, in no order. `batches`: the batch of each, twelve bytes; `sessions`: int64, shape (n,);
    `values`: float64, shape (5, n), open, high, low, close, volume."""

    batches: list[bytes]
    sessions: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.batches)


def journal_rows(series_id: int, batch: ObjectId, bars: Bars) -> list[RawBSONDocument]:
    """One document a bar: `ts` (session at 00:00 UTC, a label), `meta` (series and year), `b`, `o h l c v`.

    All have the same layout, so NumPy writes them in one go; the driver's own encoder, with an `_id` for each that
    nobody asks for, took four times as long and held the event loop meanwhile.
    """
    rows = np.zeros(len(bars), _ROW)
    for name, constant in _CONSTANTS.items():
        rows[name] = constant
    rows["ts"] = bars.sessions * DAY_MS
    rows["meta_s"] = series_id
    rows["meta_y"] = years_of(bars.sessions)
    rows["b"] = np.void(batch.binary)
    for name, values in zip("ohlcv", bars.values, strict=True):
        rows[name] = values
    size, data = _ROW.itemsize, rows.tobytes()
    return [RawBSONDocument(data[at : at + size]) for at in range(0, len(data), size)]


def rows_from(data: bytes) -> Rows:
    """The rows in `data`: BSON documents one behind the other, of `ts`, `b` and `o h l c v` in any order."""
    layout = _layout(data)
    if layout is None:
        return _decoded(data)
    columns = np.frombuffer(data, layout)
    batches = columns["b"].tobytes()
    return Rows(
        [batches[at : at + 12] for at in range(0, len(batches), 12)],
        columns["ts"] // DAY_MS,
        np.array([columns[name] for name in "ohlcv"]),
    )


def together(parts: Sequence[Rows]) -> Rows:
    """All rows of `parts` as one."""
    return Rows(
        [batch for part in parts for batch in part.batches],
        np.concatenate([np.empty(0, np.int64), *(part.sessions for part in parts)]),
        np.concatenate([np.empty((5, 0)), *(part.values for part in parts)], axis=1),
    )


def _layout(data: bytes) -> np.dtype[Any] | None:
    """The layout that every document in `data` has, or None when they do not all have the first one's."""
    if len(data) < 4:
        return None
    size = int.from_bytes(data[:4], "little")
    places, values = _places(data[:size])
    if len(data) % size or set(places) != set(_KINDS):
        return None
    documents = np.frombuffer(data, np.uint8).reshape(-1, size)
    if not (documents[:, ~values] == documents[0, ~values]).all():
        return None
    names = list(_KINDS)
    return np.dtype(
        {
            "names": names,
            "formats": [_KINDS[name][1] for name in names],
            "offsets": [places[name] for name in names],
            "itemsize": size,
        }
    )


def _places(document: bytes) -> tuple[dict[str, int], NDArray[np.bool_]]:
    """Where the value of each known element begins, and which bytes are values; nothing when another is among them."""
    at, places = 4, {}
    values = np.zeros(len(document), bool)
    while at < len(document) - 1:
        end = document.index(b"\0", at)
        name = document[at + 1 : end].decode()
        kind, form = _KINDS.get(name, (-1, "<f8"))
        if document[at] != kind:
            return {}, values
        places[name] = end + 1
        at = end + 1 + np.dtype(form).itemsize
        values[end + 1 : at] = True
    return places, values


_AWARE: bson.CodecOptions[dict[str, Any]] = bson.CodecOptions(tz_aware=True)


def _decoded(data: bytes) -> Rows:
    documents = bson.decode_all(data, _AWARE)
    values = np.array([[document[name] for name in "ohlcv"] for document in documents], np.float64).reshape(-1, 5)
    return Rows(
        [document["b"].binary for document in documents],
        np.array([document["ts"].toordinal() - 719163 for document in documents], np.int64),
        np.ascontiguousarray(values.T),
    )
