"""Rows that put right what a split left, beside what should be there: paid out, or an adjustment that is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import fitted
from pricecache.core.walk.backward import Correction
from pricecache.core.walk.entries import Names
from pricecache.core.walk.findings import Finding
from pricecache.core.walk.pairs import SplitRows
from pricecache.core.walk.row import Key
from pricecache.core.walk.share_draft import SharesWalked

_ONE = Decimal(1)
_LEAST_PAID = Decimal("0.000001")
"""Nobody pays for less of a share: it is what lots are rounded to."""


class SplitFixes:
    """Makes those of one pass; `keep` when that is the ledger's. For one thread."""

    def __init__(self, found: SharesWalked, instrument: Instrument, names: Names) -> None:
        self._found, self._instrument, self._names = found, instrument, names
        self._findings: list[Finding] = []
        self._paid: set[tuple[str, Instrument, int]] = set()
        self._fractions = found.fractions.branch()

    def trial(self) -> SplitFixes:
        """The same for a pass of which nothing is kept."""
        return SplitFixes(self._found, self._instrument, Names("trial"))

    def keep(self) -> None:
        self._found.findings += self._findings
        for one in self._paid:
            del self._found.cash_in_lieu[one]
        self._found.fractions = self._fractions

    def __call__(self, account: str, day: int, missing: Decimal, held: Decimal) -> Sequence[Transaction]:
        key, code = (account, self._instrument), "fractional_shares" if abs(missing) < _ONE else "balance_differs"
        split, is_short = (*key, day), self._found.walks[account, self._instrument].end_of(day) < 0
        paid = self._found.cash_in_lieu.get(split) if split not in self._paid else None
        if missing <= -_LEAST_PAID and paid is not None and paid.cash > 0:
            self._paid.add(split)
            return [self._sold(key, day, -missing, paid)]
        if code == "fractional_shares" and missing <= -_LEAST_PAID and not is_short:
            name = self._names.name("f", account, self._instrument, day)
            if (sold := self._fractions.sale(key, day, -missing, name)) is not None:
                return [sold]
        row, finding = self._found.correction(key, Correction(day, missing, code), self._names)
        self._findings.append(finding)
        if missing > 0 or not is_short:
            return [row]
        return [replace(row, type="sell", quantity=-missing, price=ZERO)]

    def _sold(self, key: Key, day: int, quantity: Decimal, paid: SplitRows) -> Transaction:
        price = fitted(paid.cash / quantity)
        name = self._names.name("f", self._found.said[paid.sources[0]].row.id)
        return Transaction(
            day, "sell", key[1], quantity, price, currency=paid.currency, account=key[0], external_id=name,
            note="the fraction that a split left",
        )  # fmt: skip
