"""ISIN, CUSIP and SEDOL: right ones are believed, and no single wrong digit is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.broker.identifiers import (
    cusip_in_isin,
    cusip_of,
    isin_of,
    isins_of_cusip,
    sedol_in_isin,
    sedol_of,
)


@pytest.mark.parametrize(
    ("text", "isin"),
    [
        ("US0378331005", "US0378331005"),
        (" us 0378331005", "US0378331005"),
        ("GB0002634946", "GB0002634946"),
        ("DE0007164600", "DE0007164600"),
        ("US0378331006", None),
        ("US037833100", None),
        ("", None),
        (None, None),
        ("X" * 1000, None),
    ],
)
def test_an_isin_is_believed_by_its_check_digit(text: str | None, isin: str | None) -> None:
    assert isin_of(text) == isin


def test_a_cusip_leads_to_the_isins_it_can_be_in_and_back() -> None:
    assert cusip_of("037833100") == "037833100"
    assert isins_of_cusip("037833100") == ("US0378331005", "CA0378331007")
    assert cusip_in_isin("US0378331005") == "037833100"
    assert cusip_in_isin("DE0007164600") is None
    assert cusip_of("037833101") is None
    assert cusip_of("G0177J108") == "G0177J108"
    assert isins_of_cusip("G0177J108") == ()


def test_a_sedol_is_in_the_isins_of_two_countries() -> None:
    assert sedol_of("0263494") == "0263494"
    assert sedol_of("B0YBKJ7") == "B0YBKJ7"
    assert sedol_of("AEIOUA7") is None
    assert sedol_in_isin("GB0002634946") == "0263494"
    assert sedol_in_isin("US0378331005") is None


@given(st.integers(2, 11), st.integers(1, 9))
def test_a_wrong_digit_makes_an_isin_none(place: int, by: int) -> None:
    right = "US0378331005"
    wrong = right[:place] + str((int(right[place]) + by) % 10) + right[place + 1 :]
    assert isin_of(wrong) is None


@given(st.text(max_size=40))
def test_anything_can_be_asked(text: str) -> None:
    assert isin_of(text) in (None, text.replace(" ", "").replace("-", "").upper())
    cusip_of(text)
    sedol_of(text)
