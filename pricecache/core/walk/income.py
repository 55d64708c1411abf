"""What shares bring and cost, as rows of a ledger: dividends, what is bought of them, spin-offs, interest, taxes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pricecache.core.ledger import ZERO, TransactionType
from pricecache.core.walk.deliveries import leave, shares
from pricecache.core.walk.entries import Entries, link_of, unit_price
from pricecache.core.walk.pairs import spent
from pricecache.core.walk.prices import fitted
from pricecache.core.walk.row import worth_of
from pricecache.core.walk.trades import bought, priced, trade


def dividend(book: Entries) -> None:
    """In money, gross; in shares; or taken back."""
    one = book.one
    note = book.noted("return of capital") if one.row.action == "return_of_capital" else one.row.note
    if one.quantity > 0 and one.cash <= 0:
        reinvestment(book)
        return
    if one.cash > 0:
        fees, taxes = book.charges()
        link = book.links.get(book.source)
        book.add("dividend", amount=one.cash + fees + taxes, fees=fees, taxes=taxes, link=link, note=note)
    elif one.cash < 0:
        book.add("fee", amount=-one.cash, note=book.noted("income taken back"))
    if one.quantity:
        shares(book, book.noted("with a dividend"))


def reinvestment(book: Entries) -> None:
    """A purchase with the dividend that the broker tells of, else with one that is made for it."""
    one = book.one
    if one.quantity <= 0:
        trade(book)
        return
    funded = book.pairs.funded.get(book.source)
    if funded is None and book.source not in book.pairs.from_cash:
        value, currency = (spent(one), one.row.currency) if spent(one) > 0 else worth_of(one, book.prices)
        _made_of(book, fitted(value), currency, one.row.note)
        return
    link = None if funded is None else book.links[funded]
    if one.cash:
        bought(book, link=link)
    else:
        priced(book, "buy", fitted(spent(one)), ZERO, ZERO, link=link)


def spin_off(book: Entries) -> None:
    """Income in shares, at the price of the day."""
    one = book.one
    if one.quantity > 0 and not one.cash:
        value, currency = worth_of(one, book.prices)
        _made_of(book, fitted(value), currency, book.noted("spun off"))
    elif one.quantity < 0 and not one.cash:
        leave(book, book.noted("spun off"))
    else:
        trade(book)


def interest(book: Entries) -> None:
    """Of a security: received, paid, or in shares."""
    one = book.one
    if one.quantity > 0 and not one.cash:
        reinvestment(book)
        return
    if one.cash > 0:
        fees, taxes = book.charges()
        link = book.links.get(book.source)
        what: TransactionType = "dividend" if link is not None else "interest"
        book.add(what, amount=one.cash + fees + taxes, fees=fees, taxes=taxes, link=link)
    elif one.cash < 0:
        book.add("fee", amount=-one.cash, note=book.noted("interest paid"))
    if one.quantity:
        shares(book, book.noted("as interest"))


def charge(book: Entries) -> None:
    """A fee or a tax, in money, or in shares that are sold for it."""
    one = book.one
    what: TransactionType = "tax" if one.row.action == "tax" else "fee"
    if one.quantity < 0 and one.cash <= 0:
        value, currency = (-one.cash, one.row.currency) if one.cash else worth_of(one, book.prices)
        value = fitted(value)
        price, rest = unit_price(value, -one.quantity, is_bought=False)
        book.add("sell", quantity=-one.quantity, price=price, fees=rest, currency=currency)
        if value:
            book.add(what, "f", amount=value, currency=currency)
        return
    if one.cash < 0:
        book.add(what, amount=-one.cash)
    elif one.cash > 0:
        book.add("interest", amount=one.cash, note=book.noted(f"{what} paid back"))
    if one.quantity:
        shares(book, book.noted(what))


def _made_of(book: Entries, value: Decimal, currency: str, note: str | None) -> None:
    """Shares that came instead of money: income, and a purchase of the same value."""
    one = book.one
    price, rest = unit_price(value, one.quantity, is_bought=True)
    link = link_of(one.row.id)
    facts: dict[str, Any] = {"currency": currency, "note": note, "link": link if value else None}
    if value:
        book.add("dividend", "d", amount=value, **facts)
    else:
        book.tell("no_price", "Nobody knows what it was worth that day; it counts as bought for 0.")
    book.add("buy", quantity=one.quantity, price=price, fees=rest, **facts)
