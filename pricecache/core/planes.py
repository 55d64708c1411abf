"""Whole numbers as bytes that compress well: all lowest bytes first, then the next ones; mostly of differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAYS = np.dtype("<i8")
PLACES = np.dtype("<u4")
_HIGH, _LOW = np.dtype("<u8"), np.dtype("<u4")
_ID_BYTES = _HIGH.itemsize + _LOW.itemsize
_ID_DIGITS = 2 * _ID_BYTES


def out(numbers: Any, kind: np.dtype[Any]) -> bytes:
    """`numbers`: one-dimensional, of a whole-number `kind`. `itemsize` bytes each."""
    return np.asarray(numbers, kind).view(np.uint8).reshape(-1, kind.itemsize).T.tobytes()


def back(planes: bytes, kind: np.dtype[Any]) -> NDArray[Any]:
    """The inverse, shape (len(planes) / itemsize,). Raises `ValueError` when it cannot be one."""
    rows = np.frombuffer(planes, np.uint8).reshape(kind.itemsize, -1).T
    return np.ascontiguousarray(rows).view(kind)[:, 0]


def steps_out(numbers: Any, kind: np.dtype[Any]) -> bytes:
    """As `out`, of the differences from one to the next."""
    return out(np.diff(np.asarray(numbers, kind), prepend=kind.type(0)), kind)


def steps_back(planes: bytes, kind: np.dtype[Any]) -> NDArray[Any]:
    """The inverse, as `back`."""
    return np.cumsum(back(planes, kind), dtype=kind)


def ids_out(ids: Sequence[str]) -> bytes | None:
    """Ids of 24 small hexadecimal digits (a time, a process, a counter, as MongoDB makes them), 12 bytes each; None
    when one is anything else."""
    joined = "".join(ids)
    if not {_ID_DIGITS}.issuperset(map(len, ids)):
        return None
    try:
        plain = bytes.fromhex(joined)
    except ValueError:
        return None
    if plain.hex() != joined:
        return None
    rows = np.frombuffer(plain, np.uint8).reshape(-1, _ID_BYTES)[:, ::-1]
    low, high = (np.ascontiguousarray(part) for part in np.split(rows, [_LOW.itemsize], axis=1))
    return steps_out(low.view(_LOW)[:, 0], _LOW) + steps_out(high.view(_HIGH)[:, 0], _HIGH)


def ids_back(planes: bytes) -> list[str]:
    """The inverse. Raises `ValueError` when it cannot be one."""
    count, over = divmod(len(planes), _ID_BYTES)
    if over:
        raise ValueError("Not a whole number of ids.")
    split = count * _LOW.itemsize
    parts = (steps_back(planes[:split], _LOW), steps_back(planes[split:], _HIGH))
    rows = np.concatenate([part.view(np.uint8).reshape(count, part.itemsize) for part in parts], axis=1)[:, ::-1]
    digits = rows.tobytes().hex()
    return [digits[at : at + _ID_DIGITS] for at in range(0, len(digits), _ID_DIGITS)]
