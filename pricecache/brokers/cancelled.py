"""Rows that a broker took back: they go, together with the rows that say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pricecache.brokers.neutral_rows import NeutralRow
from pricecache.brokers.option_units import OptionUnits
from pricecache.brokers.plaid_rows import PARTS, PlaidRow
from pricecache.core.broker.cancelled import CANCELLED, NOTHING_CANCELLED, NOTHING_HERE
from pricecache.core.broker.data import ZERO, BrokerSecurity, Cancellation, Remark
from pricecache.core.currencies import major, unit

_Alike = Mapping[tuple[Any, ...], Sequence[PlaidRow]]


def without_cancelled(
    rows: list[PlaidRow], securities: Mapping[str, BrokerSecurity], units: OptionUnits, remarks: list[Remark]
) -> tuple[list[PlaidRow], list[Cancellation]]:
    """`rows` without those of type `cancel` and what each of them cancels: the row it names, else the latest one up to
    its day with the opposite quantity and amount, else the latest with the same ones. One that cancels nothing here
    goes too, and a remark says so. And what each of them says, for rows that are told of elsewhere."""
    if not any(row.type == "cancel" for row in rows):
        return rows, []
    by_id = {row.id: row for row in rows}
    alike: dict[tuple[Any, ...], list[PlaidRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda one: one.day):
        if row.type != "cancel":
            alike[_said(row, 1)].append(row)
    gone: set[str] = set()
    words = []
    for row in rows:
        if row.type == "cancel":
            gone.add(row.id)
            found = by_id.get(row.cancels) if row.cancels is not None else _latest(row, alike, gone)
            security = None if row.security is None else securities[row.security]
            words.append(_take_back(_word(row, security, units), found, gone, remarks))
    return [row for row in rows if row.id not in gone], words


def without_taken_back(
    rows: Sequence[NeutralRow], remarks: list[Remark]
) -> tuple[list[NeutralRow], list[Cancellation]]:
    """`rows` without those that another one's `cancels` names; what only cancels goes too. And what each of them
    says, for rows that are told of elsewhere."""
    by_id = {row.id: row for row in rows}
    gone: set[str] = set()
    words = []
    for row in rows:
        if row.cancels is not None:
            word = Cancellation(row.id, row.account, row.day, row.cancels, path=row.path)
            words.append(_take_back(word, by_id.get(row.cancels), gone, remarks))
    return [row for row in rows if row.row is not None and row.id not in gone], words


def _take_back(
    word: Cancellation, found: PlaidRow | NeutralRow | None, gone: set[str], remarks: list[Remark]
) -> Cancellation:
    if found is None:
        remarks.append(Remark(NOTHING_CANCELLED, word.path, NOTHING_HERE))
        return word
    gone.add(found.id)
    remarks.append(Remark(CANCELLED, found.path, f"cancelled by {word.path}"))
    return replace(word, cancels=found.id, is_found=True)


def _word(row: PlaidRow, security: BrokerSecurity | None, units: OptionUnits) -> Cancellation:
    is_money = security is None or security.is_money
    quantity = ZERO if is_money else row.quantity
    if security is not None and security.option is not None:
        quantity, _ = units.in_options(security.id, "rows", quantity, row.price, row.amount)
    return Cancellation(
        id=row.id,
        account=row.account,
        day=row.day,
        cancels=row.cancels,
        security=None if is_money else row.security,
        quantity=quantity,
        cash=ZERO if row.is_coin else -row.amount * unit(row.currency),
        currency=major(row.currency),
        parts=PARTS,
        path=row.path,
    )


def _latest(row: PlaidRow, alike: _Alike, gone: set[str]) -> PlaidRow | None:
    for sign in (-1, 1):
        for one in reversed(alike.get(_said(row, sign), ())):
            if one.day <= row.day and one.id not in gone:
                return one
    return None


def _said(row: PlaidRow, sign: int) -> tuple[Any, ...]:
    return row.account, row.security, sign * row.quantity, sign * row.amount, row.currency
