"""Corporate actions as facts, and the factors that apply them to as-traded bars when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import VOLUME, Bars

Kind = Literal["split", "dividend", "rebase"]
Adjust = Literal["none", "splits", "all"]

_UNIT_OF = {"GBp": "GBP", "ZAc": "ZAR", "ILA": "ILS"}
"""Currencies of prices that are a hundredth of another."""


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """A split, a cash dividend or a rebase that takes effect at the start of session `ex_date` (days since 1970).

    `value`: for a split the new shares for one old (4.0 is four for one); for a dividend the gross cash per share as
    declared, in `currency`; for a rebase the factor old price ÷ new price, with no change of quantities.
    """

    ex_date: int
    kind: Kind
    value: float
    currency: str | None = None
    source: str = ""
    manual: bool = False

    @property
    def key(self) -> tuple[int, str]:
        return self.ex_date, self.kind


def preferred(actions: tuple[Action, ...], *, by_hand: bool = True) -> tuple[Action, ...]:
    """Of two actions of one kind on one day the one put in by hand, or the provider's if not `by_hand`. In order."""
    chosen: dict[tuple[int, str], Action] = {}
    for action in actions:
        if action.key not in chosen or action.manual == by_hand:
            chosen[action.key] = action
    return actions if len(chosen) == len(actions) else tuple(chosen.values())


def in_effect(actions: tuple[Action, ...], today: int) -> tuple[Action, ...]:
    """What counts of `actions` by `today` (days since 1970-01-01): those that have taken effect, by hand first."""
    if actions and actions[-1].ex_date > today:
        actions = tuple(action for action in actions if action.ex_date <= today)
    return preferred(actions)


def split_factors(sessions: NDArray[np.int64], actions: Iterable[Action]) -> NDArray[np.float64]:
    """For each session the product of all splits (and rebases) with a later ex-date: float64, shape (n,).

    As-traded price ÷ factor is the split-adjusted price; as-traded volume × factor the split-adjusted volume.
    """
    return _later_product(sessions, [(a.ex_date, a.value) for a in actions if a.kind in ("split", "rebase")])


def dividend_factors(bars: Bars, actions: Sequence[Action], currency: str | None = None) -> NDArray[np.float64]:
    """For each session the product of 1 − D/C over later dividends: float64, shape (n,).

    C is the as-traded close of the last session before the ex-date, in the units of the ex-date (÷ the splits since
    that close: a split on the ex-date comes before the dividend). D is the cash in the same units (the CRSP method,
    as Yahoo's help page on adjusted close describes it). `currency`: of the prices; None takes every dividend to be
    in it. A dividend in its unit or hundredth is converted (GBP for prices in GBp). A dividend in any other currency,
    without an earlier close, or not below it, is left out.
    """
    dividends = [a for a in actions if a.kind == "dividend" and len(bars) and a.ex_date > bars.sessions[0]]
    days = np.array([dividend.ex_date for dividend in dividends], np.int64)
    before = bars.sessions.searchsorted(days) - 1
    since = split_factors(bars.sessions[before], actions) / split_factors(days, actions)
    closes = (bars.close[before] / since).tolist()
    steps = []
    for dividend, close in zip(dividends, closes, strict=True):
        cash = _in_currency(dividend, currency)
        if 0 < cash < close:
            steps.append((dividend.ex_date, 1.0 - cash / close))
    return _later_product(bars.sessions, steps)


def adjusted(bars: Bars, actions: Sequence[Action], mode: Adjust, currency: str | None = None) -> Bars:
    """As-traded `bars` in the units of the last session (`splits`), and net of dividends too (`all`).

    `actions` are all of the series', later ones included. For `splits` the bars may be any run of the series; for
    `all` they have to reach the last session before each dividend, whose close the dividend is held against.
    `currency`: of the prices; a dividend in another one, but for its unit or hundredth, is left out of `all`. None
    takes every dividend to be in the currency of the prices.
    """
    if mode == "none" or not actions or not len(bars):
        return bars
    factors = split_factors(bars.sessions, actions)
    prices = 1.0 / factors
    if mode == "all":
        prices = prices * dividend_factors(bars, actions, currency)
    if (prices == 1.0).all() and (factors == 1.0).all():
        return bars
    values = bars.values * prices
    # volume follows the number of shares only: a rebase changes none
    shares = _later_product(bars.sessions, [(a.ex_date, a.value) for a in actions if a.kind == "split"])
    values[VOLUME] = bars.values[VOLUME] * shares
    return Bars(bars.sessions, values)


def merge_actions(held: Sequence[Action], new: Iterable[Action]) -> tuple[Action, ...]:
    """`held` with `new` laid over it, in order: of each kind on each day one of a provider and one put in by hand."""
    by_key = {(*action.key, action.manual): action for action in held}
    for action in new:
        old = by_key.get((*action.key, action.manual))
        if old is None or not _same(old, action):
            by_key[(*action.key, action.manual)] = action
    return tuple(by_key[key] for key in sorted(by_key))


def withdrawn(
    held: Sequence[Action], answered: Iterable[Action], start: int, end: int, source: str
) -> tuple[Action, ...]:
    """Those of `held` that a provider listed once and does not list any more, in order: they take effect from `start`
    to `end`, both included, which is what `answered` answers for, and it has none of that kind on that day.

    `source`: that provider; what came from another one it may never have listed. Actions put in by hand are no
    provider's to withdraw. Nothing follows from it by itself: what is held stays.
    """
    listed = {action.key for action in answered}
    return tuple(
        action
        for action in held
        if not action.manual and start <= action.ex_date <= end and action.source == source and action.key not in listed
    )


def _same(a: Action, b: Action) -> bool:
    return abs(a.value - b.value) <= 1e-6 * abs(a.value) and a.currency == b.currency


def _in_currency(dividend: Action, currency: str | None) -> float:
    given = dividend.currency
    if currency is None or given is None or given == currency:
        return dividend.value
    if _UNIT_OF.get(currency) == given:
        return dividend.value * 100
    return dividend.value / 100 if _UNIT_OF.get(given) == currency else 0.0  # no fixed rate: left out


def _later_product(sessions: NDArray[np.int64], steps: list[tuple[int, float]]) -> NDArray[np.float64]:
    if not steps:
        return np.ones(len(sessions))
    steps.sort()
    days = np.array([day for day, _ in steps], np.int64)
    from_here_on = np.append(np.cumprod(np.array([value for _, value in steps])[::-1])[::-1], 1.0)
    return from_here_on[days.searchsorted(sessions, side="right")]
