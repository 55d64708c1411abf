"""What connects users' accounts at brokers, put together from the settings; nothing here is started."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pricecache.brokers.plaid_client import PlaidClient
from pricecache.brokers.plaid_webhooks import WebhookVerifier
from pricecache.brokers.secrets import SecretBox, Vault, check_keys, key_in
from pricecache.errors import Misconfigured, Unavailable
from pricecache.portfolio.connections import Connections, StartRun
from pricecache.portfolio.fetching import Fetcher, Plaid

if TYPE_CHECKING:
    from pricecache.clock import Clock
    from pricecache.portfolio.ledger import Ledgers
    from pricecache.settings import Settings
    from pricecache.stores.broker_data import BrokerDataStore
    from pricecache.stores.connections import ConnectionStore
    from pricecache.stores.leases import LeaseStore
    from pricecache.stores.portfolios import PortfolioStore

PLAID_URLS = {"sandbox": "https://sandbox.plaid.com", "production": "https://production.plaid.com"}


def connections_of(
    settings: Settings,
    clock: Clock,
    *,
    store: ConnectionStore,
    data: BrokerDataStore,
    portfolios: PortfolioStore,
    ledgers: Ledgers,
    leases: LeaseStore,
    start_run: StartRun,
) -> Connections:
    """Raises `Misconfigured` with code `plaid_keys_incomplete` or `secrets_key_bad`."""
    plaid = _plaid(settings)
    if plaid is None:
        return Connections(store, data, portfolios, ledgers, clock, start_run)
    interval = settings.broker_fetch_hours * 3600

    async def is_ours(item: str) -> bool:
        return await store.by_item(item) is not None

    return Connections(
        store,
        data,
        portfolios,
        ledgers,
        clock,
        start_run,
        plaid=plaid,
        verifier=WebhookVerifier(plaid.client.verification_key, is_ours, clock),
        fetcher=Fetcher(plaid, store, data, leases, clock, random.Random(), interval=interval),
        client_name=settings.plaid_client_name,
        webhook_url=settings.plaid_webhook_url,
    )


def _plaid(settings: Settings) -> Plaid | None:
    client_id, secret = settings.plaid_client_id or None, settings.plaid_secret_key
    if client_id is None and secret is None:
        return None
    if client_id is None or secret is None or not secret.get_secret_value():
        raise Misconfigured("Plaid needs both PLAID_CLIENT_ID and PLAID_SECRET_KEY.", code="plaid_keys_incomplete")
    url = settings.plaid_url or PLAID_URLS[settings.plaid_env]
    return Plaid(PlaidClient(client_id, secret.get_secret_value(), url), _vault(settings).box)


def _vault(settings: Settings) -> Vault:
    keys = [key.get_secret_value() for key in settings.secrets_key]
    if keys:
        check_keys(keys)

    def make() -> SecretBox:
        if keys:
            return SecretBox(keys)
        if settings.mongodb_uri is None:
            return SecretBox([key_in(settings.data_dir)])
        # a key beside the database of others would be one that not all daemons have
        raise Unavailable(
            "Access tokens are kept encrypted only, and there is no key: set PRICECACHE_SECRETS_KEY to the output of "
            "openssl rand -base64 32 | tr '+/' '-_', the same for all daemons.",
            code="secrets_key_missing",
            retry_after=3600.0,
        )

    return Vault(make)
