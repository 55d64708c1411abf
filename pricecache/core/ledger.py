"""The ledger as a value: transactions in the order they take effect, the rules of a portfolio, and faults of rows."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from itertools import count
from math import nan
from operator import attrgetter
from typing import Any, Literal, get_args

from pricecache.core.instruments import Instrument

TransactionType = Literal[
    "buy", "sell", "dividend", "interest", "fee", "tax", "deposit", "withdrawal", "transfer_in", "transfer_out",
    "split", "opening", "adjustment",
]  # fmt: skip
TYPES: tuple[str, ...] = get_args(TransactionType)
CostBasis = Literal["fifo", "lifo", "hifo", "average"]

ZERO = Decimal(0)
EXACT = Context(prec=28)
"""What the exact pass computes in: Python's usual one, whatever the caller has set."""
SPLIT_SESSIONS = 5
"""A ledger's split replaces one of the market's that is at most so many sessions off."""
SPLIT_DAYS = 20
"""Calendar days that `SPLIT_SESSIONS` certainly lie within."""

_MOST_SHARES = 1 << 32
"""Floats add up a million numbers below this without rounding, if they are whole."""

_FIRST, _IN, _INTERNAL, _OUT = range(4)
_RANK = {"split": _FIRST, "sell": _OUT, "fee": _OUT, "tax": _OUT, "withdrawal": _OUT, "transfer_out": _OUT}

_CASH = ("dividend", "interest", "fee", "tax", "deposit", "withdrawal")
_SHARES = ("buy", "sell")
_EITHER = ("transfer_in", "transfer_out", "opening", "adjustment")
_AMOUNTS = ("quantity", "price", "amount", "fees", "taxes", "fx_rate", "ratio")
_MAY_BE_ZERO = frozenset({"price", "fees", "taxes"})
_MOST = Decimal(10) ** 15
_FINEST = -12
_SHORT = 14


@dataclass(frozen=True, slots=True)
class Rules:
    """How a portfolio wants its ledger read. `currency`: the base currency, a whole unit (`GBP`, never `GBp`)."""

    currency: str = "USD"
    cost_basis: CostBasis = "fifo"
    cash_tracking: bool = False
    fees_in_cost: bool = True
    allow_short: bool = False


@dataclass(frozen=True, slots=True)
class Transaction:
    """One row of a ledger.

    `day`: days since 1970-01-01. `quantity`, `price`, `fees`, `taxes` are never negative, but for the quantity and
    the amount of an `adjustment`; price is for one unit, in `currency`, like `amount`, `fees` and `taxes`. `currency`
    None is the instrument's own, without an instrument the portfolio's. `fx_rate`: base currency for one of
    `currency`, None where none was recorded. `account`: "" is the implicit one. `to_account` makes the row an
    internal transfer. `acquired_on`: of shares transferred in. `adjusted_as_of`: quantity and price are in the units
    of that day (a broker restated them); None is as traded. `link`: what a dividend and the purchase made of it share.
    """

    day: int
    type: TransactionType
    instrument: Instrument | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    amount: Decimal | None = None
    fees: Decimal = ZERO
    taxes: Decimal = ZERO
    currency: str | None = None
    fx_rate: Decimal | None = None
    account: str = ""
    to_account: str | None = None
    ratio: Decimal | None = None
    ex_date: int | None = None
    acquired_on: int | None = None
    adjusted_as_of: int | None = None
    link: str | None = None
    external_id: str | None = None
    note: str | None = None
    id: str = ""
    order: int = field(init=False, repr=False, compare=False)
    is_plain: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", self.day * 4 + self._rank())
        object.__setattr__(self, "is_plain", self._is_plain())

    def named(self, row_id: str) -> Transaction:
        """The same under the id `row_id`: several times faster than to make it anew of its fields."""
        copy = object.__new__(Transaction)
        for put, value in zip(_PUT, _ALL(self), strict=True):  # past what keeps it from being changed
            put(copy, value)
        _PUT_ID(copy, row_id)
        return copy

    def _is_plain(self) -> bool:
        """Whether quantity × price (or the amount) is all there is to it, but for its currency: the replay has a short
        way for such rows, which most are."""
        if self.fees or self.taxes or self.link is not None or self.adjusted_as_of is not None:
            return False
        return self.fx_rate is None

    def _rank(self) -> int:
        if self.to_account is not None:
            return _INTERNAL
        if self.type == "adjustment":
            sign = self.quantity if self.quantity is not None else self.amount
            return _OUT if sign is not None and sign < 0 else _IN
        return _RANK.get(self.type, _IN)

    @property
    def comes_in(self) -> bool:
        """Whether its account has more shares by it or, where it moves none, more money."""
        return self.order % 4 == _IN

    @property
    def goes_out(self) -> bool:
        """Whether its account has less; splits and internal transfers do neither."""
        return self.order % 4 == _OUT

    @property
    def affects_from(self) -> int:
        """The first day whose history may change when this row is added or removed."""
        return self.day - SPLIT_DAYS if self.type == "split" else self.day


