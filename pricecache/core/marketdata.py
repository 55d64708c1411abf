"""What the portfolio engine is given of the market: prices, splits and exchange rates as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action
from pricecache.core.currencies import major, unit
from pricecache.core.instruments import Instrument
from pricecache.core.lots import ratio_of

ONE = Decimal(1)
NEVER = 1 << 40
"""A day that does not come."""
UNKNOWN = Decimal("NaN")

_NONE: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Values of one series on its sessions: prices as traded, or rates.

    `sessions`: int64, ascending, days since 1970-01-01. `values`: float64, finite, of the same length. `due`: int64,
    ascending, the sessions there should be a value for. A day without a session carries the last value. `first`: the
    first session, `NEVER` without any.
    """

    sessions: NDArray[np.int64]
    values: NDArray[np.float64]
    due: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    first: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", int(self.sessions[0]) if len(self.sessions) else NEVER)

    def at(self, day: int) -> tuple[int, float] | None:
        """The last session up to `day` and its value, or None before the first."""
        i = int(self.sessions.searchsorted(day, side="right")) - 1
        return (int(self.sessions[i]), float(self.values[i])) if i >= 0 else None


@dataclass(frozen=True, slots=True, eq=False)
class PriceColumn:
    """Closes of one instrument as traded, in `currency` (`GBp` stays pence), and its splits and rebases."""

    closes: Column
    currency: str
    actions: tuple[Action, ...] = ()

    def price_on(self, day: int) -> tuple[int, float] | None:
        """The last session up to `day` and its close in units of `day`, or None before the first."""
        found = self.closes.at(day)
        if found is None:
            return None
        session, price = found
        return session, price / self.ratio(session, day)

    def ratio(self, after: int, until: int) -> float:
        """The product of the splits and rebases that take effect after day `after`, up to day `until`."""
        product = 1.0
        for action in self.actions:
            if action.kind != "dividend" and after < action.ex_date <= until:
                product *= action.value
        return product


@dataclass(frozen=True, slots=True, eq=False)
class MarketData:
    """Everything the engine may know of the market. `rates`: by whole currency (`GBP`, never `GBp`), how much of the
    portfolio's base currency one of it is; the base currency itself need not be there."""

    prices: Mapping[Instrument, PriceColumn] = field(default_factory=dict)
    rates: Mapping[str, Column] = field(default_factory=dict)

    def currency_of(self, instrument: Instrument) -> str:
        column = self.prices.get(instrument)
        return column.currency if column is not None else instrument.currency

    def splits(self, instrument: Instrument, after: int = -NEVER, until: int = NEVER) -> list[tuple[int, Fraction]]:
        """`(ex-date, ratio)`, ascending, of those that take effect after day `after`, up to day `until`."""
        column = self.prices.get(instrument)
        actions = column.actions if column is not None else ()
        found = (one for one in actions if one.kind == "split" and after < one.ex_date <= until)
        return sorted((one.ex_date, ratio_of(one.value)) for one in found)

    def rate(self, currency: str, base: str, day: int) -> Decimal:
        """Base currency for one of `currency` on `day`, the last one known; a NaN when there is none. Never a guess."""
        whole = major(currency)
        if whole == base:
            return unit(currency)
        column = self.rates.get(whole)
        found = column.at(day) if column is not None else None
        return Decimal(repr(found[1])) * unit(currency) if found is not None else UNKNOWN
