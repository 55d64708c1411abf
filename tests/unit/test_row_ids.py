"""Rows without an id get one by what they say and how often they said it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Transaction
from pricecache.core.row_ids import PREFIX, row_ids
from tests.ledgers import ledgers

BUY = Transaction(20_000, "buy", Instrument("AAPL"), Decimal("1.50"), Decimal(100))


def test_ids_do_not_change_from_one_version_to_the_next() -> None:
    """They stand in ledgers: another way of making them would double every file that is imported again."""
    assert row_ids([BUY, BUY]) == ["import:005f6ce0ab5227e12ae69ed4", "import:005f6ce0ab5227e12ae69ed4.2"]


def test_the_same_value_written_otherwise_is_the_same_row() -> None:
    same = [replace(BUY, quantity=Decimal("1.5000")), replace(BUY, note="x"), replace(BUY, adjusted_as_of=20_100)]
    first = row_ids([BUY])
    assert all(row_ids([row]) == first for row in same)


def test_everything_else_makes_another_row() -> None:
    others = [
        BUY, replace(BUY, day=20_001), replace(BUY, type="sell"), replace(BUY, instrument=Instrument("AAPL", "DE")),
        replace(BUY, quantity=Decimal(15)), replace(BUY, price=Decimal(101)), replace(BUY, fees=Decimal(1)),
        replace(BUY, taxes=Decimal(1)), replace(BUY, currency="EUR"), replace(BUY, fx_rate=Decimal(2)),
        replace(BUY, account="a"), replace(BUY, to_account="a"), replace(BUY, link="l"),
        replace(BUY, acquired_on=19_000), replace(BUY, ex_date=19_000), replace(BUY, amount=Decimal(100)),
        replace(BUY, ratio=Decimal(100)),
    ]  # fmt: skip
    assert len(set(row_ids(others))) == len(others)


@given(ledgers(), st.data())
def test_a_file_that_overlaps_names_the_same_rows_the_same(ledger: Ledger, data: st.DataObject) -> None:
    """Broker exports overlap: from any day on the rows have the ids they had in the file of all days."""
    rows = sorted(ledger.transactions, key=lambda row: row.day)
    first = data.draw(st.sampled_from([row.day for row in rows]))
    whole = row_ids(rows)
    part = row_ids([row for row in rows if row.day >= first])
    assert part == whole[len(whole) - len(part) :]
    assert len(set(whole)) == len(whole)
    assert all(name.startswith(PREFIX) for name in whole)
