"""Users as a broker tells of them: what Plaid says of two years of saving, each user's own, on the same securities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import day_of

ACCOUNTS = ("brokerage", "ira", "401k")
MONTHS = 24
DAYS = 730
USD: dict[str, Any] = {"iso_currency_code": "USD", "unofficial_currency_code": None}


@dataclass(frozen=True, slots=True)
class Listed:
    """Securities with prices: `sessions` (int64, days since 1970-01-01) and `closes` as traded, float64 (securities,
    sessions); `split_day` of the first of them, which is split in two."""

    sessions: NDArray[np.int64]
    closes: NDArray[np.float64]
    split_day: int

    @property
    def count(self) -> int:
        return len(self.closes)

    def symbol(self, number: int) -> str:
        return f"S{number:04}"

    def price(self, number: int, day: int) -> float:
        return float(self.closes[number, self.sessions.searchsorted(day, side="right") - 1])


def listed(count: int, last: int, sessions: int = 1300) -> Listed:
    """`count` securities with closes on so many weekdays up to `last`."""
    random = np.random.default_rng(5)
    days = np.arange(last - sessions * 7 // 5 - 7, last + 1, dtype=np.int64)
    days = days[(days + 3) % 7 < 5][-sessions:]
    steps = 1 + 0.012 * random.standard_normal((count, sessions))
    closes = random.uniform(40, 300, (count, 1)) * np.cumprod(steps, axis=1)
    split_day = int(days[-250])
    closes[0, days >= split_day] /= 2
    return Listed(days, np.round(closes, 2), split_day)


@dataclass
class _Told:
    """Rows so far, oldest first, and what they lead to."""

    user: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    held: dict[tuple[str, str], float] = field(default_factory=dict)
    money: dict[str, list[float]] = field(default_factory=dict)

    def row(self, account: str, security: str | None, day: int, kind: tuple[str, str], quantity: float, price: float,
            amount: float, fees: float = 0.0) -> None:  # fmt: skip
        name = f"{kind[1].upper()} {security or 'ELECTRONIC FUNDS TRANSFER'}"
        self.rows.append({
            "investment_transaction_id": f"{self.user}-{len(self.rows):06}-of-a-broker-of-many", "account_id": account,
            "security_id": security, "date": day_of(day).isoformat(), "name": name, "quantity": quantity,
            "amount": amount, "price": price, "fees": fees, "type": kind[0], "subtype": kind[1],
            "cancel_transaction_id": None, **USD,
        })  # fmt: skip
        if security is not None and quantity:
            self.held[account, security] = round(self.held.get((account, security), 0.0) + quantity, 6)
        purse = self.money.setdefault(account, [0.0])
        purse.append(round(purse[-1] - amount, 2))


def payload(user: str, seed: int, market: Listed, last: int, securities: int, rows: int | None = None) -> Any:
    """What Plaid answers of one user on `last`: `securities` in three accounts, two of them priced by the broker alone,
    bought each month, sold now and then, with dividends that half of them reinvest. `rows`: at least so many."""
    random = np.random.default_rng(seed)
    chosen = [int(one) for one in random.choice(market.count, securities - 2, replace=False)]
    if 0 not in chosen:
        chosen[0] = 0  # everybody has the one that is split
    told = _Told(user)
    places = [(f"{user}-{ACCOUNTS[place % 2]}", number) for place, number in enumerate(chosen)]
    for account, number in places:
        told.held[account, f"sec-{market.symbol(number)}"] = float(random.integers(0, 80))
    first = last - DAYS
    events = _events(random, market, places, first, last, rows)
    is_split = False
    for day, place, kind in events:
        if day >= market.split_day and not is_split:
            is_split = True
            _split(told, market)
        _happen(told, random, market, places, user, day, place, kind)
    return _answer(told, market, chosen, user, last)


def _events(
    random: np.random.Generator,
    market: Listed,
    places: list[tuple[str, int]],
    first: int,
    last: int,
    rows: int | None,
) -> list[tuple[int, int, str]]:
    """Day, place in `places` (-1, -2: a fund of the broker's; else -10: money), and what happens, by day."""
    every, count = [], len(places)
    for month in range(MONTHS):
        low = first + month * DAYS // MONTHS
        every += [(low + int(random.integers(0, 29)), place, "buy") for place in (*range(count), -1, -2)]
        every += [(low + 1, -10 - account, "deposit") for account in range(2)]
        if month % 3 == 2:
            every += [(low + 20, place, "dividend") for place in range(count)]
            every += [(low + 25, -10 - account, "fee") for account in range(2)]
        if month % 6 == 5:
            every += [(low + int(random.integers(0, 29)), place, "sell") for place in range(count)]
    while rows is not None and len(every) < rows:
        every.append((first + int(random.integers(0, DAYS)), int(random.integers(0, count)), "buy"))
    sessions = market.sessions
    return sorted((int(sessions[sessions.searchsorted(min(one[0], last))]), *one[1:]) for one in every)


def _happen(
    told: _Told,
    random: np.random.Generator,
    market: Listed,
    places: list[tuple[str, int]],
    user: str,
    day: int,
    place: int,
    kind: str,
) -> None:
    if place <= -10:
        account, amount = f"{user}-{ACCOUNTS[-10 - place]}", 3000.0 if kind == "deposit" else 4.95
        sign, names = (-1, ("cash", "deposit")) if kind == "deposit" else (1, ("fee", "account fee"))
        told.row(account, None, day, names, 0.0, 0.0, sign * amount)
        return
    if place < 0:
        fund, price = f"sec-fund{-place}", round(20 + day % 400 / 100, 2)
        quantity = round(300 / price, 4)
        told.row(f"{user}-401k", fund, day, ("buy", "contribution"), quantity, price, 300.0)
        return
    account, number = places[place]
    name, price = f"sec-{market.symbol(number)}", market.price(number, day)
    held = told.held[account, name]
    if kind == "buy":
        quantity = round(float(random.integers(50, 900)) / price, 4)
        told.row(account, name, day, ("buy", "buy"), quantity, price, round(quantity * price + 0.5, 2), 0.5)
    elif kind == "sell" and held > 2:
        quantity = round(held / 8, 4)
        told.row(account, name, day, ("sell", "sell"), -quantity, price, -round(quantity * price - 0.5, 2), 0.5)
    elif kind == "dividend" and held:
        paid = round(held * price * 0.004 + 0.01, 2)
        told.row(account, name, day, ("cash", "dividend"), 0.0, 0.0, -paid)
        if number % 2:
            told.row(account, name, day, ("buy", "dividend reinvestment"), round(paid / price, 6), price, paid)


def _split(told: _Told, market: Listed) -> None:
    for (account, name), held in told.held.items():
        if name == f"sec-{market.symbol(0)}":
            told.held[account, name] = round(2 * held, 6)


def _answer(told: _Told, market: Listed, chosen: list[int], user: str, last: int) -> Any:
    worth = {f"sec-{market.symbol(number)}": market.price(number, last) for number in chosen}
    worth |= {f"sec-fund{number}": round(20 + last % 400 / 100, 2) for number in (1, 2)}
    money = {account: round(50.0 - min(purse) + purse[-1], 2) for account, purse in told.money.items()}
    holdings = [_holding(account, name, quantity, worth[name]) for (account, name), quantity in told.held.items()]
    holdings += [_holding(account, "sec-usd", amount, 1.0) for account, amount in money.items()]
    securities = [_security(f"sec-{market.symbol(n)}", market.symbol(n), f"Company {n} Works Inc.") for n in chosen]
    securities += [_security(f"sec-fund{n}", None, f"Target Trust {n}", "mutual fund") for n in (1, 2)]
    securities.append({**_security("sec-usd", "CUR:USD", "US Dollar", "cash"), "is_cash_equivalent": True})
    return {
        "accounts": [_account(f"{user}-{name}", name, money.get(f"{user}-{name}", 0.0)) for name in ACCOUNTS],
        "securities": securities,
        "holdings": [one for one in holdings if one["quantity"]],
        "investment_transactions": told.rows[::-1],
        "total_investment_transactions": len(told.rows),
    }


def _account(name: str, kind: str, current: float) -> dict[str, Any]:
    return {
        "account_id": name, "name": f"My {kind}", "official_name": None, "type": "investment", "subtype": kind,
        "mask": "0001", "balances": {"available": None, "current": current, "limit": None, **USD},
    }  # fmt: skip


def _security(name: str, ticker: str | None, title: str, kind: str = "equity") -> dict[str, Any]:
    return {
        "security_id": name, "ticker_symbol": ticker, "name": title, "type": kind, "is_cash_equivalent": False,
        "market_identifier_code": "XNAS" if kind == "equity" else None, "isin": None, "cusip": None, "sedol": None,
        "close_price": None, "close_price_as_of": None, "option_contract": None, "fixed_income": None, **USD,
    }  # fmt: skip


def _holding(account: str, security: str, quantity: float, price: float) -> dict[str, Any]:
    return {
        "account_id": account, "security_id": security, "quantity": quantity, "institution_price": price,
        "institution_price_as_of": None, "institution_value": round(quantity * price, 2),
        "cost_basis": None if security == "sec-usd" else round(quantity * price * 0.8, 2), **USD,
    }  # fmt: skip
