"""Daily bars and actions of every series: read as packed years, laid over each other without loss, checked by replay.

What a reader gets carries, year by year, the revision that the series' head names, else it is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.actions import Action, merge_actions
from pricecache.core.bars import (
    MANUAL,
    RETRACTED,
    Bars,
    Merge,
    Provenance,
    checksum,
    concatenate,
    concatenate_provenance,
    merge,
    unpack_blocks,
    unpack_provenance,
    years_of,
)
from pricecache.core.catalog import Entry, SeriesHead
from pricecache.errors import Corrupt, Unavailable
from pricecache.stores.commits import ATTEMPTS, YEAR_BASE, Committer, Overtaken, Restatement, pause
from pricecache.stores.journal import Journal, Replayed
from pricecache.stores.series import apply_head, tail_field

SERIES_AT_ONCE = 50
"""Series in one transaction: 0.13 ms a series instead of 2 ms alone, and the transaction still short."""

ROWS_AT_ONCE = 20_000

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Change:
    """Something to be laid over a series: final bars as traded, in any order, and the actions known with them.

    `fetched_at`: seconds since 1970 UTC. `manual`: put in by a person; a provider's bar never replaces such a one.
    `actions`: laid over those held; None leaves them.
    """

    entry: Entry
    bars: Bars
    source: str
    fetched_at: float
    manual: bool = False
    actions: tuple[Action, ...] | None = None


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
class Record:
    """The bars of one series as they stood at one revision."""

    rev: int
    bars: Bars


@dataclass(frozen=True, slots=True)
class PackedYear:
    """One packed year as stored, checked against its checksum."""

    rev: int
    bars: Bars
    provenance: Provenance


class BarStore:
    """The bars and actions of all series. Loop-only; any number of processes may write the same series."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._series = database["series"]
        self._years = database["bar_years"]
        self._actions = database["actions"]
        self.journal = Journal(database)
        self._committer = Committer(database, self.journal)
        self.conflicts = 0

    async def read(self, entry: Entry) -> Bars:
        """The bars in the packed record of one series."""
        return (await self.read_many([entry]))[entry.id].bars

    async def read_many(self, entries: Sequence[Entry]) -> dict[int, Record]:
        """The packed records of several series by id, in one query. Each is one committed state of its series."""
        found: dict[int, Record] = {}
        waiting = list(entries)
        for attempt in range(ATTEMPTS):
            blocks = await self._blocks(waiting)
            for entry in waiting:
                stored = blocks.get(entry.id, {})
                if {year: rev for year, (rev, _) in stored.items()} == entry.head.years:
                    bars = unpack_blocks([block for _, block in stored.values()])
                    found[entry.id], entry.sessions = Record(entry.head.rev, bars), bars.sessions
            waiting = [entry for entry in waiting if entry.id not in found]
            if not waiting:
                return found
            await self.refresh(waiting)
            await pause(attempt)
        raise Corrupt(f"The packed years of {waiting[0].instrument} do not match its head.")

    async def _blocks(self, entries: Sequence[Entry]) -> dict[int, dict[int, tuple[int, bytes]]]:
        if len(entries) == 1:
            low = entries[0].id * YEAR_BASE
            query: dict[str, Any] = {"_id": {"$gte": low, "$lt": low + YEAR_BASE}}
        else:
            ids = [entry.id * YEAR_BASE + year for entry in entries for year in entry.head.years]
            query = {"_id": {"$in": ids}}
        blocks: dict[int, dict[int, tuple[int, bytes]]] = {}
        for document in await self._years.find(query, {"b": 1, "r": 1, "k": 1}).sort("_id", 1).to_list():
            series_id, year = divmod(document["_id"], YEAR_BASE)
            _check(series_id, year, document["b"], document["k"])
            blocks.setdefault(series_id, {})[year] = (document["r"], document["b"])
        return blocks

    async def held(self, entry: Entry) -> NDArray[np.int64]:
        """The sessions in the packed record of `entry`: int64, ascending."""
        if entry.sessions is None:
            await self.read(entry)
        assert entry.sessions is not None
        return entry.sessions

    async def refresh(self, entries: Sequence[Entry]) -> None:
        """Bring the heads, tails and actions of `entries` up to what is committed now."""
        by_id = {entry.id: entry for entry in entries}
        query = {"_id": {"$in": list(by_id)}}
        heads = await self._series.find(query).to_list()
        actions = {document["_id"]: document for document in await self._actions.find(query).to_list()}
        for document in heads:
            apply_head(by_id[document["_id"]], document, actions.get(document["_id"]))

    async def commit(self, changes: Sequence[Change]) -> list[Committed]:
        """Lay every change over its series; return when all are durable. One outcome a change, in order.

        Atomic for each series, idempotent: what is stored already commits nothing. At most one change a series in a
        call. Raises `Unavailable` when the database stays away: then nothing, or all, of a series was stored, and the
        same call may simply be made again.
        """
        return [committed for group in _groups(changes) for committed in await self._commit_group(group)]

    async def _commit_group(self, changes: Sequence[Change]) -> list[Committed]:
        for attempt in range(ATTEMPTS):
            try:
                planned = await self._plan(changes)
                restatements = [restatement for restatement, _ in planned if restatement is not None]
                if restatements:
                    await self._committer.write(restatements)
                return [committed for _, committed in planned]
            except Overtaken:
                self.conflicts += 1
                await self.refresh([change.entry for change in changes])
                await pause(attempt)
        raise Unavailable("The database is too busy to commit.", code="commit_conflict", retry_after=2.0)

    async def _plan(self, changes: Sequence[Change]) -> list[tuple[Restatement | None, Committed]]:
        which = [
            change.entry.id * YEAR_BASE + year
            for change in changes
            for year in np.unique(years_of(change.bars.sessions)).tolist()
        ]
        stored = await self._packed({"_id": {"$in": which}})
        return [_planned(change, stored.get(change.entry.id, {})) for change in changes]

    async def _packed(self, query: dict[str, Any]) -> dict[int, dict[int, PackedYear]]:
        found: dict[int, dict[int, PackedYear]] = {}
        for document in await self._years.find(query).sort("_id", 1).to_list():
            series_id, year = divmod(document["_id"], YEAR_BASE)
            _check(series_id, year, document["b"], document["k"])
            _check(series_id, year, document["p"], document["kp"])
            found.setdefault(series_id, {})[year] = PackedYear(
                document["r"], unpack_blocks([document["b"]]), unpack_provenance(document["p"], document["src"])
            )
        return found

    async def packed(self, entry: Entry) -> dict[int, PackedYear]:
        """Every packed year of one series with its provenance, checksums verified."""
        low = entry.id * YEAR_BASE
        return (await self._packed({"_id": {"$gte": low, "$lt": low + YEAR_BASE}})).get(entry.id, {})

    async def set_tails(self, tails: Sequence[tuple[Entry, Bars]]) -> None:
        """Keep provisional bars beside the record. Only those of sessions newer than its last one are kept."""
        pairs = [(entry, bars if entry.head.last is None else bars.between(entry.head.last + 1, None))
                 for entry, bars in tails]  # fmt: skip
        if not pairs:
            return
        await self._committer.ensure_series([entry.id for entry, _ in pairs if entry.head.rev == 0])
        updates = [
            UpdateOne({"_id": entry.id, "rev": entry.head.rev}, {"$set": {"tail": tail_field(bars)}})
            for entry, bars in pairs
        ]
        await self._series.bulk_write(updates, ordered=False)
        for entry, bars in pairs:
            entry.tail = bars
            entry.touch()

    async def retract(self, entry: Entry, sessions: Sequence[int], now: float) -> Committed:
        """Take back the manual bars of `sessions`; what a provider had last said of them shows again, if anything.

        Sessions without a manual bar are left alone.
        """
        for attempt in range(ATTEMPTS):
            try:
                return await self._retract(entry, np.asarray(sessions, np.int64), now)
            except Overtaken:
                await self.refresh([entry])
                await pause(attempt)
        raise Unavailable("The database is too busy to commit.", code="commit_conflict", retry_after=2.0)

    async def _retract(self, entry: Entry, sessions: NDArray[np.int64], now: float) -> Committed:
        held = await self._whole(entry)
        manual = held.bars.sessions[(held.provenance.flags & MANUAL) != 0]
        gone = np.intersect1d(manual, sessions)
        if not len(gone):
            return Committed(entry, entry.head.rev, _NONE, _NONE, _NONE)
        after = await self.journal.replay(entry.id, retracting=gone)
        restatement = _restated(
            entry,
            held,
            after,
            changed=gone,
            rows=Bars(gone, np.full((5, len(gone)), np.nan)),
            source="manual",
            at=int(now * 1000),
            flags=RETRACTED,
        )
        await self._committer.write([restatement])
        back = np.intersect1d(gone, after.bars.sessions)
        return Committed(entry, restatement.head.rev, _NONE, back, np.setdiff1d(gone, back))

    async def retract_actions(self, entry: Entry, keys: Sequence[tuple[int, str]], now: float) -> Committed:
        """Take back manual actions, named by `(ex-date, kind)`."""
        for attempt in range(ATTEMPTS):
            kept = tuple(a for a in entry.actions if not (a.manual and a.key in set(keys)))
            if kept == entry.actions:
                return Committed(entry, entry.head.rev, _NONE, _NONE, _NONE)
            head = SeriesHead(entry.head.rev + 1, entry.head.years, entry.head.first, entry.head.last, entry.head.count)
            restatement = Restatement(
                entry, head, {}, Bars.empty(), kept, "manual", int(now * 1000), RETRACTED, entry.head.first
            )
            try:
                await self._committer.write([restatement])
                return Committed(entry, head.rev, _NONE, _NONE, _NONE, actions_changed=True)
            except Overtaken:
                await self.refresh([entry])
                await pause(attempt)
        raise Unavailable("The database is too busy to commit.", code="commit_conflict", retry_after=2.0)

    async def verify(self, entry: Entry, *, rebuild_at: float | None = None) -> list[dict[str, Any]]:
        """Hold the packed record of one series against its journal's replay: one fact for every difference found.

        Bit for bit: sessions, values, source, flags and time of every bar, checksums, and the head's figures. With
        `rebuild_at` (seconds since 1970 UTC) what the journal says is then written as a new revision.
        """
        for attempt in range(ATTEMPTS):
            await self.refresh([entry])
            rev = entry.head.rev
            problems, held = await self._problems(entry)
            replayed = await self.journal.replay(entry.id)
            problems += _differences(entry, held, replayed)
            await self.refresh([entry])
            if entry.head.rev != rev:
                await pause(attempt)
                continue
            if not problems or rebuild_at is None:
                return problems
            try:
                await self._committer.write([_rebuilt(entry, replayed, int(rebuild_at * 1000))])
                return problems
            except Overtaken:
                await pause(attempt)
        raise Unavailable("The series keeps changing.", code="commit_conflict", retry_after=2.0)

    async def _problems(self, entry: Entry) -> tuple[list[dict[str, Any]], Replayed]:
        """Faults of the packed years in themselves, and what they hold where they can be read."""
        try:
            years = await self.packed(entry)
        except Corrupt as exc:
            return [_fault(entry, "packed_unreadable", exc.detail)], _nothing()
        problems = []
        if {year: packed.rev for year, packed in years.items()} != entry.head.years:
            problems.append(_fault(entry, "head_mismatch", "The packed years are not those the head names."))
        return problems, _joined(years)

    async def _whole(self, entry: Entry) -> Replayed:
        years = await self.packed(entry)
        if {year: packed.rev for year, packed in years.items()} != entry.head.years:
            raise Overtaken
        return _joined(years)


