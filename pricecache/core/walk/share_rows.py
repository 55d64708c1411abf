"""What shares walked backwards leave, put down as rows of a ledger: openings, splits, corrections."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import ratio_of
from pricecache.core.walk.backward import Correction
from pricecache.core.walk.row import Key
from pricecache.core.walk.share_draft import SharesWalked
from pricecache.core.walk.splits import Decided

_ONE = Decimal(1)
_OTHER_RATIO = Fraction(1, 100)
"""Fractions that were paid out make less of a difference between a broker's ratio and the market's."""


def put_down(found: SharesWalked) -> None:
    """Add what the walks of `found` came to. Openings have no price yet."""
    for key, walked in found.walks.items():
        for one in walked.decided:
            _split(found, key, one)
        for correction in walked.corrections:
            _correct(found, key, correction)
        if walked.opening:
            _open(found, key, walked.opening)


def _split(found: SharesWalked, key: Key, decided: Decided) -> None:
    rows = decided.row.rows
    ids = tuple(found.said[source].row.id for source in rows.sources)
    account, instrument = key
    if decided.code == "split_differs":
        detail = "the shares that came with a split are not what its ratio makes"
        found.tell("split_differs", key, decided.day, detail, quantity=rows.quantity, rows=ids)
    if _is_not_in_market(found, instrument, decided):
        detail = "the market's data has no such split: its prices before it may be in other units"
        found.tell("split_not_in_market", key, decided.day, detail, rows=ids)
    if decided.ratio is not None:
        note = found.said[rows.sources[0]].row.note
        found.add(
            Transaction(
                decided.day, "split", instrument, ratio=decided.ratio, account=account, note=note,
                external_id=found.given.names.name("s", ids[0]),
            )
        )  # fmt: skip
    elif not rows.quantity:
        found.tell("split_without_ratio", key, decided.day, "nobody says the ratio of this split", rows=ids)
    if rows.cash:
        found.cash_in_lieu[account, instrument, decided.day] = rows


def _is_not_in_market(found: SharesWalked, instrument: Instrument, decided: Decided) -> bool:
    if decided.ratio in (None, _ONE):
        return False
    market = decided.row.market
    if market is not None and decided.row.is_used(decided.day) and _is_near(ratio_of(decided.ratio), market[1]):
        return False
    return instrument.place.has_provider and instrument in found.given.market.prices


def _is_near(one: Fraction, other: Fraction) -> bool:
    return abs(one / other - 1) < _OTHER_RATIO


def _open(found: SharesWalked, key: Key, quantity: Decimal) -> None:
    account, instrument = key
    name = found.given.names.name("o", account, instrument)
    found.openings[instrument][name] = account
    found.opened.append(len(found.rows))
    found.add(
        Transaction(
            found.given.opening_day, "opening" if quantity > 0 else "sell", instrument, abs(quantity), ZERO,
            account=account, external_id=name,
        )
    )  # fmt: skip


def _correct(found: SharesWalked, key: Key, correction: Correction) -> None:
    row, finding = found.correction(key, correction, found.given.names)
    found.findings.append(finding)
    if correction.code == "expiry_missing":
        quantity = correction.quantity
        row = replace(row, type="sell" if quantity < 0 else "buy", quantity=abs(quantity), price=ZERO)
    found.add(row)
