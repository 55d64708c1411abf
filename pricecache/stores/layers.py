"""What stood of each session after each row of the journal, worked out without I/O, in columns.

A manual bar covers a provider's until it is retracted; then the provider's last one shows again, if there was one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import MANUAL, RETRACTED, Bars, Provenance
from pricecache.stores.journal_rows import Rows
from pricecache.stores.revisions import Revision


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """The rows that count, by session and then by revision.

    `sessions`, `which`: int64, shape (n,), session of each row and the place of its revision in `revisions`; `values`:
    float64, shape (5, n). `below`, `above`: int64, shape (n,): of a provider's bars and of those by hand, the place of
    the row that was the last word on the session once this row stood, or -1. `orphans`: rows that count for nothing.
    """

    revisions: Sequence[Revision]
    sessions: NDArray[np.int64]
    which: NDArray[np.int64]
    values: NDArray[np.float64]
    below: NDArray[np.int64]
    above: NDArray[np.int64]
    orphans: int

    @property
    def shown(self) -> NDArray[np.int64]:
        """The place of the row that readers were given of the session once each row stood, or -1."""
        return np.where(self.above >= 0, self.above, self.below)

    @property
    def last(self) -> NDArray[np.int64]:
        """The places of the last row of each session."""
        return np.flatnonzero(np.append(self.sessions[1:] != self.sessions[:-1], True)[: len(self.sessions)])

    def bars(self, rows: NDArray[np.int64]) -> tuple[Bars, Provenance]:
        """The bars in `rows`, places in ascending order of session, and where each came from."""
        whence, codes = np.unique(self.which[rows], return_inverse=True)
        origins = [self.revisions[place] for place in whence.tolist()]
        sources = tuple(dict.fromkeys(origin.source for origin in origins))
        source = np.array([sources.index(origin.source) for origin in origins], np.uint8)[codes]
        flags = np.array([origin.flags for origin in origins], np.uint8)[codes]
        fetched_at = np.array([origin.at for origin in origins], np.int64)[codes]
        return Bars(self.sessions[rows], self.values[:, rows]), Provenance(source, flags, fetched_at, sources)


def layered(revisions: Sequence[Revision], rows: Rows) -> Layers:
    """`rows` in the order of `revisions`; those of any other batch are orphans."""
    places = {revision.batch.binary: place for place, revision in enumerate(revisions)}
    which = np.array([places.get(batch, -1) for batch in rows.batches], np.int64)
    counting = np.flatnonzero(which >= 0)
    order = counting[np.lexsort((which[counting], rows.sessions[counting]))]
    sessions, which = rows.sessions[order], which[order]
    once = np.append(True, (np.diff(sessions) != 0) | (np.diff(which) != 0))[: len(order)]  # an insert tried twice
    order, sessions, which = order[once], sessions[once], which[once]
    flags = np.array([revision.flags for revision in revisions], np.int64)[which] if len(which) else which
    begins = np.append(True, sessions[1:] != sessions[:-1])[: len(sessions)]
    starts = np.maximum.accumulate(np.where(begins, np.arange(len(sessions)), 0))
    retracting = (flags & RETRACTED) != 0
    by_hand = ((flags & MANUAL) != 0) | retracting
    above = _last(by_hand, starts)
    if len(above):
        above = np.where((above >= 0) & ~retracting[above], above, -1)
    orphans = len(rows) - len(counting)
    return Layers(revisions, sessions, which, rows.values[:, order], _last(~by_hand, starts), above, orphans)


def _last(chosen: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each place the last one so far that is `chosen`, not before the one in `starts`, or -1."""
    last = np.maximum.accumulate(np.where(chosen, np.arange(len(chosen)), -1))
    return np.where(last >= starts, last, -1)
