"""Orders that other systems report: put, listed, read."""

from __future__ import annotations

from typing import Any

from pricecache.api.call import Answer, Call
from pricecache.api.order_inputs import OrdersQuery
from pricecache.api.portfolios import etag, if_match, portfolio_of
from pricecache.api.transactions import exact
from pricecache.core.orders import Order
from pricecache.errors import Invalid
from pricecache.portfolio.event_data import order_fields

LONGEST_ID = 128


async def put(call: Call) -> Answer:
    portfolio, order_id = await portfolio_of(call), call.path["orderId"]
    if len(order_id) > LONGEST_ID:
        raise Invalid(f"The id of an order has at most {LONGEST_ID} characters.", code="order_id_too_long")
    order, outcome = await call.services.orders.put(
        portfolio, order_id, call.body.report, call.principal.name, if_match(call)
    )
    return _answer(order, 201 if outcome == "created" else 200)


async def list_all(call: Call) -> Answer:
    query: OrdersQuery = call.query
    portfolio = await portfolio_of(call)
    found = await call.services.orders.page(
        portfolio, query.limit + 1, before=query.cursor, is_open=query.status == "open"
    )
    page = found[: query.limit]
    more = page[-1].number if len(found) > len(page) else None
    return Answer({"orders": [_fields(order) for order in page], "nextCursor": more})


async def one(call: Call) -> Answer:
    return _answer(await call.services.orders.get(await portfolio_of(call), call.path["orderId"]))


def _answer(order: Order, status: int = 200) -> Answer:
    return Answer(_fields(order), status, headers=etag(order.version))


def _fields(order: Order) -> dict[str, Any]:
    return order_fields(order, exact)
