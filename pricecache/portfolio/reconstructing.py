"""One reconstruction from beginning to end: what the broker said becomes rows of a ledger, and their history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from pricecache import garbage
from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS, day_of
from pricecache.core.broker.data import BrokerData
from pricecache.core.broker.stated_prices import Conversion, PriceConflict, StatedPrice, own_prices
from pricecache.core.broker.values import compared
from pricecache.core.currencies import major
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.portfolios import Portfolio
from pricecache.core.walk.broker_priced import BrokerPriced, WalkGiven, broker_priced
from pricecache.core.walk.findings import Finding
from pricecache.core.walk.footing import WalkFooting
from pricecache.core.walk.reconstruction import Reconstruction
from pricecache.errors import Invalid, NotFound, PricecacheError, Unavailable
from pricecache.portfolio.broker_comparison import comparison_fields
from pricecache.portfolio.broker_facts import BrokerFacts
from pricecache.portfolio.broker_homes import BrokerHomes
from pricecache.portfolio.broker_prices import BrokerPriceWriter
from pricecache.portfolio.broker_rows import RowCounts, counts_of, exchange, incoming_of, own_row_conflict, prefix_of
from pricecache.portfolio.history_ahead import HistoryAhead
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.mapping import Mapped, Mapper, own_instrument
from pricecache.portfolio.market import Markets, MarketView
from pricecache.portfolio.materialiser import Materialiser
from pricecache.portfolio.planning import LedgerView, Plan
from pricecache.portfolio.reconstruction_progress import ProgressTeller
from pricecache.portfolio.reconstruction_queue import Attempt, Outcome
from pricecache.portfolio.security_prices import SecurityPrices, Supply
from pricecache.portfolio.threads import aside, let_go
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.commits import pause
from pricecache.stores.connection_documents import Connection
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.ids import new_id
from pricecache.stores.instruments import InstrumentStore, Own
from pricecache.stores.ledger import RACES, LedgerMoved, gave_up
from pricecache.stores.portfolios import PortfolioStore

log = structlog.get_logger(__name__)

BY = "reconstruction"
MANY_ROWS = 3000
"""Of a broker: from so many on garbage is not looked for among all that is made of them."""
_CALENDAR_LOOKS, _CALENDAR_SECONDS = 60, 0.5


@dataclass(frozen=True, slots=True)
class Sources:
    """What is known of connections."""

    connections: ConnectionStore
    data: BrokerDataStore
    homes: BrokerHomes


@dataclass(frozen=True, slots=True)
class _Priced:
    """The securities in use with what prices them: `instruments` by the broker's id. `conflicts`: prices of the
    broker's that contradict each other; `unconverted`: prices that nobody knows a rate for."""

    mapped: Mapping[str, Mapped]
    instruments: Mapping[str, Instrument]
    supply: Supply
    conflicts: Sequence[PriceConflict]
    unconverted: Sequence[tuple[Instrument, int, StatedPrice]]


@dataclass(frozen=True, slots=True)
class _Made:
    """All that is told of one that is done; `seconds` by stage."""

    connection: Connection
    portfolio: Portfolio
    data: BrokerData
    priced: _Priced
    found: Reconstruction
    counts: RowCounts
    seconds: Mapping[str, float]


