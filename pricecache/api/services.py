"""Everything the handlers call, in one place: filled in by the composition root, read by `api/` only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pricecache.api.uploads import UploadGate

if TYPE_CHECKING:
    from pricecache.api.auth import Identity
    from pricecache.api.history_pages import PageCache
    from pricecache.api.kept import KeptResponses
    from pricecache.api.streams import Streams
    from pricecache.cache.as_known import AsKnown
    from pricecache.cache.intraday import IntradayReader
    from pricecache.cache.live import LiveCache
    from pricecache.cache.reader import Reader
    from pricecache.cache.wholeness import Wholeness
    from pricecache.clock import Clock
    from pricecache.core.catalog import Catalog
    from pricecache.core.sessions import CalendarBook
    from pricecache.jobs import Jobs
    from pricecache.metrics import Metrics
    from pricecache.portfolio.breakdown import Breakdowns
    from pricecache.portfolio.broker_intake import BrokerIntake
    from pricecache.portfolio.connections import Connections
    from pricecache.portfolio.history import Histories
    from pricecache.portfolio.importing import Importer
    from pricecache.portfolio.ledger import Ledgers
    from pricecache.portfolio.mapping import Mapper
    from pricecache.portfolio.materialiser import Materialiser
    from pricecache.portfolio.orders import Orders
    from pricecache.portfolio.price_origins import PriceOrigins
    from pricecache.portfolio.reconstruction_metrics import ReconstructionMetrics
    from pricecache.portfolio.reconstruction_queue import ReconstructionQueue
    from pricecache.portfolio.returns import Returns
    from pricecache.portfolio.sampler import Sampler
    from pricecache.portfolio.snapshots import Snapshots
    from pricecache.portfolio.summary import Summaries
    from pricecache.providers.chain import ProviderChain
    from pricecache.providers.pool import ProviderPool
    from pricecache.realtime.realtime import Realtime
    from pricecache.stores.bars import BarStore
    from pricecache.stores.history import HistoryStore
    from pricecache.stores.instruments import InstrumentStore
    from pricecache.stores.keys import KeyStore
    from pricecache.stores.portfolios import PortfolioStore
    from pricecache.stores.runs import RunStore
    from pricecache.stores.stream_events import StreamEventStore
    from pricecache.sync.backfill import Tracker
    from pricecache.sync.review import Reviewer
    from pricecache.sync.searching import ProviderSearch
    from pricecache.sync.streamfeed import StreamFeed


class Reconstructions(Protocol):
    """What is made of what brokers say."""

    @property
    def queue(self) -> ReconstructionQueue: ...
    @property
    def intake(self) -> BrokerIntake: ...
    @property
    def metrics(self) -> ReconstructionMetrics: ...


class Status(Protocol):
    """How the daemon as a whole is."""

    @property
    def is_ready(self) -> bool:
        """Whether every check is `ok`."""

    async def storage(self) -> Mapping[str, Any]:
        """Sizes of the database, for `/cache/status`: numbers by snake_case name, bytes ending in `_bytes`."""

    def checks(self) -> Mapping[str, str]:
        """What readiness depends on, by name: `ok`, or what is wrong."""


@dataclass(slots=True)
class Services:
    """The parts of one daemon as its API sees them."""

    clock: Clock
    catalog: Catalog
    calendars: CalendarBook
    live: LiveCache
    reader: Reader
    as_known: AsKnown
    intraday: IntradayReader
    wholeness: Wholeness
    bars: BarStore
    instruments: InstrumentStore
    jobs: Jobs
    runs: RunStore
    keys: KeyStore
    tracker: Tracker
    pools: Sequence[ProviderPool]
    chain: ProviderChain
    status: Status
    identity: Identity
    kept: KeptResponses
    metrics: Metrics
    search: ProviderSearch
    review: Reviewer
    portfolios: PortfolioStore
    ledgers: Ledgers
    orders: Orders
    stream_events: StreamEventStore
    histories: Histories
    price_origins: PriceOrigins
    imports: Importer
    pages: PageCache
    materialiser: Materialiser
    sampler: Sampler
    stored_histories: HistoryStore
    returns: Returns
    summaries: Summaries
    breakdowns: Breakdowns
    realtime: Realtime
    streams: Streams
    connections: Connections
    mapper: Mapper
    reconstructions: Reconstructions
    snapshots: Snapshots
    uploads: UploadGate = field(default_factory=UploadGate)
    stream: StreamFeed | None = None
