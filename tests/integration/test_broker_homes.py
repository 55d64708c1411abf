"""A new connection gets its portfolio and its accounts in one step, however many ask for them at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pricecache.clock import SystemClock
from pricecache.core.broker.data import BrokerAccount
from pricecache.core.portfolios import Portfolio
from pricecache.errors import Conflict
from pricecache.portfolio.broker_homes import BrokerHomes
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.portfolios import PortfolioStore

NOW = 1_800_000_000.0
ACCOUNTS = [BrokerAccount(name, name.title(), "My broker", "ira", "USD") for name in ("one", "two", "three")]


def _homes(database: Any) -> tuple[ConnectionStore, PortfolioStore, BrokerHomes]:
    connections, portfolios = ConnectionStore(database), PortfolioStore(database, PortfolioHeads())
    return connections, portfolios, BrokerHomes(connections, portfolios, SystemClock())


async def test_of_many_that_settle_at_once_all_have_one_portfolio_with_each_account_once(database: Any) -> None:
    connections, portfolios, _ = _homes(database)
    made = await connections.create_posted("ann", "broker", None, NOW)
    found = await asyncio.gather(*(_homes(database)[2].settle(made, ACCOUNTS) for _ in range(6)))
    (home,) = await portfolios.all_of("ann")
    assert {portfolio.id for _, portfolio in found} == {home.id}
    assert {tuple(sorted(connection.accounts.items())) for connection, _ in found} == {
        tuple(sorted((await connections.get("ann", made.id)).accounts.items()))
    }
    own = await portfolios.accounts(home.id)
    assert sorted(one.name for one in own) == ["One", "Three", "Two"]
    assert {one.id for one in own} == set(found[0][0].accounts.values())


async def test_who_is_late_leaves_nothing_behind(database: Any) -> None:
    connections, portfolios, homes = _homes(database)
    made = await connections.create_posted("ann", "broker", None, NOW)
    elsewhere = await connections.settle(made, "f" * 24, {})  # meanwhile
    connection, home = await homes.settle(made, ACCOUNTS)
    assert (connection.portfolio, home.id) == (elsewhere.portfolio, elsewhere.portfolio)
    assert [one.id for one in await portfolios.all_of("ann")] == [home.id]
    assert await database["accounts"].count_documents({}) == len(ACCOUNTS)


async def test_an_account_that_comes_later_is_added(database: Any) -> None:
    connections, portfolios, homes = _homes(database)
    made = await connections.create_posted("ann", "broker", None, NOW)
    first, home = await homes.settle(made, ACCOUNTS[:1])
    second, same = await homes.settle(first, ACCOUNTS)
    assert same.id == home.id
    assert second.accounts["one"] == first.accounts["one"]
    assert {one.id for one in await portfolios.accounts(home.id)} == set(second.accounts.values())


async def test_another_portfolio_is_made_when_its_own_is_gone_and_for_nothing_else(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections, portfolios, homes = _homes(database)
    made, home = await homes.settle(await connections.create_posted("ann", "broker", None, NOW), ACCOUNTS)
    assert await homes.anew(made) == made

    async def changed(owner: str, portfolio_id: str) -> Portfolio:
        raise Conflict("It was changed meanwhile.")

    monkeypatch.setattr(portfolios, "get", changed)
    with pytest.raises(Conflict) as raised:
        await homes.anew(made)
    assert raised.value.code == "conflict"
    monkeypatch.undo()
    assert await connections.get("ann", made.id) == made
    await portfolios.delete("ann", home.id)
    again = await homes.anew(made)
    assert (again.portfolio not in (None, home.id), again.accounts) == (True, {})
