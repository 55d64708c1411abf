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


def in_effect(actions: tuple[Action, ...], today: int) -> tuple[Action, ...]:
    """Of `actions` in order, those that have taken effect by `today` (days since 1970-01-01)."""
    if not actions or actions[-1].ex_date <= today:
        return actions
    return tuple(action for action in actions if action.ex_date <= today)


def split_factors(sessions: NDArray[np.int64], actions: Iterable[Action]) -> NDArray[np.float64]:
    """For each session the product of all splits (and rebases) with a later ex-date: float64, shape (n,).

    As-traded price ÷ factor is the split-adjusted price; as-traded volume × factor the split-adjusted volume.
    """
    return _later_product(sessions, [(a.ex_date, a.value) for a in actions if a.kind in ("split", "rebase")])


def dividend_factors(bars: Bars, actions: Iterable[Action]) -> NDArray[np.float64]:
    """For each session the product of 1 − D/C over later dividends: float64, shape (n,).

    C is the as-traded close of the last session before the ex-date, D the cash in the same units (the CRSP method,
    as Yahoo's help page on adjusted close describes it). A dividend without an earlier close, or not below it, is
    left out.
    """
    steps = []
    for action in actions:
        if action.kind == "dividend":
            before = int(bars.sessions.searchsorted(action.ex_date)) - 1
            if before >= 0 and 0 < action.value < bars.close[before]:
                steps.append((action.ex_date, 1.0 - action.value / bars.close[before]))
    return _later_product(bars.sessions, steps)


def adjusted(bars: Bars, actions: Sequence[Action], mode: Adjust) -> Bars:
    """As-traded `bars` in the units of the last session (`splits`), and net of dividends too (`all`).

    `actions` are all of the series', later ones included. For `splits` the bars may be any run of the series; for
    `all` they have to reach the last session before each dividend, whose close the dividend is held against.
    """
    if mode == "none" or not actions or not len(bars):
        return bars
    factors = split_factors(bars.sessions, actions)
    prices = 1.0 / factors
    if mode == "all":
        prices = prices * dividend_factors(bars, actions)
    if (prices == 1.0).all() and (factors == 1.0).all():
        return bars
    values = bars.values * prices
    # volume follows the number of shares only: a rebase changes none
    shares = _later_product(bars.sessions, [(a.ex_date, a.value) for a in actions if a.kind == "split"])
    values[VOLUME] = bars.values[VOLUME] * shares
    return Bars(bars.sessions, values)


def merge_actions(held: Sequence[Action], new: Iterable[Action]) -> tuple[Action, ...]:
    """`held` with `new` laid over it: one of a kind a day, a manual one replaced only by a manual one, in order."""
    by_key = {action.key: action for action in held}
    for action in new:
        old = by_key.get(action.key)
        if old is None or ((action.manual or not old.manual) and not _same(old, action)):
            by_key[action.key] = action
    return tuple(sorted(by_key.values(), key=lambda a: a.key))


def _same(a: Action, b: Action) -> bool:
    return abs(a.value - b.value) <= 1e-6 * abs(a.value) and a.currency == b.currency and a.manual == b.manual


def _later_product(sessions: NDArray[np.int64], steps: list[tuple[int, float]]) -> NDArray[np.float64]:
    if not steps:
        return np.ones(len(sessions))
    steps.sort()
    days = np.array([day for day, _ in steps], np.int64)
    from_here_on = np.append(np.cumprod(np.array([value for _, value in steps])[::-1])[::-1], 1.0)
    return from_here_on[days.searchsorted(sessions, side="right")]
