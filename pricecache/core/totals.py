"""Several portfolios as one history: their rounded worth added up in one currency, their returns by capital."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.history import PORTFOLIO, History
from pricecache.core.valuation import CASH, COST, COVERAGE, FIELDS, INDEX, NET_FLOW, VALUE, Scope

_SHARES = (INDEX, COVERAGE)
_PARTLY_KNOWN = (VALUE, CASH)
"""Fields whose total is of what is known; that of any other is unknown as soon as one part of it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A portfolio by `name`. `rates`: float64, one for each day of `found`, what its currency is in that of the total,
    NaN where nobody knows."""

    name: str
    found: History
    rates: NDArray[np.float64]


def total(parts: Sequence[Part], currency: str) -> History:
    """All of `parts`, of which each ends on the same day, as a history with a scope `(name, None)` for each.

    Money is turned at the rate of its day. A day before a part begins has nothing of it. The index links, day by day,
    what the capital of all came to: sum of L (V previous + inflow) r over sum of V previous r previous + inflow r, with
    L the part's own link and the inflow what its flows of a day come to. What has no value or rate is left out of it.
    """
    start = min(part.found.start for part in parts)
    days = max(part.found.end for part in parts) - start + 1
    scopes: tuple[Scope, ...] = (PORTFOLIO, *((part.name, None) for part in parts))
    values = np.zeros((len(FIELDS), len(scopes), days))
    estimated = np.zeros((len(scopes), days), np.bool_)
    values[INDEX] = values[COVERAGE] = 1.0
    before, after = np.zeros((2, days))
    for row, part in enumerate(parts, 1):
        low = part.found.start - start
        own = part.found.values[:, part.found.scopes.index(PORTFOLIO)]
        money = own * part.rates
        for share in _SHARES:
            money[share] = own[share]
        values[:, row, low:] = money
        estimated[row, low:] = part.found.estimated[part.found.scopes.index(PORTFOLIO)]
        came, went = _linked(own, part.rates)
        before[low:] += came
        after[low:] += went
    _add_up(values)
    values[INDEX, 0] = np.cumprod(np.divide(after, before, out=np.ones(days), where=before > 0))
    estimated[0] = estimated[1:].any(axis=0)
    return History(currency, start, scopes, values, estimated, {}, ())


def _linked(own: NDArray[np.float64], rates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    index, worth, flow = own[INDEX], np.nan_to_num(own[VALUE]), np.maximum(own[NET_FLOW], 0.0)
    known = np.where(np.isnan(index), 0.0, index)
    held = np.maximum.accumulate(np.where(np.isnan(index), -1, np.arange(len(index))))
    carried = np.where(held < 0, 1.0, known[np.maximum(held, 0)])
    earlier = np.concatenate([[1.0], carried[:-1]])
    link = np.divide(index, earlier, out=np.full(len(index), np.nan), where=earlier > 0)
    worth_before = np.concatenate([[0.0], worth[:-1]])
    rates_before = np.concatenate([rates[:1], rates[:-1]])
    came = worth_before * rates_before + flow * rates
    went = link * (worth_before + flow) * rates
    usable = np.isfinite(came) & np.isfinite(went) & (came > 0)
    return np.where(usable, came, 0.0), np.where(usable, went, 0.0)


def _add_up(values: NDArray[np.float64]) -> None:
    for field in range(len(FIELDS)):
        if field in _SHARES:
            continue
        parts = values[field, 1:]
        unknown = np.isnan(parts)
        lost = unknown.all(axis=0) if field in _PARTLY_KNOWN else unknown.any(axis=0)
        values[field, 0] = np.where(lost, np.nan, np.nansum(parts, axis=0))
    weights = np.abs(np.nan_to_num(values[COST, 1:]))
    whole = weights.sum(axis=0)
    covered = (np.nan_to_num(values[COVERAGE, 1:]) * weights).sum(axis=0)
    np.divide(covered, whole, out=values[COVERAGE, 0], where=whole > 0)
