"""The edge of the engine: numbers rounded once, totals as sums of what is shown, and why a field is null."""

from __future__ import annotations

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
_REASONS = {VALUE: "no_price", INDEX: "no_capital"}
_UNKNOWN = "rate_unknown"


def rounded(history: History) -> NDArray[np.float64]:
    """`history.values` with money in whole minor units of the currency: float64, (fields, scopes, days).

    Accounts are rounded half to even; the portfolio is the sum of its rounded accounts, and a total gain the sum of
    realised and unrealised as shown. NaN stays NaN; there is no -0.0.
    """
    places = digits(history.currency)
    values = history.values.copy()
    money = [field for field in range(len(FIELDS)) if field not in _NOT_MONEY]
    for field in money:
        parts = np.round(values[field, 1:], places)
        values[field, 1:] = parts
        total = np.round(np.nansum(parts, axis=0), places)
        values[field, 0] = np.where(np.isnan(history.values[field, 0]), np.nan, total)
    values[GAIN] = np.round(values[REALIZED] + values[UNREALIZED], places)
    return values + 0.0


def rows(history: History, scope: Scope = PORTFOLIO, values: NDArray[np.float64] | None = None) -> list[dict[str, Any]]:
    """One dictionary a day, oldest first: `day`, every field (None where NaN), `estimated`, and `reasons` of what is
    None, by field. `values`: from `rounded`, when it was called before."""
    place = history.scopes.index(scope)
    shown = (rounded(history) if values is None else values)[:, place]
    columns = {name: _plain(shown[number]) for number, name in enumerate(FIELDS)}
    estimated = history.estimated[place].tolist()
    nulls = np.isnan(shown)
    usual = {"cash": "cash_not_tracked"} if nulls[CASH].all() else {}
    found = []
    for column, (day, *fields) in enumerate(zip(range(history.start, history.end + 1), *columns.values(), strict=True)):
        row = {"day": day, **dict(zip(FIELDS, fields, strict=True)), "estimated": estimated[column]}
        row["reasons"] = {**_reasons(nulls[:, column]), **usual}
        found.append(row)
    return found


def reason_of(field: int) -> str:
    """Why a field of a day is null."""
    return _REASONS.get(field, _UNKNOWN)


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _reasons(nulls: NDArray[np.bool_]) -> dict[str, str]:
    return {FIELDS[field]: reason_of(field) for field in np.flatnonzero(nulls).tolist()}
