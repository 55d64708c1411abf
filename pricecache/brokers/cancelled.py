"""Rows that a broker took back: they go, together with the rows that say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pricecache.brokers.neutral_rows import NeutralRow
from pricecache.brokers.plaid_rows import PlaidRow
from pricecache.core.broker import Remark

_Alike = Mapping[tuple[Any, ...], Sequence[PlaidRow]]


def without_cancelled(rows: list[PlaidRow], remarks: list[Remark]) -> list[PlaidRow]:
    """`rows` without those of type `cancel` and what each of them cancels: the row it names, else the latest one up to
    its day with the opposite quantity and amount, else the latest with the same ones. One that cancels nothing here
    goes too, and a remark says so."""
    if not any(row.type == "cancel" for row in rows):
        return rows
    by_id = {row.id: row for row in rows}
    alike: dict[tuple[Any, ...], list[PlaidRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda one: one.day):
        if row.type != "cancel":
            alike[_said(row, 1)].append(row)
    gone: set[str] = set()
    for row in rows:
        if row.type == "cancel":
            gone.add(row.id)
            found = by_id.get(row.cancels) if row.cancels is not None else _latest(row, alike, gone)
            _take_back(row.path, found, gone, remarks)
    return [row for row in rows if row.id not in gone]


def without_taken_back(rows: Sequence[NeutralRow], remarks: list[Remark]) -> list[NeutralRow]:
    """`rows` without those that another one's `cancels` names; what only cancels goes too."""
    by_id = {row.id: row for row in rows}
    gone: set[str] = set()
    for row in rows:
        if row.cancels is not None:
            _take_back(row.path, by_id.get(row.cancels), gone, remarks)
    return [row for row in rows if row.row is not None and row.id not in gone]


def _take_back(path: str, found: PlaidRow | NeutralRow | None, gone: set[str], remarks: list[Remark]) -> None:
    if found is None:
        remarks.append(Remark("nothing_cancelled", path, "what this row cancels is not here"))
    else:
        gone.add(found.id)
        remarks.append(Remark("cancelled_row", found.path, f"cancelled by {path}"))


def _latest(row: PlaidRow, alike: _Alike, gone: set[str]) -> PlaidRow | None:
    for sign in (-1, 1):
        for one in reversed(alike.get(_said(row, sign), ())):
            if one.day <= row.day and one.id not in gone:
                return one
    return None


def _said(row: PlaidRow, sign: int) -> tuple[Any, ...]:
    return row.account, row.security, sign * row.quantity, sign * row.amount, row.currency
