"""Ids of rows that have none, made from what they say: the same file once more names the same rows."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from hashlib import blake2b

from pricecache.core.ledger import Transaction

PREFIX = "import:"
_BYTES = 12


def row_ids(rows: Iterable[Transaction]) -> list[str]:
    """An external id for each row, in order: `import:` and a hash of the row, and from its second occurrence among
    `rows` on a point and the number of it.

    In the hash are day, type, instrument, amounts by their value (`1.50` is `1.5`), currencies, accounts, ratio, dates
    and link. Not in it are the note and the units of the quantity: with another of those the row is the same one,
    changed.
    """
    seen: dict[str, int] = {}
    names = []
    for row in rows:
        name = PREFIX + blake2b(_said(row).encode(), digest_size=_BYTES).hexdigest()
        seen[name] = count = seen.get(name, 0) + 1
        names.append(name if count == 1 else f"{name}.{count}")
    return names


def _said(row: Transaction) -> str:
    amounts = (row.quantity, row.price, row.amount, row.fees, row.taxes, row.fx_rate, row.ratio)
    texts = (
        str(row.day), row.type, "" if row.instrument is None else str(row.instrument), *map(_value, amounts),
        row.currency or "", row.account, row.to_account or "", str(row.ex_date), str(row.acquired_on), row.link or "",
    )  # fmt: skip
    return "\x1f".join(texts)


def _value(amount: Decimal | None) -> str:
    """One text for one value, however many zeros it was written with."""
    if amount is None:
        return ""
    return format(amount.normalize(), "f") if amount else "0"
