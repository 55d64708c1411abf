"""What Plaid's webhooks change of a connection: when it is fetched, how its login stands, what its user has to do."""

from __future__ import annotations

from typing import Literal

from pricecache.brokers.plaid_errors import of_code
from pricecache.brokers.plaid_webhooks import Webhook
from pricecache.clock import Clock
from pricecache.errors import AccessRevoked, BrokerError, LoginRequired
from pricecache.portfolio.fetching import EXPIRES_SECONDS, Fetcher
from pricecache.stores.connection_documents import Connection, Notice
from pricecache.stores.connections import ConnectionStore

Outcome = Literal["fetching", "noted", "ignored"]

_ALL_THERE = ("INVESTMENTS_TRANSACTIONS", "HISTORICAL_UPDATE")
_CHANGED = frozenset({("INVESTMENTS_TRANSACTIONS", "DEFAULT_UPDATE"), ("HOLDINGS", "DEFAULT_UPDATE"), _ALL_THERE})
_EXPIRES = frozenset({"PENDING_EXPIRATION", "PENDING_DISCONNECT"})


class ConnectionNews:
    """Loop-only."""

    def __init__(self, store: ConnectionStore, fetcher: Fetcher, clock: Clock) -> None:
        self._store = store
        self._fetcher = fetcher
        self._clock = clock

    async def heard(self, connection: Connection, told: Webhook) -> Outcome:
        """Do what a webhook about `connection` asks for."""
        if (told.kind, told.code) in _CHANGED:
            if connection.state == "revoked":
                return "noted"
            await self._fetcher.want_soon(connection.id, everything=(told.kind, told.code) == _ALL_THERE)
            return "fetching"
        return await self._of_login(connection, told) if told.kind == "ITEM" else "ignored"

    async def _of_login(self, connection: Connection, told: Webhook) -> Outcome:
        if told.code == "LOGIN_REPAIRED":
            await self._store.put_in(connection.id, "active")
            await self._store.attended(connection.id, self._clock.time())
            await self._fetcher.want_soon(connection.id)
            return "fetching"
        if (notice := self._notice(told)) is not None:
            await self._store.notice(connection.id, notice)
            return "noted"
        error = AccessRevoked() if told.code == "USER_PERMISSION_REVOKED" else _error(told)
        if error is None:
            return "ignored"
        await self._store.failed(connection, error.code, error.detail, self._clock.time())
        if isinstance(error, LoginRequired | AccessRevoked):
            await self._store.put_in(connection.id, "login_required" if isinstance(error, LoginRequired) else "revoked")
            await self._fetcher.fetch_again(connection, None)
        return "noted"

    def _notice(self, told: Webhook) -> Notice | None:
        now = self._clock.time()
        if told.code in _EXPIRES:
            return Notice("expires_soon", now, until=told.until or now + EXPIRES_SECONDS)
        if told.code == "NEW_ACCOUNTS_AVAILABLE":
            return Notice("new_accounts", now)
        if told.code == "USER_ACCOUNT_REVOKED" and told.account:
            return Notice("account_revoked", now, account=told.account)
        return None


def _error(told: Webhook) -> BrokerError | None:
    if told.code != "ERROR" or told.error is None:
        return None
    code, kind = told.error
    return of_code(code, kind, f"Plaid says {code[:64]}.")
