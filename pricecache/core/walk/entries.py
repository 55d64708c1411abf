"""Where rows of a ledger that are made of a broker's are put down: their ids, prices, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from hashlib import blake2b
from typing import Any

from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.ledger import ZERO, Transaction, TransactionType
from pricecache.core.lots import FINEST, fitted
from pricecache.core.walk.findings import REASONS, Finding
from pricecache.core.walk.pairs import Pairs
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import BrokerRow

_LONGEST = 200
_DEAREST = Decimal(10) ** 14
_MANY = 10_000
"""Beyond so many units the last digit of a price is money; what is left goes to the fees."""


class Names:
    """External ids below one prefix: the same for the same row or correction in every run, at most 200 characters."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._taken: dict[str, int] = {}

    def name(self, kind: str, *parts: object) -> str:
        """Of the row `kind/parts`; from its second occurrence on with the number of it."""
        text = "/".join((self._prefix, kind, *map(str, parts)))
        if len(text) > _LONGEST - 8:
            text = f"{self._prefix}/{kind}/{blake2b(text.encode(), digest_size=24).hexdigest()}"
        self._taken[text] = count = self._taken.get(text, 0) + 1
        return text if count == 1 else f"{text}~{count}"


def link_of(name: str) -> str:
    """What a dividend and the purchase made of it share."""
    return blake2b(name.encode(), digest_size=12).hexdigest()


def unit_price(value: Decimal, quantity: Decimal, *, is_bought: bool) -> tuple[Decimal, Decimal]:
    """The price of one, and what it lacks of `value` (never negative): quantity × price and the rest, which the one
    who buys pays and who sells does not get, are `value` as exactly as a ledger can say it."""
    if value >= quantity * _DEAREST:
        return _DEAREST, fitted(value - quantity * _DEAREST) if is_bought else ZERO
    if quantity < _MANY:
        return (value / quantity).quantize(FINEST).normalize() + ZERO, ZERO
    price = (value / quantity).quantize(FINEST, ROUND_DOWN if is_bought else ROUND_UP)
    return price, abs(value - price * quantity).quantize(FINEST)


class Entries:
    """The rows of a ledger so far, `rows`; `sources` has for each the place of the broker's row that it is of,
    `findings` what to tell. `one`: the broker's row, at place `source`, that is being read; there is none before
    `begin`. `links`: by place of a dividend, what it shares with the purchase made of it. For one thread."""

    def __init__(
        self, securities: Mapping[str, BrokerSecurity], pairs: Pairs, prices: BrokerPrices, names: Names
    ) -> None:
        self.securities, self.pairs, self.prices = securities, pairs, prices
        self._names = names
        self.rows: list[Transaction] = []
        self.sources: list[int] = []
        self.findings: list[Finding] = []
        self.links: dict[int, str] = {}
        self.source: int
        self.one: BrokerRow

    def begin(self, source: int, one: BrokerRow) -> None:
        """What is added from now on is of `one`."""
        self.source, self.one = source, one

    def add(
        self,
        what: TransactionType,
        kind: str = "t",
        *,
        quantity: Decimal | None = None,
        price: Decimal | None = None,
        amount: Decimal | None = None,
        fees: Decimal = ZERO,
        taxes: Decimal = ZERO,
        **other: Any,
    ) -> None:
        """A row of the present one's; `other`: what is not as there."""
        row, account, instrument, _, _ = self.one
        name = self._names.name(kind, row.id)
        facts = {"currency": row.currency, "account": account, "external_id": name, "note": row.note, **other}
        day, what_of = facts.pop("day", row.day), facts.pop("instrument", instrument)
        self.rows.append(Transaction(day, what, what_of, quantity, price, amount, fees, taxes, **facts))
        self.sources.append(self.source)

    def tell(self, code: str, detail: str, **facts: Any) -> None:
        one = self.one
        self.findings.append(
            Finding(code, one.row.day, one.account, detail, one.instrument, rows=(one.row.id,), **facts)
        )

    def correct(self, code: str, **fields: Any) -> None:
        """An adjustment, with the finding that explains it."""
        detail = f"{REASONS[code]} (row {self.one.row.id})"
        self.add("adjustment", "c", note=detail, **fields)
        row = self.rows[-1]
        self.tell(
            code, detail, quantity=row.quantity, amount=row.amount, currency=row.currency, external_id=row.external_id
        )

    def noted(self, text: str) -> str:
        """`text` and the broker's note."""
        note = self.one.row.note
        return f"{text}: {note}" if note else text

    def charges(self) -> tuple[Decimal, Decimal]:
        """Fees and taxes within the cash of the row; what was paid back is none."""
        fees, taxes = self.one.row.fees, self.one.row.taxes
        return fitted(fees) if fees > 0 else ZERO, fitted(taxes) if taxes > 0 else ZERO

    def is_sweep(self) -> bool:
        """Whether the row is of a security that counts as money."""
        security = self.securities.get(self.one.row.security or "")
        return security is not None and security.is_money
