"""Rows of a broker's that move money alone, as rows of a ledger: paid in and out, interest, charges."""

from __future__ import annotations

from typing import Any

from pricecache.core.ledger import TransactionType
from pricecache.core.walk.entries import Entries


def of_money(entries: Entries) -> None:
    """A row of money itself, or of a security that counts as money: buying and selling that moves nothing."""
    row, is_sweep = entries.one.row, entries.is_sweep()
    if entries.one.quantity and not is_sweep and row.action not in ("cash", "transfer"):
        entries.tell("row_without_security", "Shares of nothing: only the money of the row counts.")
    if row.action in ("cash", "transfer"):
        paid_by(entries, *(("deposit", "withdrawal") if row.action == "cash" else ("transfer_in", "transfer_out")))
    elif row.action == "adjustment":
        if entries.one.cash:
            entries.correct("broker_adjustment", amount=entries.one.cash)
    elif row.action in ("dividend", "interest", "return_of_capital"):
        received(entries, "interest", "interest paid")
    elif row.action == "fee" or row.action == "tax":
        charged(entries, row.action)
    elif not is_sweep:
        only_cash(entries)


def paid_by(entries: Entries, into: TransactionType, out: TransactionType, kind: str = "t") -> None:
    """The cash of a row, as it goes, gross, with its charges; what is all charges is a fee."""
    one, (fees, taxes) = entries.one, entries.charges()
    if one.cash == 0:
        return
    amount = one.cash + fees + taxes
    if amount == 0:
        entries.add("fee", kind, amount=-one.cash, instrument=None)
    elif amount > 0:
        entries.add(into, kind, amount=amount, fees=fees, taxes=taxes, instrument=None)
    else:
        entries.add(out, kind, amount=-amount, fees=fees, taxes=taxes, instrument=None)


def only_cash(entries: Entries, kind: str = "t") -> None:
    """Money with a security's name on it that no shares moved for: cash in lieu, a correction of a fee."""
    one = entries.one
    if one.cash > 0:
        entries.add("dividend" if one.instrument is not None else "interest", kind, amount=one.cash)
    elif one.cash < 0:
        entries.add("fee", kind, amount=-one.cash)


def received(entries: Entries, what: TransactionType, taken: str, **facts: Any) -> None:
    """Income in money, gross, with its charges; what goes instead is a fee, noted as `taken`."""
    one = entries.one
    if one.cash > 0:
        fees, taxes = entries.charges()
        entries.add(what, amount=one.cash + fees + taxes, fees=fees, taxes=taxes, **facts)
    elif one.cash < 0:
        entries.add("fee", amount=-one.cash, note=entries.noted(taken))


def charged(entries: Entries, what: TransactionType) -> None:
    """A fee or a tax in money; what comes instead is interest."""
    one = entries.one
    if one.cash < 0:
        entries.add(what, amount=-one.cash)
    elif one.cash > 0:
        entries.add("interest", amount=one.cash, note=entries.noted(f"{what} paid back"))
