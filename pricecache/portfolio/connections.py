"""A user's connections to brokers: linked, made, fetched, deleted, and moved by what Plaid's webhooks say."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from pricecache.brokers.plaid_accounts import shown_accounts
from pricecache.brokers.plaid_client import Access, LinkRequest, LinkToken
from pricecache.brokers.plaid_webhooks import WebhookVerifier
from pricecache.brokers.secrets import SecretBox
from pricecache.clock import Clock
from pricecache.core.broker.account_identity import ShownAccounts
from pricecache.errors import BrokerError, Conflict, Corrupt, Invalid, Unavailable
from pricecache.portfolio.connection_news import ConnectionNews, Outcome
from pricecache.portfolio.connection_rows import delete_rows
from pricecache.portfolio.fetching import FETCH_JOB, Fetcher, Plaid
from pricecache.portfolio.fetching_soon import StartRun
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.repeated_accounts import already_connected, is_broken, repeated
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.connection_documents import Connection, Login
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.portfolios import PortfolioStore

log = structlog.get_logger(__name__)


SPACING_SECONDS = 300.0
"""Between two fetches that somebody asks for: Plaid is paid by call, and asks institutions a few times a day itself."""
_OF_ACCOUNTS = frozenset({"new_accounts", "account_revoked"})
"""What is mended by choosing the accounts anew."""


@dataclass(frozen=True, slots=True)
class Linking:
    """How users link accounts over Plaid, and what becomes of them. `client_name`: what users are told of who asks for
    their login; `webhook_url`: where Plaid is to send webhooks."""

    plaid: Plaid
    verifier: WebhookVerifier
    fetcher: Fetcher
    client_name: str = "pricecache"
    webhook_url: str | None = None


class Connections:
    """What users do with their connections. Loop-only.

    `start_run`: begins a run of a job. `linking`: None where no keys of Plaid are set; everything that needs it then
    raises `Unavailable` with code `plaid_not_configured`.

    `on_connected` is awaited with each connection that is made or opened again, `on_deleted` with each that its user
    has deleted, before it goes.
    """

    def __init__(
        self,
        store: ConnectionStore,
        data: BrokerDataStore,
        portfolios: PortfolioStore,
        ledgers: Ledgers,
        clock: Clock,
        start_run: StartRun,
        linking: Linking | None = None,
    ) -> None:
        self.store = store
        self._data = data
        self._portfolios = portfolios
        self._ledgers = ledgers
        self._clock = clock
        self._start_run = start_run
        self._linking = linking
        self.on_connected: Callable[[Connection], Awaitable[object]] = _nothing
        self.on_deleted: Callable[[Connection], Awaitable[object]] = _nothing

    @property
    def fetcher(self) -> Fetcher | None:
        return None if self._linking is None else self._linking.fetcher

    # ---- making

    async def link_token(self, user: str, wanted: LinkRequest, connection_id: str | None = None) -> LinkToken:
        """What Link is opened with, to connect accounts, or to log in again to those of a connection.

        Who asks is filled in here. Raises `NotFound`, and what the client does.
        """
        linking = self._require()
        token, selects = None, False
        if connection_id is not None:
            connection = await self.store.get(user, connection_id)
            token = await self._token(linking.plaid, connection)
            selects = any(one.code in _OF_ACCOUNTS for one in connection.notices)
        digest = hashlib.sha256(user.encode()).hexdigest()  # a user's name may be an address, which Plaid forbids
        asked = replace(
            wanted,
            user=digest[:32],
            client_name=linking.client_name,
            webhook=linking.webhook_url,
            access_token=token,
            selects_accounts=selects,
        )
        made = await linking.plaid.client.create_link_token(asked)
        if connection_id is not None:
            await self.store.linking(connection_id, self._clock.time())
        return made

    async def connect(
        self,
        user: str,
        public_token: str,
        portfolio_id: str | None,
        portfolio_name: str | None,
        by: str,
        *,
        may_repeat: bool = False,
    ) -> tuple[Connection, bool]:
        """Connect what the user has linked, and begin to fetch it; whether it is new. The same token once more is the
        same connection, and a login to accounts of one whose login is broken takes the place of that.

        `may_repeat`: though the accounts are those of another connection. Raises `Invalid` with code
        `bad_public_token`, `NotFound` for the portfolio, `Conflict` with code `connected_by_another`,
        `connection_being_removed` or, with the `connection_id` that has the accounts, `already_connected`; the login is
        ended at Plaid then.
        """
        plaid = self._require().plaid
        box = await plaid.box()  # what cannot be kept is not asked for
        if (known := await self.store.by_public_token(user, public_token)) is not None:
            return known, False
        if portfolio_id is not None:
            await self._portfolios.get(user, portfolio_id)
        login = await _login(plaid, box, public_token)
        is_known = await self.store.by_item(login.item) is not None
        found = None if is_known or may_repeat else await self._repeated(user, login)
        if found is not None:
            connection = await self._gone_on(login, *found, portfolio_id, by)
        else:
            facts = {"portfolio": portfolio_id, "portfolio_name": portfolio_name}
            now = self._clock.time()
            connection = await self.store.create_plaid(user, login, now, **facts, may_repeat=may_repeat)
        await self._begun(connection, by)
        return connection, not is_known and found is None

    async def _begun(self, connection: Connection, by: str) -> None:
        await self.on_connected(connection)
        await self._start_run(FETCH_JOB, {"connections": [connection.id]}, by)

    async def _repeated(self, user: str, login: Login) -> tuple[Connection, dict[str, str]] | None:
        if login.shown is None:
            return None
        others = [one for one in await self.store.all_of(user) if one.item != login.item]
        return repeated(login.shown, others)

    async def _gone_on(
        self, login: Login, connection: Connection, same: Mapping[str, str], portfolio_id: str | None, by: str
    ) -> Connection:
        if is_broken(connection) and portfolio_id in (None, connection.portfolio):
            assert login.shown is not None
            assert connection.shown is not None
            shown = login.shown.with_earlier(connection.shown.without(same.values()))
            try:
                return await self.store.replace_login(connection, replace(login, shown=shown), same, self._clock.time())
            except Conflict:  # it is another by now, which the next look says
                await self._end(login, connection.user, by)
                raise
        await self._end(login, connection.user, by)
        raise already_connected(connection)

    async def _end(self, login: Login, user: str, by: str) -> None:
        ended = await self.store.end_login(user, login, self._clock.time())
        await self._start_run(FETCH_JOB, {"connections": [ended]}, by)

    # ---- using

    async def fetch(self, user: str, connection_id: str, by: str) -> tuple[Connection, Any]:
        """Fetch it now: how it stands, and the run that does, or the one that does so already. Where it was fetched a
        moment ago, no run: it is fetched `SPACING_SECONDS` after that.

        Raises `NotFound`, and `Conflict` with code `nothing_to_fetch` for one that is posted.
        """
        connection = await self.store.get(user, connection_id)
        if connection.provider != "plaid":
            raise Conflict("What is posted is not fetched: post it again.", code="nothing_to_fetch")
        fetcher = self._require().fetcher
        if connection.linked_at is not None:  # its user was in Link, and has done there what was to be done
            await self.store.attended(connection.id, connection.linked_at)
        now, later = self._clock.time(), _spaced(connection)
        if now >= later:
            # what is asked for outlives the run, and a fetch that goes on already may have read too early
            await self.store.want(connection.id, now)
        elif not fetcher.is_going(connection.id):
            return await self.store.want(connection.id, later, again=False) or connection, None
        ticket = await self._start_run(FETCH_JOB, {"connections": [connection.id]}, by)
        return await self.store.get(user, connection_id), ticket

    async def delete(self, user: str, connection_id: str, by: str, *, rows: bool = False) -> int:
        """End it, here and at Plaid, and forget what opens it; `rows`: take what it brought out of the ledger too.
        How many rows went.

        Its user does not see it any more, whatever Plaid answers: that is tried again until it is done. Raises
        `NotFound`, and `Invalid` when the ledger cannot be without the rows; nothing is done then.
        """
        connection = await self.store.get(user, connection_id)
        removed = 0
        if rows and connection.portfolio is not None:
            removed = await delete_rows(self._ledgers, self._portfolios, connection, by)
        await self.on_deleted(connection)
        if connection.provider == "posted":
            await self._data.delete(connection.id)
            await self.store.delete(connection.id)
            return removed
        await self.store.remove(connection.id, self._clock.time())
        if self.fetcher is not None:
            await self._start_run(FETCH_JOB, {"connections": [connection.id]}, by)
        return removed

    async def close(self) -> None:
        """Ask Plaid no more."""
        if self._linking is not None:
            await self._linking.plaid.client.close()

    # ---- what Plaid says

    async def webhook(self, signed: str | None, body: bytes) -> Outcome:
        """Do what a webhook asks for. `signed`: its header `Plaid-Verification`. Raises what `WebhookVerifier` does."""
        linking = self._require()
        told = await linking.verifier.verified(signed, body)
        connection = await self.store.by_item(told.item) if told.item else None
        if connection is None or connection.state == "removing":
            return "ignored"
        return await ConnectionNews(self.store, linking.fetcher, self._clock).heard(connection, told)

    # ----

    async def _token(self, plaid: Plaid, connection: Connection) -> str:
        sealed = await self.store.sealed(connection.id)
        if sealed is None or connection.item is None:
            raise Conflict("This connection has no login.", code="nothing_to_fetch")
        try:
            return (await plaid.box()).open(sealed, connection.item)
        except Corrupt as exc:
            raise Conflict(exc.detail, code=exc.code) from exc

    def _require(self) -> Linking:
        if self._linking is None:
            raise Unavailable(
                "No keys of Plaid are set: PLAID_CLIENT_ID and PLAID_SECRET_KEY.",
                code="plaid_not_configured",
                retry_after=3600.0,
            )
        return self._linking


def _spaced(connection: Connection) -> float:
    """From when on it may be fetched for whoever asks, seconds since 1970 UTC."""
    tried, linked = connection.tried_at, connection.linked_at
    if tried is None or (linked is not None and linked > tried):
        return 0.0
    return tried + SPACING_SECONDS


async def _login(plaid: Plaid, box: SecretBox, public_token: str) -> Login:
    access = await _exchanged(plaid, public_token)
    return Login(access.item, box.seal(access.token, access.item), public_token, await _shown(plaid, access))


async def _exchanged(plaid: Plaid, public_token: str) -> Access:
    try:
        return await plaid.client.exchange(public_token)
    except BrokerError as exc:
        if exc.code != "bad_public_token":
            raise
        raise Invalid(exc.detail, code="bad_public_token") from exc


async def _shown(plaid: Plaid, access: Access) -> ShownAccounts | None:
    """None when Plaid does not say: what is fetched first says it."""
    try:
        return shown_accounts(await plaid.client.accounts(access.token))
    except BrokerError as exc:
        log.debug("Plaid does not say which accounts were linked", code=exc.code)
        return None


async def _nothing(connection: Connection) -> None:
    pass
