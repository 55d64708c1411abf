"""What is sent in with a file of transactions: its rows, and how they are to be taken."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pricecache.api.inputs import Day, Input
from pricecache.api.ledger_inputs import Identifier, Name, QuantityBasis, TransactionInput, TransactionsFilter

MOST_ROWS = 100_000
MOST_BYTES = 64 << 20
SECONDS = 50.0
"""How much longer than other requests an import or export may take."""


class ImportRow(TransactionInput):
    """A transaction as it stands in a file: one that was listed or exported here is taken as it is."""

    id: Identifier | None = Field(None, description="The transaction whose place it takes, where that is there.")
    account: Name | None = Field(None, description="Name of the account, where `accountId` is none here.")
    to_account: Name | None = Field(None, description="Name of the other account, likewise.")
    adjusted_as_of: Day | None = Field(None, description="The day in whose units it is; today by default.")
    version: Any = Field(None, description="Not looked at; so are createdAt and updatedAt.")
    created_at: Any = None
    updated_at: Any = None

    @model_validator(mode="after")
    def _has_one_basis(self) -> ImportRow:
        if self.adjusted_as_of is not None and self.quantity_basis == "asTraded":
            detail = "what is as traded is restated on no day"
            raise PydanticCustomError("adjusted_as_of_not_allowed", detail, {"field": "adjustedAsOf"})
        return self

    @property
    def basis(self) -> QuantityBasis | None:
        """What it says that its quantity is in."""
        return "adjusted" if self.adjusted_as_of is not None else self.quantity_basis


class ImportBody(Input):
    """The file as JSON; as CSV it has a header with these names."""

    transactions: list[ImportRow] = Field(
        min_length=1,
        max_length=MOST_ROWS,
        description="Or the list by itself, or a CSV with these names as its header.",
    )


class ImportQuery(Input):
    dry_run: bool = Field(False, description="true: say what would change, and change nothing.")
    quantity_basis: QuantityBasis | None = Field(
        None, description="What rows are in that do not say; the portfolio's by default, and then questioned."
    )
    account_id: Identifier | None = Field(None, description="The account of rows that name none.")


class ExportQuery(TransactionsFilter):
    format: Literal["csv", "json"] = Field("csv", description="csv: a table; json: as the list has them.")
