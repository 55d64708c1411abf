"""The parts of broker connections, named and put together for `parts`."""

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
from pricecache.portfolio.broker_prices import BrokerPrices
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.mapping import Mapper
from pricecache.portfolio.market import Markets
from pricecache.portfolio.materialiser import Materialiser
from pricecache.portfolio.reconstructing import Reconstructor, Sources
from pricecache.portfolio.reconstruction_metrics import ReconstructionMetrics
from pricecache.portfolio.reconstruction_queue import ReconstructionQueue
from pricecache.portfolio.security_prices import SecurityPrices
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.reconstruction_days import ReconstructionDays
from pricecache.stores.reconstructions import ReconstructionStore
from pricecache.sync.backfill import Tracker


@dataclass(frozen=True, slots=True)
class Brokers:
    """What the API sees of broker connections."""

    connections: ConnectionStore
    data: BrokerDataStore
    homes: BrokerHomes
    queue: ReconstructionQueue
    intake: BrokerIntake
    metrics: ReconstructionMetrics


def brokers_of(
    database: AsyncDatabase[dict[str, Any]],
    clock: Clock,
    owner: str,
    *,
    concurrency: int,
    connections: ConnectionStore,
    mapper: Mapper,
    own_prices: BrokerPrices,
    tracker: Tracker[Any],
    start_run: Callable[[str, Mapping[str, Any], str], Awaitable[Any]],
    catalog: Catalog,
    instruments: InstrumentStore,
    markets: Markets,
    ledgers: Ledgers,
    portfolios: PortfolioStore,
    materialiser: Materialiser | None,
    dollars: Callable[[], float],
) -> Brokers:
    """Reconstructions on these parts of a daemon; nothing is started. `dollars`: what providers have cost so far."""
    data, homes = BrokerDataStore(database), BrokerHomes(connections, portfolios, clock)
    reconstructor = Reconstructor(
        Sources(connections, data, homes),
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
    intake = BrokerIntake(connections, data, homes, queue, clock)
    return Brokers(connections, data, homes, queue, intake, ReconstructionMetrics(store, days, clock, dollars))
