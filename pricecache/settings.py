"""Every setting: name, default, unit, meaning. Read from the environment and `.env` by `app` and `cli` only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """All settings of the daemon; each field is an environment variable `PRICECACHE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="PRICECACHE_", env_file=".env", extra="ignore", frozen=True)

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
        ("yfinance",), description="The provider of prices: yfinance, csv or sample. Exactly one for now."
    )
    csv_dir: Path | None = Field(None, description="Folder of the csv provider: one SYMBOL.csv for each instrument.")
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Instruments tracked from the start, as AAPL,SAP:DE."
    )

    live_seconds: float = Field(900, ge=1, description="Seconds between two runs of live_price_update.")
    sync_seconds: float = Field(10800, ge=1, description="Seconds between two runs of historical_sync.")
    sync_start_delay_seconds: float = Field(
        10, ge=0, description="Seconds after start until the first historical_sync."
    )
    backfill_days: int = Field(
        1826, ge=1, le=36525, description="Calendar days of history a newly tracked symbol is backfilled with."
    )
    column_cache_mb: float = Field(256, gt=0, description="RAM for decoded bars, in MiB.")
    response_cache_mb: float = Field(64, gt=0, description="RAM for encoded answers, in MiB.")

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Keys as name:scopes:secret, comma-separated; scopes read, ops, admin joined by +."
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret of HS256 tokens of portfolio pages.")
    jwks_url: str | None = Field(None, description="URL of the keys of RS256 or ES256 tokens of portfolio pages.")
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins of pages that may send the session cookie, as https://pages.example."
    )
    session_hours: float = Field(12, gt=0, description="Life of a page session, in hours.")

    request_seconds: float = Field(10, gt=0, description="Deadline of a request, waiting for runs aside, in seconds.")
    drain_seconds: float = Field(30, gt=0, description="How long a stop waits for running work, in seconds.")
    max_body_kb: int = Field(8192, ge=1, description="Largest request body, in KiB.")
    max_symbols: int = Field(10000, ge=1, description="Most instruments that may be tracked.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON.")

    yahoo_url: str | None = Field(
        None, description="Send the yfinance library's requests to this base URL instead of Yahoo's (a proxy, a test)."
    )

    @field_validator("providers", "symbols", "api_keys", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
