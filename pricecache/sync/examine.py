"""The one routine that heals a series: look what is missing, ask for it, judge the answer, store it, remember."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal, Protocol
from weakref import WeakValueDictionary

import numpy as np
import structlog

from pricecache.clock import Clock
from pricecache.core.actions import Action, merge_actions, preferred
from pricecache.core.bars import MANUAL, Bars, concatenate, day_of
from pricecache.core.basis import as_declared, as_traded, explained, worked_in
from pricecache.core.catalog import Entry
from pricecache.core.coverage import SyncState, contains
from pricecache.core.healing import Ask, after_answer, after_failure, after_nothing_due, examination_due, plan
from pricecache.core.instruments import Instrument
from pricecache.core.plausibility import check
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import Corrupt, ProviderAnswerBad, ProviderError, SymbolNotFound
from pricecache.metrics import Metrics
from pricecache.providers.base import CLOSE_MISSING, History, Quotes
from pricecache.stores.bars import BarStore, Change, Committed
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.sync_state import SyncStateStore

log = structlog.get_logger(__name__)

Outcome = Literal["stored", "unchanged", "nothing_due", "no_data", "failed"]
SERIES_AT_ONCE = 25
"""Series whose sessions are loaded, or looked through, before the event loop gets its turn."""


class PriceSource(Protocol):
    """Where prices are asked for: a provider behind its pool, or several as a chain."""

    async def history(self, instrument: Instrument, start: int, end: int) -> History:
        """As `Provider.history`, without blocking."""

    async def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        """As `Provider.quotes`, without blocking."""


class Calendars(Protocol):
    """Where the sessions of a market come from."""

    async def get(self, name: str) -> SessionCalendar:
        """Raises `Unavailable` with code `calendar_loading` when they cannot be had now."""


class Requested(Protocol):
    """A run as far as a routine looks at it."""

    @property
    def requested_by(self) -> str:
        """`schedule`, `start`, or who asked."""


class Handle(Protocol):
    """What a routine is given of the run it is."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the run was asked for with."""

    @property
    def run(self) -> Requested:
        """The run as it is recorded."""

    @property
    def stopping(self) -> bool:
        """Whether to come to an early end."""

    def progress(self, done: int, total: int | None, message: str = "") -> object:
        """Say how far it is."""

    def count(self, name: str, number: int = 1) -> object:
        """Add to one of the run's counts."""

    def fail(self, instrument: Instrument, code: str, detail: str) -> object:
        """Note that one instrument failed."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What became of one series. `added`, `replaced`, `rejected`: bars. `called`: whether a provider was called.

    `code` and `detail` say why it failed, or still waits to be tried again.
    """

    outcome: Outcome
    added: int = 0
    replaced: int = 0
    rejected: int = 0
    called: bool = False
    code: str | None = None
    detail: str | None = None


@dataclass(slots=True, weakref_slot=True)
class _Queue:
    # of those who examine one series; `asked`: what was asked for and answered since the first of them came
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: list[Ask] = field(default_factory=list)


