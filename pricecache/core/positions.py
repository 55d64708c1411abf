"""What is held while the exact pass goes on: lots, pools, balances, and the book at the end of a day. Decimal."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from operator import attrgetter

from pricecache.core import lots as lot_rules
from pricecache.core.book import Book, CashBalance, Factor, Held
from pricecache.core.grid import priced_from
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import SPLIT_DAYS, ZERO, Rules, whole
from pricecache.core.lots import Lot, scaled
from pricecache.core.marketdata import NEVER, ONE, UNKNOWN, MarketData
from pricecache.core.scopes import Key
from pricecache.core.splits import SAME, LedgerSplit, SplitEvent
from pricecache.core.steps import (
    CARRIED,
    COVERED,
    DAY_BITS,
    DIVIDEND,
    FEE,
    FEE_OFF,
    INTEREST,
    KIND_SHIFT,
    ORIGINAL,
    POSITION_BITS,
    PROCEEDS,
    Position,
    Steps,
)  # fmt: skip


class _Pool:
    __slots__ = ("cost", "local", "members")

    def __init__(self) -> None:
        self.cost = self.local = ZERO
        self.members: list[Position] = []


class Positions:
    """Positions by account and instrument, changed one by one; whatever changes is written down in `steps`.

    Those of the opening book are made of it when something first concerns them, so that going on costs what is new:
    `keys` has all, `by_index` what was made. `unknown`: positions with an amount that was unknown at some time.
    `special`: those, and those that ever owed something. Pure; for one thread.
    """

    def __init__(self, rules: Rules, market: MarketData, opening: Book) -> None:
        self.rules = rules
        self.market = market
        self.opening = opening
        self.average = rules.cost_basis == "average"
        self.steps = Steps()
        self.keys = list(opening.keys())
        self.opened = opening.places()
        self.positions: dict[Key, Position] = {}
        self.by_index: list[Position | None] = [None] * len(self.keys)
        self.by_instrument: dict[Instrument, list[Position]] = {}
        self.balances: dict[tuple[str, str], int] = {}
        self.balance: list[Decimal] = []
        self.pools: dict[tuple[Instrument, bool], _Pool] = {}
        self.totals: dict[int, list[Decimal]] = {}
        self.summed = 0
        self.rates: dict[tuple[str, int], Decimal] = {}
        self.unknown: set[int] = set()
        self.special: set[int] = set()
        self.factors: dict[tuple[str | None, Instrument], Factor] = {}
        self.stated: list[LedgerSplit] = []

    def _resume(self) -> None:
        self.factors = {(one.account, one.instrument): one for one in self.opening.factors}
        self.unknown.update(self.opening.doubts)
        self.special.update(self.opening.doubts)
        if self.average:
            self._resume_pools()
        for balance in self.opening.cash:
            self.balance[self._balance(balance.account, balance.currency)] = balance.amount

    def _resume_pools(self) -> None:
        for key in self.opened:
            position = self._position(*key)
            if position.quantity and position.instrument is not None:
                self._pool(position.instrument, position.quantity > 0).members.append(position)
        for instrument, is_long, cost, local in self.opening.pools:
            pool = self._pool(instrument, is_long)
            pool.cost, pool.local = cost, local

    def _position(self, account: str, instrument: Instrument | None) -> Position:
        key = (account, instrument)
        position = self.positions.get(key)
        if position is None:
            index = self.opened.get(key)
            position = self.positions[key] = self._new(key) if index is None else self._reopened(index)
            if instrument is not None:
                self.by_instrument.setdefault(instrument, []).append(position)
                position.priced_from = priced_from(self.market, self.rules.currency, instrument)
                self._set_units(position, instrument)
        return position

    def _new(self, key: Key) -> Position:
        position = Position(len(self.keys), *key, self._currency_of(key[1]))
        self.keys.append(key)
        self.by_index.append(position)
        return position

    def _reopened(self, index: int) -> Position:
        held = self.opening.positions[index]
        position = self.by_index[index] = Position(
            index, held.account, held.instrument, self._currency_of(held.instrument), held.quantity, list(held.lots),
            held.cost, held.local, shares=whole(held.quantity),
        )  # fmt: skip
        if held.quantity < 0:
            self.special.add(index)
        return position

    def _currency_of(self, instrument: Instrument | None) -> str:
        return self.rules.currency if instrument is None else self.market.currency_of(instrument)

    def _all_of(self, instrument: Instrument) -> list[Position]:
        """Of every account, in their order."""
        found = self.by_instrument.get(instrument, [])
        if not self.opened:
            return found
        for key in self.opened:
            if key[1] == instrument:
                self._position(*key)
        return sorted(self.by_instrument.get(instrument, []), key=attrgetter("index"))

    def _judge(self, position: Position) -> None:
        plain = position.currency == self.rules.currency and position.factor == 1.0
        plain = plain and position.index not in self.special
        position.plain_from = position.priced_from if plain else NEVER

    def _set_units(self, position: Position, instrument: Instrument) -> None:
        if self.factors or position.factor != 1.0:
            position.units = self._open_factor(position.account, instrument)
            position.factor = float(position.units)
        self._judge(position)

    def _open_factor(self, account: str, instrument: Instrument) -> Fraction:
        product = Fraction(1)
        for factor in self.factors.values():
            if factor.instrument == instrument and factor.concerns(account):
                product *= factor.value
        return product

    def _balance(self, account: str, currency: str) -> int:
        number = self.balances.setdefault((account, currency), len(self.balance))
        if number == len(self.balance):
            self.balance.append(ZERO)
        return number

    def _pool(self, instrument: Instrument, is_long: bool) -> _Pool:
        return self.pools.setdefault((instrument, is_long), _Pool())

    def _event(self, kind: int, position: Position, day: int, amount: Decimal) -> None:
        self.steps.codes.append((kind << KIND_SHIFT) + position.code + day)
        self.steps.amounts.append(amount)
        self.steps.floats.append(float(amount))
        if amount != amount:
            self._doubt(position)

    def _held(self, position: Position, day: int) -> None:
        self.steps.quantity_codes.append(position.code + day)
        position.shares = shares = whole(position.quantity)
        quantity = shares if shares == shares else float(position.quantity)
        self.steps.quantities.append(quantity * position.factor)
        if self.unknown or day < position.priced_from:
            self._costed(position, day)

    def _costed(self, position: Position, day: int) -> None:
        assert position.instrument is not None
        for one in self.by_instrument[position.instrument] if self.average else (position,):
            if one.index in self.unknown or day < one.priced_from:
                self._cost_step(one, day)

    def _cost_step(self, position: Position, day: int) -> None:
        costs = [position.cost] if self.average else [lot.cost for lot in position.lots]
        known = [cost for cost in costs if not cost.is_nan()]
        self.steps.costs.append((position.index, day, float(sum(known, ZERO)), len(known) < len(costs)))

    def _market_rate(self, currency: str, day: int) -> Decimal:
        if currency == self.rules.currency:
            return ONE
        rate = self.rates.get((currency, day))
        if rate is None:
            rate = self.rates[currency, day] = self.market.rate(currency, self.rules.currency, day)
        return rate

    def _acquire(self, position: Position, lot: Lot, day: int) -> None:
        """Put a lot whose cost is counted already into a position: what is owed is covered first."""
        if position.quantity < 0:
            covered = min(lot.quantity, -position.quantity)
            part, lot = (lot, lot._replace(quantity=ZERO)) if covered == lot.quantity else lot.part(covered)
            owed, _ = self._release(position, -covered)
            self._event(ORIGINAL, position, day, part.cost)
            self._event(COVERED, position, day, -owed)
        if lot.quantity:
            self._open(position, lot, day)
        self._held(position, day)

    def _sold(self, position: Position, quantity: Decimal, day: int) -> None:
        cost, taken = self._release(position, quantity)
        for amount in (cost,) if cost == cost else [lot.cost for lot in taken]:
            self._event(ORIGINAL, position, day, amount)

    def _open(self, position: Position, lot: Lot, day: int) -> None:
        """Add a lot to a position of its sign, or to an empty one."""
        position.quantity += lot.quantity
        if not self.average:
            lot_rules.add(position.lots, lot, self.rules.cost_basis)
            return
        instrument = position.instrument
        assert instrument is not None
        pool = self._pool(instrument, lot.quantity > 0)
        if position not in pool.members:
            pool.members.append(position)
        if lot.cost.is_nan():
            self._forget(pool, day)
        elif pool.cost.is_nan():
            self._event(CARRIED, position, day, -lot.cost)
            self._doubt(position)
        pool.cost += lot.cost
        pool.local += lot.local
        position.cost += lot.cost
        position.local += lot.local
        self._share_out(pool, day)

    def _release(self, position: Position, quantity: Decimal) -> tuple[Decimal, list[Lot]]:
        """Take `quantity` (of the position's sign) out: its cost in base currency, and the lots it was."""
        if not self.average:
            taken = lot_rules.take(position.lots, quantity, self.rules.cost_basis)
            position.quantity -= quantity
            return sum((lot.cost for lot in taken[1:]), taken[0].cost) if taken else ZERO, taken
        instrument = position.instrument
        assert instrument is not None
        pool = self._pool(instrument, quantity > 0)
        whole = quantity == position.quantity
        share = ONE if whole else quantity / position.quantity
        cost, local = position.cost * share, position.local * share
        position.quantity -= quantity
        position.cost, position.local = (ZERO, ZERO) if whole else (position.cost - cost, position.local - local)
        if whole:
            pool.members.remove(position)
        pool.cost, pool.local = (pool.cost - cost, pool.local - local) if pool.members else (ZERO, ZERO)
        return cost, [Lot(quantity, cost, local, self.opening.day, "")]

    def _doubt(self, position: Position) -> None:
        self.unknown.add(position.index)
        self._single_out(position)

    def _single_out(self, position: Position) -> None:
        self.special.add(position.index)
        position.plain_from = NEVER

    def _forget(self, pool: _Pool, day: int) -> None:
        """What the pool cost is unknown from now on: take what was known of it out of every account's cost."""
        for member in pool.members:
            if not member.cost.is_nan():
                self._event(CARRIED, member, day, -member.cost)
            member.cost = UNKNOWN
            self._doubt(member)

    def _share_out(self, pool: _Pool, day: int) -> None:
        """By quantity, in units of the market's prices: accounts may learn of a split on different days."""
        if len(pool.members) <= 1:
            return
        weights = [member.quantity * member.units.numerator / member.units.denominator for member in pool.members]
        whole = sum(weights, ZERO)
        for member, weight in zip(pool.members, weights, strict=True):
            share = weight / whole
            cost, member.local = pool.cost * share, pool.local * share
            if cost.is_nan():
                member.cost = cost
            elif cost != member.cost:
                self._event(CARRIED, member, day, cost - member.cost)
                member.cost = cost

    def _split(self, event: SplitEvent) -> None:
        is_restated = event.factor is not SAME and event.factor != 1
        if is_restated:
            key = (event.account, event.instrument)
            before = self.factors.pop(key, None)
            value = event.factor * (before.value if before is not None else 1)
            if value != 1:
                self.factors[key] = Factor(event.instrument, event.account, event.others, value)
        concerned = [p for p in self._all_of(event.instrument) if event.concerns(p.account)]
        for position in concerned:
            if is_restated:
                self._set_units(position, event.instrument)
            if position.quantity:
                self._split_position(position, event.ratio)
                self._held(position, event.day)
        if self.average:
            for is_long in (True, False):
                self._share_out(self._pool(event.instrument, is_long), event.day)
            if concerned:
                self._costed(concerned[0], event.day)

    def _split_position(self, position: Position, ratio: Fraction) -> None:
        if ratio == 1:
            return
        if self.average:
            position.quantity = scaled(position.quantity, ratio)
        else:
            lot_rules.split(position.lots, ratio)
            if ratio.denominator == 1:
                position.quantity *= ratio.numerator
            else:
                position.quantity = sum((lot.quantity for lot in position.lots), ZERO)

    def _book(self, day: int) -> Book:
        self._sum_up()
        return Book(
            day,
            tuple([self._held_at(index) for index in range(len(self.keys))]),
            tuple(
                (instrument, is_long, pool.cost, pool.local)
                for (instrument, is_long), pool in self.pools.items()
                if pool.members
            ),
            tuple(CashBalance(*key, self.balance[number]) for key, number in self.balances.items()),
            tuple(self.factors.values()),
            tuple(row for row in self.stated if day - SPLIT_DAYS < row.day <= day),
            tuple(sorted(self.unknown)),
        )

    def _held_at(self, index: int) -> Held:
        position = self.by_index[index]
        if position is None:
            return self.opening.positions[index]
        proceeds, original, dividends, fees, interest = self._totals_at(index)
        return Held(
            position.account, position.instrument, position.quantity, tuple(position.lots), position.cost,
            position.local, position.factor, proceeds, original, dividends, fees, interest,
        )  # fmt: skip

    def _totals_at(self, index: int) -> list[Decimal]:
        totals = self.totals.get(index)
        if totals is None:
            totals = [ZERO] * 5
            if index < len(self.opening.positions):
                held = self.opening.positions[index]
                totals = [held.proceeds, held.original, held.dividends, held.fees, held.interest]
            self.totals[index] = totals
        return totals

    def _sum_up(self) -> None:
        places = {PROCEEDS: 0, COVERED: 0, ORIGINAL: 1, DIVIDEND: 2, FEE: 3, FEE_OFF: 3, INTEREST: 4}
        codes, amounts = self.steps.codes, self.steps.amounts
        for code, amount in zip(codes[self.summed :], amounts[self.summed :], strict=True):
            place = places.get(code >> KIND_SHIFT)
            if place is not None:
                self._totals_at((code >> DAY_BITS) & ((1 << POSITION_BITS) - 1))[place] += amount
        self.summed = len(codes)