_ALL = attrgetter(*Transaction.__slots__)
_PUT = [getattr(Transaction, name).__set__ for name in Transaction.__slots__]
_PUT_ID = _PUT[Transaction.__slots__.index("id")]


@dataclass(frozen=True, slots=True)
class Plain:
    """What plain rows in base currency come to, side by side with the rows they are of.

    `places`: one number for each account and instrument, below `count`. `amounts`: quantity × price, or the amount of
    a dividend; None for a row that is not plain. `money`: the same as floats, NaN for None. `shares`: the quantity as
    `whole` gives it.
    """

    count: int
    places: Sequence[int]
    amounts: Sequence[Decimal | None]
    money: Sequence[float]
    shares: Sequence[float]

    @classmethod
    def of(cls, rows: Sequence[Transaction], currency: str) -> Plain:
        own = (None, currency)
        numbers: dict[tuple[str, Instrument | None], int] = defaultdict(count().__next__)
        places = [numbers[row.account, row.instrument] for row in rows]
        with localcontext(EXACT):
            amounts = [_plain_amount(row) if row.is_plain and row.currency in own else None for row in rows]
        money = [nan if amount is None else float(amount) for amount in amounts]
        shares = [0.0 if row.quantity is None else whole(row.quantity) for row in rows]
        return cls(len(numbers), places, amounts, money, shares)


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """Transactions in the order they take effect, and the rules they are read by. Build it with `of`.

    What is worked out of them is kept once it was asked for; two threads that ask at once work out the same.
    """

    transactions: tuple[Transaction, ...]
    rules: Rules
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, transactions: Iterable[Transaction], rules: Rules | None = None) -> Ledger:
        """Within a day splits come first, then what comes in, internal transfers, what goes out; else as given."""
        return cls(tuple(sorted(transactions, key=attrgetter("order"))), rules or Rules())

    @property
    def first_day(self) -> int | None:
        return self.transactions[0].day if self.transactions else None

    def count_after(self, day: int | None) -> int:
        """How many transactions there are after `day`, or in all (None). Cheap."""
        rows = self.transactions
        return len(rows) - (0 if day is None else bisect_right(rows, day, key=attrgetter("day")))

    def instruments(self) -> frozenset[Instrument]:
        found: frozenset[Instrument] | None = self._kept.get("instruments")
        if found is None:
            found = frozenset([row.instrument for row in self.transactions if row.instrument is not None])
            self._kept["instruments"] = found
        return found

    def currencies(self) -> frozenset[str]:
        """The currencies that rows name, units such as `GBp` as they are; those of instruments are not among them."""
        found: frozenset[str] | None = self._kept.get("currencies")
        if found is None:
            found = frozenset([row.currency for row in self.transactions if row.currency is not None])
            self._kept["currencies"] = found
        return found

    def remarkable(self, first: int, last: int) -> Sequence[Transaction]:
        """Those of the rows from place `first` up to, not including, `last` that are splits, linked or restated."""
        if last - first < len(self.transactions):
            return _remarkable(self.transactions[first:last])
        found: Sequence[Transaction] | None = self._kept.get("remarkable")
        if found is None:
            found = self._kept["remarkable"] = _remarkable(self.transactions)
        return found

    def plain(self, first: int, last: int) -> Plain:
        """Of the rows from place `first` up to, not including, `last`. Kept when it was of all."""
        kept: Plain | None = self._kept.get("plain")
        if kept is not None:
            if last - first < len(kept.places):
                part = slice(first, last)
                return Plain(kept.count, kept.places[part], kept.amounts[part], kept.money[part], kept.shares[part])
            return kept
        found = Plain.of(self.transactions[first:last], self.rules.currency)
        if last - first == len(self.transactions):
            self._kept["plain"] = found
        return found

    def affected_from(self, instrument: Instrument, changed: int) -> int:
        """The first day whose history may change when the splits of `instrument` change from day `changed` on.

        Earlier than that where a row's quantity is in the units of a later day, or a split of the ledger's own may
        now find one of the market's to replace.
        """
        days = [changed]
        for row in self.transactions:
            if row.instrument != instrument or row.day >= changed:
                continue
            restated = row.adjusted_as_of is not None and row.adjusted_as_of >= changed
            if restated or (row.type == "split" and row.day >= changed - SPLIT_DAYS):
                days.append(row.day)
        return min(days)


