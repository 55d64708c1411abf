"""Rows of a history as bytes: what other fields say already left out, the rest as compressed differences of bits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pricecache.core.valuation import (
    COST,
    FIELDS,
    GAIN,
    ORIGINAL,
    PROCEEDS,
    REALIZED,
    UNREALIZED,
    VALUE,
)  # fmt: skip
from pricecache.errors import Corrupt

_LEVEL = 4
"""Level 6 takes twice as long for 3 % less."""
ROWS = len(FIELDS) + 2
"""The fields of a history, and what came in and went out gross."""
_DERIVED = (REALIZED, UNREALIZED, GAIN)
_OWN = tuple(field for field in range(ROWS) if field not in _DERIVED)
_ORDER = _OWN + _DERIVED
"""Fields in the order in which each can be told from those before it."""
_STORED, _OF_FIELDS, _OF_SCOPES, _NOTHING, _UNKNOWN = range(5)
"""How a field of a scope is kept: its bits; not, as others of its scope say it; not, as it is the sum of the other
scopes; not, as it is 0 on every day; not, as it is NaN on every day."""
_NAN = np.array([np.nan]).view(np.uint64)[0]

_Rows = NDArray[np.float64]


def pack_rows(values: _Rows, estimated: NDArray[np.bool_]) -> bytes:
    """`values`: float64, shape (ROWS, scopes, days), `estimated`: bool, shape (scopes, days), both bit for bit.

    Differences are XORs of the bits of one day with those of the day before, laid out byte by byte: what stays the
    same is zeros.
    """
    values = np.ascontiguousarray(values)
    days = estimated.shape[1]
    how = _kinds(values)
    stored = [values[field, scope] for field, scope, kind in _each(how) if kind == _STORED]
    bits = np.array(stored, np.float64).reshape(len(stored), days).view(np.uint64)
    steps = bits.copy()
    steps[:, 1:] ^= bits[:, :-1]
    shuffled = steps.view(np.uint8).reshape(len(stored), days, 8).transpose(0, 2, 1)
    return zlib.compress(b"".join((how.tobytes(), np.packbits(estimated).tobytes(), shuffled.tobytes())), _LEVEL)


def unpack_rows(block: bytes, scopes: int, days: int) -> tuple[_Rows, NDArray[np.bool_]]:
    """The inverse. Raises `Corrupt`."""
    try:
        plain = zlib.decompress(block)
        how = np.frombuffer(plain, np.uint8, ROWS * scopes).reshape(ROWS, scopes)
        flags = np.frombuffer(plain, np.uint8, -(-scopes * days // 8), how.size)
        estimated = np.unpackbits(flags, count=scopes * days).astype(np.bool_).reshape(scopes, days)
        rows = int((how == _STORED).sum())
        shuffled = np.frombuffer(plain[how.size + flags.size :], np.uint8).reshape(rows, 8, days)
        steps = np.ascontiguousarray(shuffled.transpose(0, 2, 1)).view(np.uint64).reshape(rows, days)
        values = _laid_out(how, np.bitwise_xor.accumulate(steps, axis=1).view(np.float64))
    except (zlib.error, ValueError, IndexError, KeyError) as exc:
        raise Corrupt("Rows of a stored history cannot be read.") from exc
    return values, estimated


def _laid_out(how: NDArray[np.uint8], stored: _Rows) -> _Rows:
    values = np.empty((ROWS, how.shape[1], stored.shape[1]))
    rows = iter(stored)
    constant = {_NOTHING: 0.0, _UNKNOWN: np.nan}
    for field, scope, kind in _each(how):
        if kind == _STORED:
            values[field, scope] = next(rows)
        elif kind == _OF_FIELDS:
            values[field, scope] = _derived(values, field)[scope]
        elif kind == _OF_SCOPES:
            values[field, scope] = _summed(values[field])
        else:
            values[field, scope] = constant[kind]
    return values


def _each(how: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """Field, scope and kind in the order of `_ORDER`, the portfolio after its accounts. `how`: by field."""
    kinds = how.tolist()
    for field in _ORDER:
        for scope in (*range(1, how.shape[1]), 0):
            yield field, scope, kinds[field][scope]


def _kinds(values: _Rows) -> NDArray[np.uint8]:
    """uint8, shape (ROWS, scopes)."""
    bits = values.view(np.uint64)
    how = np.full(values.shape[:2], _STORED, np.uint8)
    if values.shape[1] > 1:
        for field in range(ROWS):
            if _same(bits[field, 0], _summed(values[field])):
                how[field, 0] = _OF_SCOPES
    for field in _DERIVED:
        how[field][(bits[field] == _derived(values, field).view(np.uint64)).all(axis=1)] = _OF_FIELDS
    how[(bits == _NAN).all(axis=2)] = _UNKNOWN
    how[(bits == 0).all(axis=2)] = _NOTHING
    return how


def _derived(values: _Rows, field: int) -> _Rows:
    """By scope, what a field is when it is what it mostly is."""
    if field == REALIZED:
        return np.asarray(values[PROCEEDS] - values[ORIGINAL])
    if field == UNREALIZED:
        return np.asarray(values[VALUE] - values[COST])
    return np.asarray(values[REALIZED] + values[UNREALIZED])


def _summed(rows: _Rows) -> _Rows:
    """What the engine makes the portfolio's of the rows of its scopes: its accounts' in their order."""
    total: _Rows = rows[1].copy()
    for row in rows[2:]:
        total += row
    return total


def _same(bits: NDArray[np.uint64], row: _Rows) -> bool:
    return bool((bits == row.view(np.uint64)).all())
