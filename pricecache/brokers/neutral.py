"""The JSON that any broker's data can be put in, as what a broker says: all of it checked first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar, cast

from pricecache.brokers.cancelled import without_taken_back
from pricecache.brokers.fields import Faults, Fields, Listed
from pricecache.brokers.holdings import HoldingPart, Money, holdings_and_money, note_impossible
from pricecache.brokers.limits import (
    MOST_ACCOUNTS,
    MOST_BALANCES,
    MOST_CURRENCIES,
    MOST_HOLDINGS,
    MOST_SECURITIES,
    MOST_TRANSACTIONS,
    OLDEST_DAYS,
)
from pricecache.brokers.neutral_rows import NeutralRow, read_row
from pricecache.brokers.option_units import OptionUnits, option_of
from pricecache.core.broker.cancelled import bounded
from pricecache.core.broker.data import (
    SECURITY_KINDS,
    ZERO,
    BrokerAccount,
    BrokerData,
    BrokerSecurity,
    BrokerTransaction,
    Cancellation,
    OptionContract,
    Remark,
    SecurityKind,
    Waypoint,
)
from pricecache.core.currencies import major, unit

_Dated = TypeVar("_Dated", BrokerTransaction, Cancellation, Waypoint)
_TOP = frozenset(
    {"source", "asOf", "transactionsFrom", "accounts", "securities", "holdings", "transactions", "balances"}
)
_ACCOUNT = frozenset({"id", "name", "kind", "institution", "currency", "totalValue", "cash"})
_SECURITY = frozenset({"id", "symbol", "exchange", "isin", "cusip", "sedol", "name", "type", "currency", "option"})
_HOLDING = frozenset({"accountId", "securityId", "quantity", "price", "priceDate", "value", "costBasis", "currency"})
_BALANCE = frozenset({"date", "accountId", "securityId", "currency", "quantity", "price"})


def read_neutral(body: Mapping[str, Any], *, today: int, scope: str = "") -> BrokerData:
    """What `body` says, of the end of its `asOf`. Pure; takes a second for 50,000 rows.

    `today`: days since 1970-01-01, UTC; `scope`: whose the ids of securities are. Raises `Invalid` with a row for every
    fault; nothing of it counts then.
    """
    return _Reading(today, scope).read(Fields(body, "", Faults()))


class _Reading:
    """One payload as it is read. Belongs to one thread."""

    def __init__(self, today: int, scope: str) -> None:
        self.today = today
        self.since = today - OLDEST_DAYS
        self.scope = scope
        self.faults = Faults()
        self.remarks: list[Remark] = []
        self.accounts: dict[str, BrokerAccount] = {}
        self.securities: dict[str, BrokerSecurity] = {}
        self.named: dict[str, str] = {}  # currencies of securities, pence where they are
        self.money: Money = {}
        self.units = OptionUnits()
        self.listed_accounts = Listed("accounts", "unknown_account")
        self.listed_securities = Listed("securities", "unknown_security")

    def read(self, body: Fields) -> BrokerData:
        self.faults = body.faults
        body.unknown(_TOP)
        as_of = body.day("asOf", self.today + 1, since=self.since, required=True)
        source, start = body.text("source"), body.day("transactionsFrom", self.today + 1, since=self.since)
        latest = self.today + 1 if as_of is None else as_of
        self._accounts(body, source)
        self._securities(body)
        parts = list(self._holdings(body))
        rows = list(self._rows(body, latest))
        for part in parts:
            if self._is_option(part.security):
                self.units.note(part.security, "held", part.quantity, part.price, part.value)
        rows = [one if one.again is None else replace(one, row=one.again(self.units), again=None) for one in rows]
        waypoints = list(self._waypoints(body, latest))
        self.securities = self.units.told(self.securities)
        holdings, money = holdings_and_money(parts, self.securities, self.units, self.faults, self.remarks)
        self.faults.raise_any()
        kept, cancellations = without_taken_back(rows, self.remarks)
        day = min(latest, self.today)
        found = sorted((_by(one.row, day) for one in kept if one.row is not None), key=lambda row: (row.day, row.place))
        first = min((row.day for row in found), default=day)
        for key, amount in money.items():
            self.money[key] = self.money.get(key, ZERO) + amount
        return BrokerData(
            day=day,
            first_day=min(first, day if start is None else start),
            accounts=self.accounts,
            securities=self.securities,
            holdings=holdings,
            money=self.money,
            transactions=tuple(found),
            waypoints=tuple(sorted((_by(one, day) for one in waypoints), key=lambda one: one.day)),
            cancellations=bounded(_by(one, day) for one in cancellations),
            remarks=tuple(self.remarks),
        )

    def _accounts(self, body: Fields, source: str | None) -> None:
        for given, name in self.listed_accounts.read(body, MOST_ACCOUNTS, "id", required=True):
            given.unknown(_ACCOUNT)
            currency = given.currency("currency") or "USD"
            kind, institution = given.text("kind", 64), given.text("institution") or source
            total = given.amount("totalValue")
            if name in self.accounts:
                given.fault("id", "duplicate_id", "another account has this id")
            if name is not None:
                title = given.text("name") or name
                value = None if total is None else total * unit(currency)
                self.accounts[name] = BrokerAccount(name, title, institution, kind, major(currency), value)
                self._cash(given, name)

    def _cash(self, account: Fields, name: str) -> None:
        listed = list(account.objects("cash", MOST_CURRENCIES, may_be_null=True))
        if account.has("cash") and not listed:  # it says that there is none
            self.money[name, self.accounts[name].currency] = ZERO
        for given in listed:
            currency, amount = given.currency("currency"), given.amount("amount", required=True)
            if currency is None:
                given.missing("currency")
            elif amount is not None:
                key = name, major(currency)
                self.money[key] = self.money.get(key, ZERO) + amount * unit(currency)

    def _securities(self, body: Fields) -> None:
        of_prices: Mapping[object, str] | None = None
        for given, name in self.listed_securities.read(body, MOST_SECURITIES, "id"):
            given.unknown(_SECURITY)
            kind = (given.word("type") or "other").replace(" ", "_")
            if kind not in SECURITY_KINDS:
                given.fault("type", "unknown_type", f"a type is one of {', '.join(SECURITY_KINDS)}")
            if name in self.securities:
                given.fault("id", "duplicate_id", "another security has this id")
            currency, option = given.currency("currency"), self._option(given)
            if currency is None and not given.has("currency"):
                of_prices = _currencies_of_prices(body) if of_prices is None else of_prices
                currency = of_prices.get(name)
            currency = currency or "USD"
            ticker = given.text("symbol", 64)
            if name is None or kind not in SECURITY_KINDS:
                continue
            self.named[name] = currency
            self.securities[name] = BrokerSecurity(
                id=name,
                kind=cast(SecurityKind, kind),
                name=given.text("name"),
                ticker=ticker,
                exchange=given.text("exchange", 16),
                isin=given.text("isin", 12),
                cusip=given.text("cusip", 9),
                sedol=given.text("sedol", 7),
                currency=major(currency),
                is_money=kind == "cash",
                option=option or option_of(cast(SecurityKind, kind), ticker),
                scope=self.scope,
            )

    def _option(self, security: Fields) -> OptionContract | None:
        given = security.object("option")
        if given is None:
            return None
        right, expires = given.word("right", required=True), given.day("expires", self.today + 40_000, required=True)
        strike = given.amount("strike", required=True)
        if right is not None and right not in ("call", "put"):
            given.fault("right", "invalid_value", "this is call or put")
        if right not in ("call", "put") or expires is None or strike is None:
            return None
        return OptionContract(right, expires, strike, given.text("underlying", 64))  # type: ignore[arg-type]

    def _holdings(self, body: Fields) -> Iterator[HoldingPart]:
        for given in body.objects("holdings", MOST_HOLDINGS):
            given.unknown(_HOLDING)
            account, security = given.id("accountId"), given.id("securityId")
            quantity = given.amount("quantity", required=True)
            price, value, cost = _price(given), given.amount("value"), given.amount("costBasis")
            day, currency = given.day("priceDate", self.today + 1), given.currency("currency")
            default = self._check(given, account, security)
            if given.is_sound and account is not None and security is not None and quantity is not None:
                day = None if day is None else min(day, self.today)
                named = currency or default
                yield HoldingPart(account, security, quantity, price, value, cost, day, named, given.path)

    def _rows(self, body: Fields, latest: int) -> Iterator[NeutralRow]:
        seen: dict[str, Fields] = {}
        for place, given in enumerate(body.objects("transactions", MOST_TRANSACTIONS)):
            row = read_row(given, (self.since, latest), place, self._check, self._units_of)
            if row is None:
                continue
            before = seen.setdefault(row.id, given)
            if before is given:
                yield row
            elif not given.is_same_as(before):
                given.fault("id", "duplicate_id", f"{before.path} has this id and says something else")

    def _waypoints(self, body: Fields, latest: int) -> Iterator[Waypoint]:
        for given in body.objects("balances", MOST_BALANCES):
            given.unknown(_BALANCE)
            day, account = given.day("date", latest, since=self.since, required=True), given.id("accountId")
            security, currency = given.id("securityId", required=False), given.currency("currency")
            quantity, price = given.amount("quantity", required=True), _price(given)
            default = self._check(given, account, security)
            if quantity is not None and security in self.securities:
                note_impossible(quantity, self.securities[security], given.path, self.faults)
            if security is None and currency is None:
                given.missing("currency")
            if given.is_sound and day is not None and account is not None and quantity is not None:
                named = currency or default
                own = unit(named)
                if security is None:
                    quantity *= own
                elif self._is_option(security):
                    quantity, price = self.units.in_options(security, "held", quantity, price, None)
                yield Waypoint(day, account, quantity, security, major(named), _times(price, own))

    def _units_of(self, security: str | None) -> OptionUnits | None:
        return self.units if self._is_option(security) else None

    def _is_option(self, security: str | None) -> bool:
        return security in self.securities and self.securities[security].option is not None

    def _check(self, given: Fields, account: str | None, security: str | None) -> str:
        currency = "USD"
        if account is not None and self.listed_accounts.check(given, "accountId", account, self.accounts):
            currency = self.accounts[account].currency
        if security is not None and self.listed_securities.check(given, "securityId", security, self.securities):
            currency = self.named[security]
        return currency


def _currencies_of_prices(body: Fields) -> dict[object, str]:
    """Of the securities that are priced, by id: of the first holding that names one, else balance, else row."""
    found: dict[object, str] = {}
    for part in ("holdings", "balances", "transactions"):
        for one in body.raw(part):
            security = one.get("securityId")
            if isinstance(security, str) and security not in found and _is_priced(one):
                currency = Fields(one, "", Faults()).currency("currency")
                if currency is not None:
                    found[security] = currency
    return found


def _is_priced(one: Mapping[str, Any]) -> bool:
    return any(one.get(name) is not None for name in ("price", "value", "costBasis"))


def _price(given: Fields) -> Decimal | None:
    price = given.amount("price")
    if price is not None and price < 0:
        given.fault("price", "price_negative", "a price is not negative")
    return price


def _by(one: _Dated, day: int) -> _Dated:
    """What is of tomorrow, which has come somewhere, is of today."""
    return one if one.day <= day else replace(one, day=day)


def _times(price: Decimal | None, own: Decimal) -> Decimal | None:
    return None if price is None else price * own
