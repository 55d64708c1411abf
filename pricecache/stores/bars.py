"""Daily bars and actions of every series: read as packed years, laid over each other without loss, checked by replay.

What a reader gets carries, year by year, the revision that the series' head names, else it is read again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.actions import Action
from pricecache.core.bars import (
    MANUAL,
    RETRACTED,
    Bars,
    flags_of,
    unpack_blocks,
    unpack_provenance,
    years_of,
)
from pricecache.core.catalog import Entry, SeriesHead
from pricecache.core.coverage import contains
from pricecache.errors import Corrupt, Unavailable
from pricecache.stores.announcing import Announcer, Listener
from pricecache.stores.commits import ATTEMPTS, YEAR_BASE, Committer, Overtaken, Restatement, pause
from pricecache.stores.corrections import Corrections, corrections
from pricecache.stores.journal import Journal, Replayed, elsewhere_if_long
from pricecache.stores.packed import Block, is_sound, sources_fit
from pricecache.stores.restating import (
    NONE,
    Change,
    Committed,
    PackedYear,
    differences,
    fault,
    joined,
    nothing,
    planned,
    rebuilt,
    restated,
    without_actions,
)
from pricecache.stores.revisions import Changed
from pricecache.stores.series import apply_head, head_fields, head_from, tail_field

log = structlog.get_logger(__name__)

SERIES_AT_ONCE = 50
"""Series in one transaction: 0.13 ms a series instead of 2 ms alone, and the transaction still short."""

ROWS_AT_ONCE = 20_000

PATIENCE = 4
"""Readings in a row that contradict an unmoved head before a series counts as corrupt, not as just being changed."""

FAR_FUTURE = 2**31 - 1
"""Later than any session, days since 1970-01-01: what the journal's labels are bounded by."""

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Record:
    """The bars of one series as they stood at one revision, and the actions that were held with them."""

    rev: int
    bars: Bars
    actions: tuple[Action, ...] = ()


