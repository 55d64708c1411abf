"""The transactions of a portfolio: put in singly or in bulk, listed, changed, deleted."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from pricecache.api.call import Answer, Call
from pricecache.api.ledger_inputs import RefusedRow, TransactionInput, TransactionsFilter, TransactionsQuery
from pricecache.api.once import KeptOnce, once
from pricecache.api.portfolios import etag, if_match, portfolio_of
from pricecache.api.wire import instant, iso_day
from pricecache.core.bars import day_number
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Transaction
from pricecache.errors import NotFound
from pricecache.stores.ledger import Row

if TYPE_CHECKING:
    from pricecache.core.catalog import Catalog
    from pricecache.core.portfolios import Portfolio
    from pricecache.portfolio.planning import LedgerView


async def add(call: Call) -> Answer:
    portfolio = await portfolio_of(call)
    given: list[Transaction | None] = []
    refused: list[dict[str, Any]] = []
    for number, row in enumerate(call.body.transactions):
        if isinstance(row, RefusedRow):
            given.append(None)
            refused += [{**fault, "row": number} for fault in row.faults]
        else:
            given.append(_transaction(call, portfolio, row))
    added = await call.services.ledgers.add(portfolio, given, refused, call.principal.name)
    counts = {"created": added.created, "updated": added.updated, "unchanged": added.unchanged}
    return Answer({**counts, "ids": list(added.ids)}, 201)


async def list_all(call: Call) -> KeptOnce:
    query: TransactionsQuery = call.query
    view = await call.services.ledgers.read(await portfolio_of(call))
    found = wanted(view, query, call.services.catalog)
    page = found[query.offset : query.offset + query.limit]
    return await once(
        len(page), lambda: {"transactions": [transaction_fields(row) for row in page], "total": len(found)}
    )


async def one(call: Call) -> Answer:
    view = await call.services.ledgers.read(await portfolio_of(call))
    row = view.by_id.get(call.path["transactionId"])
    if row is None:
        raise NotFound("There is no such transaction in this portfolio.", code="unknown_transaction")
    return Answer(transaction_fields(row), headers=etag(row.version))


async def replace(call: Call) -> Answer:
    portfolio = await portfolio_of(call)
    row = await call.services.ledgers.put(
        portfolio,
        call.path["transactionId"],
        _transaction(call, portfolio, call.body),
        call.principal.name,
        if_match(call),
    )
    return Answer(transaction_fields(row), headers=etag(row.version))


async def delete(call: Call) -> Answer:
    row_id = call.path["transactionId"]
    await call.services.ledgers.remove(await portfolio_of(call), row_id, call.principal.name, if_match(call))
    return Answer({"deleted": row_id})


def transaction_of(row: TransactionInput, basis: str, today: int, *, account: str | None = None) -> Transaction:
    """`basis`: what its quantity is in; `today`: the day it is restated as of. `account`: of a row without one."""
    is_restated = basis == "adjusted" and row.symbol is not None and row.quantity is not None
    return Transaction(
        day_number(row.date_),
        row.type_,
        row.instrument,
        quantity=row.quantity,
        price=row.price,
        amount=row.amount,
        fees=row.fees or ZERO,
        taxes=row.taxes or ZERO,
        currency=row.currency,
        fx_rate=row.fx_rate,
        account=row.account_id or account or "",
        to_account=row.to_account_id,
        ratio=row.ratio,
        ex_date=None if row.ex_date is None else day_number(row.ex_date),
        acquired_on=None if row.acquired_on is None else day_number(row.acquired_on),
        adjusted_as_of=today if is_restated else None,
        link=row.link,
        external_id=row.external_id,
        note=row.note or None,
    )


def _transaction(call: Call, portfolio: Portfolio, row: TransactionInput) -> Transaction:
    basis = row.quantity_basis or portfolio.quantity_basis
    return transaction_of(row, basis, call.services.histories.today(portfolio))


def wanted(view: LedgerView, query: TransactionsFilter, catalog: Catalog) -> list[Row]:
    """Those that the filters let through, by day and order of entry."""
    instrument = None
    if query.symbol is not None:
        instrument = catalog.present(Instrument.parse(query.symbol, query.market))
    return [row for row in view.rows if _is_wanted(row.transaction, query, instrument)]


def _is_wanted(one: Transaction, query: TransactionsFilter, instrument: Instrument | None) -> bool:
    if query.symbol is not None and one.instrument != instrument:
        return False
    if query.symbol is None and query.market not in (None, one.instrument and one.instrument.market):
        return False
    return (
        (query.start is None or one.day >= day_number(query.start))
        and (query.end is None or one.day <= day_number(query.end))
        and (query.type_ is None or one.type == query.type_)
        and (query.external_id is None or one.external_id == query.external_id)
        and (query.account_id is None or query.account_id in (one.account, one.to_account))
    )


def transaction_fields(row: Row) -> dict[str, Any]:
    times = {"createdAt": instant(row.created_at), "updatedAt": instant(row.updated_at)}
    return {**said_fields(row.transaction), "version": row.version, **times}


def said_fields(one: Transaction) -> dict[str, Any]:
    """What a row says, amounts with every digit."""
    return {
        "id": one.id,
        "date": iso_day(one.day),
        "type": one.type,
        "symbol": None if one.instrument is None else one.instrument.symbol,
        "market": None if one.instrument is None else one.instrument.market,
        "quantity": exact(one.quantity),
        "price": exact(one.price),
        "amount": exact(one.amount),
        "fees": exact(one.fees),
        "taxes": exact(one.taxes),
        "currency": one.currency,
        "fxRate": exact(one.fx_rate),
        "accountId": one.account or None,
        "toAccountId": one.to_account,
        "ratio": exact(one.ratio),
        "exDate": iso_day(one.ex_date),
        "acquiredOn": iso_day(one.acquired_on),
        "quantityBasis": "asTraded" if one.adjusted_as_of is None else "adjusted",
        "link": one.link,
        "externalId": one.external_id,
        "note": one.note,
    }


def exact_fields(one: Transaction) -> dict[str, Any]:
    """The same, and the day it is restated as of: all there is to a row."""
    return {**said_fields(one), "adjustedAsOf": iso_day(one.adjusted_as_of)}


def exact(amount: Decimal | None) -> orjson.Fragment | None:
    """A JSON number with every digit of `amount`."""
    return None if amount is None else orjson.Fragment(format(amount, "f").encode())
