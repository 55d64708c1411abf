"""Which believable bars are nevertheless to be looked at by a person before they count: what rarely is true.

Judged as traded, against what is held and against each other, with known splits taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action, split_factors
from pricecache.core.bars import CLOSE, VOLUME, Bars, same_values
from pricecache.core.basis import UNIT, UNIT_RTOL
from pricecache.core.plausibility import Rejection

JUMP = 1.5
"""A close that is off by more than this, as a logarithm (4.5 times), is a jump."""
SPIKE = log(2.5)
"""A single close that is off by more than this from those before and after, which agree, is a spike."""
SPIKE_RETURNS = 0.4
"""How much of a spike, as a share of its logarithm, may be left on the session after it."""
CONFIRMED_BY = 5
"""So many sessions after a jump that stay at the new level make it history."""
REPEATED = 3
"""A bar that repeats the one before in every field, volume included, is stuck from this repetition on."""
TICKS = 2
FINEST_TICK, COARSEST_TICK = 8, 2
"""Decimals. A close that is no more than `TICKS` steps of the price's own last decimal away moved by as little as it
can: 0.0001 and 0.0003 are neighbours."""
MOSTLY = 0.5
"""Where more than this share of all bars repeat the one before, standing still is how this instrument is."""

_DETAILS = {
    "unit_flip": "the close is a hundred times, or a hundredth of, that of its neighbours",
    "jump": "the close is far off its neighbours, no action says why, and no five later sessions confirm it yet",
    "spike": "the close is far off those before and after, which agree",
    "stuck": "the bar repeats those before it",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer, parted: `good` to be stored, `parked` to be looked at; `doubts` say why, one for each parked bar."""

    good: Bars
    parked: Bars
    doubts: tuple[Rejection, ...]


def judge(traded: Bars, held: Bars, actions: Sequence[Action], *, may_stand_still: bool = False) -> Judged:
    """Part an answer as traded. `held`: what providers or a person's approval put into the record, as traded.

    `actions`: all that are known. Only bars held, or found good here, are what others are measured by. A bar equal to
    the one held is good. `may_stand_still`: the instrument is one whose price may stay the same for days.
    """
    if not len(traded):
        return Judged(traded, traded, ())
    line = _Line.of(traded, held)
    levels = np.log(line.values[CLOSE] / split_factors(line.sessions, actions))
    codes: dict[int, str] = {}
    steps = _steps(levels, line)
    if (np.abs(steps) > SPIKE).any():
        codes = dict(_off_level(levels, steps, line, {action.ex_date for action in actions}))
        codes |= dict(_off_held(levels, line, codes))
    if not may_stand_still:
        codes = dict.fromkeys(_stuck(line), "stuck") | codes
    parked = np.isin(traded.sessions, [int(line.sessions[i]) for i in codes])
    by_session = {int(line.sessions[i]): code for i, code in codes.items()}
    return Judged(
        Bars(traded.sessions[~parked], np.ascontiguousarray(traded.values[:, ~parked])),
        Bars(traded.sessions[parked], np.ascontiguousarray(traded.values[:, parked])),
        tuple(Rejection(s, by_session[s], _DETAILS[by_session[s]]) for s in traded.sessions[parked].tolist()),
    )


@dataclass(frozen=True, slots=True)
class _Line:
    # Held and answered bars in one line of time, the answered ones where both are there. `sure`: held, or a small
    # correction of what is; `differs`: answered far from what is held.
    sessions: NDArray[np.int64]
    values: NDArray[np.float64]
    sure: NDArray[np.bool_]
    differs: NDArray[np.bool_]
    held: Bars

    @classmethod
    def of(cls, traded: Bars, held: Bars) -> _Line:
        sessions = np.union1d(traded.sessions, held.sessions)
        values = np.empty((5, len(sessions)))
        sure, differs = np.zeros(len(sessions), bool), np.zeros(len(sessions), bool)
        at_held, at_new = sessions.searchsorted(held.sessions), sessions.searchsorted(traded.sessions)
        values[:, at_held], sure[at_held] = held.values, True
        here = sure[at_new]
        both = at_new[here]
        far = np.abs(np.log(traded.close[here] / values[CLOSE, both])) > SPIKE
        differs[both], sure[both] = far, ~far
        equal = same_values(values[:, both], traded.values[:, here])
        values[:, at_new[~here]] = traded.values[:, ~here]
        values[:, both] = np.where(equal, values[:, both], traded.values[:, here])
        return cls(sessions, values, sure, differs, held)


@dataclass(slots=True)
class _Run:
    # consecutive places `first` to `last` of a line, both included, at one level
    first: int
    last: int
    is_spike: bool
    accepted: bool

    def __len__(self) -> int:
        return self.last - self.first + 1


def _steps(levels: NDArray[np.float64], line: _Line) -> NDArray[np.float64]:
    """From each place to the next, as logarithms; none where the price moved by a tick or two."""
    steps = np.diff(levels)
    if not (np.abs(steps) > SPIKE).any():
        return steps
    closes = line.values[CLOSE]
    return np.where(np.abs(np.diff(closes)) <= (TICKS + 0.01) * _tick(closes), 0.0, steps)


def _tick(closes: NDArray[np.float64]) -> float:
    for decimals in range(COARSEST_TICK, FINEST_TICK + 1):
        scaled = closes * 10.0**decimals
        if (np.abs(scaled - np.rint(scaled)) <= 1e-3 + 1e-6 * scaled).all():
            return float(10.0**-decimals)
    return 0.0


