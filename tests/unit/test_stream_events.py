"""Durable events: their numbers, who can be resumed, their channels, and which positions a change closes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.closings import closings
from pricecache.core.history import book_at
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import MarketData
from pricecache.core.stream_events import EventsPage, StreamEvent, channel_of, numbered
from tests.ledgers import LAST, ledgers, markets

AAPL = Instrument("AAPL")


def test_events_are_numbered_up_to_the_last() -> None:
    events = [StreamEvent(0, "trade:executed", 1.0, {"id": name}) for name in "abc"]
    assert [(one.seq, one.data["id"]) for one in numbered(events, 9)] == [(7, "a"), (8, "b"), (9, "c")]
    assert numbered([], 9) == ()


@pytest.mark.parametrize(
    ("since", "epoch", "resumes"),
    [
        (5, None, True),
        (5, "e", True),
        (5, "f", False),
        (4, None, True),
        (3, None, False),
        (9, None, True),
        (10, None, False),
    ],
)
def test_who_misses_nothing_is_resumed(since: int, epoch: str | None, resumes: bool) -> None:
    assert EventsPage("e", last=9, oldest=5, events=()).resumes(since, epoch) is resumes


def test_a_portfolio_without_events_is_resumed_from_the_beginning() -> None:
    page = EventsPage("e", last=0, oldest=1, events=())
    assert (page.resumes(0), page.resumes(1), page.seq, page.is_complete) == (True, False, 0, True)


@pytest.mark.parametrize(
    ("event_type", "channel"),
    [
        ("trade:executed", "trades"),
        ("trades:imported", "trades"),
        ("position:closed", "positions"),
        ("order:updated", "orders"),
        ("account:updated", "account"),
        ("price:updated", "prices"),
    ],
)
def test_every_type_has_its_channel(event_type: str, channel: str) -> None:
    assert channel_of(event_type) == channel


def trade(kind: str, quantity: str, day: int = 1) -> Transaction:
    return Transaction(day, kind, AAPL, Decimal(quantity), Decimal(1), id=f"{kind}{quantity}")


@pytest.mark.parametrize(
    ("before", "after", "row"),
    [
        ([], [trade("buy", "3")], "open"),
        ([trade("buy", "3")], [trade("buy", "3"), trade("sell", "2")], "open"),
        ([trade("buy", "3")], [trade("buy", "3"), trade("sell", "3")], "sell3"),
        ([trade("buy", "3")], [], None),
        ([], [], "open"),
        ([trade("buy", "3"), trade("sell", "3")], [trade("buy", "3"), trade("sell", "3")], "open"),
        ([trade("sell", "3")], [trade("sell", "3"), trade("buy", "3", 2)], "buy3"),
    ],
)
def test_a_change_closes_what_was_held_or_owed(
    before: list[Transaction], after: list[Transaction], row: str | None
) -> None:
    rules = Rules(allow_short=True)
    found = closings(Ledger.of(before, rules), Ledger.of(after, rules), {AAPL}, MarketData({}), 9)
    expected = [] if row == "open" else [(AAPL, row)]
    assert [(one.instrument, one.row and one.row.id) for one in found] == expected


@given(ledgers(), markets(), st.data())
def test_closings_are_those_that_the_whole_ledger_shows(
    ledger: Ledger, market: MarketData, data: st.DataObject
) -> None:
    rows = ledger.transactions
    kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    before = Ledger(tuple(row for row, keep in zip(rows, kept, strict=True) if keep), ledger.rules)

    def held(one: Ledger) -> set[Instrument | None]:
        return {position.instrument for position in book_at(one, market, LAST).positions if position.quantity}

    found = closings(before, ledger, ledger.instruments(), market, LAST)
    assert {one.instrument for one in found} == (held(before) - held(ledger)) & ledger.instruments()
