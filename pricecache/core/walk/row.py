"""A row of a broker's as it concerns the ledger, and what its shares were worth."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from pricecache.core.broker.data import BrokerTransaction
from pricecache.core.instruments import Instrument
from pricecache.core.walk.prices import BrokerPrices

Key = tuple[str, Instrument]
"""An account of the ledger and what is held in it."""


class BrokerRow(NamedTuple):
    """`account`: the ledger's. `instrument`: None for money."""

    row: BrokerTransaction
    account: str
    instrument: Instrument | None
    quantity: Decimal
    cash: Decimal


Placed = tuple[int, BrokerRow]
"""With its place among all rows."""


def worth_of(one: BrokerRow, prices: BrokerPrices) -> tuple[Decimal, str]:
    """What the shares of a row that names no money are worth, and the currency of that."""
    assert one.instrument is not None
    if one.row.price:
        return one.row.price * abs(one.quantity), one.row.currency
    price = prices.on(one.instrument, one.row.day)
    return price.price * abs(one.quantity), price.currency
