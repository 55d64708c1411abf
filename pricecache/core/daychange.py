"""How much a position changed in the latest session of its market: value, value at the close before, flows between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pricecache.core.grid import Grid
from pricecache.core.instruments import Instrument
from pricecache.core.marketdata import MarketData, PriceColumn
from pricecache.core.replay import Replayed
from pricecache.core.valuation import NET_FLOW, VALUE, Valued


@dataclass(frozen=True, slots=True)
class Session:
    """What is known of an instrument's latest session. `day`: the last one its market has opened, `previous` the one
    before it, both days since 1970-01-01. `open`: of that session, in the currency of its prices. `price_at`: when the
    price was made, seconds since 1970 UTC. `source`: whose quote it is, None for a stored close."""

    day: int
    previous: int
    open: float | None = None
    price_at: float | None = None
    source: str | None = None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """Of one scope, in base currency, not rounded; None is unknown. `before`: value at the close of the session before;
    `flow`, `inflow`: net and gross since; `at_open`: what was held before the session at its open."""

    value: float | None
    before: float | None
    flow: float | None
    inflow: float
    at_open: float | None = None


class Changes:
    """Changes of positions, from the `valued` last days by position, laid out on `grid`, in `base` currency. Pure."""

    def __init__(
        self,
        replayed: Replayed,
        valued: Valued,
        grid: Grid,
        market: MarketData,
        base: str,
        sessions: Mapping[Instrument, Session],
    ) -> None:
        self._valued, self._grid, self._market, self._base, self._sessions = valued, grid, market, base, sessions
        self._days = valued.values.shape[2]
        self._is_all = not replayed.opening.positions and not replayed.opening.cash
        self._within = [
            (replayed.keys[index][1], day - valued.start, quantity)
            for index, day, quantity, is_external in replayed.steps.moved
            if not is_external and quantity > 0
        ]

    def of(self, place: int, instrument: Instrument) -> Change:
        """Of the scope at `place`, which is `instrument` in one account."""
        column = self.column(self._sessions[instrument].previous)
        values = self._valued.values[VALUE, place]
        before = float(values[column]) if column >= 0 else 0.0
        return Change(
            known(values[-1]),
            known(before),
            known(np.add.reduce(self._valued.values[NET_FLOW, place, column + 1 :])),
            float(np.add.reduce(self._valued.inflow[place, column + 1 :])),
            self._at_open(instrument, column, before),
        )

    def column(self, day: int) -> int:
        """Where the end of `day` stands; -1 when there was nothing yet."""
        return min(max(day - self._valued.start, -1 if self._is_all else 0), self._days - 1)

    def moved_within(self, instrument: Instrument) -> float:
        """What went from one account to another since the session before, at the prices of its days: inflow of an
        account, and none of all of them together."""
        column = self.column(self._sessions[instrument].previous)
        prices = self._grid.prices[self._grid.row_of[instrument]]
        return sum(
            quantity * float(prices[at]) for moved, at, quantity in self._within if moved == instrument and at > column
        )

    def _at_open(self, instrument: Instrument, column: int, before: float) -> float | None:
        if before == 0:
            return 0.0
        row, since = self._grid.row_of[instrument], self._valued.start + column
        price = float(self._grid.prices[row, column]) if column >= 0 else 0.0
        end = self._valued.start + self._days - 1
        opened = open_of(self._sessions[instrument], self._market.prices.get(instrument), since)
        if opened is None or not price:
            return None
        rate = float(self._market.rate(self._market.prices[instrument].currency, self._base, end))
        return known(before * (opened * rate) / price)


def open_of(session: Session, data: PriceColumn | None, since: int) -> float | None:
    """The open of `session` in the currency of the prices `data`, in units of the day `since`; None is unknown."""
    if session.open is None or data is None:
        return None
    return session.open * data.ratio(since, session.day)


def known(amount: float) -> float | None:
    """None for a NaN."""
    return None if amount != amount else float(amount)
