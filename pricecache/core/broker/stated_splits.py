"""Splits that a broker's rows state of what only the broker prices: of the instrument, in whichever account told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from pricecache.core.actions import Action
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import SPLIT_SESSIONS, Transaction
from pricecache.core.lots import ratio_of
from pricecache.core.marketdata import MarketData, PriceColumn

Splits = Mapping[Instrument, Sequence[Action]]
_LEAST = Decimal("1.25")
"""What makes less of a difference, up or down, is a dividend in shares: each account has its own."""


class OtherAccount(NamedTuple):
    """`account` has `instrument` since before `day`, and no row of the split that another account has then."""

    account: str
    instrument: Instrument
    day: int


def without_splits_of(market: MarketData, source: str) -> MarketData:
    """`market` without the splits that `source` has told of. Pure."""
    found = {
        one: replace(column, actions=tuple(action for action in column.actions if action.source != source))
        for one, column in market.prices.items()
        if any(action.source == source for action in column.actions)
    }
    return replace(market, prices={**market.prices, **found}) if found else market


def with_splits(market: MarketData, splits: Splits) -> MarketData:
    """`market` with `splits` of instruments that it has. Pure."""
    found = {one: _with(market.prices[one], actions) for one, actions in splits.items() if one in market.prices}
    return replace(market, prices={**market.prices, **found}) if found else market


def _with(column: PriceColumn, actions: Iterable[Action]) -> PriceColumn:
    return replace(column, actions=tuple(sorted((*column.actions, *actions), key=lambda one: one.ex_date)))


def stated_splits(rows: Iterable[Transaction], market: MarketData, source: str) -> dict[Instrument, list[Action]]:
    """Those of instruments without a provider's prices, by the splits of a ledger; `source` is their source.

    The same ratio of several accounts, at most `SPLIT_SESSIONS` days apart, is one split, of the first of its days. One
    that `market` has is not told again. Pure.
    """
    told: dict[Instrument, list[Transaction]] = {}
    for row in rows:
        one = row.instrument if _is_shown(row) else None
        if one is not None and one in market.prices and not one.place.has_provider:
            told.setdefault(one, []).append(row)
    found = {one: _of_one(several, market.prices[one].actions, source) for one, several in told.items()}
    return {one: actions for one, actions in found.items() if actions}


def _of_one(rows: Iterable[Transaction], known: Iterable[Action], source: str) -> list[Action]:
    free = [one for one in rows if not any(_is_near(one, action.ex_date) for action in known)]
    return [Action(day, "split", float(ratio_of(ratio)), source=source) for day, ratio in one_by_one(free)]


def one_by_one(rows: Iterable[Transaction]) -> list[tuple[int, Decimal]]:
    """Day and ratio of each split of one instrument that several accounts have rows of. Pure."""
    found: list[tuple[int, Decimal, set[str]]] = []
    for row in sorted(rows, key=lambda one: (one.day, one.account)):
        assert row.ratio is not None
        same = (one for one in found if one[1] == row.ratio and _is_near(row, one[0]) and row.account not in one[2])
        one = next(same, None)
        if one is None:
            found.append((row.day, row.ratio, {row.account}))
        else:
            one[2].add(row.account)
    return [(day, ratio) for day, ratio, _ in found]


def _is_shown(row: Transaction) -> bool:
    return row.type == "split" and row.ratio is not None and not 1 / _LEAST < row.ratio < _LEAST


def _is_near(row: Transaction, day: int) -> bool:
    return abs(row.day - day) <= SPLIT_SESSIONS


def other_accounts(
    rows: Collection[Transaction], held_from: Mapping[tuple[str, Instrument], int], market: MarketData
) -> list[OtherAccount]:
    """Where the splits of `rows`, a ledger, concern accounts without a row of them. `held_from`: since when each has
    what it has. Splits that a provider of `market` has are everybody's anyway. Pure."""
    found = []
    by_instrument: dict[Instrument, list[Transaction]] = {}
    for row in rows:
        if _is_shown(row) and row.instrument is not None and not _is_providers(row, market):
            by_instrument.setdefault(row.instrument, []).append(row)
    for (account, instrument), since in held_from.items():
        splits = by_instrument.get(instrument, [])
        own = [row for row in splits if row.account in (account, "")]
        for day, _ in one_by_one(splits):
            if since < day and not any(_is_near(row, day) for row in own):
                found.append(OtherAccount(account, instrument, day))
    return found


def _is_providers(row: Transaction, market: MarketData) -> bool:
    assert row.instrument is not None
    column = market.prices.get(row.instrument)
    known = column.actions if column is not None and row.instrument.place.has_provider else ()
    return any(action.kind == "split" and _is_near(row, action.ex_date) for action in known)