class Reconstructor:
    """Loop-only; what takes long leaves the loop. Each stage may be done again from its beginning: nothing of it is
    half done when it is cut off. `materialiser` None: histories are not stored."""

    def __init__(
        self,
        sources: Sources,
        mapper: Mapper,
        prices: SecurityPrices,
        own_prices: BrokerPriceWriter,
        instruments: InstrumentStore,
        markets: Markets,
        ledgers: Ledgers,
        portfolios: PortfolioStore,
        materialiser: Materialiser | None,
        clock: Clock,
    ) -> None:
        self._sources = sources
        self._mapper = mapper
        self._prices = prices
        self._own_prices = own_prices
        self._instruments = instruments
        self._markets = markets
        self._ledgers = ledgers
        self._portfolios = portfolios
        self._materialiser = materialiser
        self._clock = clock

    async def __call__(self, attempt: Attempt) -> Outcome:
        """Raises what stops it: `NotFound` when the connection is gone, `Conflict` code `portfolio_gone`, `Unavailable`
        code `nothing_received` before the broker has said anything, `ClaimLost`, and what the parts raise."""
        teller = ProgressTeller(attempt.tell, self._clock)
        teller.stage("reading")
        connection, portfolio, data = await self._read(attempt.claim.connection)
        await attempt.go_into(portfolio.id)
        with garbage.young_only() if len(data.transactions) >= MANY_ROWS else nullcontext():
            outcome = await self._reconstructed(attempt, teller, connection, portfolio, data)
            rows = list(data.transactions)
            del data
            await let_go(rows)
            return outcome

    async def _reconstructed(
        self, attempt: Attempt, teller: ProgressTeller, connection: Connection, portfolio: Portfolio, data: BrokerData
    ) -> Outcome:
        rows = len(data.transactions)
        facts = await aside(rows, lambda: BrokerFacts.of(data))
        priced = await self._priced(connection, portfolio, data, facts, teller)
        attempt.found_prices(priced.supply.needed, priced.supply.cached)
        teller.stage("walking")
        market = await self._market(portfolio, facts, priced)
        walked = _footing(market, priced, facts.opening_day, data.day)
        priced_here = await self._walk(connection, portfolio, data, priced, market)
        if await self._make_known(connection, priced_here, priced):
            market = await self._market(portfolio, facts, priced)
            walked = _footing(market, priced, facts.opening_day, data.day)
        found = priced_here.found
        del priced_here
        found = replace(found, findings=(*found.findings, *_conflict_findings(connection, priced)))
        teller.stage("storing")
        portfolio = await self._allow(portfolio, found)
        async with HistoryAhead(self._materialiser) as ahead:
            counts = await self._store(attempt, portfolio, connection, data, found, ahead)
            teller.stage("materialising")
            await self._materialise(portfolio, ahead)
        teller.end()
        made = _Made(connection, portfolio, data, priced, found, counts, teller.seconds)
        outcome = await aside(rows, partial(_outcome, made))
        worth = await aside(len(data.holdings), lambda: _worth(connection, portfolio, data, priced, market.market))
        transactions = list(found.transactions)
        del found, made
        await let_go(transactions)
        return replace(outcome, result={**outcome.result, "worth": worth}, walked=walked)

    async def _read(self, connection_id: str) -> tuple[Connection, Portfolio, BrokerData]:
        connection = await self._sources.connections.find(connection_id)
        if connection is None or connection.state == "removing":
            raise NotFound("The connection is no more.", code="unknown_connection")
        stored = await self._sources.data.load(connection.id)
        if stored is None:
            raise Unavailable("The broker has not said anything yet.", code="nothing_received")
        data = stored[0]
        accounts, name = data.accounts.values(), connection.portfolio_name
        connection, portfolio = await self._sources.homes.settle(connection, accounts, name=name)
        return connection, portfolio, data

    # what the securities are, and their prices

    async def _priced(
        self, connection: Connection, portfolio: Portfolio, data: BrokerData, facts: BrokerFacts, teller: ProgressTeller
    ) -> _Priced:
        teller.stage("mapping")

        async def mapped() -> dict[str, Mapped]:
            return await self._mapper.map(
                facts.securities,
                user=connection.user,
                prices=facts.latest,
                used_from=facts.first_uses,
                since_before=facts.since_before,
            )

        found = await mapped()
        teller.stage("prices")
        own, total = sum(one.is_brokers_own for one in found.values()), len(found)
        supply = await self._prices.supply(
            [one.instrument for one in found.values() if not one.is_brokers_own],
            facts.currencies,
            portfolio.rules.currency,
            facts.opening_day,
            BY,
            lambda done, symbol: teller.securities(min(own + done, total), total, symbol),
        )
        if supply.cached < supply.needed:
            found = await mapped()  # by the prices that have come, one or the other may be something else
        instruments = {
            name: own_instrument(connection.user, one.security) if one.instrument in supply.unpriced else one.instrument
            for name, one in found.items()
        }
        await self._make_own_known(connection.user, found, instruments, facts.first_uses)
        conversion = await self._conversion(portfolio, data, facts, instruments)
        prices, conflicts = await aside(len(data.transactions), lambda: own_prices(data, instruments, conversion))
        await self._own_prices.write(prices)
        teller.securities(total, total, None)
        return _Priced(found, instruments, supply, conflicts, conversion.missing)

    async def _conversion(
        self, portfolio: Portfolio, data: BrokerData, facts: BrokerFacts, instruments: Mapping[str, Instrument]
    ) -> Conversion:
        """What is there already keeps its currency, whatever the broker says now."""
        currencies = self._own_prices.currencies(set(instruments.values()))
        found = Conversion(currencies)
        if not await aside(len(data.transactions), lambda: found.is_needed(data, instruments)):
            return found
        units = {major(one) for one in (*facts.currencies, *currencies.values())}
        base = portfolio.rules.currency
        return Conversion(currencies, await self._markets.rates(units, base), base)

    async def _make_own_known(
        self, user: str, found: Mapping[str, Mapped], instruments: Mapping[str, Instrument], days: Mapping[str, int]
    ) -> None:
        """Those of the user's own that stand in for what no provider has."""
        names = [name for name, one in instruments.items() if one != found[name].instrument]
        if not names:
            return
        now = self._clock.time()
        own = [Own(instruments[name], found[name].security.currency, found[name].security.name) for name in names]
        first = min((days[name] for name in names if name in days), default=int(now // DAY_SECONDS))
        await self._instruments.add_own(own, user, wanted_from=first, by=BY, now=now)

    # rows

    async def _walk(
        self, connection: Connection, portfolio: Portfolio, data: BrokerData, priced: _Priced, market: MarketView
    ) -> BrokerPriced:
        given = WalkGiven(data, priced.instruments, connection.accounts, connection.id, portfolio.rules)
        return await aside(
            len(data.transactions) + len(data.holdings),
            lambda: broker_priced(given, market.market, source_of(connection)),
        )

    async def _make_known(self, connection: Connection, found: BrokerPriced, priced: _Priced) -> bool:
        """Whether splits and prices of what only the broker prices are others than before. While prices are awaited,
        what would follow from their lack is not kept."""
        own = {one for one in priced.instruments.values() if not one.place.has_provider}
        splits = {one: found.splits.get(one, ()) for one in own}
        is_new = await self._own_prices.write_splits(splits, source_of(connection))
        prices = {} if priced.supply.pending else found.prices
        return bool(prices and await self._own_prices.write(prices)) or is_new

    async def _market(self, portfolio: Portfolio, facts: BrokerFacts, priced: _Priced) -> MarketView:
        nothing = Ledger.of((), portfolio.rules)
        more, units = set(priced.instruments.values()), {major(one) for one in facts.currencies}
        for _ in range(_CALENDAR_LOOKS):
            try:
                return await self._markets.view(nothing, more=more, currencies=units)
            except Unavailable as exc:
                if exc.code != "calendar_loading":
                    raise
            await self._clock.sleep(_CALENDAR_SECONDS)
        return await self._markets.view(nothing, more=more, currencies=units)

    async def _allow(self, portfolio: Portfolio, found: Reconstruction) -> Portfolio:
        if not found.needs_short or portfolio.rules.allow_short:
            return portfolio
        return await self._ledgers.change_portfolio(portfolio, {"allowShort": True}, BY)

    async def _store(
        self,
        attempt: Attempt,
        portfolio: Portfolio,
        connection: Connection,
        data: BrokerData,
        found: Reconstruction,
        ahead: HistoryAhead,
    ) -> RowCounts:
        rows, own = found.transactions, {connection.accounts[name] for name in data.accounts}
        incoming, ids = await aside(len(rows), lambda: (incoming_of(rows), [new_id() for _ in rows]))
        prefix, now = prefix_of(connection.id), round(self._clock.time(), 3)

        views: list[LedgerView] = []

        def make(view: LedgerView, accounts: set[str]) -> Plan:
            if not accounts >= own:
                raise LedgerMoved  # its user has deleted one since it was settled: it is made anew first
            views.append(view)
            planned = exchange(view, prefix, self._ledgers.accepted(view, incoming, accounts), ids, now)
            return replace(planned, change=replace(planned.change, companions=[attempt.holding]))

        for number in range(RACES):
            change_id = new_id()
            try:
                planned = await self._ledgers.attempt(
                    portfolio, make, BY, change_id, len(incoming), before_commit=partial(ahead.begin, portfolio)
                )
                counts = await aside(len(incoming), partial(counts_of, planned))
                lists = [planned.rows, planned.change.inserted, planned.change.replaced, incoming, ids]
                await let_go(*(one for one in lists if isinstance(one, list)))
                return counts
            except LedgerMoved:
                await attempt.require()
                await pause(number)
                connection, portfolio = await self._sources.homes.settle(connection, data.accounts.values())
                await self._ledgers.tell_of(portfolio.id, change_id)
            except Invalid as exc:
                if (conflict := own_row_conflict(views[-1], prefix, rows, exc.rows)) is None:
                    raise
                raise conflict from exc
        raise gave_up()

    async def _materialise(self, portfolio: Portfolio, ahead: HistoryAhead) -> None:
        if self._materialiser is None:
            return
        try:
            await self._materialiser.materialise(await self._portfolios.find(portfolio.id), await ahead.taken())
        except PricecacheError as exc:  # the rows are there, and whoever asks for the history gets it
            log.debug("history is not stored yet", portfolio=portfolio.id, code=exc.code)
            self._materialiser.want(portfolio.id)


# what is kept of it


def source_of(connection: Connection) -> str:
    """Of the splits that a connection makes known."""
    return f"broker:{connection.id}"


def _footing(market: MarketView, priced: _Priced, first_day: int, last_day: int) -> WalkFooting:
    facts = [market.facts.get(one.key) for one in priced.instruments.values()]
    return WalkFooting.of([one for one in facts if one is not None], priced.supply.awaited, first_day, last_day)


def _conflict_findings(connection: Connection, priced: _Priced) -> Iterator[Finding]:
    for instrument, day, counts, other in priced.conflicts:
        detail = f"A price of {other.price} {other.currency} here, {counts.price} in another account, which counts."
        yield Finding("prices_differ", day, connection.accounts[other.account], detail, instrument,
                      amount=other.price - counts.price, currency=other.currency)  # fmt: skip
    latest = {one: (day, stated) for one, day, stated in sorted(priced.unconverted, key=lambda told: told[1])}
    for instrument, (day, stated) in latest.items():
        detail = f"No rate into the currency of {instrument} is known: this price does not count."
        yield Finding("price_not_converted", day, connection.accounts[stated.account], detail, instrument,
                      amount=stated.price, currency=stated.currency)  # fmt: skip


def _outcome(made: _Made) -> Outcome:
    findings = [*map(_finding_fields, made.found.findings), *_remark_fields(made.data)]
    return Outcome(_result(made), findings, {"transactions": len(made.found.transactions)})


def _result(made: _Made) -> dict[str, Any]:
    data, found, counts = made.data, made.found, made.counts
    rows, kinds = found.transactions, Counter(row.type for row in found.transactions)
    return {
        "portfolio_id": made.portfolio.id,
        "from": None if not rows else day_of(min(row.day for row in rows)).isoformat(),
        "to": day_of(data.day).isoformat(),
        "accounts": len(made.connection.present_accounts),
        "transactions": len(rows),
        "created": counts.created,
        "updated": counts.updated,
        "deleted": counts.deleted,
        "unchanged": counts.unchanged,
        "openings": kinds["opening"],
        "adjustments": kinds["adjustment"],
        "findings": len(found.findings) + len(data.remarks),
        "short_allowed": found.needs_short,
        "securities": _securities(made.priced),
        "seconds": {name: round(value, 3) for name, value in made.seconds.items()},
    }


def _worth(
    connection: Connection, portfolio: Portfolio, data: BrokerData, priced: _Priced, market: MarketData
) -> dict[str, Any]:
    beside = compared(data, priced.instruments, market, portfolio.rules.currency)
    return comparison_fields(beside, connection.accounts)


def _securities(priced: _Priced) -> dict[str, Any]:
    states = Counter(one.state for one in priced.mapped.values())
    supply = priced.supply
    return {
        "total": len(priced.mapped),
        **{state: states[state] for state in ("mapped", "overridden", "review", "unmapped")},
        "brokers_own": sum(not one.place.has_provider for one in priced.instruments.values()),
        "cached": supply.cached,
        "unpriced": sorted(str(one) for one in supply.unpriced),
        "pending": sorted(str(one) for one in supply.pending),
    }


def _finding_fields(found: Finding) -> dict[str, Any]:
    instrument = found.instrument
    fields: dict[str, Any] = {
        "code": found.code,
        "date": day_of(found.day).isoformat(),
        "account_id": found.account,
        "symbol": None if instrument is None else instrument.symbol,
        "market": None if instrument is None else instrument.market,
        "quantity": None if found.quantity is None else str(found.quantity),
        "amount": None if found.amount is None else str(found.amount),
        "currency": found.currency,
        "rows": list(found.rows),
        "external_id": found.external_id,
        "detail": found.detail,
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _remark_fields(data: BrokerData) -> list[dict[str, Any]]:
    return [{"code": one.code, "path": one.path, "detail": one.detail} for one in data.remarks]
