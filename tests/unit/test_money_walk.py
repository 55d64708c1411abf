"""What a row does to money, as the walk backwards counts it and as the engine does it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import TYPES, Ledger, Rules, Transaction, faults
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.replay import replay
from pricecache.core.walk.money_walk import effects

A = Instrument("AAA")
DAYS = np.arange(0, 100, dtype=np.int64)
MARKET = MarketData({A: PriceColumn(Column(DAYS, np.full(100, 10.0), DAYS), "USD")})
MONEY = Transaction(1, "deposit", amount=D(1000), currency="USD", account="one")
SHARES = Transaction(1, "opening", A, D(10), D(7), currency="USD", account="one")


def row(what: Any, **facts: Any) -> Transaction:
    return Transaction(9, what, **{"currency": "USD", "account": "one", **facts})


def bought(what: str, **facts: Any) -> Transaction:
    return row(what, instrument=A, **{"quantity": D(3), "price": D(11), **facts})


def gone(what: str, **facts: Any) -> Transaction:
    return row(what, instrument=A, **{"quantity": D(3), **facts})


def paid(what: str, **facts: Any) -> Transaction:
    return row(what, **{"amount": D(50), **facts})


ROWS = [
    *(bought(one) for one in ("buy", "sell", "transfer_in", "opening", "adjustment")),
    gone("transfer_out"),
    gone("adjustment", quantity=D(-3)),
    gone("transfer_out", to_account="two"),
    gone("transfer_in", to_account="two"),
    row("split", instrument=A, ratio=D(2)),
    *(
        paid(one)
        for one in ("interest", "fee", "tax", "deposit", "withdrawal", "transfer_in", "transfer_out", "opening")
    ),
    *(paid(one, instrument=A) for one in ("dividend", "interest", "fee", "tax")),
    paid("adjustment"),
    paid("adjustment", amount=D(-50)),
    paid("transfer_out", to_account="two"),
    paid("transfer_in", to_account="two"),
]


def test_every_type_is_among_the_rows() -> None:
    assert {one.type for one in ROWS} == set(TYPES)
    assert faults(ROWS) == []


def name(one: Transaction) -> str:
    return "-".join((one.type, "shares" if one.quantity else "money", *([one.to_account] if one.to_account else ())))


@pytest.mark.parametrize("charges", [{}, {"fees": D("1.5"), "taxes": D("0.25")}], ids=["free", "charged"])
@pytest.mark.parametrize("one", ROWS, ids=name)
def test_the_walk_moves_the_money_that_the_engine_moves(one: Transaction, charges: dict[str, D]) -> None:
    one = replace(one, **charges) if one.type != "split" else one
    ledger = Ledger.of([MONEY, SHARES, one], Rules(cash_tracking=True))
    book = replay(ledger, MARKET, 20, books=[20]).books[20]
    found: dict[tuple[str, str], D] = defaultdict(D)
    for account, currency, amount in (*effects(MONEY), *effects(SHARES), *effects(one)):
        found[account, currency] += amount
    kept = {(held.account, held.currency): held.amount for held in book.cash}
    assert {purse: amount for purse, amount in found.items() if amount} == kept
