"""The parts that answer what portfolios were and are worth: ledgers, histories, stored ones, end-of-day snapshots."""

from __future__ import annotations

from pricecache.jobs import JobDefinition
from pricecache.parts.ground import MIB, UNEVENTFUL_RUNS_KEPT, Ground
from pricecache.parts.prices import PriceParts
from pricecache.portfolio.breakdown import Breakdowns
from pricecache.portfolio.history import Histories
from pricecache.portfolio.importing import Importer
from pricecache.portfolio.latest import LatestSessions
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.portfolio.materialiser import MATERIALIZE_JOB, Materialiser
from pricecache.portfolio.orders import Orders
from pricecache.portfolio.returns import Returns
from pricecache.portfolio.sampler import Sampler
from pricecache.portfolio.snapshot_capture import SNAPSHOT_JOB, SnapshotCapture
from pricecache.portfolio.snapshot_days import SNAPSHOT_AFTER_SECONDS, SNAPSHOT_CRON, SNAPSHOT_ZONE
from pricecache.portfolio.snapshot_members import MemberBuilder
from pricecache.portfolio.snapshots import Snapshots, SnapshotStats
from pricecache.portfolio.summary import Summaries
from pricecache.portfolio.wholes import Wholes
from pricecache.stores.history import HistoryStore
from pricecache.stores.ledger import LedgerStore
from pricecache.stores.orders import OrderStore
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.snapshots import SnapshotStore
from pricecache.stores.stream_events import StreamEventStore

MATERIALIZE_AFTER_SECONDS = 60.0
"""After the start, when the first sync has brought what was missing."""


class PortfolioParts:
    """Loop-only. `store`: of portfolios and their accounts."""

    def __init__(self, ground: Ground, prices: PriceParts) -> None:
        self._ground, self._prices = ground, prices
        self._make_ledgers()
        self._make_histories()
        self._make_materialiser()
        self._make_snapshots()

    def _make_ledgers(self) -> None:
        ground, prices = self._ground, self._prices
        database, lag = ground.database, ground.chain.final_lag
        self.markets = Markets(prices.catalog, prices.columns, ground.book, prices.live, ground.clock, lag)
        self.store = PortfolioStore(database, prices.heads)
        self.stream_events = StreamEventStore(database, ground.owner, ground.settings.stream_event_days)
        self._rows = LedgerStore(database, prices.heads, self.stream_events)
        self.ledgers = Ledgers(
            self._rows, self.store, prices.catalog, prices.instruments, prices.tracker, self.markets, ground.clock
        )
        self.orders = Orders(self.ledgers, OrderStore(database), self.store, prices.catalog, ground.clock)

    def _make_histories(self) -> None:
        ground, prices, settings = self._ground, self._prices, self._ground.settings
        self.stored_histories = HistoryStore(ground.database)
        self.wholes = Wholes(
            self.ledgers,
            self.markets,
            prices.heads,
            self.stored_histories if settings.use_materialized else None,
            ground.clock,
            int(settings.history_cache_mb * MIB),
        )
        self.histories = Histories(self.ledgers, self.markets, self.wholes)
        self.imports = Importer(self.ledgers, self.histories, self.markets)
        self.returns = Returns(self.ledgers, self.markets, self.wholes)
        self.latest = LatestSessions(prices.columns, ground.book, prices.live, ground.chain.final_lag)
        self.summaries = Summaries(self.ledgers, self.markets, self.wholes, prices.catalog, self.latest, ground.clock)
        self.breakdowns = Breakdowns(self.summaries, self.histories, self.markets)

    def _make_materialiser(self) -> None:
        stored, settings, clock = self.stored_histories, self._ground.settings, self._ground.clock
        self.materialiser = Materialiser(
            self.wholes, stored, self.store, self._rows, self.ledgers, self.markets, self._prices.heads, clock
        )
        self.sampler = Sampler(stored, self.store, self.ledgers, self.markets, self.wholes, clock)
        if not settings.use_materialized:
            return
        self.wholes.on_advanced = self.materialiser.want
        self._prices.jobs.define(
            JobDefinition(
                MATERIALIZE_JOB,
                self.materialiser.run_job,
                every=settings.materialize_seconds,
                first_after=min(MATERIALIZE_AFTER_SECONDS, settings.materialize_seconds),
                uneventful_kept_seconds=UNEVENTFUL_RUNS_KEPT * settings.materialize_seconds,
            )
        )

    def _make_snapshots(self) -> None:
        ground, catalog, journal = self._ground, self._prices.catalog, self._prices.bars.journal
        store = SnapshotStore(ground.database)
        builder = MemberBuilder(self.wholes, self.stored_histories, self.store, self.ledgers, catalog)
        self.snapshots = Snapshots(store, self.wholes)
        self.snapshot_capture = SnapshotCapture(
            store, builder, self.markets, catalog, ground.book, ground.clock, journal, self._extend_histories
        )
        self.snapshot_stats = SnapshotStats(store, ground.clock, self.snapshot_capture.days)
        self._prices.jobs.define(
            JobDefinition(
                SNAPSHOT_JOB,
                self.snapshot_capture.run_job,
                cron=SNAPSHOT_CRON,
                time_zone=SNAPSHOT_ZONE,
                first_after=SNAPSHOT_AFTER_SECONDS,
            )
        )

    async def _extend_histories(self) -> None:
        if self._ground.settings.use_materialized:
            await self._prices.jobs.run(MATERIALIZE_JOB, {}, SNAPSHOT_JOB)
