"""Instruments of users' own: the first user's who names one, hidden from other users, and priced by their owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.background import BackgroundTasks
from pricecache.core.instruments import Instrument
from tests.clock import START, RunningClock
from tests.integration.api_daemon import ApiDaemon, api_daemon
from tests.integration.test_api_access import KEYS, SECRET, bearer, key
from tests.integration.test_live_daemons import has, until

FUND = "/cache/historical/FUND?market=CUSTOM"
BARS = {"bars": [{"date": "2026-11-02", "close": 10}]}
ROW = {"date": "2026-11-02", "type": "buy", "symbol": "FUND", "market": "CUSTOM", "quantity": 1, "price": 10,
       "currency": "CHF"}  # fmt: skip


@pytest.fixture
async def guarded(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS, jwt_secret=SECRET) as daemon:
        yield daemon


async def owned(daemon: ApiDaemon, user: str = "alice") -> str:
    """The id of a portfolio of the user's in which FUND was bought."""
    headers = bearer(daemon, user)
    body = {"name": "own", "baseCurrency": "CHF"}
    _, portfolio = await daemon.call("POST", "/api/portfolios", json=body, headers=headers)
    status, answer = await bought(daemon, portfolio["id"], user)
    assert status == 201, answer
    return str(portfolio["id"])


async def bought(daemon: ApiDaemon, portfolio: str, user: str, *rows: dict[str, Any]) -> tuple[int, Any]:
    body = {"transactions": list(rows) or [ROW]}
    return await daemon.call(
        "POST", f"/api/portfolios/{portfolio}/transactions", json=body, headers=bearer(daemon, user)
    )


async def test_the_first_ledger_that_names_one_makes_it_its_users(guarded: ApiDaemon) -> None:
    await owned(guarded)
    entry = guarded.services.catalog.require(Instrument("FUND", "CUSTOM"))
    assert (entry.owner, entry.currency, entry.tracked) == ("alice", "CHF", False)
    await guarded.services.instruments.load_all()
    assert guarded.services.catalog.require(Instrument("FUND", "CUSTOM")).owner == "alice"


async def test_another_users_ledger_cannot_name_it_and_every_such_row_is_told(guarded: ApiDaemon) -> None:
    await owned(guarded)
    _, portfolio = await guarded.call("POST", "/api/portfolios", json={"name": "b"}, headers=bearer(guarded, "bob"))
    other = {**ROW, "symbol": "OTHER"}
    status, answer = await bought(guarded, portfolio["id"], "bob", ROW, other, ROW)
    assert (status, answer["code"]) == (422, "transactions_refused")
    assert [(row["row"], row["code"]) for row in answer["errors"]] == [
        (0, "symbol_of_another_user"),
        (2, "symbol_of_another_user"),
    ]
    assert guarded.services.catalog.find(Instrument("OTHER", "CUSTOM")) is None


async def test_its_owner_writes_its_prices_and_no_other_user_does(guarded: ApiDaemon) -> None:
    await owned(guarded)
    alice, bob = bearer(guarded), bearer(guarded, "bob")
    assert (await guarded.call("PUT", FUND, json=BARS, headers=alice))[0] == 200
    status, answer = await guarded.call("PUT", FUND, json=BARS, headers=bob)
    assert (status, answer["code"]) == (409, "symbol_of_another_user")
    assert (await guarded.call("DELETE", FUND, headers=bob))[0] == 409
    assert (await guarded.call("PUT", FUND, json=BARS, headers=key("ops")))[0] == 200
    split = {"actions": [{"kind": "split", "date": "2026-11-03", "ratio": 2}]}
    actions = "/cache/actions/FUND?market=CUSTOM"
    assert (await guarded.call("PUT", actions, json=split, headers=bob))[0] == 409
    assert (await guarded.call("PUT", actions, json=split, headers=alice))[0] == 200
    assert (await guarded.call("DELETE", actions, headers=alice))[0] == 200
    assert (await guarded.call("DELETE", FUND, headers=alice))[1]["retracted"] == 1


