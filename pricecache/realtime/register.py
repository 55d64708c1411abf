"""Who listens to what: topics made for the first listener and dropped with the last, found by portfolio and symbol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from pricecache.core.stream_events import EventsPage
from pricecache.realtime.connection import Connection, Topic
from pricecache.realtime.topics import Event, ListenedPortfolio, PortfolioTopic, PriceTopic


class PortfolioState(Protocol):
    """A portfolio as it is: see `hub.PortfolioState`."""

    @property
    def epoch(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def values(self) -> Mapping[str, dict[str, Any]]: ...
    @property
    def holdings(self) -> frozenset[str]: ...


class Feeds(Protocol):
    """Where the stream's content comes from."""

    async def snapshot(self, portfolio_id: str) -> PortfolioState:
        """Everything that holds now, nothing older than what was published before the call."""

    async def events_after(self, portfolio_id: str, seq: int) -> EventsPage:
        """The stored events after number `seq`, the first of them when there are many."""

    def listened(self, portfolio_id: str) -> None:
        """Somebody listens to a portfolio that nobody listened to: publish its values from now on."""

    def unlistened(self, portfolio_id: str) -> None:
        """Nobody listens to it any more."""


class Register:
    """Topics and their members. Loop-only."""

    def __init__(self, feeds: Feeds, quotes: Callable[[Iterable[str]], Mapping[str, Event]]) -> None:
        self._feeds = feeds
        self._quotes = quotes
        self._of_symbols: dict[frozenset[str], PriceTopic] = {}
        self.portfolios: dict[str, ListenedPortfolio] = {}
        self.by_symbol: dict[str, dict[PriceTopic, None]] = {}
        self.latest_prices: dict[str, Event] = {}
        """The last price published of each instrument that somebody listens to."""

    # ---- portfolios

    def listen(self, portfolio_id: str) -> ListenedPortfolio:
        """The portfolio, kept at least until `release` is called as often as this."""
        portfolio = self.portfolios.get(portfolio_id)
        if portfolio is None:
            portfolio = self.portfolios[portfolio_id] = ListenedPortfolio(portfolio_id)
            self._feeds.listened(portfolio_id)
        portfolio.joining += 1
        return portfolio

    def release(self, portfolio: ListenedPortfolio) -> None:
        portfolio.joining -= 1
        self._forget_unwanted(portfolio)

    def hold(self, portfolio: ListenedPortfolio, holdings: frozenset[str]) -> None:
        """Its holdings are these now. Values of positions it has no longer are forgotten."""
        gone, new = portfolio.holdings - holdings, holdings - portfolio.holdings
        portfolio.holdings = holdings
        for key in gone:
            if portfolio.values.pop(f"position:{key}", None) is not None:
                portfolio.version += 1
            portfolio.changed.pop(f"position:{key}", None)
        if portfolio.prices is not None:
            self._unindex(portfolio.prices, gone)
            self._index(portfolio.prices, new)

    # ---- members

    def enter(self, connection: Connection, portfolio: ListenedPortfolio, mask: int) -> PortfolioTopic:
        """Make the connection a member of the topic of these channels."""
        topic = next((topic for topic in portfolio.topics if topic.mask == mask), None)
        if topic is None:
            topic = PortfolioTopic(portfolio, mask)
            portfolio.topics += (topic,)
        self._join(connection, topic)
        return topic

    def enter_holdings(self, connection: Connection, portfolio: ListenedPortfolio) -> PriceTopic:
        topic = portfolio.prices
        if topic is None:
            topic = portfolio.prices = PriceTopic(frozenset(), portfolio)
            self._index(topic, portfolio.holdings)
        self._join(connection, topic)
        return topic

    def enter_symbols(self, connection: Connection, symbols: frozenset[str]) -> PriceTopic:
        topic = self._of_symbols.get(symbols)
        if topic is None:
            topic = self._of_symbols[symbols] = PriceTopic(symbols)
            self._index(topic, symbols)
        self._join(connection, topic)
        return topic

    def leave(self, connection: Connection, topic: Topic) -> Any:
        """End a membership. Gives what the connection lacked of the topic, None when it was in step."""
        connection.topics = tuple(one for one in connection.topics if one is not topic)
        topic.discard(connection)
        connection.settle()
        if not len(topic):
            self._drop(topic)
        return None if connection.dirty is None else connection.dirty.pop(topic, None)

    def prices_of(self, symbols: Iterable[str]) -> dict[str, Event]:
        """The latest prices there are of these instruments."""
        symbols = list(symbols)
        published = {key: self.latest_prices[key] for key in symbols if key in self.latest_prices}
        return {**self._quotes([key for key in symbols if key not in published]), **published}

    def _join(self, connection: Connection, topic: Topic) -> None:
        if topic not in connection.topics:
            connection.topics += (topic,)
        connection.settle()

    def _drop(self, topic: Topic) -> None:
        if isinstance(topic, PriceTopic):
            self._unindex(topic, topic.symbols)
            if topic.portfolio is None:
                self._of_symbols.pop(topic.symbols, None)
                return
            topic.portfolio.prices = None
            self._forget_unwanted(topic.portfolio)
        elif isinstance(topic, PortfolioTopic):
            portfolio = topic.portfolio
            portfolio.topics = tuple(one for one in portfolio.topics if one is not topic)
            self._forget_unwanted(portfolio)

    def _forget_unwanted(self, portfolio: ListenedPortfolio) -> None:
        if not portfolio.is_wanted and self.portfolios.get(portfolio.id) is portfolio:
            del self.portfolios[portfolio.id]
            self._feeds.unlistened(portfolio.id)

    def _index(self, topic: PriceTopic, symbols: Iterable[str]) -> None:
        for key in symbols:
            self.by_symbol.setdefault(key, {})[topic] = None

    def _unindex(self, topic: PriceTopic, symbols: Iterable[str]) -> None:
        for key in symbols:
            listening = self.by_symbol.get(key, {})
            listening.pop(topic, None)
            if not listening and key in self.by_symbol:
                del self.by_symbol[key]
                self.latest_prices.pop(key, None)


def topics_of(connection: Connection, portfolio_id: str) -> tuple[PortfolioTopic | None, PriceTopic | None]:
    """What a connection listens to of one portfolio: its channels, and the prices of what it holds."""
    channels, prices = None, None
    for topic in connection.topics:
        if isinstance(topic, PortfolioTopic) and topic.portfolio.id == portfolio_id:
            channels = topic
        elif isinstance(topic, PriceTopic) and topic.portfolio is not None and topic.portfolio.id == portfolio_id:
            prices = topic
    return channels, prices


def symbols_topic(connection: Connection) -> PriceTopic | None:
    """The topic of the instruments that a connection named, if it named any."""
    return next((t for t in connection.topics if isinstance(t, PriceTopic) and t.portfolio is None), None)
