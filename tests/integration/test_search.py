"""Search: what is known here first, then what the providers know, whoever of them fails, and few calls for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from pricecache.core.asking import Found
from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderError, ProviderUnavailable, RateLimited
from pricecache.stores.searches import SearchStore
from pricecache.sync.searching import ProviderSearch
from tests.clock import ManualClock
from tests.integration.api_daemon import ApiDaemon, api_daemon

AAPL, APLE, BRK = Instrument("AAPL"), Instrument("APLE"), Instrument("BRK.B")


class Providers:
    """Finds the same for every text, or fails; and counts."""

    name = "one,two"

    def __init__(self, *found: Found) -> None:
        self.found = list(found)
        self.failures: dict[str, ProviderError] = {}
        self.error: ProviderError | None = None
        self.asked: list[str] = []
        self.hangs = False

    async def search(self, text: str, limit: int) -> tuple[list[Found], dict[str, ProviderError]]:
        self.asked.append(text)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.found[:limit], self.failures


PROVIDERS = Providers(
    Found(AAPL, "Apple Inc.", "equity", "USD", "one"),
    Found(APLE, "Apple Hospitality", "equity", "USD", "one"),
    Found(Instrument("APC", "DE"), "Apple Inc.", "equity", "EUR", "two"),
)


@pytest.fixture
def providers() -> Providers:
    return Providers(*PROVIDERS.found)


@pytest.fixture
async def daemon(database: Any, providers: Providers) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, search=providers) as started:
        yield started


async def found(daemon: ApiDaemon, query: str) -> list[str]:
    status, answer = await daemon.get(f"/cache/symbols/search?{query}")
    assert status == 200, answer
    return [f"{row['symbol']}:{row['market']}" for row in answer["results"]]


async def known(daemon: ApiDaemon, *names: tuple[str, str | None]) -> None:
    instruments = [Instrument.parse(symbol) for symbol, _ in names]
    entries = await daemon.services.instruments.add(instruments, wanted_from=0, tracked=True, by="test", now=0.0)
    for entry, (_, name) in zip(entries, names, strict=True):
        await daemon.services.instruments.set_facts(entry, name=name)


async def test_what_is_known_here_comes_first_and_nothing_twice(daemon: ApiDaemon) -> None:
    await known(daemon, ("AAPL", None), ("MSFT", "Microsoft"))
    _, answer = await daemon.get("/cache/symbols/search?q=aap")
    assert answer["query"] == "AAP"
    assert answer["providers"] == []
    assert answer["results"][0] == {
        "symbol": "AAPL",
        "market": "US",
        "name": "Apple Inc.",
        "kind": "equity",
        "currency": "USD",
        "tracked": True,
        "source": "pricecache",
    }
    assert [(row["symbol"], row["tracked"], row["source"]) for row in answer["results"][1:]] == [
        ("APLE", False, "one"),
        ("APC", False, "two"),
    ]
    assert await found(daemon, "q=aap&limit=2") == ["AAPL:US", "APLE:US"]


async def test_symbols_names_former_symbols_and_other_notations_are_found(
    daemon: ApiDaemon, providers: Providers
) -> None:
    providers.found = []
    await known(daemon, ("BRK.B", "Berkshire Hathaway"), ("FB", "Meta Platforms"), ("XBRK", None), ("BRKX", None))
    await daemon.call("POST", "/cache/symbols/FB/rename", json={"to": "META", "on": "2022-06-09"})
    assert await found(daemon, "q=brk-b") == ["BRK.B:US"]
    assert await found(daemon, "q=brk") == ["BRKX:US", "BRK.B:US", "XBRK:US"]
    assert await found(daemon, "q=hatha") == ["BRK.B:US"]
    assert await found(daemon, "q=fb") == ["META:US"]
    assert await found(daemon, "q=%20Meta%20pl") == ["META:US"]
    assert await found(daemon, "q=nothing") == []


async def test_a_provider_that_names_a_former_symbol_does_not_bring_it_back(
    daemon: ApiDaemon, providers: Providers
) -> None:
    await known(daemon, ("FB", "Meta Platforms"))
    await daemon.call("POST", "/cache/symbols/FB/rename", json={"to": "META", "on": "2022-06-09"})
    providers.found = [Found(Instrument("FB"), "Facebook", source="one")]
    assert await found(daemon, "q=facebook") == ["META:US"]


async def test_a_failing_provider_is_named_and_fails_nothing(daemon: ApiDaemon, providers: Providers) -> None:
    await known(daemon, ("AAPL", "Apple"))
    providers.failures = {"two": RateLimited()}
    _, answer = await daemon.get("/cache/symbols/search?q=apple")
    assert answer["providers"] == [{"name": "two", "code": "rate_limited"}]
    assert len(answer["results"]) == 3
    providers.failures, providers.error = {}, ProviderUnavailable()
    _, answer = await daemon.get("/cache/symbols/search?q=apple")
    assert answer["providers"] == [{"name": "one,two", "code": "provider_unavailable"}]
    assert [row["symbol"] for row in answer["results"]] == ["AAPL"]
    providers.error = None
    assert len(await found(daemon, "q=apple")) == 3  # what failed was not kept


async def test_one_text_is_asked_for_once_a_day(daemon: ApiDaemon, providers: Providers) -> None:
    for query in ("q=apple", "q=APPLE&limit=1", "q=%20Apple"):
        await found(daemon, query)
    assert providers.asked == ["APPLE"]
    daemon.clock.advance(86401)
    await found(daemon, "q=apple")
    assert providers.asked == ["APPLE", "APPLE"]


async def test_a_provider_that_does_not_answer_is_not_waited_for(database: Any, providers: Providers) -> None:
    providers.hangs = True
    search = ProviderSearch(providers, SearchStore(database, ManualClock()), wait_seconds=0.01)
    assert (await search.search("APPLE")).failures == {"one,two": "no_answer_in_time"}


@pytest.mark.parametrize("query", ["", "q=", "q=%20", f"q={'a' * 65}", "q=a&limit=0", "q=a&limit=51", "q=a&x=1"])
async def test_a_bad_search_is_refused(daemon: ApiDaemon, providers: Providers, query: str) -> None:
    assert (await daemon.get(f"/cache/symbols/search?{query}"))[0] == 422
    assert providers.asked == []


async def test_a_symbol_of_that_name_is_reached_in_upper_case(daemon: ApiDaemon) -> None:
    await known(daemon, ("SEARCH", None))
    assert (await daemon.get("/cache/symbols/SEARCH"))[1]["symbol"] == "SEARCH"
    assert (await daemon.call("DELETE", "/cache/symbols/SEARCH"))[0] == 200


async def test_searches_that_fail_leave_prices_and_the_budget_alone(database: Any) -> None:
    async with api_daemon(database) as daemon:
        provider, (pool,) = daemon.provider, daemon.services.pools
        provider.capabilities |= {"search"}
        pool.pace = replace(pool.pace, per_day=100)

        def fail(text: str, limit: int) -> list[Found]:
            raise ProviderUnavailable

        provider.search = fail  # type: ignore[method-assign]
        codes = []
        for number in range(8):
            _, answer = await daemon.get(f"/cache/symbols/search?q=none{number}")
            codes += [row["code"] for row in answer["providers"]]
        assert codes == ["provider_unavailable"] * 5 + ["budget_spent"] * 3
        _, told = await daemon.get("/cache/providers")
        assert (told["providers"][0]["state"], told["providers"][0]["breaker"]["failures"]) == ("ok", 0)
        assert told["providers"][0]["budget"]["byLane"]["search"] == {"spent": 5, "remaining": 0}
        assert told["providers"][0]["budget"]["byLane"]["user"]["remaining"] == 55
        daemon.truth(AAPL)
        assert (await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL"}))[0] == 200
        assert len((await daemon.get("/cache/historical/AAPL"))[1]["bars"]) > 0
