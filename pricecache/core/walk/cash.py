"""Rows of a broker's that move money alone, as rows of a ledger: paid in and out, interest, charges."""

from __future__ import annotations

from typing import Any

from pricecache.core.ledger import TransactionType
from pricecache.core.walk.entries import Entries


def of_money(book: Entries) -> None:
    """A row of money itself, or of a security that counts as money: buying and selling that moves nothing."""
    row, is_sweep = book.one.row, book.is_sweep()
    if book.one.quantity and not is_sweep and row.action not in ("cash", "transfer"):
        book.tell("row_without_security", "Shares of nothing: only the money of the row counts.")
    if row.action in ("cash", "transfer"):
        paid_by(book, *(("deposit", "withdrawal") if row.action == "cash" else ("transfer_in", "transfer_out")))
    elif row.action == "adjustment":
        if book.one.cash:
            book.correct("broker_adjustment", amount=book.one.cash)
    elif row.action in ("dividend", "interest", "return_of_capital"):
        received(book, "interest", "interest paid")
    elif row.action == "fee" or row.action == "tax":
        charged(book, row.action)
    elif not is_sweep:
        only_cash(book)


def paid_by(book: Entries, into: TransactionType, out: TransactionType, kind: str = "t") -> None:
    """The cash of a row, as it goes, gross, with its charges; what is all charges is a fee."""
    one, (fees, taxes) = book.one, book.charges()
    if one.cash == 0:
        return
    amount = one.cash + fees + taxes
    if amount == 0:
        book.add("fee", kind, amount=-one.cash, instrument=None)
    elif amount > 0:
        book.add(into, kind, amount=amount, fees=fees, taxes=taxes, instrument=None)
    else:
        book.add(out, kind, amount=-amount, fees=fees, taxes=taxes, instrument=None)


def only_cash(book: Entries, kind: str = "t") -> None:
    """Money with a security's name on it that no shares moved for: cash in lieu, a correction of a fee."""
    one = book.one
    if one.cash > 0:
        book.add("dividend" if one.instrument is not None else "interest", kind, amount=one.cash)
    elif one.cash < 0:
        book.add("fee", kind, amount=-one.cash)


def received(book: Entries, what: TransactionType, taken: str, **facts: Any) -> None:
    """Income in money, gross, with its charges; what goes instead is a fee, noted as `taken`."""
    one = book.one
    if one.cash > 0:
        fees, taxes = book.charges()
        book.add(what, amount=one.cash + fees + taxes, fees=fees, taxes=taxes, **facts)
    elif one.cash < 0:
        book.add("fee", amount=-one.cash, note=book.noted(taken))


def charged(book: Entries, what: TransactionType) -> None:
    """A fee or a tax in money; what comes instead is interest."""
    one = book.one
    if one.cash < 0:
        book.add(what, amount=-one.cash)
    elif one.cash > 0:
        book.add("interest", amount=one.cash, note=book.noted(f"{what} paid back"))
