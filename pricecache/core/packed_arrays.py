"""Named arrays as one block of bytes with a checksum, as they lie in memory: what is read back is read in place."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from struct import Struct, error
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.errors import Corrupt

_FRAME = Struct("<4sIQ")
_MAGIC = b"NA1\0"
_ALIGN = 8


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Of one dimension each; little-endian, each beginning at a multiple of 8 bytes."""
    names = json.dumps([[name, one.dtype.str, len(one)] for name, one in arrays.items()]).encode()
    parts = [_padded(names), *(_padded(np.ascontiguousarray(one).tobytes()) for one in arrays.values())]
    body = b"".join(parts)
    return _FRAME.pack(_MAGIC, zlib.crc32(body), len(names)) + body


def unpack_arrays(block: bytes) -> dict[str, NDArray[Any]]:
    """The inverse: views of `block`, not to be changed. Raises `Corrupt` when it is damaged in any way."""
    try:
        magic, check, length = _FRAME.unpack_from(block)
        body = memoryview(block)[_FRAME.size :]
        if magic != _MAGIC or zlib.crc32(body) != check:
            raise Corrupt("Packed arrays are damaged.")
        at, found = length + -length % _ALIGN, {}
        for name, kind, count in json.loads(bytes(body[:length])):
            found[name] = np.frombuffer(body, np.dtype(kind), count, at)
            at += found[name].nbytes + -found[name].nbytes % _ALIGN
    except (error, ValueError, TypeError) as exc:
        raise Corrupt("Packed arrays cannot be read.") from exc
    return found


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % _ALIGN)
