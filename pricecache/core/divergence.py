"""Where a provider and what is held part: kept in a series' state, never acted on, forgotten when they agree again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import Bars
from pricecache.core.coverage import Divergence, contains

DivergenceKind = Literal["provider_has_less", "other_currency", "providers_disagree", "action_withdrawn", "record_lost"]
DISAGREEMENT = 0.005
"""Closes of two providers that differ by more than this share disagree."""

Divergences = Mapping[str, Divergence]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one answer showed: `sessions` concerned (int64, ascending; none where they agree) and `detail` in words."""

    kind: DivergenceKind
    sessions: NDArray[np.int64]
    detail: str


def after_finding(known: Divergences, finding: Finding, provider: str, start: int, end: int, now: float) -> Divergences:
    """`known` once an answer of `provider` for `start` to `end`, both included, showed `finding`.

    What was known of the same provider goes when the answer covers all of it and shows no more of it.
    """
    before = known.get(finding.kind)
    if len(finding.sessions):
        return {**known, finding.kind: _noticed(before, finding, provider, start, end, now)}
    if before is None or before.provider != provider or not _covered(before, start, end):
        return known
    return {kind: divergence for kind, divergence in known.items() if kind != finding.kind}


def noticed(known: Divergences, kind: DivergenceKind, provider: str, detail: str, now: float) -> Divergences:
    """`known` once a whole answer of `provider` parted from what is held."""
    before = known.get(kind)
    since = before.since if before is not None and before.provider == provider else now
    return {**known, kind: Divergence(provider, detail, since, now)}


def settled(known: Divergences, kind: DivergenceKind, provider: str) -> Divergences:
    """`known` once an answer of `provider` was of that kind no more."""
    if (before := known.get(kind)) is None or before.provider != provider:
        return known
    return {other: divergence for other, divergence in known.items() if other != kind}


def disagreeing(answered: Bars, held: Bars) -> NDArray[np.int64]:
    """The sessions of both whose closes differ by more than `DISAGREEMENT`."""
    sessions, here, there = np.intersect1d(answered.sessions, held.sessions, assume_unique=True, return_indices=True)
    ours, theirs = answered.close[here], held.close[there]
    return np.asarray(sessions[np.abs(ours - theirs) > DISAGREEMENT * np.abs(theirs)])


def lacking(answered: NDArray[np.int64], held: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    """The sessions held from `start` to `end`, both included, that an answer for these came without."""
    asked = held[held.searchsorted(start) : held.searchsorted(end, side="right")]
    return asked[~contains(answered, asked)]


def _noticed(
    before: Divergence | None, finding: Finding, provider: str, start: int, end: int, now: float
) -> Divergence:
    first, last, count = int(finding.sessions[0]), int(finding.sessions[-1]), len(finding.sessions)
    if before is None or before.provider != provider:
        return Divergence(provider, finding.detail, now, now, count, first, last)
    if before.first is not None and before.last is not None and not _covered(before, start, end):
        first, last = min(first, before.first), max(last, before.last)
        count = max(count, before.count)
    return Divergence(provider, finding.detail, before.since, now, count, first, last)


def _covered(divergence: Divergence, start: int, end: int) -> bool:
    if divergence.first is None or divergence.last is None:
        return True
    return start <= divergence.first and divergence.last <= end
