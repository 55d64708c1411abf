"""Files of transactions coming into a ledger: what they would change, and which units their rows look to be in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pricecache.core.bars import day_of
from pricecache.core.history import book_at
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Ledger, Transaction
from pricecache.core.marketdata import MarketData
from pricecache.core.portfolios import Portfolio
from pricecache.core.restated import TradedRange, Units, judge
from pricecache.errors import Invalid
from pricecache.portfolio.history import Histories
from pricecache.portfolio.ledger import ROWS_TOLD, Ledgers
from pricecache.portfolio.market import Markets
from pricecache.portfolio.planning import Incoming, Plan, PlannedRow, in_order

Key = tuple[str, Instrument]
"""An account ("" is the implicit one) and what it holds."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The units of one row of the input: what speaks for which (None: nothing can), what they are said to be, and
    whether whoever sent it said so."""

    number: int
    transaction: Transaction
    units: Units | None
    is_said: bool

    @property
    def is_contradicted(self) -> bool:
        return self.units is not None and self.units.contradicts(self.transaction.adjusted_as_of is not None)

    @property
    def is_questioned(self) -> bool:
        """Nobody said it, and it looks to be otherwise."""
        return self.is_contradicted and not self.is_said


@dataclass(frozen=True, slots=True, eq=False)
class ImportPreview:
    """What a file would change. `judged`: by number of the row. `faults`: why it would be refused, every one, as
    `Invalid.rows`. `holdings`: quantities at the end before and after, where they differ."""

    plan: Plan
    judged: dict[int, Judged]
    faults: list[dict[str, Any]]
    holdings: dict[Key, tuple[Decimal, Decimal]]


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """What a file changed, and the units of the rows that did."""

    plan: Plan
    judged: dict[int, Judged]


class Importer:
    """Takes files of rows into ledgers. Loop-only; what is long runs in a thread."""

    def __init__(self, ledgers: Ledgers, histories: Histories, markets: Markets) -> None:
        self._ledgers = ledgers
        self._histories = histories
        self._markets = markets

    async def preview(
        self, portfolio: Portfolio, incoming: Sequence[Incoming], refused: Sequence[Mapping[str, Any]]
    ) -> ImportPreview:
        """What `store` would do now, all of it; changes nothing. `refused`: what could not be read, by `row`."""
        found = await self._ledgers.preview(portfolio, incoming, refused)
        judged = await self._judged(found.plan.rows, incoming)
        today = self._histories.today(portfolio)
        changed = await asyncio.to_thread(_holdings, found.before, found.after, found.market, today)
        questions = [_question(one) for one in _changed(found.plan, judged) if one.is_questioned]
        return ImportPreview(found.plan, judged, in_order([*found.faults, *questions]), changed)

    async def store(
        self, portfolio: Portfolio, incoming: Sequence[Incoming], refused: Sequence[Mapping[str, Any]], by: str
    ) -> Imported:
        """Put rows in as `Ledgers.take_in` does, and raise as it does.

        Raises `Invalid` with code `units_questioned` when rows look to be in other units than they are taken to be in
        and nobody said which they are in; of a symbol that is new here that is known only if its splits come in time.
        """
        judged: dict[int, Judged] = {}

        async def question(plan: Plan) -> set[Instrument]:
            judged.clear()
            judged.update(await self._judged([row for row in plan.rows if row.action != "unchanged"], incoming))
            _refuse_questioned([one for one in judged.values() if one.is_questioned])
            return await asyncio.to_thread(_wanting, judged.values())

        plan = await self._ledgers.take_in(portfolio, incoming, refused, by, question)
        return Imported(plan, judged)

    async def _judged(self, rows: Sequence[PlannedRow], incoming: Sequence[Incoming]) -> dict[int, Judged]:
        instruments = await asyncio.to_thread(_instruments, rows)
        ranges = await self._markets.ranges(sorted(instruments))
        return await asyncio.to_thread(_judge_all, rows, incoming, ranges)


def _instruments(rows: Iterable[PlannedRow]) -> set[Instrument]:
    return {row.after.instrument for row in rows if row.after.instrument is not None}


def _judge_all(
    rows: Iterable[PlannedRow], incoming: Iterable[Incoming], ranges: Mapping[Instrument, TradedRange]
) -> dict[int, Judged]:
    said = {one.number for one in incoming if one.says_units}
    found = {}
    for row in rows:
        instrument = row.after.instrument
        units = None if instrument is None else judge(row.after, ranges.get(instrument))
        found[row.number] = Judged(row.number, row.after, units, row.number in said)
    return found


def _changed(plan: Plan, judged: Mapping[int, Judged]) -> list[Judged]:
    return [judged[row.number] for row in plan.rows if row.action != "unchanged"]


def _wanting(judged: Iterable[Judged]) -> set[Instrument]:
    """Instruments whose splits would say more about rows of which nobody said the units."""
    return {
        one.transaction.instrument
        for one in judged
        if one.units is not None
        and one.units.reason == "not_known_yet"
        and not one.is_said
        and one.transaction.instrument is not None
    }


def _refuse_questioned(judged: Sequence[Judged]) -> None:
    if not judged:
        return
    rows = in_order(_question(one) for one in judged)
    raise Invalid(
        f"{len(rows)} rows look to be in other units than they are taken to be in. Say which they are in: "
        "quantityBasis=asTraded or quantityBasis=adjusted, for the whole file or in the row.",
        code="units_questioned",
        rows=rows[:ROWS_TOLD],
        total=len(rows),
    )


def _question(one: Judged) -> dict[str, Any]:
    row, units = one.transaction, one.units
    assert units is not None
    is_adjusted = row.adjusted_as_of is not None
    looks = "adjusted for the splits since" if not is_adjusted else "as it was traded"
    detail = f"the price {row.price} of {row.instrument} looks {looks}; say quantityBasis"
    code = "units_questioned"
    return {"row": one.number, "field": "quantityBasis", "code": code, "detail": detail, "units": evidence(units)}


def evidence(units: Units) -> dict[str, Any]:
    """The verdict and what it rests on, as plain values: days as `YYYY-MM-DD`, ratios as numbers."""
    facts: dict[str, Any] = {"verdict": units.verdict, "reason": units.reason}
    if units.splits:
        facts["splits"] = [{"date": day_of(day).isoformat(), "ratio": float(ratio)} for day, ratio in units.splits]
        facts["factor"] = float(units.factor)
    if units.session is not None:
        facts["session"] = day_of(units.session).isoformat()
    if units.low is not None and units.high is not None:
        facts["low"], facts["high"] = round(units.low, 6), round(units.high, 6)
    return facts


def _holdings(before: Ledger, after: Ledger, market: MarketData, today: int) -> dict[Key, tuple[Decimal, Decimal]]:
    last = max((row.day for row in (*before.transactions[-1:], *after.transactions[-1:])), default=today)
    old, new = (_quantities(ledger, market, max(today, last)) for ledger in (before, after))
    keys = sorted(old.keys() | new.keys())
    pairs = {key: (old.get(key, ZERO), new.get(key, ZERO)) for key in keys}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b}


def _quantities(ledger: Ledger, market: MarketData, day: int) -> dict[Key, Decimal]:
    held = book_at(ledger, market, day).positions
    return {(one.account, one.instrument): one.quantity for one in held if one.instrument is not None and one.quantity}
