"""The engine equals the slow, obvious reference, and goes on from any day as if it had never stopped."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.core.actions import Action
from pricecache.core.history import Checkpoint, history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.valuation import FIELDS, VALUE
from tests.ledgers import DOLLARS, FIRST, INSTRUMENTS, LAST, ledgers, markets, rows
from tests.reference_history import reference


@given(ledgers(), markets())
@settings(max_examples=150, deadline=None)
def test_the_engine_equals_the_reference_to_the_cent(ledger: Ledger, market: MarketData) -> None:
    got = history(ledger, market, LAST)
    assert got is not None
    for day, scopes in reference(ledger, market, LAST).items():
        column = day - got.start
        for scope, row in scopes.items():
            if scope is not None and (scope, None) not in got.scopes:
                continue
            place = got.scopes.index((scope, None))
            assert bool(got.estimated[place, column]) == bool(row["estimated"]), (day, scope, "estimated")
            for number, name in enumerate(FIELDS):
                mine, theirs = got.values[number, place, column], row[name]
                where = (day, scope, name, mine, theirs)
                assert np.isnan(mine) == (theirs is None), where
                if theirs is not None:
                    wanted = float(theirs)
                    near = 1e-6 * max(1.0, abs(wanted)) if name in ("return_index", "coverage") else 0.005
                    assert abs(mine - wanted) < near, where


@given(ledgers(), markets())
@settings(max_examples=60, deadline=None)
def test_going_on_from_any_day_gives_the_same_bits(ledger: Ledger, market: MarketData) -> None:
    whole = history(ledger, market, LAST, checkpoints=range(LAST - 40, LAST + 1))
    assert whole is not None
    last = whole.checkpoints[LAST]
    for day, checkpoint in whole.checkpoints.items():
        if day == LAST:
            continue
        again = Checkpoint.unpack(checkpoint.pack())
        assert repr(again) == repr(checkpoint)
        tail = history(ledger, market, LAST, since=again, checkpoints=[LAST])
        assert tail is not None
        assert in_order(tail.checkpoints[LAST]) == in_order(last)
        assert repr(again) == repr(checkpoint)  # what goes on from it leaves it as it was
        rest = Ledger.of([row for row in ledger.transactions if row.day > day], ledger.rules)
        alone = history(rest, market, LAST, since=again)  # of the rows before it nothing is needed
        assert alone is not None
        assert np.array_equal(alone.values, tail.values, equal_nan=True)
        rows = [whole.scopes.index(scope) for scope in tail.scopes]
        assert np.array_equal(whole.values[:, rows, day + 1 - whole.start :], tail.values, equal_nan=True)
        assert np.array_equal(whole.estimated[rows, day + 1 - whole.start :], tail.estimated)


def test_a_split_of_the_market_after_the_last_row_reaches_what_goes_on_without_the_rows() -> None:
    due = np.arange(FIRST, LAST + 1, dtype=np.int64)
    prices = PriceColumn(Column(due, np.full(len(due), 50.0), due), "USD", (Action(FIRST + 3, "split", 2.0),))
    market = MarketData({DOLLARS: prices}, {})
    buy = Transaction(FIRST, "buy", DOLLARS, quantity=Decimal(4), price=Decimal(90))
    ledger = Ledger.of([buy], Rules())
    whole = history(ledger, market, LAST, checkpoints=[FIRST + 1])
    assert whole is not None
    tail = history(Ledger.of([], ledger.rules), market, LAST, since=whole.checkpoints[FIRST + 1])
    assert tail is not None
    assert tail.of(VALUE).tolist() == [200.0] + [400.0] * (tail.days - 1)


def in_order(checkpoint: Checkpoint) -> str:
    """To the digit and bit. The order of pools and factors says when each was first needed, and means nothing."""
    book = checkpoint.book
    pools, factors = (tuple(sorted(part, key=repr)) for part in (book.pools, book.factors))
    return repr(replace(checkpoint, book=replace(book, pools=pools, factors=factors)))


@given(ledgers(), rows(), markets())
@settings(max_examples=80, deadline=None)
def test_a_new_row_costs_only_from_its_date_on(ledger: Ledger, new: list[Transaction], market: MarketData) -> None:
    after = Ledger.of([*ledger.transactions, *(replace(row, link=None) for row in new)], ledger.rules)
    days = [after.affected_from(row.instrument, row.affects_from) if row.type == "split" else row.affects_from
            for row in new if row.instrument is not None or row.type != "split"]  # fmt: skip
    same_bits_from(min(days), (ledger, market), (after, market))


@given(ledgers(), markets(), st.sampled_from(INSTRUMENTS[:3]), st.integers(FIRST, LAST))
@settings(max_examples=80, deadline=None)
def test_a_new_split_of_the_market_costs_only_from_where_it_reaches(
    ledger: Ledger, market: MarketData, instrument: Instrument, day: int
) -> None:
    column = market.prices[instrument]
    actions = tuple(sorted({a.ex_date: a for a in (*column.actions, Action(day, "split", 3.0))}.values()))
    after = MarketData({**market.prices, instrument: replace(column, actions=actions)}, market.rates)
    same_bits_from(ledger.affected_from(instrument, day), (ledger, market), (ledger, after))


def same_bits_from(day: int, before: tuple[Ledger, MarketData], after: tuple[Ledger, MarketData]) -> None:
    """The checkpoint that the day before had is as good for what is there now."""
    kept = history(*before, LAST, checkpoints=[day - 1])
    assert kept is not None
    if day - 1 not in kept.checkpoints or day > LAST:
        return
    tail = history(*after, LAST, since=kept.checkpoints[day - 1])
    whole = history(*after, LAST)
    assert whole is not None
    assert tail is not None
    rows_ = [whole.scopes.index(scope) for scope in tail.scopes]
    assert np.array_equal(whole.values[:, rows_, day - whole.start :], tail.values, equal_nan=True)
