"""Shares for money or for other shares, as rows of a ledger: purchases, sales, mergers, options that end."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pricecache.core.ledger import ZERO, TransactionType
from pricecache.core.lots import fitted
from pricecache.core.walk.cash import only_cash
from pricecache.core.walk.deliveries import arrive, leave, shares, worthless
from pricecache.core.walk.entries import Entries, unit_price


def trade(entries: Entries) -> None:
    """A purchase or a sale; without money it is a transfer, without shares what its cash is."""
    one = entries.one
    if not one.quantity:
        only_cash(entries)
    elif one.cash:
        bought(entries) if one.quantity > 0 else sold(entries)
    elif one.quantity > 0 and one.row.price != 0:
        arrive(entries, entries.noted("came without money"))
    elif one.quantity < 0 and one.row.price:
        leave(entries, entries.noted("went without money"))
    else:
        worthless(entries)


def bought(entries: Entries, **more: Any) -> None:
    """For the cash of the row."""
    one, (fees, taxes) = entries.one, entries.charges()
    value = -one.cash - fees - taxes
    if value < 0:
        value, fees, taxes = ZERO, max(-one.cash, ZERO), ZERO
        if one.cash > 0:
            entries.correct("odd_cash", instrument=None, amount=one.cash)
    priced(entries, "buy", value, fees, taxes, **more)


def sold(entries: Entries, **more: Any) -> None:
    """For the cash of the row."""
    one, (fees, taxes) = entries.one, entries.charges()
    value = one.cash + fees + taxes
    if value < 0:
        value, fees, taxes = ZERO, -one.cash, ZERO
    priced(entries, "sell", value, fees, taxes, **more)


def priced(entries: Entries, what: TransactionType, value: Decimal, fees: Decimal, taxes: Decimal, **more: Any) -> None:
    """At the row's own price, unless that does not make `value`."""
    quantity, price = abs(entries.one.quantity), entries.one.row.price
    rest = ZERO
    if price is None or price * quantity != value or fitted(price) != price or price < 0:
        price, rest = unit_price(value, quantity, is_bought=what == "buy")
    entries.add(what, quantity=quantity, price=price, fees=fees + rest, taxes=taxes, **more)


def merger(entries: Entries) -> None:
    """Of which nobody knows what it was worth: as the row says."""
    one = entries.one
    trade(entries) if one.cash or not one.quantity else shares(entries, entries.noted("exchanged"))


def exchanged(entries: Entries) -> None:
    """Sold or bought at what other rows show it to be worth."""
    one, found = entries.one, entries.pairs.exchanged[entries.source]
    what: TransactionType = "buy" if one.quantity > 0 else "sell"
    price, rest = unit_price(found.value, abs(one.quantity), is_bought=what == "buy")
    if not found.value:
        entries.tell("no_price", "Nobody knows what it was worth that day; it counts as bought for 0.")
    entries.add(
        what, quantity=abs(one.quantity), price=price, fees=found.fees + rest, taxes=found.taxes,
        currency=found.currency, note=entries.noted("exchanged at the value of the day"),
    )  # fmt: skip


def expiry(entries: Entries) -> None:
    """An option that ends, by itself or exercised."""
    one = entries.one
    if one.cash and one.quantity:
        trade(entries)
    elif one.quantity and (one.row.action == "expiry" or _is_contract(entries)):
        worthless(entries)
    elif one.quantity:
        shares(entries, one.row.note)
    else:
        only_cash(entries)


def _is_contract(entries: Entries) -> bool:
    return entries.securities[entries.one.row.security or ""].is_contract
