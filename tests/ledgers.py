"""Markets and ledgers drawn at random, with everything in them that a history has to get right."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pricecache.core.actions import Action
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn

FIRST, DAYS = 19_000, 32
LAST = FIRST + DAYS - 1
DOLLARS, EUROS, PENCE, UNKNOWN = Instrument("AAA"), Instrument("EEE", "DE"), Instrument("PPP", "L"), Instrument("NONE")
INSTRUMENTS = (DOLLARS, EUROS, PENCE, UNKNOWN)
ACCOUNTS = ("", "one", "two")
RATIOS = ("2", "4", "1.5", "0.1", "0.3333333333333333")


def weekdays(first: int = FIRST - 10, last: int = LAST) -> np.ndarray:
    days = np.arange(first, last + 1, dtype=np.int64)
    return days[(days + 3) % 7 < 5]


@st.composite
def columns(draw: Any, low: float, high: float) -> Column:
    """Values on most weekdays, perhaps from late on, with holes."""
    due = weekdays()
    start = draw(st.sampled_from([0, 0, 0, 12]))
    holes = draw(st.sets(st.integers(0, len(due) - 1), max_size=3))
    kept = [i for i in range(start, len(due)) if i not in holes]
    seed = draw(st.integers(0, 1000))
    values = np.round(np.random.default_rng(seed).uniform(low, high, len(due)), 4)
    return Column(due[kept], values[kept], due)


@st.composite
def markets(draw: Any) -> MarketData:
    prices = {}
    for instrument, currency in ((DOLLARS, "USD"), (EUROS, "EUR"), (PENCE, "GBp")):
        splits = draw(st.dictionaries(st.sampled_from(weekdays().tolist()), st.sampled_from(RATIOS), max_size=1))
        actions = tuple(Action(day, "split", float(by)) for day, by in sorted(splits.items()))
        prices[instrument] = PriceColumn(draw(columns(20, 200)), currency, actions)
    rates = {"GBP": draw(columns(1.1, 1.4))}
    if draw(st.booleans()):
        rates["EUR"] = draw(columns(0.9, 1.2))
    return MarketData(prices, rates)


amounts = st.integers(1, 500_00).map(lambda cents: Decimal(cents) / 100)
quantities = st.integers(1, 4000).map(lambda n: Decimal(n) / 4)
charges = st.sampled_from([Decimal(0), Decimal(0), Decimal("1.25")])
rates = st.sampled_from([None, None, Decimal("1.25")])
accounts = st.sampled_from(ACCOUNTS)
TYPES = (
    *("buy", "buy", "buy", "buy", "sell", "sell", "sell", "dividend", "interest", "fee", "tax"),
    *(
        "deposit",
        "withdrawal",
        "transfer_in",
        "transfer_out",
        "move",
        "split",
        "opening",
        "adjustment",
        "cash_in",
        "cash_out",
        "cash_move",
    ),
    "reinvest",
)


@st.composite
def rows(draw: Any) -> list[Transaction]:
    kind = draw(st.sampled_from(TYPES))
    day = draw(st.integers(FIRST, LAST))
    instrument = draw(st.sampled_from(INSTRUMENTS[:3] * 3 + INSTRUMENTS[3:]))
    shared: dict[str, Any] = {
        "account": draw(accounts),
        "fees": draw(charges),
        "taxes": draw(charges),
        "fx_rate": draw(rates),
    }
    quantity, price, amount = draw(quantities), draw(amounts), draw(amounts)
    currency = draw(st.sampled_from([None, None, None, "USD", "EUR", "GBP"]))
    as_of = draw(st.sampled_from([None, None, None, LAST]))
    other = draw(accounts.filter(lambda account: account != shared["account"]))
    if currency is None or kind == "split":
        shared["fx_rate"] = shared["fx_rate"] if instrument != DOLLARS else None
    if kind in ("buy", "sell"):
        return [Transaction(day, kind, instrument, quantity, price, currency=currency, adjusted_as_of=as_of, **shared)]
    if kind in ("opening", "transfer_in"):
        acquired = draw(st.sampled_from([None, FIRST - 400, FIRST - 3]))
        return [Transaction(day, kind, instrument, quantity, price, acquired_on=acquired, **shared)]
    if kind == "adjustment":
        sign = draw(st.sampled_from([1, -1]))
        return [Transaction(day, kind, instrument, quantity * sign, price, **shared)]
    if kind == "transfer_out":
        return [Transaction(day, kind, instrument, quantity, **shared)]
    if kind == "move":
        return [Transaction(day, "transfer_out", instrument, quantity, to_account=other, **shared)]
    if kind == "split":
        by = Decimal(draw(st.sampled_from(RATIOS)))
        return [Transaction(day, kind, instrument, ratio=by, account=shared["account"])]
    if kind == "reinvest":
        return [
            Transaction(day, "dividend", instrument, amount=amount, link="r", **shared),
            Transaction(day, "buy", instrument, quantity, price, link="r", **shared),
        ]
    if kind == "dividend":
        return [Transaction(day, kind, instrument, amount=amount, currency=currency, **shared)]
    of_cash = {"cash_in": "transfer_in", "cash_out": "transfer_out", "cash_move": "transfer_out"}.get(kind, kind)
    target = other if kind == "cash_move" else None
    return [Transaction(day, of_cash, amount=amount, currency=currency, to_account=target, **shared)]


@st.composite
def ledgers(draw: Any) -> Ledger:
    rules = Rules(
        "USD",
        draw(st.sampled_from(["fifo", "lifo", "hifo", "average"])),
        cash_tracking=draw(st.booleans()),
        fees_in_cost=draw(st.booleans()),
        allow_short=draw(st.booleans()),
    )
    drawn = draw(st.lists(rows(), min_size=1, max_size=14))
    linked = [row for group in drawn for row in group]
    seen: set[int] = set()
    kept = []
    for row in linked:  # one reinvestment a day at most, so that links are pairs
        if row.link is not None and row.type == "dividend":
            if row.day in seen:
                continue
            seen.add(row.day)
        kept.append(row)
    days_of_dividends = {row.day for row in kept if row.link and row.type == "dividend"}
    buys: set[int] = set()
    final = []
    for row in kept:
        if row.link and row.type == "buy":
            if row.day not in days_of_dividends or row.day in buys:
                continue
            buys.add(row.day)
        final.append(row)
    return Ledger.of(final, rules)
