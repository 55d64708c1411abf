"""On what basis an answer stands, and what is held beside it: found out before anything of it is judged or stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action, merge_actions, preferred, withdrawn
from pricecache.core.bars import DAY_SECONDS, Bars, day_of
from pricecache.core.basis import (
    SAME_RTOL,
    SAME_SPLIT_DAYS,
    as_declared,
    as_traded,
    in_other_basis,
    is_as_held,
    is_one_piece,
    listed_once,
    never_happened,
    require_explained,
    require_worked_in_throughout,
    worked_in,
)
from pricecache.core.catalog import Entry
from pricecache.core.coverage import contains
from pricecache.core.healing import Ask
from pricecache.errors import ProviderAnswerBad
from pricecache.providers.base import History

SURE_DAYS, SUREST_DAYS = 2, 5
"""What was fetched so long before a split took effect knows nothing of it; the second, though it be listed days off."""
GONE_DAYS = 5
"""A provider that has not listed a split for so long has withdrawn it, and did not only forget it once."""
_NONE = np.empty(0, np.int64)


class WholeWanted(Exception):
    """An answer cannot be judged by itself: everything from `start` to `end`, both included, is to be asked for."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.start, self.end = start, end


@dataclass(frozen=True, slots=True)
class Reference:
    """What an answer is compared with: bars as traded, of sources no worse than its own.

    `fetched_on`: the UTC day on which each was fetched; `may_restate`: whether its source is no better either.
    """

    bars: Bars
    fetched_on: NDArray[np.int64]
    may_restate: NDArray[np.bool_]

    def without(self, sessions: NDArray[np.int64]) -> Bars:
        return _picked(self.bars, ~contains(sessions, self.bars.sessions))

    def sure(self, split: Action, days: int = SUREST_DAYS) -> Bars:
        """What was fetched before anybody can have worked `split` in."""
        return _picked(self.bars, self.fetched_on <= split.ex_date - days)


@dataclass(frozen=True, slots=True)
class Footing:
    """An answer as traded. `actions`: as declared, each once; `gone`: of those held what it puts right, `phantoms`
    among them what never happened; `restated`: sessions held in another basis, whose bars it replaces."""

    traded: Bars
    actions: tuple[Action, ...]
    gone: tuple[Action, ...] = ()
    phantoms: tuple[Action, ...] = ()
    restated: NDArray[np.int64] = field(default_factory=lambda: _NONE)


def find_footing(
    entry: Entry,
    ask: Ask,
    history: History,
    good: Bars,
    answered: tuple[Action, ...],
    held: Reference,
    *,
    source: str,
    today: int,
    now: float,
    believed: Callable[[Iterable[Action]], tuple[Action, ...]],
) -> Footing:
    """What `good`, the bars of an answer as it gave them, were as traded.

    `answered`: its actions; `today`: the last session that has opened; `believed`: those of actions that no better
    source has a word on. Raises `WholeWanted` when that takes more than was asked for, and `ProviderAnswerBad` with
    code `basis_mixed` or `basis_unexplained` when the answer is in no one basis, or in one that nobody told us of.
    """
    whole = _whole(entry, ask, held.bars)
    compared = held.bars.sessions
    is_whole = not len(compared) or bool(ask.start <= compared[0] and ask.end >= compared[-1])
    lost = _listed(withdrawn(entry.actions, history.actions, ask.start, ask.end, source), today)
    moved = tuple(old for old in _listed(entry.actions, today) if _is_moved(old, answered, believed, ask))
    known = tuple(a for a in entry.actions if a not in moved)
    phantoms = _phantoms([a for a in lost if a not in moved], entry, good, held, source, now) if is_whole else ()
    known = tuple(a for a in known if a not in phantoms)
    footing = _best(entry, history, good, answered, known, held, today=today, is_whole=is_whole)
    gone = (*moved, *phantoms)
    laid = believed(footing.actions)
    is_adjusted = history.basis == "split_adjusted"
    if not is_whole and is_adjusted and (_news(entry, known, laid, held.bars, today) or _is_news(entry, lost, source)):
        raise WholeWanted(*whole)
    every = (*entry.actions, *answered)
    sessions, off = in_other_basis(footing.traded, held.bars, [a for a in every if a.kind == "split"])
    restated = sessions[off != 0]
    if len(restated):
        if not is_whole:
            raise WholeWanted(*whole)
        splits = [a for a in merge_actions(known, footing.actions) if a.kind == "split" and a.ex_date <= today]
        may = held.may_restate[contains(restated, held.bars.sessions)].all()
        if not may or not is_one_piece(footing.traded, held.bars, sessions, off, splits):
            raise ProviderAnswerBad(
                f"From {day_of(int(restated[0]))} to {day_of(int(restated[-1]))} prices are off those held by known "
                "splits, and the answer is in no one basis.",
                code="basis_mixed",
            )
    require_explained(footing.traded, held.without(restated))
    return Footing(footing.traded, footing.actions, gone, phantoms, restated)


