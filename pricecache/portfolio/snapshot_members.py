"""Portfolios as snapshots need them, from their histories: the rows of some days, and what is held from then on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import structlog
from numpy.typing import NDArray

from pricecache.core.book import Book, Held
from pricecache.core.catalog import Catalog
from pricecache.core.chunks import aligned, between
from pricecache.core.grid import known_from, lay_out, priced_from
from pricecache.core.history import History
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.materialised import Materialised
from pricecache.core.portfolios import Portfolio
from pricecache.core.replay import replay
from pricecache.core.rows import rounded
from pricecache.core.snapshot_blocks import NEVER, Member, cash_code, price_code
from pricecache.core.snapshot_values import FIELDS
from pricecache.core.stamps import ALWAYS, SeriesFacts
from pricecache.core.valuation import CASH, COST, VALUE
from pricecache.errors import Corrupt, NotFound, PricecacheError
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.snapshot_market import awaited, digest_of
from pricecache.portfolio.threads import aside
from pricecache.portfolio.wholes import Whole, Wholes
from pricecache.stores.history import HistoryStore
from pricecache.stores.portfolios import PortfolioStore

log = structlog.get_logger(__name__)

TOGETHER = 25
"""Portfolios whose ledgers and histories are read with one query."""
_SHOWN = (VALUE, CASH, COST)


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A member, and its rows on the days that were asked for.

    `values`: float64, shape (days, FIELDS, scopes), rounded as the history shows it. `has_row`, `estimated`, `waits`:
    bool, by day; the last where a price is missing that is to come. `settled`: the last day that only a revision
    changes, or a price by hand. `facts`: revision and digest of each series it is of.
    """

    member: Member
    values: NDArray[np.float64]
    has_row: NDArray[np.bool_]
    estimated: NDArray[np.bool_]
    waits: NDArray[np.bool_]
    settled: int
    facts: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a portfolio could not be computed."""

    portfolio: str
    code: str
    detail: str


class MemberBuilder:
    """Loop-only; long computations run in a thread."""

    def __init__(
        self,
        wholes: Wholes,
        store: HistoryStore,
        portfolios: PortfolioStore,
        ledgers: Ledgers,
        catalog: Catalog,
    ) -> None:
        self._wholes, self._store, self._portfolios = wholes, store, portfolios
        self._ledgers, self._catalog = ledgers, catalog

    async def build(
        self, ids: Sequence[str], days: Sequence[int], *, go_on: Callable[[int], bool] = lambda done: True
    ) -> tuple[dict[str, Built], list[Failure]]:
        """Of these portfolios, those that are there, for as long as `go_on`, which is told how many are done, says
        so."""
        found: dict[str, Built] = {}
        failures: list[Failure] = []
        for low in range(0, len(ids), TOGETHER):
            if not go_on(low):
                break
            portfolios = await self._portfolios.of_ids(ids[low : low + TOGETHER])
            wholes = await self._wholes_of(portfolios, max(days))
            for portfolio in portfolios:
                whole = wholes.get(portfolio.id)
                if isinstance(whole, Whole):
                    found[portfolio.id] = await self._built(whole, days)
                elif whole is not None:
                    failures.append(whole)
                await asyncio.sleep(0)
        return found, failures

    async def _built(self, whole: Whole, days: Sequence[int]) -> Built:
        built = built_of(whole, days, self._catalog)
        doubtful = [day for day, is_doubtful in zip(days, built.waits.tolist(), strict=True) if is_doubtful]
        if not doubtful or all(one.place.has_provider for one in whole.market.names):
            return built
        ledger = (await self._ledgers.read(whole.portfolio)).ledger
        waits = await aside(len(ledger.transactions), lambda: waiting(ledger, whole.market.market, doubtful))
        return replace(built, waits=np.isin(days, waits))

    async def _wholes_of(self, portfolios: Sequence[Portfolio], until: int) -> dict[str, Whole | Failure]:
        await self._ledgers.read_many(portfolios)
        stored = {}
        if self._wholes.is_keeping:
            heads = await self._store.heads([one.id for one in portfolios])
            stored = await self._store.load_many(heads, {one.id: one.rules.cash_tracking for one in portfolios})
        found: dict[str, Whole | Failure] = {}
        for portfolio in portfolios:
            try:
                found[portfolio.id] = await self._whole_of(portfolio, stored.get(portfolio.id), until)
            except NotFound:
                continue
            except PricecacheError as exc:
                found[portfolio.id] = Failure(portfolio.id, exc.code, exc.detail)
            except Exception:  # one portfolio's fault is not the next one's
                log.exception("a snapshot cannot be taken", portfolio=portfolio.id)
                found[portfolio.id] = Failure(portfolio.id, "internal_error", "Our fault: the log has it.")
            await asyncio.sleep(0)
        return found

    async def _whole_of(self, portfolio: Portfolio, stored: Materialised | None, until: int) -> Whole:
        """With day `until`, whether that is settled or not."""
        if self._wholes.is_keeping:
            whole = await self._wholes.settled(portfolio, stored)
            if whole.kept is not None and whole.kept.through >= until:
                return whole
        return await self._wholes.of(portfolio)


def built_of(whole: Whole, days: Sequence[int], catalog: Catalog) -> Built:
    """What a whole says of its portfolio. Whatever it estimates `waits`: what of it is priced by hand, so that nothing
    is to come, only its ledger tells."""
    scopes = whole.scopes
    values = np.full((len(days), FIELDS, max(len(scopes), 1)), np.nan)
    has_row, estimated = np.zeros((2, len(days)), np.bool_)
    for at, day in enumerate(days):
        part = next((one for one in whole.parts if one.start <= day <= one.end), None)
        if part is not None:
            row = aligned(between(part, day, day), scopes, whole.portfolio.rules.cash_tracking)
            values[at] = rounded(row)[list(_SHOWN), :, 0]
            has_row[at], estimated[at] = True, row.estimated[0, 0]
    facts = {one.series: (one.rev, digest_of(one)) for one in _facts_of(whole).values() if one is not None}
    settled = min(whole.today - 1, whole.market.awaited_until)
    member = _Maker(whole, catalog).member()
    return Built(member, values, has_row, estimated, waits=estimated, settled=settled, facts=facts)


def waiting(ledger: Ledger, market: MarketData, days: Sequence[int]) -> list[int]:
    """Those of `days` at whose end something is held without a price of that day that is to come. Pure."""
    books = replay(ledger, market, max(days), books=days).books
    held = {day: {one.instrument for one in books[day].positions if one.instrument and one.quantity} for day in days}
    base = ledger.rules.currency
    grid = lay_out(sorted(set().union(*held.values())), market, base, min(days), max(days))
    flags = awaited(grid, market, base)
    return [day for day in days if any(flags[grid.row_of[one], day - grid.start] for one in held[day])]


def _facts_of(whole: Whole) -> Mapping[str, SeriesFacts | None]:
    return whole.market.facts if whole.kept is None else whole.kept.stamp.series


class _Maker:
    def __init__(self, whole: Whole, catalog: Catalog) -> None:
        self.whole, self.catalog = whole, catalog
        self.portfolio = whole.portfolio
        self.base = whole.portfolio.rules.currency
        self.tracks = whole.portfolio.rules.cash_tracking
        self.facts = _facts_of(whole)

    def member(self) -> Member:
        accounts = tuple(account or "" for account, _ in self.whole.scopes[1:])
        book = self._book()
        columns: list[int] = []
        quantities: list[float] = []
        counts = []
        if book is not None:
            for account in accounts:
                some = list(self._positions(book, account))
                cash = list(self._cash(book, account))
                counts += [len(some), len(cash)]
                columns += [code for code, _ in (*some, *cash)]
                quantities += [amount for _, amount in (*some, *cash)]
        return Member(
            self.portfolio.id,
            self.whole.state.generation,
            self._since(book),
            self.base,
            self.portfolio.time_zone,
            self.tracks,
            accounts,
            self._costs(),
            np.array(counts if book is not None else [0] * (2 * len(accounts)), np.int64),
            np.array(columns, np.int64),
            np.array(quantities, np.float64),
            np.array([facts.series for facts in self.facts.values() if facts is not None], np.int64),
        )

    def _since(self, book: Book | None) -> int:
        if book is not None:
            return book.day
        is_empty = self.whole.is_complete and not self.whole.ledger.transactions
        return ALWAYS if is_empty else NEVER

    def _book(self) -> Book | None:
        """The last one that is settled, if everything after it is quantities times prices."""
        kept, rows = self.whole.kept, self.whole.ledger.transactions
        if kept is None or (rows and rows[-1].day > kept.through) or None in self.facts.values():
            return None
        try:
            book = kept.points[-1].checkpoint().book
        except Corrupt:  # told by who computes it again
            return None
        return book if not book.factors and self._is_priced(book) else None

    def _is_priced(self, book: Book) -> bool:
        market = self.whole.market.market
        held = [one.instrument for one in book.positions if one.instrument is not None and one.quantity]
        if not all(one.key in self.facts for one in held):
            return False
        money = [one.currency for one in book.cash if one.amount] if self.tracks else []
        return all(priced_from(market, self.base, one) <= book.day for one in held) and all(
            known_from(market, self.base, one) <= book.day for one in money
        )

    def _positions(self, book: Book, account: str) -> Iterator[tuple[int, float]]:
        of_account = [one for one in book.positions if one.account == account and one.instrument and one.quantity]
        for one in sorted(of_account, key=_by_instrument):
            facts = self.facts[one.instrument.key] if one.instrument is not None else None
            assert facts is not None
            yield price_code(facts.series, self.base), float(one.quantity) * one.factor

    def _cash(self, book: Book, account: str) -> Iterator[tuple[int, float]]:
        if self.tracks:
            for one in book.cash:
                if one.account == account and one.amount:
                    yield cash_code(one.currency, self.base), float(one.amount)

    def _costs(self) -> NDArray[np.float64]:
        last: History | None = self.whole.parts[-1] if self.whole.parts else None
        if self.whole.kept is not None:
            last = aligned(self.whole.kept.history, self.whole.scopes, self.tracks)
        if last is None:
            return np.array([np.nan])
        return rounded(between(last, last.end, last.end))[COST, :, 0]


def _by_instrument(one: Held) -> tuple[str, ...]:
    return tuple(one.instrument or ())
