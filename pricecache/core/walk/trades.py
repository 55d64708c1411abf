"""Shares for money or for other shares, as rows of a ledger: purchases, sales, mergers, options that end."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pricecache.core.ledger import ZERO, TransactionType
from pricecache.core.lots import fitted
from pricecache.core.walk.cash import only_cash
from pricecache.core.walk.deliveries import arrive, leave, shares, worthless
from pricecache.core.walk.entries import Entries, unit_price


def trade(book: Entries) -> None:
    """A purchase or a sale; without money it is a transfer, without shares what its cash is."""
    one = book.one
    if not one.quantity:
        only_cash(book)
    elif one.cash:
        bought(book) if one.quantity > 0 else sold(book)
    elif one.quantity > 0 and one.row.price != 0:
        arrive(book, book.noted("came without money"))
    elif one.quantity < 0 and one.row.price:
        leave(book, book.noted("went without money"))
    else:
        worthless(book)


def bought(book: Entries, **more: Any) -> None:
    """For the cash of the row."""
    one, (fees, taxes) = book.one, book.charges()
    value = -one.cash - fees - taxes
    if value < 0:
        value, fees, taxes = ZERO, max(-one.cash, ZERO), ZERO
        if one.cash > 0:
            book.correct("odd_cash", instrument=None, amount=one.cash)
    priced(book, "buy", value, fees, taxes, **more)


def sold(book: Entries, **more: Any) -> None:
    """For the cash of the row."""
    one, (fees, taxes) = book.one, book.charges()
    value = one.cash + fees + taxes
    if value < 0:
        value, fees, taxes = ZERO, -one.cash, ZERO
    priced(book, "sell", value, fees, taxes, **more)


def priced(book: Entries, what: TransactionType, value: Decimal, fees: Decimal, taxes: Decimal, **more: Any) -> None:
    """At the row's own price, unless that does not make `value`."""
    quantity, price = abs(book.one.quantity), book.one.row.price
    rest = ZERO
    if price is None or price * quantity != value or fitted(price) != price or price < 0:
        price, rest = unit_price(value, quantity, is_bought=what == "buy")
    book.add(what, quantity=quantity, price=price, fees=fees + rest, taxes=taxes, **more)


def merger(book: Entries) -> None:
    """Of which nobody knows what it was worth: as the row says."""
    one = book.one
    trade(book) if one.cash or not one.quantity else shares(book, book.noted("exchanged"))


def exchanged(book: Entries) -> None:
    """Sold or bought at what other rows show it to be worth."""
    one, found = book.one, book.pairs.exchanged[book.source]
    what: TransactionType = "buy" if one.quantity > 0 else "sell"
    price, rest = unit_price(found.value, abs(one.quantity), is_bought=what == "buy")
    if not found.value:
        book.tell("no_price", "Nobody knows what it was worth that day; it counts as bought for 0.")
    book.add(
        what, quantity=abs(one.quantity), price=price, fees=found.fees + rest, taxes=found.taxes,
        currency=found.currency, note=book.noted("exchanged at the value of the day"),
    )  # fmt: skip


def expiry(book: Entries) -> None:
    """An option that ends, by itself or exercised."""
    one = book.one
    if one.cash and one.quantity:
        trade(book)
    elif one.quantity and (one.row.action == "expiry" or _is_contract(book)):
        worthless(book)
    elif one.quantity:
        shares(book, one.row.note)
    else:
        only_cash(book)


def _is_contract(book: Entries) -> bool:
    return book.securities[book.one.row.security or ""].is_contract
