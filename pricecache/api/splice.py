"""History whose last row moves with the quote: all before it is encoded, hashed and compressed once."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pricecache.api.encoding import columns_of, listed
from pricecache.api.wire import iso_day
from pricecache.core.actions import Adjust
from pricecache.core.bars import VOLUME


class Frame:
    """An answer in rows without its last row, made of the whole `body`, with the columns `fields`. Loop-only.

    With a row put in it is, byte for byte and tag included, what `history_json` would have made.
    """

    __slots__ = ("_adjust", "_after", "_before", "_fields", "_packing", "_tag", "_tagged")

    def __init__(self, body: bytes, fields: Sequence[str], adjust: Adjust) -> None:
        # no text inside the answer can look like this: quotes in it are escaped
        end = body.rindex(b'],"provisional":')
        self._before, self._after = body[: body.rindex(b'{"date":', 0, end)], body[end:]
        self._tagged = self._after[: self._after.rindex(b',"lastUpdate":')] + b"}"
        self._tag = hashlib.blake2b(self._before, digest_size=12)
        self._fields = tuple(fields)
        self._adjust = adjust
        self._packing: tuple[bytes, Any] | None = None

    @property
    def nbytes(self) -> int:
        return len(self._before) + len(self._after) + (len(self._packing[0]) if self._packing else 0)

    def filled(self, session: int, bar: NDArray[np.float64]) -> tuple[bytes, str]:
        """Body and tag with the row of `bar` (float64, shape (5, 1)) in its place."""
        values = (listed(column)[0] for column in columns_of(bar, self._adjust, self._fields))
        row = orjson.dumps(dict(zip(("date", *self._fields), (iso_day(session), *values), strict=True)))
        tag = self._tag.copy()
        tag.update(row + self._tagged)
        return b"".join((self._before, row, self._after)), f'W/"{tag.hexdigest()}"'

    def gzip(self, body: bytes) -> bytes:
        """`body`, one that `filled` gave, compressed. Safe in a thread."""
        if self._packing is None:
            begun = zlib.compressobj(6, wbits=31)
            self._packing = begun.compress(self._before), begun
        packed, packer = self._packing[0], self._packing[1].copy()
        return packed + packer.compress(body[len(self._before) :]) + packer.flush()


def can_move(values: NDArray[np.float64], fields: Sequence[str]) -> bool:
    """Whether the last bar of `values` (shape (5, n)) may become another one and leave the rows before it as they are
    written: volumes of which one is no whole number are all written as fractions."""
    if "volume" not in fields:
        return True
    volume = values[VOLUME, :-1]
    known = volume[~np.isnan(volume)]
    return len(known) > 0 and bool((known == np.rint(known)).all()) and can_follow(values[:, -1:], fields)


def can_follow(bar: NDArray[np.float64], fields: Sequence[str]) -> bool:
    """Whether `bar`, shape (5, 1), may come behind rows of whole volumes."""
    volume = float(bar[VOLUME, 0])
    return "volume" not in fields or np.isnan(volume) or volume == np.rint(volume)
