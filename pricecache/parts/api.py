"""The parts that answer requests: who asks, what is streamed, and the routes with all that they use."""

from __future__ import annotations

from pricecache.api.auth import Identity
from pricecache.api.dispatch import Dispatcher
from pricecache.api.history_pages import PageCache
from pricecache.api.kept import KeptResponses
from pricecache.api.origins import Origins, is_loopback
from pricecache.api.routes import ROUTES
from pricecache.api.services import Services
from pricecache.api.streams import Streams
from pricecache.api.tokens import TokenVerifier
from pricecache.health import Health
from pricecache.parts.ground import MIB, Ground
from pricecache.parts.portfolios import PortfolioParts
from pricecache.parts.prices import PriceParts
from pricecache.parts.reconstructions import Reconstructions
from pricecache.portfolio.connections import Connections
from pricecache.portfolio.mapping import Mapper
from pricecache.portfolio.price_origins import PriceOrigins
from pricecache.realtime.realtime import Realtime
from pricecache.stores.keys import KeyStore
from pricecache.stores.tickets import TicketStore
from pricecache.sync.review import Reviewer


class ApiParts:
    """Loop-only."""

    def __init__(
        self,
        ground: Ground,
        prices: PriceParts,
        portfolio: PortfolioParts,
        *,
        realtime: Realtime,
        connections: Connections,
        mapper: Mapper,
        reconstructions: Reconstructions,
        health: Health,
    ) -> None:
        self._ground, self._prices, self._portfolio, self._realtime = ground, prices, portfolio, realtime
        self.keys = KeyStore(ground.database)
        self.identity = self._identity()
        self.streams = self._streams()
        prices.watcher.on_portfolio_created = self.streams.newcomers.created
        prices.watcher.on_reopened = self._look_again
        reconstructions.homes.on_created = self.streams.newcomers.created
        self.services = self._services(connections, mapper, reconstructions, health)
        self.dispatcher = Dispatcher(
            ROUTES,
            self.services,
            request_seconds=ground.settings.request_seconds,
            body_seconds=ground.settings.request_seconds,
            max_body_bytes=ground.settings.max_body_kb * 1024,
        )

    def _look_again(self) -> None:
        """What others did may have gone unseen."""
        self._realtime.on_reopened()
        self.streams.newcomers.look_again()

    def _streams(self) -> Streams:
        settings = self._ground.settings
        return Streams(
            self._realtime.hub,
            self.identity,
            self._ground.clock,
            enabled=settings.enable_realtime_portfolio,
            percent=settings.realtime_percent,
            most=settings.stream_connections,
            most_of_user=settings.stream_connections_per_user,
        )

    def _identity(self) -> Identity:
        settings, clock, tokens = self._ground.settings, self._ground.clock, None
        if settings.jwt_secret is not None or settings.jwks_url is not None:
            secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else None
            tokens = TokenVerifier(clock, secret=secret, jwks_url=settings.jwks_url)
        return Identity(
            clock,
            keys=[key.get_secret_value() for key in settings.api_keys],
            tokens=tokens,
            store=self.keys,
            tickets=TicketStore(self._ground.database),
            origins=Origins(settings.allowed_origins),
            loopback=is_loopback(settings.host),
            session_hours=settings.session_hours,
        )

    def _services(
        self, connections: Connections, mapper: Mapper, reconstructions: Reconstructions, health: Health
    ) -> Services:
        ground, prices, portfolio = self._ground, self._prices, self._portfolio
        answers_kept = int(ground.settings.response_cache_mb * MIB)
        return Services(
            clock=ground.clock,
            catalog=prices.catalog,
            calendars=ground.book,
            live=prices.live,
            reader=prices.reader,
            as_known=prices.as_known,
            intraday=prices.intraday,
            wholeness=prices.wholeness,
            bars=prices.bars,
            instruments=prices.instruments,
            jobs=prices.jobs,
            runs=prices.runs,
            keys=self.keys,
            tracker=prices.tracker,
            stream=prices.stream,
            pools=ground.chain.pools,
            chain=ground.chain,
            status=health,
            identity=self.identity,
            kept=KeptResponses(answers_kept),
            metrics=ground.metrics,
            review=Reviewer(prices.catalog, prices.bars, prices.states, prices.quarantine, ground.clock),
            portfolios=portfolio.store,
            ledgers=portfolio.ledgers,
            orders=portfolio.orders,
            stream_events=portfolio.stream_events,
            histories=portfolio.histories,
            price_origins=PriceOrigins(prices.catalog, prices.bars, prices.live, ground.book),
            imports=portfolio.imports,
            pages=PageCache(answers_kept // 2),
            materialiser=portfolio.materialiser,
            sampler=portfolio.sampler,
            stored_histories=portfolio.stored_histories,
            returns=portfolio.returns,
            summaries=portfolio.summaries,
            breakdowns=portfolio.breakdowns,
            realtime=self._realtime,
            streams=self.streams,
            connections=connections,
            search=prices.search,
            mapper=mapper,
            reconstructions=reconstructions,
            snapshots=portfolio.snapshots,
        )
