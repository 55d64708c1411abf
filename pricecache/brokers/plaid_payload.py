"""Plaid's answers about investments, holdings and transactions, as what a broker says: all of it checked first.

Plaid's fields are those of plaid-python 46.0.0 (`model/holding.py`, `security.py`, `investment_transaction.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from pricecache import garbage
from pricecache.brokers.cancelled import without_cancelled
from pricecache.brokers.fields import Faults, Fields, Listed, let_go
from pricecache.brokers.holdings import HoldingPart, Money, holdings_and_money
from pricecache.brokers.limits import MOST_ACCOUNTS, MOST_HOLDINGS, MOST_SECURITIES, MOST_TRANSACTIONS, OLDEST_DAYS
from pricecache.brokers.option_units import OptionUnits, option_of
from pricecache.brokers.plaid_rows import REINVESTED, TYPES, PlaidRow, translated
from pricecache.brokers.worth import CENT
from pricecache.core.bars import day_number
from pricecache.core.broker.cancelled import bounded
from pricecache.core.broker.data import (
    ZERO,
    BrokerAccount,
    BrokerData,
    BrokerHolding,
    BrokerSecurity,
    BrokerTransaction,
    Cancellation,
    OptionContract,
    Remark,
    SecurityKind,
)
from pricecache.core.currencies import ISO, is_known, major, unit

SCOPE = "plaid"
"""Ids of securities are Plaid's: the same for everybody."""
_PLAIDS_ZONE = ZoneInfo("America/New_York")

_KINDS: Mapping[str, SecurityKind] = {
    "cash": "cash",
    "cryptocurrency": "crypto",
    "derivative": "derivative",
    "equity": "equity",
    "etf": "etf",
    "fixed income": "fixed_income",
    "loan": "loan",
    "mutual fund": "mutual_fund",
}
_MAY_BE_MONEY = frozenset({"cash", "mutual_fund", "etf", "other"})
_OF_INVESTMENTS = frozenset({"investment", "brokerage", None})
_DEPOSITS = frozenset({"contribution", "deposit", "withdrawal"})
_CASH_TICKER = "CUR:"
ROWS_BETWEEN_LOOKS = 5000
"""For garbage, where rows are made of others that go."""
_NEAR_ONE = Decimal("0.001")


def plaids_day(at: float) -> int:
    """Of what day Plaid's holdings are that it tells at an instant (seconds since 1970 UTC), as they bear no date: its
    institutions are American, and so is the session that their prices and rows are of. Days since 1970-01-01."""
    return day_number(datetime.fromtimestamp(at, _PLAIDS_ZONE).date())


def read_plaid(
    holdings: Mapping[str, Any],
    transactions: Sequence[Mapping[str, Any]],
    *,
    today: int,
    first_day: int | None = None,
    institution: str | None = None,
) -> BrokerData:
    """What Plaid said by the end of `today`, as `plaids_day` has it. Pure; takes a second for 50,000 rows.

    `holdings`: the answer of /investments/holdings/get; `transactions`: the pages of /investments/transactions/get, in
    any order, overlapping or not; one object may be both. `first_day`: that of the request for them; None: the day of
    the first row, or `start_date` beside it. Raises `Invalid` with a row for every fault; nothing of it counts then.
    """
    return _Reading(today).read(holdings, transactions, first_day, institution)


