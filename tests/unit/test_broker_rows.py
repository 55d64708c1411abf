"""Rows of a connection in a ledger: exchanged as a whole, by what they are called, and nobody else's touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Transaction
from pricecache.core.portfolios import LedgerState
from pricecache.portfolio.broker_rows import RowCounts, counts_of, exchange, incoming_of, own_row_conflict, prefix_of
from pricecache.portfolio.planning import LedgerView, Plan, applied
from pricecache.stores.ledger import Row

AAPL = Instrument("AAPL")
NAME = prefix_of("c1")
NOW = 1_795_168_800.0


def deposit(name: str, day: int, amount: int) -> Transaction:
    return Transaction(day, "deposit", None, amount=Decimal(amount), currency="USD", external_id=name)


def view_of(rows: Sequence[Row]) -> LedgerView:
    return LedgerView(
        LedgerState(len(rows), None, len(rows) + 100, 0, 0),
        0,
        (),
        tuple(rows),
        Ledger.of(row.transaction for row in rows),
        {row.id: row for row in rows},
        {row.transaction.external_id: row for row in rows if row.transaction.external_id is not None},
    )


def exchanged(view: LedgerView, rows: Sequence[Transaction], attempt: str = "n") -> Plan:
    return exchange(view, NAME, incoming_of(rows), [f"{attempt}{number}" for number in range(len(rows))], NOW)


def after(view: LedgerView, rows: Sequence[Transaction], attempt: str = "n") -> LedgerView:
    return view_of(applied(view.rows, exchanged(view, rows, attempt).change))


def facts(view: LedgerView, prefix: str = "") -> dict[str | None, tuple[int, Decimal | None]]:
    rows = [row.transaction for row in view.rows]
    return {one.external_id: (one.day, one.amount) for one in rows if (one.external_id or "").startswith(prefix)}


PAYLOADS = st.dictionaries(st.integers(0, 8), st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=8).map(
    lambda found: [deposit(f"{NAME}{name}", day, amount) for name, (day, amount) in found.items()]
)


@given(st.lists(PAYLOADS, min_size=1, max_size=5))
def test_whatever_came_before_the_rows_are_those_of_the_last_payload(payloads: list[list[Transaction]]) -> None:
    own = [deposit("mine", 3, 7), deposit("c1x/1", 4, 8), deposit("c2/1", 5, 9)]
    view = view_of([Row(row, None, number, 1, NOW, NOW) for number, row in enumerate(_named(own))])
    before = facts(view)
    for number, payload in enumerate(payloads):
        view = after(view, payload, f"n{number}-")
    assert facts(view, f"{NAME}") == {row.external_id: (row.day, row.amount) for row in payloads[-1]}
    assert {name: fact for name, fact in facts(view).items() if not (name or "").startswith(f"{NAME}")} == before
    again = exchanged(view, payloads[-1], "again")
    assert not again.change.has_rows
    assert counts_of(again) == RowCounts(unchanged=len(payloads[-1]))


def _named(rows: Sequence[Transaction]) -> list[Transaction]:
    return [replace(row, id=f"own{number}") for number, row in enumerate(rows)]


def test_a_change_says_from_when_on_it_counts() -> None:
    view = after(view_of([]), [deposit(f"{NAME}1", 10, 1), deposit(f"{NAME}2", 20, 1)])
    gone = exchanged(view, [deposit(f"{NAME}2", 20, 1)], "m")
    assert (gone.change.affected_from, counts_of(gone)) == (10, RowCounts(deleted=1, unchanged=1))
    moved = exchanged(view, [deposit(f"{NAME}1", 10, 1), deposit(f"{NAME}2", 15, 1)], "m")
    assert (moved.change.affected_from, counts_of(moved)) == (15, RowCounts(updated=1, unchanged=1))
    both = exchanged(view, [deposit(f"{NAME}2", 20, 7)], "m")
    assert (both.change.affected_from, counts_of(both)) == (10, RowCounts(updated=1, deleted=1))


def test_a_row_of_the_users_own_of_the_very_day_is_named_and_a_later_one_is_not() -> None:
    def sold(name: str, day: int) -> Transaction:
        return Transaction(day, "sell", AAPL, quantity=Decimal(1), account="a", external_id=name, id=name)

    own = [sold("early", 8), sold("same", 10), sold("late", 11), sold("c2/1", 10), sold(f"{NAME}1", 9)]
    view = view_of([Row(row, None, number, 1, NOW, NOW) for number, row in enumerate(own)])
    faults = [{"row": 0, "code": "insufficient", "detail": "There is less."}]
    found = own_row_conflict(view, NAME, [sold(f"{NAME}2", 10)], faults)
    assert found is not None
    assert found.code == "own_row_conflicts"
    named = [name for name in ("early", "same", "late", "c2/1", f"{NAME}1") if f"(id {name}," in found.detail]
    assert named == ["early", "same", "c2/1"]


def test_an_attempt_whose_outcome_was_not_known_adds_nothing_the_second_time() -> None:
    rows = [deposit(f"{NAME}1", 10, 1)]
    view = after(view_of([]), rows)
    assert not exchanged(view, rows).change.has_rows
