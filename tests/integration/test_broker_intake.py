"""To whom belongs what a user posts: sources and accounts told apart, securities too, and no post lost."""

from __future__ import annotations

from typing import Any

from tests.integration.api_daemon import ApiDaemon
from tests.integration.test_reconstruction import ANN, daemon, done, ended, holdings, post, rows_of

__all__ = ["daemon"]


def bank(source: str | None, symbol: str, quantity: float, account: str = "1") -> dict[str, Any]:
    said = {} if source is None else {"source": source}
    return {
        **said,
        "asOf": "2026-11-20",
        "accounts": [{"id": account, "name": source or account}],
        "securities": [{"id": "x", "symbol": symbol, "exchange": "XNAS", "name": f"{symbol} Inc.", "type": "equity"}],
        "holdings": [{"accountId": account, "securityId": "x", "quantity": quantity, "price": 79.5}],
    }


def fund(account: str, price: float) -> dict[str, Any]:
    return {
        "asOf": "2026-11-20",
        "accounts": [{"id": account}],
        "securities": [{"id": "1", "name": f"Fund of {account}", "type": "mutual_fund"}],
        "holdings": [{"accountId": account, "securityId": "1", "quantity": 10, "price": price}],
    }


async def test_two_brokers_that_both_have_an_account_1_are_two_connections(daemon: ApiDaemon) -> None:
    first = await done(daemon, bank("Fidelity", "AAPL", 10))
    rows = await rows_of(daemon, first["portfolioId"])
    second = await done(daemon, bank("Schwab", "MSFT", 5))
    unnamed = await done(daemon, bank(None, "MSFT", 7))
    assert len({one["connectionId"] for one in (first, second, unnamed)}) == 3
    assert await rows_of(daemon, first["portfolioId"]) == rows
    assert list((await holdings(daemon, first["portfolioId"])).values()) == [10]
    assert list((await holdings(daemon, second["portfolioId"])).values()) == [5]
    for before, body in ((first, bank("Fidelity", "AAPL", 11)), (unnamed, bank(None, "MSFT", 8))):
        again = await done(daemon, body)
        assert again["connectionId"] == before["connectionId"]


async def test_two_brokers_in_one_portfolio_have_each_an_account_1(daemon: ApiDaemon) -> None:
    first = await done(daemon, bank("Fidelity", "AAPL", 10))
    second = await done(daemon, {"broker": bank("Schwab", "AAPL", 5), "portfolioId": first["portfolioId"]})
    assert second["connectionId"] != first["connectionId"]
    _, found = await daemon.get(f"/api/portfolios/{first['portfolioId']}/accounts", headers=ANN)
    assert sorted(one["name"] for one in found["accounts"]) == ["Fidelity", "Schwab"]
    assert sorted((await holdings(daemon, first["portfolioId"])).values()) == [5, 10]


async def test_two_brokers_without_a_name_that_both_have_a_fund_1_have_two_funds(daemon: ApiDaemon) -> None:
    first, second = await done(daemon, fund("a", 12.0)), await done(daemon, fund("b", 99.0))
    assert first["connectionId"] != second["connectionId"]
    prices = []
    for one in (first, second):
        _, answer = await daemon.get(f"/api/portfolios/{one['portfolioId']}/holdings", headers=ANN)
        prices += [(held["symbol"], held["price"]) for held in answer["holdings"]]
    assert len(dict(prices)) == 2
    assert [price for _, price in prices] == [12.0, 99.0]


async def test_a_connection_from_before_names_were_kept_goes_on_with_its_funds(
    daemon: ApiDaemon, database: Any
) -> None:
    other = await done(daemon, fund("b", 3.0))
    await database["connections"].update_one({"_id": other["connectionId"]}, {"$unset": {"name": 1}})
    first = await done(daemon, {**fund("b", 4.0)})
    assert first["connectionId"] == other["connectionId"]
    data, _ = await daemon.parts.broker_data.load(first["connectionId"])  # type: ignore[misc]
    assert {one.scope for one in data.securities.values()} == {"posted:broker"}


async def test_a_portfolio_that_went_while_its_reconstruction_stayed_is_made_again(
    daemon: ApiDaemon, database: Any
) -> None:
    body = bank("Fidelity", "AAPL", 10)
    first = await done(daemon, body)
    await database["portfolios"].delete_one({"_id": first["portfolioId"]})  # whoever deleted it was killed then
    again = await done(daemon, body)
    assert again["portfolioId"] != first["portfolioId"]
    assert list((await holdings(daemon, again["portfolioId"])).values()) == [10]


async def test_what_is_damaged_and_failed_for_it_is_healed_by_the_same_post(daemon: ApiDaemon, database: Any) -> None:
    body = bank("Fidelity", "AAPL", 10)
    first = await done(daemon, body)
    await database["broker_data"].update_many({"pieces": {"$exists": True}}, {"$set": {"pieces": [b"damaged"]}})
    path = f"/api/portfolios/{first['portfolioId']}"
    assert (await daemon.call("PATCH", path, json={"costBasis": "average"}, headers=ANN))[0] == 200
    assert (await ended(daemon, first["connectionId"]))["state"] == "failed"  # of the very payload
    assert (await post(daemon, body))[0] == 202
    assert (await ended(daemon, first["connectionId"]))["state"] == "done"