class BarStore:
    """The bars and actions of all series. Loop-only; any number of processes may write the same series."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._series = database["series"]
        self._revisions = database["revisions"]
        self._years = database["bar_years"]
        self._actions = database["actions"]
        self.journal = Journal(database)
        self.announcer = Announcer(database)
        self._committer = Committer(database, self.journal, self.announcer)
        self._told_broken: set[int] = set()
        self._turns: dict[int, asyncio.Lock] = {}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called on the loop with a `BarsChanged` after every durable commit: each of this process, in
        order, once its entry is brought up to it, and those of others as they are heard of. It must neither raise nor
        block. What is given back ends it.
        """
        return self.announcer.subscribe(listener)

    async def read(self, entry: Entry) -> Bars:
        """The bars in the packed record of one series."""
        return (await self.read_many([entry]))[entry.id].bars

    async def read_many(self, entries: Sequence[Entry]) -> dict[int, Record]:
        """The packed records of several series by id, in one query. Each is one committed state of its series.

        Raises `Corrupt` for a single one that cannot be read; of several, such a one is left out and logged.
        """
        found: dict[int, Record] = {}
        waiting = list(entries)
        contradicted: Counter[tuple[int, int]] = Counter()
        for attempt in range(ATTEMPTS):
            blocks, broken = await self._blocks(waiting)
            headless = await self._headless(waiting)
            for entry in waiting:
                stored = blocks.get(entry.id, {})
                revs = {year: block.rev for year, block in stored.items()}
                if entry.id not in broken and entry.id not in headless and revs == entry.head.years:
                    found[entry.id] = _taken(entry, list(stored.values()))
            contradicted.update((e.id, e.head.rev) for e in waiting if e.id not in found)
            broken |= {
                entry.id: "Its packed years do not match its head."
                for entry in waiting
                if entry.id not in broken and contradicted[entry.id, entry.head.rev] >= PATIENCE
            }
            self._tell_broken(waiting, broken, alone=len(entries) == 1)
            waiting = [entry for entry in waiting if entry.id not in found and entry.id not in broken]
            if not waiting:
                return found
            await self._refresh(waiting)
            await pause(attempt)
        self._tell_broken(
            waiting, {e.id: "Its packed years do not match its head." for e in waiting}, alone=len(entries) == 1
        )
        return found

    async def _headless(self, entries: Sequence[Entry]) -> set[int]:
        """Those without a head of which something was committed all the same: the head was lost, or is new."""
        first = [{"s": entry.id, "rev": 1} for entry in entries if entry.head.rev == 0]
        if not first:
            return set()
        found = await self._revisions.find({"_id": {"$in": first}}, {"_id": 1}).to_list()
        return {document["_id"]["s"] for document in found}

    def _tell_broken(self, entries: Sequence[Entry], broken: Mapping[int, str], *, alone: bool) -> None:
        for entry in entries:
            if entry.id in broken:
                detail = f"{entry.instrument}: {broken[entry.id]} Run `pricecache doctor --verify --rebuild`."
                if alone:
                    raise Corrupt(detail, series=entry.id)
                tell = log.debug if entry.id in self._told_broken else log.error
                self._told_broken.add(entry.id)
                tell("a series is corrupt", symbol=str(entry.instrument), detail=detail)

    async def _blocks(self, entries: Sequence[Entry]) -> tuple[dict[int, dict[int, Block]], dict[int, str]]:
        """Every packed year by series and year, and what is wrong with which series."""
        if len(entries) == 1:
            low = entries[0].id * YEAR_BASE
            query: dict[str, Any] = {"_id": {"$gte": low, "$lt": low + YEAR_BASE}}
        else:
            ids = [entry.id * YEAR_BASE + year for entry in entries for year in entry.head.years]
            query = {"_id": {"$in": ids}}
        blocks: dict[int, dict[int, Block]] = {}
        broken: dict[int, str] = {}
        columns = {"b": 1, "r": 1, "k": 1, "p": 1, "kp": 1}
        for document in await self._years.find(query, columns).sort("_id", 1).to_list():
            series_id, year = divmod(document["_id"], YEAR_BASE)
            if not is_sound(document):
                broken[series_id] = f"Year {year} fails its checksum."
            else:
                block = Block(document.get("r"), document["b"], document["p"])
                blocks.setdefault(series_id, {})[year] = block
        return blocks, broken

    async def held(self, entry: Entry) -> NDArray[np.int64]:
        """The sessions in the packed record of `entry`: int64, ascending."""
        if entry.sessions is None:
            await self.read(entry)
        assert entry.sessions is not None
        return entry.sessions

    async def manual(self, entry: Entry) -> NDArray[np.int64]:
        """The sessions in the packed record of `entry` whose bars were put in by hand: int64, ascending."""
        if entry.manual is None:
            await self.read(entry)
        assert entry.manual is not None
        return entry.manual

    async def refresh(self, entries: Sequence[Entry]) -> None:
        """Bring the heads, tails and actions of `entries` up to what is committed now.

        Raises `Corrupt` for a single one whose actions are not those its head names; of several, such a one is left
        doubted.
        """
        waiting = await self._refresh(entries)
        if waiting and len(entries) == 1:
            raise Corrupt(
                f"{entries[0].instrument}: Its splits and dividends are not those its head names. "
                "Run `pricecache doctor --verify --rebuild`.",
                series=entries[0].id,
            )

    async def _refresh(self, entries: Sequence[Entry]) -> list[Entry]:
        """Refresh, and give back those whose head and actions stay apart, however often they are read."""
        self.announcer.begin(entries)
        waiting = list(entries)
        for attempt in range(PATIENCE):
            by_id = {entry.id: entry for entry in waiting}
            query = {"_id": {"$in": list(by_id)}}
            heads = await self._series.find(query).to_list()
            actions = {document["_id"]: document for document in await self._actions.find(query).to_list()}
            waiting = [
                by_id[head["_id"]]
                for head in heads
                if not apply_head(by_id[head["_id"]], head, actions.get(head["_id"]))
            ]
            if not waiting:
                break
            await pause(attempt)
        await self.announcer.catch_up(entries)
        return waiting

    async def commit(self, changes: Sequence[Change]) -> list[Committed]:
        """Lay every change over its series; return when all are durable. One outcome a change, in order.

        Atomic for each series, idempotent: what is stored already commits nothing. At most one change a series in a
        call. Raises `Unavailable` when the database stays away: then nothing, or all, of a series was stored, and the
        same call may simply be made again.
        """
        return [committed for group in _groups(changes) for committed in await self._commit_group(group)]

    async def _commit_group(self, changes: Sequence[Change]) -> list[Committed]:
        async def attempt() -> list[Committed]:
            plans = await self._plan(changes)
            restatements = [restatement for restatement, _ in plans if restatement is not None]
            if restatements:
                await self._committer.write(restatements)
            return [committed for _, committed in plans]

        return await self._until_done([change.entry for change in changes], attempt)

    async def _until_done(
        self, entries: Sequence[Entry], attempt: Callable[[], Awaitable[Outcome]], *, doubted: bool = True
    ) -> Outcome:
        """Make attempts, each from what is committed by then, until one was not overtaken by another writer.

        `doubted`: refresh those first that are doubted, and raise `Corrupt` when it is no writer that is in the way.
        """
        async with AsyncExitStack() as turn:
            # writers of this process queue for a series; only those of others are found out by being overtaken
            for series_id in sorted({entry.id for entry in entries}):
                await turn.enter_async_context(self._turns.setdefault(series_id, asyncio.Lock()))
            behind = [entry for entry in entries if doubted and not entry.current]
            if behind:
                await self.refresh(behind)
            for number in range(ATTEMPTS):
                before = [entry.head.rev for entry in entries]
                try:
                    return await attempt()
                except Overtaken:
                    await (self.refresh if doubted else self._refresh)(entries)
                    await pause(number)
                stuck = [entry for entry, rev in zip(entries, before, strict=True) if entry.head.rev == rev]
                if doubted and number >= PATIENCE and stuck:
                    await self._refuse_corrupt(stuck)
        raise Unavailable("The database is too busy to commit.", code="commit_conflict", retry_after=2.0)

    async def _plan(self, changes: Sequence[Change]) -> list[tuple[Restatement | None, Committed]]:
        which = [
            change.entry.id * YEAR_BASE + year
            for change in changes
            for year in np.unique(years_of(change.bars.sessions)).tolist()
        ]
        stored = await self._packed({"_id": {"$in": which}})
        return [planned(change, stored.get(change.entry.id, {})) for change in changes]

    async def _packed(self, query: dict[str, Any]) -> dict[int, dict[int, PackedYear]]:
        found: dict[int, dict[int, PackedYear]] = {}
        for document in await self._years.find(query).sort("_id", 1).to_list():
            series_id, year = divmod(document["_id"], YEAR_BASE)
            if not (is_sound(document) and sources_fit(document)):
                raise Corrupt(
                    f"Year {year} of series {series_id} fails its checksum. "
                    "Run `pricecache doctor --verify --rebuild`.",
                    series=series_id,
                )
            found.setdefault(series_id, {})[year] = PackedYear(
                document.get("r", 0), unpack_blocks([document["b"]]), unpack_provenance(document["p"], document["src"])
            )
        return found

    async def packed(self, entry: Entry) -> dict[int, PackedYear]:
        """Every packed year of one series with its provenance, checksums verified."""
        low = entry.id * YEAR_BASE
        return (await self._packed({"_id": {"$gte": low, "$lt": low + YEAR_BASE}})).get(entry.id, {})

    async def set_tails(self, tails: Sequence[tuple[Entry, Bars]]) -> None:
        """Keep provisional bars beside the record: those of sessions that are not in it."""
        pairs = [(entry, entry.head, await self._without_final(entry, bars)) for entry, bars in tails]
        if not pairs:
            return
        await self._committer.ensure_series([entry.id for entry, base, _ in pairs if base.rev == 0])
        updates = [
            UpdateOne({"_id": entry.id, "rev": base.rev}, {"$set": {"tail": tail_field(bars)}})
            for entry, base, bars in pairs
        ]
        stored = await self._series.bulk_write(updates, ordered=False)
        if stored.matched_count < len(pairs):
            # some moved on meanwhile; their next transfer looks at them again
            await self.refresh([entry for entry, _, _ in pairs])
            return
        for entry, base, bars in pairs:
            if entry.head is base:
                entry.tail = bars
                entry.touch()
            else:
                await self.refresh([entry])

    async def _without_final(self, entry: Entry, bars: Bars) -> Bars:
        left = ~contains(await self.held(entry), bars.sessions)
        return Bars(bars.sessions[left], bars.values[:, left])

    async def retract(self, entry: Entry, sessions: Sequence[int], now: float) -> Committed:
        """Take back the manual bars of `sessions`; what a provider had last said of them shows again, if anything.

        Sessions without a manual bar are left alone.
        """
        return await self._until_done([entry], lambda: self._retract(entry, np.asarray(sessions, np.int64), now))

    async def _retract(self, entry: Entry, sessions: NDArray[np.int64], now: float) -> Committed:
        base = entry.head
        held = await self._whole(entry)
        manual = held.bars.sessions[(held.provenance.flags & MANUAL) != 0]
        gone = np.intersect1d(manual, sessions)
        if not len(gone):
            return Committed(entry, base.rev, NONE, NONE, NONE)
        after = await self.journal.replay(entry.id, retracting=gone)
        if entry.head is not base:
            raise Overtaken
        back = np.intersect1d(gone, after.bars.sessions)
        removed = np.setdiff1d(gone, back)
        rows = Bars(gone, np.full((5, len(gone)), np.nan))
        restatement = restated(
            entry,
            after,
            changed=gone,
            rows=rows,
            actions=entry.actions,
            source="manual",
            at=int(now * 1000),
            flags=RETRACTED,
            known=Changed(NONE, back, removed),
        )
        await self._committer.write([restatement])
        return Committed(entry, restatement.head.rev, NONE, back, removed)

    async def retract_actions(self, entry: Entry, keys: Sequence[tuple[int, str]], now: float) -> Committed:
        """Take back manual actions, named by `(ex-date, kind)`; a provider's of the same name shows again."""

        async def attempt() -> Committed:
            restatement = without_actions(entry, keys, int(now * 1000))
            if restatement is None:
                return Committed(entry, entry.head.rev, NONE, NONE, NONE)
            await self._committer.write([restatement])
            return Committed(entry, restatement.head.rev, NONE, NONE, NONE, actions_changed=True)

        return await self._until_done([entry], attempt)

    async def verify(
        self, entry: Entry, *, rebuild_at: float | None = None, shorten: bool = True
    ) -> list[dict[str, Any]]:
        """Hold the packed record of one series against its journal's replay: one fact for every difference found.

        Bit for bit: sessions, values, source, flags and time of every bar, checksums, and the head's figures. With
        `rebuild_at` (seconds since 1970 UTC) what the journal says is then written as a new revision; without
        `shorten` only if it lacks nothing that was committed.
        """

        async def attempt() -> list[dict[str, Any]]:
            problems = await self._lost(entry, mend=rebuild_at is not None)
            base = entry.head
            more, held = await self._problems(entry)
            replayed = await self.journal.replay(entry.id)
            problems += more + differences(entry, held, replayed)
            await self._refresh([entry])
            if entry.head.rev != base.rev:
                raise Overtaken
            lacking = [] if shorten or not problems else await self._journal_lacks(entry, replayed)
            problems += lacking
            if problems and rebuild_at is not None and not lacking:
                stored = {document["_id"] % YEAR_BASE for document in await self._year_ids(entry)}
                await self._committer.write([rebuilt(entry, replayed, stored, int(rebuild_at * 1000))])
                self._told_broken.discard(entry.id)
                entry.current = True
            return problems

        return await self._until_done([entry], attempt, doubted=False)

    async def heal(self, entry: Entry, now: float) -> list[dict[str, Any]]:
        """Rebuild the record of one series from its journal where it is corrupt or incomplete: years deleted, cut short
        or altered, its head or its actions lost. The faults found; none, and nothing is written, when it is sound.

        `now`: seconds since 1970 UTC. Safe beside any number of readers and writers. Where the journal itself has lost
        rows (fault `journal_lacks`) nothing is written, because that would shorten history: a person decides.
        """
        return await self.verify(entry, rebuild_at=now, shorten=False)

    async def corrections(self, entry: Entry, start: int | None, end: int | None, limit: int) -> Corrections:
        """What was superseded of the sessions `start` to `end` (both included; None: no bound), newest first: bars and
        actions that readers were once given, with what took their place. At most `limit` of each."""
        revisions = await self.journal.revisions(entry.id)
        rows = await self.journal.rows(entry.id, start, end)
        low, high = -FAR_FUTURE if start is None else start, FAR_FUTURE if end is None else end
        return await elsewhere_if_long(len(rows), corrections, revisions, rows, low, high, limit)

    async def as_known_on(self, entry: Entry, instant: float) -> Replayed:
        """Bars and actions of a series as they were known at `instant` (seconds since 1970 UTC): what was committed by
        then, from the journal. Bars and actions of one moment; as traded."""
        return await self.journal.replay(entry.id, up_to=instant)

    async def drain(self) -> None:
        """Return when no commit is under way, and all are announced."""
        await self._committer.drain()
        await self.announcer.drain()

    async def _lost(self, entry: Entry, *, mend: bool) -> list[dict[str, Any]]:
        """Refresh; what is wrong with the head and its actions. `mend`: give a lost head its revision back."""
        newest = await self._revisions.find_one(
            {"_id": {"$gte": {"s": entry.id, "rev": 0}, "$lt": {"s": entry.id + 1, "rev": 0}}},
            {"_id": 1},
            sort=[("_id", -1)],
        )
        # read after the revisions: of a sound series it is then at least where they are
        head = await self._series.find_one({"_id": entry.id})
        committed = 0 if newest is None else newest["_id"]["rev"]
        if committed > (0 if head is None else head["rev"]):
            if mend:
                await self._give_head(entry, committed)
            return [fault(entry, "head_lost", f"The head is gone or older than revision {committed}.")]
        if await self._refresh([entry]):
            assert head is not None
            if mend:  # what the rebuilding has to start from; the entry stays doubted until then
                entry.head, entry.sessions, entry.manual = head_from(head), None, None
            return [fault(entry, "actions_lost", "The splits and dividends are not those the head names.")]
        return []

    async def _journal_lacks(self, entry: Entry, replayed: Replayed) -> list[dict[str, Any]]:
        """The fault that the journal has fewer bars than were committed, if it has, as far as anybody can tell."""
        expected = entry.head.count
        if entry.head.actions_rev < 0:  # the head was lost, and its count with it
            expected = await self.journal.committed_count(entry.id)
        if len(replayed.bars) >= expected:
            return []
        detail = f"The journal has {len(replayed.bars)} of {expected} bars: rebuilding would lose the others."
        return [fault(entry, "journal_lacks", detail)]

    async def _give_head(self, entry: Entry, rev: int) -> None:
        """A head at `rev` that fits no packed year, so that all readers wait until it is rebuilt."""
        years = {document["_id"] % YEAR_BASE for document in await self._year_ids(entry)} | set(entry.head.years)
        head = SeriesHead(rev, dict.fromkeys(years or {YEAR_BASE - 1}, 0), None, None, 0, -1)
        fields = {**head_fields(head), "tail": tail_field(Bars.empty())}
        await self._series.update_one({"_id": entry.id}, {"$setOnInsert": {"rev": 0}}, upsert=True)
        await self._series.update_one({"_id": entry.id, "rev": {"$lt": rev}}, {"$set": fields})
        entry.head, entry.sessions, entry.manual = head, None, None
        entry.doubt()

    async def _refuse_corrupt(self, entries: Sequence[Entry]) -> None:
        """Raises `Corrupt` when what is stored of one of `entries` contradicts its head, which nobody moves on."""
        for entry in entries:
            base = entry.head
            after = await self._revisions.find_one({"_id": {"s": entry.id, "rev": base.rev + 1}}, {"_id": 1})
            stored = {document["_id"] % YEAR_BASE: document.get("r") for document in await self._year_ids(entry)}
            await self.refresh([entry])
            if entry.head.rev == base.rev and (after is not None or stored != base.years):
                detail = f"{entry.instrument}: Its packed years or its head are not those last committed. "
                raise Corrupt(detail + "Run `pricecache doctor --verify --rebuild`.", series=entry.id)

    async def _year_ids(self, entry: Entry) -> list[dict[str, Any]]:
        low = entry.id * YEAR_BASE
        return await self._years.find({"_id": {"$gte": low, "$lt": low + YEAR_BASE}}, {"r": 1}).to_list()

    async def _problems(self, entry: Entry) -> tuple[list[dict[str, Any]], Replayed]:
        """Faults of the packed years in themselves, and what they hold where they can be read."""
        try:
            years = await self.packed(entry)
        except Corrupt as exc:
            return [fault(entry, "packed_unreadable", exc.detail)], nothing()
        problems = []
        if {year: packed.rev for year, packed in years.items()} != entry.head.years:
            problems.append(fault(entry, "head_mismatch", "The packed years are not those the head names."))
        return problems, joined(years)

    async def _whole(self, entry: Entry) -> Replayed:
        years = await self.packed(entry)
        if {year: packed.rev for year, packed in years.items()} != entry.head.years:
            raise Overtaken
        return joined(years)


def _taken(entry: Entry, blocks: Sequence[Block]) -> Record:
    bars = unpack_blocks([block.bars for block in blocks])
    flags = np.frombuffer(b"".join(flags_of(block.origin) for block in blocks), np.uint8)
    manual = bars.sessions[(flags & MANUAL) != 0]
    # a copy of the sessions: a view would keep the whole block in memory for as long as the entry
    entry.sessions, entry.manual = bars.sessions.copy(), manual
    return Record(entry.head.rev, bars, entry.actions)


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