async def test_a_user_makes_one_by_its_first_price_and_operators_make_what_is_everybodys(guarded: ApiDaemon) -> None:
    assert (await guarded.call("PUT", FUND, json=BARS, headers=bearer(guarded)))[0] == 200
    assert guarded.services.catalog.require(Instrument("FUND", "CUSTOM")).owner == "alice"
    shared = "/cache/historical/SHARED?market=CUSTOM"
    assert (await guarded.call("PUT", shared, json=BARS, headers=key("ops")))[0] == 200
    assert guarded.services.catalog.require(Instrument("SHARED", "CUSTOM")).owner is None
    status, answer = await guarded.call("PUT", shared, json=BARS, headers=bearer(guarded))
    assert (status, answer["code"]) == (403, "scope_needed")
    assert (await guarded.get(shared, headers=bearer(guarded)))[0] == 200


@pytest.mark.parametrize("path", ["/cache/historical/AAPL", "/cache/historical/AAPL:US?market=CUSTOM"])
async def test_what_providers_price_is_not_for_users_to_write(guarded: ApiDaemon, path: str) -> None:
    status, _ = await guarded.call("PUT", path, json=BARS, headers=bearer(guarded))
    assert status in (403, 422)


async def test_to_other_users_it_is_not_there(guarded: ApiDaemon) -> None:
    await owned(guarded)
    alice, bob = bearer(guarded), bearer(guarded, "bob")
    await guarded.call("PUT", FUND, json=BARS, headers=alice)
    unknown = (await guarded.get(FUND.replace("FUND", "NONE"), headers=bob))[1]
    for path in ("historical", "coverage", "actions", "corrections", "symbols", "live"):
        one = f"/cache/{path}/FUND?market=CUSTOM"
        for _ in range(2):  # an answer that is kept is not given to somebody else either
            mine = await guarded.get(one, headers=alice)
            status, answer = await guarded.get(one, headers=bob)
            assert mine[0] == 200 or mine[1]["code"] == "no_quote"
            assert (status, answer["code"]) == (404, "unknown_symbol")
            assert answer["detail"] == unknown["detail"].replace("NONE", "FUND")
    for listing in ("/cache/symbols", "/cache/symbols/search?q=fund"):
        assert "'symbol': 'FUND'" in str((await guarded.get(listing, headers=alice))[1])
        assert "'symbol': 'FUND'" not in str((await guarded.get(listing, headers=bob))[1])
    assert (await guarded.get(FUND, headers=key("ops")))[0] == 200


async def test_another_users_own_is_no_benchmark(guarded: ApiDaemon) -> None:
    portfolio = await owned(guarded)
    target = f"/api/portfolio/performance?portfolioId={portfolio}&benchmark=FUND:CUSTOM"
    assert (await guarded.get(target, headers=bearer(guarded)))[0] == 200
    _, other = await guarded.call("POST", "/api/portfolios", json={"name": "b"}, headers=bearer(guarded, "bob"))
    target = target.replace(portfolio, other["id"])
    assert (await guarded.get(target, headers=bearer(guarded, "bob")))[0] == 404


async def test_its_prices_come_on_no_other_users_stream(database: Any) -> None:
    clock, background = RunningClock(START + 6 * 3600), BackgroundTasks()
    async with api_daemon(database, keys=KEYS, jwt_secret=SECRET, clock=clock) as daemon:
        background.start(daemon.parts.realtime.hub.run(), "hub")
        background.start(daemon.parts.realtime.bar_prices.run(), "bar-prices")
        headers = [bearer(daemon), bearer(daemon, "bob")]
        body = {"currency": "USD", "bars": [{"date": "2026-11-20", "close": 10}]}
        assert (await daemon.call("PUT", FUND, json=body, headers=headers[0]))[0] == 200
        alice, bob = [await daemon.session.ws_connect(daemon.base + "/ws/portfolio", headers=one) for one in headers]
        for socket in (bob, alice):
            await socket.send_json({"type": "subscribe", "channels": ["prices"], "symbols": ["FUND:CUSTOM"]})
        await until(alice, has("price:updated", symbol="FUND", price=10.0))
        body["bars"] = [{"date": "2026-11-20", "close": 11}]
        await daemon.call("PUT", FUND, json=body, headers=headers[0])
        await until(alice, has("price:updated", symbol="FUND", price=11.0))
        await bob.send_json({"type": "ping"})
        heard: list[Any] = []
        await until(bob, lambda message: heard.append(message) or message["type"] == "pong")  # type: ignore[func-returns-value]
        assert "price:updated" not in str(heard)
        for socket in (alice, bob):
            await socket.close()
        await background.end()
