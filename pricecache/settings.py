"""Every setting: name, default, unit, meaning. Read from the environment and `.env` by `app` and `cli` only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LONGEST_SECONDS = 31_536_000
"""A year: the most that a duration can be set to, as instants beyond that mean nothing."""


class Settings(BaseSettings):
    """All settings of the daemon; each field is an environment variable `PRICECACHE_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix="PRICECACHE_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
    )

    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback needs API keys.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    data_dir: Path = Field(
        Path(".pricecache"), description="Folder of the private mongod and of vendors' caches. Created with mode 0700."
    )
    mongodb_uri: SecretStr | None = Field(
        None, description="A MongoDB replica set to use. None: a private mongod in the data directory."
    )
    mongodb_database: str = Field("pricecache", description="Database name.", pattern=r"^[A-Za-z0-9_-]{1,38}$")
    mongod: Path | None = Field(None, description="The mongod program for the private server, when not on PATH.")
    mongod_cache_gb: float = Field(0.5, ge=0.25, description="WiredTiger cache of the private mongod, in GiB.")

    providers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("yfinance",), description="Providers of prices in the order they are asked: yfinance, fmp, csv, sample."
    )
    providers_history: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Who is asked for history instead, in order. None: as PRICECACHE_PROVIDERS."
    )
    providers_live: Annotated[tuple[str, ...], NoDecode] = Field((), description="The same for live quotes.")
    providers_actions: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Who tells splits and dividends, whoever the bars are from: the first that can. None: the provider "
        "of the history, or the first that can where it has none.",
    )
    providers_search: Annotated[tuple[str, ...], NoDecode] = Field((), description="The same for symbol search.")
    providers_stream: Annotated[tuple[str, ...], NoDecode] = Field((), description="The same for pushed prices.")
    provider_limits: str = Field(
        "",
        description="Rate, burst, requests a UTC day and dollars a request where they differ from the built-in ones, "
        "as yfinance:perSecond=2,burst=5,perDay=5000;fmp:perDay=250,price=0.001.",
    )
    csv_dir: Path | None = Field(None, description="Folder of the csv provider: one SYMBOL.csv for each instrument.")
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Instruments tracked from the start, as AAPL,SAP:DE."
    )

    live_seconds: float = Field(
        900, ge=1, le=LONGEST_SECONDS, description="Seconds between two runs of live_price_update."
    )
    sync_seconds: float = Field(
        10800, ge=1, le=LONGEST_SECONDS, description="Seconds between two runs of historical_sync."
    )
    sync_start_delay_seconds: float = Field(
        10, ge=0, le=LONGEST_SECONDS, description="Seconds after start until the first historical_sync."
    )
    backfill_days: int = Field(
        1826, ge=1, le=36525, description="Calendar days of history a newly tracked symbol is backfilled with."
    )
    sample_days: float = Field(
        30, ge=0, le=3650, description="Days that samples of live prices are kept for intraday bars; 0 keeps none."
    )
    column_cache_mb: float = Field(256, gt=0, description="RAM for decoded bars, in MiB.")
    response_cache_mb: float = Field(64, gt=0, description="RAM for encoded answers, in MiB.")

    history_cache_mb: float = Field(128, gt=0, description="RAM for histories of portfolios, in MiB.")
    use_materialized: bool = Field(
        True, description="Keep and store the rows of histories; false: compute every one from its ledger."
    )
    stream_event_days: float = Field(
        30, ge=1, le=3650, description="Days that events of portfolios are kept for those who come back."
    )
    materialize_seconds: float = Field(
        600, ge=1, le=LONGEST_SECONDS, description="Seconds between two runs of materialize_history."
    )

    debounce_seconds: float = Field(
        2, ge=0, le=3600, description="Seconds that changes of a portfolio are gathered before it is valued anew."
    )
    max_wait_seconds: float = Field(
        5, ge=0, le=3600, description="Seconds after which it is valued however often it changes; at least the former."
    )
    max_updates_per_minute: int = Field(
        20, ge=0, le=6000, description="Times a minute that a portfolio is valued anew; more is put off. 0: no limit."
    )
    tracking_seconds: float = Field(
        30, ge=1, le=LONGEST_SECONDS, description="Seconds between two looks at tracked portfolios in market hours."
    )
    max_followed_portfolios: int = Field(
        20000, ge=1, description="Portfolios kept at their present value beside those tracked or listened to."
    )

    reconstruction_concurrency: int = Field(
        2, ge=1, le=64, description="Users whose history is reconstructed at once, on all daemons of a database."
    )

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Keys as name:scopes:secret, comma-separated; scopes read, ops, admin joined by +."
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret of HS256 tokens of portfolio pages.")
    jwks_url: str | None = Field(None, description="URL of the keys of RS256 or ES256 tokens of portfolio pages.")
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins of pages that may send the session cookie, as https://pages.example."
    )
    session_hours: float = Field(12, gt=0, le=LONGEST_SECONDS / 3600, description="Life of a page session, in hours.")

    enable_realtime_portfolio: bool = Field(
        True,
        validation_alias="ENABLE_REALTIME_PORTFOLIO",
        description="Follow portfolios in real time and serve streams; false: neither, and REST as before.",
    )
    realtime_percent: float = Field(
        100, ge=0, le=100, description="Share of users that streams are served to, the same ones each time, in percent."
    )
    stream_window_ms: float = Field(
        20, ge=1, le=1000, description="How long messages are gathered under load, at least; widened by itself."
    )
    stream_connections: int = Field(1000, ge=1, le=100_000, description="Most streams open at a time.")
    stream_connections_per_user: int = Field(20, ge=1, le=100_000, description="Most of them of one user.")
    stream_slow_seconds: float = Field(
        30, ge=1, le=3600, description="How long a stream's client may leave what was sent unread until it is dropped."
    )

    request_seconds: float = Field(
        10, gt=0, le=LONGEST_SECONDS, description="Deadline of a request, waiting for runs aside, in seconds."
    )
    drain_seconds: float = Field(
        30, gt=0, le=LONGEST_SECONDS, description="How long a stop waits for running work, in seconds."
    )
    max_body_kb: int = Field(8192, ge=1, description="Largest request body but for a file, in KiB.")
    max_symbols: int = Field(10000, ge=1, description="Most instruments that may be tracked.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON.")

    yahoo_url: str | None = Field(
        None, description="Send the yfinance library's requests to this base URL instead of Yahoo's (a proxy, a test)."
    )
    stream: bool = Field(True, description="Take live prices by push where a provider can; false: by polling only.")
    stream_silence_seconds: float = Field(
        60, ge=5, le=3600, description="Seconds without a message in market hours after which a stream is opened anew."
    )
    yahoo_stream_url: str | None = Field(
        None,
        pattern=r"^wss?://[^/\s]+",
        description="WebSocket URL of Yahoo's price stream instead of its own. With PRICECACHE_YAHOO_URL and without "
        "this there is no stream.",
    )
    financial_modeling_prep_api_key: SecretStr | None = Field(
        None,
        validation_alias="FINANCIAL_MODELING_PREP_API_KEY",
        description="Key of the fmp provider, from financialmodelingprep.com.",
    )
    fmp_url: str | None = Field(
        None, description="Base URL of the fmp provider instead of the vendor's own (a proxy, a test)."
    )
    fmp_batch_quotes: bool = Field(
        False, description="Ask fmp for 50 quotes with one request. Its free plan refuses that."
    )

    plaid_client_id: str | None = Field(
        None, validation_alias="PLAID_CLIENT_ID", description="Client id of Plaid, for connections to brokers."
    )
    plaid_secret_key: SecretStr | None = Field(
        None, validation_alias="PLAID_SECRET_KEY", description="Secret of Plaid for PLAID_ENV."
    )
    plaid_env: Literal["sandbox", "production"] = Field(
        "sandbox", validation_alias="PLAID_ENV", description="Environment of Plaid that the keys are of."
    )
    plaid_url: str | None = Field(None, description="Base URL of Plaid's API instead of its own (a proxy, a test).")
    plaid_client_name: str = Field(
        "pricecache", min_length=1, max_length=30, description="What Plaid calls this application to those who log in."
    )
    plaid_webhook_url: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+",
        description="Where Plaid is to send webhooks: the URL that leads to /api/plaid/webhook from outside.",
    )
    secrets_key: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys that access tokens are encrypted with: 32 bytes in URL-safe base64, the present one first, "
        "former ones behind it. None: a file in the data directory, with a private mongod only.",
    )
    broker_fetch_hours: float = Field(
        24, ge=0.25, le=720, description="Hours between two fetches of a connection that nobody asks for."
    )

    @field_validator(
        "providers",
        "providers_history",
        "providers_live",
        "providers_actions",
        "providers_search",
        "providers_stream",
        "symbols",
        "api_keys",
        "allowed_origins",
        "secrets_key",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def variable_of(kind: type[BaseSettings], name: str) -> str:
    """The environment variable of the setting `name` of `kind`."""
    alias = kind.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else f"PRICECACHE_{name.upper()}"


def named_settings() -> set[str]:
    """The names of all variables in the environment and in `.env`."""
    return {*os.environ, *dotenv_values(".env")}


def unknown_settings(names: Iterable[str]) -> dict[str, str | None]:
    """Those of `names` (of environment variables) that look like settings and are none, with what was likely meant."""
    known = {f"PRICECACHE_{field.upper()}" for field in (*Settings.model_fields, "url", "api_key")}
    strangers = sorted(name for name in names if name.startswith("PRICECACHE_") and name not in known)
    return {name: next(iter(get_close_matches(name, known, 1, 0.8)), None) for name in strangers}
