"""Which basis a provider's prices are in, and how they become what was traded.

A provider such as Yahoo works every split it knows of into all earlier prices, volumes and dividends; now and then it
lists a split that it has not worked in yet, works it into some rows only, or twice, or lists it on two days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from math import log

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action, split_factors
from pricecache.core.bars import VOLUME, Bars, day_of
from pricecache.errors import ProviderAnswerBad

RATIO_RTOL = 1e-3
"""Ratios this near to each other are one: vendors round to four digits or more."""
FAR = 1.2
"""A close more than this factor off is no correction, unless it is the only one."""
TELLING_RATIO = 1.25
"""A split of less cannot be told from a day's move: 9 % are misjudged at 1.05, none at 1.5."""
DOUBLING_RATIO = 1.5
"""A split of less cannot be told from a day's move when it is worked in twice."""
DOUBLED_WITHIN = 0.25
"""How near to the split's ratio, as a share of its logarithm, the jump has to be that working it in twice leaves."""
UNIT, UNIT_RTOL = 100.0, 0.03
"""Prices so many times others, or that part of them, as nearly as a share of it, are in another unit."""
SAME_SPLIT_DAYS = 5
"""Two splits of one ratio so near to each other are one, listed twice."""
SAME_DIVIDEND_DAYS = 3
"""The same of dividends of two sources, which pay them weeks apart: the day differs by a holiday or a time zone."""
SAME_RTOL = 1e-3
"""How near the values of two listings of one action are: they are rounded differently."""
SPLITS_TRIED = 5
"""Of the splits that nothing tells about, and of those that may have been assumed wrongly, so many are tried."""
EQUAL, CLEARLY_EQUAL = 1e-4, 1e-3
"""As nearly as this, as a logarithm, two closes are in one basis; the second beside a split that tells clearly."""
HIDDEN = 0.05
"""A step of less, as a logarithm, cannot be told from a day's move."""
MOSTLY = 0.9
BESIDE_SESSIONS = 3
"""So many sessions off its day a split that is listed wrongly is looked for."""
ISLAND_SESSIONS = 10
ISLAND_WITHIN = 0.15
"""Rows left out when a split was worked in: at most so many, off by its ratio as nearly as a share of its logarithm."""
FEWEST_FOR_SUGGESTION = 3
"""Sessions that have to agree before a split is suggested: one or two may be chance."""
LARGEST_DENOMINATOR = 10
"""Of the ratio of a split: nearly all are of smaller numbers, and of larger ones some fit every ratio."""
RATIONAL_RTOL = 2e-4
"""How near a ratio is to such a fraction, with prices rounded to a cent or so."""
VOLUME_RTOL = 0.02
"""How near volumes follow a split the other way round: vendors correct them for days."""
RESCALED_RTOL = 1e-4
"""How far a dividend may be off once it was divided by a split, rounded by the vendor, and multiplied again."""


def listed_once(answered: Iterable[Action], held: Sequence[Action], bars: Bars) -> tuple[Action, ...]:
    """`answered` without what is another one again, a few days off: of two splits of one ratio the one held, else
    the one that shows as a jump in `bars` (as the provider gave them), else the later; of dividends the one held from
    another source."""
    kept: list[Action] = []
    for action in sorted(answered):
        if any(_is_again(action, other) for other in held):
            continue
        before = kept[-1] if kept and action.kind == "split" and _is_again(action, kept[-1]) else None
        if before is None:
            kept.append(action)
        elif not _shows_as_a_jump(before, bars):
            kept[-1] = action
        elif _shows_as_a_jump(action, bars):
            kept.append(action)
    return tuple(kept)


