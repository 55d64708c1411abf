"""The one routine that heals a series: look what is missing, ask for it, have the answer judged, remember."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Literal
from weakref import WeakValueDictionary

import numpy as np
import structlog
from numpy.typing import NDArray

from pricecache.clock import Clock
from pricecache.core.asking import Lane
from pricecache.core.bars import day_of
from pricecache.core.catalog import Entry
from pricecache.core.coverage import Divergence, SyncState, contains
from pricecache.core.divergence import noticed
from pricecache.core.events import BarsChanged
from pricecache.core.healing import (
    Ask,
    after_answer,
    after_failure,
    after_nothing_due,
    after_refused_audit,
    audit_due,
    examination_due,
    plan,
)
from pricecache.core.rechecks import recheck_due
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import (
    BudgetSpent,
    Corrupt,
    NotAsked,
    ProviderAnswerBad,
    ProviderError,
    RateLimited,
    SymbolNotFound,
)
from pricecache.metrics import Metrics
from pricecache.providers.base import History
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quarantine import QuarantineStore
from pricecache.stores.restating import Loss
from pricecache.stores.sync_state import SyncStateStore
from pricecache.sync.footing import WholeWanted
from pricecache.sync.judge import WHOLE_ANSWER_CODES, Judge, Rank, Taken
from pricecache.sync.ports import Calendars, PriceSource, has_provider

log = structlog.get_logger(__name__)

Outcome = Literal["stored", "unchanged", "nothing_due", "no_data", "failed"]
SERIES_AT_ONCE = 25
"""Series whose sessions are loaded, or looked through, before the event loop gets its turn."""
LOOKED_AT = 1000
"""Series whose records are read and checked in one sync; of more than that each gets its turn in one of the next."""
DEEP_SESSIONS = 400
"""A call for more sessions than this, which nobody waits for, lets all others go first."""

ControlWorks = Callable[[], Awaitable[bool]]
"""Whether the providers know the symbols they always have."""


async def _no_doubt() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Examination:
    """What became of one series. `added`, `replaced`, `rejected`, `parked`: bars.

    `called`: whether a provider was called. `code` and `detail` say why it failed, or still waits to be tried again.
    `defers`: whether the same holds for all series, so that none needs to be asked for in the same run.
    """

    outcome: Outcome
    added: int = 0
    replaced: int = 0
    rejected: int = 0
    called: bool = False
    code: str | None = None
    detail: str | None = None
    parked: int = 0
    defers: bool = False


@dataclass(slots=True, weakref_slot=True)
class _Queue:
    # of those who examine one series; `asked`: what was asked for and answered since the first of them came
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: list[Ask] = field(default_factory=list)


class Examiner:
    """Heals series, one at a time each, any number side by side. Loop-only.

    `name`: of the source, kept with every bar of an answer that names none. `lag`: seconds after a close until a
    session's bar is final there. `rank`: the order of providers. `control_works`: asked when a symbol is not found.
    `quarantine`: where what is not stored is noted; None: nowhere.
    """

    def __init__(
        self,
        source: PriceSource,
        calendars: Calendars,
        bars: BarStore,
        states: SyncStateStore,
        instruments: InstrumentStore,
        clock: Clock,
        randomness: random.Random,
        *,
        name: str,
        lag: float,
        metrics: Metrics | None = None,
        quarantine: QuarantineStore | None = None,
        rank: Rank = lambda source: 0,
        control_works: ControlWorks = _no_doubt,
    ) -> None:
        self._source = source
        self._calendars = calendars
        self._bars = bars
        self._states = states
        self._clock = clock
        self._random = randomness
        self._name = name
        self._lag = lag
        self._control_works = control_works
        self._judge = Judge(bars, instruments, name=name, rank=rank, quarantine=quarantine, metrics=metrics)
        self._queues: WeakValueDictionary[int, _Queue] = WeakValueDictionary()
        self._round = 0
        self._hurried: set[int] = set()
        self._unmended: set[int] = set()
        bars.subscribe(self._hear)

    async def sift(self, entries: Sequence[Entry], *, interval: float, force: bool = False) -> list[Entry]:
        """Those of `entries` for which there is something to ask. Of the others it is noted that they were looked at.

        `interval`: seconds after which a series without any hole is looked at again. Raises `Unavailable` when the
        database or a calendar cannot be had.
        """
        wanting: list[Entry] = []
        looked_at: list[tuple[Entry, SyncState, SyncState]] = []
        self._round += 1
        turns = -(-len(entries) // LOOKED_AT)
        for i in range(0, len(entries), SERIES_AT_ONCE):
            group = [entry for entry in entries[i : i + SERIES_AT_ONCE] if has_provider(entry)]
            await self._check([e for e in group if e.sessions is None or e.id % turns == self._round % turns])
            now = self._clock.time()
            for entry in group:
                calendar = await self._calendars.get(entry.instrument.place.calendar)
                try:
                    held = await self._bars.held(entry)
                except Corrupt:
                    wanting.append(entry)  # its examination says so, and the others go on
                    continue
                insists = force or entry.id in self._hurried
                lag = entry.lag(self._lag)
                is_due = examination_due(held, calendar, entry.state, now, lag, interval)
                if not is_due and not (insists and entry.state.attempts):
                    continue
                audit = _audit_due(entry, calendar, now, lag)
                if plan(held, calendar, entry.state, now, lag, force=insists, audit=audit) is None:
                    looked_at.append((entry, entry.state, after_nothing_due(entry.state, now)))
                else:
                    wanting.append(entry)
            await asyncio.sleep(0)
        await self._note_looked_at(looked_at)
        return wanting

    async def _check(self, entries: Sequence[Entry]) -> None:
        """Read the records of `entries`, and rebuild those that were deleted or damaged."""
        if not entries:
            return
        try:
            read = await self._bars.read_many(entries)
        except Corrupt:
            read = {}
        for entry in entries:
            if entry.id not in read:
                await self._mend(entry)

    async def _mend(self, entry: Entry) -> None:
        try:
            verdict = await self._bars.heal(entry, self._clock.time())
        except Corrupt as exc:
            self._tell_unmended(entry, exc.detail)
            return
        if verdict.rebuilt:
            self._unmended.discard(entry.id)
            codes = sorted({fault.code for fault in verdict.faults})
            if verdict.lost is not None:
                await self._tell_lost(entry, verdict.lost, codes)
            else:
                log.warning("record rebuilt from its journal", instrument=str(entry.instrument), faults=codes)
        elif verdict.faults:
            self._tell_unmended(entry, verdict.faults[-1].detail)

    async def _tell_lost(self, entry: Entry, lost: Loss, faults: Sequence[str]) -> None:
        """The rest is whole again, and what is lost are holes now, which are asked for as any others."""
        first, last = [None if day is None else str(day_of(day)) for day in (lost.first, lost.last)]
        log.error(
            "bars lost: record rebuilt without them",
            instrument=str(entry.instrument),
            count=lost.count,
            first=first,
            last=last,
            faults=list(faults),
        )
        now, bars = self._clock.time(), "1 bar" if lost.count == 1 else f"{lost.count} bars"
        between = "" if first is None else f" between {first} and {last}"
        detail = f"{bars}{between} went from the journal and the record; what providers have is fetched again."
        said = Divergence("", detail, now, now, lost.count, lost.first, lost.last)
        known = {**entry.state.divergences, "record_lost": said}
        await self._states.save(entry, replace(entry.state, divergences=known))

    def _tell_unmended(self, entry: Entry, detail: str) -> None:
        say = log.debug if entry.id in self._unmended else log.error
        self._unmended.add(entry.id)
        say("a record cannot be rebuilt", instrument=str(entry.instrument), detail=detail)

    def _hear(self, changed: BarsChanged) -> None:
        # a split that somebody puts in, or another answer lists, may be what an answer was refused for
        if changed.actions_changed and changed.entry.state.code in WHOLE_ANSWER_CODES:
            self._hurried.add(changed.entry.id)

    async def _note_looked_at(self, looked_at: Iterable[tuple[Entry, SyncState, SyncState]]) -> None:
        async with AsyncExitStack() as locks:
            unchanged = []
            for entry, before, after in looked_at:
                queue = self._queue(entry)
                # who examines it now, or did meanwhile, knows better
                if entry.state is before and not queue.lock.locked():
                    await locks.enter_async_context(queue.lock)
                    unchanged.append((entry, after))
            await self._states.save_many(unchanged)

    def _queue(self, entry: Entry) -> _Queue:
        return self._queues.setdefault(entry.id, _Queue())

    async def examine(
        self, entry: Entry, *, reason: str, force: bool = False, start: int | None = None, lane: Lane | None = None
    ) -> Examination:
        """Make one series whole as far as its provider lets us.

        `start`: keep history from this day on; when that is no deeper than before, ask for everything from it again.
        `force`: do not wait for the time of the next try. A call that had to wait for another one on the same series
        does not ask for what was asked for meanwhile. `lane`: who goes first where calls are short; by default `user`
        for the reason `backfill`, else by how much is asked for. Provider errors end in the outcome `failed`;
        `Unavailable` is raised when the database or the calendar cannot be had.
        """
        if not has_provider(entry):
            return Examination("nothing_due")
        queue = self._queue(entry)
        answered_before = len(queue.asked)
        is_deeper = start is not None and start < entry.state.wanted_from
        async with queue.lock:
            force = force or entry.id in self._hurried
            self._hurried.discard(entry.id)
            if start is not None:
                calendar = await self._calendars.get(entry.instrument.place.calendar)
                start = max(start, int(calendar.sessions[0]))  # before it nothing can be expected
                if start < entry.state.wanted_from:
                    await self._states.save(entry, replace(entry.state, wanted_from=start))
            ask, calendar, now = await self._plan(
                entry,
                queue.asked[answered_before:],
                force=force,
                again_from=None if is_deeper else start,
                doubt_listing=reason == "backfill",
            )
            if ask is None:
                await self._states.save(entry, after_nothing_due(entry.state, now))
                return Examination("nothing_due", code=entry.state.code, detail=entry.state.reason)
            lane = lane or _lane(reason, ask, calendar)
            examination = await self._heal(entry, ask, calendar, reason, lane)
            queue.asked.append(ask)
            return examination

    async def _plan(
        self,
        entry: Entry,
        asked_meanwhile: Sequence[Ask],
        *,
        force: bool,
        again_from: int | None,
        doubt_listing: bool,
    ) -> tuple[Ask | None, SessionCalendar, float]:
        calendar = await self._calendars.get(entry.instrument.place.calendar)
        try:
            held = await self._bars.held(entry)
        except Corrupt:
            await self._mend(entry)
            held = await self._bars.held(entry)
        now, lag = self._clock.time(), entry.lag(self._lag)
        # a person who asks for a backfill may know that there is more than the provider began with
        state = replace(entry.state, listed_on=None) if doubt_listing else entry.state
        audit = _audit_due(entry, calendar, now, lag)
        ask = plan(held, calendar, state, now, lag, force=force, again_from=again_from, audit=audit)
        if ask is not None and any(asked.covers(ask) for asked in asked_meanwhile):
            ask = plan(held, calendar, entry.state, now, lag)
        return ask, calendar, now

    async def _heal(self, entry: Entry, ask: Ask, calendar: SessionCalendar, reason: str, lane: Lane) -> Examination:
        examination, lesser_from = await self._asked(entry, ask, calendar, reason, lane)
        if lesser_from is None or lesser_from >= ask.start or ask.start <= entry.state.wanted_from:
            return examination
        # the provider is back of whose bars others took the place: it is asked for all those
        wanted = max(lesser_from, entry.state.wanted_from)
        further, _ = await self._asked(entry, Ask(wanted, ask.end, "again"), calendar, reason, lane)
        if further.outcome == "failed":
            return examination
        added, replaced = examination.added + further.added, examination.replaced + further.replaced
        return replace(examination, added=added, replaced=replaced, rejected=examination.rejected + further.rejected)

    async def _asked(
        self, entry: Entry, ask: Ask, calendar: SessionCalendar, reason: str, lane: Lane
    ) -> tuple[Examination, int | None]:
        log.debug("asking", instrument=str(entry.instrument), start=ask.start, end=ask.end, why=ask.why, reason=reason)
        try:
            history = await self._source.history(entry.instrument, ask.start, ask.end, lane=lane, turn=ask.turn)
        except ProviderError as error:
            return await self._note_failure(entry, error, lane), None
        now = self._clock.time()  # a call may have waited its turn for long
        try:
            taken = await self._taken(entry, ask, history, calendar, now)
        except WholeWanted as wanted:
            return await self._asked(entry, Ask(wanted.start, wanted.end, "again", ask.turn), calendar, reason, lane)
        except ProviderAnswerBad as error:
            return await self._note_refusal(entry, ask, history, error, lane), None
        return await self._note_answer(entry, ask, history, taken, calendar, now), taken.lesser_from

    async def _taken(self, entry: Entry, ask: Ask, history: History, calendar: SessionCalendar, now: float) -> Taken:
        lag = entry.lag(self._lag)
        try:
            return await self._judge.take(entry, ask, history, calendar, now, lag)
        except Corrupt:
            await self._mend(entry)
            return await self._judge.take(entry, ask, history, calendar, now, lag)

    async def _note_answer(
        self, entry: Entry, ask: Ask, history: History, taken: Taken, calendar: SessionCalendar, now: float
    ) -> Examination:
        held = await self._bars.held(entry)
        was_failing = entry.state.failing_since is not None
        state = after_answer(
            replace(entry.state, divergences=_without_regained(taken.divergences, held, calendar)),
            ask,
            held,
            calendar,
            history.first_available,
            now,
            answered=taken.answered,
            refused=taken.refused,
            parked=taken.parked,
            source=history.source or self._name,
            is_first=len(taken.committed.added) == len(held),
        )
        await self._states.save(entry, state)
        if was_failing and state.failing_since is None:
            log.info("series recovered", instrument=str(entry.instrument))
        if taken.rejected:
            days = [str(day_of(session)) for session in taken.refused]
            log.debug("bars rejected", instrument=str(entry.instrument), count=taken.rejected, not_held=days[:10])
        committed = taken.committed
        outcome: Outcome = "stored" if committed.changed else "unchanged" if len(taken.answered) else "no_data"
        return Examination(
            outcome,
            len(committed.added),
            len(committed.replaced),
            taken.rejected,
            called=True,
            parked=len(taken.parked),
        )

    async def _note_refusal(
        self, entry: Entry, ask: Ask, history: History, error: ProviderAnswerBad, lane: Lane
    ) -> Examination:
        """An answer of which nothing was stored. One that was asked for as a whole by a calendar of our own keeps
        nothing else from being asked for."""
        now, source = self._clock.time(), history.source or self._name
        await self._judge.note_whole(entry, error, source, now)
        if error.code == "currency_changed":
            known = noticed(entry.state.divergences, "other_currency", source, error.detail, now)
            await self._states.save(entry, replace(entry.state, divergences=known))
        is_whole = ask.why == "audit" and ask.start <= entry.state.wanted_from
        if not is_whole or error.code not in WHOLE_ANSWER_CODES:
            return await self._note_failure(entry, error, lane)
        await self._states.save(entry, after_refused_audit(entry.state, now))
        log.warning("audit refused", instrument=str(entry.instrument), code=error.code, detail=error.detail)
        return Examination("failed", called=True, code=error.code, detail=error.detail)

    async def _note_failure(self, entry: Entry, error: ProviderError, lane: Lane) -> Examination:
        works = await self._control_works() if isinstance(error, SymbolNotFound) else True
        before, now = entry.state, self._clock.time()
        state = after_failure(before, error, now, self._random.random(), control_works=works)
        await self._states.save(entry, state)
        if isinstance(error, NotAsked):
            log.debug("series not asked for", instrument=str(entry.instrument), code=error.code, detail=error.detail)
            # what is filled far back has the least of a budget: others may have some left
            defers = not (isinstance(error, BudgetSpent) and lane == "deep")
            return Examination("failed", code=error.code, detail=error.detail, defers=defers)
        # what speaks against the provider is said once for all its symbols, by the run
        speaks_against_symbol = isinstance(error, SymbolNotFound | ProviderAnswerBad)
        say = log.warning if before.failing_since is None and speaks_against_symbol else log.debug
        say("series failing", instrument=str(entry.instrument), code=state.code, detail=state.reason)
        if before.quarantined_at is None and state.quarantined_at is not None:
            log.warning("symbol quarantined", instrument=str(entry.instrument), detail=state.reason)
        defers = isinstance(error, RateLimited)
        return Examination("failed", called=True, code=error.code, detail=error.detail, defers=defers)


def _audit_due(entry: Entry, calendar: SessionCalendar, now: float, lag: float) -> bool:
    return audit_due(entry.state, entry.id, now) or recheck_due(
        entry.state, entry.actions, entry.head.first, calendar, now, lag
    )


def _without_regained(
    known: Mapping[str, Divergence], held: NDArray[np.int64], calendar: SessionCalendar
) -> Mapping[str, Divergence]:
    """`known` without the loss of bars that are all held again."""
    lost = known.get("record_lost")
    if lost is None or lost.first is None or lost.last is None:
        return known
    if not contains(held, calendar.between(lost.first, lost.last)).all():
        return known
    return {kind: divergence for kind, divergence in known.items() if kind != "record_lost"}


def _lane(reason: str, ask: Ask, calendar: SessionCalendar) -> Lane:
    if reason == "backfill":
        return "user"
    is_filling = ask.why in ("first", "depth")
    return "deep" if is_filling and len(calendar.between(ask.start, ask.end)) > DEEP_SESSIONS else "heal"
