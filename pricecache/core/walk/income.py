"""What shares bring and cost, as rows of a ledger: dividends, what is bought of them, spin-offs, interest, taxes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pricecache.core.ledger import ZERO, TransactionType
from pricecache.core.lots import fitted
from pricecache.core.walk.cash import charged, received
from pricecache.core.walk.deliveries import leave, shares
from pricecache.core.walk.entries import Entries, link_of, unit_price
from pricecache.core.walk.pairs import spent
from pricecache.core.walk.row import worth_of
from pricecache.core.walk.trades import bought, priced, trade


def dividend(entries: Entries) -> None:
    """In money, gross; in shares; or taken back."""
    one = entries.one
    note = entries.noted("return of capital") if one.row.action == "return_of_capital" else one.row.note
    if one.quantity > 0 and one.cash <= 0:
        reinvestment(entries)
        return
    received(entries, "dividend", "income taken back", link=entries.links.get(entries.source), note=note)
    if one.quantity:
        shares(entries, entries.noted("with a dividend"))


def reinvestment(entries: Entries) -> None:
    """A purchase with the dividend that the broker tells of, else with one that is made for it."""
    one = entries.one
    if one.quantity <= 0:
        trade(entries)
        return
    funded = entries.pairs.funded.get(entries.source)
    if funded is None and entries.source not in entries.pairs.from_cash:
        value, currency = (spent(one), one.row.currency) if spent(one) > 0 else worth_of(one, entries.prices)
        _made_of(entries, fitted(value), currency, one.row.note)
        return
    link = None if funded is None else entries.links[funded]
    if one.cash:
        bought(entries, link=link)
    else:
        priced(entries, "buy", fitted(spent(one)), ZERO, ZERO, link=link)


def spin_off(entries: Entries) -> None:
    """Income in shares, at the price of the day."""
    one = entries.one
    if one.quantity > 0 and not one.cash:
        value, currency = worth_of(one, entries.prices)
        _made_of(entries, fitted(value), currency, entries.noted("spun off"))
    elif one.quantity < 0 and not one.cash:
        leave(entries, entries.noted("spun off"))
    else:
        trade(entries)


def interest(entries: Entries) -> None:
    """Of a security: received, paid, or in shares."""
    one = entries.one
    if one.quantity > 0 and not one.cash:
        reinvestment(entries)
        return
    link = entries.links.get(entries.source)
    received(entries, "dividend" if link is not None else "interest", "interest paid", link=link)
    if one.quantity:
        shares(entries, entries.noted("as interest"))


def charge(entries: Entries) -> None:
    """A fee or a tax, in money, or in shares that are sold for it."""
    one = entries.one
    what: TransactionType = "tax" if one.row.action == "tax" else "fee"
    if one.quantity < 0 and one.cash <= 0:
        value, currency = (-one.cash, one.row.currency) if one.cash else worth_of(one, entries.prices)
        value = fitted(value)
        price, rest = unit_price(value, -one.quantity, is_bought=False)
        entries.add("sell", quantity=-one.quantity, price=price, fees=rest, currency=currency)
        if value:
            entries.add(what, "f", amount=value, currency=currency)
        return
    charged(entries, what)
    if one.quantity:
        shares(entries, entries.noted(what))


def _made_of(entries: Entries, value: Decimal, currency: str, note: str | None) -> None:
    """Shares that came instead of money: income, and a purchase of the same value."""
    one = entries.one
    price, rest = unit_price(value, one.quantity, is_bought=True)
    link = link_of(one.row.id)
    facts: dict[str, Any] = {"currency": currency, "note": note, "link": link if value else None}
    if value:
        entries.add("dividend", "d", amount=value, **facts)
    else:
        entries.tell("no_price", "Nobody knows what it was worth that day; it counts as bought for 0.")
    entries.add("buy", quantity=one.quantity, price=price, fees=rest, **facts)
