"""The daemon's own door, access and hub in a thread, with portfolios whose events and values a test makes up."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from pricecache.clock import SystemClock
from pricecache.stores.client import connect, prepare
from tests.fakes.loop_thread import LoopThread
from tests.feeds import MemoryFeeds, account, position
from tests.integration.api_daemon import ApiDaemon, api_daemon
from tests.mongod import TestMongod


class HubDaemon:
    """Use it as a context manager, from any thread. `portfolios`: ids of two, of user local or of `user`."""

    def __init__(self, mongod: TestMongod, database: str, **settings: Any) -> None:
        self.feeds = MemoryFeeds()
        self.portfolios: list[str] = []
        self._uri, self._database, self._settings = mongod.uri, database, settings
        self._thread = LoopThread("hub-daemon")
        self._stack = AsyncExitStack()
        self._api: ApiDaemon | None = None

    def __enter__(self) -> HubDaemon:
        self._thread.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.do(self._stack.aclose())
        self._thread.stop()

    @property
    def port(self) -> int:
        assert self._api is not None
        return self._api.door.port

    def call(self, method: str, target: str, **options: Any) -> Any:
        assert self._api is not None
        return self._thread.do(self._api.call(method, target, **options))[1]

    def make(self, **options: Any) -> str:
        """A new portfolio without anything in it."""
        made = self.call("POST", "/api/portfolios", json={"name": "p", "baseCurrency": "USD"}, **options)
        return str(made["id"])

    def delete(self, portfolio: str) -> None:
        self.call("DELETE", f"/api/portfolios/{portfolio}")

    def trade(self, portfolio: str) -> int:
        """A trade is stored and told of; its number."""
        return self._thread.do(self._trade(portfolio))

    def value(self, portfolio: str, value: float) -> None:
        self._thread.do(self._value(portfolio, value))

    async def _start(self) -> None:
        client = connect(self._uri)
        self._stack.push_async_callback(client.close)
        database = client[self._database]
        self._stack.push_async_callback(client.drop_database, self._database)
        await prepare(database)
        running = api_daemon(database, feeds=self.feeds, clock=SystemClock(), **self._settings)
        self._api = await self._stack.enter_async_context(running)

    async def _trade(self, portfolio: str) -> int:
        return self.feeds.happen(portfolio, symbol="AAPL", market="US").seq

    async def _value(self, portfolio: str, value: float) -> None:
        self.feeds.set(portfolio, {"account": account(value), "position:AAPL:US": position("AAPL", value, stale=False)})
