"""The edge of the engine: numbers rounded once, totals as sums of what is shown, and why a field is null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.currencies import digits
from pricecache.core.history import PORTFOLIO, History
from pricecache.core.valuation import (
    CASH,
    COVERAGE,
    FIELDS,
    GAIN,
    INDEX,
    REALIZED,
    UNREALIZED,
    VALUE,
    Scope,
)  # fmt: skip

_NOT_MONEY = (INDEX, COVERAGE)
_REASONS = {
    VALUE: "no_price_or_rate",
    UNREALIZED: "no_price_or_rate",
    GAIN: "no_price_or_rate",
    INDEX: "no_capital",
}
_UNKNOWN = "rate_unknown"


def rounded(history: History) -> NDArray[np.float64]:
    """`history.values` with money in whole minor units of the currency: float64, (fields, scopes, days).

    Accounts are rounded half to even; the portfolio is the sum of its rounded accounts, and a total gain the sum of
    realised and unrealised as shown. NaN stays NaN; there is no -0.0. Where nothing has a value, nobody knows a gain.
    """
    places = digits(history.currency)
    values = history.values.copy()
    money = [field for field in range(len(FIELDS)) if field not in _NOT_MONEY]
    for field in money:
        _round(values[field], places)
    values[UNREALIZED][np.isnan(values[VALUE])] = np.nan
    values[GAIN] = np.round(values[REALIZED] + values[UNREALIZED], places)
    return values + 0.0


def rounded_values(history: History) -> NDArray[np.float64]:
    """Only what it is worth, as `rounded` has it: float64, (scopes, days)."""
    values = history.values[VALUE].copy()
    _round(values, digits(history.currency))
    return values + 0.0


def _round(values: NDArray[np.float64], places: int) -> None:
    np.round(values[1:], places, out=values[1:])
    total = np.round(np.nansum(values[1:], axis=0), places)
    values[0] = np.where(np.isnan(values[0]), np.nan, total)


def rows(history: History, scope: Scope = PORTFOLIO, values: NDArray[np.float64] | None = None) -> list[dict[str, Any]]:
    """One dictionary a day, oldest first: `day`, every field (None where NaN), `estimated`, and `reasons` of what is
    None, by field. `values`: from `rounded`, when it was called before."""
    place = history.scopes.index(scope)
    shown = (rounded(history) if values is None else values)[:, place]
    columns = {name: _plain(shown[number]) for number, name in enumerate(FIELDS)}
    estimated = history.estimated[place].tolist()
    usual = {"cash": "cash_not_tracked"} if np.isnan(shown[CASH]).all() else {}
    said = notes(shown, history.estimated[place], tracks_cash=not usual)
    found = []
    for column, (day, *fields) in enumerate(zip(range(history.start, history.end + 1), *columns.values(), strict=True)):
        row = {"day": day, **dict(zip(FIELDS, fields, strict=True)), "estimated": estimated[column]}
        row["reasons"] = {**{FIELDS[one.field]: one.code for one in said if one.on[column]}, **usual}
        found.append(row)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Note:
    """What there is to say of a `field` on some days. `on`: bool, shape (days,)."""

    field: int
    code: str
    on: NDArray[np.bool_]


def notes(shown: NDArray[np.float64], estimated: NDArray[np.bool_], *, tracks_cash: bool) -> list[Note]:
    """Why fields of one scope are null; where a value is of less than all there is (`some_values_unknown`), and where
    cash is owed (`overdrawn`). `shown`: of that scope, rounded: float64, shape (fields, days)."""
    nulls = np.isnan(shown)
    found = [
        Note(field, _REASONS.get(field, _UNKNOWN), nulls[field])
        for field in np.flatnonzero(nulls.any(axis=1)).tolist()
        if field != CASH or tracks_cash
    ]
    partly = partly_valued(shown, estimated) & ~nulls[VALUE]
    overdrawn = shown[CASH] < 0
    found += [Note(VALUE, "some_values_unknown", partly)] if partly.any() else []
    return found + ([Note(CASH, "overdrawn", overdrawn)] if overdrawn.any() else [])


def partly_valued(values: NDArray[np.float64], estimated: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Days on which something held has no price or no rate yet, and so counts in no value: bool, shape (days,)."""
    return np.asarray((values[COVERAGE] < 1) & ~estimated)


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
