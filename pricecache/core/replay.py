"""The exact pass: transactions and splits, in order, into what changes on which day. Decimal throughout."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from operator import attrgetter, itemgetter
from typing import Any

from pricecache.core import lots as lot_rules
from pricecache.core.book import Book
from pricecache.core.currencies import major, unit
from pricecache.core.ledger import EXACT, ZERO, Ledger, Plain, Transaction
from pricecache.core.lots import Lot, scaled
from pricecache.core.marketdata import NEVER, ONE, UNKNOWN, MarketData
from pricecache.core.plain import Way, short_ways
from pricecache.core.positions import Positions
from pricecache.core.scopes import Key
from pricecache.core.splits import LedgerSplit, SplitEvent, events, factor_between
from pricecache.core.steps import (
    BOUGHT,
    CARRIED,
    CASH_IN,
    CASH_MOVED_IN,
    CASH_MOVED_OUT,
    CASH_OUT,
    DAY_OFFSET,
    DIVIDEND,
    FEE,
    FEE_OFF,
    INTEREST,
    NETTED,
    PROCEEDS,
    SHORT,
    UNVALUED_IN,
    UNVALUED_OUT,
    Columns,
    Position,
    Steps,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """The outcome: `steps` after `opening`, every position (by index) and cash balance (by number), the book at the end
    of each day that was asked for, and what could not be right: `{"row", "id", "code", "detail"}` each, `row` by the
    ledger's order."""

    steps: Steps
    columns: Columns
    keys: tuple[Key, ...]
    balances: tuple[tuple[str, str], ...]
    opening: Book
    books: dict[int, Book]
    faults: tuple[dict[str, Any], ...]


def replay(
    ledger: Ledger, market: MarketData, end: int, *, since: Book | None = None, books: Iterable[int] = ()
) -> Replayed:
    """Walk everything after the book `since` (from the start when None) up to day `end`, both passes' first half.

    `books`: days up to `end` whose closing state is wanted. Never fails: an over-sale goes through and is a fault.
    """
    with localcontext(EXACT):
        return _Pass(ledger, market, end, since or Book(-DAY_OFFSET)).run(sorted(set(books)))


