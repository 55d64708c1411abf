"""Which basis a provider's prices are in, and how they become what was traded.

A provider such as Yahoo works every split it knows of into all earlier prices, volumes and dividends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pricecache.core.actions import Action, split_factors
from pricecache.core.bars import CLOSE, VOLUME, Bars
from pricecache.errors import ProviderAnswerBad

RATIO_RTOL = 1e-3
LONE_RATIO = 1.25
"""With one session to compare, a smaller ratio than this is a correction of that session, not a change of basis."""


def as_traded(bars: Bars, actions: Iterable[Action]) -> Bars:
    """Split-adjusted `bars` as they were traded: prices × the product of all later splits, volume ÷ it.

    `actions`: all that are known, held and just answered, because a split after the last bar is worked in as well.
    Believes that the provider applied exactly those splits to every bar. Where it did not (a split listed and not
    applied, or applied to some rows only), judging each bar by its overlap with what is held belongs here, before
    the factors are used; until then `explained` refuses what is off by one factor throughout.
    """
    factors = split_factors(bars.sessions, _splits(actions))
    if (factors == 1.0).all():
        return bars
    values = bars.values * factors
    values[VOLUME] = bars.values[VOLUME] / factors
    return Bars(bars.sessions, values)


def as_declared(answered: Iterable[Action], known: Iterable[Action]) -> tuple[Action, ...]:
    """`answered` with dividends as declared: each × the product of the splits `known` after its ex-date."""
    answered = tuple(answered)
    days = np.array([action.ex_date for action in answered], np.int64)
    factors = split_factors(days, _splits(known)).tolist()
    return tuple(
        replace(action, value=action.value * factor) if action.kind == "dividend" and factor != 1.0 else action
        for action, factor in zip(answered, factors, strict=True)
    )


def explained(traded: Bars, held: Bars) -> None:
    """Hold un-adjusted bars against those `held` (as traded, from the same kind of hand) on the sessions of both.

    Raises `ProviderAnswerBad` with code `basis_unexplained` when the closes differ by one ratio throughout: then the
    provider assumes a split, a currency or a unit that nobody told us of, and nothing of its answer is to be stored.
    """
    _, here, there = np.intersect1d(traded.sessions, held.sessions, assume_unique=True, return_indices=True)
    if not len(here):
        return
    ratios = traded.values[CLOSE, here] / held.values[CLOSE, there]
    ratio = float(np.median(ratios))
    constant = ratios.max() <= ratios.min() * (1 + RATIO_RTOL)
    least = LONE_RATIO - 1 if len(here) == 1 else RATIO_RTOL
    if constant and max(ratio, 1 / ratio) > 1 + least:
        raise ProviderAnswerBad(
            f"Prices are {ratio:.6g} times those held on all {len(here)} sessions that both have; no known action "
            "explains it.",
            code="basis_unexplained",
            ratio=ratio,
        )


def _splits(actions: Iterable[Action]) -> list[Action]:
    return [action for action in actions if action.kind == "split"]
