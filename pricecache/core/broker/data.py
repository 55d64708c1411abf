"""What a broker says of a user's accounts, in one form whoever the broker is: accounts, securities, holdings, rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, get_args

from pricecache.core.broker.windows import Window

SecurityKind = Literal[
    "equity", "etf", "mutual_fund", "fixed_income", "crypto", "derivative", "cash", "loan", "other",
]  # fmt: skip
BrokerAction = Literal[
    "buy", "sell", "short", "cover", "reinvestment", "dividend", "interest", "return_of_capital", "fee", "tax", "cash",
    "transfer", "split", "stock_distribution", "spin_off", "merger", "expiry", "exercise", "adjustment",
]  # fmt: skip
SECURITY_KINDS: tuple[str, ...] = get_args(SecurityKind)
BROKER_ACTIONS: tuple[str, ...] = get_args(BrokerAction)

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class BrokerAccount:
    """An account as its broker names it. `balance`: what the broker says all of it is worth, in `currency`. `told_on`:
    the day at whose end all that is known of it was so, where nothing was said of it since; None: that of the data.
    `windows`: the days that every row of is known, ascending; empty: all from the `first_day` of the data on."""

    id: str
    name: str
    institution: str | None = None
    kind: str | None = None
    currency: str = "USD"
    balance: Decimal | None = None
    told_on: int | None = None
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class OptionContract:
    """`right`: call or put; `expires`: days since 1970-01-01. `in_one`: how many options one of the broker's quantities
    is, 100 where it counts contracts; all quantities are in options then. None where nothing told."""

    right: Literal["call", "put"]
    expires: int
    strike: Decimal
    underlying: str | None = None
    in_one: int | None = None


@dataclass(frozen=True, slots=True)
class BrokerSecurity:
    """A security as a broker names it. `id` is the broker's, the same in all accounts; `exchange`: a MIC (`XNAS`) or a
    market code of ours; `is_money`: it is cash, or a sweep fund worth 1 of `currency`, and counts as a balance.

    `scope`: whose ids these are (`plaid`, or the user's connection where a broker's ids mean nothing to others).
    """

    id: str
    kind: SecurityKind = "other"
    name: str | None = None
    ticker: str | None = None
    exchange: str | None = None
    isin: str | None = None
    cusip: str | None = None
    sedol: str | None = None
    currency: str = "USD"
    is_money: bool = False
    option: OptionContract | None = None
    scope: str = ""

    @property
    def is_contract(self) -> bool:
        """Whether it is one that may be written, as an option: then less than none of it may be held."""
        return self.kind == "derivative" or self.option is not None


@dataclass(frozen=True, slots=True)
class BrokerHolding:
    """What is held now. `quantity` may be negative (a short position). `price`: of one unit such that quantity × price
    is the broker's value, whatever lots or percentages the broker quotes in; `price_day`: days since 1970-01-01.
    `cost_basis`: of all of it, in `currency`."""

    account: str
    security: str
    quantity: Decimal
    price: Decimal | None = None
    price_day: int | None = None
    cost_basis: Decimal | None = None
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class BrokerTransaction:
    """A row of a broker's. Seen from the account: `quantity` is positive for what comes in and negative for what goes
    out, in the units of `day`; `cash` is positive for money that comes in, fees and taxes are within it. `fees`,
    `taxes`: never negative but for a refund. `price`: of one unit, as `BrokerHolding.price`. `ratio`: of a split, new
    shares for one old, where the broker states it. `place`: its order in what the broker sent."""

    id: str
    account: str
    day: int
    action: BrokerAction
    security: str | None = None
    quantity: Decimal = ZERO
    price: Decimal | None = None
    cash: Decimal = ZERO
    fees: Decimal = ZERO
    taxes: Decimal = ZERO
    currency: str = "USD"
    ratio: Decimal | None = None
    note: str | None = None
    place: int = 0


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A broker's word of `day` that a row never was: the one whose id is `cancels`; where that is None, one that says
    the opposite of `quantity` and `cash`, or the same. `parts`: what the ids of rows that are made of one row of the
    broker's end in. `is_found`: it was told of, and is gone. `path`: where in the input the word stood."""

    id: str
    account: str
    day: int
    cancels: str | None = None
    security: str | None = None
    quantity: Decimal = ZERO
    cash: Decimal = ZERO
    currency: str = "USD"
    parts: tuple[str, ...] = ()
    is_found: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class Waypoint:
    """What the broker said was held at the end of `day`, or near it: so much of `security`, or, where that is None, so
    much money in `currency`. `late`: what the rows up to `day` that became known only later move, each day's together,
    `(day, quantity)` ascending, in the units of their day: it may have been in the balance already, or not yet."""

    day: int
    account: str
    quantity: Decimal
    security: str | None = None
    currency: str = "USD"
    price: Decimal | None = None
    late: tuple[tuple[int, Decimal], ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """Something of the input that a person should know. `code` as `cancelled_row`; `path`: where, as
    `transactions[3]`."""

    code: str
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class BrokerData:
    """Everything a broker said of a user's accounts at the end of `day` (days since 1970-01-01).

    `first_day`: from when on `transactions` has rows, and every one of the `windows` of its account. Holdings of money
    are in `money`, by account and currency, and among no `holdings`; an account that is not in it reported none.
    `waypoints`: earlier balances, by day. What is held in an account that was `told_on` an earlier day is so of that
    day, in its units. `cancellations`: of rows that
    are not among `transactions`, and of such as somebody may yet tell of.
    """

    day: int
    first_day: int
    accounts: Mapping[str, BrokerAccount]
    securities: Mapping[str, BrokerSecurity]
    holdings: tuple[BrokerHolding, ...]
    money: Mapping[tuple[str, str], Decimal]
    transactions: tuple[BrokerTransaction, ...]
    waypoints: tuple[Waypoint, ...] = ()
    cancellations: tuple[Cancellation, ...] = ()
    remarks: tuple[Remark, ...] = field(default=(), compare=False)