def _check(series_id: int, year: int, block: bytes, expected: int) -> None:
    if checksum(block) != expected:
        raise Corrupt(
            f"Year {year} of series {series_id} fails its checksum. Run `pricecache doctor --verify --rebuild`."
        )


def _groups(changes: Sequence[Change]) -> Iterator[list[Change]]:
    group: list[Change] = []
    rows = 0
    for change in changes:
        if group and (len(group) == SERIES_AT_ONCE or rows + len(change.bars) > ROWS_AT_ONCE):
            yield group
            group, rows = [], 0
        group.append(change)
        rows += len(change.bars)
    if group:
        yield group


def _planned(change: Change, stored: dict[int, PackedYear]) -> tuple[Restatement | None, Committed]:
    """What `change` makes of a series of which `stored` are the years it touches. Raises `Overtaken`."""
    entry, at = change.entry, int(change.fetched_at * 1000)
    flags = MANUAL if change.manual else 0
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
    actions = entry.actions if change.actions is None else merge_actions(entry.actions, change.actions)
    added = np.concatenate([_NONE, *(m.added for m in merges.values())])
    replaced = np.concatenate([_NONE, *(m.replaced for m in merges.values())])
    actions_changed = actions != entry.actions
    if not merges and not actions_changed:
        return None, Committed(entry, entry.head.rev, _NONE, _NONE, _NONE)
    head = _head_after(entry.head, merges)
    changed = [m.first_changed for m in merges.values()]
    if actions_changed and entry.head.first is not None:
        changed.append(entry.head.first)  # every earlier bar now reads differently
    restatement = Restatement(
        entry=entry,
        head=head,
        years={year: (m.bars, m.provenance) for year, m in merges.items()},
        rows=concatenate([m.rows for m in merges.values()]),
        actions=actions,
        source=change.source,
        at=at,
        flags=flags,
        first_changed=min(changed, default=None),
    )
    return restatement, Committed(entry, head.rev, added, replaced, _NONE, actions_changed)


