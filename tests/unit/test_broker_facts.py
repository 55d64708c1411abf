"""Since when a security was held: the rows say it where they make up what is held, else it was before them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pricecache.core.broker.data import BrokerAccount, BrokerData, BrokerHolding, BrokerSecurity, BrokerTransaction
from pricecache.portfolio.broker_facts import BrokerFacts

D = Decimal


def facts(held: dict[str, str], *moved: tuple[str, int, str]) -> BrokerFacts:
    """Of one security: what is held by account, and what moved: account, day, quantity."""
    rows = tuple(
        BrokerTransaction(str(number), account, day, "buy" if D(quantity) > 0 else "sell", "s", D(quantity))
        for number, (account, day, quantity) in enumerate(moved)
    )
    accounts = {name: BrokerAccount(name, name) for name in ("a", "b")}
    holdings = tuple(BrokerHolding(account, "s", D(quantity)) for account, quantity in held.items())
    return BrokerFacts.of(BrokerData(200, 100, accounts, {"s": BrokerSecurity("s")}, holdings, {}, rows))


@pytest.mark.parametrize(
    ("held", "moved", "first", "is_before"),
    [
        ({"a": "10"}, [("a", 150, "10")], 150, False),
        ({"a": "7"}, [("a", 150, "10"), ("a", 160, "-3")], 150, False),
        ({}, [("a", 150, "10"), ("a", 160, "-10")], 150, False),
        ({"a": "10.0000004"}, [("a", 150, "10")], 150, False),
        ({"a": "10"}, [], 99, True),
        ({"a": "10"}, [("a", 150, "4")], 99, True),
        ({}, [("a", 150, "-4")], 99, True),
        ({"a": "10"}, [("a", 150, "4"), ("b", 150, "6")], 99, True),
    ],
)
def test_first_use_is_that_of_the_first_row_unless_something_was_there_before(
    held: dict[str, str], moved: list[tuple[str, int, str]], first: int, is_before: bool
) -> None:
    found = facts(held, *moved)
    assert (found.first_uses["s"], "s" in found.since_before) == (first, is_before)
