"""Which basis a provider's prices are in, and how they become what was traded.

A provider such as Yahoo works every split it knows of into all earlier prices, volumes and dividends; now and then it
lists a split that it has not worked in yet, or works it into some rows only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import log

import numpy as np

from pricecache.core.actions import Action, split_factors
from pricecache.core.bars import VOLUME, Bars
from pricecache.errors import ProviderAnswerBad

RATIO_RTOL = 1e-3
FAR = 1.2
"""A close more than this factor off is no correction, unless it is the only one."""
TELLING_RATIO = 1.25
"""A split of less cannot be told from a day's move: 9 % are misjudged at 1.05, none at 1.5."""
RESCALED_RTOL = 1e-4
"""How far a dividend may be off once it was divided by a split, rounded by the vendor, and multiplied again."""


def worked_in(bars: Bars, actions: Iterable[Action], held: Bars) -> tuple[Action, ...]:
    """Which of the splits among `actions` the provider has worked into its `bars`.

    `actions`: all that had taken effect when it answered, also after the last bar. `held`: bars as traded, of the same
    kind of hand. A split that shows in the answer as the jump it was, is not worked in; where that contradicts what is
    held, the provider is believed.
    """
    splits = tuple(action for action in actions if action.kind == "split")
    seen = tuple(split for split in splits if not _shows_as_a_jump(split, bars))
    return seen if seen == splits or _off_basis(as_traded(bars, seen), held) is None else splits


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

    One that then differs from the one `held` by no more than the vendor's rounding is the one held.
    """
    answered = tuple(answered)
    factors = split_factors(np.array([action.ex_date for action in answered], np.int64), splits).tolist()
    known = {action.key: action.value for action in held}
    return tuple(
        replace(action, value=_unrounded(action.value * factor, known.get(action.key)))
        if action.kind == "dividend" and factor != 1.0
        else action
        for action, factor in zip(answered, factors, strict=True)
    )


def explained(traded: Bars, held: Bars) -> None:
    """Hold an answer as traded against the bars `held` (as traded, from the same kind of hand) on the sessions of both.

    Single closes may be corrected. Raises `ProviderAnswerBad`, and nothing of the answer is to be stored, with code
    `basis_unexplained` when all closes are off by one ratio: the provider assumes a split, a currency or a unit that
    nobody told us of; with code `basis_mixed` when several, or more than half, are far off by different ratios: it is
    in the middle of a change.
    """
    if (fault := _off_basis(traded, held)) is not None:
        raise fault


def _off_basis(traded: Bars, held: Bars) -> ProviderAnswerBad | None:
    _, here, there = np.intersect1d(traded.sessions, held.sessions, assume_unique=True, return_indices=True)
    if not len(here):
        return None
    ratios = traded.close[here] / held.close[there]
    off = np.maximum(ratios, 1 / ratios)
    far, least = int((off > FAR).sum()), float(off.min())
    is_constant = bool(ratios.max() <= ratios.min() * (1 + RATIO_RTOL))
    if is_constant and (least > FAR or (len(here) > 1 and least > 1 + RATIO_RTOL)):
        ratio = float(np.median(ratios))
        return ProviderAnswerBad(
            f"Prices are {ratio:.6g} times those held on all {len(here)} sessions that both have; no known action "
            "explains it.",
            code="basis_unexplained",
            ratio=ratio,
        )
    if far >= 2 or far * 2 > len(here):
        return ProviderAnswerBad(
            f"Prices are {ratios.min():.6g} to {ratios.max():.6g} times those held on {len(here)} sessions, {far} of "
            "them far off; no known action explains it.",
            code="basis_mixed",
        )
    return None


def _shows_as_a_jump(split: Action, bars: Bars) -> bool:
    first = int(bars.sessions.searchsorted(split.ex_date))
    if not 0 < first < len(bars) or max(split.value, 1 / split.value) < TELLING_RATIO:
        return False
    jump, ratio = log(bars.close[first] / bars.close[first - 1]), log(split.value)
    return abs(jump + ratio) < abs(jump)


def _unrounded(value: float, known: float | None) -> float:
    return known if known is not None and abs(value - known) <= RESCALED_RTOL * known else value