def _head_after(head: SeriesHead, merges: dict[int, Merge]) -> SeriesHead:
    firsts = [int(m.bars.sessions[0]) for m in merges.values()] + ([] if head.first is None else [head.first])
    lasts = [int(m.bars.sessions[-1]) for m in merges.values()] + ([] if head.last is None else [head.last])
    rev = head.rev + 1
    return SeriesHead(
        rev=rev,
        years={**head.years, **dict.fromkeys(merges, rev)},
        first=min(firsts, default=None),
        last=max(lasts, default=None),
        count=head.count + sum(len(m.added) for m in merges.values()),
    )


def _restated(
    entry: Entry,
    held: Replayed,
    after: Replayed,
    *,
    changed: NDArray[np.int64],
    rows: Bars,
    source: str,
    at: int,
    flags: int,
) -> Restatement:
    """The restatement that turns `held` into `after`, which differ in the years of `changed` only."""
    rev = entry.head.rev + 1
    years = np.unique(years_of(changed)).tolist()
    which = years_of(after.bars.sessions)
    parts = {year: after.where(which == year) for year in years}
    left = {year: r for year, r in entry.head.years.items() if year not in parts}
    sessions = after.bars.sessions
    head = SeriesHead(
        rev=rev,
        years=left | {year: rev for year, (bars, _) in parts.items() if len(bars)},
        first=int(sessions[0]) if len(sessions) else None,
        last=int(sessions[-1]) if len(sessions) else None,
        count=len(sessions),
    )
    first = int(changed[0]) if len(changed) else None
    return Restatement(entry, head, parts, rows, entry.actions, source, at, flags, first)


