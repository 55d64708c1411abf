"""The walk of what only a broker prices: its splits are of all accounts, and its rows say prices where nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from pricecache.core.broker.carried_prices import divided, in_units_of_their_day
from pricecache.core.broker.data import BrokerData
from pricecache.core.broker.stated_splits import Splits, other_accounts, stated_splits, with_splits, without_splits_of
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Rules
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.walk.findings import Finding
from pricecache.core.walk.made_prices import made_prices
from pricecache.core.walk.reconstruction import CONTRADICTIONS, Reconstruction, reconstruct

Prices = Mapping[Instrument, Mapping[int, Decimal]]
"""By instrument and day, in the currency of the instrument."""


@dataclass(frozen=True, slots=True)
class BrokerPriced:
    """`found`: the ledger. `splits` and `prices`: what it makes known of instruments that only the broker prices, all
    splits of its source, and the prices that were not known."""

    found: Reconstruction
    splits: Splits
    prices: Prices


@dataclass(frozen=True, slots=True)
class WalkGiven:
    """What `reconstruct` takes but the market."""

    data: BrokerData
    instruments: Mapping[str, Instrument]
    accounts: Mapping[str, str]
    prefix: str
    rules: Rules

    def walk(self, market: MarketData) -> Reconstruction:
        return reconstruct(self.data, self.instruments, self.accounts, market, self.prefix, rules=self.rules)


def broker_priced(given: WalkGiven, market: MarketData, source: str) -> BrokerPriced:
    """`market` may have what was made known by `source` before. A split is taken back from the other accounts where
    these contradict it: then only those with a row of it have it. Pure."""
    bare = without_splits_of(market, source)
    found = given.walk(bare)
    splits: Splits = stated_splits(found.transactions, bare, source)
    known = bare
    if splits:
        found, splits = _where_it_fits(given, bare, found, splits)
        known = with_splits(bare, splits)
    moved: Prices = divided(found.transactions, known)
    said = in_units_of_their_day(given.data, given.instruments, found.transactions, known)
    moved = {one: {**moved.get(one, {}), **said.get(one, {})} for one in {*moved, *said}}
    if moved:
        known = laid_over(known, moved)
        found = given.walk(known)
    made = made_prices(found.transactions, given.data, given.instruments, known, given.rules.currency)
    if made:
        known = laid_over(known, made)
        found = given.walk(known)  # as it will be with these prices
    prices = {one: {**made.get(one, {}), **moved.get(one, {})} for one in {*made, *moved}}
    return BrokerPriced(_told(found, known), splits, prices)


def laid_over(market: MarketData, prices: Prices) -> MarketData:
    """`market` with these prices in place of those of the same days. Pure."""
    columns = {one: _laid_over(market, one, days) for one, days in prices.items()}
    return replace(market, prices={**market.prices, **columns})


def _laid_over(market: MarketData, instrument: Instrument, days: Mapping[int, Decimal]) -> PriceColumn:
    column = market.prices.get(instrument) or PriceColumn(
        Column(np.empty(0, np.int64), np.empty(0)), market.currency_of(instrument)
    )
    closes = column.closes
    held = dict(zip(closes.sessions.tolist(), closes.values.tolist(), strict=True))
    held |= {day: float(price) for day, price in days.items()}
    sessions = np.array(sorted(held), np.int64)
    values = np.array([held[day] for day in sessions.tolist()], np.float64)
    return replace(column, closes=Column(sessions, values, closes.due))


def _where_it_fits(
    given: WalkGiven, bare: MarketData, found: Reconstruction, splits: Splits
) -> tuple[Reconstruction, Splits]:
    tried = given.walk(with_splits(bare, splits))
    before, after = _contradictions(found), _contradictions(tried)
    fitting = {one: actions for one, actions in splits.items() if after[one] <= before[one]}
    if len(fitting) == len(splits):
        return tried, splits
    return (given.walk(with_splits(bare, fitting)) if fitting else found), fitting


def _contradictions(found: Reconstruction) -> Counter[Instrument]:
    return Counter(
        one.instrument for one in found.findings if one.code in CONTRADICTIONS and one.instrument is not None
    )


def _told(found: Reconstruction, market: MarketData) -> Reconstruction:
    since = {
        (one.account, one.instrument): one.first_day
        for one in found.positions
        if one.first_day is not None and one.quantity
    }
    more = [_finding(*one, market) for one in other_accounts(found.transactions, since, market)]
    if not more:
        return found
    return replace(found, findings=tuple(sorted((*found.findings, *more), key=lambda one: one.day)))


def _finding(account: str, instrument: Instrument, day: int, market: MarketData) -> Finding:
    column = market.prices.get(instrument)
    is_applied = column is not None and any(one.kind == "split" and one.ex_date == day for one in column.actions)
    what = "it counts here, too" if is_applied else "it does not count here"
    return Finding(
        "split_of_other_account", day, account, f"Only another account has a row of this split; {what}.", instrument
    )