def _remarkable(rows: Sequence[Transaction]) -> Sequence[Transaction]:
    return [row for row in rows if row.type == "split" or row.link is not None or row.adjusted_as_of is not None]


@lru_cache(4096)
def whole(quantity: Decimal) -> float:
    """`quantity` as a float whose sums with others are exact; NaN when it is not a whole number, or a huge one."""
    number = int(quantity)
    return float(number) if number == quantity and -_MOST_SHARES < number < _MOST_SHARES else nan


def _plain_amount(row: Transaction) -> Decimal | None:
    if row.type == "dividend":
        return row.amount
    quantity, price = row.quantity, row.price
    return None if row.type not in _SHARES or quantity is None or price is None else quantity * price


def faults(rows: Sequence[Transaction], *, first: int = 0) -> list[dict[str, Any]]:
    """Everything wrong with `rows` by themselves: `{"row", "code", "detail"}` each, `row` counted from `first`.

    Codes: `unknown_type`, `FIELD_required`, `FIELD_not_allowed`, `FIELD_not_finite`, `FIELD_not_positive`,
    `FIELD_out_of_range`, `same_account`. What depends on the rest of the ledger (`over_sale`) the replay finds.
    """
    return [
        {"row": number, "code": code, "detail": detail}
        for number, row in enumerate(rows, first)
        for code, detail in _faults_of(row)
    ]


def _faults_of(row: Transaction) -> Iterator[tuple[str, str]]:
    if row.type not in TYPES:
        yield "unknown_type", f"Types are {', '.join(TYPES)}."
        return
    yield from _numbers(row)
    yield from _needed(row)
    if row.acquired_on is not None and row.acquired_on > row.day:
        yield "acquired_on_out_of_range", "What is transferred in was acquired before."
    if row.to_account is not None:
        if row.type not in ("transfer_in", "transfer_out"):
            yield "to_account_not_allowed", "Only a transfer goes to another account."
        elif row.to_account == row.account:
            yield "same_account", "A transfer goes to another account."


def _numbers(row: Transaction) -> Iterator[tuple[str, str]]:
    for name in _AMOUNTS:
        value: Decimal | None = getattr(row, name)
        if value is None:
            continue
        if not value.is_finite():
            yield f"{name}_not_finite", f"{name} is a finite number."
            continue
        signed = row.type == "adjustment" and name in ("quantity", "amount")
        if (value < 0 and not signed) or (value == 0 and name not in _MAY_BE_ZERO):
            yield f"{name}_not_positive", f"{name} is positive{'' if not signed else ' or negative'}, not {value}."
        if value.copy_abs() >= _MOST or _is_too_fine(value):
            yield f"{name}_out_of_range", f"{name} is below {_MOST:.0e} and has at most {-_FINEST} decimals."


def _is_too_fine(value: Decimal) -> bool:
    text = str(value)
    if len(text) < _SHORT and "E" not in text:
        return False  # most are: no more than twelve digits behind the point
    exponent = value.normalize().as_tuple().exponent
    return bool(value) and (value.adjusted() < _FINEST or (isinstance(exponent, int) and exponent < _FINEST))


def _needed(row: Transaction) -> Iterator[tuple[str, str]]:
    for name in _required(row):
        if getattr(row, name) is None:
            yield f"{name}_required", f"A {row.type} needs {name}."
    for name in _excluded(row):
        if getattr(row, name) is not None:
            yield f"{name}_not_allowed", f"A {row.type} has no {name}."


def _required(row: Transaction) -> tuple[str, ...]:
    if row.type in _SHARES:
        return "instrument", "quantity", "price"
    if row.type in _CASH:
        return ("instrument", "amount") if row.type == "dividend" else ("amount",)
    if row.type == "split":
        return "instrument", "ratio"
    if row.instrument is None:
        return ("amount",)
    is_unknown = row.type == "adjustment" and not row.quantity
    return ("quantity", "price") if row.comes_in and not is_unknown else ("quantity",)


def _excluded(row: Transaction) -> tuple[str, ...]:
    if row.type in _SHARES:
        return "amount", "ratio"
    if row.type in _CASH:
        return "quantity", "price", "ratio"
    if row.type == "split":
        return "quantity", "price", "amount"
    return ("quantity", "price", "ratio") if row.instrument is None else ("amount", "ratio")
