"""What brokers say, drawn at random: right, wrong, twice, and in every order."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pricecache.core.actions import Action
from pricecache.core.broker import (
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
