"""Rows captured over rows captured before: final ones stay, by portfolio and accounts, wherever they stand now."""

from __future__ import annotations

import numpy as np
import pytest

from pricecache.portfolio.snapshot_kept import aligned, kept_over
from pricecache.stores.snapshots import CLOSED, FINAL, KNOWN, DayRows, Roster

BEFORE, NOW = 100, 200
DONE, OPEN = KNOWN | CLOSED | FINAL, KNOWN | CLOSED
OWN = Roster(("a", "b"), (("",), ("x", "y")))
"""Five scopes: each portfolio before its accounts."""


def rows(values: list[float], flags: list[int], at: int, *, roster: int = 1, version: int = 0) -> DayRows:
    """Value, cash and cost alike."""
    return DayRows(
        0, 20_000, version, roster, np.tile(np.array(values), (3, 1)), np.array(flags, np.uint8),
        np.full(len(flags), at),
    )  # fmt: skip


def test_final_rows_stay_and_others_are_captured_anew() -> None:
    before = rows([1, 1, 2, 1, 1], [DONE, OPEN], BEFORE, version=4)
    found = kept_over(rows([5, 5, 6, 3, 3], [DONE, DONE], NOW), OWN, before, None, is_again=False)
    assert found.values[0].tolist() == [1, 1, 6, 3, 3]
    assert (found.flags.tolist(), found.at.tolist(), found.version) == ([DONE, DONE], [BEFORE, NOW], 4)


@pytest.mark.parametrize("flag", [DONE, OPEN], ids=["final", "provisional"])
def test_what_is_captured_again_is_replaced_where_it_is_another(flag: int) -> None:
    before = rows([1, 1, 2, 1, 1], [DONE, DONE], BEFORE, version=4)
    found = kept_over(rows([1.004, 1, 2, 1.5, 0.5], [flag, DONE], NOW), OWN, before, None, is_again=True)
    assert found.values[0, 2:].tolist() == [2, 1.5, 0.5]
    assert found.at.tolist() == [BEFORE if flag == DONE else NOW, NOW]


def test_rows_are_found_by_portfolio_when_others_came_or_went() -> None:
    roster = Roster(("b", "gone", "a"), (("x", "y"), ("",), ("",)))
    before = rows([9, 8, 1, 7, 7, 3, 3], [DONE, DONE, DONE], BEFORE)
    found = kept_over(rows([5, 5, 6, 3, 3], [DONE, DONE], NOW, roster=2), OWN, before, roster, is_again=False)
    assert found.values[0].tolist() == [3, 3, 9, 8, 1]
    assert (found.at.tolist(), found.roster) == ([BEFORE, BEFORE], 2)


def test_a_portfolio_with_other_accounts_has_nothing_of_before() -> None:
    roster = Roster(("a", "b"), (("",), ("x",)))
    before = rows([9, 9, 4, 4], [DONE, DONE], BEFORE)
    found = aligned(before, roster, OWN)
    assert found.values[0, :2].tolist() == [9, 9]
    assert np.isnan(found.values[0, 2:]).all()
    assert found.flags.tolist() == [DONE, 0]


def test_rows_of_nobody_knows_whom_are_replaced() -> None:
    before = rows([9, 9, 4, 4], [DONE, DONE], BEFORE, version=2)
    found = kept_over(rows([5, 5, 6, 3, 3], [DONE, DONE], NOW, roster=2), OWN, before, None, is_again=False)
    assert (found.values[0].tolist(), found.version) == ([5, 5, 6, 3, 3], 2)


def test_rows_of_an_empty_block_are_none() -> None:
    nobody = Roster((), ())
    found = kept_over(
        rows([], [], NOW, roster=2), nobody, rows([9, 9], [DONE], BEFORE), Roster(("a",), (("",),)), is_again=True
    )
    assert (found.values.shape, len(found.flags)) == ((3, 0), 0)
