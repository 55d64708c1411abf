"""A broker's split: which of the market's it is, on which day it takes effect, and what its count of shares means."""

from __future__ import annotations

from decimal import Decimal as D
from fractions import Fraction

import numpy as np
import pytest

from pricecache.core.walk.pairs import SplitRows
from pricecache.core.walk.splits import SplitRow, beside_the_market, by_themselves, decide

TWO = Fraction(2)


def said(day: int, quantity: str = "0", ratio: str | None = None) -> SplitRows:
    return SplitRows(day, D(quantity), D(0), "USD", D(ratio) if ratio is not None else None, (0,))


@pytest.mark.parametrize(
    ("quantity", "ratio", "after", "expected"),
    [
        ("0", "3", "20", ("3", None, None)),  # without a count what is stated counts
        ("10", "3", "20", ("2", "10", None)),  # the count is the market's
        ("14", "3", "21", ("3", "7", None)),  # the count is what is stated
        ("7", "3", "20", ("2", None, "split_differs")),  # neither: as the prices did
        ("7", None, "20", ("2", None, "split_differs")),
        ("11", None, "21", ("2", None, "split_differs")),  # one whole share too many is no fraction
        ("12", None, "22", ("2", None, "split_differs")),
        ("10.5", None, "21", ("2", "10.5", None)),
        ("10.8", None, "21", ("2", "10.2", None)),  # less than a share, where what is left is whole
        ("10.8", None, "21.2", ("2", None, "split_differs")),
        ("-3", None, "0", ("2", None, "split_unexplained")),
    ],
)
def test_a_count_is_read_by_the_ratio_it_fits(
    quantity: str, ratio: str | None, after: str, expected: tuple[str, str | None, str | None]
) -> None:
    row = SplitRow(said(10, quantity, ratio), (10, TWO), is_near=True, may_take_its_day=True)
    found, engine = decide(row, D(after), None).applied(D(after))
    assert (found.ratio, found.before, found.code) == (
        D(expected[0]),
        D(expected[1]) if expected[1] is not None else None,
        expected[2],
    )
    assert engine == Fraction(expected[0])


@pytest.mark.parametrize(("after", "ratio"), [("999999", "999999"), ("1000000", None), ("0.000001", None)])
def test_a_count_alone_makes_a_ratio_within_a_million(after: str, ratio: str | None) -> None:
    found, _ = decide(SplitRow(said(10, str(D(after) - 1))), D(after), None).applied(D(after))
    assert found.ratio == (D(ratio) if ratio is not None else None)
    assert found.code == ("split_unexplained" if ratio is None else None)


@pytest.mark.parametrize(
    ("quantity", "ratio", "moved", "day"),
    [
        ("10", None, None, 12),  # nothing moved between: its own day
        ("10", None, "-5", 12),  # 20 of its own day, 25 of the market's
        ("12.5", None, "-5", 10),
        ("0", None, "-5", 10),
        ("12.5", "3", "-5", 12),  # another ratio is of its own day
        ("12.5", "2", "-5", 10),
    ],
)
def test_trades_between_tell_the_day(quantity: str, ratio: str | None, moved: str | None, day: int) -> None:
    row = SplitRow(said(12, quantity, ratio), (10, TWO), is_near=True, may_take_its_day=True)
    assert decide(row, D(20), D(moved) if moved is not None else None).day == day


@pytest.mark.parametrize(
    ("day", "ratio", "is_near"),
    [(15, None, True), (16, None, None), (16, "2", False), (16, "3", None), (30, "2", False), (31, "2", None)],
)
def test_a_row_is_the_markets_within_five_sessions_or_with_its_ratio_within_twenty_days(
    day: int, ratio: str | None, is_near: bool | None
) -> None:
    calendar = np.arange(0, 100, dtype=np.int64)
    (found,) = beside_the_market([said(day, "0", ratio)], [(10, TWO)], calendar, 1, 50)
    assert (found.is_near if found.market is not None else None) is is_near
    assert by_themselves([found], [(10, TWO)]) == ({10: TWO} if is_near is None else {})
