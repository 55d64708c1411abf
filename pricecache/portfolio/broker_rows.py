"""The rows of a ledger that come of a connection, and what becomes of them when others are to stand in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pricecache.core.ledger import Transaction
from pricecache.portfolio.planning import Incoming, LedgerView, Plan, affected_from, plan


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What a change does to the rows of a connection."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0


def prefix_of(connection: str) -> str:
    """What the external ids of its rows begin with, a slash after it."""
    return connection


def incoming_of(rows: Sequence[Transaction]) -> list[Incoming]:
    """Each says which units it is in; they are numbered in their order."""
    return [Incoming(number, row, says_units=True, says_day=True) for number, row in enumerate(rows)]


def exchange(view: LedgerView, prefix: str, incoming: Iterable[Incoming], ids: Sequence[str], now: float) -> Plan:
    """The rows of `prefix` as `incoming` has them: those of one external id in each other's place, new ones under their
    number's of `ids`, and those that are among it no more taken out. Rows of others are left alone. Pure.

    A change of nothing but the order within a day is no change.
    """
    incoming = list(incoming)
    found = plan(view, incoming, ids, now)
    wanted = {one.transaction.external_id for one in incoming}
    own = prefix + "/"
    gone = [row for name, row in view.by_external_id.items() if name.startswith(own) and name not in wanted]
    if not gone:
        return found
    days = [day for day in (found.change.affected_from, affected_from(gone)) if day is not None]
    return replace(found, change=replace(found.change, deleted=gone, affected_from=min(days)))


def counts_of(found: Plan) -> RowCounts:
    return RowCounts(
        found.count("create"), found.count("update"), len(found.change.deleted), found.count("unchanged")
    )  # fmt: skip
