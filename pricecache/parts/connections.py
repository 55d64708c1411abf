"""The parts that connect users' accounts at brokers and fetch what is new there."""

from __future__ import annotations

import random

from pricecache.brokers.plaid_client import PlaidClient
from pricecache.brokers.plaid_webhooks import WebhookVerifier
from pricecache.brokers.secrets import SecretBox, Vault, check_keys, key_in
from pricecache.errors import Misconfigured, Unavailable
from pricecache.jobs import JobDefinition
from pricecache.parts.ground import UNEVENTFUL_RUNS_KEPT, Ground
from pricecache.parts.portfolios import PortfolioParts
from pricecache.parts.prices import PriceParts
from pricecache.portfolio.connections import Connections, Linking
from pricecache.portfolio.fetching import FETCH_JOB, Fetcher, Plaid
from pricecache.portfolio.fetching_soon import SoonFetches
from pricecache.settings import Settings
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.leases import LeaseStore

PLAID_URLS = {"sandbox": "https://sandbox.plaid.com", "production": "https://production.plaid.com"}


FETCH_SECONDS = 60.0
"""How often it is looked which connections are due; each is fetched by its own time."""
FETCH_AFTER_SECONDS = 5.0


def connections_of(ground: Ground, prices: PriceParts, portfolio: PortfolioParts, data: BrokerDataStore) -> Connections:
    """Raises `Misconfigured` with code `plaid_keys_incomplete` or `secrets_key_bad`."""
    settings, clock = ground.settings, ground.clock
    store, plaid, start_run = ConnectionStore(ground.database), _plaid(settings), prices.jobs.run
    if plaid is None:
        return Connections(store, data, portfolio.store, portfolio.ledgers, clock, start_run)

    async def is_ours(item: str) -> bool:
        return await store.by_item(item) is not None

    leases, interval = LeaseStore(ground.database, ground.owner), settings.broker_fetch_hours * 3600
    soon = SoonFetches(FETCH_JOB, start_run, clock)
    fetcher = Fetcher(plaid, store, data, leases, clock, random.Random(), soon, interval=interval)
    prices.jobs.define(
        JobDefinition(
            FETCH_JOB,
            fetcher.run,
            every=FETCH_SECONDS,
            first_after=FETCH_AFTER_SECONDS,
            concurrency=4,
            uneventful_kept_seconds=UNEVENTFUL_RUNS_KEPT * FETCH_SECONDS,
        )
    )
    verifier = WebhookVerifier(plaid.client.verification_key, is_ours, clock)
    linking = Linking(plaid, verifier, fetcher, settings.plaid_client_name, settings.plaid_webhook_url)
    return Connections(store, data, portfolio.store, portfolio.ledgers, clock, start_run, linking)


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
