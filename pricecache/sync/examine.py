"""The one routine that heals a series: look what is missing, ask for it, judge the answer, store it, remember."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal, Protocol
from weakref import WeakValueDictionary

import numpy as np
import structlog

from pricecache.clock import Clock
from pricecache.core.actions import Action, merge_actions
from pricecache.core.bars import MANUAL, Bars, concatenate
from pricecache.core.basis import as_declared, as_traded, explained
from pricecache.core.catalog import Entry
from pricecache.core.healing import Ask, after_answer, after_failure, after_nothing_due, examination_due, plan
from pricecache.core.instruments import Instrument
from pricecache.core.plausibility import check
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import ProviderAnswerBad, ProviderError, SymbolNotFound
from pricecache.metrics import Metrics
from pricecache.providers.base import History, Quotes
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
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._calls: Counter[int] = Counter()

    async def sift(self, entries: Sequence[Entry], *, interval: float, force: bool = False) -> list[Entry]:
        """Those of `entries` for which there is something to ask. Of the others it is noted that they were looked at.

        `interval`: seconds after which a series without any hole is looked at again. Raises `Unavailable` when the
        database or a calendar cannot be had.
        """
        wanting: list[Entry] = []
        looked_at = []
        for i in range(0, len(entries), SERIES_AT_ONCE):
            group = [entry for entry in entries[i : i + SERIES_AT_ONCE] if has_provider(entry)]
            await self._bars.read_many([entry for entry in group if entry.sessions is None])
            now = self._clock.time()
            for entry in group:
                calendar = await self._calendars.get(entry.instrument.place.calendar)
                held = await self._bars.held(entry)
                if not examination_due(held, calendar, entry.state, now, self._lag, interval):
                    continue
                if plan(held, calendar, entry.state, now, self._lag, force=force) is None:
                    looked_at.append((entry, after_nothing_due(entry.state, now)))
                else:
                    wanting.append(entry)
            await asyncio.sleep(0)
        await self._states.save_many(looked_at)
        return wanting

    async def examine(self, entry: Entry, *, reason: str, force: bool = False, start: int | None = None) -> Examination:
        """Make one series whole as far as its provider lets us.

        `start`: keep history from this day on; when that is no deeper than before, ask for everything from it again.
        `force`: do not wait for the time of the next try. A call that had to wait for another one on the same series
        does not ask for the same thing again. Provider errors end in the outcome `failed`; `Unavailable` is raised
        when the database or the calendar cannot be had.
        """
        if not has_provider(entry):
            return Examination("nothing_due")
        calls = self._calls[entry.id]
        lock = self._locks.setdefault(entry.id, asyncio.Lock())
        async with lock:
            asked_meanwhile = self._calls[entry.id] != calls
            again_from = None if asked_meanwhile else start
            if start is not None and start < entry.state.wanted_from:
                again_from = None
                await self._states.save(entry, replace(entry.state, wanted_from=start))
            return await self._heal(entry, reason, force and not asked_meanwhile, again_from)

    async def _heal(self, entry: Entry, reason: str, force: bool, again_from: int | None) -> Examination:
        calendar = await self._calendars.get(entry.instrument.place.calendar)
        held = await self._bars.held(entry)
        now = self._clock.time()
        ask = plan(held, calendar, entry.state, now, self._lag, force=force, again_from=again_from)
        if ask is None:
            await self._states.save(entry, after_nothing_due(entry.state, now))
            return Examination("nothing_due", code=entry.state.code, detail=entry.state.reason)
        log.debug("asking", instrument=str(entry.instrument), start=ask.start, end=ask.end, why=ask.why, reason=reason)
        self._calls[entry.id] += 1
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
        rejected = len(rejections) + len(history.rejected)
        if len(rejections) and not len(good):
            raise ProviderAnswerBad(f"Not one of {rejected} bars can be believed: {rejections[0].detail}.")
        await self._learn(entry, history)
        committed = await self._store(entry, good, history)
        state = after_answer(
            entry.state,
            ask,
            await self._bars.held(entry),
            calendar,
            history.first_available,
            now,
            answered=good.sessions,
        )
        await self._states.save(entry, state)
        if was_failing and state.failing_since is None:
            log.info("series recovered", instrument=str(entry.instrument))
        if rejected:
            log.debug("bars rejected", instrument=str(entry.instrument), count=rejected, first=rejections[:1])
        added, replaced = len(committed.added), len(committed.replaced)
        outcome: Outcome = "stored" if committed.changed else "unchanged" if len(good) else "no_data"
        return Examination(outcome, added, replaced, rejected, called=True)

    async def _learn(self, entry: Entry, history: History) -> None:
        currency = history.currency
        if currency is not None and currency != entry.currency and currency_is_known(entry):
            raise ProviderAnswerBad(
                f"Prices were in {entry.currency} and came in {currency} now.", code="currency_changed"
            )
        await self._instruments.set_facts(entry, currency=currency, source=self._name, notice=history.notice)

    async def _store(self, entry: Entry, good: Bars, history: History) -> Committed:
        answered = self._believable(history.actions, entry.currency)
        if history.basis == "split_adjusted":
            known = merge_actions(entry.actions, answered)
            answered = as_declared(answered, known)
            good = as_traded(good, known)
            explained(good, await self._held_from_providers(entry, good))
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
        say("series failing", instrument=str(entry.instrument), code=error.code, detail=error.detail)
        return Examination("failed", called=True, code=error.code, detail=error.detail)


def has_provider(entry: Entry) -> bool:
    """Whether any provider can be asked: not for instruments of one's own."""
    return entry.instrument.place.has_provider


def currency_is_known(entry: Entry) -> bool:
    """Whether the currency of `entry` is more than its market's default: a provider answered, or bars are held."""
    return entry.state.answered_from is not None or entry.head.count > 0
