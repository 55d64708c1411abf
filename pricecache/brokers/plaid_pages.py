"""All that Plaid says of an item at one moment, over as many pages as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Any

from pricecache.brokers.limits import MOST_TRANSACTIONS
from pricecache.brokers.plaid_client import MOST_PER_PAGE, PlaidClient
from pricecache.errors import BrokerError, BrokerUnavailable

_ROUNDS = 4

Json = dict[str, Any]


async def gathered(client: PlaidClient, access_token: str, start: date, end: date) -> tuple[Json, list[Json]]:
    """The answer about holdings, and the pages of the transactions from `start` to `end`, both included.

    Pages are counted from the newest row, so one that comes meanwhile moves all others on: when the total changes, or
    the rows are fewer than it says, everything is read anew. Raises what the client does, `BrokerUnavailable` with
    code `plaid_unavailable` when it changes every time, and `BrokerError` with code `plaid_answer_bad` or
    `plaid_too_many_rows`.
    """
    for round_ in range(_ROUNDS):
        holdings = await client.holdings(access_token)
        pages = await _pages(client, access_token, start, end)
        if pages is None:
            continue
        # rows that are told twice for good make no difference at the last
        if round_ == _ROUNDS - 1 or await asyncio.to_thread(_are_distinct, pages):
            return holdings, pages
    raise BrokerUnavailable("The accounts change while they are read.", code="plaid_unavailable")


async def _pages(client: PlaidClient, access_token: str, start: date, end: date) -> list[Json] | None:
    pages: list[Json] = []
    total, read = None, 0
    while total is None or read < total:
        page = await client.transactions(access_token, start, end, offset=read, count=MOST_PER_PAGE)
        rows, told = _rows(page), page.get("total_investment_transactions")
        if not isinstance(told, int) or told < 0:
            raise BrokerError("Plaid does not say how many rows there are.", code="plaid_answer_bad")
        if told > MOST_TRANSACTIONS:  # said before the rest is read for nothing
            raise BrokerError(f"A login may have {MOST_TRANSACTIONS:,} rows here.", code="plaid_too_many_rows")
        if total not in (None, told) or (not rows and read < told):
            return None
        total, read = told, read + len(rows)
        pages.append(page)
    return pages


def _rows(page: Json) -> Sequence[Any]:
    rows = page.get("investment_transactions")
    if not isinstance(rows, list):
        raise BrokerError("Plaid's answer has no rows.", code="plaid_answer_bad")
    return rows


def _are_distinct(pages: Sequence[Json]) -> bool:
    ids = [str(row.get("investment_transaction_id")) for page in pages for row in _rows(page) if isinstance(row, dict)]
    return len(set(ids)) == len(ids)
