"""Which basis a provider's prices are in, and how they become what was traded.

A provider such as Yahoo works every split it knows of into all earlier prices, volumes and dividends; now and then it
lists a split that it has not worked in yet, works it into some rows only, or twice, or lists it on two days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import log

import numpy as np

from pricecache.core.actions import Action, split_factors
from pricecache.core.bars import VOLUME, Bars, day_of
from pricecache.errors import ProviderAnswerBad

RATIO_RTOL = 1e-3
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
SAME_RTOL = 1e-3
ISLAND_SESSIONS = 10
ISLAND_WITHIN = 0.15
"""Rows left out when a split was worked in: at most so many, off by its ratio as nearly as a share of its logarithm."""
FEWEST_FOR_SUGGESTION = 3
LARGEST_DENOMINATOR = 10
RATIONAL_RTOL = 2e-4
VOLUME_RTOL = 0.02
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
    return tuple(kept)


def worked_in(bars: Bars, actions: Iterable[Action], held: Bars) -> tuple[Action, ...]:
    """Which of the splits among `actions` the provider has worked into its `bars`; one that it worked in twice is
    named twice.

    `actions`: all that had taken effect when it answered, also after the last bar. `held`: bars as traded, of the same
    kind of hand. Where bars of both are there, they decide; else a split that shows in the answer as the jump it was
    is not worked in, and one that shows as that jump the other way round was worked in twice.
    """
    splits = tuple(action for action in actions if action.kind == "split")
    guesses = list(_guesses(splits, bars))
    for guess in guesses:
        if _off_basis(as_traded(bars, guess), held) is None:
            return guess
    return guesses[0]


def _guesses(splits: tuple[Action, ...], bars: Bars) -> Iterator[tuple[Action, ...]]:
    yield tuple(split for split in splits for _ in range(_times_worked_in(split, bars)))
    yield splits
    if splits:
        yield splits[:-1]
        yield (*splits, splits[-1])
        yield ()


def worked_in_throughout(bars: Bars, actions: Iterable[Action]) -> None:
    """Hold `bars`, as the provider gave them, against the splits among `actions` for itself, with nothing held.

    Raises `ProviderAnswerBad` with code `basis_mixed` when a few rows beside a split's day are left out, or counted
    in: there the price jumps by the ratio at the split's day, and back a few sessions off.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.diff(np.log(bars.close))
    for split in actions:
        at = int(bars.sessions.searchsorted(split.ex_date)) - 1
        size = log(split.value)
        if split.kind != "split" or abs(size) < log(DOUBLING_RATIO) or not 0 <= at < len(steps):
            continue
        near = steps[max(at - ISLAND_SESSIONS, 0) : at + ISLAND_SESSIONS + 1]
        if abs(steps[at] + size) < ISLAND_WITHIN * abs(size) and (abs(near - size) < ISLAND_WITHIN * abs(size)).any():
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


def explained(traded: Bars, held: Bars) -> None:
    """Hold an answer as traded against the bars `held` (as traded, from the same kind of hand) on the sessions of both.

    Single closes may be corrected. Raises `ProviderAnswerBad`, and nothing of the answer is to be stored. With code
    `basis_unexplained` all closes are off by one ratio: the provider assumes a split, a currency or a unit that nobody
    told us of. Its facts: `ratio`, provider ÷ held; `suggestion`, the split that would explain it, or None; `first`
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
        ratio = float(np.median(ratios))
        return ProviderAnswerBad(
            f"Prices are {ratio:.6g} times those held on all {len(here)} sessions that both have; no known action "
            "explains it.",
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
    if far >= 2 or far * 2 > len(here) - int(is_unit.sum()):
        return ProviderAnswerBad(
            f"Prices are {ratios.min():.6g} to {ratios.max():.6g} times those held on {len(here)} sessions, {far} of "
            "them far off; no known action explains it.",
            code="basis_mixed",
        )
    return None


def _unrounded(value: float, factor: float, known: float | None) -> float:
    if known is not None:
        for declared in (value * factor, value):
            if abs(declared - known) <= RESCALED_RTOL * known:
                return known
    return value * factor


def _times_worked_in(split: Action, bars: Bars) -> int:
    jump, size = _jump_at(split, bars), log(split.value)
    if jump is None:
        return 1
    if abs(jump + size) < abs(jump):
        return 0
    is_telling = abs(size) >= log(DOUBLING_RATIO)
    return 2 if is_telling and abs(jump - size) < DOUBLED_WITHIN * abs(size) else 1


def _shows_as_a_jump(split: Action, bars: Bars) -> bool:
    return _times_worked_in(split, bars) == 0


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
