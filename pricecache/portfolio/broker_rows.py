"""The rows of a ledger that come of a connection, and what becomes of them when others are to stand in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pricecache.core.bars import day_of
from pricecache.core.ledger import Transaction
from pricecache.errors import Conflict
from pricecache.portfolio.planning import Incoming, LedgerView, Plan, affected_from, plan

ROWS_NAMED = 3


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What a change does to the rows of a connection."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0


def prefix_of(connection: str) -> str:
    """What the external ids of its rows begin with, and those of no other."""
    return f"{connection}/"


def incoming_of(rows: Sequence[Transaction]) -> list[Incoming]:
    """Each says which units it is in, and which series it is of; they are numbered in their order."""
    return [
        Incoming(number, row, says_units=True, says_day=True, says_series=True) for number, row in enumerate(rows)
    ]  # fmt: skip


def exchange(view: LedgerView, prefix: str, incoming: Iterable[Incoming], ids: Sequence[str], now: float) -> Plan:
    """The rows of `prefix` as `incoming` has them: those of one external id in each other's place, new ones under their
    number's of `ids`, and those that are among it no more taken out. Rows of others are left alone. Pure.

    A change of nothing but the order within a day is no change.
    """
    incoming = list(incoming)
    found = plan(view, incoming, ids, now)
    wanted = {one.transaction.external_id for one in incoming}
    gone = [row for name, row in view.by_external_id.items() if name.startswith(prefix) and name not in wanted]
    if not gone:
        return found
    days = [day for day in (found.change.affected_from, affected_from(gone)) if day is not None]
    return replace(found, change=replace(found.change, deleted=gone, affected_from=min(days)))


def counts_of(found: Plan) -> RowCounts:
    return RowCounts(
        found.count("create"), found.count("update"), len(found.change.deleted), found.count("unchanged")
    )  # fmt: skip


def own_row_conflict(
    view: LedgerView, prefix: str, rows: Sequence[Transaction], faults: Iterable[Mapping[str, Any]]
) -> Conflict | None:
    """What to tell the user when `rows` cannot stand beside those of others in the ledger, with code
    `own_row_conflicts`: which of the others are concerned. None where none is, so that it is no fault of theirs.

    `faults`: as `Ledgers.attempt` raises them, of `rows` by number or of the others by id.
    """
    faults = list(faults)
    named: dict[str, Transaction] = {}
    for fault in faults:
        place = fault.get("row")
        held = None if place is not None else view.by_id.get(fault.get("id", ""))
        at = rows[place] if place is not None else None if held is None else held.transaction
        if at is not None:
            own = [at] if held is not None else _others_of(view, prefix, at)
            named.update((row.id, row) for row in own)
    if not named:
        return None
    told = "; ".join(map(_named, list(named.values())[:ROWS_NAMED]))
    more = f" and {len(named) - ROWS_NAMED} more" if len(named) > ROWS_NAMED else ""
    detail = f"A row of your own cannot stand beside what the broker says now ({faults[0]['detail'].rstrip('.')}): "
    return Conflict(f"{detail}{told}{more}. Change it or take it out, and ask again.", code="own_row_conflicts")


def _others_of(view: LedgerView, own: str, at: Transaction) -> list[Transaction]:
    """The rows of others that moved what `at` moves, up to its day, the last one first."""
    found = [
        row.transaction
        for row in view.rows
        if row.transaction.day <= at.day
        and row.transaction.instrument == at.instrument
        and at.account in (row.transaction.account, row.transaction.to_account)
        and not (row.transaction.external_id or "").startswith(own)
    ]
    return found[::-1]


def _named(row: Transaction) -> str:
    what = " ".join(str(one) for one in (row.type, row.quantity, row.instrument) if one is not None)
    known_as = "" if row.external_id is None else f", externalId {row.external_id}"
    return f"{what} on {day_of(row.day)} (id {row.id}{known_as})"
