"""Several portfolios as one history: their worth added up in one currency, their returns linked as one portfolio's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.currencies import digits
from pricecache.core.history import PORTFOLIO, GrossFlows, History
from pricecache.core.scopes import Scope
from pricecache.core.valuation import CASH, COST, COVERAGE, FIELDS, INDEX, NET_FLOW, VALUE

_SHARES = (INDEX, COVERAGE)
_NOTHING = 0.49
"""Minor units that are no capital, as in the valuation of one portfolio."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A portfolio by `name`. `rates`: float64, one for each day of `found`, what its currency is in that of the total,
    NaN where nobody knows. `found` begins with the portfolio's first day. `scope`: what of it counts. `shown`: its
    values as they are shown, rounded (float64, shape (fields, days)), where the total is to be their sum."""

    name: str
    found: History
    rates: NDArray[np.float64]
    scope: Scope = PORTFOLIO
    shown: NDArray[np.float64] | None = None

    @property
    def place(self) -> int:
        return self.found.scopes.index(self.scope)


def total(parts: Sequence[Part], currency: str) -> History:
    """All of `parts`, of which each ends on the same day, as a history with a scope `(name, None)` for each.

    Money is turned at the rate of its day. A day before a part begins has nothing of it. The index is what a portfolio
    of all parts would have: sum of (V + outflow) r over sum of V previous r previous + inflow r, chained, with gross
    flows, so that the total of one part is its own index. A part without a rate is left out; on the day it gets its
    first, its worth comes in.
    """
    start = min(part.found.start for part in parts)
    days = max(part.found.end for part in parts) - start + 1
    scopes: tuple[Scope, ...] = (PORTFOLIO, *((part.name, None) for part in parts))
    values = np.zeros((len(FIELDS), len(scopes), days))
    estimated = np.zeros((len(scopes), days), np.bool_)
    flows = np.zeros((2, len(scopes), days))
    values[INDEX] = values[COVERAGE] = 1.0
    before, after = np.zeros((2, days))
    for row, part in enumerate(parts, 1):
        low = part.found.start - start
        values[:, row, low:] = _turned(part)
        estimated[row, low:] = part.found.estimated[part.place]
        capital = _Capital.of(part)
        before[low:] += capital.before
        after[low:] += capital.after
        flows[:, row, low:] = capital.flows
    _add_up(values)
    values[INDEX, 0] = _chained(before, after, _NOTHING * 10.0 ** -digits(currency))
    estimated[0] = estimated[1:].any(axis=0)
    flows[:, 0] = flows[:, 1:].sum(axis=1)
    return History(currency, start, scopes, values, estimated, {}, (), GrossFlows(start, *flows))


def _turned(part: Part) -> NDArray[np.float64]:
    own = part.found.values[:, part.place] if part.shown is None else part.shown
    money = own * part.rates
    for share in _SHARES:
        money[share] = own[share]
    return money


@dataclass(frozen=True, slots=True, eq=False)
class _Capital:
    """Of one part by day, in the total's currency: what a link divides by and what it divides; in- and outflow."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    flows: NDArray[np.float64]

    @classmethod
    def of(cls, part: Part) -> _Capital:
        rates = part.rates
        worth = np.nan_to_num(part.found.of(VALUE, part.scope))
        inflow, outflow = _flows(part)
        earlier = np.concatenate([rates[:1], rates[:-1]])
        earlier = np.where(np.isnan(earlier), rates, earlier)
        had = np.concatenate([[0.0], worth[:-1]]) * earlier + inflow * rates
        found = np.array([had, (worth + outflow) * rates, inflow * rates, outflow * rates])
        found[:, np.isnan(rates)] = 0.0
        return cls(found[0], found[1], found[2:])


def _flows(part: Part) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In- and outflow. Where only rows were kept, the net flow, and what lets its own links stand."""
    found, scope = part.found, part.scope
    if found.gross is not None:
        return found.gross.of(part.place, found.start, found.days)
    net, worth = np.nan_to_num(found.of(NET_FLOW, scope)), np.nan_to_num(found.of(VALUE, scope))
    inflow = np.maximum(net, 0.0)
    had = np.concatenate([[0.0], worth[:-1]]) + inflow
    links = _links(found.of(INDEX, scope))
    return inflow, np.where(np.isnan(links), np.maximum(-net, 0.0), links * had - worth)


def _links(index: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each day's index is to the last defined one before it; NaN where it is not defined."""
    at = np.maximum.accumulate(np.where(np.isnan(index), -1, np.arange(len(index))))
    carried = np.where(at < 0, 1.0, index[np.maximum(at, 0)])
    earlier = np.concatenate([[1.0], carried[:-1]])
    return np.divide(index, earlier, out=np.full(len(index), np.nan), where=earlier > 0)


def _chained(had: NDArray[np.float64], has: NDArray[np.float64], nothing: float) -> NDArray[np.float64]:
    """The index as `valuation` links it: nothing to nothing is 1, and without capital there is none that day."""
    empty = (np.abs(had) < nothing) & (np.abs(has) < nothing)
    undefined = ((had < nothing) | (has < -nothing)) & ~empty
    defined = ~(empty | undefined)
    links = np.divide(np.maximum(has, 0.0), had, out=np.ones(len(had)), where=defined)
    return np.where(undefined, np.nan, np.cumprod(links))


def _add_up(values: NDArray[np.float64]) -> None:
    """Value and cash are of what is known; any other total is unknown as soon as one part of it is."""
    for field in range(len(FIELDS)):
        if field in _SHARES:
            continue
        parts = values[field, 1:]
        unknown = np.isnan(parts)
        lost = unknown.any(axis=0)
        if field == VALUE:  # what is worth nothing is no part of what is known
            lost &= (unknown | (parts == 0)).all(axis=0)
        elif field == CASH:
            lost = unknown.all(axis=0)
        values[field, 0] = np.where(lost, np.nan, np.nansum(parts, axis=0))
    weights = np.abs(np.nan_to_num(values[COST, 1:]))
    whole = weights.sum(axis=0)
    covered = (np.nan_to_num(values[COVERAGE, 1:]) * weights).sum(axis=0)
    np.divide(covered, whole, out=values[COVERAGE, 0], where=whole > 0)
