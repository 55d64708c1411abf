"""Kept rows, packed and read again, with what follows them, are what a full run gives, bit for bit."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.core.bars import day_number
from pricecache.core.chunks import Span, joined, spans, with_flows
from pricecache.core.history import GrossFlows, History, history
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.materialised import Materialised, Point, brought_up, gone_on
from pricecache.core.stamps import ALWAYS, NEVER, SeriesFacts, Stamp, doubtful_from
from pricecache.core.valuation import FIELDS
from pricecache.errors import Corrupt
from pricecache.stores.packed_history import pack_rows, unpack_rows
from tests.ledgers import FIRST, LAST, ledgers, markets


def stamp_of(ledger: Ledger, **facts: SeriesFacts | None) -> Stamp:
    return Stamp(1, 1, ledger.rules, facts)


def read_again(kept: Materialised) -> Materialised:
    """As it is after it was stored."""
    found = kept.history
    values, estimated = unpack_rows(pack_rows(with_flows(found), found.estimated), len(found.scopes), found.days)
    gross = GrossFlows(found.start, *values[len(FIELDS) :])
    rows = History(found.currency, found.start, found.scopes, values[: len(FIELDS)], estimated, {}, (), gross)
    return Materialised(kept.stamp, rows, tuple(Point(one.day, one.pack()) for one in kept.points))


def same(a: History, b: History) -> None:
    assert (a.start, a.scopes, a.days) == (b.start, b.scopes, b.days)
    assert np.array_equal(with_flows(a).view(np.uint64), with_flows(b).view(np.uint64))
    assert np.array_equal(a.estimated, b.estimated)


@given(ledgers(), markets(), st.integers(FIRST, LAST), st.integers(0, 20))
@settings(max_examples=150, deadline=None)
def test_what_is_kept_goes_on_with_nothing_but_what_comes_after_it(
    ledger: Ledger, market: MarketData, through: int, more: int
) -> None:
    """Without the rows before its end, and with prices of those instruments only that it or a later row names."""
    kept = brought_up(None, stamp_of(ledger), ledger, market, through, ALWAYS)
    if kept is None:
        return
    kept = read_again(kept)
    rest = Ledger.of([row for row in ledger.transactions if row.day > through], ledger.rules)
    book = kept.points[-1].checkpoint().book
    names = rest.instruments() | {one.instrument for one in book.positions}
    part = MarketData({name: column for name, column in market.prices.items() if name in names}, market.rates)
    later = gone_on(kept, kept.stamp, rest, part, min(through + more, LAST))
    tail = history(rest, part, LAST, since=later.points[-1].checkpoint())
    whole = history(ledger, market, LAST)
    assert whole is not None
    got = later.history if tail is None else joined([later.history, tail], ledger.rules.cash_tracking)
    same(got, whole)


@given(ledgers(), markets(), st.integers(FIRST, LAST), st.integers(FIRST - 1, LAST + 1))
@settings(max_examples=80, deadline=None)
def test_what_is_doubtful_is_computed_again_and_nothing_else(
    ledger: Ledger, market: MarketData, through: int, day: int
) -> None:
    kept = brought_up(None, stamp_of(ledger), ledger, market, through, ALWAYS)
    after = brought_up(kept, stamp_of(ledger), ledger, market, LAST, day)
    assert after is not None
    whole = history(ledger, market, LAST)
    assert whole is not None
    same(after.history, whole)
    reused = after.reused_through
    assert reused is None or reused < max(day, FIRST)
    if kept is not None and day > through:
        assert reused == kept.through


def test_years_that_are_over_are_one_piece_and_months_of_the_present_one_each() -> None:
    def day(*of: int) -> int:
        return day_number(date(*of))

    first, last = day(2024, 3, 15), day(2026, 2, 10)
    assert spans(first, last) == [
        Span(first, day(2024, 12, 31)),
        Span(day(2025, 1, 1), day(2025, 12, 31)),
        Span(day(2026, 1, 1), day(2026, 1, 31)),
        Span(day(2026, 2, 1), last),
    ]
    assert spans(last, first) == []
    assert spans(day(2025, 12, 31), day(2025, 12, 31)) == [Span(day(2025, 12, 31), day(2025, 12, 31))]


@given(ledgers(), markets(), st.binary(min_size=1, max_size=3), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_damaged_rows_are_corrupt_or_what_they_were(
    ledger: Ledger, market: MarketData, noise: bytes, place: int
) -> None:
    found = history(ledger, market, LAST)
    assert found is not None
    block = bytearray(pack_rows(with_flows(found), found.estimated))
    at = place % len(block)
    block[at : at + len(noise)] = noise
    try:
        values, _ = unpack_rows(bytes(block), len(found.scopes), found.days)
    except Corrupt:
        return
    assert np.array_equal(values, with_flows(found), equal_nan=True)


FACTS = SeriesFacts(7, 3, "USD", ((FIRST + 5, "split", 2.0),), (FIRST + 9,), None)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        (FACTS, NEVER),
        (SeriesFacts(7, 9, "USD", FACTS.ratios, FACTS.absent), NEVER),  # bars: their revisions say from when on
        (SeriesFacts(7, 3, "EUR", FACTS.ratios, FACTS.absent), ALWAYS),
        (SeriesFacts(8, 3, "USD", FACTS.ratios, FACTS.absent), ALWAYS),
        (SeriesFacts(7, 2, "USD", FACTS.ratios, FACTS.absent), ALWAYS),
        (SeriesFacts(7, 3, "USD", (), FACTS.absent), FIRST + 5),
        (SeriesFacts(7, 3, "USD", FACTS.ratios, (FIRST + 4, FIRST + 9)), FIRST + 4),
        (SeriesFacts(7, 3, "USD", FACTS.ratios, FACTS.absent, FIRST + 20), FIRST + 21),
        (None, ALWAYS),
    ],
)
def test_facts_beside_the_bars_count_from_where_they_reach(now: SeriesFacts | None, day: int) -> None:
    ledger = Ledger.of([])
    before, after = stamp_of(ledger, **{"A:US": FACTS}), stamp_of(ledger, **{"A:US": now})
    assert doubtful_from(before, after, ledger, None) == day
    assert doubtful_from(before, after, ledger, FIRST) == min(day, FIRST)


def test_another_name_other_rules_another_engine_void_everything() -> None:
    ledger = Ledger.of([])
    before = stamp_of(ledger, **{"FB:US": FACTS})
    for after in (
        stamp_of(ledger, **{"META:US": FACTS}),
        Stamp(1, 2, ledger.rules, before.series),
        Stamp(1, 1, type(ledger.rules)("EUR"), before.series),
        Stamp(0, 1, ledger.rules, before.series),
    ):
        assert doubtful_from(before, after, ledger, None) == ALWAYS
