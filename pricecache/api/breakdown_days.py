"""What accounts were worth day by day, and their shares, as text: rows, columns, lines of CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pricecache.core.breakdown import AccountDays

_ROW = b'{"date":"%b","totalValue":%b,"share":%b}'
_UNKNOWN = b'{"date":"%b","totalValue":%b,"share":%b,"reasons":%b}'
NO_VALUE, NO_SHARE = "no_price_or_rate", "no_capital"


def dates_of(found: AccountDays) -> list[bytes]:
    days = np.arange(found.start, found.start + found.values.shape[1])
    return [day.encode() for day in days.astype("datetime64[D]").astype(str).tolist()]


def rows_of(found: AccountDays, account: str, dates: Sequence[bytes]) -> orjson.Fragment:
    """The days of one account as JSON: an object each."""
    values, shares = _of(found, account)
    rows = [_ROW % row for row in zip(dates, _tokens(values), _tokens(shares), strict=True)]
    for at in np.flatnonzero(np.isnan(shares)).tolist():
        why = orjson.dumps(_reasons(bool(np.isnan(values[at]))))
        rows[at] = _UNKNOWN % (dates[at], *_tokens(values[at : at + 1]), b"null", why)
    return orjson.Fragment(b"[" + b",".join(rows) + b"]")


def columns_of(found: AccountDays, account: str) -> dict[str, Any]:
    """The same as an array for each field, with the reasons why there is a null in them."""
    values, shares = _of(found, account)
    unknown, unshared = bool(np.isnan(values).any()), bool(np.isnan(shares).any())
    reasons = {**({"share": NO_SHARE} if unshared else {}), **(_reasons(True) if unknown else {})}
    return {"totalValue": values, "share": shares, "reasons": reasons}


def lines_of(found: AccountDays, account: str, dates: Sequence[bytes], before: bytes) -> list[bytes]:
    """The same as CSV, what is unknown left empty; `before` stands at the begin of each line."""
    values, shares = ([b"" if token == b"null" else token for token in _tokens(one)] for one in _of(found, account))
    return [b"%b%b,%b,%b\n" % (before, *row) for row in zip(dates, values, shares, strict=True)]


def _reasons(is_unknown: bool) -> dict[str, str]:
    return {"totalValue": NO_VALUE, "share": NO_VALUE} if is_unknown else {"share": NO_SHARE}


def _of(found: AccountDays, account: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One that was not there yet had nothing."""
    if account in found.accounts:
        at = found.accounts.index(account)
        return np.ascontiguousarray(found.values[at]), np.ascontiguousarray(found.shares[at])
    return np.zeros(found.values.shape[1]), found.no_shares


def _tokens(values: NDArray[np.float64]) -> list[bytes]:
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
