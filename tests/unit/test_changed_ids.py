"""Shares that go under one id and come under another are a split, or nothing, and neither a sale nor a delivery."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.broker.data import BrokerAccount, BrokerData, BrokerHolding, BrokerSecurity
from pricecache.core.broker.data import BrokerTransaction as Row
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Rules
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.walk.reconstruction import Reconstruction, reconstruct

STOCK = Instrument("AAPL")
INSTRUMENTS = {"old": STOCK, "new": STOCK}
FIRST, LAST, EX = 1000, 1100, 1040
DAYS = np.arange(FIRST - 5, LAST + 1, dtype=np.int64)


def row(
    action: Any, quantity: int, security: str = "old", day: int = EX, cash: int = 0, note: str | None = None
) -> Row:
    name = f"{action}{quantity}{security}{day}"
    return Row(name, "x", day, action, security, D(quantity), None, D(cash), note=note)


def walked(*rows: Row, held: int, ratio: float | None = None) -> Reconstruction:
    closes = np.where(DAYS >= EX, 100.0, 100.0 * (ratio or 1))
    actions = () if ratio is None else (Action(EX, "split", ratio),)
    market = MarketData({STOCK: PriceColumn(Column(DAYS, closes, DAYS), "USD", actions)})
    securities = {name: BrokerSecurity(name) for name in INSTRUMENTS}
    holdings = (BrokerHolding("x", "new", D(held)),)
    placed = tuple(sorted(rows, key=lambda one: one.day))
    data = BrokerData(LAST, FIRST, {"x": BrokerAccount("x", "x")}, securities, holdings, {}, placed)
    return reconstruct(data, INSTRUMENTS, {"x": "x"}, market, "c", rules=Rules())


def shares(found: Reconstruction) -> list[tuple[str, D | None, D | None]]:
    return [(one.type, one.quantity, one.ratio) for one in found.transactions if one.instrument is not None]


REVERSE = [("opening", D(100), None), ("split", None, D("0.1"))]


@pytest.mark.parametrize("days", [0, 1])
@pytest.mark.parametrize(
    "kinds", ["transfer transfer", "merger merger", "split split", "adjustment adjustment", "sell buy"]
)
def test_out_of_one_id_and_into_another_by_the_markets_ratio_is_its_split(kinds: str, days: int) -> None:
    out, into = kinds.split()
    found = walked(row(out, -100), row(into, 10, "new", EX + days), held=10, ratio=0.1)
    assert shares(found) == REVERSE


def test_a_fraction_that_was_paid_out_makes_it_no_other() -> None:
    found = walked(row("transfer", -105), row("transfer", 10, "new"), held=10, ratio=0.1)
    assert [one[0] for one in shares(found)][:2] == ["opening", "split"]
    assert found.transactions[0].quantity == 105


def test_under_one_id_only_the_markets_split_tells() -> None:
    rows = row("transfer", -100), row("transfer", 10)
    assert shares(walked(*rows, held=10, ratio=0.1)) == REVERSE
    assert [one[0] for one in shares(walked(*rows, held=10))] == ["opening", "transfer_in", "transfer_out"]


def test_without_a_split_of_the_markets_the_names_of_the_rows_tell() -> None:
    found = walked(row("merger", -100), row("merger", 10, "new", EX + 1), held=10)
    assert shares(found) == REVERSE
    delivered = walked(row("transfer", -100), row("transfer", 10, "new"), held=10)
    assert [one[0] for one in shares(delivered)] == ["opening", "transfer_in", "transfer_out"]


@pytest.mark.parametrize("kind", ["transfer", "merger"])
def test_as_many_under_another_id_some_days_later_are_the_same_shares(kind: Any) -> None:
    found = walked(row(kind, -10), row(kind, 4, "new", EX + 1), row(kind, 6, "new", EX + 1), held=10)
    assert shares(found) == [("opening", D(10), None)]


def test_trades_and_what_lies_further_apart_stand() -> None:
    sold = walked(row("sell", -100, cash=10000), row("buy", 10, "new", cash=-1000), held=10, ratio=0.1)
    assert [one[0] for one in shares(sold)] == ["opening", "buy", "sell"]
    apart = walked(row("transfer", -10, day=EX - 20), row("transfer", 10, "new"), held=10)
    assert [one[0] for one in shares(apart)] == ["opening", "transfer_out", "transfer_in"]


@pytest.mark.parametrize("kind", ["transfer", "buy"])
def test_new_shares_that_came_alone_are_the_markets_split_where_their_note_says_split(kind: Any) -> None:
    found = walked(row(kind, 10, note="STOCK SPLIT"), held=20, ratio=2.0)
    assert shares(found) == [("opening", D(10), None), ("split", None, D(2))]
    other = walked(row(kind, 10, note="delivered"), held=20, ratio=2.0)
    assert shares(other) != shares(found)