def _off_level(
    levels: NDArray[np.float64], steps: NDArray[np.float64], line: _Line, action_days: set[int]
) -> Iterator[tuple[int, str]]:
    runs = _runs(levels, steps, line, action_days)
    if not any(run.accepted for run in runs):
        _anchor(runs).accepted = True
    start = next(i for i, run in enumerate(runs) if run.accepted)
    yield from _walked(runs[start:], levels, forward=True)
    yield from _walked(runs[start::-1], levels, forward=False)


def _walked(runs: Sequence[_Run], levels: NDArray[np.float64], *, forward: bool) -> Iterator[tuple[int, str]]:
    """Away from an accepted run, the first; each other is measured by the nearest accepted one on either side."""
    ahead = _next_accepted(runs)
    behind = runs[0]
    for i, (run, beyond) in enumerate(zip(runs, ahead, strict=True)):
        lasting = next((one for one in runs[i + 1 :] if len(one) > CONFIRMED_BY), None)
        if not run.accepted:
            sides = [(behind, forward), (beyond, not forward)]
            code = _fault(run, [_distance(run, other, levels, later) for other, later in sides if other is not None])
            # what a series begins with is history, and so is what lies on the way from one level to the next
            if code == "jump" and (run.first == 0 or _is_on_the_way(run, behind, beyond or lasting, levels)):
                code = None
            run.accepted = code is None
            if code is not None:
                yield from ((place, code) for place in range(run.first, run.last + 1))
        if run.accepted:
            behind = run


def _is_on_the_way(run: _Run, behind: _Run, beyond: _Run | None, levels: NDArray[np.float64]) -> bool:
    if beyond is None:
        return False
    (before, after) = (behind, beyond) if behind.last < run.first else (beyond, behind)
    low, high = sorted((float(levels[before.last]), float(levels[after.first])))
    here = levels[run.first : run.last + 1]
    return high - low > JUMP and low <= float(here.min()) and float(here.max()) <= high


def _next_accepted(runs: Sequence[_Run]) -> list[_Run | None]:
    following: list[_Run | None] = []
    nearest: _Run | None = None
    for run in reversed(runs):
        following.append(nearest)
        nearest = run if run.accepted else nearest
    return following[::-1]


def _distance(run: _Run, other: _Run, levels: NDArray[np.float64], is_later: bool) -> float:
    """How far `run` is from `other`, as a logarithm, where they come nearest in time."""
    here, there = (run.first, other.last) if is_later else (run.last, other.first)
    return float(levels[here] - levels[there])


def _runs(levels: NDArray[np.float64], steps: NDArray[np.float64], line: _Line, action_days: set[int]) -> list[_Run]:
    spikes = _spikes(steps) & ~line.sure
    breaks = np.abs(steps) > JUMP
    for i in np.flatnonzero(breaks).tolist():
        breaks[i] = int(line.sessions[i + 1]) not in action_days or _is_unit(float(steps[i]))
    breaks |= spikes[1:] | spikes[:-1]
    firsts = [0, *(np.flatnonzero(breaks) + 1).tolist()]
    lasts = [*(first - 1 for first in firsts[1:]), len(levels) - 1]
    return [
        _Run(a, b, bool(a == b and spikes[a]), bool(line.sure[a : b + 1].any()))
        for a, b in zip(firsts, lasts, strict=True)
    ]


def _spikes(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    found = np.zeros(len(steps) + 1, bool)
    there, back = steps[:-1], steps[1:]
    least = np.minimum(np.abs(there), np.abs(back))
    found[1:-1] = (least > SPIKE) & (np.abs(there + back) < SPIKE_RETURNS * least)
    return found


def _anchor(runs: Sequence[_Run]) -> _Run:
    """What to measure by when nothing is held: the last level that lasted, else the one that lasted longest."""
    lasting = [run for run in runs if len(run) > CONFIRMED_BY]
    return lasting[-1] if lasting else max(reversed(runs), key=len)


def _fault(run: _Run, distances: Sequence[float]) -> str | None:
    if any(_is_unit(distance) for distance in distances):
        return "unit_flip"
    if run.is_spike:
        return "spike"
    if len(run) > CONFIRMED_BY or any(abs(distance) <= JUMP for distance in distances):
        return None
    return "jump"


def _off_held(levels: NDArray[np.float64], line: _Line, codes: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    """A correction of a held bar may not take it further from its neighbours than it is, by a jump or a unit."""
    for i in np.flatnonzero(line.differs).tolist():
        if i in codes:
            continue
        held = log(line.held.close[line.held.sessions.searchsorted(line.sessions[i])])
        off = log(line.values[CLOSE, i]) - held
        if _is_unit(off) and not _agrees_with_neighbours(levels, line, i):
            yield i, "unit_flip"


def _agrees_with_neighbours(levels: NDArray[np.float64], line: _Line, i: int) -> bool:
    around = [j for j in (i - 1, i + 1) if 0 <= j < len(levels) and line.sure[j]]
    return any(abs(float(levels[i] - levels[j])) <= JUMP for j in around)


def _is_unit(distance: float) -> bool:
    return abs(exp(abs(distance)) / UNIT - 1) <= UNIT_RTOL


def _stuck(line: _Line) -> Iterable[int]:
    # without volume nothing traded: a halt, or a quiet day
    values = line.values
    same = (values[:, 1:] == values[:, :-1]).all(axis=0) & (values[VOLUME, 1:] > 0)
    if len(same) and same.mean() > MOSTLY:
        same[:] = False
    return np.flatnonzero((_counted(same) >= REPEATED) & ~line.sure).tolist()


def _counted(steps: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each place the number of steps in a row that lead to it; one more place than steps."""
    places = np.arange(1, len(steps) + 1)
    broken = np.maximum.accumulate(np.where(steps, 0, places)) if len(steps) else places
    return np.concatenate([[0], places - broken])
