"""Shares that come and go without money, as rows of a ledger: transfers, gifts, what is worth nothing, corrections."""

from __future__ import annotations

from typing import Any

from pricecache.core.ledger import ZERO
from pricecache.core.lots import fitted
from pricecache.core.walk.cash import paid_by
from pricecache.core.walk.entries import Entries
from pricecache.core.walk.row import BrokerRow


def transfer(entries: Entries) -> None:
    """From or to elsewhere: shares, money, or both."""
    one = entries.one
    if not one.quantity:
        paid_by(entries, "transfer_in", "transfer_out")
        return
    shares(entries, one.row.note)
    if one.cash:
        paid_by(entries, "transfer_in", "transfer_out", "m")


def moved(entries: Entries, into: BrokerRow, day: int) -> None:
    """From one account of the ledger into that of `into`, as much as came there."""
    size: dict[str, Any] = {"amount": into.cash} if into.instrument is None else {"quantity": into.quantity}
    entries.add("transfer_out", day=day, to_account=into.account, **size)


def paid(entries: Entries) -> None:
    """Paid in or out, as money or as shares."""
    if entries.one.quantity:
        shares(entries, entries.noted("paid in or out as shares"))
    else:
        paid_by(entries, "deposit", "withdrawal")


def adjustment(entries: Entries) -> None:
    """The broker's own, of shares and of money."""
    one = entries.one
    if one.quantity:
        price, currency, _ = entries.prices.on(one.instrument, one.row.day)  # type: ignore[arg-type]
        entries.correct("broker_adjustment", quantity=one.quantity, price=price, currency=currency)
    if one.cash:
        entries.correct("broker_adjustment", instrument=None, amount=one.cash)


def shares(entries: Entries, note: str | None) -> None:
    """In or out, as the quantity says."""
    arrive(entries, note) if entries.one.quantity > 0 else leave(entries, note)


def arrive(entries: Entries, note: str | None) -> None:
    """At the row's price, else that of the day."""
    one = entries.one
    assert one.instrument is not None
    price, currency = one.row.price, one.row.currency
    if not price or price < 0:
        price, currency, source = entries.prices.on(one.instrument, one.row.day)
        if source is None:
            entries.tell("no_price", "Nobody knows what it was worth that day; its cost counts as 0.")
    entries.add("transfer_in", quantity=one.quantity, price=fitted(price), currency=currency, note=note)


def leave(entries: Entries, note: str | None) -> None:
    """With their lots."""
    entries.add("transfer_out", quantity=-entries.one.quantity, note=note)


def worthless(entries: Entries) -> None:
    """For nothing."""
    quantity = entries.one.quantity
    entries.add("buy" if quantity > 0 else "sell", quantity=abs(quantity), price=ZERO)
