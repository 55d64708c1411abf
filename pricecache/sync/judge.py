"""A provider's answer judged: what of it is stored, refused or parked, and where it parts from what is held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from pricecache.core.actions import Action, merge_actions, withdrawn
from pricecache.core.bars import (
    APPROVED,
    DAY_SECONDS,
    MANUAL,
    Bars,
    Provenance,
    concatenate,
    concatenate_provenance,
    day_of,
)
from pricecache.core.catalog import Entry
from pricecache.core.coverage import ASKS, Divergence, contains
from pricecache.core.divergence import Finding, after_finding, disagreeing, lacking, settled
from pricecache.core.doubt import Judged, judge
from pricecache.core.healing import Ask, Unstored, is_near, seen_after
from pricecache.core.plausibility import Checked, Rejection, check
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import ProviderAnswerBad
from pricecache.metrics import Metrics
from pricecache.providers.base import CLOSE_MISSING, History
from pricecache.stores.bars import BarStore, Change, Committed
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quarantine import MOST_REJECTED_OF_AN_ANSWER, Observation, QuarantineStore
from pricecache.sync.footing import Reference, find_footing

log = structlog.get_logger(__name__)

WHOLE_ANSWER_CODES = frozenset({"basis_unexplained", "basis_mixed", "currency_changed"})
"""Of an answer that was not stored because as a whole it does not fit what is held."""
MIXED_SECONDS = 3.0 * DAY_SECONDS
"""A provider that is in the middle of a change for longer than this is for a person to look at."""
CONFIRMABLE = frozenset({"jump", "spike"})
CONFIRMED_SHARE = 0.03
"""Closes of two providers that differ by no more confirm each other."""
CLOSE_MISSING_SECONDS = 5.0 * DAY_SECONDS
_NONE = np.empty(0, np.int64)

Rank = Callable[[str], int]
"""The position of a provider in the order, from 0 on; negative for one unknown."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an answer. `answered`: the sessions of the bars that were good; `refused`: those not held whose
    rows cannot be believed; `parked`: those whose bars await review. `rejected`: how many rows were refused.
    `lesser_from`: the first bar held from a provider further down the order, where this answer has begun to replace
    such, else None."""

    committed: Committed
    answered: NDArray[np.int64]
    refused: Mapping[int, Unstored]
    parked: Mapping[int, Unstored]
    rejected: int
    divergences: Mapping[str, Divergence]
    lesser_from: int | None


@dataclass(frozen=True, slots=True)
class _Held:
    # what providers, or a person's approval, put into the record
    bars: Bars
    sources: NDArray[np.str_]
    approved: NDArray[np.bool_]
    fetched_on: NDArray[np.int64]

    def where(self, which: NDArray[np.bool_]) -> _Held:
        bars = Bars(self.bars.sessions[which], self.bars.values[:, which])
        return _Held(bars, self.sources[which], self.approved[which], self.fetched_on[which])


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
        currency or off what is held; and `WholeWanted` when only a longer one can be judged.
        """
        source = history.source or self._name
        given = Bars.of(history.bars.sessions, history.bars.values).between(ask.start, ask.end)
        checked = check(given, calendar, now, lag)
        good = checked.good
        refused = [(r.session, r.detail) for r in checked.rejections] + [*history.rejected]
        if refused and not len(good):
            await self._note_refused(entry, ask, checked, history, given, source, now)
            which = "The one bar cannot" if len(refused) == 1 else f"Not one of {len(refused)} bars can"
            raise ProviderAnswerBad(f"{which} be believed: {refused[0][1]}.")
        await self._learn(entry, history, good, source)
        held = await self._held(entry)
        opened = calendar.current(now)
        actions = self._believable(history, source, entry.currency)
        today = max(ask.end if opened is None else opened, int(now // DAY_SECONDS))  # worked in before the market opens
        worse = self._worse(held, source)
        footing = find_footing(
            entry,
            ask,
            history,
            good,
            actions,
            self._reference(held, worse, source),
            source=source,
            today=today,
            now=now,
            believed=lambda listed: self._to_lay(entry, listed, source),
        )
        traded, actions = footing.traded, footing.actions
        measured = held.where(~worse & ~contains(footing.restated, held.bars.sessions)).bars
        judged = judge(
            traded,
            measured,
            merge_actions([a for a in entry.actions if a not in footing.gone], actions),
            may_stand_still=may_stand_still(entry),
        )
        judged = _without_confirmed(judged, entry, measured.sessions, source, now)
        parked = await self._note_parked(entry, judged.parked, judged.doubts, source, now)
        await self._note_refused(entry, ask, checked, history, given, source, now)
        kept = self._without_lesser(judged.good, held, source)
        laid = self._to_lay(entry, actions, source) or None
        committed = (await self._bars.commit([Change(entry, kept, source, now, actions=laid, gone=footing.gone)]))[0]
        self._count(committed)
        if len(footing.restated):
            log.warning("basis restated", instrument=str(entry.instrument), count=len(footing.restated), source=source)
        unbelieved = await self._unbelieved(entry, ask, calendar, refused, source)
        open_still = {*parked, *unbelieved, *(found.session for found in checked.fields)}
        await self._resolve(entry, ask, judged.good.sessions, open_still, source, now)
        await self._note(entry, [_phantom(split, source) for split in footing.phantoms], now)
        findings = self._findings(entry, ask, history, traded, held, source, judged.good.sessions)
        return Taken(
            committed,
            judged.good.sessions,
            unbelieved,
            parked,
            len(refused),
            self._diverged(entry, findings, source, ask, now),
            self._lesser_from(entry, held, committed, judged.good.sessions, source),
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
            return _Held(Bars.empty(), np.empty(0, "U1"), np.empty(0, bool), _NONE)
        years = [year for _, year in sorted((await self._bars.packed(entry)).items())]
        provenance: Provenance = concatenate_provenance([year.provenance for year in years])
        bars, approved = concatenate([year.bars for year in years]), (provenance.flags & APPROVED) != 0
        whole = _Held(bars, provenance.names(), approved, provenance.fetched_at // (1000 * DAY_SECONDS))
        return whole.where((provenance.flags & MANUAL) == 0)

    def _worse(self, held: _Held, source: str) -> NDArray[np.bool_]:
        """Which of the bars held come from a source further down the order: they say nothing about an answer."""
        return np.isin(held.sources, [n for n in np.unique(held.sources).tolist() if self._is_lesser(n, source)])

    def _reference(self, held: _Held, worse: NDArray[np.bool_], source: str) -> Reference:
        # what a person approved against all appearances says nothing about the basis of the rest
        which = ~held.approved & ~worse
        compared = held.where(which)
        better = [n for n in np.unique(compared.sources).tolist() if self._is_lesser(source, n)]
        return Reference(compared.bars, held.fetched_on[which], ~np.isin(compared.sources, better))

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

    def _lesser_from(
        self, entry: Entry, held: _Held, committed: Committed, good: NDArray[np.int64], source: str
    ) -> int | None:
        others = [name for name in np.unique(held.sources).tolist() if self._is_lesser(name, source)]
        lesser = held.bars.sessions[np.isin(held.sources, others)]
        if len(np.intersect1d(lesser, committed.replaced)):
            return int(lesser[0])
        # they may agree here and part before a split: compared as a whole once since they were fetched
        here = np.isin(held.sources, others) & contains(good, held.bars.sessions)
        compared_on = -1 if entry.state.audited_at is None else entry.state.audited_at // DAY_SECONDS
        return int(lesser[0]) if here.any() and compared_on <= held.fetched_on[here].max() else None

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
        less = lacking(np.unique(history.bars.sessions), held.bars.sessions, ask.start, ask.end)
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
    ) -> dict[int, Unstored]:
        """The bars that await review by session: all that were parked, but for those a person has dropped."""
        seen = [
            Observation(doubt.code, doubt.detail, source, "parked", doubt.session, tuple(parked.values[:, i].tolist()))
            for i, doubt in enumerate(doubts)
        ]
        dropped = {observation.session for observation in await self._note(entry, seen, now)}
        closes = parked.close.tolist()
        return {
            doubt.session: Unstored(doubt.detail, source, closes[i])
            for i, doubt in enumerate(doubts)
            if doubt.session not in dropped
        }

    async def _note_refused(
        self, entry: Entry, ask: Ask, checked: Checked, history: History, given: Bars, source: str, now: float
    ) -> None:
        seen = [
            Observation(r.code, r.detail, source, "rejected", r.session, _row(given, r.session))
            for r in (*checked.rejections, *checked.fields)
        ]
        seen += _of_adapter(history.rejected, ask, source, now)
        await self._note(entry, seen[:MOST_REJECTED_OF_AN_ANSWER], now)

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
        self, entry: Entry, ask: Ask, good: NDArray[np.int64], open_still: AbstractSet[int], source: str, now: float
    ) -> None:
        """What was open and is not any more: the provider came with something else, or with nothing."""
        if self._quarantine is None or not len(good):
            return
        state = entry.state
        own = {s for s, row in state.withheld.items() if ask.start <= s <= ask.end and row.source in (source, "")}
        settled = (own | set(good.tolist())) - open_still
        sessions = settled & await self._quarantine.open_sessions(entry.id)
        answers = state.code in WHOLE_ANSWER_CODES or ask.why == "audit"
        await self._quarantine.resolve(entry.id, now, sessions=sessions, answers_of=source if answers else None)

    async def _unbelieved(
        self,
        entry: Entry,
        ask: Ask,
        calendar: SessionCalendar,
        refused: Sequence[tuple[int | None, str]],
        source: str,
    ) -> dict[int, Unstored]:
        """The sessions not held whose rows cannot be believed."""
        held = await self._bars.held(entry)
        named = {s: why for s, why in reversed(refused) if s is not None and why != CLOSE_MISSING}
        sessions = np.array(sorted(s for s in named if ask.start <= s <= ask.end), np.int64)
        sessions = sessions[contains(calendar.sessions, sessions) & ~contains(held, sessions)]
        return {session: Unstored(named[session], source) for session in sessions.tolist()}

    def _count(self, committed: Committed) -> None:
        if self._metrics is not None:
            self._metrics.bars_stored.inc(len(committed.added))
            self._metrics.bars_corrected.inc(len(committed.replaced))


def _without_confirmed(judged: Judged, entry: Entry, held: NDArray[np.int64], source: str, now: float) -> Judged:
    """`judged` with those doubts taken for true that were confirmed, of sessions not held: a jump or a spike that a
    second provider has too, or that the same one still has on a third day."""
    closes = judged.parked.close.tolist()
    holds = contains(held, judged.parked.sessions).tolist()
    confirmed = np.array(
        [
            doubt.code in CONFIRMABLE and not is_held and _is_confirmed(entry, doubt.session, source, close, now)
            for doubt, close, is_held in zip(judged.doubts, closes, holds, strict=True)
        ],
        bool,
    )
    if not confirmed.any():
        return judged
    sessions, values = judged.parked.sessions, judged.parked.values
    good = Bars.of(
        np.concatenate([judged.good.sessions, sessions[confirmed]]),
        np.concatenate([judged.good.values, values[:, confirmed]], axis=1),
    )
    left = tuple(doubt for doubt, is_true in zip(judged.doubts, confirmed.tolist(), strict=True) if not is_true)
    return Judged(good, Bars(sessions[~confirmed], np.ascontiguousarray(values[:, ~confirmed])), left)


def _is_confirmed(entry: Entry, session: int, source: str, close: float, now: float) -> bool:
    before = entry.state.parked.get(session)
    if before is None:
        return False
    if before.source != source:
        return is_near(before.close, close, CONFIRMED_SHARE)
    return seen_after(before, Unstored("", source, close), now) >= ASKS


def _of_adapter(rejected: Sequence[tuple[int | None, str]], ask: Ask, source: str, now: float) -> list[Observation]:
    """Rows that a provider's adapter could not use. That a close is missing is a fault only once nobody can expect it
    any more."""
    seen = []
    for session, why in rejected:
        if session is not None and not ask.start <= session <= ask.end:
            continue
        if why != CLOSE_MISSING:
            seen.append(Observation("bad_row", why, source, "rejected", session))
        elif session is not None and now - session * DAY_SECONDS >= CLOSE_MISSING_SECONDS:
            seen.append(Observation("close_missing", why, source, "rejected", session))
    return seen


def currency_is_known(entry: Entry) -> bool:
    """Whether the currency of `entry` is more than its market's default: a provider answered, or bars are held."""
    return entry.state.answered_from is not None or entry.head.count > 0


def may_stand_still(entry: Entry) -> bool:
    """Whether its price may stay the same for days: funds, pegged currencies."""
    return entry.kind in ("fund", "currency") or entry.instrument.market in ("FX", "CUSTOM")


def _phantom(split: Action, source: str) -> Observation:
    detail = (
        f"{source} listed a split of {split.value:g} on {day_of(split.ex_date)} and withdrew it, and its prices go on "
        "over that day: it is applied no more."
    )
    return Observation("action_withdrawn", detail, source, "parked")


def _withdrawn(entry: Entry, ask: Ask, history: History, source: str) -> Finding:
    gone = withdrawn(entry.actions, history.actions, ask.start, ask.end, source)
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
