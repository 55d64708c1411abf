"""What was superseded: every bar and action that readers were once given and are given no more, from the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action, preferred
from pricecache.core.bars import APPROVED, MANUAL, RETRACTED
from pricecache.stores.journal_rows import Rows
from pricecache.stores.layers import Layers, layered
from pricecache.stores.revisions import Revision

Kind = Literal["replaced", "retracted", "approved", "manual"]


@dataclass(frozen=True, slots=True)
class Version:
    """A bar as it once stood: open, high, low, close, volume (NaN unknown), and where it came from.

    `fetched_at`, `committed_at`: ms since 1970 UTC; `rev`: the revision that brought it.
    """

    values: tuple[float, ...]
    source: str
    fetched_at: int
    committed_at: int
    rev: int


@dataclass(frozen=True, slots=True)
class Correction:
    """One session of which readers were given something else from revision `rev` on, committed at `at` (ms since 1970
    UTC). `after` is None where nothing was left: a manual bar was taken back that no provider's was beneath."""

    session: int
    rev: int
    at: int
    kind: Kind
    before: Version
    after: Version | None


@dataclass(frozen=True, slots=True)
class ActionCorrection:
    """The same for a split or a dividend."""

    rev: int
    at: int
    kind: Kind
    source: str
    before: Action
    after: Action | None


@dataclass(frozen=True, slots=True)
class Corrections:
    """The newest of each, newest first; `total`, `actions_total`: how many there are."""

    bars: list[Correction]
    actions: list[ActionCorrection]
    total: int
    actions_total: int


def corrections(revisions: Sequence[Revision], rows: Rows, start: int, end: int, limit: int) -> Corrections:
    """What was superseded of the sessions `start` to `end`, both included; at most `limit` of bars and of actions.

    A session's first bar is none, nor is one that follows upon nothing.
    """
    layers = layered(revisions, rows)
    shown = layers.shown
    before = np.append(-1, shown[:-1])[: len(shown)]
    same_session = np.append(False, layers.sessions[1:] == layers.sessions[:-1])[: len(shown)]
    superseding = np.flatnonzero(same_session & (before >= 0) & (before != shown))
    newest = superseding[np.lexsort((-layers.sessions[superseding], -layers.which[superseding]))]
    actions = [c for c in _of_actions(revisions) if start <= c.before.ex_date <= end]
    return Corrections(
        [_correction(layers, shown, int(row), int(before[row])) for row in newest[:limit]],
        actions[::-1][:limit],
        len(superseding),
        len(actions),
    )


def _correction(layers: Layers, shown: NDArray[np.int64], row: int, before: int) -> Correction:
    revision, after = layers.revisions[layers.which[row]], int(shown[row])
    return Correction(
        int(layers.sessions[row]),
        revision.rev,
        revision.committed_at,
        _kind(revision.flags),
        _version(layers, before),
        _version(layers, after) if after >= 0 else None,
    )


def _version(layers: Layers, row: int) -> Version:
    origin = layers.revisions[layers.which[row]]
    values = tuple(layers.values[:, row].tolist())
    return Version(values, origin.source, origin.at, origin.committed_at, origin.rev)


def _kind(flags: int) -> Kind:
    if flags & RETRACTED:
        return "retracted"
    if flags & MANUAL:
        return "manual"
    return "approved" if flags & APPROVED else "replaced"


def _of_actions(revisions: Sequence[Revision]) -> list[ActionCorrection]:
    found, held = [], dict[tuple[int, str], Action]()
    for revision in revisions:
        if revision.actions is None:
            continue
        now = {action.key: action for action in preferred(revision.actions)}
        found += [
            ActionCorrection(
                revision.rev, revision.committed_at, _kind(revision.flags), revision.source, action, now.get(key)
            )
            for key, action in sorted(held.items())
            if now.get(key) != action
        ]
        held = now
    return found
