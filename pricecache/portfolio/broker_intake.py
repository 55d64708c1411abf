"""Takes what a user posts of a broker's: to whom it belongs, what is new of it, and the reconstruction asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import structlog

from pricecache.clock import Clock
from pricecache.core.broker.data import BrokerData
from pricecache.core.broker.merge import merged
from pricecache.core.portfolios import Portfolio
from pricecache.errors import Corrupt, NotFound, VersionMismatch
from pricecache.portfolio.broker_homes import BrokerHomes
from pricecache.portfolio.reconstruction_queue import ReconstructionQueue
from pricecache.portfolio.rewalking import Footings
from pricecache.portfolio.threads import aside, let_go
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.commits import pause
from pricecache.stores.connection_documents import Connection
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.ledger import RACES, gave_up
from pricecache.stores.reconstructions import ReconstructionRecord

log = structlog.get_logger(__name__)


PLAIDS = "plaid"
"""The source of Plaid's own JSON, whose ids are nobody else's."""
UNNAMED = "broker"
"""The source of what says none."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What somebody posted. `name`: of the source, whose accounts these are; `digest`: what it is known by, the same
    for the same payload of the same day."""

    data: BrokerData
    name: str
    digest: str

    @property
    def source(self) -> str:
        """What it goes by where nothing of its accounts is known yet."""
        return f"{self.name}/{min(self.data.accounts, default='')}"

    def is_more_of(self, connection: Connection) -> bool:
        """Whether it goes on with `connection`: it is of the same source, and names one of its accounts. One or the
        other alone says little, as many brokers have an account 1, and one may hold accounts apart."""
        if connection.provider != "posted" or not connection.accounts.keys() & self.data.accounts.keys():
            return False
        if connection.name is None:
            return (connection.source or "").startswith(f"{self.name}/")
        return connection.name == self.name


def scope_of(name: str) -> str:
    """Whose the ids of securities are that a source tells of."""
    return f"posted:{name}"


@dataclass(frozen=True, slots=True)
class Taken:
    """A reconstruction that was asked for. `is_unchanged`: what was posted is what the last one was made of, so nothing
    is done."""

    connection: Connection
    record: ReconstructionRecord
    is_unchanged: bool = False


class BrokerIntake:
    """Loop-only."""

    def __init__(
        self,
        connections: ConnectionStore,
        data: BrokerDataStore,
        homes: BrokerHomes,
        queue: ReconstructionQueue,
        footings: Footings,
        clock: Clock,
    ) -> None:
        self._connections = connections
        self._data = data
        self._homes = homes
        self._queue = queue
        self._footings = footings
        self._clock = clock

    async def post(
        self,
        user: str,
        posted: Posted,
        by: str,
        *,
        portfolio: Portfolio | None = None,
        name: str | None = None,
        force: bool = False,
    ) -> Taken:
        """Keep what was posted and ask for its reconstruction. What the same user posted before of the same source
        and accounts goes on in the same connection, and so does another post at once. `portfolio`: where it is to go,
        None: where it went before, or into one made for it and called `name`. `force`: do it though nothing changed.

        Raises `Conflict` with code `portfolio_gone` when `portfolio` is deleted meanwhile, `NotFound` when the
        connection is, and `Unavailable` with code `ledger_busy`."""
        connection = await self._connection(user, posted, portfolio)
        accounts = list(posted.data.accounts.values())
        connection, home = await self._homes.settle(connection, accounts, name=name, anew=portfolio is None)
        known = await self._queue.store.find(connection.id)
        is_known = known is not None and known.digest == posted.digest and known.portfolio == home.id and not force
        if is_known and known is not None and known.state == "done" and self._footings.hold(known):
            return Taken(connection, known, True)
        if not is_known or (known is not None and known.state == "failed"):  # perhaps of what is stored
            data = posted.data
            if posted.name == UNNAMED and connection.name is not None:
                data = await aside(len(data.securities), lambda: _of_connection(posted.data, connection.id))
            await self._keep(connection.id, data)
        record = await self._queue.request(connection.id, user, home.id, by, digest=posted.digest, force=force)
        return Taken(connection, record)

    async def again(self, user: str, connection_id: str, by: str) -> Taken:
        """Ask for one of what is known already. Raises `NotFound` with code `unknown_connection`, and `Conflict` with
        code `connection_changed` when it was changed meanwhile."""
        connection = await self._connections.get(user, connection_id)
        if connection.provider == "plaid":  # what is posted is posted again
            connection = await self._homes.anew(connection)
        return Taken(connection, await self._queue.request(connection.id, user, connection.portfolio, by))

    async def all_again(self, user: str, by: str, portfolio: Portfolio | None = None) -> Sequence[Taken]:
        """The same of all connections of the user, or those of a portfolio. Raises `NotFound` code `no_connection`."""
        found = await self._connections.all_of(user, None if portfolio is None else portfolio.id)
        if not found:
            raise NotFound("There is no connection to reconstruct from: post a payload.", code="no_connection")
        return [
            Taken(one, await self._queue.request(one.id, user, one.portfolio, by)) for one in found
        ]  # fmt: skip

    async def rules_changed(self, before: Portfolio, after: Portfolio, by: str) -> None:
        """Ask for those of `after` again where its rules say now that openings cost something else."""
        if replace(before.rules, allow_short=after.rules.allow_short) == after.rules:
            return
        for one in await self._connections.all_of(after.owner, after.id):
            if (record := await self._queue.store.find(one.id)) is not None:
                await self._queue.request(one.id, after.owner, after.id, by, digest=record.digest, force=True)

    async def _connection(self, user: str, posted: Posted, portfolio: Portfolio | None) -> Connection:
        place = None if portfolio is None else portfolio.id
        for one in await self._connections.all_of(user, place):
            if posted.is_more_of(one):
                return one
        now = self._clock.time()
        return await self._connections.create_posted(user, posted.source, place, now, name=posted.name)

    async def _keep(self, connection: str, data: BrokerData) -> None:
        for attempt in count():
            known, version = await self._known(connection)
            kept = data if known is None else await asyncio.to_thread(merged, known, data)
            received = self._connections.receiving(connection, self._clock.time(), kept.first_day)
            try:
                await self._data.save(connection, kept, version, received)
            except VersionMismatch:
                if attempt >= RACES:
                    raise gave_up() from None
                await pause(attempt)
                continue
            rows = [*(() if known is None else known.transactions), *kept.transactions]
            del known, kept
            await let_go(rows)
            return

    async def _known(self, connection: str) -> tuple[BrokerData | None, int]:
        """With its version, 0 where nothing is."""
        try:
            return await self._data.load(connection) or (None, 0)
        except Corrupt as exc:
            log.error("broker data cannot be read and is replaced", connection=connection, error=exc.detail)
            await self._data.delete(connection)
            return None, 0


def _of_connection(data: BrokerData, connection: str) -> BrokerData:
    """With ids of securities that are of this connection alone: two brokers without a name may both have a fund 1."""
    scope = scope_of(connection)
    return replace(data, securities={name: replace(one, scope=scope) for name, one in data.securities.items()})