def _best(
    entry: Entry,
    history: History,
    good: Bars,
    answered: tuple[Action, ...],
    known: tuple[Action, ...],
    held: Reference,
    *,
    today: int,
    is_whole: bool,
) -> Footing:
    """As listed once, or, where only that makes it what is held, with splits a few days apart as two."""
    once = listed_once(answered, known, good)
    tried = [once, answered] if len(once) < len(answered) and len(held.bars) else [once]
    found: list[Footing] = []
    for actions in tried:
        found.append(_unadjusted(history, good, actions, known, held, today=today, is_whole=is_whole))
        _, off = in_other_basis(found[-1].traded, held.bars, [a for a in answered if a.kind == "split"])
        if not (off != 0).any():
            return found[-1]
    return found[0]


def _unadjusted(
    history: History,
    good: Bars,
    answered: tuple[Action, ...],
    known: tuple[Action, ...],
    held: Reference,
    *,
    today: int,
    is_whole: bool,
) -> Footing:
    splits = [a for a in _candidates(known, answered, today) if a.kind == "split"]
    never = {
        split
        for split in splits
        if split not in known
        and never_happened(split, good, [other for other in splits if other != split], held.sure(split))
    }
    splits = [split for split in splits if split not in never]
    answered = tuple(action for action in answered if action not in never)
    reference = held.bars
    if is_whole and len(good) and all(split.ex_date <= good.sessions[-1] for split in splits):
        reference = held.sure(max(splits), SURE_DAYS) if splits else reference
    is_adjusted = history.basis == "split_adjusted"
    worked = worked_in(good, splits, reference, sure=held.sure, is_adjusted=is_adjusted, today=today)
    traded = as_traded(good, worked)
    # what was believed once is not doubted for a jump that happens to have the ratio of a split beside it
    require_worked_in_throughout(good, [split for split in splits if not is_as_held(traded, held.bars, split)])
    if not is_adjusted:
        return Footing(traded, answered)
    declared = as_declared(answered, dict.fromkeys(worked), known)
    return Footing(traded, tuple(a for a in declared if a.kind == "split" or a in listed_once(declared, known, good)))


def _candidates(held: tuple[Action, ...], answered: Iterable[Action], today: int) -> tuple[Action, ...]:
    """The actions a provider may have worked into its answer: those it names itself, and of those `held` the ones in
    effect by `today`; its own word on each before ours."""
    return preferred(merge_actions([a for a in held if a.ex_date <= today], answered), by_hand=False)


def _whole(entry: Entry, ask: Ask, held: Bars) -> tuple[int, int]:
    first, last = (int(held.sessions[0]), int(held.sessions[-1])) if len(held) else (ask.start, ask.end)
    return min(entry.state.wanted_from, first), max(ask.end, last, entry.state.answered_to or last)


def _listed(actions: Iterable[Action], today: int) -> tuple[Action, ...]:
    return tuple(a for a in actions if a.kind == "split" and not a.manual and a.ex_date <= today)


def _is_moved(
    old: Action, answered: Sequence[Action], believed: Callable[[Iterable[Action]], tuple[Action, ...]], ask: Ask
) -> bool:
    """Whether an answer lists a split held on another day, a few days off, and no more on its own."""
    if old.ex_date < ask.start or any(a.key == old.key for a in answered):
        return False
    if not believed([_as_listed_by(old, answered)]):
        return False
    return any(
        a.kind == "split"
        and abs(a.ex_date - old.ex_date) <= SAME_SPLIT_DAYS
        and abs(a.value - old.value) <= SAME_RTOL * old.value
        for a in answered
    )


def _as_listed_by(old: Action, answered: Sequence[Action]) -> Action:
    """`old` as the source of `answered` would list it."""
    return Action(old.ex_date, old.kind, old.value, old.currency, answered[0].source if answered else old.source)


def _news(entry: Entry, known: Sequence[Action], laid: Iterable[Action], held: Bars, today: int) -> bool:
    """Whether the splits are others than were known, with bars held before them."""
    if not len(held):
        return False
    before = {(a.ex_date, a.value) for a in _listed(entry.actions, today)}
    after = {(a.ex_date, a.value) for a in _listed(merge_actions(known, laid), today)}
    return any(day > held.sessions[0] for day, _ in before ^ after)


def _is_news(entry: Entry, lost: Sequence[Action], source: str) -> bool:
    noticed = entry.state.divergences.get("action_withdrawn")
    return bool(lost) and (noticed is None or noticed.provider != source)


def _phantoms(
    lost: Sequence[Action], entry: Entry, good: Bars, held: Reference, source: str, now: float
) -> tuple[Action, ...]:
    """Those that the whole answer shows never to have happened: by bars fetched before, or by bars held that go on
    over their day as it does; and those that have stayed withdrawn while the prices go on over their day."""
    noticed = entry.state.divergences.get("action_withdrawn")
    is_old = noticed is not None and noticed.provider == source and now - noticed.since >= GONE_DAYS * DAY_SECONDS
    found = []
    for split in lost:
        others = [a for a in _listed(entry.actions, split.ex_date + 10**6) if a not in lost]
        sure = held.sure(split).between(None, split.ex_date - 1)
        happened = len(np.intersect1d(good.sessions, sure.sessions)) > 0
        if never_happened(split, good, others, held.bars) or (
            is_old and not happened and never_happened(split, good, others, as_traded(good, others))
        ):
            found.append(split)
    return tuple(found)


def _picked(bars: Bars, which: NDArray[np.bool_]) -> Bars:
    return Bars(bars.sessions[which], np.ascontiguousarray(bars.values[:, which]))
