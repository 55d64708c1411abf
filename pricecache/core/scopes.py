"""Scopes of a history, and the order everything in them is summed in: by scope, account, instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.instruments import Instrument

Scope = tuple[str | None, Instrument | None]
"""(account, instrument), None for all of them: (None, None) is the portfolio."""
By = Literal["account", "position", "instrument"]
Key = tuple[str, Instrument | None]
"""Account and instrument of a position; no instrument is what concerns the account alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Which scope and row each position belongs to.

    `scopes`: in order. `of`: int64, shape (positions,), the scope of each by number; `of_balance`: the same of balances
    of cash. `shown`: int64, the positions that have a row, by row; `row_of`: int64, shape (positions,), -1 for those
    that have none. `instruments`: of the rows. `bounds`: the rows
    of each scope, from and up to.
    """

    scopes: tuple[Scope, ...]
    of: NDArray[np.int64]
    of_balance: list[int]
    shown: NDArray[np.int64]
    row_of: NDArray[np.int64]
    instruments: tuple[Instrument, ...]
    bounds: list[tuple[int, int]]


def grouped(keys: Sequence[Key], balances: Sequence[tuple[str, str]], by: By) -> Groups:
    """`keys`: of positions, each once. `balances`: account and currency."""
    of_positions = _scopes(keys, by)
    of_cash = _scopes([(account, None) for account, _ in balances], by)
    scopes = sorted({*of_positions, *of_cash}, key=_order)
    number = {scope: i for i, scope in enumerate(scopes)}
    group_of = np.array([number[scope] for scope in of_positions], np.int64)
    shown = _in_order(keys, by)
    rows = np.array(shown, np.int64)
    row_of = np.full(len(keys), -1, np.int64)
    row_of[rows] = np.arange(len(shown))
    bounds = group_of[rows].searchsorted(np.arange(len(scopes) + 1)).tolist()
    instruments = tuple([name for name in [keys[index][1] for index in shown] if name is not None])
    of_balance = [number[scope] for scope in of_cash]
    return Groups(tuple(scopes), group_of, of_balance, rows, row_of, instruments, list(pairwise(bounds)))


def _scopes(keys: Sequence[Key], by: By) -> Sequence[Scope]:
    if by == "account":
        known: dict[str, Scope] = {account: (account, None) for account, _ in keys}
        return [known[account] for account, _ in keys]
    if by == "instrument":
        return [(None, instrument) if instrument is not None else ("", None) for _, instrument in keys]
    return list(keys)


def _in_order(keys: Sequence[Key], by: By) -> list[int]:
    """Positions by account and instrument, or the other way round where that is the order of the scopes. Two sorts by
    few strings are several times faster than one by tuples within tuples."""
    rows = [(key[1][0], key[1][1], key[0], i) for i, key in enumerate(keys) if key[1] is not None]
    rows.sort()
    if by != "instrument":
        rows.sort(key=itemgetter(2))
    return [row[3] for row in rows]


def _order(scope: Scope) -> tuple[str, tuple[str, ...]]:
    account, instrument = scope
    return account or "", tuple(instrument or ())
