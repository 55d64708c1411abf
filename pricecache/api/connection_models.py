"""What is sent in and answered of connections to brokers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pricecache.api.answers import Instant, IsoDay, Output
from pricecache.api.inputs import Input
from pricecache.api.ledger_inputs import Identifier, Name
from pricecache.stores.connection_documents import ConnectionState, NoticeCode, Provider

Country = Literal[
    "US", "CA", "GB", "ES", "NL", "FR", "IE", "DE", "IT", "PL", "DK", "NO", "SE", "EE", "LT", "LV", "PT", "BE", "AT",
    "FI",
]  # fmt: skip
"""Where Plaid has institutions."""


class LinkTokenBody(Input):
    connection_id: Identifier | None = Field(None, description="Log in again to this one, instead of a new one.")
    country_codes: Annotated[list[Country], Field(min_length=1, max_length=20)] = Field(
        ["US"], description="Where the institutions are that Link shows."
    )
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] = Field("en", description="Of what Link shows.")
    redirect_uri: Annotated[str, Field(max_length=500, pattern=r"^https?://\S+$")] | None = Field(
        None, description="Where an institution that logs in on its own page leads back to, as Plaid knows it."
    )


class ConnectBody(Input):
    public_token: Annotated[str, Field(min_length=8, max_length=256, pattern=r"^[\x21-\x7e]+$")] = Field(
        description="What Link gave when the user had logged in."
    )
    portfolio_id: Identifier | None = Field(None, description="Where its rows go; a portfolio is made by default.")
    portfolio_name: Name | None = Field(None, description="What the portfolio to be made is called.")
    allow_duplicate: bool = Field(False, description="true: though its accounts are connected already.")

    @model_validator(mode="after")
    def _names_one(self) -> ConnectBody:
        if self.portfolio_id is not None and self.portfolio_name is not None:
            raise PydanticCustomError("both_given", "either portfolioId, or the name of one that is to be made")
        return self


class DeleteConnectionQuery(Input):
    delete_rows: bool = Field(False, description="true: take what it brought out of the ledger too.")


class WebhookBody(Input):
    """As Plaid sends it; what is not known is ignored."""

    model_config = ConfigDict(extra="allow")

    webhook_type: str = Field("", alias="webhook_type", description="Such as HOLDINGS or ITEM.")
    webhook_code: str = Field("", alias="webhook_code", description="Such as DEFAULT_UPDATE.")
    item_id: str = Field("", alias="item_id", description="Which connection it is about.")
    error: dict[str, Any] | None = Field(None, description="Plaid's error, for ITEM ERROR.")
    account_id: str | None = Field(None, alias="account_id", description="For ITEM USER_ACCOUNT_REVOKED.")
    consent_expiration_time: str | None = Field(
        None, alias="consent_expiration_time", description="When access ends, for ITEM PENDING_EXPIRATION."
    )
    disconnect_time: str | None = Field(
        None, alias="disconnect_time", description="When access ends, for ITEM PENDING_DISCONNECT."
    )


class LinkTokenOut(Output):
    link_token: str
    expiration: str


class ConnectionAccountOut(Output):
    broker_account_id: str
    account_id: str


class ConnectionFailureOut(Output):
    code: str
    detail: str
    since: Instant
    attempts: int = Field(description="In a row.")


class NoticeOut(Output):
    code: NoticeCode = Field(
        description="expires_soon: access ends at until; new_accounts: there are accounts that were not shared; "
        "account_revoked: the user no longer shares brokerAccountId."
    )
    since: Instant
    until: Instant
    broker_account_id: str | None


class ConnectionOut(Output):
    id: str
    provider: Provider
    source: str | None = Field(description="Under which name it is posted.")
    institution: str | None
    state: ConnectionState
    portfolio_id: str | None = Field(description="null until one is made.")
    accounts: list[ConnectionAccountOut]
    first_date: IsoDay = Field(description="From when on all its rows are known.")
    created_at: Instant
    fetched_at: Instant
    next_fetch_at: Instant
    failure: ConnectionFailureOut | None
    notices: list[NoticeOut] = Field(description="What its user should know though it works.")
    action: Literal["link", "connect"] | None = Field(
        description="What its user has to do: open Link with a link token of this connection, or connect anew."
    )


class ConnectionsOut(Output):
    connections: list[ConnectionOut]


class FetchOut(ConnectionOut):
    run_id: str | None = Field(description="Follow it at /cache/runs/{id}; null: it is fetched at nextFetchAt.")


class ConnectionDeletedOut(Output):
    deleted: str
    rows_deleted: int


class WebhookOut(Output):
    status: Literal["fetching", "noted", "ignored"]
