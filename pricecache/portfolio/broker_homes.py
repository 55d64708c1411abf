"""Where the rows of a connection go: a portfolio, made where none is named, and an account for each of the broker's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pricecache.clock import Clock
from pricecache.core.broker.data import BrokerAccount
from pricecache.core.portfolios import Portfolio
from pricecache.errors import Conflict, NotFound
from pricecache.stores.commits import pause
from pricecache.stores.connection_documents import Connection
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.ids import new_id
from pricecache.stores.ledger import RACES, LedgerMoved, gave_up
from pricecache.stores.portfolios import PortfolioStore

NAME = "Connected accounts"
_GONE = "portfolio_gone"
TIME_ZONES = {"USD": "America/New_York"}
"""Where the days of a portfolio in this currency begin and end, when it is made for a connection; else UTC."""


class BrokerHomes:
    """Loop-only. `on_created` is told owner and id of each portfolio made here.

    Every id is noted in the connection before there is anything under it, or in one step with it: who is killed in
    between leaves nothing twice and nothing behind.
    """

    def __init__(self, connections: ConnectionStore, portfolios: PortfolioStore, clock: Clock) -> None:
        self._connections = connections
        self._portfolios = portfolios
        self._clock = clock
        self.on_created: Callable[[str, str], object] = lambda owner, portfolio_id: None

    async def settle(
        self,
        connection: Connection,
        accounts: Iterable[BrokerAccount],
        *,
        name: str | None = None,
        anew: bool = False,
    ) -> tuple[Connection, Portfolio]:
        """The connection with an account of the ledger for each of `accounts`, and its portfolio.

        `name`: of the portfolio, if one is made. `anew`: make another one when it was deleted, else `Conflict` with
        code `portfolio_gone` is raised. Raises `NotFound` when the connection goes meanwhile.
        """
        accounts = list(accounts)
        for attempt in range(RACES):
            try:
                found = await self._housed(connection, anew)
                if found is None:
                    return await self._made(connection, accounts, name)
                connection = await self._noted(connection, found, accounts)
            except (Conflict, LedgerMoved) as exc:
                if isinstance(exc, Conflict) and exc.code != "connection_changed":
                    raise
                await pause(attempt)
                connection = await self._connections.get(connection.user, connection.id)
                continue
            await self._make_accounts(connection, found, accounts)
            return connection, found
        raise gave_up()

    async def require(self, connection: Connection) -> None:
        """Raises `Conflict` with code `portfolio_gone` when its portfolio was deleted."""
        if connection.portfolio is None or not connection.accounts:
            return  # it is made yet
        try:
            await self._portfolios.get(connection.user, connection.portfolio)
        except NotFound as exc:
            raise _gone() from exc

    async def anew(self, connection: Connection) -> Connection:
        """The connection, to have another portfolio made for it when its own was deleted, and to be fetched again.
        Raises `Conflict` with code `connection_changed` when it was changed meanwhile."""
        try:
            await self.require(connection)
        except Conflict as exc:
            if exc.code != _GONE:
                raise
            connection = await self._connections.settle(connection, new_id(), {})
            await self._connections.want(connection.id, self._clock.time())
        return connection

    async def _housed(self, connection: Connection, anew: bool) -> Portfolio | None:
        """Its portfolio, None where one is to be made."""
        if connection.portfolio is None:
            return None
        try:
            return await self._portfolios.get(connection.user, connection.portfolio)
        except NotFound as exc:
            if connection.accounts and not anew:
                raise _gone() from exc
        return None

    async def _made(
        self, connection: Connection, accounts: list[BrokerAccount], name: str | None
    ) -> tuple[Connection, Portfolio]:
        """In one step with its accounts, and with what the connection says of both."""
        facts, own = portfolio_facts(accounts, name), {one.id: new_id() for one in accounts}
        # one that was deleted is not to come back under its id
        new = connection.portfolio if connection.portfolio is not None and not connection.accounts else new_id()
        noting = self._connections.settling(connection, new, own)
        of_each = {own[one.id]: _account_facts(one) for one in accounts}
        made = await self._portfolios.create_with(connection.user, facts, self._clock.time(), new, of_each, noting)
        self.on_created(connection.user, new)
        return replace(connection, portfolio=new, accounts=own), made

    async def _noted(self, connection: Connection, portfolio: Portfolio, accounts: list[BrokerAccount]) -> Connection:
        missing = [one.id for one in accounts if one.id not in connection.accounts]
        if not missing:
            return connection
        noted = {**connection.accounts, **{one: new_id() for one in missing}}
        return await self._connections.settle(connection, portfolio.id, noted)

    async def _make_accounts(self, connection: Connection, portfolio: Portfolio, accounts: list[BrokerAccount]) -> None:
        there = {one.id for one in await self._portfolios.accounts(portfolio.id)}
        missing = {own: _account_facts(one) for one in accounts if (own := connection.accounts[one.id]) not in there}
        if missing:
            await self._portfolios.create_accounts(portfolio, missing, self._clock.time())


def _gone() -> Conflict:
    return Conflict("The portfolio of this connection was deleted.", code=_GONE)


def _account_facts(one: BrokerAccount) -> dict[str, Any]:
    return {"name": one.name, "institution": one.institution, "kind": one.kind, "isArchived": False}


def portfolio_facts(accounts: Iterable[BrokerAccount], name: str | None = None) -> dict[str, Any]:
    """The stored fields of a portfolio for these accounts: in the currency of most of them, with a balance of cash."""
    accounts = list(accounts)
    institutions = {one.institution for one in accounts}
    one_name = institutions.pop() if len(institutions) == 1 else None
    most = Counter(one.currency for one in accounts).most_common(1)
    currency = most[0][0] if most else "USD"
    return {
        "name": name or one_name or NAME,
        "baseCurrency": currency,
        "costBasis": "fifo",
        "cashTracking": True,
        "feesInCost": True,
        "allowShort": False,
        "quantityBasis": "asTraded",
        "timeZone": TIME_ZONES.get(currency, "UTC"),
        "isArchived": False,
    }
