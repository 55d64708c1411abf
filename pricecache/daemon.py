"""One daemon: its parts started in order, what goes on beside them, and all of it ended, last first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from typing import Any

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache import __version__, garbage, logs
from pricecache.api.auth import check_exposure
from pricecache.api.server import FrontDoor
from pricecache.background import BackgroundTasks, cancelled
from pricecache.cache.wholeness import ROW_SECONDS, Wholeness
from pricecache.clock import Clock, SystemClock
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook
from pricecache.core.updates import QueueStats
from pricecache.errors import Invalid, Misconfigured, PricecacheError
from pricecache.loopwatch import LoopWatch
from pricecache.metrics import Metrics
from pricecache.parts.whole import Parts
from pricecache.providers.pool import ProviderPool
from pricecache.settings import Settings, named_settings, unknown_settings
from pricecache.stores.client import connect, prepare, wait_until_writable
from pricecache.stores.embedded import PrivateMongod
from pricecache.stores.provider_accounts import ProviderAccounts
from pricecache.stores.quarantine import QuarantineStore
from pricecache.vendors import chain_of

log = structlog.get_logger(__name__)

LOOK_AGAIN_SECONDS = 2.0
LAG_SECONDS = 0.005
"""How often the lag of the loop is taken: half a per cent of a processor, and no stall of 30 ms is missed."""


class Daemon:
    """One daemon, from its settings to its end. Loop-only.

    `door` listens already, or is opened once it is known that somebody has a key. `mongod` is the private server,
    started already, or None with a server of the user's own. Raises `Misconfigured`.
    """

    def __init__(self, settings: Settings, door: FrontDoor, mongod: PrivateMongod | None) -> None:
        logs.configure(settings.log_level, settings.log_format)
        self._settings = settings
        self._door = door
        self._mongod = mongod
        for name, meant in unknown_settings(named_settings()).items():
            log.warning("unknown setting", name=name, did_you_mean=meant)
        self._symbols = _symbols(settings)
        self.clock = SystemClock()
        self.metrics = Metrics(__version__)
        self.background = BackgroundTasks()
        self.book = CalendarBook()
        self.accounts = ProviderAccounts(self.clock)
        self.chain = chain_of(
            settings, self.clock, self.book, self.accounts, lambda name: _observer(name, self.metrics)
        )
        self.loop_watch = LoopWatch(self.clock, self.metrics.event_loop_lag.observe, interval=LAG_SECONDS)

    @property
    def url(self) -> str:
        host = f"[{self._door.host}]" if ":" in self._door.host else self._door.host
        return f"http://{host}:{self._door.port}"

    async def run(self, stop: asyncio.Event) -> int:
        """Start, serve until `stop` is set, stop; the exit code."""
        stopping = asyncio.create_task(stop.wait(), name="stop")
        # each step of the start names what ends it; all of that is done, last first, whatever becomes of the others
        async with AsyncExitStack() as ending:
            ending.callback(log.info, "daemon has stopped")
            ending.push_async_callback(cancelled, [stopping])
            self.loop_watch.start()
            ending.callback(self.loop_watch.stop)
            ending.push_async_callback(self.chain.close)
            starting = asyncio.create_task(self._start(ending), name="start")
            try:
                await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    await cancelled([starting])
                with suppress(asyncio.CancelledError):
                    starting.result()
                await stopping
            finally:
                self._door.drain()
        return 0

    async def _start(self, ending: AsyncExitStack) -> None:
        database = await self._database(ending)
        await self.accounts.open(database)
        ending.push_async_callback(self.accounts.close)
        ending.push_async_callback(self.chain.close)  # before the accounts, which its last calls are noted in
        parts = Parts(self._settings, database, self.clock, self.book, self.chain, self.metrics, self.background)
        ending.push_async_callback(parts.realtime.ranges.save)
        for part in (
            *(
                parts.prices.calendars,
                parts.prices.columns,
                parts.api.identity,
                parts.prices.samples,
                parts.prices.publisher,
            ),
            parts.connections,
        ):
            ending.push_async_callback(part.close)
        ending.push_async_callback(self.background.end)
        await parts.load()
        self._read_metrics(parts)
        garbage.exempt_what_is_there()
        await self._open_door(parts, ending)
        log.info("daemon is ready", url=self.url, symbols=len(parts.prices.catalog), version=__version__)
        self._start_background(parts)
        await parts.prices.jobs.start()
        if self._symbols:
            await parts.prices.tracker.track(
                [parts.prices.catalog.present(symbol) for symbol in self._symbols], "settings"
            )

    async def _database(self, ending: AsyncExitStack) -> AsyncDatabase[dict[str, Any]]:
        self._door.checks = {"mongodb": "starting"}
        if self._mongod is not None:
            uri = await self._mongod.ready()
        else:
            assert self._settings.mongodb_uri is not None
            uri = self._settings.mongodb_uri.get_secret_value()
            self._door.checks = {"mongodb": "waiting for the server"}
        client = connect(uri)
        ending.push_async_callback(client.close)
        await wait_until_writable(client, self.clock)
        database = client[self._settings.mongodb_database]
        await prepare(database)
        return database

    async def _open_door(self, parts: Parts, ending: AsyncExitStack) -> None:
        ending.push_async_callback(parts.prices.bars.drain)
        ending.push_async_callback(parts.api.dispatcher.close)
        ending.push_async_callback(self._door.stop, self._settings.request_seconds)
        ending.push_async_callback(parts.prices.jobs.stop)
        ending.push_async_callback(parts.reconstructions.queue.stop)  # before the jobs, which it waits for
        ending.push_async_callback(parts.api.streams.close)  # else the door would wait for streams, which never end
        self._door.open(parts.api.dispatcher)
        if not self._door.is_listening:
            check_exposure(self._settings.host, bool(await parts.api.keys.load_keys()))
            await self._door.start()

    def _start_background(self, parts: Parts) -> None:
        self.background.start(parts.health.keep_pinging(), "ping")
        self.background.start(parts.prices.calendars.maintain(), "calendars")
        self.background.start(self.accounts.keep(), "accounts")
        self.background.start(parts.prices.samples.run(), "samples")
        if parts.prices.stream is not None:
            self.background.start(parts.prices.stream.run(), "stream")
        if self._settings.enable_realtime_portfolio:
            self.background.start(parts.realtime.follower.run(), "live-values")
            self.background.start(parts.realtime.ranges.run(), "day-ranges")
            self.background.start(parts.realtime.bar_prices.run(), "bar-prices")
            self.background.start(parts.realtime.tracking.run(), "live-tracking")
            self.background.start(parts.realtime.hub.run(), "realtime")
            self.background.start(parts.realtime.hub.watch(), "realtime-heartbeat")
            self.background.start(parts.api.streams.keep_checking(), "realtime-access")
        self.background.start(_keep_looking(parts.prices.wholeness, parts.prices.quarantine, self.clock), "coverage")
        if (fetcher := parts.connections.fetcher) is not None:
            self.background.start(fetcher.soon.run(), "broker-fetches")
        self.background.start(parts.reconstructions.queue.run(), "reconstructions")
        self.background.start(parts.reconstructions.remapping.run(), "remapping")
        self.background.start(parts.reconstructions.rewalking.run(), "rewalking")
        if self._settings.use_materialized:
            self.background.start(parts.portfolio.materialiser.run(), "histories")
            self.background.start(parts.portfolio.sampler.run(), "sampler")
        if self._mongod is None:
            self.background.start(parts.prices.watcher.run(), "watch")

    def _read_metrics(self, parts: Parts) -> None:
        read = self.metrics.read
        read("pricecache_ready", lambda: float(parts.health.is_ready))
        read("pricecache_coverage_ratio", lambda: _nan_if_none(parts.prices.wholeness.total.ratio))
        read("pricecache_quarantine_parked", lambda: float(parts.prices.quarantine.parked))
        read(
            "pricecache_divergences",
            lambda: float(sum(len(e.state.divergences) for e in parts.prices.catalog.tracked())),
        )
        read("pricecache_symbols_tracked", lambda: float(len(parts.prices.catalog.tracked())))
        read("pricecache_live_cache_quotes", lambda: float(len(parts.prices.live)))
        read("pricecache_column_cache_bytes", lambda: float(parts.prices.columns.nbytes))
        read("pricecache_column_cache_hits_total", lambda: float(parts.prices.columns.hits))
        read("pricecache_column_cache_misses_total", lambda: float(parts.prices.columns.misses))
        read("pricecache_historical_hits_total", lambda: float(parts.prices.reader.hits))
        read("pricecache_historical_misses_total", lambda: float(parts.prices.reader.misses))
        read("pricecache_samples_stored_total", lambda: float(parts.prices.samples.stored))
        read("pricecache_samples_dropped_total", lambda: float(parts.prices.samples.dropped))
        read("pricecache_samples_pending", lambda: float(parts.prices.samples.pending))
        read("pricecache_mongod_restarts_total", lambda: float(self._mongod.restarts if self._mongod else 0))
        if (stream := parts.prices.stream) is not None:
            read("pricecache_stream_connected", lambda: float(stream.connected))
            read("pricecache_stream_messages_total", lambda: float(stream.messages))
            read("pricecache_stream_reconnects_total", lambda: float(stream.reconnects))
        queue = parts.reconstructions.queue
        read("pricecache_reconstructions_running", lambda: float(queue.running))
        read("pricecache_reconstructions_pending", lambda: float(queue.pending))
        read("pricecache_reconstructions_done_total", lambda: float(queue.done))
        read("pricecache_reconstructions_failed_total", lambda: float(queue.failed))
        read("pricecache_reconstructions_retried_total", lambda: float(queue.retried))
        self._read_update_metrics(parts)
        self._read_stream_metrics(parts)
        read("pricecache_history_cache_bytes", lambda: float(parts.portfolio.wholes.nbytes))
        read("pricecache_history_days_computed_total", lambda: float(parts.portfolio.wholes.computed_days))
        read("pricecache_history_stored_total", lambda: float(parts.portfolio.materialiser.stats.stored))
        read("pricecache_history_store_failures_total", lambda: float(parts.portfolio.materialiser.stats.failed))
        read("pricecache_history_sampled_total", lambda: float(parts.portfolio.sampler.sampled))
        read("pricecache_history_drift_total", lambda: float(parts.portfolio.sampler.drifted))
        read("pricecache_event_loop_lag_max_seconds", self.loop_watch.recent_worst)
        pools, now = self.chain.pools, self.clock.time
        by_provider = self.metrics.read_by_provider
        by_provider("pricecache_provider_spend_dollars_total", lambda: {p.name: p.account.dollars for p in pools})
        by_provider("pricecache_provider_budget_remaining", lambda: _remaining(pools, now()))
        by_provider(
            "pricecache_provider_breaker_open",
            lambda: {p.name: float(p.account.breaker(now()) != "closed") for p in pools},
        )

    def _read_update_metrics(self, parts: Parts) -> None:
        read, follower, now = self.metrics.read, parts.realtime.follower, self.clock.monotonic

        def queue() -> QueueStats:
            return follower.queue.stats(now())

        read("pricecache_realtime_updates_pending", lambda: float(queue().pending + follower.waiting))
        read("pricecache_realtime_updates_oldest_seconds", lambda: queue().oldest_waiting_seconds)
        read("pricecache_realtime_updates_computed_total", lambda: float(queue().computed))
        read("pricecache_realtime_updates_deferred_total", lambda: float(queue().deferred))
        read("pricecache_realtime_updates_failed_total", lambda: float(queue().put_back))
        read("pricecache_realtime_followed_portfolios", lambda: float(len(follower)))

    def _read_stream_metrics(self, parts: Parts) -> None:
        read, hub, stats, limit = (
            self.metrics.read,
            parts.realtime.hub,
            parts.realtime.hub.stats,
            parts.api.streams.most,
        )
        read("pricecache_realtime_enabled", lambda: float(parts.api.streams.enabled))
        read("pricecache_realtime_connections", lambda: float(stats.connections))
        read("pricecache_realtime_connections_limit", lambda: float(limit))
        read("pricecache_realtime_connections_behind", lambda: float(hub.behind))
        read("pricecache_realtime_connections_opened_total", lambda: float(sum(stats.opened.values())))
        read("pricecache_realtime_connections_closed_total", lambda: float(sum(stats.closed.values())))
        read("pricecache_realtime_slow_dropped_total", lambda: float(stats.dropped_slow))
        read("pricecache_realtime_events_total", lambda: float(stats.events))
        read("pricecache_realtime_events_expected_total", lambda: float(stats.expected))
        read("pricecache_realtime_messages_total", lambda: float(stats.messages))
        read("pricecache_realtime_failures_total", lambda: float(stats.failures))
        read("pricecache_realtime_frames_total", lambda: float(stats.frames))
        read("pricecache_realtime_sent_bytes_total", lambda: float(stats.bytes))
        read("pricecache_realtime_batch_efficiency", lambda: _nan_if_none(stats.batch_efficiency))
        read("pricecache_realtime_window_seconds", lambda: hub.window)
        read("pricecache_realtime_latency_p95_seconds", lambda: _nan_if_none(stats.latency.p95))


async def _keep_looking(wholeness: Wholeness, quarantine: QuarantineStore, clock: Clock) -> None:
    """Keep the coverage of everything current for the metrics, whoever asks for it, and the number of items parked."""
    while True:
        try:
            await wholeness.look()
            await quarantine.count()
        except (PyMongoError, PricecacheError) as exc:
            # told already: the database that is away by whoever pings it, a corrupt series by whoever read it
            log.debug("coverage could not be looked at", error=str(exc))
        await clock.sleep(ROW_SECONDS if wholeness.total.expected else LOOK_AGAIN_SECONDS)


def _observer(provider: str, metrics: Metrics) -> Callable[[str], None]:
    is_loaded = False

    def ended(outcome: str) -> None:
        nonlocal is_loaded
        if not is_loaded:
            is_loaded = True
            garbage.exempt_what_is_there()  # the first call has loaded the vendor's library
        metrics.provider_attempts.labels(provider, outcome).inc()

    return ended


def _remaining(pools: Iterable[ProviderPool], now: float) -> dict[str, float]:
    left = {pool.name: pool.account.remaining(pool.pace, "live", now) for pool in pools}
    return {name: float(requests) for name, requests in left.items() if requests is not None}


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else value


def _symbols(settings: Settings) -> list[Instrument]:
    try:
        return [Instrument.parse(text) for text in settings.symbols]
    except Invalid as exc:
        raise Misconfigured(f"PRICECACHE_SYMBOLS: {exc.detail}", code="bad_symbols") from exc
