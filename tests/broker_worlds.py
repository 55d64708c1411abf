"""What brokers say, drawn at random: right, wrong, twice, and in every order."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pricecache.core.actions import Action
from pricecache.core.broker.data import (
    BROKER_ACTIONS,
    BrokerAccount,
    BrokerData,
    BrokerHolding,
    BrokerSecurity,
    BrokerTransaction,
    OptionContract,
    Waypoint,
)
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import Column, MarketData, PriceColumn

FIRST, LAST = 19_000, 19_040
ACCOUNTS = {"x": "one", "y": "two"}
A, B, P, O = Instrument("AAA"), Instrument("BBB"), Instrument("PPP", "L"), Instrument("OPT", "CUSTOM")  # noqa: E741
INSTRUMENTS = {"a": A, "a-old": A, "b": B, "p": P, "o": O}
SECURITIES = {
    "a": BrokerSecurity("a", "equity"),
    "a-old": BrokerSecurity("a-old", "equity"),
    "b": BrokerSecurity("b", "etf"),
    "p": BrokerSecurity("p", "equity", currency="GBP"),
    "o": BrokerSecurity("o", "derivative", option=OptionContract("call", FIRST + 30, D(10))),
    "sweep": BrokerSecurity("sweep", "cash", is_money=True),
}
RATIOS = ("2", "4", "1.5", "0.1", "0.3333333333333333", "0.0333333333", "1.05")


@st.composite
def markets(draw: Any, ratios: tuple[str, ...] = RATIOS) -> MarketData:
    days = np.arange(FIRST - 20, LAST + 1, dtype=np.int64)
    due = days[(days + 3) % 7 < 5]
    prices = {}
    for instrument, currency in ((A, "USD"), (B, "USD"), (P, "GBp")):
        splits = draw(st.dictionaries(st.integers(FIRST - 5, LAST + 3), st.sampled_from(ratios), max_size=2))
        actions = tuple(Action(day, "split", float(by)) for day, by in sorted(splits.items()))
        seed = draw(st.integers(0, 100))
        values = np.round(np.random.default_rng(seed).uniform(20, 200, len(due)), 2)
        start = draw(st.sampled_from([0, 0, 25]))
        prices[instrument] = PriceColumn(Column(due[start:], values[start:], due), currency, actions)
    return MarketData(prices, {"GBP": Column(due, np.full(len(due), 1.25), due)})


shares = st.one_of(
    st.integers(-40, 40).map(D),
    st.integers(-4000, 4000).map(lambda n: D(n) / 1000),
    st.sampled_from([D(0), D("1E-12")]),
)
money = st.one_of(st.just(D(0)), st.integers(-5000_00, 5000_00).map(lambda n: D(n) / 100))
charges = st.sampled_from([D(0), D(0), D(0), D("1.25"), D(-1)])
days = st.integers(FIRST - 2, LAST + 1)
securities = st.sampled_from([*INSTRUMENTS, "a", "a", "b", "sweep", None])


@st.composite
def rows(draw: Any) -> list[BrokerTransaction]:
    found = []
    for place in range(draw(st.integers(0, 14))):
        one = BrokerTransaction(
            f"r{place}",
            draw(st.sampled_from("xy")),
            draw(days),
            draw(st.sampled_from([*BROKER_ACTIONS, "buy", "sell", "buy", "sell", "transfer", "split", "reinvestment"])),
            draw(securities),
            draw(shares),
            draw(st.sampled_from([None, None, D(0), D("12.5")])),
            draw(money),
            draw(charges),
            draw(charges),
            draw(st.sampled_from(["USD", "USD", "USD", "GBP"])),
            draw(st.sampled_from([None, None, D(2), D("0.1"), D(3)])),
            place=place,
        )
        found += draw(st.sampled_from([[one]] * 3 + [[one, copy_of(one)], [one, other_side(one)]]))
    return found


def copy_of(one: BrokerTransaction) -> BrokerTransaction:
    return BrokerTransaction(*[f"{one.id}-again", *fields(one)[1:]])


def other_side(one: BrokerTransaction) -> BrokerTransaction:
    values = fields(one)
    values[0], values[1], values[2] = f"{one.id}-side", "y" if one.account == "x" else "x", one.day + 1
    values[5], values[7] = -one.quantity, -one.cash
    return BrokerTransaction(*values)


def fields(one: BrokerTransaction) -> list[Any]:
    return [getattr(one, name) for name in BrokerTransaction.__dataclass_fields__]


@st.composite
def worlds(draw: Any) -> BrokerData:
    """Anything a broker might say, however impossible."""
    held = draw(
        st.dictionaries(st.tuples(st.sampled_from("xy"), st.sampled_from([*INSTRUMENTS])), shares.map(abs), max_size=5)
    )
    holdings = []
    for (account, security), quantity in held.items():
        short = draw(st.booleans()) and draw(st.booleans())
        cost = draw(st.sampled_from([None, D(0), D(500), D("1234.56")]))
        price = draw(st.sampled_from([None, D(11)]))
        currency = SECURITIES[security].currency
        holdings.append(BrokerHolding(account, security, -quantity if short else quantity, price, LAST, cost, currency))
    purses = st.tuples(st.sampled_from("xy"), st.sampled_from(["USD", "GBP"]))
    points = []
    for _ in range(draw(st.integers(0, 4))):
        security = draw(st.sampled_from([*INSTRUMENTS, "a", None]))
        quantity = draw(shares.map(abs) if security else money)
        points.append(Waypoint(draw(days), draw(st.sampled_from("xy")), quantity, security))
    return BrokerData(
        LAST,
        FIRST,
        {"x": BrokerAccount("x", "X"), "y": BrokerAccount("y", "Y")},
        SECURITIES,
        tuple(holdings),
        draw(st.dictionaries(purses, money, max_size=4)),
        tuple(draw(rows())),
        tuple(sorted(points, key=lambda one: one.day)),
    )


@st.composite
def true_worlds(draw: Any) -> tuple[BrokerData, MarketData, dict[tuple[str, Instrument], D], dict[str, D]]:
    """A broker that says everything right from `FIRST` on, with what was held and the money before it."""
    market = draw(markets(("2", "4", "10")))
    ratios = {
        (instrument, action.ex_date): D(str(action.value))
        for instrument, column in market.prices.items()
        for action in column.actions
    }
    held = {(a, s): D(draw(st.integers(0, 30))) for a in "xy" for s in ("a", "b", "p")}
    cash = {a: D(draw(st.integers(0, 500))) for a in "xy"}
    before = {(ACCOUNTS[a], INSTRUMENTS[s]): q for (a, s), q in held.items()}, {ACCOUNTS[a]: c for a, c in cash.items()}
    ops = draw(st.lists(st.tuples(st.integers(FIRST, LAST), operations), max_size=25))
    found: list[BrokerTransaction] = []
    points = []
    noted = draw(st.sets(st.integers(FIRST - 1, LAST - 1), max_size=3))
    for day in range(FIRST - 1, LAST + 1):
        for account, security in held:
            held[account, security] *= ratios.get((INSTRUMENTS[security], day), 1) if day >= FIRST else 1
        for at, operation in ops:
            if at == day:
                found += _done(len(found), day, operation, held, cash)
        if day in noted:
            points += [Waypoint(day, a, q, s) for (a, s), q in held.items()]
            points += [Waypoint(day, a, c) for a, c in cash.items()]
    holdings = tuple(BrokerHolding(a, s, q) for (a, s), q in held.items() if q)
    accounts = {"x": BrokerAccount("x", "X"), "y": BrokerAccount("y", "Y")}
    purses = {(a, "USD"): c for a, c in cash.items()}
    data = BrokerData(LAST, FIRST, accounts, SECURITIES, holdings, purses, tuple(found), tuple(points))
    return data, market, *before


operations = st.tuples(
    st.sampled_from(["buy", "buy", "sell", "dividend", "reinvestment", "cash", "out", "move", "interest", "merger"]),
    st.sampled_from("xy"),
    st.sampled_from(["a", "b", "p"]),
    st.integers(1, 12_000).map(lambda n: D(n) / 1000),
    st.integers(1, 90_00).map(lambda n: D(n) / 100),
)


def _done(
    place: int, day: int, operation: Any, held: dict[tuple[str, str], D], cash: dict[str, D]
) -> list[BrokerTransaction]:
    """The rows of an operation, and none where there is too little for it."""
    kind, account, security, quantity, value = operation
    other = "y" if account == "x" else "x"
    key = account, security

    def row(number: int, action: Any, of: str, quantity: D = D(0), cash: D = D(0), on: Any = security) -> Any:
        return BrokerTransaction(
            f"r{place + number}", of, day, action, on, quantity, None, cash, place=place + number, currency="USD"
        )

    if kind == "buy" and cash[account] >= value:
        held[key] += quantity
        cash[account] -= value
        return [row(0, "buy", account, quantity, -value)]
    if kind == "sell" and held[key] >= quantity:
        held[key] -= quantity
        cash[account] += value
        return [row(0, "sell", account, -quantity, value)]
    if kind in ("dividend", "interest", "cash"):
        cash[account] += value
        return [row(0, kind, account, cash=value, on=None if kind == "cash" else security)]
    if kind == "reinvestment":
        held[key] += quantity
        return [row(0, "dividend", account, cash=value), row(1, "reinvestment", account, quantity, -value)]
    if kind == "merger" and security != "b" and held[key] >= quantity:
        held[key] -= quantity
        held[account, "b"] += 2 * quantity
        cash[account] += value
        went, came = row(0, "merger", account, -quantity), row(1, "merger", account, 2 * quantity, on="b")
        return [went, came, row(2, "return_of_capital", account, cash=value)]
    if kind == "out" and held[key] >= quantity:
        held[key] -= quantity
        return [row(0, "transfer", account, -quantity)]
    if kind == "move" and held[key] >= quantity:
        held[key] -= quantity
        held[other, security] += quantity
        return [row(0, "transfer", account, -quantity), row(1, "transfer", other, quantity)]
    return []
