"""A provider's answer judged: what of it is stored, refused or parked, and where it parts from what is held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from pricecache.core.actions import Action, merge_actions, preferred
from pricecache.core.bars import (
    APPROVED,
    MANUAL,
    Bars,
    Provenance,
    concatenate,
    concatenate_provenance,
)
from pricecache.core.basis import as_declared, as_traded, explained, listed_once, worked_in, worked_in_throughout
from pricecache.core.catalog import Entry
from pricecache.core.coverage import Divergence, contains
from pricecache.core.divergence import Finding, after_finding, disagreeing, lacking, settled
from pricecache.core.doubt import judge
from pricecache.core.healing import Ask
from pricecache.core.plausibility import Rejection, check
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import ProviderAnswerBad
from pricecache.metrics import Metrics
from pricecache.providers.base import CLOSE_MISSING, History
from pricecache.stores.bars import BarStore, Change, Committed
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quarantine import MOST_REJECTED_OF_AN_ANSWER, Observation, QuarantineStore

log = structlog.get_logger(__name__)

WHOLE_ANSWER_CODES = frozenset({"basis_unexplained", "basis_mixed", "currency_changed"})
"""Of an answer that was not stored because as a whole it does not fit what is held."""
MIXED_SECONDS = 3 * 86400.0
"""A provider that is in the middle of a change for longer than this is for a person to look at."""
_NONE = np.empty(0, np.int64)

Rank = Callable[[str], int]
"""The position of a provider in the order, from 0 on; negative for one unknown."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an answer. `answered`: the sessions of the bars that were good; `refused`: those not held whose
    bars cannot be believed, and `told` why the first; `parked`: those whose bars await review; all int64, ascending.
    `rejected`: how many rows were refused. `lesser_from`: the first bar held from a provider further down the order,
    where this answer has begun to replace such, else None."""

    committed: Committed
    answered: NDArray[np.int64]
    refused: NDArray[np.int64]
    told: str
    parked: NDArray[np.int64]
    rejected: int
    divergences: Mapping[str, Divergence]
    lesser_from: int | None


@dataclass(frozen=True, slots=True)
class _Held:
    # what providers, or a person's approval, put into the record
    bars: Bars
    sources: NDArray[np.str_]
    approved: NDArray[np.bool_]

    def where(self, which: NDArray[np.bool_]) -> _Held:
        bars = Bars(self.bars.sessions[which], self.bars.values[:, which])
        return _Held(bars, self.sources[which], self.approved[which])


class Judge:
    """Takes answers of providers. Loop-only.

    `name`: the source of an answer that names none. `rank`: the order of providers; a bar of one never replaces that of
    one before it. `quarantine`: where what is not stored is noted; None: nowhere.
    """

    def __init__(
        self,
        bars: BarStore,
        instruments: InstrumentStore,
        *,
        name: str,
        rank: Rank,
        quarantine: QuarantineStore | None,
        metrics: Metrics | None,
    ) -> None:
        self._bars = bars
        self._instruments = instruments
        self._name = name
        self._rank = rank
        self._quarantine = quarantine
        self._metrics = metrics

    async def take(
        self, entry: Entry, ask: Ask, history: History, calendar: SessionCalendar, now: float, lag: float
    ) -> Taken:
        """Store what can be stored of an answer. `lag`: seconds after a close until this one's bar is final.

        Raises `ProviderAnswerBad` when nothing of it can: no row can be believed, or as a whole it is in another
        currency or off what is held.
        """
        source = history.source or self._name
        given = Bars.of(history.bars.sessions, history.bars.values).between(ask.start, ask.end)
        good, rejections = check(given, calendar, now, lag)
        refused = [(r.session, r.detail) for r in rejections] + [*history.rejected]
        if refused and not len(good):
            await self._note_refused(entry, rejections, given, source, now)
            raise ProviderAnswerBad(f"Not one of {len(refused)} bars can be believed: {refused[0][1]}.")
        await self._learn(entry, history, good, source)
        held = await self._held(entry)
        opened = calendar.current(now)
        actions = self._believable(history, source, entry.currency)
        today = ask.end if opened is None else opened
        # what a person approved against all appearances says nothing about the basis of the rest
        compared = held.where(~held.approved).bars
        traded, actions = _unadjusted(entry, history, good, actions, compared, today)
        explained(traded, compared)
        judged = judge(
            traded,
            held.bars,
            merge_actions(entry.actions, actions),
            may_stand_still=may_stand_still(entry),
        )
        parked = await self._note_parked(entry, judged.parked, judged.doubts, source, now)
        await self._note_refused(entry, rejections, given, source, now)
        kept = self._without_lesser(judged.good, held, source)
        change = Change(entry, kept, source, now, actions=self._to_lay(entry, actions, source) or None)
        committed = (await self._bars.commit([change]))[0]
        self._count(committed)
        await self._resolve(entry, ask, judged.good.sessions, parked, now)
        unbelieved = await self._unbelieved(entry, ask, calendar, refused)
        told = next((detail for session, detail in refused if len(unbelieved) and session == unbelieved[0]), "")
        findings = self._findings(entry, ask, history, traded, held, source, judged.good.sessions)
        return Taken(
            committed,
            judged.good.sessions,
            unbelieved,
            told,
            parked,
            len(refused),
            self._diverged(entry, findings, source, ask, now),
            self._lesser_from(held, committed, source),
        )

    async def note_whole(self, entry: Entry, error: ProviderAnswerBad, source: str, now: float) -> None:
        """Note an answer that was not stored as a whole, for a person to look at where no other try will settle it."""
        if self._quarantine is None or error.code not in WHOLE_ANSWER_CODES:
            return
        ratio, suggestion = error.facts.get("ratio"), error.facts.get("suggestion")
        code = "other_currency" if error.code == "currency_changed" else error.code
        since = now if entry.state.failing_since is None else entry.state.failing_since
        passes = code == "basis_mixed" and now - since < MIXED_SECONDS
        state: Literal["parked", "rejected"] = "rejected" if passes else "parked"
        await self._note(
            entry, [Observation(code, error.detail, source, state, ratio=ratio, suggestion=suggestion)], now
        )

    # ---- what the answer says

    async def _learn(self, entry: Entry, history: History, good: Bars, source: str) -> None:
        currency = history.currency
        wanted = entry.currency_on(int(good.sessions[-1])) if len(good) else entry.currency
        if currency is not None and currency != wanted and currency_is_known(entry):
            raise ProviderAnswerBad(f"Prices were in {wanted} and came in {currency} now.", code="currency_changed")
        await self._instruments.set_facts(
            entry, currency=currency, source=source, notice=history.notice, kind=history.kind, name=history.name
        )

    def _believable(self, history: History, source: str, currency: str) -> tuple[Action, ...]:
        return tuple(
            replace(action, source=source, currency=action.currency or currency)
            if action.kind == "dividend"
            else replace(action, source=source)
            for action in history.actions
            if isfinite(action.value) and action.value > 0
        )

    def _to_lay(self, entry: Entry, actions: Iterable[Action], source: str) -> tuple[Action, ...]:
        """Those of `actions` that no provider before this one has a word on."""
        known = {action.key: action.source for action in entry.actions if not action.manual}
        return tuple(a for a in actions if a.key not in known or not self._is_lesser(source, known[a.key]))

    # ---- what is held

    async def _held(self, entry: Entry) -> _Held:
        if not entry.head.count:
            return _Held(Bars.empty(), np.empty(0, "U1"), np.empty(0, bool))
        years = [year for _, year in sorted((await self._bars.packed(entry)).items())]
        provenance: Provenance = concatenate_provenance([year.provenance for year in years])
        bars, approved = concatenate([year.bars for year in years]), (provenance.flags & APPROVED) != 0
        whole = _Held(bars, provenance.names(), approved)
        return whole.where((provenance.flags & MANUAL) == 0)

    def _is_lesser(self, source: str, other: str) -> bool:
        """Whether `source` comes after `other` in the order. One unknown is after every one known."""
        last = 1 << 30
        ranks = [rank if (rank := self._rank(name)) >= 0 else last for name in (source, other)]
        return ranks[0] > ranks[1]

    def _without_lesser(self, good: Bars, held: _Held, source: str) -> Bars:
        better = [name for name in np.unique(held.sources).tolist() if self._is_lesser(source, name)]
        if not better:
            return good
        taken = contains(held.bars.sessions[np.isin(held.sources, better)], good.sessions)
        return Bars(good.sessions[~taken], np.ascontiguousarray(good.values[:, ~taken]))

    def _lesser_from(self, held: _Held, committed: Committed, source: str) -> int | None:
        others = [name for name in np.unique(held.sources).tolist() if self._is_lesser(name, source)]
        lesser = held.bars.sessions[np.isin(held.sources, others)]
        return int(lesser[0]) if len(np.intersect1d(lesser, committed.replaced)) else None

    # ---- where they part

    def _findings(
        self,
        entry: Entry,
        ask: Ask,
        history: History,
        traded: Bars,
        held: _Held,
        source: str,
        answered: NDArray[np.int64],
    ) -> list[Finding]:
        less = lacking(history.bars.sessions, held.bars.sessions, ask.start, ask.end)
        named = {s for s, _ in history.rejected if s is not None}
        less = less[~np.isin(less, list(named))] if named else less
        findings = [Finding("provider_has_less", less, f"{source} came without sessions that are held.")]
        if not len(answered):
            return findings  # says nothing else
        good = traded.sessions[contains(answered, traded.sessions)]
        here = Bars(good, traded.values[:, contains(answered, traded.sessions)])
        apart: list[NDArray[np.int64]] = [_NONE]
        for other in np.unique(held.sources).tolist():
            if other != source:
                apart.append(disagreeing(here, held.where(held.sources == other).bars))
                if len(apart[-1]) and self._metrics is not None:
                    self._metrics.provider_disagreements.labels(source, other).inc(len(apart[-1]))
        sessions = np.unique(np.concatenate(apart))
        detail = f"Closes of {source} differ by more than 0.5 % from those held of another provider."
        return [*findings, _withdrawn(entry, ask, history, source), Finding("providers_disagree", sessions, detail)]

    def _diverged(
        self, entry: Entry, findings: Sequence[Finding], source: str, ask: Ask, now: float
    ) -> Mapping[str, Divergence]:
        before = entry.state.divergences
        known = before if len(findings) == 1 else settled(before, "other_currency", source)
        for finding in findings:
            known = after_finding(known, finding, source, ask.start, ask.end, now)
        for kind in known.keys() - before.keys():
            log.info("provider diverges", instrument=str(entry.instrument), kind=kind, detail=known[kind].detail)
        return known

    # ---- what is not stored

    async def _note_parked(
        self, entry: Entry, parked: Bars, doubts: Sequence[Rejection], source: str, now: float
    ) -> NDArray[np.int64]:
        """The sessions whose bars await review: all that were parked, but for those a person has dropped."""
        seen = [
            Observation(doubt.code, doubt.detail, source, "parked", doubt.session, tuple(parked.values[:, i].tolist()))
            for i, doubt in enumerate(doubts)
        ]
        dropped = {observation.session for observation in await self._note(entry, seen, now)}
        return np.array([s for s in parked.sessions.tolist() if s not in dropped], np.int64)

    async def _note_refused(
        self, entry: Entry, rejections: Sequence[Rejection], given: Bars, source: str, now: float
    ) -> None:
        seen = [
            Observation(r.code, r.detail, source, "rejected", r.session, _row(given, r.session))
            for r in rejections[:MOST_REJECTED_OF_AN_ANSWER]
        ]
        await self._note(entry, seen, now)

    async def _note(self, entry: Entry, seen: Sequence[Observation], now: float) -> list[Observation]:
        """Returns those that a person dropped before."""
        if self._quarantine is None or not seen:
            return []
        new, dropped = await self._quarantine.observe(entry.id, entry.instrument, seen, now)
        parked = [observation for observation in new if observation.state == "parked"]
        if self._metrics is not None:
            for observation in new:
                self._metrics.bars_quarantined.labels(observation.code).inc()
        if parked:
            say = log.debug if entry.state.parked else log.warning
            codes = sorted({observation.code for observation in parked})
            say("parked for review", instrument=str(entry.instrument), count=len(parked), codes=codes)
        return dropped

    async def _resolve(
        self, entry: Entry, ask: Ask, good: NDArray[np.int64], parked: NDArray[np.int64], now: float
    ) -> None:
        """What was open and is not any more: the provider came with something else, or with nothing."""
        if self._quarantine is None or not len(good):
            return
        state = entry.state
        asked = [session for session in state.parked if ask.start <= session <= ask.end]
        sessions = set(asked) - set(parked.tolist())
        if state.code == "bars_rejected":
            sessions |= set(good.tolist())
        answers = state.code in WHOLE_ANSWER_CODES or ask.why == "audit"
        await self._quarantine.resolve(entry.id, now, sessions=sessions, answers=answers)

    async def _unbelieved(
        self, entry: Entry, ask: Ask, calendar: SessionCalendar, refused: Sequence[tuple[int | None, str]]
    ) -> NDArray[np.int64]:
        held = await self._bars.held(entry)
        named = {s for s, why in refused if s is not None and why != CLOSE_MISSING}
        sessions = np.array(sorted(s for s in named if ask.start <= s <= ask.end), np.int64)
        return sessions[contains(calendar.sessions, sessions) & ~contains(held, sessions)]

    def _count(self, committed: Committed) -> None:
        if self._metrics is not None:
            self._metrics.bars_stored.inc(len(committed.added))
            self._metrics.bars_corrected.inc(len(committed.replaced))


def currency_is_known(entry: Entry) -> bool:
    """Whether the currency of `entry` is more than its market's default: a provider answered, or bars are held."""
    return entry.state.answered_from is not None or entry.head.count > 0


