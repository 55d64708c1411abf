"""All parts of a daemon, put together; nothing here is started."""

from __future__ import annotations

from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.background import BackgroundTasks
from pricecache.clock import Clock
from pricecache.core.sessions import CalendarBook
from pricecache.health import Health
from pricecache.metrics import Metrics
from pricecache.parts.api import ApiParts
from pricecache.parts.connections import connections_of
from pricecache.parts.ground import Ground
from pricecache.parts.portfolios import PortfolioParts
from pricecache.parts.prices import PriceParts
from pricecache.parts.realtime import realtime_of
from pricecache.parts.reconstructions import mapper_of, reconstructions_of
from pricecache.portfolio.reconstruction_data import ReconstructionNews
from pricecache.providers.chain import ProviderChain
from pricecache.realtime.register import Feeds
from pricecache.settings import Settings
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.leases import new_owner


class Parts:
    """The parts of one daemon on one database. Loop-only.

    `book` and `chain` may have been given to others before; `background` is what goes on beside these parts.
    `feeds`: where streams get what they tell, if not from these parts.
    """

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase[dict[str, Any]],
        clock: Clock,
        book: CalendarBook,
        chain: ProviderChain,
        metrics: Metrics,
        background: BackgroundTasks,
        feeds: Feeds | None = None,
    ) -> None:
        ground = Ground(settings, database, clock, book, chain, metrics, new_owner())
        self.prices = PriceParts(ground)
        self.portfolio = PortfolioParts(ground, self.prices)
        self.realtime = realtime_of(ground, self.prices, self.portfolio, feeds)
        self.broker_data = BrokerDataStore(database)
        self.connections = connections_of(ground, self.prices, self.portfolio, self.broker_data)
        self.mapper = mapper_of(ground, self.prices)
        self.reconstructions = reconstructions_of(
            ground, self.prices, self.portfolio, self.connections, self.broker_data, self.mapper
        )
        self._tell_of_progress()
        self.health = Health(database, clock, background, lambda: self.prices.jobs.is_following_schedule)
        self.api = ApiParts(
            ground,
            self.prices,
            self.portfolio,
            realtime=self.realtime,
            connections=self.connections,
            mapper=self.mapper,
            reconstructions=self.reconstructions,
            health=self.health,
        )

    async def load(self) -> None:
        """Fill the memory with what the database holds."""
        await self.prices.load()
        await self.api.identity.reload()

    def _tell_of_progress(self) -> None:
        news = ReconstructionNews(self.reconstructions.queue, self.realtime.hub.publish_values)
        self.reconstructions.queue.on_progress = news.tell
        self.prices.watcher.on_reconstruction = news.look
