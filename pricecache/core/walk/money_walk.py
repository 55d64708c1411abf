"""Money of a broker's accounts walked backwards, through exactly what the engine will do with the rows there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from pricecache.core.broker.data import BrokerData
from pricecache.core.currencies import digits, major, unit
from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.walk.backward import Correction, Move, Task, Walked, walk
from pricecache.core.walk.entries import Names
from pricecache.core.walk.findings import REASONS, Finding
from pricecache.core.walk.in_lieu import Delay

SETTLED_DAYS = 5
"""For so long a balance may be below zero: trades are of their day, the money that pays them comes at settlement."""

Purse = tuple[str, str]
"""An account of the ledger and a whole currency."""


def effects(row: Transaction) -> Iterator[tuple[str, str, Decimal]]:
    """What a row does to money as the engine does it with cash tracking: (account, currency of the row, amount)."""
    currency, extra = row.currency or "", row.fees + row.taxes
    if row.type in ("buy", "sell"):
        value = (row.quantity or ZERO) * (row.price or ZERO)
        yield row.account, currency, (value if row.goes_out else -value) - extra
    elif row.amount is None:
        yield row.account, currency, -extra
    elif row.to_account is not None:
        yield row.account, currency, -row.amount - extra
        yield row.to_account, currency, row.amount
    else:
        amount = abs(row.amount)
        yield row.account, currency, (-amount if row.goes_out else amount) - extra


@dataclass(slots=True)
class MoneyWalked:
    """`rows`: openings, adjustments, and what came for purchases where a broker tells of no money. `left_out`: places
    of the broker's rows that were there twice."""

    rows: list[Transaction] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)


class MoneyWalk:
    """Walks every purse of `data`. `accounts`: broker's id to the ledger's. `twins`: places of rows that are said twice
    and may be left out. `borrowers`: accounts that may owe money. `delays`: what earlier balances do not have yet. For
    one thread."""

    def __init__(
        self,
        data: BrokerData,
        accounts: Mapping[str, str],
        names: Names,
        *,
        twins: frozenset[int] = frozenset(),
        borrowers: frozenset[str] = frozenset(),
        delays: Sequence[Delay] = (),
    ) -> None:
        self._data, self._accounts, self._names = data, accounts, names
        self._twins, self._borrowers, self._delays = twins, borrowers, delays
        self._found = MoneyWalked()
        self._today: dict[Purse, Decimal] = defaultdict(lambda: ZERO)
        for (account, currency), amount in data.money.items():
            self._today[accounts[account], major(currency)] += amount * unit(currency)
        told = ((accounts[one.account], major(one.currency)) for one in data.waypoints if one.security is None)
        self._reported = frozenset((*self._today, *told))

    def run(self, rows: Iterable[Transaction], sources: Iterable[int]) -> MoneyWalked:
        """`rows`: everything else of the ledger, with the place of the broker's row that each is of, or -1."""
        moves: dict[Purse, list[Move]] = defaultdict(list)
        for row, source in zip(rows, sources, strict=True):
            for account, currency, amount in effects(row):
                if amount:
                    amount = amount if currency == (whole := major(currency)) else amount * unit(currency)
                    moves[account, whole].append(Move(row.day, amount, 1 if amount > 0 else 3, source))
        for purse in sorted({*moves, *self._today}):
            self._purse(purse, moves.get(purse, []))
        return self._found

    def _purse(self, purse: Purse, moves: Sequence[Move]) -> None:
        smallest = Decimal(1).scaleb(-digits(purse[1])) / 2
        waypoints, late = self._waypoints(purse)
        today = self._today.get(purse, ZERO)
        owes = purse[0] in self._borrowers or today < -smallest or any(one < -smallest for _, one in waypoints)
        twins = [one for one in moves if one.source in self._twins] if self._twins else []
        task = Task(
            today, self._data.day, self._data.first_day, moves, waypoints=waypoints, twins=twins,
            may_be_negative=owes, late_days=SETTLED_DAYS, smallest=smallest, code="cash_unexplained", late=late,
        )  # fmt: skip
        walked = walk(task)
        if purse in self._reported:
            self._put_down(purse, walked, smallest)
        elif walked.corrections or abs(walked.opening) > smallest:
            self._unreported(purse, moves)

    def _waypoints(self, purse: Purse) -> tuple[list[tuple[int, Decimal]], Mapping[int, Sequence[tuple[int, Decimal]]]]:
        found: dict[int, Decimal] = defaultdict(lambda: ZERO)
        late: dict[int, list[tuple[int, Decimal]]] = defaultdict(list)
        for one in self._data.waypoints:
            if one.security is None and (self._accounts[one.account], major(one.currency)) == purse:
                found[one.day] += one.quantity * unit(one.currency)
                late[one.day] += one.late
        for delay in self._delays:
            if (delay.account, major(delay.currency)) == purse:
                for day in found:
                    found[day] += delay.amount * unit(delay.currency) if delay.since <= day < delay.until else 0
        return sorted(found.items()), late

    def _put_down(self, purse: Purse, walked: Walked, smallest: Decimal) -> None:
        day = self._data.first_day - 1
        self._found.left_out.update(walked.left_out)
        for correction in walked.corrections:
            self._correct(purse, correction)
        opening = _rounded(walked.opening, purse[1])
        if opening > smallest:
            name = self._names.name("o", *purse)
            self._found.rows.append(
                Transaction(day, "opening", amount=opening, currency=purse[1], account=purse[0], external_id=name)
            )
        elif opening < -smallest:
            self._correct(purse, Correction(day, opening, "margin_loan"))

    def _correct(self, purse: Purse, correction: Correction) -> None:
        (account, currency), amount = purse, _rounded(correction.quantity, purse[1])
        if not amount:
            return
        name = self._names.name("c", *purse, correction.day, correction.code)
        detail = REASONS[correction.code]
        self._found.rows.append(
            Transaction(
                correction.day, "adjustment", amount=amount, currency=currency, account=account, external_id=name,
                note=detail,
            )
        )  # fmt: skip
        self._found.findings.append(
            Finding(
                correction.code, correction.day, account, detail, amount=amount, currency=currency, external_id=name
            )
        )

    def _unreported(self, purse: Purse, moves: Sequence[Move]) -> None:
        """A broker that tells of no money, as of many a pension plan: what purchases cost came in on their day."""
        account, currency = purse
        net: dict[int, Decimal] = defaultdict(lambda: ZERO)
        for one in moves:
            net[one.day] += one.quantity
        note = "the broker tells of no money here: what was paid came in, and what was paid out went out, on its day"
        for day in sorted(net):
            amount = _rounded(net[day], currency)
            if amount:
                self._found.rows.append(
                    Transaction(
                        day, "deposit" if amount < 0 else "withdrawal", amount=abs(amount), currency=currency,
                        account=account, external_id=self._names.name("m", account, currency, day), note=note,
                    )
                )  # fmt: skip
        total = -_rounded(sum(net.values(), ZERO), currency)
        self._found.findings.append(
            Finding("money_not_reported", self._data.day, account, note, amount=total, currency=currency)
        )


def _rounded(amount: Decimal, currency: str) -> Decimal:
    """Without what is left of prices that have no end."""
    found = amount.quantize(Decimal(1).scaleb(-digits(currency) - 4))
    return found.normalize() + ZERO
