"""A ledger as it stands, and what rows that come in would change of it. Pure, so safe in any thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, Literal

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.portfolios import LedgerState
from pricecache.stores.ledger import LedgerChange, Row

Action = Literal["create", "update", "unchanged"]
_PLACES = float(1 << 32)
_OWN = ("id", "adjusted_as_of")
_FACTS = attrgetter(*(one.name for one in fields(Transaction) if one.compare and one.name not in _OWN))


@dataclass(frozen=True, slots=True, eq=False)
class LedgerView:
    """A ledger as it was at one moment. `rows`: by day and order of entry. `names`: the state of the catalog's names
    that its instruments are called by. `changes`: from which day on each of the last changes counts, None for none, as
    far as they were made here."""

    state: LedgerState
    names: int
    changes: tuple[int | None, ...]
    rows: tuple[Row, ...]
    ledger: Ledger
    by_id: dict[str, Row] = field(repr=False)
    by_external_id: dict[str, Row] = field(repr=False)

    def dirty_since(self, generation: int) -> int | None:
        """The first day whose history may be another since the ledger was at `generation`; None: none is."""
        number = self.state.generation - generation
        if number > len(self.changes):
            return self.state.dirty_since(generation)
        recent = self.changes[len(self.changes) - number :]
        return min((day for day in recent if day is not None), default=None)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A row on its way into a ledger. `number`: its place in the input, from 0.

    `target`: the id of the row it takes the place of, if there is one of that id. `fallback`: the external id it goes
    by when it has none and takes nobody's place by `target`. `says_units`: whoever sent it said what its quantity is
    in, else the same amounts stay in the units they are in; `says_day`: and as of which day it is restated;
    `says_series`: its instrument is the one that is called so now, whoever was on its day.
    """

    number: int
    transaction: Transaction
    target: str | None = None
    fallback: str | None = None
    says_units: bool = False
    says_day: bool = False
    says_series: bool = False


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """What becomes of one row of the input; `before`: the row it takes the place of, None for a new one."""

    number: int
    action: Action
    before: Transaction | None
    after: Transaction

    @property
    def id(self) -> str:
        return self.after.id


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A change of a ledger, and by whom it comes: `rows`, in the order of the input."""

    change: LedgerChange
    rows: list[PlannedRow] = field(default_factory=list)

    def count(self, action: Action) -> int:
        return sum(row.action == action for row in self.rows)

    @property
    def numbers(self) -> dict[str, int]:
        """The place in the input by the id in the ledger."""
        return {row.id: row.number for row in self.rows}


def plan(view: LedgerView, incoming: Iterable[Incoming], ids: Sequence[str], now: float) -> Plan:
    """Each row in the place of the one it is, else as a new one under its number's of `ids`.

    A row that is there under its new id came by an attempt of this very change whose outcome was not known.
    """
    inserted: list[Row] = []
    replaced: list[Row] = []
    rows: list[PlannedRow] = []
    touched: list[Row] = []
    for one in incoming:
        held, given = _matched(view, one)
        new_id = ids[one.number]
        if held is None or held.id == new_id:
            after = given.named(new_id)
            rows.append(PlannedRow(one.number, "create", None, after))
            if new_id not in view.by_id:
                inserted.append(Row(after, None, view.state.places + len(inserted), 1, now, now))
        elif _is_same(held.transaction, given, one.says_day):
            rows.append(PlannedRow(one.number, "unchanged", held.transaction, held.transaction))
        else:
            row = next_row(held, given, now)
            rows.append(PlannedRow(one.number, "update", held.transaction, row.transaction))
            replaced.append(row)
            touched.append(held)
    change = LedgerChange(inserted, replaced, (), affected_from([*inserted, *replaced, *touched]))
    return Plan(change, rows)


def _matched(view: LedgerView, one: Incoming) -> tuple[Row | None, Transaction]:
    """The row that `one` is, and `one` with the external id it goes by, and in the units that the row is in where it
    does not say others."""
    held = view.by_id.get(one.target or "")
    given = one.transaction
    if held is None:
        if given.external_id is None and one.fallback is not None:
            given = replace(given, external_id=one.fallback)
        held = view.by_external_id.get(given.external_id or "")
    if held is None or one.says_units or given.adjusted_as_of == held.transaction.adjusted_as_of:
        return held, given
    if (given.quantity, given.price) != (held.transaction.quantity, held.transaction.price):
        return held, given
    return held, replace(given, adjusted_as_of=held.transaction.adjusted_as_of)


def repeated(view: LedgerView, incoming: Sequence[Incoming]) -> list[dict[str, Any]]:
    """Rows that cannot all be: two of one external id, two in the place of one, one with the external id of another."""
    by_external_id: dict[str, int] = {}
    by_place: dict[str, int] = {}
    found = []
    for one in incoming:
        held, given = _matched(view, one)
        if (fault := _other_holder(view, held, given)) is not None:
            found.append({"row": one.number, **fault})
        first = by_external_id.setdefault(given.external_id, one.number) if given.external_id else one.number
        if first != one.number:
            detail = f"row {first} has this externalId"
            found.append({"row": one.number, "field": "externalId", "code": "duplicate_external_id", "detail": detail})
        elif held is not None and (first := by_place.setdefault(held.id, one.number)) != one.number:
            found.append({"row": one.number, "field": "id", "code": "duplicate_id", "detail": f"row {first} is it too"})
    return found


def _other_holder(view: LedgerView, held: Row | None, given: Transaction) -> dict[str, Any] | None:
    other = view.by_external_id.get(given.external_id or "")
    if held is None or other is None or other.id == held.id:
        return None
    detail = f"{other.id} has this externalId."
    return {"field": "externalId", "code": "duplicate_external_id", "detail": detail}


def next_row(before: Row, transaction: Transaction, now: float) -> Row:
    """`transaction` in the place of `before`."""
    return Row(
        replace(transaction, id=before.id), None, before.place, before.version + 1, before.created_at, now
    )  # fmt: skip


def is_same(a: Transaction, b: Transaction) -> bool:
    """But for the day as of which it is restated: that is when it was sent."""
    return _is_same(a, b, False)


def _is_same(held: Transaction, given: Transaction, says_day: bool) -> bool:
    if (held.adjusted_as_of is None) != (given.adjusted_as_of is None):
        return False
    if says_day and held.adjusted_as_of != given.adjusted_as_of:
        return False
    return _FACTS(held) == _FACTS(given)


def affected_from(rows: Iterable[Row]) -> int | None:
    """The first day whose history changes when `rows` come or go, days since 1970-01-01."""
    return min((row.transaction.affects_from for row in rows), default=None)


def applied(rows: Sequence[Row], change: LedgerChange) -> list[Row]:
    """`rows` after `change`, by day and order of entry."""
    replaced = {row.id: row for row in change.replaced}
    gone = {row.id for row in change.deleted}
    after = [replaced.get(row.id, row) for row in rows if row.id not in gone] + list(change.inserted)
    # one float for day and place, exact: it is compared several times faster than a pair, and nothing else runs then
    return sorted(after, key=lambda row: row.transaction.day * _PLACES + row.place)


def ledger_of(rows: Iterable[Row], rules: Rules) -> Ledger:
    return Ledger.of((row.transaction for row in rows), rules)


@dataclass(slots=True)
class Use:
    """An instrument in a currency (None: its own), or cash in one, and the first day it is needed on."""

    instrument: Instrument | None
    currency: str | None
    day: int


def uses_of(rows: Iterable[Transaction]) -> list[Use]:
    """What `rows` need prices or rates of, each once."""
    found: dict[tuple[Instrument | None, str | None], Use] = {}
    for row in rows:
        day = row.day if row.acquired_on is None else min(row.day, row.acquired_on)
        use = found.setdefault((row.instrument, row.currency), Use(row.instrument, row.currency, day))
        use.day = min(use.day, day)
    return list(found.values())


def numbered(found: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """Faults with the place in the input instead of the one in the ledger; what is none of the input has its id."""
    rows = []
    for fault in found:
        row = {name: value for name, value in fault.items() if name != "row"}
        number = numbers.get(fault["id"])
        if number is not None:
            row = {"row": number, **{name: value for name, value in row.items() if name != "id"}}
        rows.append(row)
    return in_order(rows)


def in_order(faults: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By row of the input, those of none of them last."""
    return sorted((dict(fault) for fault in faults), key=lambda fault: fault.get("row", float("inf")))
