"""What is asked of reconstructions."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pricecache.api.inputs import Input
from pricecache.api.ledger_inputs import Identifier, Name

MOST_BYTES = 96 << 20
SECONDS = 50.0
"""How much longer than others a request with a payload may take."""
MOST_FINDINGS = 1000


class Asked(Input):
    """What may stand beside a payload."""

    connection_id: Identifier | None = Field(None, description="Of what is known already, instead of a payload.")
    portfolio_id: Identifier | None = Field(None, description="Where the rows go; by default where they went before.")
    portfolio_name: Name | None = Field(None, description="Of the portfolio that is made where there is none yet.")
    force: bool = Field(
        False, strict=True, description="true: do it though the payload is the one it was made of last."
    )


class RequestQuery(Input):
    portfolio_id: Identifier | None = Field(None, description="As in the body, for payloads that are all of it.")
    portfolio_name: Name | None = Field(None, description="Likewise.")
    force: bool = Field(False, description="Likewise.")


class ReconstructionBody(Asked):
    """A payload, or a connection, or neither: then all connections of the user. A payload may also be the whole body:
    Plaid's object, or the neutral one."""

    plaid: dict[str, Any] | None = Field(
        None,
        description="Plaid's `accounts`, `securities`, `holdings`, `investment_transactions` in one object, or "
        "`holdings` and `transactions` (one answer or a list of pages) as Plaid answered them.",
    )
    broker: dict[str, Any] | None = Field(None, description="The neutral payload.")


class StatusQuery(Input):
    portfolio_id: Identifier | None = Field(None, description="Only of connections whose rows go there.")
    connection_id: Identifier | None = Field(None, description="Only of this one.")
    findings: int = Field(20, ge=0, le=MOST_FINDINGS, description="Most findings of each that are listed.")
    offset: int = Field(0, ge=0, le=100_000, description="How many findings are left out before those.")
