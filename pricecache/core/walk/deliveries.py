"""Shares that come and go without money, as rows of a ledger: transfers, gifts, what is worth nothing, corrections."""

from __future__ import annotations

from typing import Any

from pricecache.core.ledger import ZERO
from pricecache.core.walk.cash import paid_by
from pricecache.core.walk.entries import Entries
from pricecache.core.walk.prices import fitted
from pricecache.core.walk.row import BrokerRow


def transfer(book: Entries) -> None:
    """From or to elsewhere: shares, money, or both."""
    one = book.one
    if not one.quantity:
        paid_by(book, "transfer_in", "transfer_out")
        return
    shares(book, one.row.note)
    if one.cash:
        paid_by(book, "transfer_in", "transfer_out", "m")


def moved(book: Entries, into: BrokerRow, day: int) -> None:
    """From one account of the ledger into that of `into`, as much as came there."""
    size: dict[str, Any] = {"amount": into.cash} if into.instrument is None else {"quantity": into.quantity}
    book.add("transfer_out", day=day, to_account=into.account, **size)


def paid(book: Entries) -> None:
    """Paid in or out, as money or as shares."""
    if book.one.quantity:
        shares(book, book.noted("paid in or out as shares"))
    else:
        paid_by(book, "deposit", "withdrawal")


def adjustment(book: Entries) -> None:
    """The broker's own, of shares and of money."""
    one = book.one
    if one.quantity:
        price, currency, _ = book.prices.on(one.instrument, one.row.day)  # type: ignore[arg-type]
        book.correct("broker_adjustment", quantity=one.quantity, price=price, currency=currency)
    if one.cash:
        book.correct("broker_adjustment", instrument=None, amount=one.cash)


def shares(book: Entries, note: str | None) -> None:
    """In or out, as the quantity says."""
    arrive(book, note) if book.one.quantity > 0 else leave(book, note)


def arrive(book: Entries, note: str | None) -> None:
    """At the row's price, else that of the day."""
    one = book.one
    assert one.instrument is not None
    price, currency = one.row.price, one.row.currency
    if not price or price < 0:
        price, currency, source = book.prices.on(one.instrument, one.row.day)
        if source is None:
            book.tell("no_price", "Nobody knows what it was worth that day; its cost counts as 0.")
    book.add("transfer_in", quantity=one.quantity, price=fitted(price), currency=currency, note=note)


def leave(book: Entries, note: str | None) -> None:
    """With their lots."""
    book.add("transfer_out", quantity=-book.one.quantity, note=note)


def worthless(book: Entries) -> None:
    """For nothing."""
    quantity = book.one.quantity
    book.add("buy" if quantity > 0 else "sell", quantity=abs(quantity), price=ZERO)