class _Reading:
    """One payload as it is read. Belongs to one thread."""

    def __init__(self, today: int) -> None:
        self.today = today
        self.since = today - OLDEST_DAYS
        self.faults = Faults()
        self.remarks: list[Remark] = []
        self.accounts: dict[str, BrokerAccount] = {}
        self.balances: dict[str, tuple[Decimal | None, Decimal, str]] = {}
        self.securities: dict[str, BrokerSecurity] = {}
        self.prices: dict[str, set[Decimal]] = defaultdict(set)
        self.sweeps: set[str] = set()
        self.cancellations: list[Cancellation] = []
        self.units = OptionUnits()
        self.listed_accounts = Listed("accounts", "unknown_account")
        self.listed_securities = Listed("securities", "unknown_security")

    def read(
        self,
        holdings: Mapping[str, Any],
        transactions: Sequence[Mapping[str, Any]],
        first_day: int | None,
        institution: str | None,
    ) -> BrokerData:
        held = Fields(holdings, "", self.faults)
        pages = [
            Fields(page, f"transactions[{number}]" if len(transactions) > 1 else "", self.faults)
            for number, page in enumerate(transactions)
        ]
        other = [page for page in pages if not page.is_same_as(held)]
        start = held.day("start_date", self.today, since=self.since)
        item = held.object("item")
        name = institution or (item.text("institution_name") if item is not None else None)
        has_accounts = any(part.has("accounts") for part in (held, *other))
        for part in (held, *other):
            self._accounts(part, name, required=part is held and not has_accounts)
            self._securities(part)
        parts = list(self._holdings(held))
        rows = self._rows(pages)
        self._settle_money()
        self._settle_options(parts, rows)
        held_now, money = holdings_and_money(parts, self.securities, self.units, self.faults, self.remarks)
        self.faults.raise_any()
        self._add_unlisted_cash(held_now, money, {row.account for row in rows if row.subtype in _DEPOSITS})
        translated_rows = self._translated(rows)
        day = self.today
        first = min((row.day for row in translated_rows), default=day)
        stated = first_day if first_day is not None else start
        used = {part.account for part in parts} | {row.account for row in translated_rows}
        return BrokerData(
            day=day,
            first_day=min(first, stated if stated is not None else first),
            accounts={name: one for name, one in self.accounts.items() if one.kind is not None or name in used},
            securities=self.securities,
            holdings=held_now,
            money=money,
            transactions=tuple(translated_rows),
            cancellations=bounded(self.cancellations),
            remarks=tuple(self.remarks),
        )

    def _accounts(self, part: Fields, institution: str | None, required: bool) -> None:
        listed = self.listed_accounts.read(part, MOST_ACCOUNTS, "account_id", required=required)
        for given, name in _named_once(listed, "account_id"):
            balances = given.object("balances")
            currency, balance, available, owed = "USD", None, None, None
            if balances is not None:
                currency = self._currency(balances) or "USD"
                balance, available = balances.amount("current"), balances.amount("available")
                owed = balances.amount("margin_loan_amount")
                if not is_known(currency):
                    currency, balance = "USD", None
            kind = given.word("subtype")
            if given.word("type") not in _OF_INVESTMENTS:
                kind = None
            if name is not None and given.is_sound:
                title = given.text("name") or given.text("official_name") or name
                own = None if balance is None else balance * unit(currency)
                self.accounts[name] = BrokerAccount(name, title, institution, kind, major(currency), own)
                spare, debt = None if available is None else available * unit(currency), (owed or ZERO) * unit(currency)
                self.balances[name] = spare, abs(debt), given.path

    def _securities(self, part: Fields) -> None:
        for given, name in _named_once(
            self.listed_securities.read(part, MOST_SECURITIES, "security_id"), "security_id"
        ):
            kind = _KINDS.get(given.word("type") or "", "other")
            price, code = given.amount("close_price"), self._currency(given)
            equivalent, option = given.flag("is_cash_equivalent"), self._option(given)
            ticker = given.text("ticker_symbol", 64)
            if name is None or not given.is_sound:
                continue
            if ticker is not None and ticker.upper().startswith(_CASH_TICKER):
                ticker = ticker[len(_CASH_TICKER) :].upper()
                kind, code = ("cash", ticker) if ticker in ISO else ("crypto", code)
                self.sweeps.update({name} if ticker in ISO else ())
            elif kind == "cash" and code is not None and code not in ISO:
                kind, ticker = "crypto", ticker or code
            elif equivalent and kind in _MAY_BE_MONEY:
                self.prices[name].update(() if price is None else (price,))
            elif kind == "cash" and (ticker is None or ticker in ISO):
                self.sweeps.add(name)
            self.securities[name] = BrokerSecurity(
                id=name,
                kind=kind,
                name=given.text("name"),
                ticker=ticker,
                exchange=given.text("market_identifier_code", 16),
                isin=given.text("isin", 12),
                cusip=given.text("cusip", 9),
                sedol=given.text("sedol", 7),
                currency=major(code) if code is not None and is_known(code) and kind != "crypto" else "USD",
                option=option or option_of(kind, ticker),
                scope=SCOPE,
            )

    def _option(self, given: Fields) -> OptionContract | None:
        contract = given.object("option_contract")
        if contract is None:
            return None
        right, expires = contract.word("contract_type"), contract.day("expiration_date", self.today + 40_000)
        strike = contract.amount("strike_price")
        if right not in ("call", "put") or expires is None or strike is None:
            return None
        return OptionContract(right, expires, strike, contract.text("underlying_security_ticker", 64))  # type: ignore[arg-type]

    def _holdings(self, part: Fields) -> Iterator[HoldingPart]:
        for given in part.objects("holdings", MOST_HOLDINGS, required=True):
            account, security = given.id("account_id"), given.id("security_id")
            quantity = given.amount("quantity", required=True)
            price, value = self._price(given, "institution_price"), given.amount("institution_value")
            cost, day = given.amount("cost_basis"), given.day("institution_price_as_of", self.today + 1)
            currency = self._currency(given)
            self._known(given, account, security)
            if not given.is_sound or account is None or security is None or quantity is None:
                continue
            if security in self.prices and price is not None:
                self.prices[security].add(price)
            is_coin = currency is not None and currency not in ISO and self.securities[security].kind == "crypto"
            if is_coin:
                price = value = cost = currency = None
            day = None if day is None else min(day, self.today)
            yield HoldingPart(account, security, quantity, price, value, cost, day, currency, given.path)

    def _price(self, given: Fields, name: str) -> Decimal | None:
        price = given.amount(name)
        if price is None or price >= 0:
            return price
        self.remarks.append(Remark("sign_corrected", f"{given.path}.{name}", "a price, below nothing"))
        return -price

    def _known(self, given: Fields, account: str | None, security: str | None) -> None:
        if account is not None:
            self.listed_accounts.check(given, "account_id", account, self.accounts)
        if security is not None:
            self.listed_securities.check(given, "security_id", security, self.securities)

    def _currency(self, given: Fields) -> str | None:
        """The code as it stands; a coin that money is not counted in here too."""
        if given.has("iso_currency_code"):
            return given.currency("iso_currency_code")
        coin = given.text("unofficial_currency_code", 16)
        if coin is None or is_known(coin):
            return coin
        coin = coin.upper()
        if not (coin.isalnum() and coin.isascii() and 2 <= len(coin) <= 10):
            given.fault("unofficial_currency_code", "bad_currency", "a coin is named by 2 to 10 letters and digits")
        return coin

    def _rows(self, pages: Sequence[Fields]) -> list[PlaidRow]:
        seen: dict[str, Fields] = {}
        rows: list[PlaidRow] = []
        room, step = MOST_TRANSACTIONS, -1 if _is_newest_first(pages) else 1
        for page in pages:
            for given in page.objects("investment_transactions", room, required=True):
                name = given.id("investment_transaction_id")
                before = None if name is None else seen.setdefault(name, given)
                if before is None or before is given:
                    row = self._row(given, name, step * len(rows))
                    if row is not None:
                        rows.append(row)
                elif not given.is_same_as(before):
                    detail = f"{before.path} has this id and says something else"
                    given.fault("investment_transaction_id", "duplicate_id", detail)
            room = MOST_TRANSACTIONS - len(rows)
        self._check_whole(pages, len(seen))
        let_go(seen)
        return rows

    def _check_whole(self, pages: Sequence[Fields], count: int) -> None:
        """The smallest total counts: rows may be posted while the pages are fetched."""
        totals = [total for page in pages if (total := page.amount("total_investment_transactions")) is not None]
        if not self.faults.total and totals and min(totals) > count:
            detail = f"{min(totals)} transactions there are, {count} are here: every page is needed"
            pages[0].fault("investment_transactions", "pages_missing", detail)

    def _row(self, given: Fields, name: str | None, place: int) -> PlaidRow | None:
        account, security = given.id("account_id"), given.id("security_id", required=False)
        day = given.day("date", self.today + 1, since=self.since, required=True)
        kind, subtype = given.word("type", required=True), given.word("subtype")
        quantity, amount = given.amount("quantity", required=True), given.amount("amount", required=True)
        price, fees = self._price(given, "price"), given.amount("fees") or ZERO
        cancels = given.id("cancel_transaction_id", required=False)
        note, currency = given.text("name", 500), self._currency(given)
        if kind is not None and kind not in TYPES:
            given.fault("type", "unknown_type", f"a type is one of {', '.join(sorted(TYPES))}")
        self._known(given, account, security)
        if not given.is_sound or None in (name, account, day, kind, quantity, amount):
            return None
        if currency is None:
            currency = self.accounts[account].currency  # type: ignore[index]
        return PlaidRow(
            name, account, min(day, self.today), kind, subtype, security, quantity, amount, price, fees,  # type: ignore[arg-type,type-var]
            currency, note, cancels, given.path, place, not is_known(currency),
        )  # fmt: skip

    def _add_unlisted_cash(self, holdings: Sequence[BrokerHolding], money: Money, paid_into: set[str]) -> None:
        """Some institutions list no cash, or none that is owed. It is what an account is worth beyond what is listed,
        if the balances say the same of it. That there is none counts where money is told of otherwise, too: pension
        plans say so that tell of no contributions."""
        for name, (available, owed, path) in self.balances.items():
            one = self.accounts[name]
            own = [held for held in holdings if held.account == name]
            if one.balance is None or any(held.price is None or held.currency != one.currency for held in own):
                continue
            listed = money.get((name, one.currency))
            worth = sum((held.quantity * held.price for held in own if held.price is not None), listed or ZERO)
            beyond, near = one.balance - worth, CENT * (len(own) + 1)
            is_told = available or (available is not None and name in paid_into)
            if listed is None and available is not None and is_told and abs(beyond - available) <= near:
                money[name, one.currency] = available
            elif owed and abs(beyond + owed) <= near:
                money[name, one.currency] = (listed or ZERO) - owed
            else:
                continue
            self.remarks.append(Remark("cash_from_balance", path, "no holding of it: taken from the balances"))

    def _settle_money(self) -> None:
        """Which securities are money is known once every price of them was seen."""
        for name, one in self.securities.items():
            priced = self.prices.get(name)
            at_one = priced is not None and all(abs(price - 1) <= _NEAR_ONE for price in priced)
            if name in self.sweeps or (at_one and (priced or one.kind == "cash")):
                self.securities[name] = replace(one, is_money=True)

    def _settle_options(self, parts: Sequence[HoldingPart], rows: Sequence[PlaidRow]) -> None:
        options = {name for name, one in self.securities.items() if one.option is not None}
        if not options:
            return
        for part in parts:
            if part.security in options:
                self.units.note(part.security, "held", part.quantity, part.price, part.value)
        for row in rows:
            if row.security in options:
                self.units.note(row.security, "rows", row.quantity, row.price, row.amount)
        self.securities = self.units.told(self.securities)

    def _translated(self, rows: list[PlaidRow]) -> list[BrokerTransaction]:
        kept, self.cancellations = without_cancelled(rows, self.securities, self.units, self.remarks)
        kept.reverse()
        found: list[BrokerTransaction] = []
        while kept:  # each is given back as soon as it is read
            row = kept.pop()
            if len(kept) % ROWS_BETWEEN_LOOKS == ROWS_BETWEEN_LOOKS - 1:
                garbage.grown_old()
            security = None if row.security is None else self.securities[row.security]
            found += translated(row, security, self.units, self.remarks)
        return sorted(_once_paid(found), key=lambda row: (row.day, row.place))


