"""One packed year of a series as it is stored: whether it is what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pricecache.core.bars import checksum, unpack_provenance


@dataclass(frozen=True, slots=True)
class Block:
    """One packed year, its checksums verified, not yet unpacked. `rev`: the revision that wrote it."""

    rev: int | None
    bars: bytes
    origin: bytes


def is_sound(document: Mapping[str, Any]) -> bool:
    """Whether bars and provenance of a packed year pass their checksums and are of as many sessions."""
    block, origin = document.get("b"), document.get("p")
    return (
        _is_whole(block, document.get("k"))
        and _is_whole(origin, document.get("kp"))
        and len(document["b"]) * 10 == len(document["p"]) * 48
    )


def sources_fit(document: Mapping[str, Any]) -> bool:
    """Whether every bar of a sound year has a source among those listed."""
    sources = document.get("src")
    return isinstance(sources, list) and int(unpack_provenance(document["p"], ()).source.max()) < len(sources)


def _is_whole(block: object, expected: object) -> bool:
    return isinstance(block, bytes) and len(block) > 0 and checksum(block) == expected
