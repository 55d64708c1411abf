"""Bars as columns: packing loses nothing, merging takes nothing away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.bars import (
    MANUAL,
    Bars,
    Provenance,
    concatenate,
    concatenate_provenance,
    day_number,
    day_of,
    merge,
    pack_bars,
    pack_provenance,
    unpack_blocks,
    unpack_provenance,
    years_of,
)
from pricecache.errors import Corrupt

prices = st.floats(1e-4, 1e7)


@st.composite
def some_bars(draw: st.DrawFn, most: int = 30) -> Bars:
    sessions = sorted(draw(st.sets(st.integers(-3000, 40_000), max_size=most)))
    closes = draw(st.lists(prices, min_size=len(sessions), max_size=len(sessions)))
    unknown = draw(st.lists(st.booleans(), min_size=len(sessions), max_size=len(sessions)))
    close = np.array(closes)
    other = np.where(unknown, np.nan, close)
    return Bars.of(sessions, np.array([other, other, other, close, other]))


def nobody(bars: Bars, source: str = "test", flags: int = 0) -> Provenance:
    return Provenance.uniform(len(bars), source, 1, flags)


def equal(a: Bars, b: Bars) -> bool:
    return np.array_equal(a.sessions, b.sessions) and np.array_equal(a.values, b.values, equal_nan=True)


@given(some_bars())
def test_packing_is_exact(bars: Bars) -> None:
    assert equal(unpack_blocks([pack_bars(bars)]), bars)


@given(some_bars(), st.integers(0, 30))
def test_consecutive_blocks_unpack_to_the_whole(bars: Bars, cut: int) -> None:
    parts = [Bars(bars.sessions[:cut], bars.values[:, :cut]), Bars(bars.sessions[cut:], bars.values[:, cut:])]
    assert equal(unpack_blocks([pack_bars(part) for part in parts]), bars)
    assert equal(concatenate(parts), bars)


def test_a_block_without_whole_rows_is_corrupt() -> None:
    with pytest.raises(Corrupt):
        unpack_blocks([b"\0" * 40])
    with pytest.raises(Corrupt):
        unpack_provenance(b"\0" * 11, ("a",))


def test_provenance_packs_and_joins() -> None:
    one, two = Provenance.uniform(3, "a", 5), Provenance.uniform(2, "b", 6, MANUAL)
    both = concatenate_provenance([one, two, Provenance.uniform(1, "a", 7)])
    assert both.names().tolist() == ["a", "a", "a", "b", "b", "a"]
    again = unpack_provenance(pack_provenance(both), both.sources)
    assert again.fetched_at.tolist() == [5, 5, 5, 6, 6, 7]
    assert again.flags.tolist() == [0, 0, 0, 1, 1, 0]


def test_of_several_rows_for_one_session_the_last_stands() -> None:
    bars = Bars.of([5, 3, 5], np.array([[1.0, 2.0, 9.0]] * 5))
    assert bars.sessions.tolist() == [3, 5]
    assert bars.close.tolist() == [2.0, 9.0]


@given(some_bars(), some_bars())
def test_merging_keeps_every_session_of_both(held: Bars, new: Bars) -> None:
    merged = merge(held, nobody(held), new, "other", 2)
    assert merged.bars.sessions.tolist() == sorted({*held.sessions.tolist(), *new.sessions.tolist()})
    assert len(merged.provenance.source) == len(merged.bars)
    assert set(merged.rows.sessions.tolist()) == {*merged.added.tolist(), *merged.replaced.tolist()}


@given(some_bars(), some_bars())
def test_merging_twice_changes_nothing_the_second_time(held: Bars, new: Bars) -> None:
    once = merge(held, nobody(held), new, "other", 2)
    again = merge(once.bars, once.provenance, new, "other", 3)
    assert not again.changed
    assert equal(again.bars, once.bars)


@given(some_bars())
def test_what_a_vendors_float32_did_to_a_price_is_no_change(held: Bars) -> None:
    rounded = Bars(held.sessions, held.values.astype(np.float32).astype(np.float64))
    assert not merge(held, nobody(held), rounded, "other", 2).changed


@given(some_bars(), some_bars())
def test_unknown_never_replaces_known_and_manual_is_never_replaced(held: Bars, new: Bars) -> None:
    provider = merge(held, nobody(held), new, "other", 2)
    known_before = {(s, i) for i in range(5) for s, v in zip(held.sessions, held.values[i], strict=True) if v == v}
    after = dict(zip(provider.bars.sessions.tolist(), provider.bars.values.T, strict=True))
    assert all(np.isfinite(after[int(s)][i]) for s, i in known_before)
    over_manual = merge(held, nobody(held, "me", MANUAL), new, "other", 2)
    assert len(over_manual.replaced) == 0


@given(some_bars())
def test_a_manual_bar_takes_the_place_of_an_equal_one_of_a_provider(held: Bars) -> None:
    merged = merge(held, nobody(held), held, "me", 2, MANUAL)
    assert merged.replaced.tolist() == held.sessions.tolist()
    assert (merged.provenance.flags == MANUAL).all()


@given(st.dates())
def test_day_numbers_go_both_ways_and_know_their_year(day) -> None:  # type: ignore[no-untyped-def]
    number = day_number(day)
    assert day_of(number) == day
    assert years_of(np.array([number]))[0] == day.year


def test_between_includes_both_ends() -> None:
    bars = Bars.of(range(10, 20), np.ones((5, 10)))
    assert bars.between(12, 15).sessions.tolist() == [12, 13, 14, 15]
    assert bars.between(None, 11).sessions.tolist() == [10, 11]
    assert len(bars.between(30, 40)) == 0