def worked_in(
    bars: Bars,
    actions: Iterable[Action],
    held: Bars,
    *,
    sure: Callable[[Action], Bars] | None = None,
    is_adjusted: bool = True,
    today: int | None = None,
) -> tuple[Action, ...]:
    """Which of the splits among `actions` the provider has worked into its `bars`; one that it worked in twice is
    named twice.

    `actions`: all that had taken effect when it answered, also after the last bar. `held`: bars as traded to go by, of
    the same kind of hand. A split of 1.5 or more with bars on both sides shows by itself: as no step where it is worked
    in, as the step it was where it is not. Of others that guess is taken that makes most bars those held; with nothing
    held they are worked in, but for those whose step shows. `sure`: of `held` what was fetched before a split took
    effect, by default all; that overrules a step, which may have been a fall of the price. `is_adjusted`: whether the
    provider says that it works splits in; one that says it does not is believed as long as no split shows to be.
    `today`:
    a split of a later day is not expected to be.
    """
    splits = tuple(action for action in actions if action.kind == "split")
    told = [_told(split, splits, bars) for split in splits]
    base = [
        _believed(split, bars) * (is_adjusted and (today is None or split.ex_date <= today)) if n is None else n
        for split, n in zip(splits, told, strict=True)
    ]
    for i, split in enumerate(splits):
        if told[i] in (0, 2) and _is_worked_in_after_all(i, splits, base, bars, held if sure is None else sure(split)):
            base[i] = 1
    there, mine = _off(bars, held)
    if not len(mine):
        return _repeated(splits, base)
    within = [i for i, split in enumerate(splits) if split.ex_date > there[0]]
    sizes = np.array([[log(s.value) * (s.ex_date > day) for s in splits] for day in there.tolist()])
    counted = [
        (int((np.abs(mine + sizes @ np.array(guess, float)) < EQUAL).sum()), guess)
        for guess in _guesses(base, [i for i in within if told[i] is None])
    ]
    most = max(count for count, _ in counted)
    return _repeated(splits, next(guess for count, guess in counted if count == most))