def may_stand_still(entry: Entry) -> bool:
    """Whether its price may stay the same for days: funds, pegged currencies."""
    return entry.kind in ("fund", "currency") or entry.instrument.market in ("FX", "CUSTOM")


def _unadjusted(
    entry: Entry, history: History, good: Bars, answered: tuple[Action, ...], held: Bars, today: int
) -> tuple[Bars, tuple[Action, ...]]:
    """The answer's bars as traded, and its actions as declared, each once."""
    answered = listed_once(answered, entry.actions, good)
    if history.basis != "split_adjusted":
        return good, answered
    # of those held for later days the provider cannot have worked in any but what it names itself
    candidates = listed_once(_candidates(entry.actions, answered, today), (), good)
    splits = worked_in(good, candidates, held)
    if not len(np.intersect1d(good.sessions, held.sessions)):
        worked_in_throughout(good, candidates)
    declared = as_declared(answered, dict.fromkeys(splits), entry.actions)
    return as_traded(good, splits), listed_once(declared, entry.actions, good)


def _candidates(held: tuple[Action, ...], answered: Iterable[Action], today: int) -> tuple[Action, ...]:
    """The actions a provider may have worked into its answer: those it names itself, and of those `held` the ones in
    effect by `today`; its own word on each before ours."""
    return preferred(merge_actions([a for a in held if a.ex_date <= today], answered), by_hand=False)


def _withdrawn(entry: Entry, ask: Ask, history: History, source: str) -> Finding:
    named = {action.key for action in history.actions}
    gone = [
        action
        for action in entry.actions
        if action.source == source
        and not action.manual
        and action.key not in named
        and ask.start <= action.ex_date <= ask.end
    ]
    what = ", ".join(f"the {action.kind} of {action.value:g}" for action in gone[:3])
    return Finding(
        "action_withdrawn",
        np.unique(np.array([action.ex_date for action in gone], np.int64)),
        f"{source} lists {what} no longer, which is kept.",
    )


def _row(given: Bars, session: int) -> tuple[float, ...] | None:
    at = int(given.sessions.searchsorted(session))
    if at == len(given) or given.sessions[at] != session:
        return None
    return tuple(given.values[:, at].tolist())
