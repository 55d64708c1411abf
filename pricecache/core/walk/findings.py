"""What a reconstruction found that a person should know: corrections with size and reason, rows that were left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pricecache.core.instruments import Instrument

REASONS: Mapping[str, str] = {
    "quantity_unexplained": "more came in than was there afterwards, and no row says where it went",
    "balance_differs": "the broker said another balance earlier, and no row says why",
    "expiry_missing": "an option expired, and no row says so: it went for nothing",
    "fractional_shares": "a fraction that a split left was paid out or rounded",
    "split_unexplained": "shares moved by a row that is called a split and cannot be one",
    "rounding": "quantities that the broker rounded do not add up",
    "broker_adjustment": "the broker adjusted the balance",
    "cash_unexplained": "more money came in than was there afterwards, and no row says where it went",
    "margin_loan": "money was owed before the first row",
    "odd_cash": "money came in by a row that takes it out",
    "short_moved": "a short position came or went without money",
}
"""Codes of findings that are an `adjustment` in the ledger (an expiry: a sale or a purchase at 0), and what its note
says."""
LEFT_OUT = frozenset({"duplicate_row", "row_before_first_day", "row_after_holdings"})
"""Codes of findings of rows that do not count."""
ONLY_TOLD = LEFT_OUT | frozenset(
    {
        *("row_without_effect", "rows_missing"),
        *("row_without_security", "split_differs", "split_without_ratio", "money_not_reported", "no_price"),
        *("cost_differs", "prices_differ", "price_not_converted"),
        *("rows_restated", "split_not_in_market", "split_of_other_account"),
    }
)
"""Codes of findings that change no balance."""
CODES = ONLY_TOLD | REASONS.keys()


@dataclass(frozen=True, slots=True)
class Finding:
    """`code`: one of `REASONS`, with `external_id` of the adjustment and its signed `quantity` or `amount`; or one of
    `ONLY_TOLD`.

    `day`: days since 1970-01-01. `account`: the ledger's. `rows`: the broker's ids of the rows concerned.
    """

    code: str
    day: int
    account: str
    detail: str
    instrument: Instrument | None = None
    quantity: Decimal | None = None
    amount: Decimal | None = None
    currency: str | None = None
    rows: tuple[str, ...] = ()
    external_id: str | None = None
