"""The parts that make ledgers of what brokers say: what securities are, the queue, and what follows decisions."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pricecache.parts.ground import Ground
from pricecache.parts.portfolios import PortfolioParts
from pricecache.parts.prices import PriceParts
from pricecache.portfolio.broker_homes import BrokerHomes
from pricecache.portfolio.broker_intake import BrokerIntake
from pricecache.portfolio.broker_prices import BrokerPriceWriter
from pricecache.portfolio.candidates import Assessor
from pricecache.portfolio.connections import Connections
from pricecache.portfolio.mapping import Mapper
from pricecache.portfolio.reconstructing import Reconstructor, Sources
from pricecache.portfolio.reconstruction_metrics import ReconstructionMetrics
from pricecache.portfolio.reconstruction_queue import ReconstructionQueue
from pricecache.portfolio.remapping import Remapping
from pricecache.portfolio.rewalking import Footings, Rewalking
from pricecache.portfolio.security_prices import SecurityPrices
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.connection_documents import Connection
from pricecache.stores.reconstruction_days import ReconstructionDays
from pricecache.stores.reconstructions import ReconstructionStore
from pricecache.stores.symbol_mappings import SymbolMappingStore


@dataclass(frozen=True, slots=True)
class Reconstructions:
    """What goes on around reconstructions: the queue, who takes in what is posted, where rows go, what is counted,
    and who hears of decisions about securities, and of splits."""

    queue: ReconstructionQueue
    intake: BrokerIntake
    homes: BrokerHomes
    metrics: ReconstructionMetrics
    remapping: Remapping
    rewalking: Rewalking


def mapper_of(ground: Ground, prices: PriceParts) -> Mapper:
    """Says what brokers' securities are."""
    assessor = Assessor(prices.catalog, prices.columns, prices.search, lambda: bool(ground.chain.able("search")))
    mappings = SymbolMappingStore(ground.database, ground.clock)
    return Mapper(mappings, prices.catalog, prices.instruments, assessor, ground.clock)


def reconstructions_of(
    ground: Ground,
    prices: PriceParts,
    portfolio: PortfolioParts,
    connections: Connections,
    data: BrokerDataStore,
    mapper: Mapper,
) -> Reconstructions:
    """Reconstructions on these parts of a daemon; nothing is started. What is fetched of `connections` asks for one
    from now on."""
    database, clock = ground.database, ground.clock
    homes = BrokerHomes(connections.store, portfolio.store, clock)
    reconstructor = _reconstructor(ground, prices, portfolio, Sources(connections.store, data, homes), mapper)
    store, days = ReconstructionStore(database), ReconstructionDays(database)
    concurrency = ground.settings.reconstruction_concurrency
    queue = ReconstructionQueue(
        store, days, reconstructor, clock, ground.owner, random.Random(), concurrency=concurrency
    )
    footings = Footings(prices.catalog, portfolio.markets)
    intake = BrokerIntake(connections.store, data, homes, queue, footings, clock)

    async def fetched(connection: Connection) -> None:
        await homes.require(connection)
        await queue.request(connection.id, connection.user, connection.portfolio, "fetch")

    async def deleted(connection: Connection) -> None:
        await store.forget(connection.id)

    remapping, rewalking = Remapping(mapper.users_of, queue, clock), Rewalking(queue, footings, clock)
    queue.on_done = rewalking.on_done
    mapper.on_overridden = remapping.decided
    connections.on_deleted = deleted
    if connections.fetcher is not None:
        connections.fetcher.on_fetched = fetched
    prices.bars.announcer.subscribe(rewalking.on_bars)
    metrics = ReconstructionMetrics(
        store, days, clock, lambda: sum(pool.account.dollars for pool in ground.chain.pools)
    )
    metrics.snapshots = portfolio.snapshot_stats.success_rate
    return Reconstructions(queue, intake, homes, metrics, remapping, rewalking)


def _reconstructor(
    ground: Ground, prices: PriceParts, portfolio: PortfolioParts, sources: Sources, mapper: Mapper
) -> Reconstructor:
    return Reconstructor(
        sources,
        mapper,
        SecurityPrices(prices.tracker, prices.catalog, portfolio.markets, prices.jobs.run, ground.clock),
        BrokerPriceWriter(prices.catalog, prices.bars, ground.clock),
        prices.instruments,
        portfolio.markets,
        portfolio.ledgers,
        portfolio.store,
        portfolio.materialiser if ground.settings.use_materialized else None,
        ground.clock,
    )
