"""Renames, delistings, currencies and spellings, over HTTP and in the store: one id, one history, every symbol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pymongo.asynchronous.database import AsyncDatabase
from structlog.testing import capture_logs

from pricecache.api import answers
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import Conflict
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.quotes import QuoteStore
from pricecache.stores.watch import ChangeWatcher
from pricecache.sync.publish import presently
from tests.clock import ManualClock
from tests.fakes.provider import Truth
from tests.integration.api_daemon import TODAY, ApiDaemon, api_daemon
from tests.integration.test_api_reads import exactly

FB, META = Instrument("FB"), Instrument("META")
JUNE_9 = 19152
"""2022-06-09."""


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database) as started:
        yield started


async def renamed(daemon: ApiDaemon, **body: Any) -> tuple[int, Any]:
    return await daemon.call("POST", "/cache/symbols/FB/rename", json={"to": "META", "on": "2022-06-09"} | body)


async def test_after_a_rename_both_symbols_answer_with_the_same_history(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(FB)
    await daemon.get("/cache/historical/FB")  # kept, and not to be answered again
    status, details = await renamed(daemon)
    assert status == 200
    assert (details["symbol"], details["id"]) == ("META", entry.id)
    assert details["aliases"] == [{"symbol": "FB", "market": "US", "from": None, "to": "2022-06-08"}]
    status, by_new = await daemon.get("/cache/historical/META")
    status, by_old = await daemon.get("/cache/historical/FB")
    assert by_old.pop("requested") == "FB"
    assert by_old == by_new
    assert (by_new["symbol"], len(by_new["bars"])) == ("META", 30)
    assert (await daemon.get("/cache/symbols/FB"))[1]["requested"] == "FB"
    assert [row["symbol"] for row in (await daemon.get("/cache/symbols"))[1]["symbols"]] == ["META"]
    assert [row["symbol"] for row in (await daemon.get("/cache/status"))[1]["symbols"]] == ["META"]
    exactly(answers.SymbolDetails, details)


async def test_a_rename_takes_the_live_quote_along(daemon: ApiDaemon, database: Any) -> None:
    entry = await daemon.stored(FB)
    quote = daemon.quoted(FB)
    await QuoteStore(database, daemon.clock).save([replace(quote, series=entry.id)])
    assert (await daemon.get("/cache/live/FB"))[1]["symbol"] == "FB"
    await renamed(daemon)
    _, live = await daemon.get("/cache/live/FB")
    assert (live["symbol"], live["requested"], live["price"]) == ("META", "FB", quote.price)
    assert (await daemon.get("/cache/live/META"))[1]["price"] == quote.price
    many = (await daemon.get("/cache/live?symbols=FB,MSFT"))[1]
    assert [(row["symbol"], row["requested"]) for row in many["quotes"]] == [("META", "FB")]
    assert [q["symbol"] for q in (await daemon.get("/cache/live"))[1]["quotes"]] == ["META"]
    assert [q.series for q in await QuoteStore(database, daemon.clock).load()] == [entry.id]


async def test_a_company_that_gets_a_former_symbol_never_shows_the_other_ones_price(
    daemon: ApiDaemon, database: Any
) -> None:
    old = await daemon.stored(FB)
    publisher = daemon.parts.prices.publisher
    now = daemon.clock.time()
    await publisher.publish([Quote(FB, 100.0, "USD", now, now, "scripted")], way="poll")
    await publisher.publish([Quote(FB, 101.0, "USD", now + 1, now, "scripted")], way="stream")
    await renamed(daemon)
    await daemon.call("POST", "/cache/symbols", json={"symbols": ["FB"]})
    await publisher.save_pushed()
    assert (await daemon.get("/cache/live/FB"))[1]["code"] == "no_quote"
    async with api_daemon(database) as restarted:
        await restarted.parts.load()
        assert (await restarted.get("/cache/live/FB"))[1]["code"] == "no_quote"
        assert (await restarted.get("/cache/live/META"))[1]["price"] == 101.0
        assert restarted.services.catalog.require(FB).id != old.id


async def test_a_quote_that_an_earlier_release_stored_is_that_of_its_instrument(
    daemon: ApiDaemon, database: Any
) -> None:
    await daemon.stored(FB)
    plain = {"price": 5.0, "currency": "USD", "as_of": 10.0, "received_at": 10.0, "source": "test"}
    await database["quotes"].insert_one({"_id": "FB:US", **plain})
    await renamed(daemon)
    await daemon.parts.load()
    await daemon.call("POST", "/cache/symbols", json={"symbols": ["FB"]})
    await daemon.parts.load()
    assert (await daemon.get("/cache/live/META"))[1]["price"] == 5.0
    assert (await daemon.get("/cache/live/FB"))[1]["code"] == "no_quote"


async def test_a_rename_is_idempotent_and_in_order(daemon: ApiDaemon) -> None:
    await daemon.stored(FB)
    first = await renamed(daemon)
    assert await renamed(daemon) == first
    assert len(daemon.services.catalog.require(META).aliases) == 1
    for body, code in (
        ({"to": "MVRS", "on": "2022-06-08"}, "rename_out_of_order"),
        ({"to": "BTC-USD", "on": "2022-06-10"}, "rename_of_another_kind"),
        ({"to": "META", "market": "DE"}, "rename_of_another_kind"),
        ({"to": "MVRS", "on": "2030-01-01"}, "date_in_the_future"),
        ({"to": "A..B"}, "invalid_symbol"),
        ({"to": "SAP.DE", "market": "US"}, "symbol_of_another_market"),
        ({"to": "MVRS", "market": "MARS"}, "unknown_market"),
        ({"on": "2022-06-09"}, "missing"),
    ):
        status, problem = await daemon.call("POST", "/cache/symbols/META/rename", json=body)
        assert (status, problem["code"]) == (422, code), body
    assert (await daemon.call("POST", "/cache/symbols/NONE/rename", json={"to": "X"}))[0] == 404


async def test_a_symbol_that_has_a_history_is_not_taken(daemon: ApiDaemon) -> None:
    await daemon.stored(FB)
    await daemon.stored(META)
    status, problem = await renamed(daemon)
    assert (status, problem["code"]) == (409, "symbol_taken")
    assert daemon.services.catalog.require(FB).instrument == FB
    assert len((await daemon.get("/cache/historical/FB"))[1]["bars"]) == 30


async def test_a_symbol_that_was_only_tracked_makes_room(daemon: ApiDaemon, database: Any) -> None:
    entry = await daemon.stored(FB)
    await daemon.services.instruments.add([META], wanted_from=0, tracked=True, by="test", now=0.0)
    assert (await renamed(daemon))[0] == 200
    assert daemon.services.catalog.require(META) is entry
    assert len(daemon.services.catalog) == 1
    assert await database["instruments"].count_documents({}) == 1


async def test_a_symbol_tracked_anew_is_another_instrument(daemon: ApiDaemon) -> None:
    old = await daemon.stored(FB)
    await renamed(daemon)
    assert (await daemon.get("/cache/historical/FB"))[1]["symbol"] == "META"
    daemon.truth(FB)
    status, _ = await daemon.call("POST", "/cache/symbols", json={"symbols": ["FB"]})
    assert status == 201
    new = daemon.services.catalog.require(FB)
    assert new.id != old.id
    assert daemon.services.catalog.find(FB, JUNE_9 - 1) is old
    assert daemon.services.catalog.find(FB, JUNE_9) is new
    assert (await daemon.get("/cache/historical/FB"))[1]["symbol"] == "FB"


async def test_a_backfill_by_a_former_symbol_fills_the_present_one(daemon: ApiDaemon) -> None:
    await daemon.stored(FB)
    await renamed(daemon)
    daemon.truth(META, 60)
    status, run = await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "FB"})
    assert (status, run["parameters"]["symbols"]) == (200, ["META:US"])
    assert len(daemon.services.catalog) == 1


async def test_two_renames_at_once_leave_one(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(FB)
    store = daemon.services.instruments
    results = await asyncio.gather(
        *(store.rename(entry, Instrument(name), JUNE_9) for name in ("META", "MVRS")), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 1
    assert entry.instrument in (META, Instrument("MVRS"))
    assert len(entry.aliases) == 1


async def test_another_daemon_learns_of_a_rename(daemon: ApiDaemon, database: AsyncDatabase[Any]) -> None:
    await daemon.stored(FB)
    catalog, clock = Catalog(), ManualClock()
    instruments = InstrumentStore(database, catalog)
    heard: list[tuple[Instrument, Instrument]] = []
    told = asyncio.Event()

    def on_renamed(before: Instrument, after: Instrument) -> None:
        heard.append((before, after))
        told.set()

    instruments.on_renamed = on_renamed
    opened = asyncio.Event()
    watcher = ChangeWatcher(
        database, catalog, instruments, BarStore(database), QuoteStore(database, clock), "other", lambda q: None, clock,
        PortfolioHeads(),
    )  # fmt: skip
    task = asyncio.create_task(watcher.run(opened.set))
    try:
        async with asyncio.timeout(10):
            await opened.wait()
            theirs = catalog.require(FB)
            await renamed(daemon)
            await told.wait()
    finally:
        task.cancel()
    assert heard == [(FB, META)]
    assert catalog.require(META) is theirs is catalog.require(FB)


async def test_one_that_made_room_is_forgotten_by_a_daemon_that_did_not_hear_of_it(
    daemon: ApiDaemon, database: Any
) -> None:
    await daemon.stored(FB)
    await daemon.services.instruments.add([META], wanted_from=0, tracked=True, by="test", now=0.0)
    catalog = Catalog()
    theirs = InstrumentStore(database, catalog)
    await theirs.load_all()
    assert len(catalog) == 2
    await renamed(daemon)
    await theirs.load_all()
    assert [str(entry.instrument) for entry in catalog] == ["META:US"]
    assert catalog.require(META).id == daemon.services.catalog.require(META).id


async def test_what_a_person_says_of_a_symbol_is_kept_and_shown(daemon: ApiDaemon, database: Any) -> None:
    await daemon.stored(FB)
    body = {
        "delistedAfter": "2026-11-10",
        "spellings": {"scripted": "FB2"},
        "currency": {"from": "2026-11-02", "code": "EUR"},
        "kind": "fund",
        "name": "Meta Platforms",
    }
    status, details = await daemon.call("PATCH", "/cache/symbols/FB", json=body)
    assert status == 200
    assert details["delistedAfter"] == "2026-11-10"
    assert details["spellings"] == {"scripted": "FB2"}
    assert (details["kind"], details["name"], details["currency"]) == ("fund", "Meta Platforms", "EUR")
    assert details["currencies"] == [{"from": None, "currency": "USD"}, {"from": "2026-11-02", "currency": "EUR"}]
    assert (details["calendar"], details["timeZone"]) == ("XNYS", "America/New_York")
    history = (await daemon.get("/cache/historical/FB"))[1]
    assert history["currencies"] == details["currencies"]
    assert (await daemon.get("/cache/symbols/FB"))[1] == details
    again = Catalog()
    await InstrumentStore(database, again).load_all()
    assert again.require(FB).currencies == daemon.services.catalog.require(FB).currencies
    assert again.require(FB).state.delisted_after == TODAY - 10
    status, details = await daemon.call(
        "PATCH", "/cache/symbols/FB", json={"delistedAfter": None, "spellings": {"csv": None}, "kind": None}
    )
    assert (details["delistedAfter"], details["spellings"], details["kind"]) == (None, {"scripted": "FB2"}, None)
    assert details["name"] == "Meta Platforms"


async def test_a_delisted_symbol_is_asked_for_no_more(daemon: ApiDaemon) -> None:
    await daemon.stored(FB, last=TODAY - 10)
    daemon.truth(FB)
    await daemon.call("PATCH", "/cache/symbols/FB", json={"delistedAfter": "2026-11-10"})
    coverage = (await daemon.get("/cache/coverage/FB?start=2026-11-01&end=2026-11-19"))[1]
    assert [gap["class"] for gap in coverage["missing"]] == ["after_delisting"]
    assert coverage["complete"]
    daemon.provider.calls.clear()
    await daemon.call("POST", "/cache/refresh-live?wait=5")
    assert daemon.provider.calls == []
    await daemon.call("POST", "/cache/refresh-live?wait=5", json={"symbols": ["FB"]})
    assert len(daemon.provider.calls) == 1


async def test_a_provider_does_not_change_what_a_person_said(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(FB)
    store = daemon.services.instruments
    await store.set_facts(entry, kind="equity", name="Facebook")
    assert (entry.kind, entry.name) == ("equity", "Facebook")
    await daemon.call("PATCH", "/cache/symbols/FB", json={"name": "Mine"})
    await store.set_facts(entry, kind="etf", name="Facebook")
    assert (entry.kind, entry.name) == ("etf", "Mine")


async def test_everything_that_is_wrong_with_a_change_is_said_at_once(daemon: ApiDaemon) -> None:
    await daemon.stored(FB)
    body = {
        "delistedAfter": "soon",
        "spellings": {"sample": "A..B", "Csv!": "X"},
        "currency": {"from": "2023-01-01", "code": "dollars"},
        "kind": "thing",
        "name": "",
        "color": "red",
    }
    status, problem = await daemon.call("PATCH", "/cache/symbols/FB", json=body)
    assert status == 422
    assert len(problem["errors"]) == 7
    for body, code in (
        ({}, "nothing_to_change"),
        ({"currency": {"from": "2030-01-01", "code": "EUR"}}, "date_in_the_future"),
    ):
        status, problem = await daemon.call("PATCH", "/cache/symbols/FB", json=body)
        assert (status, problem["code"]) == (422, code)
    assert (await daemon.call("PATCH", "/cache/symbols/NONE", json={"name": "X"}))[0] == 404


async def test_the_kind_and_currency_of_a_new_symbol_are_those_of_its_notation(daemon: ApiDaemon) -> None:
    names = ["^FTSE", "JPY=X", "BTC-EUR", "AAPL"]
    instruments = [Instrument.parse(name) for name in names]
    entries = await daemon.services.instruments.add(instruments, wanted_from=0, tracked=False, by="test", now=0.0)
    assert [(entry.kind, entry.currency) for entry in entries] == [
        ("index", "GBP"), ("currency", "JPY"), ("crypto", "EUR"), (None, "USD"),
    ]  # fmt: skip


async def stored_as(database: Any, series_id: int, symbol: str, market: str = "US", tracked: bool = True) -> None:
    await database["instruments"].insert_one(
        {"_id": series_id, "symbol": symbol, "market": market, "currency": "USD", "tracked": tracked, "wantedFrom": 0}
    )


async def test_what_an_older_daemon_stored_under_another_notation_is_found(database: Any) -> None:
    await stored_as(database, 1, "BRK-B")
    await stored_as(database, 2, "700", "HK")
    await stored_as(database, 3, "BTC-USD", "US")
    await stored_as(database, 4, "AAPL-IBM")
    quote = Quote(Instrument("BRK-B"), 400.0, "USD", 5.0, 5.0, "test", series=1)
    await QuoteStore(database, ManualClock()).save([quote])
    catalog = Catalog()
    await InstrumentStore(database, catalog).load_all()
    ids = {str(entry.instrument): entry.id for entry in catalog}
    assert ids == {"BRK.B:US": 1, "0700:HK": 2, "BTC-USD:CRYPTO": 3, "AAPL-IBM:US": 4}
    (held,) = await QuoteStore(database, ManualClock()).load()
    assert presently(catalog, held) == replace(quote, instrument=Instrument("BRK.B"))
    again = Catalog()
    await InstrumentStore(database, again).load_all()
    assert {str(entry.instrument): entry.id for entry in again} == ids


async def test_of_two_notations_with_a_history_each_the_canonical_one_stays(database: Any) -> None:
    await stored_as(database, 1, "BRK-B")
    await stored_as(database, 2, "BRK.B")
    await database["series"].insert_one({"_id": 2, "rev": 1})
    catalog = Catalog()
    with capture_logs() as logs:
        await InstrumentStore(database, catalog).load_all()
    assert [line["event"] for line in logs] == ["instrument stored under two notations"]
    assert catalog.require(Instrument("BRK.B")).id == 2
    assert not catalog.require(Instrument("BRK-B")).tracked
    with capture_logs() as logs:
        await InstrumentStore(database, Catalog()).load_all()
    assert logs == []


async def test_history_of_a_renamed_symbol_is_one_series_that_goes_on(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(FB, 30, last=TODAY - 8)
    await renamed(daemon)
    sessions = daemon.services.calendars.get("XNYS").between(int(entry.head.first or 0), TODAY - 1)
    close = 100.0 + np.arange(len(sessions)) * 0.25
    values = np.array([close - 0.5, close + 1, close - 1, close, 1e6 + np.arange(len(sessions))])
    daemon.provider.truth[META] = Truth(Bars(sessions, values))
    await daemon.call("POST", "/cache/sync-historical?wait=5")
    assert {call.instruments for call in daemon.provider.calls if call.start is not None} == {(META,)}
    assert (entry.head.last, entry.head.count) == (TODAY - 1, len(sessions))


async def test_a_mistyped_rename_is_put_right_on_its_day_and_undone(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(FB)
    await renamed(daemon, to="MTEA")
    status, details = await daemon.call("POST", "/cache/symbols/MTEA/rename", json={"to": "META", "on": "2022-06-09"})
    assert (status, details["symbol"], details["id"]) == (200, "META", entry.id)
    assert details["aliases"] == [{"symbol": "FB", "market": "US", "from": None, "to": "2022-06-08"}]
    assert (await daemon.get("/cache/symbols/MTEA"))[0] == 404
    assert (await daemon.get("/cache/historical/FB"))[1]["requested"] == "FB"
    status, details = await daemon.call("POST", "/cache/symbols/META/rename", json={"to": "FB", "on": "2022-06-09"})
    assert (status, details["symbol"], details["aliases"]) == (200, "FB", [])
    assert (await daemon.get("/cache/symbols/META"))[0] == 404
    assert (await renamed(daemon))[0] == 200


async def test_nonsense_about_a_symbol_is_refused(daemon: ApiDaemon) -> None:
    await daemon.stored(FB)
    for body, field, code in (
        ({"spellings": {"bloomberg": "FB"}}, "spellings.bloomberg", "provider_not_in_use"),
        ({"delistedAfter": "1899-12-31"}, "delistedAfter", "delisted_before_first_bar"),
        ({"delistedAfter": "2026-10-01"}, "delistedAfter", "delisted_before_first_bar"),
        ({"name": "Meta\u0000"}, "name", "invalid_value"),
        ({"currency": {"from": "2026-11-02", "code": "QQQ"}}, "currency.code", "bad_currency"),
    ):
        status, problem = await daemon.call("PATCH", "/cache/symbols/FB", json=body)
        assert (status, problem["code"]) == (422, code), body
        assert problem["errors"][0]["field"] == field
    _, problem = await daemon.call("PATCH", "/cache/symbols/FB", json={"spellings": {"bloomberg": "FB"}})
    assert "scripted" in problem["detail"]


async def test_a_change_of_currency_makes_the_quote_stale_and_shows_in_every_format(daemon: ApiDaemon) -> None:
    await daemon.stored(FB)
    daemon.quoted(FB)
    assert not (await daemon.get("/cache/live/FB"))[1]["stale"]
    await daemon.call("PATCH", "/cache/symbols/FB", json={"currency": {"from": "2026-11-02", "code": "GBp"}})
    quote = (await daemon.get("/cache/live/FB"))[1]
    assert (quote["currency"], quote["stale"]) == ("USD", True)
    for query in ("format=csv", "format=csv&interval=1h"):
        async with daemon.session.get(f"{daemon.base}/cache/historical/FB?{query}") as response:
            assert response.headers["X-Pricecache-Currencies"] == "USD, GBp;from=2026-11-02"
