"""The transactions of a portfolio as a file: every row exactly, as an import takes it."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from pricecache.api.call import Call, Document
from pricecache.api.import_inputs import ExportQuery
from pricecache.api.portfolios import portfolio_of
from pricecache.api.transactions import exact_fields, wanted
from pricecache.core.ledger import Transaction

if TYPE_CHECKING:
    from pricecache.stores.ledger import Row

FIELDS = (
    "id", "date", "type", "symbol", "market", "quantity", "price", "amount", "fees", "taxes", "currency", "fxRate",
    "accountId", "account", "toAccountId", "toAccount", "ratio", "exDate", "acquiredOn", "quantityBasis",
    "adjustedAsOf", "link", "externalId", "note",
)  # fmt: skip
_MEDIA = {"csv": "text/csv; charset=utf-8", "json": "application/json"}


async def export_file(call: Call) -> Document:
    query: ExportQuery = call.query
    portfolio = await portfolio_of(call)
    view = await call.services.ledgers.read(portfolio)
    names = {one.id: one.name for one in await call.services.portfolios.accounts(portfolio.id)}

    def make() -> bytes:
        rows = wanted(view, query, call.services.catalog)
        return _csv(rows, names) if query.format == "csv" else _json(rows, names)

    headers = {"Content-Disposition": f'attachment; filename="transactions-{portfolio.id}.{query.format}"'}
    return Document(await asyncio.to_thread(make), _MEDIA[query.format], headers=headers)


def _exported(one: Transaction, names: Mapping[str, str]) -> dict[str, Any]:
    """What it says that is not nothing, with the names of its accounts."""
    said = {**exact_fields(one), "account": names.get(one.account), "toAccount": names.get(one.to_account or "")}
    return {name: said[name] for name in FIELDS if said[name] is not None}


def _json(rows: Iterable[Row], names: Mapping[str, str]) -> bytes:
    # row by row, so that other threads get their turn
    lines = (orjson.dumps(_exported(row.transaction, names)) for row in rows)
    return b'{"transactions":[\n' + b",\n".join(lines) + b"\n]}\n"


def _csv(rows: Iterable[Row], names: Mapping[str, str]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(FIELDS)
    for row in rows:
        said = _exported(row.transaction, names)
        table.writerow([_cell(said.get(name)) for name in FIELDS])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, orjson.Fragment):
        return orjson.dumps(value).decode()
    return "" if value is None else str(value)
