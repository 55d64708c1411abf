"""The value events of a portfolio: made from its summary first, brought up to later figures after that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from pricecache.core.instruments import Instrument
from pricecache.core.live_figures import Figures, Told
from pricecache.realtime.day_ranges import RangeNow
from pricecache.realtime.messages import instant

Event = dict[str, Any]
ACCOUNT = "account"


@dataclass(frozen=True, slots=True)
class PriceNow:
    """Of one position: `price` in its own currency, when it was made and from when on it is stale (seconds since 1970
    UTC), and whose it is."""

    price: float | None
    at: float | None
    source: str | None
    is_stale: bool


def key_of(instrument: Instrument) -> str:
    """Under which its position is kept among the values of a portfolio."""
    return f"position:{instrument.key}"


def values_of(summary: Mapping[str, Any]) -> dict[str, Event]:
    """The values of a portfolio by key, from the fields that `GET /api/portfolio/summary` answers."""
    positions = summary["positions"]
    values: dict[str, Event] = {ACCOUNT: {"type": "account:updated", **_without(summary, "positions", "name")}}
    for position in positions:
        values[f"position:{position['symbol']}:{position['market']}"] = {"type": "position:updated", **position}
    return values


def gone(event: Event) -> Event:
    """A position that is there no more."""
    return {**event, "quantity": 0.0, "value": 0.0, "weight": 0.0, "unrealizedGainLoss": 0.0}


def changed(before: Mapping[str, Event], after: Mapping[str, Event]) -> dict[str, Event]:
    """What of `after` is other than it was, and what is gone."""
    found = {key: event for key, event in after.items() if before.get(key) != event}
    if set(found) == {ACCOUNT} and ACCOUNT in before:
        was, now = before[ACCOUNT], after[ACCOUNT]
        if {**was, "asOf": None} == {**now, "asOf": None}:
            return {}
    return found | {key: gone(event) for key, event in before.items() if key not in after and key != ACCOUNT}


def brought_up(
    values: Mapping[str, Event],
    figures: Figures,
    at: int,
    instruments: Sequence[Instrument],
    prices: Iterable[PriceNow],
    ranged: RangeNow | None,
    now: float,
) -> dict[str, Event]:
    """`values` with the figures of the portfolio at place `at`, whose positions are `instruments` at `prices`."""
    start, prices = int(figures.starts[at]), list(prices)
    found = dict(values)
    for number, (instrument, price) in enumerate(zip(instruments, prices, strict=True), start):
        key = key_of(instrument)
        before = values.get(key)
        if before is None:
            continue
        found[key] = {
            **before,
            "price": price.price,
            "priceTime": None if price.at is None else _second(price.at),
            "source": price.source,
            "stale": price.is_stale,
            **_told(figures.positions, number, "value"),
            "weight": _number(figures.weight[number]),
        }
    found[ACCOUNT] = {
        **values[ACCOUNT],
        "asOf": _second(now),
        **_told(figures.totals, at, "totalValue", "totalUnrealizedGainLoss"),
        "totalGainLoss": _number(figures.gain[at]),
        "cash": _number(figures.cash[at]),
        "dayFlow": _number(figures.totals.flow[at]),
        "dayChangeParts": {
            "positions": _number(figures.of_positions[at]),
            "cash": _number(figures.of_cash[at]),
            "other": _number(figures.other[at]),
        },
        **_range(ranged),
        **_age(found, instruments, prices),
    }
    return found


def _age(found: Mapping[str, Event], instruments: Sequence[Instrument], prices: Sequence[PriceNow]) -> Event:
    held = [
        price
        for instrument, price in zip(instruments, prices, strict=True)
        if found.get(key_of(instrument), {}).get("quantity")
    ]
    times = [price.at for price in held if price.at is not None]
    return {
        "stale": any(price.is_stale for price in held),
        "oldestPriceTime": _second(min(times)) if times else None,
    }


def _range(ranged: RangeNow | None) -> Event:
    if ranged is None:
        return {"dayHigh": None, "dayLow": None, "dayRangeSince": None}
    return {"dayHigh": ranged.high, "dayLow": ranged.low, "dayRangeSince": _second(ranged.since)}


def _told(told: Told, at: int, value: str, unrealized: str = "unrealizedGainLoss") -> Event:
    return {
        value: _number(told.value[at]),
        unrealized: _number(told.unrealized[at]),
        "previousValue": _number(told.before[at]),
        "dayChange": _number(told.change[at]),
        "dayChangePercent": _number(told.percent[at]),
        "changeFromOpen": _number(told.from_open[at]),
        "changeFromOpenPercent": _number(told.percent_from_open[at]),
    }


def _second(seconds: float) -> str:
    """As the summary has it."""
    return instant(int(seconds))


def _number(figure: float) -> float | None:
    return None if isnan(figure) else float(figure)


def _without(fields: Mapping[str, Any], *names: str) -> Event:
    return {name: value for name, value in fields.items() if name not in names}
