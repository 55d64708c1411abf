"""Orders that other systems report: the last report of each, written with what it changes of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.orders import Order, OrderReport
from pricecache.stores.ids import instant_of
from pricecache.stores.ledger import Companion, LedgerMoved

Document = dict[str, Any]

_AMOUNTS: Mapping[str, str] = {
    "quantity": "quantity",
    "limitPrice": "limit_price",
    "filledQuantity": "filled_quantity",
    "averagePrice": "average_price",
    "fees": "fees",
    "taxes": "taxes",
    "fxRate": "fx_rate",
}


class OrderStore:
    """The collection `orders`. Loop-only; safe against writers in any process. Who asks has made sure that the
    portfolio is theirs."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._orders = database["orders"]

    async def find(self, portfolio: str, order_id: str) -> Order | None:
        document = await self._orders.find_one({"_id": _key(portfolio, order_id)})
        return None if document is None else _order(document)

    async def page(
        self, portfolio: str, count: int, *, before: str | None = None, is_open: bool = False
    ) -> list[Order]:
        """The next `count`, those first that came last, below the number `before`; `is_open`: only those not final."""
        key: Document = {"portfolio": portfolio}
        if is_open:
            key["open"] = True
        if before is not None:
            key["number"] = {"$lt": before}
        documents = await self._orders.find(key).sort("number", -1).limit(count).to_list()
        return [_order(document) for document in documents]

    def writing(self, portfolio: str, before: Order | None, after: Order) -> Companion:
        """Puts `after` in the place of `before` within a transaction; raises `LedgerMoved` when it is not that any
        more."""
        document = _document(portfolio, after)

        async def write(session: AsyncClientSession) -> None:
            if before is None:
                await self._orders.insert_one(document, session=session)
                return
            key = {"_id": document["_id"], "version": before.version}
            replaced = await self._orders.replace_one(key, document, session=session)
            if not replaced.matched_count:
                raise LedgerMoved

        return write


def _key(portfolio: str, order_id: str) -> str:
    return f"{portfolio}/{order_id}"


def _document(portfolio: str, order: Order) -> Document:
    report = order.report
    facts: Document = {
        "open": None if report.is_final else True,
        "type": report.type,
        "currency": report.currency,
        "account": report.account or None,
        "submittedAt": report.submitted_at,
        "filledAt": report.filled_at,
        "reason": report.reason,
        "note": report.note,
        "transaction": order.transaction_id,
    }
    amounts = {field: getattr(report, name) for field, name in _AMOUNTS.items()}
    return {
        "_id": _key(portfolio, order.id),
        "portfolio": portfolio,
        "order": order.id,
        "number": order.number,
        "status": report.status,
        "side": report.side,
        "symbol": report.instrument.symbol,
        "market": report.instrument.market,
        **{field: str(amount) for field, amount in amounts.items() if amount is not None},
        **{name: value for name, value in facts.items() if value is not None},
        "change": order.change,
        "version": order.version,
        "createdAt": instant_of(order.created_at),
        "updatedAt": instant_of(order.updated_at),
    }


def _order(document: Document) -> Order:
    get = document.get
    amounts = {name: Decimal(document[field]) for field, name in _AMOUNTS.items() if field in document}
    report = OrderReport(
        document["status"],
        document["side"],
        Instrument(document["symbol"], document["market"]),
        type=get("type"),
        currency=get("currency"),
        account=get("account") or "",
        submitted_at=get("submittedAt"),
        filled_at=get("filledAt"),
        reason=get("reason"),
        note=get("note"),
        **({"filled_quantity": ZERO} | amounts),
    )
    return Order(
        document["order"],
        report,
        document["number"],
        get("transaction"),
        document["change"],
        document["version"],
        document["createdAt"].timestamp(),
        document["updatedAt"].timestamp(),
    )
