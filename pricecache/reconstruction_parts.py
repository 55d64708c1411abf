"""The parts of reconstructions, named and put together for `parts`."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock
from pricecache.core.catalog import Catalog
from pricecache.portfolio.broker_homes import BrokerHomes
from pricecache.portfolio.broker_intake import BrokerIntake
from pricecache.portfolio.broker_prices import BrokerPriceWriter
from pricecache.portfolio.connections import Connections
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.mapping import Mapper
from pricecache.portfolio.market import Markets
from pricecache.portfolio.materialiser import Materialiser
from pricecache.portfolio.reconstructing import Reconstructor, Sources
from pricecache.portfolio.reconstruction_metrics import ReconstructionMetrics
from pricecache.portfolio.reconstruction_queue import ReconstructionQueue
from pricecache.portfolio.remapping import Remapping
from pricecache.portfolio.rewalking import Footings, Rewalking
from pricecache.portfolio.security_prices import SecurityPrices
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.connections import Connection
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.reconstruction_days import ReconstructionDays
from pricecache.stores.reconstructions import ReconstructionStore
from pricecache.sync.backfill import Tracker


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


def reconstructions_of(
    database: AsyncDatabase[dict[str, Any]],
    clock: Clock,
    owner: str,
    *,
    concurrency: int,
    connections: Connections,
    data: BrokerDataStore,
    mapper: Mapper,
    own_prices: BrokerPriceWriter,
    tracker: Tracker[Any],
    start_run: Callable[[str, Mapping[str, Any], str], Awaitable[Any]],
    catalog: Catalog,
    instruments: InstrumentStore,
    markets: Markets,
    ledgers: Ledgers,
    portfolios: PortfolioStore,
    materialiser: Materialiser | None,
    dollars: Callable[[], float],
) -> Reconstructions:
    """Reconstructions on these parts of a daemon; nothing is started. What is fetched of `connections` asks for one
    from now on. `dollars`: what providers have cost so far."""
    homes = BrokerHomes(connections.store, portfolios, clock)
    reconstructor = Reconstructor(
        Sources(connections.store, data, homes),
        mapper,
        SecurityPrices(tracker, catalog, markets, start_run),
        own_prices,
        instruments,
        markets,
        ledgers,
        portfolios,
        materialiser,
        clock,
    )
    store, days = ReconstructionStore(database), ReconstructionDays(database)
    queue = ReconstructionQueue(store, days, reconstructor, clock, owner, random.Random(), concurrency=concurrency)
    footings = Footings(catalog, markets)
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
    metrics = ReconstructionMetrics(store, days, clock, dollars)
    return Reconstructions(queue, intake, homes, metrics, remapping, rewalking)
