"""What a change, a retraction or a replay makes of a series: the restatement to commit, worked out without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action, merge_actions
from pricecache.core.bars import (
    APPROVED,
    MANUAL,
    RETRACTED,
    Bars,
    Merge,
    Provenance,
    concatenate,
    concatenate_provenance,
    day_number,
    merge,
    years_of,
)
from pricecache.core.catalog import Entry, SeriesHead
from pricecache.core.instruments import Instrument
from pricecache.stores.commits import Overtaken, Restatement
from pricecache.stores.journal import Replayed
from pricecache.stores.revisions import Changed

NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Change:
    """Something to be laid over a series: final bars as traded, in any order, and the actions known with them.

    `fetched_at`: seconds since 1970 UTC. `manual`: put in by a person; a provider's bar never replaces such a one.
    `approved`: a provider's that was parked until a person approved it; a provider's later one replaces it.
    `actions`: laid over those held; None leaves them. `gone`: of a provider's actions held those that are no more.
    """

    entry: Entry
    bars: Bars
    source: str
    fetched_at: float
    manual: bool = False
    actions: tuple[Action, ...] | None = None
    approved: bool = False
    gone: tuple[Action, ...] = ()

    @property
    def flags(self) -> int:
        return MANUAL if self.manual else APPROVED if self.approved else 0


@dataclass(frozen=True, slots=True)
class Committed:
    """What a change came to. `added`, `replaced`, `removed`: int64 sessions, empty when all was known already."""

    entry: Entry
    rev: int
    added: NDArray[np.int64]
    replaced: NDArray[np.int64]
    removed: NDArray[np.int64]
    actions_changed: bool = False

    @property
    def changed(self) -> bool:
        return bool(len(self.added) or len(self.replaced) or len(self.removed) or self.actions_changed)


@dataclass(frozen=True, slots=True)
class PackedYear:
    """One packed year as stored, checked against its checksum."""

    rev: int
    bars: Bars
    provenance: Provenance


def planned(change: Change, stored: Mapping[int, PackedYear]) -> tuple[Restatement | None, Committed]:
    """What `change` makes of a series of which `stored` are the years it touches. Raises `Overtaken`."""
    entry, at = change.entry, int(change.fetched_at * 1000)
    flags = change.flags
    new = Bars.of(change.bars.sessions, change.bars.values)
    which = years_of(new.sessions)
    merges: dict[int, Merge] = {}
    for year in np.unique(which).tolist():
        held = stored.get(year) or PackedYear(0, Bars.empty(), Provenance.uniform(0, change.source, 0))
        if held.rev != entry.head.years.get(year, 0):
            raise Overtaken
        part = Bars(new.sessions[which == year], new.values[:, which == year])
        merged = merge(held.bars, held.provenance, part, change.source, at, flags)
        if merged.changed:
            merges[year] = merged
    actions = tuple(action for action in entry.actions if action not in change.gone)
    actions = actions if change.actions is None else merge_actions(actions, change.actions)
    added = np.concatenate([NONE, *(m.added for m in merges.values())])
    replaced = np.concatenate([NONE, *(m.replaced for m in merges.values())])
    actions_changed = actions != entry.actions
    if not merges and not actions_changed:
        return None, Committed(entry, entry.head.rev, NONE, NONE, NONE)
    head = _head_after(entry.head, merges)
    if actions_changed:
        head = replace(head, actions_rev=head.rev)
    changed = [m.first_changed for m in merges.values()]
    if actions_changed and entry.head.first is not None:
        changed.append(entry.head.first)  # every earlier bar now reads differently
    restatement = Restatement(
        entry=entry,
        base=entry.head,
        head=head,
        years={year: (m.bars, m.provenance) for year, m in merges.items()},
        rows=concatenate([m.rows for m in merges.values()]),
        actions=actions,
        source=change.source,
        at=at,
        flags=flags,
        first_changed=min(changed, default=None),
        changed=Changed(added, replaced, NONE),
    )
    return restatement, Committed(entry, head.rev, added, replaced, NONE, actions_changed)


def _head_after(head: SeriesHead, merges: Mapping[int, Merge]) -> SeriesHead:
    firsts = [int(m.bars.sessions[0]) for m in merges.values()] + ([] if head.first is None else [head.first])
    lasts = [int(m.bars.sessions[-1]) for m in merges.values()] + ([] if head.last is None else [head.last])
    rev = head.rev + 1
    return SeriesHead(
        rev=rev,
        years={**head.years, **dict.fromkeys(merges, rev)},
        first=min(firsts, default=None),
        last=max(lasts, default=None),
        count=head.count + sum(len(m.added) for m in merges.values()),
        actions_rev=head.actions_rev,
    )


def restated(
    entry: Entry,
    after: Replayed,
    *,
    years: Sequence[int],
    first_changed: int | None,
    rows: Bars,
    actions: tuple[Action, ...],
    source: str,
    at: int,
    flags: int,
    known: Changed | None = None,
) -> Restatement:
    """The restatement that turns a series as it is into `after`, which differs in `years` only.

    `first_changed`: the first session or day that may read differently; `known`: which sessions changed, None when
    nobody can tell.
    """
    base = entry.head
    rev = base.rev + 1
    which = years_of(after.bars.sessions)
    parts = {year: after.where(which == year) for year in years}
    left = {year: r for year, r in base.years.items() if year not in parts}
    sessions = after.bars.sessions
    head = SeriesHead(
        rev=rev,
        years=left | {year: rev for year, (bars, _) in parts.items() if len(bars)},
        first=int(sessions[0]) if len(sessions) else None,
        last=int(sessions[-1]) if len(sessions) else None,
        count=len(sessions),
        actions_rev=base.actions_rev,
    )
    return Restatement(entry, base, head, parts, rows, actions, source, at, flags, first_changed, known)


def rebuilt(entry: Entry, replayed: Replayed, stored: set[int], at: int) -> Restatement:
    """The restatement that makes the record what the journal says. `stored`: years that are packed, rightly or not."""
    years = set(years_of(replayed.bars.sessions).tolist()) | set(entry.head.years) | stored
    first_changed = day_number(date(min(years), 1, 1)) if years else None
    restatement = restated(
        entry,
        replayed,
        years=sorted(years),
        first_changed=first_changed,
        rows=Bars.empty(),
        actions=replayed.actions,
        source="doctor",
        at=at,
        flags=0,
    )
    return replace(restatement, head=replace(restatement.head, actions_rev=restatement.head.rev))


def without_actions(entry: Entry, keys: Sequence[tuple[int, str]], at: int) -> Restatement | None:
    """The restatement that takes back the manual actions named by `(ex-date, kind)`; None when there are none."""
    kept = tuple(a for a in entry.actions if not (a.manual and a.key in set(keys)))
    if kept == entry.actions:
        return None
    base = entry.head
    head = replace(base, rev=base.rev + 1, actions_rev=base.rev + 1)
    nothing_else = Changed(NONE, NONE, NONE)
    return Restatement(entry, base, head, {}, Bars.empty(), kept, "manual", at, RETRACTED, base.first, nothing_else)


def joined(years: Mapping[int, PackedYear]) -> Replayed:
    ordered = [years[year] for year in sorted(years)]
    return Replayed(
        concatenate([packed.bars for packed in ordered]),
        concatenate_provenance([packed.provenance for packed in ordered]),
        0,
    )


def completed(replayed: Replayed, sound: Mapping[int, PackedYear]) -> Replayed:
    """`replayed` with those packed years in place of its own of which it has fewer bars."""
    which = years_of(replayed.bars.sessions)
    years: dict[int, PackedYear] = {}
    for year in sorted({*which.tolist(), *sound}):
        own = PackedYear(0, *replayed.where(which == year))
        packed = sound.get(year, own)
        years[year] = packed if len(packed.bars) > len(own.bars) else own
    return replace(replayed, bars=joined(years).bars, provenance=joined(years).provenance)


def nothing() -> Replayed:
    return Replayed(Bars.empty(), Provenance.uniform(0, "", 0), 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which the record of a series is not what its journal says. `code` is stable."""

    instrument: Instrument
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Loss:
    """Bars that were committed and that neither the journal nor the packed years have any more: how many, and the
    first and last of their sessions (days since 1970-01-01), None where nobody can tell."""

    count: int
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at the record of a series came to: what is wrong, whether it was written anew because of it, and
    what is `lost` all the same."""

    faults: tuple[Fault, ...] = ()
    rebuilt: bool = False
    lost: Loss | None = None


def fault(entry: Entry, code: str, detail: str) -> Fault:
    return Fault(entry.instrument, code, detail)


def differences(entry: Entry, held: Replayed, replayed: Replayed) -> list[Fault]:
    problems = []
    missing = np.setdiff1d(replayed.bars.sessions, held.bars.sessions)
    extra = np.setdiff1d(held.bars.sessions, replayed.bars.sessions)
    if len(missing):
        problems.append(fault(entry, "packed_lacks", f"{len(missing)} journalled sessions are not packed."))
    if len(extra):
        problems.append(fault(entry, "packed_invents", f"{len(extra)} packed sessions are not in the journal."))
    if not len(missing) and not len(extra) and not held.equals(replayed):
        problems.append(fault(entry, "packed_differs", "A packed bar differs from the journal's last word."))
    sessions = held.bars.sessions
    figures = (len(sessions), int(sessions[0]), int(sessions[-1])) if len(sessions) else (0, None, None)
    if figures != (entry.head.count, entry.head.first, entry.head.last):
        problems.append(fault(entry, "head_figures", "The head's count, first or last session is wrong."))
    if entry.actions != replayed.actions:
        problems.append(fault(entry, "actions_differ", "The splits and dividends are not those last committed."))
    return problems
