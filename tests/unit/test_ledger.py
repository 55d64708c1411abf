"""Rows of a ledger: the order they take effect in, and every fault named at once."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import pytest

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import TYPES, Ledger, Rules, Transaction, faults, whole

A = Instrument("AAA")
GOOD: dict[str, Transaction] = {
    "buy": Transaction(1, "buy", A, D(1), D(2)),
    "sell": Transaction(1, "sell", A, D(1), D(0)),
    "dividend": Transaction(1, "dividend", A, amount=D(1)),
    "interest": Transaction(1, "interest", amount=D(1)),
    "fee": Transaction(1, "fee", amount=D(1)),
    "tax": Transaction(1, "tax", A, amount=D(1)),
    "deposit": Transaction(1, "deposit", amount=D(1)),
    "withdrawal": Transaction(1, "withdrawal", amount=D(1)),
    "transfer_in": Transaction(1, "transfer_in", A, D(1), D(2), acquired_on=0),
    "transfer_out": Transaction(1, "transfer_out", A, D(1), to_account="b"),
    "split": Transaction(1, "split", A, ratio=D(2)),
    "opening": Transaction(1, "opening", amount=D(5)),
    "adjustment": Transaction(1, "adjustment", A, D(-1)),
}


def codes(row: Transaction) -> set[str]:
    return {fault["code"] for fault in faults([row])}


@pytest.mark.parametrize("kind", TYPES)
def test_a_good_row_of_each_type_has_no_fault(kind: str) -> None:
    assert faults([GOOD[kind]]) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"type": "gift"}, {"unknown_type"}),
        ({"type": "buy"}, {"instrument_required", "quantity_required", "price_required"}),
        ({"type": "sell", "instrument": A, "quantity": D(-1), "price": D(1)}, {"quantity_not_positive"}),
        ({"type": "buy", "instrument": A, "quantity": D(0), "price": D(1)}, {"quantity_not_positive"}),
        ({"type": "buy", "instrument": A, "quantity": D("NaN"), "price": D(1)}, {"quantity_not_finite"}),
        ({"type": "buy", "instrument": A, "quantity": D("1e-13"), "price": D(1)}, {"quantity_out_of_range"}),
        ({"type": "buy", "instrument": A, "quantity": D("1e15"), "price": D(1)}, {"quantity_out_of_range"}),
        ({"type": "buy", "instrument": A, "quantity": D(1), "price": D(1), "fees": D(-1)}, {"fees_not_positive"}),
        ({"type": "buy", "instrument": A, "quantity": D(1), "price": D(1), "fx_rate": D(0)}, {"fx_rate_not_positive"}),
        ({"type": "buy", "instrument": A, "quantity": D(1), "price": D(1), "amount": D(1)}, {"amount_not_allowed"}),
        ({"type": "dividend", "amount": D(1)}, {"instrument_required"}),
        ({"type": "deposit"}, {"amount_required"}),
        ({"type": "deposit", "amount": D(1), "to_account": "b"}, {"to_account_not_allowed"}),
        ({"type": "split", "instrument": A}, {"ratio_required"}),
        ({"type": "opening", "instrument": A, "quantity": D(1)}, {"price_required"}),
        ({"type": "transfer_in"}, {"amount_required"}),
        ({"type": "transfer_out", "instrument": A, "quantity": D(1), "to_account": ""}, {"same_account"}),
        ({"type": "opening", "amount": D(1), "acquired_on": 2}, {"acquired_on_out_of_range"}),
        ({"type": "adjustment", "instrument": A, "quantity": D(1)}, {"price_required"}),
    ],
)  # fmt: skip
def test_a_bad_row_says_everything_that_is_wrong_with_it(row: dict[str, Any], expected: set[str]) -> None:
    assert codes(Transaction(1, **row)) == expected


def test_every_bad_row_is_reported_by_its_number() -> None:
    found = faults([GOOD["buy"], Transaction(1, "deposit"), Transaction(1, "split", A)], first=1)
    assert [(fault["row"], fault["code"]) for fault in found] == [(2, "amount_required"), (3, "ratio_required")]
    assert all(fault["detail"] for fault in found)


def test_within_a_day_what_comes_in_comes_before_what_goes_out() -> None:
    rows = [GOOD[kind] for kind in ("sell", "transfer_out", "buy", "split")] + [Transaction(0, "fee", amount=D(1))]
    assert [row.type for row in Ledger.of(rows).transactions] == ["fee", "split", "buy", "transfer_out", "sell"]


def test_a_change_of_actions_reaches_back_to_rows_in_later_units() -> None:
    rows = [
        Transaction(10, "buy", A, D(1), D(1), adjusted_as_of=60),
        Transaction(20, "buy", A, D(1), D(1)),
        Transaction(45, "split", A, ratio=D(2)),
    ]
    ledger = Ledger.of(rows, Rules())
    assert ledger.affected_from(A, 50) == 10
    assert ledger.affected_from(A, 61) == 45
    assert ledger.affected_from(A, 90) == 90
    assert ledger.affected_from(Instrument("BBB"), 50) == 50


def test_a_ledger_knows_its_instruments_and_the_currencies_of_its_rows() -> None:
    ledger = Ledger.of([replace(GOOD["buy"], currency="EUR"), replace(GOOD["tax"], currency="GBp"), GOOD["deposit"]])
    assert ledger.instruments() == {A}
    assert ledger.currencies() == {"EUR", "GBp"}
    assert ledger.instruments() is ledger.instruments()


def test_plain_rows_come_to_quantity_times_price_or_their_amount() -> None:
    rows = [GOOD["buy"], GOOD["dividend"], replace(GOOD["buy"], fees=D(1)), replace(GOOD["buy"], currency="EUR")]
    ledger = Ledger(tuple(rows), Rules())
    whole_ledger = ledger.plain(0, 4)
    assert (whole_ledger.amounts, whole_ledger.money[:2]) == ([D(2), D(1), None, None], [2.0, 1.0])
    assert ledger.plain(1, 3).amounts == Ledger(tuple(rows), Rules()).plain(1, 3).amounts == [D(1), None]


@pytest.mark.parametrize(("quantity", "shares"), [("3", 3.0), ("-3.00", -3.0), ("2.5", None), ("4294967296", None)])
def test_shares_are_floats_only_where_sums_of_them_are_exact(quantity: str, shares: float | None) -> None:
    assert whole(D(quantity)) == shares if shares is not None else whole(D(quantity)) != whole(D(quantity))