class Examiner:
    """Heals series, one at a time each, any number side by side. Loop-only.

    `name`: of the source, kept with every bar. `lag`: seconds after a close until a session's bar is final there.
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
    ) -> None:
        self._source = source
        self._calendars = calendars
        self._bars = bars
        self._states = states
        self._instruments = instruments
        self._clock = clock
        self._random = randomness
        self._name = name
        self._lag = lag
        self._metrics = metrics
        self._queues: WeakValueDictionary[int, _Queue] = WeakValueDictionary()

    async def sift(self, entries: Sequence[Entry], *, interval: float, force: bool = False) -> list[Entry]:
        """Those of `entries` for which there is something to ask. Of the others it is noted that they were looked at.

        `interval`: seconds after which a series without any hole is looked at again. Raises `Unavailable` when the
        database or a calendar cannot be had.
        """
        wanting: list[Entry] = []
        looked_at: list[tuple[Entry, SyncState, SyncState]] = []
        for i in range(0, len(entries), SERIES_AT_ONCE):
            group = [entry for entry in entries[i : i + SERIES_AT_ONCE] if has_provider(entry)]
            await self._bars.read_many([entry for entry in group if entry.sessions is None])
            now = self._clock.time()
            for entry in group:
                calendar = await self._calendars.get(entry.instrument.place.calendar)
                try:
                    held = await self._bars.held(entry)
                except Corrupt:
                    wanting.append(entry)  # its examination says so, and the others go on
                    continue
                if not examination_due(held, calendar, entry.state, now, self._lag, interval):
                    continue
                if plan(held, calendar, entry.state, now, self._lag, force=force) is None:
                    looked_at.append((entry, entry.state, after_nothing_due(entry.state, now)))
                else:
                    wanting.append(entry)
            await asyncio.sleep(0)
        await self._note_looked_at(looked_at)
        return wanting

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

    async def examine(self, entry: Entry, *, reason: str, force: bool = False, start: int | None = None) -> Examination:
        """Make one series whole as far as its provider lets us.

        `start`: keep history from this day on; when that is no deeper than before, ask for everything from it again.
        `force`: do not wait for the time of the next try. A call that had to wait for another one on the same series
        does not ask for what was asked for meanwhile. Provider errors end in the outcome `failed`; `Unavailable` is
        raised when the database or the calendar cannot be had.
        """
        if not has_provider(entry):
            return Examination("nothing_due")
        queue = self._queue(entry)
        answered_before = len(queue.asked)
        is_deeper = start is not None and start < entry.state.wanted_from
        async with queue.lock:
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
            examination = await self._heal(entry, ask, calendar, now, reason)
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
        held = await self._bars.held(entry)
        now = self._clock.time()
        # a person who asks for a backfill may know that there is more than the provider began with
        state = replace(entry.state, listed_on=None) if doubt_listing else entry.state
        ask = plan(held, calendar, state, now, self._lag, force=force, again_from=again_from)
        if ask is not None and any(asked.covers(ask) for asked in asked_meanwhile):
            ask = plan(held, calendar, entry.state, now, self._lag)
        return ask, calendar, now

    async def _heal(self, entry: Entry, ask: Ask, calendar: SessionCalendar, now: float, reason: str) -> Examination:
        log.debug("asking", instrument=str(entry.instrument), start=ask.start, end=ask.end, why=ask.why, reason=reason)
        try:
            history = await self._source.history(entry.instrument, ask.start, ask.end)
            return await self._take(entry, ask, history, calendar, now)
        except ProviderError as error:
            return await self._note_failure(entry, error)

    async def _take(
        self, entry: Entry, ask: Ask, history: History, calendar: SessionCalendar, now: float
    ) -> Examination:
        was_failing = entry.state.failing_since is not None
        given = Bars.of(history.bars.sessions, history.bars.values).between(ask.start, ask.end)
        good, rejections = check(given, calendar, now, self._lag)
        refused = [(r.session, r.detail) for r in rejections] + [*history.rejected]
        if refused and not len(good):
            raise ProviderAnswerBad(f"Not one of {len(refused)} bars can be believed: {refused[0][1]}.")
        await self._learn(entry, history)
        opened = calendar.current(now)
        committed = await self._store(entry, good, history, ask.end if opened is None else opened)
        held = await self._bars.held(entry)
        unbelieved = {s for s, why in refused if s is not None and why != CLOSE_MISSING}
        sessions = np.array(sorted(s for s in unbelieved if ask.start <= s <= ask.end), np.int64)
        sessions = sessions[contains(calendar.sessions, sessions) & ~contains(held, sessions)]
        state = after_answer(
            entry.state,
            ask,
            held,
            calendar,
            history.first_available,
            now,
            answered=good.sessions,
            refused=sessions,
        )
        if len(sessions):
            told = next(detail for session, detail in refused if session == sessions[0])
            error = ProviderAnswerBad(
                f"{len(sessions)} bars cannot be believed, the first of {day_of(int(sessions[0]))}: {told}.",
                code="bars_rejected",
            )
            state = after_failure(state, error, now, self._random.random())
        await self._states.save(entry, state)
        if was_failing and state.failing_since is None:
            log.info("series recovered", instrument=str(entry.instrument))
        if refused:
            log.debug("bars rejected", instrument=str(entry.instrument), count=len(refused), first=refused[:1])
        added, replaced = len(committed.added), len(committed.replaced)
        outcome: Outcome = "stored" if committed.changed else "unchanged" if len(good) else "no_data"
        return Examination(outcome, added, replaced, len(refused), called=True)

    async def _learn(self, entry: Entry, history: History) -> None:
        currency = history.currency
        if currency is not None and currency != entry.currency and currency_is_known(entry):
            raise ProviderAnswerBad(
                f"Prices were in {entry.currency} and came in {currency} now.", code="currency_changed"
            )
        await self._instruments.set_facts(entry, currency=currency, source=self._name, notice=history.notice)

    async def _store(self, entry: Entry, good: Bars, history: History, today: int) -> Committed:
        answered = self._believable(history.actions, entry.currency)
        held = await self._held_from_providers(entry, good)
        if history.basis == "split_adjusted":
            # of those held for later days the provider cannot have worked in any but what it names itself
            splits = worked_in(good, _candidates(entry.actions, answered, today), held)
            good, answered = as_traded(good, splits), as_declared(answered, splits, entry.actions)
        explained(good, held)
        change = Change(entry, good, self._name, self._clock.time(), actions=answered or None)
        committed = (await self._bars.commit([change]))[0]
        if self._metrics is not None:
            self._metrics.bars_stored.inc(len(committed.added))
            self._metrics.bars_corrected.inc(len(committed.replaced))
        return committed

    def _believable(self, actions: Iterable[Action], currency: str) -> tuple[Action, ...]:
        return tuple(
            replace(action, source=self._name, currency=action.currency or currency)
            if action.kind == "dividend"
            else replace(action, source=self._name)
            for action in actions
            if isfinite(action.value) and action.value > 0
        )

    async def _held_from_providers(self, entry: Entry, answered: Bars) -> Bars:
        held = await self._bars.held(entry)
        if not len(np.intersect1d(held, answered.sessions, assume_unique=True)):
            return Bars.empty()
        years = (await self._bars.packed(entry)).values()
        own = [(year.bars, (year.provenance.flags & MANUAL) == 0) for year in years]
        return concatenate([Bars(bars.sessions[ours], bars.values[:, ours]) for bars, ours in own])

    async def _note_failure(self, entry: Entry, error: ProviderError) -> Examination:
        first = entry.state.failing_since is None
        state = after_failure(entry.state, error, self._clock.time(), self._random.random())
        await self._states.save(entry, state)
        # what speaks against the provider is said once for all its symbols, by the run
        speaks_against_symbol = isinstance(error, SymbolNotFound | ProviderAnswerBad)
        say = log.warning if first and speaks_against_symbol else log.debug
        say("series failing", instrument=str(entry.instrument), code=state.code, detail=state.reason)
        return Examination("failed", called=True, code=state.code, detail=state.reason)


def has_provider(entry: Entry) -> bool:
    """Whether any provider can be asked: not for instruments of one's own."""
    return entry.instrument.place.has_provider


def currency_is_known(entry: Entry) -> bool:
    """Whether the currency of `entry` is more than its market's default: a provider answered, or bars are held."""
    return entry.state.answered_from is not None or entry.head.count > 0


def _candidates(held: tuple[Action, ...], answered: Iterable[Action], today: int) -> tuple[Action, ...]:
    """The actions a provider may have worked into its answer: those it names itself, and of those `held` the ones in
    effect by `today`; its own word on each before ours."""
    return preferred(merge_actions([a for a in held if a.ex_date <= today], answered), by_hand=False)
