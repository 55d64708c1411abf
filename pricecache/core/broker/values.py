"""What a broker says that accounts are worth, beside what the market says that the same holdings are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

from pricecache.core.broker.carried import carried
from pricecache.core.broker.data import BrokerAccount, BrokerData, BrokerHolding
from pricecache.core.currencies import digits
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.marketdata import MarketData

DIFFERS = Decimal("0.01")
"""Prices that are further apart, as a share of the broker's, are told."""
MOST_TOLD = 50
_DIGITS = 60
"""The largest quantity at the largest price and rate, to the cent."""


@dataclass(frozen=True, slots=True)
class Values:
    """`broker_value`: Σ broker's price × quantity, and money; `value`: the same by the market's prices. Of what is None
    `reasons` says why: `no_broker_price`, `no_price`, `rate_unknown`."""

    broker_value: Decimal | None
    value: Decimal | None
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def difference(self) -> Decimal | None:
        """How much more it is worth here."""
        return None if self.value is None or self.broker_value is None else self.value - self.broker_value


@dataclass(frozen=True, slots=True)
class PriceDifference:
    """`broker_price`, in `broker_currency`, of `broker_day`, beside `price`, in `currency`, of session `day`; both in
    units of the day of the data. `share`: how much higher the latter is, as a share of the broker's."""

    instrument: Instrument
    broker_price: Decimal
    broker_currency: str
    broker_day: int
    price: Decimal
    currency: str
    day: int
    share: Decimal


@dataclass(frozen=True, slots=True)
class Comparison:
    """In `currency`, as of the end of `day`. `accounts`: in the order of the data. `prices`: those that differ by more
    than `DIFFERS`, the most different first, at most `MOST_TOLD` of `prices_total`."""

    day: int
    currency: str
    total: Values
    accounts: tuple[tuple[BrokerAccount, Values], ...]
    prices: tuple[PriceDifference, ...]
    prices_total: int


def compared(data: BrokerData, instruments: Mapping[str, Instrument], market: MarketData, base: str) -> Comparison:
    """What `data` says is held at the prices of both, in `base`, at the rates of its day. `instruments`: by the
    broker's security, for every one that is not money. Pure."""
    with localcontext(prec=_DIGITS):
        return _Comparing(data, instruments, market, base).compared()


@dataclass(slots=True)
class _Sum:
    amount: Decimal = ZERO
    reason: str | None = None

    def add(self, amount: Decimal | None, reason: str) -> None:
        if amount is None:
            self.reason = self.reason or reason
        elif amount.is_nan():
            self.reason = self.reason or "rate_unknown"
        else:
            self.amount += amount

    def rounded(self, currency: str) -> Decimal | None:
        return None if self.reason else self.amount.quantize(Decimal(1).scaleb(-digits(currency)))


class _Comparing:
    def __init__(self, data: BrokerData, instruments: Mapping[str, Instrument], market: MarketData, base: str) -> None:
        self.data, self.instruments, self.market, self.base = data, instruments, market, base
        self.present = carried(data, instruments, market).holdings
        self.broker_values: dict[str, _Sum] = defaultdict(_Sum)
        self.values: dict[str, _Sum] = defaultdict(_Sum)
        self.differences: dict[tuple[Instrument, Decimal, str], PriceDifference] = {}

    def compared(self) -> Comparison:
        for said, present in zip(self.data.holdings, self.present, strict=True):
            self._hold(said, present)
        for (account, currency), amount in self.data.money.items():
            worth = amount * self._rate(currency)
            self.broker_values[account].add(worth, "")
            self.values[account].add(worth, "")
        accounts = tuple((one, self._of(name)) for name, one in self.data.accounts.items())
        differing = sorted(self.differences.values(), key=lambda one: (-abs(one.share), one.instrument))
        return Comparison(
            self.data.day, self.base, _total([one for _, one in accounts]), accounts, tuple(differing[:MOST_TOLD]),
            len(differing),
        )  # fmt: skip

    def _hold(self, said: BrokerHolding, present: BrokerHolding) -> None:
        instrument, quantity = self.instruments[said.security], said.quantity
        by_broker = None if said.price is None else quantity * said.price * self._rate(said.currency)
        self.broker_values[said.account].add(by_broker, "no_broker_price")
        column = self.market.prices.get(instrument)
        found = column.price_on(self.data.day) if column is not None else None
        if column is None or found is None:
            self.values[said.account].add(None, "no_price")
            return
        price = Decimal(repr(found[1]))
        value = present.quantity * price * self._rate(column.currency)
        self.values[said.account].add(value, "no_price")
        if not by_broker or by_broker.is_nan() or value.is_nan() or not present.quantity:
            return
        share = value / by_broker - 1
        if abs(share) > DIFFERS:
            assert said.price is not None
            then = said.price * quantity / present.quantity
            self.differences[instrument, then, said.currency] = PriceDifference(
                instrument, then, said.currency, self._day(said), price, column.currency, found[0], share
            )

    def _rate(self, currency: str) -> Decimal:
        return self.market.rate(currency, self.base, self.data.day)

    def _day(self, said: BrokerHolding) -> int:
        told = self.data.accounts[said.account].told_on
        return said.price_day if said.price_day is not None else self.data.day if told is None else told

    def _of(self, account: str) -> Values:
        broker_value, value = self.broker_values[account], self.values[account]
        why = (broker_value.reason, value.reason, broker_value.reason or value.reason)
        reasons = {name: one for name, one in zip(("broker_value", "value", "difference"), why, strict=True) if one}
        return Values(broker_value.rounded(self.base), value.rounded(self.base), reasons)


def _total(accounts: Sequence[Values]) -> Values:
    """Of several reasons that of the first."""
    reasons = dict(item for one in reversed(accounts) for item in one.reasons.items())
    return Values(_added([one.broker_value for one in accounts]), _added([one.value for one in accounts]), reasons)


def _added(amounts: Sequence[Decimal | None]) -> Decimal | None:
    known = [one for one in amounts if one is not None]
    return sum(known, ZERO) if len(known) == len(amounts) else None
