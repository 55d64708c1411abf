"""The value events of a portfolio: made from its summary first, brought up to later figures after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from math import isnan
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pricecache.core.bars import day_of
from pricecache.core.instruments import Instrument
from pricecache.core.live_figures import Figures
from pricecache.realtime.day_ranges import RangeNow
from pricecache.realtime.messages import instant

Event = dict[str, Any]
ACCOUNT = "account"
_MOVING = {"changeFromOpen", "changeFromOpenPercent", "dayChangePercent", "dayHigh", "dayLow"}
"""Of which the reasons may be others with other prices."""
_FIELDS = {
    "value": "value",
    "unrealizedGainLoss": "unrealized",
    "previousValue": "before",
    "dayChange": "change",
    "dayChangePercent": "percent",
    "changeFromOpen": "from_open",
    "changeFromOpenPercent": "percent_from_open",
}
"""Of a position that move with prices, and what of `Told` they are."""
_AS_TOTAL = {"value": "totalValue", "unrealizedGainLoss": "totalUnrealizedGainLoss"}
_DERIVED = {"weight"}
"""Fields of a position that each price of any other one moves: value ÷ totalValue is for whoever shows it."""


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
        fields = {name: _plain(value) for name, value in _without(position, "reasons", *_DERIVED).items()}
        reasons = _without(position.get("reasons", {}), *_DERIVED)
        values[key] = {"type": "position:updated", **fields, **({"reasons": reasons} if reasons else {})}
    return values


def gone(event: Event) -> Event:
    """A position that is there no more."""
    return {**event, "quantity": 0.0, "value": 0.0, "unrealizedGainLoss": 0.0}


def changed(before: Mapping[str, Event], after: Mapping[str, Event]) -> dict[str, Event]:
    """What of `after` is other than it was, and what is gone. When an account was looked at is no change of it."""
    found = {key: event for key, event in after.items() if not _is_same(before.get(key), event)}
    return found | {key: gone(event) for key, event in before.items() if key not in after and key != ACCOUNT}


@dataclass(slots=True, eq=False)
class Positions:
    """The positions of a portfolio as listeners know them: their keys, whether some of it is held, the currencies there
    is cash in, and of each position the price and the figures that were told last, None where nothing was."""

    keys: tuple[str, ...] = ()
    held: tuple[bool, ...] = ()
    currencies: tuple[str, ...] = ()
    told: list[tuple[PriceNow, tuple[float | None, ...]] | None] = field(default_factory=list)


def brought_up(
    values: Mapping[str, Event],
    figures: Figures,
    at: int,
    positions: Positions,
    prices: Sequence[PriceNow],
    ranged: RangeNow | None,
    now: float,
) -> dict[str, Event]:
    """What of `values` is other than it was with the figures of the portfolio at place `at`, whose `positions` have
    these `prices`. What is told is noted in `positions`."""
    start, end = int(figures.starts[at]), int(figures.starts[at + 1])
    rows = list(zip(*(_numbers(getattr(figures.positions, name)[start:end]) for name in _FIELDS.values()), strict=True))
    found: dict[str, Event] = {}
    for place, (key, price, row) in enumerate(zip(positions.keys, prices, rows, strict=True)):
        told = positions.told[place]
        if told is not None and told[0] is price and told[1] == row:
            continue
        positions.told[place] = price, row
        before = values.get(key)
        if before is not None and (event := _position(before, price, row)) != before:
            found[key] = event
    account = _account(values, figures, at, positions, prices)
    account |= _range(ranged)
    _explain(account, values[ACCOUNT], "some_values_unknown", is_opened=bool(figures.is_opened[at]))
    if found or not _is_same(values[ACCOUNT], account):
        found[ACCOUNT] = {**account, "asOf": _second(now)}
    return found


def _position(before: Event, price: PriceNow, row: tuple[float | None, ...]) -> Event:
    event = {
        **before,
        "price": price.price,
        "priceDate": _day(price.date),
        "session": _day(price.session),
        "previousSession": _day(price.previous),
        "priceTime": None if price.at is None else _second(price.at),
        "source": price.source,
        "stale": price.is_stale,
        **dict(zip(_FIELDS, row, strict=True)),
    }
    _explain(event, before, "no_open")
    return event


def _account(
    values: Mapping[str, Event], figures: Figures, at: int, positions: Positions, prices: Sequence[PriceNow]
) -> Event:
    before, balances = values[ACCOUNT], _balances(figures, at, positions.currencies)
    totals = {_AS_TOTAL.get(name, name): _number(getattr(figures.totals, of)[at]) for name, of in _FIELDS.items()}
    return {
        **before,
        **totals,
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
        **_age(positions, prices),
    }


def _is_same(before: Event | None, after: Event) -> bool:
    if before is None or before["type"] != "account:updated":
        return before == after
    return {**before, "asOf": None} == {**after, "asOf": None}


def _balances(figures: Figures, at: int, currencies: Sequence[str]) -> dict[str, float]:
    start, end = int(figures.cash_starts[at]), int(figures.cash_starts[at + 1])
    return dict(zip(currencies, figures.balances[start:end].tolist(), strict=True))


def _explain(event: Event, before: Event, unopened: str, *, is_opened: bool = True) -> None:
    """Why some of its figures are null, or of what is known only."""
    reasons = {name: why for name, why in before.get("reasons", {}).items() if name not in _MOVING}
    if event["changeFromOpen"] is None or not is_opened:
        reasons["changeFromOpen"] = unopened
    if "dayHigh" in event and event["dayHigh"] is None:
        reasons |= dict.fromkeys(("dayHigh", "dayLow"), "not_tracked")
    for name in ("dayChange", "changeFromOpen"):
        if event[f"{name}Percent"] is None:
            reasons[f"{name}Percent"] = reasons.get(name, "no_capital")
    event.pop("reasons", None)
    if reasons or event["type"] == "account:updated":
        event["reasons"] = reasons


def _age(positions: Positions, prices: Sequence[PriceNow]) -> Event:
    held = list(compress(prices, positions.held))
    times = [price.at for price in held if price.at is not None]
    return {
        "stale": any(price.is_stale for price in held),
        "oldestPriceTime": _second(min(times)) if times else None,
    }


def _range(ranged: RangeNow | None) -> Event:
    if ranged is None:
        return {"dayHigh": None, "dayLow": None, "dayRangeSince": None}
    return {"dayHigh": ranged.high, "dayLow": ranged.low, "dayRangeSince": _second(ranged.since)}


def _plain(value: Any) -> Any:
    """A number where the summary has all digits of one, so that events can be compared."""
    return orjson.loads(orjson.dumps(value)) if isinstance(value, orjson.Fragment) else value


def _second(seconds: float) -> str:
    """As the summary has it."""
    return instant(int(seconds))


def _day(day: int | None) -> str | None:
    return None if day is None else day_of(day).isoformat()


def _numbers(figures: NDArray[np.float64]) -> list[float | None]:
    numbers: list[float | None] = figures.tolist()
    return [_number(one) for one in figures.tolist()] if np.isnan(figures).any() else numbers


def _number(figure: float) -> float | None:
    return None if isnan(figure) else float(figure)


def _without(fields: Mapping[str, Any], *names: str) -> Event:
    return {name: value for name, value in fields.items() if name not in names}
