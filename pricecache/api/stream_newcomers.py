"""Connections that hear all portfolios of their user, and the portfolios that are made meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from pymongo.errors import PyMongoError

from pricecache.background import cancelled
from pricecache.clock import Clock
from pricecache.errors import PricecacheError
from pricecache.realtime.connection import Connection

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 1.0


class Host(Protocol):
    """Who acts on a user's behalf: see `stream_talk.Talk`."""

    user: str

    async def portfolios(self, named: Sequence[str]) -> list[str]:
        """All of the user's without names."""

    async def welcome(self, connection: Connection, portfolio_ids: Iterable[str], channels: Iterable[str]) -> None:
        """Let it hear these too."""


@dataclass(slots=True, eq=False)
class _Follower:
    """`channels`: which of all portfolios; `known`: those it was told of or is about to be; `coming`: of them the ones
    it is not yet. `lock`: who changes what it hears holds it, since a newcomer may come at any moment."""

    host: Host
    channels: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    coming: list[str] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Newcomers:
    """Loop-only. `count`: how often this daemon heard of a new portfolio; who reads a list takes it before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_user: dict[str, dict[Connection, _Follower]] = {}
        self._doubted: dict[str, None] = {}
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.count = 0

    # ---- who follows

    def follow(
        self, connection: Connection, host: Host, channels: Iterable[str], known: Iterable[str], count: int
    ) -> set[str]:
        """Let it hear `channels` of what its user makes from now on. `known`: the user's portfolios, read when `count`
        was this. Gives all channels that it follows so."""
        followers = self._by_user.setdefault(host.user, {})
        found = followers.setdefault(connection, _Follower(host))
        found.channels.update(channels)
        found.known.update(known)
        if count != self.count:
            self._look_at([host.user])
        return found.channels

    def narrow(self, connection: Connection, channels: Collection[str] | None) -> None:
        """Of what its user makes it hears these channels no more; None: nothing."""
        found = self._of(connection)
        if found is not None:
            found.channels.difference_update(found.channels if channels is None else channels)
            if not found.channels:
                self.forget(connection)

    def forget(self, connection: Connection) -> None:
        followers = self._by_user.get(connection.user, {})
        if followers.pop(connection, None) is not None and not followers:
            del self._by_user[connection.user]

    def alone(self, connection: Connection) -> AbstractAsyncContextManager[Any]:
        """While this is entered no newcomer changes what it hears."""
        found = self._of(connection)
        return nullcontext() if found is None else found.lock

    def _of(self, connection: Connection) -> _Follower | None:
        return self._by_user.get(connection.user, {}).get(connection)

    # ---- what is made

    def created(self, user: str, portfolio_id: str) -> None:
        """A user has a new portfolio. May be told more than once."""
        self.count += 1
        self._announce(user, [portfolio_id])

    def look_again(self) -> None:
        """Portfolios may have been made that nobody told of. Returns at once."""
        self._look_at(self._by_user)

    async def close(self) -> None:
        await cancelled(list(self._tasks))

    def _announce(self, user: str, portfolio_ids: Iterable[str]) -> None:
        for connection, follower in self._by_user.get(user, {}).items():
            new = [one for one in portfolio_ids if one not in follower.known]
            is_idle = not follower.coming
            follower.known.update(new)
            follower.coming.extend(new)
            if new and is_idle:
                self._start(self._welcome(connection, follower), f"stream-newcomers-{id(connection)}")

    async def _welcome(self, connection: Connection, follower: _Follower) -> None:
        try:
            async with follower.lock:
                coming, follower.coming = follower.coming, []
                if self._of(connection) is follower:
                    await follower.host.welcome(connection, coming, follower.channels)
        except ConnectionError:
            pass

    def _look_at(self, users: Iterable[str]) -> None:
        self._doubted.update(dict.fromkeys(users))
        if self._doubted and (self._looking is None or self._looking.done()):
            self._looking = self._start(self._look(), "stream-newcomers")

    async def _look(self) -> None:
        while self._doubted:
            user = next(iter(self._doubted))
            del self._doubted[user]
            host = next((follower.host for follower in self._by_user.get(user, {}).values()), None)
            if host is None:
                continue
            try:
                self._announce(user, await host.portfolios([]))
            except (PricecacheError, PyMongoError, TimeoutError) as exc:
                log.debug("portfolios of a user not listed", error=str(exc))
                self._doubted[user] = None
                await self._clock.sleep(_AGAIN_SECONDS)

    def _start(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
