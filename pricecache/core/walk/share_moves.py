"""Rows of shares that the engine would not take as they are: transfers of more than there is, debts that move."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import fitted
from pricecache.core.walk.findings import REASONS
from pricecache.core.walk.row import Key
from pricecache.core.walk.share_draft import SharesWalked


def move_apart(found: SharesWalked) -> None:
    """Internal transfers of more than there is before the day's other transfers are two external ones."""
    held: dict[tuple[Key, int], Decimal] = {}
    for row in found.rows:
        if row.to_account is not None and row.instrument is not None:
            held.setdefault(((row.account, row.instrument), row.day), ZERO)
    if not held:
        return
    for row in found.rows:
        _count_down(row, held)
    for key, day in held:
        held[key, day] += found.walks[key].end_of(day)
    for place, row in enumerate(list(found.rows)):
        if row.to_account is None or row.instrument is None:
            continue
        if held[(row.account, row.instrument), row.day] < 0:
            _apart(found, place, row)


def _count_down(row: Transaction, held: dict[tuple[Key, int], Decimal]) -> None:
    """Leave in `held` what there is at the end of a day, without what came from other accounts, and with what went
    out behind the transfers."""
    if row.instrument is None or row.quantity is None:
        return
    key = (row.account, row.instrument), row.day
    if row.to_account is not None:
        into = (row.to_account, row.instrument), row.day
        if into in held:
            held[into] -= row.quantity
    elif key in held and row.goes_out:
        held[key] += abs(row.quantity)


def _apart(found: SharesWalked, place: int, row: Transaction) -> None:
    assert row.instrument is not None
    worth = found.given.prices.on(row.instrument, row.day)
    found.rows[place] = replace(row, to_account=None)
    name = found.given.names.name("i", row.external_id)
    into = replace(
        row, type="transfer_in", account=row.to_account or "", to_account=None, price=worth.price,
        currency=worth.currency, external_id=name,
    )  # fmt: skip
    found.add(into, found.sources[place])


def go_short(found: SharesWalked) -> None:
    """What leaves an account that owes shares is a sale, whose money leaves with it: the engine moves no debts."""
    for place, row in enumerate(list(found.rows)):
        if row.instrument is None or row.quantity is None or not row.goes_out or row.type == "sell":
            continue
        if found.walks[row.account, row.instrument].end_of(row.day) < 0:
            _short(found, place, row)


def _short(found: SharesWalked, place: int, row: Transaction) -> None:
    assert row.instrument is not None
    assert row.quantity is not None
    worth = found.given.prices.on(row.instrument, row.day)
    quantity, (price, currency, _) = abs(row.quantity), worth
    found.rows[place] = replace(row, type="sell", quantity=quantity, price=price, currency=currency)
    value = fitted(quantity * price)
    if row.type == "adjustment":
        found.findings = [
            replace(one, code="short_moved", detail=f"{REASONS['short_moved']}; {one.detail}", external_id=None)
            if one.external_id == row.external_id
            else one
            for one in found.findings
        ]
    if value:
        _give_away(found, row, value, currency, found.sources[place])


def _give_away(found: SharesWalked, row: Transaction, value: Decimal, currency: str, source: int) -> None:
    assert row.instrument is not None
    name = found.given.names.name("m", row.external_id)
    detail = REASONS["short_moved"]
    found.add(
        Transaction(
            row.day, "adjustment", amount=-value, currency=currency, account=row.account, external_id=name,
            note=detail,
        ),
        source,
    )  # fmt: skip
    found.tell(
        "short_moved", (row.account, row.instrument), row.day, detail, amount=-value, currency=currency,
        external_id=name,
    )  # fmt: skip
