"""The rows that a connection has put into a ledger, by their external ids, and how all of them are taken out."""

from __future__ import annotations

from pricecache.errors import NotFound
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.planning import LedgerView, Plan, affected_from
from pricecache.stores.commits import pause
from pricecache.stores.connections import Connection
from pricecache.stores.ids import new_id
from pricecache.stores.ledger import RACES, LedgerChange, LedgerMoved, gave_up
from pricecache.stores.portfolios import PortfolioStore


def prefix_of(connection_id: str) -> str:
    """What the external id of every row that a connection has made begins with."""
    return f"{connection_id}/"


async def delete_rows(ledgers: Ledgers, portfolios: PortfolioStore, connection: Connection, by: str) -> int:
    """Take out all rows of a connection, in one step, and count them; 0 where its portfolio is gone. Raises `Invalid`
    when what is left cannot be, such as a sale of what only they bring."""
    prefix, tried = prefix_of(connection.id), [0]

    def make(view: LedgerView, accounts: set[str]) -> Plan:
        rows = [row for row in view.rows if (row.transaction.external_id or "").startswith(prefix)]
        tried.append(len(rows))
        return Plan(LedgerChange(deleted=rows, affected_from=affected_from(rows)))

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
