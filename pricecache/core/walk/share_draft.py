"""A ledger of shares in the making: the rows so far, what was found, and how both are added to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pricecache.core.broker.data import BrokerData
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Rules, Transaction
from pricecache.core.marketdata import MarketData
from pricecache.core.walk.backward import Correction, Walked
from pricecache.core.walk.entries import Names
from pricecache.core.walk.findings import REASONS, Finding
from pricecache.core.walk.in_lieu import Delay, FractionsPaid
from pricecache.core.walk.opening_costs import OpeningCost
from pricecache.core.walk.pairs import SplitRows
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import BrokerRow, Key


@dataclass(frozen=True, slots=True)
class Given:
    """What a walk is given: `instruments` and `accounts` by the broker's ids; the market; how to name rows. `rules`:
    of the portfolio."""

    data: BrokerData
    instruments: Mapping[str, Instrument]
    accounts: Mapping[str, str]
    market: MarketData
    prices: BrokerPrices
    names: Names
    rules: Rules

    @property
    def opening_day(self) -> int:
        return self.data.first_day - 1


@dataclass(slots=True)
class SharesWalked:
    """`rows` with `sources`: all of the ledger so far, the place of the broker's row that each is of, or -1. `said`:
    the broker's rows; `walks` of all accounts and instruments; `left_out`: places of rows that were there twice.
    `openings`: by instrument, the account of each by its external id; `opened`: their places in `rows`; `costs`: what
    they cost. `cash_in_lieu`: by account, instrument and day, splits that paid; `fractions`: rows that pay for what a
    split left; `delays`: of money that is paid later than it counts. For one thread."""

    given: Given
    said: Sequence[BrokerRow]
    walks: Mapping[Key, Walked]
    left_out: frozenset[int]
    fractions: FractionsPaid
    rows: list[Transaction] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    costs: dict[Key, OpeningCost] = field(default_factory=dict)
    openings: dict[Instrument, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    opened: list[int] = field(default_factory=list)
    cash_in_lieu: dict[tuple[str, Instrument, int], SplitRows] = field(default_factory=dict)
    delays: list[Delay] = field(default_factory=list)

    def add(self, row: Transaction, source: int = -1) -> None:
        self.rows.append(row)
        self.sources.append(source)

    def drop(self, sources: Collection[int]) -> None:
        """Take away the rows that are of these of the broker's."""
        if sources:
            kept = [pair for pair in zip(self.rows, self.sources, strict=True) if pair[1] not in sources]
            self.rows, self.sources = [row for row, _ in kept], [source for _, source in kept]

    def tell(self, code: str, key: Key, day: int, detail: str, **facts: Any) -> None:
        self.findings.append(Finding(code, day, key[0], detail, key[1], **facts))

    def correction(self, key: Key, correction: Correction, names: Names) -> tuple[Transaction, Finding]:
        """The row of it and what is told of it; neither is added."""
        account, instrument = key
        day, quantity = correction.day, correction.quantity
        worth = self.given.prices.on(instrument, day)
        ids = (self.said[correction.source].row.id,) if correction.source >= 0 else ()
        detail = REASONS[correction.code] + (f" (row {ids[0]})" if ids else "")
        name = names.name("c", account, instrument, day, correction.code)
        row = Transaction(
            day, "adjustment", instrument, quantity, worth.price, currency=worth.currency, account=account,
            external_id=name, note=detail,
        )  # fmt: skip
        return row, Finding(correction.code, day, account, detail, instrument, quantity, rows=ids, external_id=name)
