"""What is kept of the values of brokers beside ours, as JSON takes it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pricecache.core.bars import day_of
from pricecache.core.broker.data import BrokerAccount
from pricecache.core.broker.values import Comparison, PriceDifference, Values


def comparison_fields(found: Comparison, accounts: Mapping[str, str]) -> dict[str, Any]:
    """By snake_case name. `accounts`: the ledger's account by the broker's."""
    return {
        "day": day_of(found.day).isoformat(),
        "currency": found.currency,
        **_values(found.total),
        "accounts": [
            {"account_id": accounts[one.id], **_account(one, found.day), **_values(values)}
            for one, values in found.accounts
        ],
        "prices": [_price(one) for one in found.prices],
        "prices_total": found.prices_total,
    }


def _account(one: BrokerAccount, day: int) -> dict[str, Any]:
    return {
        "name": one.name,
        "as_of": day_of(day if one.told_on is None else one.told_on).isoformat(),
        "balance": _number(one.balance),
        "balance_currency": one.currency,
    }


def _values(values: Values) -> dict[str, Any]:
    return {
        "broker_value": _number(values.broker_value),
        "value": _number(values.value),
        "difference": _number(values.difference),
        "reasons": dict(values.reasons),
    }


def _price(one: PriceDifference) -> dict[str, Any]:
    return {
        "symbol": one.instrument.symbol,
        "market": one.instrument.market,
        "broker_price": float(one.broker_price),
        "broker_price_date": day_of(one.broker_day).isoformat(),
        "broker_currency": one.broker_currency,
        "price": float(one.price),
        "price_date": day_of(one.day).isoformat(),
        "currency": one.currency,
        "difference_percent": round(float(one.share) * 100, 2),
    }


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)
