"""Orders: what a report may say by itself, what may follow on what, and the transaction of a fill."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import faults
from pricecache.core.orders import FINAL, OrderReport, conflicts, report_faults, transaction_of

AAPL = Instrument("AAPL")
NEW = OrderReport("new", "buy", AAPL, Decimal(10))
PARTIAL = replace(NEW, status="partially_filled", filled_quantity=Decimal(4), average_price=Decimal("99.5"))
FILLED = replace(PARTIAL, status="filled", filled_quantity=Decimal(10))
CANCELLED = replace(PARTIAL, status="cancelled")
REPORTS = [
    NEW,
    replace(NEW, status="accepted"),
    PARTIAL,
    replace(PARTIAL, filled_quantity=Decimal(7)),
    FILLED,
    CANCELLED,
    replace(NEW, status="cancelled"),
    replace(NEW, status="rejected"),
    replace(PARTIAL, status="expired"),
]


def codes(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(fault["field"], fault["code"]) for fault in found]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_of_every_status_can_be_right(report: OrderReport) -> None:
    assert report_faults(report) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quantity": Decimal(-1)}, [("quantity", "quantity_not_positive")]),
        ({"limit_price": Decimal("1e16")}, [("limitPrice", "price_out_of_range")]),
        (
            {"fees": Decimal(-1), "fx_rate": Decimal(0)},
            [("fees", "fees_not_positive"), ("fxRate", "fx_rate_not_positive")],
        ),
        (
            {"filled_quantity": Decimal(-3)},
            [("filledQuantity", "quantity_not_positive"), ("filledQuantity", "filled_quantity_mismatch")],
        ),
    ],
)  # fmt: skip
def test_every_fault_of_a_report_is_told(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert codes(report_faults(replace(NEW, **changes))) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (NEW, replace(NEW, status="accepted", quantity=Decimal(20)), []),
        (NEW, FILLED, []),
        (PARTIAL, replace(PARTIAL, filled_quantity=Decimal(5), average_price=Decimal(98)), []),
        (PARTIAL, CANCELLED, []),
        (replace(NEW, status="accepted"), NEW, [("status", "order_status_goes_back")]),
        (PARTIAL, replace(PARTIAL, filled_quantity=Decimal(3)), [("filledQuantity", "filled_quantity_shrinks")]),
        (PARTIAL, replace(NEW, status="cancelled"), [("filledQuantity", "filled_quantity_shrinks")]),
        (FILLED, NEW, [("status", "order_final")]),
        (NEW, replace(NEW, instrument=Instrument("MSFT")), [("symbol", "order_of_another")]),
    ],
)
def test_what_may_follow_on_what(before: OrderReport, after: OrderReport, expected: list[tuple[str, str]]) -> None:
    assert codes(conflicts(before, after)) == expected


@given(st.lists(st.sampled_from(REPORTS), min_size=1, max_size=8))
def test_whatever_is_reported_an_order_becomes_at_most_one_transaction(reports: list[OrderReport]) -> None:
    """Taken as the daemon takes them: what is known already, and what cannot follow, changes nothing."""
    held, fills = None, []
    for report in reports:
        if held is not None and (held == report or conflicts(held, report)):
            continue
        held = report
        if report.is_fill:
            fills.append(report)
    assert len(fills) <= 1
    assert held is not None
    assert not fills or (held == fills[0] and held.status in FINAL)


@pytest.mark.parametrize("report", [one for one in REPORTS if one.is_fill])
def test_a_fill_is_a_transaction_the_ledger_takes(report: OrderReport) -> None:
    row = transaction_of("o1", replace(report, fees=Decimal(1), account="a", note="n"), 20_000)
    assert faults([row]) == []
    assert (row.type, row.quantity, row.price) == ("buy", report.filled_quantity, Decimal("99.5"))
    assert (row.day, row.external_id, row.account, row.note) == (20_000, "order:o1", "a", "n")
