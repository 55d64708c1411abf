"""The value events of a portfolio: made from its summary first, brought up to later figures after that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import orjson

from pricecache.core.bars import day_of
from pricecache.core.instruments import Instrument
from pricecache.core.live_figures import Figures, Told
from pricecache.realtime.day_ranges import RangeNow
from pricecache.realtime.messages import instant

Event = dict[str, Any]
ACCOUNT = "account"
_MOVING = {"changeFromOpen", "changeFromOpenPercent", "dayChangePercent", "weight", "dayHigh", "dayLow"}
"""Of which the reasons may be others with other prices."""


@dataclass(frozen=True, slots=True)
class PriceNow:
    """Of one position: `price` in its own currency, of the session of day `date`, when it was made (`at`, seconds since
    1970 UTC) and whose it is; `session`, `previous`: the latest session of its market, and the one before. Days are
    days since 1970-01-01."""

    price: float | None
    date: int | None
    at: float | None
    source: str | None
    is_stale: bool
    session: int | None
    previous: int | None


def key_of(instrument: Instrument) -> str:
    """Under which its position is kept among the values of a portfolio."""
    return f"position:{instrument.key}"


def values_of(summary: Mapping[str, Any]) -> dict[str, Event]:
    """The values of a portfolio by key, from the fields that `GET /api/portfolio/summary` answers."""
    positions = summary["positions"]
    values: dict[str, Event] = {ACCOUNT: {"type": "account:updated", **_without(summary, "positions", "name")}}
    for position in positions:
        key = f"position:{position['symbol']}:{position['market']}"
        values[key] = {"type": "position:updated", **{name: _plain(value) for name, value in position.items()}}
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
    currencies: Sequence[str],
    prices: Iterable[PriceNow],
    ranged: RangeNow | None,
    now: float,
) -> dict[str, Event]:
    """`values` with the figures of the portfolio at place `at`, whose positions are `instruments` at `prices`, and
    which has cash in `currencies`."""
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
            "priceDate": _day(price.date),
            "session": _day(price.session),
            "previousSession": _day(price.previous),
            "priceTime": None if price.at is None else _second(price.at),
            "source": price.source,
            "stale": price.is_stale,
            **_told(figures.positions, number, "value"),
            "weight": _number(figures.weight[number]),
        }
        _explain(found[key], before, "no_open")
    before, balances = values[ACCOUNT], _balances(figures, at, currencies)
    found[ACCOUNT] = {
        **before,
        "asOf": _second(now),
        **_told(figures.totals, at, "totalValue", "totalUnrealizedGainLoss"),
        "totalGainLoss": _number(figures.gain[at]),
        "cash": _number(figures.cash[at]),
        "cashBalances": [
            {**one, "value": balances.get(one["currency"], one["value"])} for one in before["cashBalances"]
        ],
        "dayFlow": _number(figures.totals.flow[at]),
        "dayChangeParts": {
            "positions": _number(figures.of_positions[at]),
            "cash": _number(figures.of_cash[at]),
            "other": _number(figures.other[at]),
        },
        **_range(ranged),
        **_age(found, instruments, prices),
    }
    _explain(found[ACCOUNT], before, "some_values_unknown", is_opened=bool(figures.is_opened[at]))
    return found


def _balances(figures: Figures, at: int, currencies: Sequence[str]) -> dict[str, float]:
    start, end = int(figures.cash_starts[at]), int(figures.cash_starts[at + 1])
    return dict(zip(currencies, figures.balances[start:end].tolist(), strict=True))


def _explain(event: Event, before: Event, unopened: str, *, is_opened: bool = True) -> None:
    """Why some of its figures are null, or of what is known only."""
    reasons = {name: why for name, why in before.get("reasons", {}).items() if name not in _MOVING}
    if event["changeFromOpen"] is None or not is_opened:
        reasons["changeFromOpen"] = unopened
    for name in ("dayChange", "changeFromOpen"):
        if event[f"{name}Percent"] is None:
            reasons[f"{name}Percent"] = reasons.get(name, "no_capital")
    if "weight" in event and event["weight"] is None:
        reasons["weight"] = "no_capital"
    event.pop("reasons", None)
    if reasons or event["type"] == "account:updated":
        event["reasons"] = reasons


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


def _plain(value: Any) -> Any:
    """A number where the summary has all digits of one, so that events can be compared."""
    return orjson.loads(orjson.dumps(value)) if isinstance(value, orjson.Fragment) else value


def _second(seconds: float) -> str:
    """As the summary has it."""
    return instant(int(seconds))


def _day(day: int | None) -> str | None:
    return None if day is None else day_of(day).isoformat()


def _number(figure: float) -> float | None:
    return None if isnan(figure) else float(figure)


def _without(fields: Mapping[str, Any], *names: str) -> Event:
    return {name: value for name, value in fields.items() if name not in names}