def _rebuilt(entry: Entry, replayed: Replayed, at: int) -> Restatement:
    years = set(years_of(replayed.bars.sessions).tolist()) | set(entry.head.years)
    every = np.array(sorted((year - 1970) for year in years), "datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    return _restated(entry, replayed, replayed, changed=every, rows=Bars.empty(), source="doctor", at=at, flags=0)


def _joined(years: dict[int, PackedYear]) -> Replayed:
    ordered = [years[year] for year in sorted(years)]
    return Replayed(
        concatenate([packed.bars for packed in ordered]),
        concatenate_provenance([packed.provenance for packed in ordered]),
        0,
    )


def _nothing() -> Replayed:
    return Replayed(Bars.empty(), Provenance.uniform(0, "", 0), 0)


def _fault(entry: Entry, code: str, detail: str, **facts: Any) -> dict[str, Any]:
    return {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "code": code,
        "detail": detail,
        **facts,
    }


def _differences(entry: Entry, held: Replayed, replayed: Replayed) -> list[dict[str, Any]]:
    problems = []
    missing = np.setdiff1d(replayed.bars.sessions, held.bars.sessions)
    extra = np.setdiff1d(held.bars.sessions, replayed.bars.sessions)
    if len(missing):
        problems.append(_fault(entry, "packed_lacks", f"{len(missing)} journalled sessions are not packed."))
    if len(extra):
        problems.append(_fault(entry, "packed_invents", f"{len(extra)} packed sessions are not in the journal."))
    if not len(missing) and not len(extra) and not held.equals(replayed):
        problems.append(_fault(entry, "packed_differs", "A packed bar differs from the journal's last word."))
    sessions = held.bars.sessions
    figures = (len(sessions), int(sessions[0]), int(sessions[-1])) if len(sessions) else (0, None, None)
    if figures != (entry.head.count, entry.head.first, entry.head.last):
        problems.append(_fault(entry, "head_figures", "The head's count, first or last session is wrong."))
    return problems
