"""How much of an item is read at all."""

from __future__ import annotations

from datetime import date
from typing import Any, cast

import pytest

from pricecache.brokers.limits import MOST_TRANSACTIONS
from pricecache.brokers.plaid_client import PlaidClient
from pricecache.brokers.plaid_pages import gathered
from pricecache.errors import BrokerError


class Long:
    """Answers as an item that has more rows than may be."""

    def __init__(self) -> None:
        self.pages = 0

    async def holdings(self, token: str) -> dict[str, Any]:
        return {}

    async def transactions(self, token: str, start: date, end: date, *, offset: int, count: int) -> dict[str, Any]:
        self.pages += 1
        return {"investment_transactions": [{}] * count, "total_investment_transactions": MOST_TRANSACTIONS + 1}


async def test_more_rows_than_may_be_are_refused_by_the_first_page() -> None:
    item = Long()
    with pytest.raises(BrokerError) as raised:
        await gathered(cast(PlaidClient, item), "token", date(2024, 11, 20), date(2026, 11, 20))
    assert (raised.value.code, item.pages) == ("plaid_too_many_rows", 1)
    assert "200,000" in raised.value.detail
