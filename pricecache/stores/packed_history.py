"""Rows of a history as bytes: what other fields say already left out, the rest as compressed differences of bits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pricecache.core.valuation import (
    COST,
    FIELDS,
    GAIN,
    INDEX,
    ORIGINAL,
    PROCEEDS,
    REALIZED,
    UNREALIZED,
    VALUE,
)  # fmt: skip
from pricecache.errors import Corrupt

_LEVEL = 6
_DERIVED = (REALIZED, UNREALIZED, GAIN)
_OWN = tuple(field for field in range(len(FIELDS)) if field not in _DERIVED)
_STORED, _OF_FIELDS, _OF_SCOPES, _NOTHING, _UNKNOWN = range(5)
"""How a field of a scope is kept: its bits; not, as others of its scope say it; not, as it is the sum of the other
scopes; not, as it is 0 on every day; not, as it is NaN on every day."""

_Rows = NDArray[np.float64]


def pack_rows(values: _Rows, estimated: NDArray[np.bool_]) -> bytes:
    """`values`: float64, shape (fields, scopes, days), `estimated`: bool, shape (scopes, days), both bit for bit.

    Differences are XORs of the bits of one day with those of the day before, laid out byte by byte: what stays the
    same is zeros. Measured: about 20 bytes a day and scope of real prices.
    """
    scopes, days = estimated.shape
    how = np.array([[_kind(values, field, scope) for scope in range(scopes)] for field in _order()], np.uint8)
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
        fields = len(FIELDS)
        how = np.frombuffer(plain, np.uint8, fields * scopes).reshape(fields, scopes)
        flags = np.frombuffer(plain, np.uint8, -(-scopes * days // 8), fields * scopes)
        estimated = np.unpackbits(flags, count=scopes * days).astype(np.bool_).reshape(scopes, days)
        rows = int((how == _STORED).sum())
        shuffled = np.frombuffer(plain[how.size + flags.size :], np.uint8).reshape(rows, 8, days)
        steps = np.ascontiguousarray(shuffled.transpose(0, 2, 1)).view(np.uint64).reshape(rows, days)
        values = _laid_out(how, np.bitwise_xor.accumulate(steps, axis=1).view(np.float64))
    except (zlib.error, ValueError, IndexError, KeyError) as exc:
        raise Corrupt("Rows of a stored history cannot be read.") from exc
    return values, estimated


def _laid_out(how: NDArray[np.uint8], stored: _Rows) -> _Rows:
    scopes, days = how.shape[1], stored.shape[1]
    values = np.empty((len(FIELDS), scopes, days))
    rows = iter(stored)
    constant = {_NOTHING: 0.0, _UNKNOWN: np.nan}
    for field, scope, kind in _each(how):
        if kind == _STORED:
            values[field, scope] = next(rows)
        elif kind == _OF_FIELDS:
            values[field, scope] = _derived(values, field, scope)
        elif kind == _OF_SCOPES:
            values[field, scope] = _summed(values, field)
        else:
            values[field, scope] = constant[kind]
    return values


def _order() -> tuple[int, ...]:
    """Fields in the order in which each can be told from those before it."""
    return _OWN + _DERIVED


def _each(how: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """Field, scope and kind, the portfolio after its accounts."""
    for row, field in enumerate(_order()):
        for scope in (*range(1, how.shape[1]), 0):
            yield field, scope, int(how[row, scope])


def _kind(values: _Rows, field: int, scope: int) -> int:
    row = values[field, scope]
    if _same(row, np.zeros_like(row)):
        return _NOTHING
    if _same(row, np.full_like(row, np.nan)):
        return _UNKNOWN
    if field in _DERIVED and _same(row, _derived(values, field, scope)):
        return _OF_FIELDS
    if scope == 0 and values.shape[1] > 1 and _same(row, _summed(values, field)):
        return _OF_SCOPES
    return _STORED


def _derived(values: _Rows, field: int, scope: int) -> _Rows:
    of = values[:, scope]
    if field == REALIZED:
        return np.asarray(of[PROCEEDS] - of[ORIGINAL])
    if field == UNREALIZED:
        return np.asarray(of[VALUE] - of[COST])
    return np.asarray(of[REALIZED] + of[UNREALIZED])


def _summed(values: _Rows, field: int) -> _Rows:
    """What the engine makes the portfolio's, its accounts in their order; an index is that of the only account."""
    parts = values[field, 1:]
    if field == INDEX:
        return parts[0]
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def _same(a: _Rows, b: Sequence[float] | _Rows) -> bool:
    return bool((a.view(np.uint64) == np.ascontiguousarray(b).view(np.uint64)).all())
