"""How all rows that a connection has put into a ledger are taken out of it."""

from __future__ import annotations

from pricecache.errors import NotFound
from pricecache.portfolio.broker_rows import exchange, prefix_of
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.planning import LedgerView, Plan
from pricecache.stores.commits import pause
from pricecache.stores.connection_documents import Connection
from pricecache.stores.ids import new_id
from pricecache.stores.ledger import RACES, LedgerMoved, gave_up
from pricecache.stores.portfolios import PortfolioStore


async def delete_rows(ledgers: Ledgers, portfolios: PortfolioStore, connection: Connection, by: str) -> int:
    """Take out all rows of a connection, in one step, and count them; 0 where its portfolio is gone. Raises `Invalid`
    when what is left cannot be, such as a sale of what only they bring."""
    prefix, tried = prefix_of(connection.id), [0]

    def make(view: LedgerView, accounts: set[str]) -> Plan:
        planned = exchange(view, prefix, (), (), now=0.0)
        tried.append(len(planned.change.deleted))
        return planned

    assert connection.portfolio is not None
    for attempt in range(RACES):
        change_id = new_id()
        try:
            portfolio = await portfolios.get(connection.user, connection.portfolio)
        except NotFound:
            return 0
        try:
            await ledgers.attempt(portfolio, make, by, change_id, tried[-1])
            return max(tried)
        except LedgerMoved:
            await pause(attempt)
            await ledgers.tell_of(portfolio.id, change_id)
    raise gave_up()