class _Pass(Positions):
    def __init__(self, ledger: Ledger, market: MarketData, end: int, opening: Book) -> None:
        super().__init__(ledger.rules, market, opening)
        self.end = end
        rows = ledger.transactions
        first = bisect_right(rows, opening.day, key=attrgetter("day"))
        last = bisect_right(rows, end, key=attrgetter("day"))
        self.ledger = ledger
        self.rows: Sequence[Transaction] = rows[first:last]
        self.offset = first
        self.faults: list[dict[str, Any]] = []
        remarkable = ledger.remarkable(first, len(rows))
        self.stated = [*opening.splits, *self._stated(remarkable)]
        self._resume()
        until_end = [row for row in remarkable if row.day <= end]
        self.split_events = self._split_events(rows[first:], until_end)
        self.links = self._links(until_end)

    def run(self, wanted: list[int]) -> Replayed:
        ways = self._ways()
        plain = self._plain()
        short = short_ways(self.rules, plain.count, self._position, self.steps, ways)
        halts = self._halts([day for day in wanted if self.opening.day <= day <= self.end])
        halt, halt_at = next(halts)
        books: dict[int, Book] = {}
        columns = (plain.places, plain.amounts, plain.money, plain.shares)
        for row, place, amount, money, shares in zip(self.rows, *columns, strict=True):
            while halt_at <= row.day:
                self._halt(halt, books)
                halt, halt_at = next(halts)
            if amount is None:
                ways[row.type](row)
            else:
                short[row.type](row, place, amount, money, shares)
        while halt is not None:
            self._halt(halt, books)
            halt, _ = next(halts)
        return Replayed(
            self.steps,
            Columns.of(self.steps),
            tuple(self.keys) if len(self.keys) > len(self.opened) else self.opening.keys(),
            tuple(self.balances),
            self.opening,
            books,
            tuple(self.faults),
        )

    def _halts(self, wanted: list[int]) -> Iterator[tuple[SplitEvent | int | None, int]]:
        """Splits, and ends of days (their number) whose book is wanted; each before the rows of the day it gives."""
        found: list[tuple[int, int, SplitEvent | int]] = [(event.day, 1, event) for event in self.split_events]
        found += [(day + 1, 0, day) for day in wanted]
        for day, _, halt in sorted(found, key=itemgetter(0, 1)):
            yield halt, day
        yield None, NEVER

    def _halt(self, halt: SplitEvent | int | None, books: dict[int, Book]) -> None:
        if isinstance(halt, int):
            books[halt] = self._book(halt)
        elif halt is not None:
            self._split(halt)

    def _plain(self) -> Plain:
        count = len(self.rows)
        if self.average or self.rules.cash_tracking:
            return Plain(1, [0] * count, [None] * count, [0.0] * count, [0.0] * count)
        return self.ledger.plain(self.offset, self.offset + count)

    def _ways(self) -> dict[str, Way]:
        return {
            "buy": self._buy,
            "sell": self._sell,
            "dividend": self._income,
            "interest": self._income,
            "fee": self._fee,
            "tax": self._fee,
            "deposit": self._deposit,
            "withdrawal": self._deposit,
            "transfer_in": self._transfer,
            "transfer_out": self._transfer,
            "opening": self._transfer,
            "adjustment": self._transfer,
            "split": lambda row: None,
        }

    def _stated(self, rows: Iterable[Transaction]) -> list[LedgerSplit]:
        return [
            LedgerSplit(row.day, row.instrument, row.account, lot_rules.ratio_of(row.ratio))
            for row in rows
            if row.type == "split" and row.instrument is not None and row.ratio is not None
        ]

    def _split_events(self, rows: Sequence[Transaction], remarkable: Sequence[Transaction]) -> list[SplitEvent]:
        """All after the opening, also those after the end that restated rows are in the units of."""
        named = self.ledger.instruments()
        if self.offset:
            named = frozenset(one for row in rows if (one := row.instrument) is not None)
        instruments = self.opening.instruments() | named
        until = max([self.end, *(row.adjusted_as_of for row in remarkable if row.adjusted_as_of is not None)])
        self.known = events(self.stated, instruments, self.market, self.opening.day, until)
        return [event for event in self.known if event.day <= self.end]

    def _links(self, rows: Sequence[Transaction]) -> dict[tuple[str, int], list[Decimal]]:
        """Days on which a dividend and a purchase carry one link: what each was worth, once known."""
        seen: dict[tuple[str, int], set[str]] = {}
        for row in rows:
            if row.link is not None and row.type in ("buy", "dividend"):
                seen.setdefault((row.link, row.day), set()).add(row.type)
        return {key: [] for key, types in seen.items() if len(types) == 2}

    # what every handler uses

    def _fault(self, row: Transaction, code: str, detail: str) -> None:
        place = next(i for i, other in enumerate(self.rows, self.offset) if other is row)
        self.faults.append({"row": place, "id": row.id, "code": code, "detail": detail})

    def _rate(self, row: Transaction, currency: str) -> Decimal:
        """Base currency for one of the row's `currency`: the recorded rate first."""
        if row.fx_rate is not None:
            return row.fx_rate
        return self._market_rate(currency, row.day)

    def _in_local(self, amount: Decimal, base: Decimal, currency: str, position: Position, day: int) -> Decimal:
        """`amount` of `currency` (which is `base` in base currency) in the instrument's own currency."""
        if currency == position.currency:
            return amount
        if major(currency) == major(position.currency):
            return amount * unit(currency) / unit(position.currency)
        return base / self._market_rate(position.currency, day)

    def _as_traded(self, row: Transaction) -> tuple[Decimal, Decimal]:
        quantity, price = row.quantity or ZERO, row.price or ZERO
        if row.adjusted_as_of is None or row.instrument is None:
            return quantity, price
        factor = factor_between(self.known, row.instrument, row.account, row.day, row.adjusted_as_of)
        if factor == 1:
            return quantity, price
        return scaled(quantity, 1 / factor), price * factor.numerator / factor.denominator

    def _money(self, account: str, currency: str, day: int, amount: Decimal) -> None:
        if self.rules.cash_tracking and amount:
            number = self._balance(account, major(currency))
            self.balance[number] += amount * unit(currency)
            self.steps.cash.append((number, day, self.balance[number]))

    def _net(self, row: Transaction, position: Position, amount: Decimal) -> None:
        """A dividend and its linked purchase on one day are no flow as far as they cancel out."""
        parts = self.links.get((row.link or "", row.day))
        if parts is not None:
            parts.append(amount)
            if len(parts) == 2 and not any(part.is_nan() for part in parts):
                self._event(NETTED, position, row.day, min(parts))

    # buying and selling

    def _buy(self, row: Transaction) -> None:
        position = self._position(row.account, row.instrument)
        quantity, price = self._as_traded(row)
        day = row.day
        currency = row.currency or position.currency
        local = quantity * price
        extra = row.fees + row.taxes
        if extra:
            self._money(row.account, currency, day, -extra)
            if self.rules.fees_in_cost:
                local += extra
                extra = ZERO
        rate = self._rate(row, currency)
        cost = local if rate is ONE else local * rate
        if extra:
            self._event(FEE, position, day, extra * rate)
        self._event(BOUGHT, position, day, cost)
        if self.rules.cash_tracking:
            self._money(row.account, currency, day, -quantity * price)
        if row.link is not None:
            self._net(row, position, cost)
        if currency != position.currency:
            local = self._in_local(local, cost, currency, position, day)
        self._acquire(position, Lot(quantity, cost, local, day, row.id), day)

    def _sell(self, row: Transaction) -> None:
        position = self._position(row.account, row.instrument)
        quantity, price = self._as_traded(row)
        day = row.day
        currency = row.currency or position.currency
        local = quantity * price
        extra = row.fees + row.taxes
        if extra:
            self._money(row.account, currency, day, -extra)
            if self.rules.fees_in_cost:
                local -= extra
                extra = ZERO
        rate = self._rate(row, currency)
        proceeds = local if rate is ONE else local * rate
        if extra:
            self._event(FEE_OFF, position, day, extra * rate)
        if self.rules.cash_tracking:
            self._money(row.account, currency, day, quantity * price)
        held = position.quantity
        if held >= quantity:
            self._event(PROCEEDS, position, day, proceeds)
            self._sold(position, quantity, day)
        else:
            if not self.rules.allow_short:
                self._fault(row, "over_sale", f"{quantity} sold, {max(held, ZERO)} held.")
            if currency != position.currency:
                local = self._in_local(local, proceeds, currency, position, day)
            short = Lot(-quantity, -proceeds, -local, day, row.id)
            if held > 0:
                closing, short = short.part(-held)
                self._event(PROCEEDS, position, day, -closing.cost)
                self._sold(position, held, day)
            self._event(SHORT, position, day, -short.cost)
            self._single_out(position)
            self._open(position, short, day)
        self._held(position, day)

    # what comes in and goes out without a trade

    def _income(self, row: Transaction) -> None:
        position = self._position(row.account, row.instrument)
        currency = row.currency or position.currency
        amount, extra = row.amount or ZERO, row.fees + row.taxes
        rate = self._rate(row, currency)
        self._event(DIVIDEND if row.type == "dividend" else INTEREST, position, row.day, amount * rate)
        if extra:
            self._event(FEE_OFF, position, row.day, extra * rate)
        self._money(row.account, currency, row.day, amount - extra)
        if row.link is not None and row.type == "dividend":
            self._net(row, position, (amount - extra) * rate)

    def _fee(self, row: Transaction) -> None:
        position = self._position(row.account, row.instrument)
        currency = row.currency or position.currency
        amount = (row.amount or ZERO) + row.fees + row.taxes
        self._event(FEE, position, row.day, amount * self._rate(row, currency))
        self._money(row.account, currency, row.day, -amount)

    def _deposit(self, row: Transaction) -> None:
        if not self.rules.cash_tracking:
            return  # kept and ignored: without cash there is nothing to put it into
        position = self._position(row.account, None)
        currency = row.currency or self.rules.currency
        rate = self._rate(row, currency)
        amount, extra = row.amount or ZERO, row.fees + row.taxes
        is_valued = not self._market_rate(currency, row.day).is_nan()
        into, out_of = (CASH_IN, CASH_OUT) if is_valued else (UNVALUED_IN, UNVALUED_OUT)
        self._event(out_of if row.goes_out else into, position, row.day, abs(amount) * rate)
        if extra:
            self._event(FEE, position, row.day, extra * rate)
        self._money(row.account, currency, row.day, (-abs(amount) if row.goes_out else abs(amount)) - extra)

    def _transfer(self, row: Transaction) -> None:
        if row.instrument is None:
            return self._deposit(row) if row.to_account is None else self._move_cash(row)
        if row.to_account is not None:
            return self._move(row)
        quantity, price = self._as_traded(row)
        self._costs(row)
        return self._leave(row, abs(quantity)) if row.goes_out else self._arrive(row, quantity, price)

    def _costs(self, row: Transaction) -> None:
        extra = row.fees + row.taxes
        if extra:
            position = self._position(row.account, row.instrument)
            currency = row.currency or position.currency
            self._event(FEE, position, row.day, extra * self._rate(row, currency))
            self._money(row.account, currency, row.day, -extra)

    def _arrive(self, row: Transaction, quantity: Decimal, price: Decimal) -> None:
        position = self._position(row.account, row.instrument)
        currency = row.currency or position.currency
        amount = quantity * price
        cost = amount * self._rate(row, currency)
        local = self._in_local(amount, cost, currency, position, row.day)
        self._event(CARRIED, position, row.day, cost)
        self._moved(position, row.day, quantity, True)
        acquired = row.day if row.acquired_on is None else min(row.acquired_on, row.day)
        self._acquire(position, Lot(quantity, cost, local, acquired, row.id), row.day)

    def _leave(self, row: Transaction, quantity: Decimal) -> None:
        position = self._position(row.account, row.instrument)
        quantity = self._at_most_held(row, position, quantity)
        if quantity:
            for lot in self._release(position, quantity)[1]:
                self._event(CARRIED, position, row.day, -lot.cost)
            self._moved(position, row.day, -quantity, True)
            self._held(position, row.day)

    def _move(self, row: Transaction) -> None:
        source = self._position(row.account, row.instrument)
        target = self._position(row.to_account or "", row.instrument)
        self._costs(row)
        quantity = self._at_most_held(row, source, self._as_traded(row)[0])
        if not quantity:
            return
        _, taken = self._release(source, quantity)
        for lot in taken:
            self._event(CARRIED, source, row.day, -lot.cost)
            self._event(CARRIED, target, row.day, lot.cost)
        self._moved(source, row.day, -quantity, False)
        self._moved(target, row.day, quantity, False)
        self._held(source, row.day)
        for lot in taken:
            self._acquire(target, lot, row.day)

    def _at_most_held(self, row: Transaction, position: Position, quantity: Decimal) -> Decimal:
        held = max(position.quantity, ZERO)
        if quantity > held:
            self._fault(row, "over_transfer", f"{quantity} transferred, {held} held.")
        return min(quantity, held)

    def _moved(self, position: Position, day: int, quantity: Decimal, external: bool) -> None:
        self.steps.moved.append((position.index, day, float(quantity) * position.factor, external))

    def _move_cash(self, row: Transaction) -> None:
        if not self.rules.cash_tracking:
            return
        currency = row.currency or self.rules.currency
        amount = row.amount or ZERO
        rate = self._rate(row, currency)
        base = amount * rate if not self._market_rate(currency, row.day).is_nan() else UNKNOWN
        self._costs(row)
        for kind, account, sign in ((CASH_MOVED_OUT, row.account, -1), (CASH_MOVED_IN, row.to_account or "", 1)):
            self._event(kind, self._position(account, None), row.day, base)
            self._money(account, currency, row.day, sign * amount)
