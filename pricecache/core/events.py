"""What happened, told after it is durable. An event makes things fast; the record is what was stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.catalog import Entry


@dataclass(frozen=True, slots=True, eq=False)
class BarsChanged:
    """Revision `rev` of a series was committed, by this daemon or another one, and `entry` is brought up to it.

    `added`, `replaced`, `removed`: int64 sessions, ascending; None, all three, where it is not known which ones they
    were: take every bar for changed. `actions_changed`: its splits or dividends are others, so every bar before them
    reads differently. `since`: the first session of which readers now get something else; None for none, or the very
    first. `source`: the hand it came from.
    """

    entry: Entry
    rev: int
    added: NDArray[np.int64] | None
    replaced: NDArray[np.int64] | None
    removed: NDArray[np.int64] | None
    actions_changed: bool
    since: int | None
    source: str
