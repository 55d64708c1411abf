"""Words from elsewhere stay short and on one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.text import plain_text


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("No data found, symbol may be delisted", "No data found, symbol may be delisted"),
        ("  two\n\n lines\t", "two lines"),
        ("a\x1b[31mred\x00", "a [31mred"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("naïve 価格", "naïve 価格"),
        ("", ""),
    ],
)
def test_what_cannot_be_shown_is_a_space_and_spaces_are_one(said: str, kept: str) -> None:
    assert plain_text(said) == kept


@given(st.text(st.characters(), max_size=400), st.integers(1, 80))
def test_it_is_never_longer_than_asked_and_stays_as_it_is_the_second_time(said: str, longest: int) -> None:
    once = plain_text(said, longest)
    assert len(once) <= longest
    assert once.isprintable()
    assert plain_text(once, longest) == once.rstrip()
