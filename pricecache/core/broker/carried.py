"""What is held in accounts that nothing was said of since, in the units that it is in by the day of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod

from pricecache.core.broker.data import BrokerData, BrokerHolding
from pricecache.core.instruments import Instrument
from pricecache.core.lots import scaled
from pricecache.core.marketdata import MarketData


def carried(data: BrokerData, instruments: Mapping[str, Instrument], market: MarketData) -> BrokerData:
    """`data` with the splits that the market had since the last word of an account. `instruments`: by the broker's
    security. Pure."""
    told = {name: one.told_on for name, one in data.accounts.items() if one.told_on is not None}
    if not told:
        return data

    def brought(one: BrokerHolding) -> BrokerHolding:
        if one.account not in told:
            return one
        splits = market.splits(instruments[one.security], told[one.account], data.day)
        return replace(one, quantity=scaled(one.quantity, prod((ratio for _, ratio in splits), start=Fraction(1))))

    return replace(data, holdings=tuple(map(brought, data.holdings)))