def _named_once(listed: Iterable[tuple[Fields, str | None]], field: str) -> Iterator[tuple[Fields, str | None]]:
    """Each object of a list with its id. Notes one whose id another object of this list has that says something else;
    another answer may: it was given at another time."""
    seen: dict[str, Fields] = {}
    for given, found in listed:
        before = given if found is None else seen.setdefault(found, given)
        if not given.is_same_as(before):
            given.fault(field, "duplicate_id", f"{before.path} has this id and says something else")
        yield given, found


def _is_newest_first(pages: Sequence[Fields]) -> bool:
    """Plaid's own order; the rows of one day then are, too."""
    ends = [end for page in pages for end in page.ends("investment_transactions", "date")]
    return len(ends) > 1 and ends[0] > ends[-1]


def _once_paid(rows: Sequence[BrokerTransaction]) -> Iterator[BrokerTransaction]:
    """Without income that a money fund reinvested and that is told as income, too."""
    paid: dict[tuple[str, str, Decimal], list[int]] = defaultdict(list)
    for row in rows:
        if row.action in ("dividend", "interest") and not row.id.endswith(f"/{REINVESTED}"):
            paid[row.account, row.currency, row.cash].append(row.day)
    for row in rows:
        if row.id.endswith(f"/{REINVESTED}"):
            days = paid.get((row.account, row.currency, row.cash), [])
            near = next((day for day in days if abs(day - row.day) <= 3), None)
            if near is not None:
                days.remove(near)
                continue
        yield row
