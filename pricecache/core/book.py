"""The exact state of a portfolio at the end of a day, which the ledger pass goes on from: a value and a plain dict."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.lots import Lot
from pricecache.core.splits import LedgerSplit
from pricecache.errors import Corrupt


@dataclass(frozen=True, slots=True)
class Held:
    """One instrument in one account, closed positions included; `instrument` None is what concerns the account alone.

    Totals are cumulative, in base currency. `cost` and `local` (in the instrument's currency) are set under average
    cost only; else they are those of the `lots`. `factor`: what the valuation multiplies the quantity by.
    """

    account: str
    instrument: Instrument | None
    quantity: Decimal
    lots: tuple[Lot, ...]
    cost: Decimal
    local: Decimal
    factor: float
    proceeds: Decimal
    original: Decimal
    dividends: Decimal
    fees: Decimal
    interest: Decimal

    @property
    def basis(self) -> tuple[Decimal, Decimal]:
        """Cost of what is held, in base currency and in the instrument's."""
        if not self.lots:
            return self.cost, self.local
        return sum((lot.cost for lot in self.lots), ZERO), sum((lot.local for lot in self.lots), ZERO)


@dataclass(frozen=True, slots=True)
class CashBalance:
    account: str
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Factor:
    """Quantities of `instrument` (in `account`, or in all but `others`) are valued × `value` until a split is over."""

    instrument: Instrument
    account: str | None
    others: frozenset[str]
    value: Fraction

    def concerns(self, account: str) -> bool:
        return account == self.account if self.account is not None else account not in self.others


@dataclass(frozen=True, slots=True)
class Book:
    """Everything at the end of `day`. `pools`: (instrument, long or short, cost, local cost) under average cost.
    `splits`: those the ledger stated lately, which may yet replace one of the market's. `doubts`: by place those of
    `positions` with an amount that was unknown at some time."""

    day: int
    positions: tuple[Held, ...] = ()
    pools: tuple[tuple[Instrument, bool, Decimal, Decimal], ...] = ()
    cash: tuple[CashBalance, ...] = ()
    factors: tuple[Factor, ...] = ()
    splits: tuple[LedgerSplit, ...] = ()
    doubts: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings, numbers; Decimals as strings, exactly."""
        return {
            "day": self.day,
            "positions": [_held_out(held) for held in self.positions],
            "pools": [[*instrument, is_long, str(cost), str(local)] for instrument, is_long, cost, local in self.pools],
            "cash": [[one.account, one.currency, str(one.amount)] for one in self.cash],
            "factors": [[*one.instrument, one.account, sorted(one.others), str(one.value)] for one in self.factors],
            "doubts": list(self.doubts),
            "splits": [[row.day, *row.instrument, row.account, str(row.ratio)] for row in self.splits],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Book:
        """The inverse. Raises `Corrupt` when it is not one."""
        try:
            return cls(
                plain["day"],
                tuple(_held_in(row) for row in plain["positions"]),
                tuple((Instrument(s, m), side, Decimal(c), Decimal(local)) for s, m, side, c, local in plain["pools"]),
                tuple(CashBalance(account, currency, Decimal(amount)) for account, currency, amount in plain["cash"]),
                tuple(Factor(Instrument(s, m), a, frozenset(o), Fraction(v)) for s, m, a, o, v in plain["factors"]),
                tuple(
                    LedgerSplit(day, Instrument(s, m), a, Fraction(ratio)) for day, s, m, a, ratio in plain["splits"]
                ),
                tuple(plain["doubts"]),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError) as exc:
            raise Corrupt("A checkpoint of a history cannot be read.") from exc


def _held_out(held: Held) -> list[Any]:
    return [
        held.account,
        list(held.instrument) if held.instrument is not None else None,
        str(held.quantity),
        [[str(lot.quantity), str(lot.cost), str(lot.local), lot.day, lot.transaction] for lot in held.lots],
        held.factor,
        *(str(amount) for amount in (held.cost, held.local, *_totals(held))),
    ]


def _totals(held: Held) -> tuple[Decimal, ...]:
    return held.proceeds, held.original, held.dividends, held.fees, held.interest


def _held_in(row: list[Any]) -> Held:
    account, instrument, quantity, lots, factor, *amounts = row
    cost, local, *totals = (Decimal(amount) for amount in amounts)
    return Held(
        account,
        Instrument(*instrument) if instrument is not None else None,
        Decimal(quantity),
        tuple(_lot_in(*lot) for lot in lots),
        cost,
        local,
        factor,
        *totals,
    )


def _lot_in(quantity: str, cost: str, local: str, day: int, transaction: str) -> Lot:
    paid = Decimal(cost)
    return Lot(Decimal(quantity), paid, paid if local == cost else Decimal(local), day, transaction)
