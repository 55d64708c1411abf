"""Scopes of a history, and the order everything in them is summed in: by scope, account, instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    that have none. `bounds`: the rows of each scope, from and up to.
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
    named = [_scope(account, instrument, by) for account, instrument in keys]
    of_cash = [_scope(account, None, by) for account, _ in balances]
    scopes = sorted({*named, *of_cash}, key=_order)
    number = {scope: i for i, scope in enumerate(scopes)}
    of = [number[scope] for scope in named]
    shown = sorted([(of[i], key[0], key[1], i) for i, key in enumerate(keys) if key[1] is not None])
    indices = np.array([i for *_, i in shown], np.int64)
    row_of = np.full(len(keys), -1, np.int64)
    row_of[indices] = np.arange(len(shown))
    group_of = np.array(of, np.int64)
    bounds = np.searchsorted(group_of[indices], np.arange(len(scopes) + 1)).tolist()
    return Groups(
        tuple(scopes), group_of, [number[scope] for scope in of_cash], indices, row_of,
        tuple([name for _, _, name, _ in shown if name is not None]), list(pairwise(bounds)),
    )  # fmt: skip


def _scope(account: str, instrument: Instrument | None, by: By) -> Scope:
    if by == "account":
        return account, None
    if by == "instrument":
        return (None, instrument) if instrument is not None else ("", None)
    return account, instrument


def _order(scope: Scope) -> tuple[str, tuple[str, ...]]:
    account, instrument = scope
    return account or "", tuple(instrument or ())