def in_other_basis(traded: Bars, held: Bars, splits: Iterable[Action]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The sessions of both whose closes are apart by splits that came later, and by how much: log(held ÷ answer), of
    the same length; sessions that agree are among them, with 0; those apart by anything else are not.

    `splits`: all that were ever assumed, or are now.
    """
    sessions, off = _off(traded, held)
    snapped = np.where(np.abs(off) < EQUAL, 0.0, np.nan)
    for size, before in _products(tuple(dict.fromkeys((s.ex_date, s.value) for s in splits))):
        near = CLEARLY_EQUAL if abs(size) > log(TELLING_RATIO) else EQUAL
        if abs(size) > 2 * near:
            snapped[(sessions < before) & (np.abs(off - size) < near)] = -size
    is_known = ~np.isnan(snapped)
    return sessions[is_known], snapped[is_known]


def is_one_piece(
    traded: Bars, held: Bars, sessions: NDArray[np.int64], off: NDArray[np.float64], splits: Sequence[Action]
) -> bool:
    """Whether, at each place where `off` (see `in_other_basis`) changes, it is what is held that jumps, and not the
    answer. A small change is believed on the day of a split, and one that a day's move hides anywhere."""
    places = np.flatnonzero(np.abs(np.diff(off)) > EQUAL)
    here, there = (_levels(bars, sessions, splits) for bars in (traded, held))
    for i in places.tolist():
        is_small = abs(off[i + 1] - off[i]) < log(TELLING_RATIO)
        if is_small and any(sessions[i] < split.ex_date <= sessions[i + 1] for split in splits):
            continue
        if abs(here[i + 1] - here[i]) > abs(there[i + 1] - there[i]) and abs(off[i + 1] - off[i]) > HIDDEN:
            return False
    return True


def never_happened(split: Action, bars: Bars, others: Sequence[Action], sure: Bars) -> bool:
    """Whether bars that were fetched well before a split took effect (`sure`, as traded) show that it did not: those
    the provider gives for the same sessions now are the same, and yet they go on without a step.

    `others`: the splits that are worked into `bars`, this one not among them.
    """
    if _told(split, (split, *others), bars) != 1:
        return False
    _, off = _off(as_traded(bars, others), sure.between(None, split.ex_date - 1))
    return len(off) >= FEWEST_FOR_SUGGESTION and _is_mostly_none(off)


def _off(traded: Bars, held: Bars) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    sessions, here, there = np.intersect1d(traded.sessions, held.sessions, assume_unique=True, return_indices=True)
    return sessions, np.log(traded.close[here] / held.close[there])


def _levels(bars: Bars, sessions: NDArray[np.int64], splits: Iterable[Action]) -> NDArray[np.float64]:
    return np.asarray(np.log(bars.close[bars.sessions.searchsorted(sessions)] / split_factors(sessions, splits)))


def _products(splits: Sequence[tuple[int, float]]) -> Iterator[tuple[float, int]]:
    """By what one or two of the last splits shift prices, as a logarithm, and the day before which they do."""
    last = sorted(splits)[-SPLITS_TRIED:]
    for day, value in last:
        for power in (1, -1, 2, -2):
            yield power * log(value), day
    for (day, value), (other, ratio) in combinations(last, 2):
        for power, its in product((1, -1), repeat=2):
            yield power * log(value) + its * log(ratio), min(day, other)


def _guesses(base: list[int], undecided: Sequence[int]) -> Iterator[list[int]]:
    yield base
    tried = undecided[-SPLITS_TRIED:]
    for times in product((1, 0), repeat=len(tried)):
        guess = list(base)
        for i, n in zip(tried, times, strict=True):
            guess[i] = n
        yield guess
    for i in tried[-1:]:
        yield [*base[:i], 2, *base[i + 1 :]]


def _is_worked_in_after_all(i: int, splits: Sequence[Action], times: Sequence[int], bars: Bars, sure: Bars) -> bool:
    before = sure.between(None, splits[i].ex_date - 1)
    tried = (times[i], 1)
    offs = [_off(as_traded(bars, _repeated(splits, [*times[:i], n, *times[i + 1 :]])), before)[1] for n in tried]
    return len(before) > 0 and bool(not (np.abs(offs[0]) < EQUAL).any() and _is_mostly_none(offs[1]))


def _is_mostly_none(off: NDArray[np.float64]) -> bool:
    return len(off) > 1 and bool((np.abs(off) < EQUAL).mean() > MOSTLY)


def _repeated(splits: Sequence[Action], times: Sequence[int]) -> tuple[Action, ...]:
    return tuple(split for split, n in zip(splits, times, strict=True) for _ in range(n))


def is_as_held(traded: Bars, held: Bars, split: Action) -> bool:
    """Whether what is held beside the day of `split`, of half the sessions or more, is the same as `traded`."""
    at = int(traded.sessions.searchsorted(split.ex_date))
    beside = slice(max(at - ISLAND_SESSIONS, 0), at + ISLAND_SESSIONS)
    near = Bars(traded.sessions[beside], traded.values[:, beside])
    off = _off(near, held)[1]
    return len(off) > 0 and 2 * len(off) >= len(near) and bool((np.abs(off) < EQUAL).all())


def require_worked_in_throughout(bars: Bars, actions: Iterable[Action]) -> None:
    """Hold `bars`, as the provider gave them, against the splits among `actions` for itself, with nothing held.

    Raises `ProviderAnswerBad` with code `basis_mixed` when a few rows beside a split's day are left out, or counted
    in: there the price jumps by the ratio at the split's day, and back a few sessions off.
    """
    splits = [action for action in actions if action.kind == "split"]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.diff(np.log(bars.close))
    own = bars.sessions.searchsorted([split.ex_date for split in splits]) - 1
    beside = np.ones(len(steps), bool)
    beside[own[(own >= 0) & (own < len(steps))]] = False
    for split in splits:
        at = int(bars.sessions.searchsorted(split.ex_date)) - 1
        size = log(split.value)
        if abs(size) < log(DOUBLING_RATIO) or not 0 <= at < len(steps):
            continue
        around = slice(max(at - ISLAND_SESSIONS, 0), at + ISLAND_SESSIONS + 1)
        near, within = steps[around][beside[around]], ISLAND_WITHIN * abs(size)
        is_left = abs(steps[at] + size) < within or (abs(near + size) < within).any()
        if is_left and (abs(near - size) < within).any():
            raise ProviderAnswerBad(
                f"The split of {day_of(split.ex_date)} is worked into some rows beside it and not into others.",
                code="basis_mixed",
            )


def as_traded(bars: Bars, splits: Iterable[Action]) -> Bars:
    """`bars` as they were before `splits` were worked in: prices × the product of all later ones, volume ÷ it."""
    factors = split_factors(bars.sessions, splits)
    if (factors == 1.0).all():
        return bars
    values = bars.values * factors
    values[VOLUME] = bars.values[VOLUME] / factors
    return Bars(bars.sessions, values)


def as_declared(answered: Iterable[Action], splits: Iterable[Action], held: Iterable[Action]) -> tuple[Action, ...]:
    """`answered` with dividends as declared: each × the product of the `splits` after its ex-date.

    One that then differs from the one `held` by no more than the vendor's rounding is the one held; one that does
    as it was given, because the vendor has not rescaled it yet, is too.
    """
    answered, splits = tuple(answered), tuple(splits)
    factors = split_factors(np.array([action.ex_date for action in answered], np.int64), splits).tolist()
    known = {action.key: action.value for action in held}
    return tuple(
        replace(action, value=_unrounded(action.value, factor, known.get(action.key)))
        if action.kind == "dividend" and factor != 1.0
        else action
        for action, factor in zip(answered, factors, strict=True)
    )


def require_explained(traded: Bars, held: Bars) -> None:
    """Hold an answer as traded against the bars `held` (as traded, from the same kind of hand) on the sessions of both.

    Single closes may be corrected. Raises `ProviderAnswerBad`, and nothing of the answer is to be stored. With code
    `basis_unexplained` all closes, or all of several that differ, are off by one ratio: the
    provider assumes a split, a currency or a unit that nobody told us of. Its facts: `ratio`, provider ÷ held;
    `suggestion`, the split that would explain it, or None; `first`
    and `last` of the sessions compared. With code `basis_mixed` several, or more than half, are far off by different
    ratios: the provider is in the middle of a change. Rows off by a hundred beside others that are not are a matter of
    their own.
    """
    if (fault := _off_basis(traded, held)) is not None:
        raise fault


def _off_basis(traded: Bars, held: Bars) -> ProviderAnswerBad | None:
    _, here, there = np.intersect1d(traded.sessions, held.sessions, assume_unique=True, return_indices=True)
    if not len(here):
        return None
    ratios = traded.close[here] / held.close[there]
    off = np.maximum(ratios, 1 / ratios)
    is_unit = np.abs(off / UNIT - 1) <= UNIT_RTOL
    far, least = int(((off > FAR) & ~is_unit).sum()), float(off.min())
    is_constant = bool(ratios.max() <= ratios.min() * (1 + RATIO_RTOL))
    if is_constant and (least > FAR or (len(here) > 1 and least > 1 + RATIO_RTOL)):
        return _unexplained(traded, held, here, there)
    if far >= 2 or far * 2 > len(here) - int(is_unit.sum()):
        return ProviderAnswerBad(
            f"Prices are {ratios.min():.6g} to {ratios.max():.6g} times those held on {len(here)} sessions, {far} of "
            "them far off; no known action explains it.",
            code="basis_mixed",
        )
    apart = (off > 1 + RATIO_RTOL) & (off <= FAR)
    if apart.sum() >= FEWEST_FOR_SUGGESTION and ratios[apart].max() <= ratios[apart].min() * (1 + EQUAL):
        return _unexplained(traded, held, here[apart], there[apart])
    return None


def _unexplained(traded: Bars, held: Bars, here: NDArray[np.int64], there: NDArray[np.int64]) -> ProviderAnswerBad:
    ratio = float(np.median(traded.close[here] / held.close[there]))
    return ProviderAnswerBad(
        f"Prices are {ratio:.6g} times those held on {len(here)} sessions that both have; no known action explains it.",
        code="basis_unexplained",
        ratio=ratio,
        suggestion=_suggested(
            ratio,
            Bars(traded.sessions[here], traded.values[:, here]),
            Bars(held.sessions[there], held.values[:, there]),
        ),
        first=int(traded.sessions[here[0]]),
        last=int(traded.sessions[here[-1]]),
    )


def _unrounded(value: float, factor: float, known: float | None) -> float:
    if known is not None:
        for declared in (value * factor, value):
            if abs(declared - known) <= RESCALED_RTOL * known:
                return known
    return value * factor


def _told(split: Action, splits: Sequence[Action], bars: Bars) -> int | None:
    """How often a split is worked in as its own step says, together with those that fall into the same gap; None where
    no step can say."""
    at = int(bars.sessions.searchsorted(split.ex_date))
    if not 0 < at < len(bars):
        return None
    places = [int(place) for place in bars.sessions.searchsorted([other.ex_date for other in splits])]
    size = sum(log(other.value) for other, place in zip(splits, places, strict=True) if place == at)
    if abs(size) < log(DOUBLING_RATIO):
        return None
    step = log(bars.close[at] / bars.close[at - 1])
    if abs(step + size) < abs(step):
        return 0
    if abs(step - size) < DOUBLED_WITHIN * abs(size):
        return 2
    return 0 if _steps_beside(at, size, places, bars) else 1


def _steps_beside(at: int, size: float, places: Sequence[int], bars: Bars) -> bool:
    """Whether the step stands a few sessions off: the split is listed on the wrong day, and not worked in."""
    around = range(max(at - BESIDE_SESSIONS, 1), min(at + BESIDE_SESSIONS + 1, len(bars)))
    steps = [log(bars.close[i] / bars.close[i - 1]) for i in around if i not in places]
    near = ISLAND_WITHIN * abs(size)
    return any(abs(step + size) < near for step in steps) and not any(abs(step - size) < near for step in steps)


def _believed(split: Action, bars: Bars) -> int:
    return 0 if _shows_as_a_jump(split, bars) else 1


def _shows_as_a_jump(split: Action, bars: Bars) -> bool:
    jump, size = _jump_at(split, bars), log(split.value)
    return jump is not None and abs(jump + size) < abs(jump)


def _jump_at(split: Action, bars: Bars) -> float | None:
    first = int(bars.sessions.searchsorted(split.ex_date))
    if not 0 < first < len(bars) or max(split.value, 1 / split.value) < TELLING_RATIO:
        return None
    return log(bars.close[first] / bars.close[first - 1])


def _is_again(action: Action, other: Action) -> bool:
    days = abs(action.ex_date - other.ex_date)
    if action.kind != other.kind or not days or abs(action.value - other.value) > SAME_RTOL * abs(other.value):
        return False
    if action.kind == "split":
        return days <= SAME_SPLIT_DAYS
    return days <= SAME_DIVIDEND_DAYS and action.source != other.source


def _suggested(ratio: float, traded: Bars, held: Bars) -> dict[str, object] | None:
    """The split that would explain prices of `ratio` times those held, all on the same sessions, if one does: a ratio
    of small whole numbers, with the volume scaled the other way round."""
    shares = 1 / ratio
    nearest = Fraction(max(shares, ratio)).limit_denominator(LARGEST_DENOMINATOR)
    if len(held) < FEWEST_FOR_SUGGESTION or abs(float(nearest) / max(shares, ratio) - 1) > RATIONAL_RTOL:
        return None
    known = (traded.volume > 0) & (held.volume > 0)
    if not known.any():
        return None
    scaled = float(np.median(traded.volume[known] / held.volume[known]))
    if abs(scaled / shares - 1) > VOLUME_RTOL:
        return None
    return {"kind": "split", "ratio": float(nearest) if shares > 1 else 1 / float(nearest)}
