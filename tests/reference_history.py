"""What a portfolio's history is, said again the slow and obvious way: day by day, row by row, in Decimal.

Shares nothing with the engine but its values (`Transaction`, `Rules`, `MarketData`) and the order of rows. Every day
is worked out by looking everything up anew.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Transaction
from pricecache.core.marketdata import MarketData

ZERO, ONE = Decimal(0), Decimal(1)
NAN = Decimal("NaN")
PENCE = {"GBp": "GBP"}
Row = dict[str, Decimal | None]


@dataclass
class Piece:
    """A lot; negative quantity and cost when it is owed."""

    quantity: Decimal
    cost: Decimal
    day: int
    number: int


@dataclass
class Day:
    """One account's flows and what happened today."""

    bought: dict[Any, list[Decimal]] = field(default_factory=lambda: defaultdict(list))
    sold: dict[Any, list[Decimal]] = field(default_factory=lambda: defaultdict(list))
    shares: list[tuple[Instrument, Decimal, bool]] = field(default_factory=list)
    paid: list[tuple[Decimal, bool, bool]] = field(default_factory=list)
    """(signed amount, across the portfolio's border, whether its currency has a rate today)"""


class Reference:
    def __init__(self, ledger: Ledger, market: MarketData, end: int) -> None:
        self.rows = ledger.transactions
        self.rules = ledger.rules
        self.market = market
        self.end = end
        self.base = ledger.rules.currency
        self.pieces: dict[tuple[str, Instrument], list[Piece]] = defaultdict(list)
        self.cash: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        self.totals: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        self.accounts = sorted({a for row in self.rows for a in (row.account, row.to_account) if a is not None})
        self.number = 0
        self.day = 0
        self.swaps = self.swapped_splits()
        self.today: dict[str, Day] = {}
        self.worth_before: dict[str | None, Decimal] = defaultdict(Decimal)
        self.index: dict[str | None, Decimal] = defaultdict(lambda: ONE)

    def run(self) -> dict[int, dict[str | None, Row]]:
        with localcontext(prec=50):
            result = {}
            for day in range(self.rows[0].day, self.end + 1):
                result[day] = self.one_day(day)
            return result

    def one_day(self, day: int) -> dict[str | None, Row]:
        self.day = day
        held_before = {key: self.quantity(key) for key in self.pieces}
        cash_before = dict(self.cash)
        self.today = defaultdict(Day)
        self.splits(day)
        for row in self.rows:
            if row.day == day:
                self.apply(row)
        self.net_linked(day)
        return self.value(day, held_before, cash_before)

    # splits

    def market_splits(self, instrument: Instrument) -> dict[int, Fraction]:
        column = self.market.prices.get(instrument)
        return {a.ex_date: ratio(a.value) for a in column.actions if a.kind == "split"} if column else {}

    def swapped_splits(self) -> dict[tuple[str, Instrument], list[tuple[int | None, int, Fraction, Fraction]]]:
        """Per account and instrument: (the market's day or None, the ledger's day, market's ratio, ledger's ratio)."""
        found: dict[tuple[str, Instrument], list[tuple[int | None, int, Fraction, Fraction]]] = defaultdict(list)
        for instrument in {row.instrument for row in self.rows if row.instrument is not None}:
            market = self.market_splits(instrument)
            own = sorted(
                (row for row in self.rows if row.type == "split" and row.instrument == instrument),
                key=lambda row: (row.day, row.account),
            )
            claimed: dict[tuple[int, str], Transaction] = {}
            for row in own:
                free = [m for m in market if (m, row.account) not in claimed]
                near = [m for m in free if self.sessions_between(instrument, m, row.day) <= 5]
                if near:
                    claimed[min(near, key=lambda m: (abs(m - row.day), m)), row.account] = row
            for account in self.accounts:
                for m, r in market.items():
                    row = claimed.get((m, account)) or claimed.get((m, ""))
                    found[account, instrument].append(
                        (m, m, r, r) if row is None else (m, row.day, r, ratio(row.ratio))
                    )
                for row in own:
                    if row in claimed.values():
                        continue
                    others = {o.account for o in own if abs(o.day - row.day) <= 5 and o.account}
                    if row.account == account or (row.account == "" and account not in others):
                        found[account, instrument].append((None, row.day, Fraction(1), ratio(row.ratio)))
        return found

    def sessions_between(self, instrument: Instrument, a: int, b: int) -> int:
        column = self.market.prices.get(instrument)
        if column is None or not len(column.closes.due) or abs(a - b) > 20:
            return abs(a - b)
        return sum(1 for d in column.closes.due.tolist() if min(a, b) <= d < max(a, b))

    def splits(self, day: int) -> None:
        for (account, instrument), swaps in self.swaps.items():
            for _, stated, _, by in swaps:
                if stated == day:
                    for piece in self.pieces[account, instrument]:
                        piece.quantity = times(piece.quantity, by)

    def factor(self, account: str, instrument: Instrument, day: int) -> Decimal:
        product = Fraction(1)
        for m, stated, by_market, _ in self.swaps[account, instrument]:
            if m is not None and m <= day < stated:
                product *= by_market
            if m is not None and stated <= day < m:
                product /= by_market
        return Decimal(product.numerator) / product.denominator

    # rows

    def apply(self, row: Transaction) -> None:
        getattr(self, "row_" + row.type)(row)

    def currency(self, row: Transaction) -> str:
        if row.currency is not None:
            return row.currency
        if row.instrument is None or row.type in ("deposit", "withdrawal"):
            return self.base
        column = self.market.prices.get(row.instrument)
        return column.currency if column else row.instrument.currency

    def market_rate(self, currency: str, day: int) -> Decimal:
        part = Decimal("0.01") if currency in PENCE else ONE
        whole = PENCE.get(currency, currency)
        if whole == self.base:
            return part
        column = self.market.rates.get(whole)
        if column is not None:
            for session, rate in reversed(list(zip(column.sessions.tolist(), column.values.tolist(), strict=True))):
                if session <= day:
                    return Decimal(str(rate)) * part
        return NAN

    def rate(self, row: Transaction) -> Decimal:
        return row.fx_rate if row.fx_rate is not None else self.market_rate(self.currency(row), row.day)

    def pay(self, account: str, currency: str, amount: Decimal) -> None:
        if self.rules.cash_tracking:
            part = Decimal("0.01") if currency in PENCE else ONE
            self.cash[account, PENCE.get(currency, currency)] += amount * part

    def units(self, row: Transaction) -> tuple[Decimal, Decimal]:
        quantity, price = row.quantity or ZERO, row.price or ZERO
        if row.adjusted_as_of is None:
            return quantity, price
        by = Fraction(1)
        for _, stated, _, r in self.swaps[row.account, row.instrument]:
            if row.day < stated <= row.adjusted_as_of:
                by *= r
        return times(quantity, 1 / by), price * by.numerator / by.denominator

    def quantity(self, key: tuple[str, Instrument]) -> Decimal:
        return sum((piece.quantity for piece in self.pieces[key]), ZERO)

    def row_split(self, row: Transaction) -> None:
        pass

    def row_buy(self, row: Transaction) -> None:
        quantity, price = self.units(row)
        extra = row.fees + row.taxes
        cost = quantity * price + (extra if self.rules.fees_in_cost else ZERO)
        rate = self.rate(row)
        self.pay(row.account, self.currency(row), -quantity * price - extra)
        self.today[row.account].bought[row.instrument].append((quantity * price + extra) * rate)
        if not self.rules.fees_in_cost and extra:
            self.totals[row.account]["fees"] += extra * rate
        self.take_in(row.account, row.instrument, quantity, cost * rate, row.day)

    def take_in(self, account: str, instrument: Instrument, quantity: Decimal, cost: Decimal, day: int) -> None:
        key = (account, instrument)
        owed = -min(self.quantity(key), ZERO)
        if owed:
            covered = min(owed, quantity)
            part = cost * covered / quantity
            proceeds = -self.take_out(account, instrument, -covered)[0]
            self.totals[account]["proceeds"] += proceeds
            self.totals[account]["original"] += part
            quantity, cost = quantity - covered, cost - part
        if quantity:
            self.number += 1
            self.pieces[key].append(Piece(quantity, cost, day, self.number))

    def take_out(
        self, account: str, instrument: Instrument, quantity: Decimal
    ) -> tuple[Decimal, list[tuple[Decimal, Decimal, int]]]:
        """Remove so many (negative: owed ones) in the order of the method; their cost, and (quantity, cost, day)."""
        if self.rules.cost_basis == "average":
            self.share_out(instrument)
        pieces = self.pieces[account, instrument]
        order = {
            "fifo": lambda p: (p.day, p.number),
            "average": lambda p: (p.day, p.number),
            "lifo": lambda p: (-p.day, -p.number),
            "hifo": lambda p: (-(ZERO if p.cost.is_nan() else p.cost / p.quantity), p.number),
        }[self.rules.cost_basis]
        parts = []
        for piece in sorted(pieces, key=order):
            taken = min(abs(quantity), abs(piece.quantity)) * (1 if quantity > 0 else -1)
            if not taken:
                continue
            cost = piece.cost * taken / piece.quantity
            parts.append((taken, cost, piece.day))
            piece.cost -= cost
            piece.quantity -= taken
            quantity -= taken
        self.pieces[account, instrument] = [p for p in pieces if p.quantity]
        return sum((cost for _, cost, _ in parts), ZERO), parts

    def share_out(self, instrument: Instrument) -> None:
        for sign in (1, -1):
            pool = [
                (piece, piece.quantity * self.factor(account, instrument, self.day))
                for (account, i), pieces in self.pieces.items()
                if i == instrument
                for piece in pieces
                if piece.quantity * sign > 0
            ]
            if pool:
                unit = sum(piece.cost for piece, _ in pool) / sum(quantity for _, quantity in pool)
                for piece, quantity in pool:
                    piece.cost = unit * quantity

    def row_sell(self, row: Transaction) -> None:
        quantity, price = self.units(row)
        extra = row.fees + row.taxes
        rate = self.rate(row)
        proceeds = (quantity * price - (extra if self.rules.fees_in_cost else ZERO)) * rate
        self.pay(row.account, self.currency(row), quantity * price - extra)
        self.today[row.account].sold[row.instrument].append((quantity * price - extra) * rate)
        if not self.rules.fees_in_cost and extra:
            self.totals[row.account]["fees"] += extra * rate
        held = max(self.quantity((row.account, row.instrument)), ZERO)
        closing = min(held, quantity)
        if closing:
            self.totals[row.account]["proceeds"] += proceeds * closing / quantity
            self.totals[row.account]["original"] += self.take_out(row.account, row.instrument, closing)[0]
        if quantity > closing:
            short = quantity - closing
            self.number += 1
            self.pieces[row.account, row.instrument].append(
                Piece(-short, -proceeds * short / quantity, row.day, self.number)
            )

    def row_dividend(self, row: Transaction) -> None:
        extra = row.fees + row.taxes
        rate = self.rate(row)
        name = "dividends" if row.type == "dividend" else "interest"
        self.totals[row.account][name] += row.amount * rate
        if extra:
            self.totals[row.account]["fees"] += extra * rate
        self.today[row.account].sold[row.instrument].append((row.amount - extra) * rate)
        self.pay(row.account, self.currency(row), row.amount - extra)

    row_interest = row_dividend

    def row_fee(self, row: Transaction) -> None:
        amount = row.amount + row.fees + row.taxes
        self.totals[row.account]["fees"] += amount * self.rate(row)
        self.today[row.account].bought[row.instrument].append(amount * self.rate(row))
        self.pay(row.account, self.currency(row), -amount)

    row_tax = row_fee

    def row_deposit(self, row: Transaction, sign: int = 1) -> None:
        if not self.rules.cash_tracking:
            return
        extra = row.fees + row.taxes
        amount = sign * row.amount
        valued = not self.market_rate(self.currency(row), row.day).is_nan()
        self.today[row.account].paid.append((amount * self.rate(row), True, valued))
        if extra:
            self.totals[row.account]["fees"] += extra * self.rate(row)
        self.pay(row.account, self.currency(row), amount - extra)

    def row_withdrawal(self, row: Transaction) -> None:
        self.row_deposit(row, -1)

    def row_opening(self, row: Transaction) -> None:
        if row.instrument is None:
            return self.row_deposit(row)
        self.charge(row)
        quantity, price = self.units(row)
        self.today[row.account].shares.append((row.instrument, quantity, True))
        day = row.day if row.acquired_on is None else row.acquired_on
        return self.take_in(row.account, row.instrument, quantity, quantity * price * self.rate(row), day)

    def row_transfer_in(self, row: Transaction) -> None:
        return self.row_opening(row) if row.to_account is None else self.internal(row)

    def row_transfer_out(self, row: Transaction) -> None:
        if row.to_account is not None:
            return self.internal(row)
        if row.instrument is None:
            return self.row_deposit(row, -1)
        self.charge(row)
        return self.leave(row, self.units(row)[0])

    def row_adjustment(self, row: Transaction) -> None:
        if row.instrument is None:
            return self.row_deposit(row)
        if row.quantity > 0:
            return self.row_opening(row)
        self.charge(row)
        return self.leave(row, -self.units(row)[0])

    def leave(self, row: Transaction, quantity: Decimal) -> None:
        quantity = min(quantity, max(self.quantity((row.account, row.instrument)), ZERO))
        if quantity:
            self.take_out(row.account, row.instrument, quantity)
            self.today[row.account].shares.append((row.instrument, -quantity, True))

    def internal(self, row: Transaction) -> None:
        if row.instrument is None:
            if self.rules.cash_tracking:
                self.charge(row)
                valued = not self.market_rate(self.currency(row), row.day).is_nan()
                base = row.amount * self.rate(row) if valued else NAN
                for account, amount, flow in ((row.account, -row.amount, -base), (row.to_account, row.amount, base)):
                    self.today[account].paid.append((flow, False, True))
                    self.pay(account, self.currency(row), amount)
            return
        self.charge(row)
        quantity = min(self.units(row)[0], max(self.quantity((row.account, row.instrument)), ZERO))
        if not quantity:
            return
        self.today[row.account].shares.append((row.instrument, -quantity, False))
        self.today[row.to_account].shares.append((row.instrument, quantity, False))
        for part, cost, day in self.take_out(row.account, row.instrument, quantity)[1]:
            self.take_in(row.to_account, row.instrument, part, cost, day)

    def charge(self, row: Transaction) -> None:
        extra = row.fees + row.taxes
        if extra:
            self.totals[row.account]["fees"] += extra * self.rate(row)
            self.today[row.account].bought[row.instrument].append(extra * self.rate(row))
            self.pay(row.account, self.currency(row), -extra)

    def net_linked(self, day: int) -> None:
        for link in {row.link for row in self.rows if row.day == day and row.link}:
            pair = [row for row in self.rows if row.day == day and row.link == link]
            dividends = [row for row in pair if row.type == "dividend"]
            buys = [row for row in pair if row.type == "buy"]
            if dividends and buys:
                dividend, buy = dividends[0], buys[0]
                quantity, price = self.units(buy)
                extra = buy.fees + buy.taxes if self.rules.fees_in_cost else ZERO
                spent = (quantity * price + extra) * self.rate(buy)
                got = (dividend.amount - dividend.fees - dividend.taxes) * self.rate(dividend)
                net = ZERO if spent.is_nan() or got.is_nan() else min(spent, got)
                self.today[buy.account].bought[buy.instrument].append(-net)
                self.today[dividend.account].sold[dividend.instrument].append(-net)

    # what it is all worth

    def price(self, instrument: Instrument, day: int) -> Decimal:
        """In base currency, carried from the last session, in today's units; NaN before the first."""
        column = self.market.prices.get(instrument)
        if column is None:
            return NAN
        closes = column.closes
        for session, close in reversed(list(zip(closes.sessions.tolist(), closes.values.tolist(), strict=True))):
            if session <= day:
                price = Decimal(str(close)) * self.market_rate(column.currency, day)
                for action in column.actions:
                    if action.kind != "dividend" and session < action.ex_date <= day:
                        price /= Decimal(str(action.value))
                return price
        return NAN

    def is_due(self, instrument: Instrument, day: int) -> bool:
        column = self.market.prices.get(instrument)
        return column is not None and day in column.closes.due

    def is_stale(self, instrument: Instrument, day: int) -> bool:
        column = self.market.prices.get(instrument)
        if column is None or not self.is_due(instrument, day):
            return False
        rates = self.market.rates.get(PENCE.get(column.currency, column.currency))
        base = PENCE.get(column.currency, column.currency) == self.base
        no_rate = not base and rates is not None and day in rates.due and day not in rates.sessions
        return day not in column.closes.sessions or no_rate

    def value(
        self, day: int, held_before: dict[tuple[str, Instrument], Decimal], cash_before: dict[tuple[str, str], Decimal]
    ) -> dict[str | None, Row]:
        if self.rules.cost_basis == "average":
            for instrument in {i for _, i in self.pieces}:
                self.share_out(instrument)
        parts = {account: self.account(account, day, held_before, cash_before) for account in self.accounts}
        total: dict[str, Decimal] = defaultdict(Decimal)
        for part in parts.values():
            for name, amount in part.items():
                total[name] += amount
        scopes: dict[str | None, dict[str, Decimal]] = {None: total, **parts}
        result: dict[str | None, Row] = {}
        for scope, part in scopes.items():
            result[scope] = self.row_of(scope, part)
        return result

    def account(
        self,
        account: str,
        day: int,
        held_before: dict[tuple[str, Instrument], Decimal],
        cash_before: dict[tuple[str, str], Decimal],
    ) -> dict[str, Decimal]:
        part: dict[str, Decimal] = defaultdict(Decimal)
        part.update(self.totals[account])
        hidden = set()
        today = self.today[account]
        instruments = {i for a, i in self.pieces if a == account} | {i for i in today.bought if i is not None}
        instruments |= {i for i in today.sold if i is not None}
        for instrument in instruments:
            key = (account, instrument)
            quantity = self.quantity(key)
            cost = sum((piece.cost for piece in self.pieces[key]), ZERO)
            price = self.price(instrument, day)
            is_listed_today = not price.is_nan() and self.price(instrument, day - 1).is_nan()
            arrives = is_listed_today and bool(held_before.get(key))
            if price.is_nan() or arrives:
                hidden.add(instrument)
            if not quantity:
                continue
            market_quantity = quantity * self.factor(account, instrument, day)
            value = market_quantity * price
            part["cost"] += cost
            part["held"] += 1
            if price.is_nan():
                part["unpriced"] += 1
                weight = ZERO if cost.is_nan() else abs(cost)
                part["unweighed"] += weight == 0
                part["weight"] += weight
                continue
            part["worth"] += value
            part["unrealized"] += value - cost
            if arrives:
                part["in" if value > 0 else "out"] += abs(value)
            if self.is_due(instrument, day):
                part["weight"] += abs(value)
                stale = self.is_stale(instrument, day)
                part["estimated"] += stale
                part["fresh"] += ZERO if stale else abs(value)
        self.flows(account, day, part, hidden)
        for (owner, currency), amount in self.cash.items():
            if owner != account:
                continue
            rate = self.market_rate(currency, day)
            before = cash_before.get((owner, currency), ZERO)
            part["held"] += amount != 0
            if rate.is_nan():
                part["unpriced"] += amount != 0
                part["unweighed"] += amount != 0
                part["cash_unpriced"] += amount != 0
                continue
            part["cash_priced"] += amount != 0
            part["cash"] += amount * rate
            part["worth"] += amount * rate
            if self.market_rate(currency, day - 1).is_nan():
                part["in" if before * rate > 0 else "out"] += abs(before * rate)
        return part

    def flows(self, account: str, day: int, part: dict[str, Decimal], hidden: set[Instrument]) -> None:
        """Net flow of everything; in and out of what has prices, inner and outer apart."""
        today = self.today[account]
        with_cash = self.rules.cash_tracking
        for flows, sign in ((today.bought, 1), (today.sold, -1)):
            for instrument, amount in [(instrument, one) for instrument, each in flows.items() for one in each]:
                if not with_cash:
                    part["net"] += sign * amount
                known = ZERO if amount.is_nan() else amount
                if instrument in hidden and with_cash:
                    part["out" if sign > 0 else "in"] += known
                elif instrument not in hidden and not with_cash:
                    part["in" if sign > 0 else "out"] += known
        for instrument, quantity, external in today.shares:
            price = self.price(instrument, day)
            if price.is_nan():
                continue
            amount = quantity * self.factor(account, instrument, day) * price
            side = "in" if amount > 0 else "out"
            part["net" if external else "inner_net"] += amount
            if instrument not in hidden:
                part[side if external else "inner_" + side] += abs(amount)
        for amount, external, valued in today.paid:
            part["net" if external else "inner_net"] += amount
            if valued and not amount.is_nan():
                part[("" if external else "inner_") + ("in" if amount > 0 else "out")] += abs(amount)

    def row_of(self, scope: str | None, part: dict[str, Decimal]) -> Row:
        inflow, outflow, net = part["in"], part["out"], part["net"]
        if scope is not None:
            inflow, outflow, net = inflow + part["inner_in"], outflow + part["inner_out"], net + part["inner_net"]
        worth = part["worth"]
        had, has = self.worth_before[scope] + inflow, worth + outflow
        tiny = Decimal("0.0049")
        index: Decimal | None
        if abs(had) < tiny and abs(has) < tiny:
            index = self.index[scope]
        elif had < tiny or has < -tiny:
            index = None
        else:
            index = self.index[scope] = self.index[scope] * max(has, ZERO) / had
        self.worth_before[scope] = worth
        whole, count = part["weight"], part["held"]
        share = (part["fresh"] / whole if whole else ONE) * ((count - part["unweighed"]) / count if count else ONE)
        nowhere = part["unpriced"] > 0 and part["unpriced"] == count
        cash: Decimal | None = part["cash"] if self.rules.cash_tracking else NAN
        if part["cash_unpriced"] and not part["cash_priced"]:
            cash = NAN
        realized = part["proceeds"] - part["original"]
        row: dict[str, Decimal | None] = {
            "total_value": NAN if nowhere else worth,
            "total_cost": part["cost"],
            "total_realized_gain_loss": realized,
            "total_unrealized_gain_loss": part["unrealized"],
            "total_dividends": part["dividends"],
            "total_sale_proceeds": part["proceeds"],
            "total_original_cost": part["original"],
            "total_gain_loss": realized + part["unrealized"],
            "cash": cash,
            "net_flow": net,
            "return_index": index,
            "coverage": share,
            "total_fees": part["fees"],
            "total_interest": part["interest"],
            "estimated": part["estimated"],
        }
        return {name: None if one is None or one.is_nan() else one for name, one in row.items()}


def ratio(value: Any) -> Fraction:
    exact = Fraction(str(value))
    near = exact.limit_denominator(10_000)
    return near if abs(near - exact) <= exact / 10**8 else exact


def times(quantity: Decimal, by: Fraction) -> Decimal:
    product = quantity * by.numerator / by.denominator
    return product if by.denominator == 1 else product.quantize(Decimal("1E-12"))


def reference(ledger: Ledger, market: MarketData, end: int) -> dict[int, dict[str | None, Row]]:
    """Day, scope (None is the portfolio), field; None is unknown or undefined."""
    return Reference(ledger, market, end).run()
