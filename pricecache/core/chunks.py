"""How a history is cut up to be kept: whole years once they are over, months while their year goes on; and put together
again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import day_number, day_of
from pricecache.core.history import GrossFlows, History
from pricecache.core.scopes import Scope
from pricecache.core.valuation import CASH, COVERAGE, FIELDS, INDEX


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The days from `first` to `last`, both included, days since 1970-01-01, of one year or of one month."""

    first: int
    last: int


def spans(first: int, last: int) -> list[Span]:
    """What the days from `first` to `last` are cut into, oldest first: years that end by `last`, then months."""
    found: list[Span] = []
    day = first
    while day <= last:
        year = day_of(day).year
        end = day_number(date(year, 12, 31))
        if end <= last:
            found.append(Span(day, end))
        else:
            found += _months(day, last)
            return found
        day = end + 1
    return found


def _months(day: int, last: int) -> list[Span]:
    found = []
    while day <= last:
        of = day_of(day)
        following = date(of.year + of.month // 12, of.month % 12 + 1, 1)
        end = min(day_number(following) - 1, last)
        found.append(Span(day, end))
        day = end + 1
    return found


def between(whole: History, first: int, last: int) -> History:
    """The days from `first` to `last`, both included, which are all in `whole`; as views, without checkpoints."""
    days = np.s_[..., first - whole.start : last + 1 - whole.start]
    return replace(whole, start=first, values=whole.values[days], estimated=whole.estimated[days], checkpoints={})


def joined(parts: Sequence[History], cash_tracking: bool) -> History:
    """Histories of one portfolio that follow upon each other, as one, with the checkpoints of all.

    It has the scopes of the last: an account that came later has nothing in the days before, one that is gone is left
    out. `faults` are those of the last. `cash_tracking`: whether nothing means no cash, or that nobody knows of any.
    """
    last = parts[-1]
    if len(parts) == 1:
        return last
    scopes = last.scopes
    alike = [aligned(part, scopes, cash_tracking) for part in parts]
    values = np.concatenate([part.values for part in alike], axis=2)
    estimated = np.concatenate([part.estimated for part in alike], axis=1)
    checkpoints = {day: point for part in parts for day, point in part.checkpoints.items()}
    flows = np.concatenate([_flows(part) for part in alike], axis=2)
    gross = GrossFlows(parts[0].start, flows[0], flows[1])
    return History(last.currency, parts[0].start, scopes, values, estimated, checkpoints, last.faults, gross)


def with_flows(whole: History) -> NDArray[np.float64]:
    """Its values, and behind them in- and outflow as two more fields: float64, shape (fields + 2, scopes, days)."""
    return np.concatenate([whole.values, _flows(whole)])


def _flows(part: History) -> NDArray[np.float64]:
    assert part.gross is not None
    low = part.start - part.gross.start
    return np.array([part.gross.inflow, part.gross.outflow])[:, :, low : low + part.days]


def aligned(part: History, scopes: tuple[Scope, ...], cash_tracking: bool) -> History:
    """With these scopes: one it has not had nothing on its days."""
    if part.scopes == scopes:
        return part
    place = {scope: number for number, scope in enumerate(part.scopes)}
    values = np.zeros((len(FIELDS), len(scopes), part.days))
    values[INDEX] = values[COVERAGE] = 1.0
    if not cash_tracking:
        values[CASH] = np.nan
    estimated = np.zeros((len(scopes), part.days), np.bool_)
    flows, old = np.zeros((2, len(scopes), part.days)), _flows(part)
    for number, scope in enumerate(scopes):
        if scope in place:
            values[:, number] = part.values[:, place[scope]]
            estimated[number] = part.estimated[place[scope]]
            flows[:, number] = old[:, place[scope]]
    gross = GrossFlows(part.start, flows[0], flows[1])
    return replace(part, scopes=scopes, values=values, estimated=estimated, gross=gross)
