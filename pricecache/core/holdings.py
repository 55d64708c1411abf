"""What is held at the end of a day, what it is worth, and where every number comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal, localcontext
from typing import Any

from pricecache.core.book import Book, Held
from pricecache.core.currencies import major
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Rules
from pricecache.core.lots import Lot
from pricecache.core.marketdata import MarketData

FORMULAS = {
    "value": "quantity x price x fx_rate",
    "cost": "sum of the lots' cost at the rates of their days",
    "cost_average": "the account's share, by quantity, of the cost of all accounts",
    "unrealized_gain_loss": "value - cost",
    "realized_gain_loss": "proceeds - original cost of what was sold",
    "average_cost": "cost in the instrument's currency / quantity",
}


@dataclass(frozen=True, slots=True)
class Holding:
    """One position. `price`, `average_cost` in `currency`; the rest in base currency, exact and not rounded; None is
    unknown, and `reasons` says why: `no_price`, `rate_unknown`. `price_day`: the session of the price. `fx_day`: of
    the rate, None where none is needed. `split_factor`: what the close was divided by since, for splits."""

    account: str
    instrument: Instrument
    quantity: Decimal
    average_cost: Decimal | None
    cost: Decimal | None
    currency: str
    price: Decimal | None
    price_day: int | None
    close: Decimal | None
    split_factor: Decimal
    fx_rate: Decimal | None
    fx_day: int | None
    value: Decimal | None
    unrealized_gain_loss: Decimal | None
    realized_gain_loss: Decimal | None
    dividends: Decimal | None
    fees: Decimal | None
    weight: float | None
    lots: tuple[Lot, ...]
    reasons: dict[str, str] = field(default_factory=dict)

    def explained(self) -> dict[str, Any]:
        """The inputs of its numbers: lots, price row, rate row, names of formulas."""
        return {
            "formulas": FORMULAS,
            "lots": [lot._asdict() for lot in self.lots],
            "price": {"day": self.price_day, "close": self.close, "split_factor": self.split_factor},
            "rate": {"day": self.fx_day, "rate": self.fx_rate},
        }


@dataclass(frozen=True, slots=True)
class CashHolding:
    currency: str
    amount: Decimal
    value: Decimal | None


@dataclass(frozen=True, slots=True)
class Holdings:
    """All positions with a quantity by account and instrument, and cash by currency. Totals are of what is known.
    `values`: by account, what its positions and its cash are worth together, exactly, as far as that is known."""

    day: int
    currency: str
    total_value: Decimal
    total_cost: Decimal | None
    holdings: tuple[Holding, ...]
    cash: tuple[CashHolding, ...]
    values: dict[str, Decimal]


def holdings(book: Book, market: MarketData, rules: Rules, account: str | None = None) -> Holdings:
    """At the end of the book's day; `account` None is all of them. Weights are shares of the total value."""
    with localcontext(prec=28):
        held = [one for one in book.positions if one.quantity and account in (None, one.account)]
        found = [_holding(one, one.instrument, market, rules, book.day) for one in held if one.instrument is not None]
        cash = _cash(book, market, rules, account)
        values = [one.value for one in found] + [one.value for one in cash]
        total = sum((value for value in values if value is not None), ZERO)
        costs = [one.cost for one in found]
        cost = None if None in costs else sum((one for one in costs if one is not None), ZERO)
        weighed = [_weighed(one, total) for one in sorted(found, key=lambda one: (one.account, one.instrument))]
        worth = _by_account(found, book, market, rules, account)
    return Holdings(book.day, rules.currency, total, cost, tuple(weighed), tuple(cash), worth)


def _by_account(
    found: list[Holding], book: Book, market: MarketData, rules: Rules, account: str | None
) -> dict[str, Decimal]:
    values: dict[str, Decimal] = {}
    for one in found:
        values[one.account] = values.get(one.account, ZERO) + (one.value or ZERO)
    for balance in book.cash:
        rate = _known(market.rate(balance.currency, rules.currency, book.day))
        if account in (None, balance.account) and rate is not None:
            values[balance.account] = values.get(balance.account, ZERO) + balance.amount * rate
    return values


def _holding(held: Held, instrument: Instrument, market: MarketData, rules: Rules, day: int) -> Holding:
    currency = market.currency_of(instrument)
    close, session, factor = _price(instrument, market, day)
    price = close / factor if close is not None else None
    rate, rate_day = _rate(market, currency, rules.currency, day)
    quantity = held.quantity * Decimal(repr(held.factor))
    cost, local = (_known(amount) for amount in held.basis)
    value = quantity * price * rate if price is not None and rate is not None else None
    realized = _known(held.proceeds - held.original)
    reasons = {}
    if value is None:
        reasons["value"] = reasons["unrealized_gain_loss"] = "no_price" if price is None else "rate_unknown"
    amounts = (("cost", cost), ("average_cost", local), ("realized_gain_loss", realized))
    reasons.update({name: "rate_unknown" for name, amount in amounts if amount is None})
    return Holding(
        held.account,
        instrument,
        quantity,
        local / quantity if local is not None else None,
        cost,
        currency,
        price,
        session,
        close,
        factor,
        rate,
        rate_day,
        value,
        value - cost if value is not None and cost is not None else None,
        realized,
        _known(held.dividends),
        _known(held.fees),
        None,
        held.lots,
        reasons,
    )


def _price(instrument: Instrument, market: MarketData, day: int) -> tuple[Decimal | None, int | None, Decimal]:
    """The last close, its session, and the product of the splits and rebases since."""
    column = market.prices.get(instrument)
    found = column.closes.at(day) if column is not None else None
    factor = Decimal(1)
    if column is None or found is None:
        return None, None, factor
    session, close = found
    for action in column.actions:
        if action.kind != "dividend" and session < action.ex_date <= day:
            factor *= Decimal(repr(action.value))
    return Decimal(repr(close)), session, factor


def _rate(market: MarketData, currency: str, base: str, day: int) -> tuple[Decimal | None, int | None]:
    rate = _known(market.rate(currency, base, day))
    column = market.rates.get(major(currency))
    found = column.at(day) if column is not None and major(currency) != base else None
    return rate, found[0] if found is not None else None


def _cash(book: Book, market: MarketData, rules: Rules, account: str | None) -> list[CashHolding]:
    amounts: dict[str, Decimal] = {}
    for one in book.cash:
        if account in (None, one.account):
            amounts[one.currency] = amounts.get(one.currency, ZERO) + one.amount
    rates = {currency: _known(market.rate(currency, rules.currency, book.day)) for currency in amounts}
    return [
        CashHolding(currency, amount, None if (rate := rates[currency]) is None else amount * rate)
        for currency, amount in sorted(amounts.items())
    ]


def _weighed(one: Holding, total: Decimal) -> Holding:
    weight = float(one.value / total) if one.value is not None and total else None
    return replace(one, weight=weight)


def _known(amount: Decimal) -> Decimal | None:
    return None if amount.is_nan() else amount
