"""The present state of a portfolio as a value: what it is worth, what it gained, how it changed of late."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from pricecache.core.instruments import Instrument

NOTHING = 0.0049
"""Less than this is nothing that a change could be a share of."""


@dataclass(frozen=True, slots=True)
class Gains:
    """Of what is or was held: money in whole minor units of the base currency, None is unknown."""

    cost: float | None = 0.0
    unrealized: float | None = 0.0
    realized: float | None = 0.0
    dividends: float | None = 0.0
    fees: float | None = 0.0
    interest: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Worth:
    """Value now, and its change since the close of the session before and since the open: whole minor units, None is
    unknown. `base`, `base_at_open`: what the changes are shares of, None where nothing was at stake."""

    value: float | None
    change: float | None
    from_open: float | None
    before: float | None = None
    flow: float | None = None
    base: float | None = None
    base_at_open: float | None = None

    @property
    def percent(self) -> float | None:
        return percent_of(self.change, self.base)

    @property
    def percent_from_open(self) -> float | None:
        return percent_of(self.from_open, self.base_at_open)


OF_WORTH = frozenset({"value", "before"})
"""Fields of `Worth` of which 0 is having nothing."""


@dataclass(frozen=True, slots=True)
class PositionNow:
    """An instrument in one account, or in all of them (`account` None; `parts` are then those of each). `quantity`: in
    today's units. Sold ones are there on the day that they went."""

    instrument: Instrument
    account: str | None
    quantity: Decimal
    worth: Worth
    gains: Gains
    parts: tuple[PositionNow, ...] = ()


@dataclass(frozen=True, slots=True)
class CashNow:
    """A balance in its own currency, and what it is in base currency in whole minor units."""

    currency: str
    amount: Decimal
    value: float | None


@dataclass(frozen=True, slots=True)
class SummaryNow:
    """One portfolio, or one account of it, on day `end` as far as that has come.

    `worth.change` is the sum of `changes`: `positions`, `cash` by its rates, and `other`, the fees, taxes and interest
    that belong to no position. `previous`: the day whose end the last two are measured from. `incomplete`: fields that
    are of what is known.
    """

    end: int
    previous: int
    currency: str
    worth: Worth
    gains: Gains
    cash: float | None
    balances: tuple[CashNow, ...]
    changes: dict[str, float | None]
    positions: tuple[PositionNow, ...]
    incomplete: frozenset[str]


def sum_of_known(amounts: Iterable[float | None], places: int, *, of_worth: bool = False) -> float | None:
    """Of what is known; None when there is something and nothing of it is known. `of_worth`: 0 is having nothing, which
    says nothing of what is not known."""
    amounts = list(amounts)
    found = [amount for amount in amounts if amount is not None]
    is_lost = len(found) < len(amounts) and not (any(found) if of_worth else found)
    return None if is_lost else round(sum(found), places) + 0.0


def sum_of_all(amounts: Iterable[float | None], places: int) -> float | None:
    """Of all; None as soon as one is not known."""
    amounts = list(amounts)
    return None if None in amounts else round(sum(a for a in amounts if a is not None), places) + 0.0


def percent_of(change: float | None, base: float | None) -> float | None:
    """In percent; None where nothing was at stake."""
    return None if change is None or base is None or base <= NOTHING else 100 * change / base
