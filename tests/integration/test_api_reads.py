"""Reading over HTTP: the shapes callers use, conditional requests, and that no GET ever calls a provider."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from pricecache.api import answers
from pricecache.api.routes import ROUTES
from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.instruments import Instrument
from pricecache.stores.bars import Change
from pricecache.stores.runs import Run, new_run_id
from tests.clock import START
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database) as started:
        yield started


def exactly(model: type[BaseModel], answer: dict[str, Any]) -> None:
    """The answer has every field of its model, of the right type; its top level has no others."""
    model.model_validate(answer)
    names = {field.alias or name for name, field in model.model_fields.items() if field.is_required()}
    assert names <= answer.keys()
    assert answer.keys() <= {field.alias or name for name, field in model.model_fields.items()}


async def test_a_quote_has_the_shape_callers_use(daemon: ApiDaemon) -> None:
    await daemon.stored()
    daemon.quoted(open=184.5, day_high=186.0, day_low=183.5, volume=1e6)
    status, quote = await daemon.get("/cache/live/AAPL")
    assert status == 200
    exactly(answers.QuoteOut, quote)
    assert quote == {
        "symbol": "AAPL", "market": "US", "price": 185.64, "previousClose": 184.0, "open": 184.5, "dayHigh": 186.0,
        "dayLow": 183.5, "volume": 1000000.0, "currency": "USD", "asOf": "2026-11-20T09:59:50Z", "ageSeconds": 10,
        "stale": False, "source": "scripted",
    }  # fmt: skip


async def test_the_age_of_a_quote_goes_on_and_its_tag_does_not(daemon: ApiDaemon) -> None:
    daemon.quoted()
    async with daemon.session.get(daemon.base + "/cache/live/AAPL") as first:
        tag, age = first.headers["ETag"], (await first.json())["ageSeconds"]
    daemon.clock.advance(3)
    async with daemon.session.get(daemon.base + "/cache/live/AAPL") as second:
        assert (await second.json())["ageSeconds"] == age + 3
        assert second.headers["ETag"] == tag


async def test_a_new_quote_is_seen_at_once(daemon: ApiDaemon) -> None:
    daemon.quoted(price=1.0)
    assert (await daemon.get("/cache/live/AAPL"))[1]["price"] == 1.0
    assert (await daemon.get("/cache/live?symbols=AAPL"))[1]["quotes"][0]["price"] == 1.0
    daemon.quoted(price=2.0)
    assert (await daemon.get("/cache/live/AAPL"))[1]["price"] == 2.0
    assert (await daemon.get("/cache/live?symbols=AAPL"))[1]["quotes"][0]["price"] == 2.0
    assert (await daemon.get("/cache/live"))[1]["quotes"][0]["price"] == 2.0


async def test_a_quote_becomes_stale_to_the_second(daemon: ApiDaemon) -> None:
    daemon.quoted(stale_at=daemon.clock.time() + 0.5)
    async with daemon.session.get(daemon.base + "/cache/live/AAPL") as fresh:
        assert not (await fresh.json())["stale"]
    daemon.clock.advance(0.5)
    async with daemon.session.get(daemon.base + "/cache/live/AAPL") as stale:
        assert (await stale.json())["stale"]
        assert stale.headers["ETag"] != fresh.headers["ETag"]


async def test_many_quotes_come_with_what_is_missing_and_why(daemon: ApiDaemon) -> None:
    await daemon.stored(Instrument("MSFT"))
    daemon.quoted()
    daemon.quoted(Instrument("SAP", "DE"), currency="EUR")
    status, answer = await daemon.get("/cache/live?symbols=aapl,MSFT,IBM,SAP:DE,AAPL&market=US")
    assert status == 200
    exactly(answers.LiveOut, answer)
    assert [(q["symbol"], q["market"]) for q in answer["quotes"]] == [("AAPL", "US"), ("SAP", "DE")]
    assert answer["missing"] == [
        {"symbol": "MSFT", "market": "US", "code": "no_quote"},
        {"symbol": "IBM", "market": "US", "code": "unknown_symbol"},
    ]
    assert len((await daemon.get("/cache/live"))[1]["quotes"]) == 2
    assert [q["symbol"] for q in (await daemon.get("/cache/live?market=DE"))[1]["quotes"]] == ["SAP"]


async def test_a_quote_that_is_not_there_says_what_to_do(daemon: ApiDaemon) -> None:
    await daemon.stored()
    status, problem = await daemon.get("/cache/live/AAPL")
    assert (status, problem["code"]) == (404, "no_quote")
    assert "POST /cache/refresh-live" in problem["detail"]
    status, problem = await daemon.get("/cache/live/XYZ")
    assert (status, problem["code"], problem["symbol"]) == (404, "unknown_symbol", "XYZ")
    assert "POST /cache/symbols" in problem["detail"]


async def test_history_has_the_shape_callers_use(daemon: ApiDaemon) -> None:
    await daemon.stored(count=30)
    status, answer = await daemon.get("/cache/historical/AAPL?market=US")
    assert status == 200
    exactly(answers.HistoryOut, answer)
    assert len(answer["bars"]) == 30
    assert answer["bars"][-1] == {
        "date": "2026-11-19", "open": 106.75, "high": 108.25, "low": 106.25, "close": 107.25, "volume": 1000029,
    }  # fmt: skip
    assert answer["coverage"]["expected"] == answer["coverage"]["present"] == 30
    assert answer["coverage"]["complete"]
    assert answer["coverage"]["missing"] == [
        {
            "from": "2026-11-20", "to": "2026-11-20", "count": 1, "class": "not_due", "attempts": 0,
            "nextRetry": None,
            "reason": "the session is not over, or its final bar not due yet",
        }
    ]  # fmt: skip


async def test_columns_csv_and_fields_tell_the_same(daemon: ApiDaemon) -> None:
    await daemon.stored(count=5)
    _, rows = await daemon.get("/cache/historical/AAPL")
    _, columns = await daemon.get("/cache/historical/AAPL?format=columns")
    _, some = await daemon.get("/cache/historical/AAPL?fields=volume,close")
    _, csv = await daemon.get("/cache/historical/AAPL?format=csv")
    assert [dict(zip(bar, values, strict=True)) for bar, values in
            zip([b.keys() for b in rows["bars"]],
                zip(*(columns[n] for n in ("date", "open", "high", "low", "close", "volume")), strict=True),
                strict=True)] == rows["bars"]  # fmt: skip
    assert some["bars"] == [{n: bar[n] for n in ("date", "volume", "close")} for bar in rows["bars"]]
    lines = csv.splitlines()
    assert lines[0] == "date,open,high,low,close,volume"
    assert lines[-1] == "2026-11-19,100.5,102.0,100.0,101.0,1000004"
    assert csv.endswith("\n")


async def test_csv_says_its_coverage_too(daemon: ApiDaemon) -> None:
    await daemon.stored(count=5)
    async with daemon.session.get(daemon.base + "/cache/historical/AAPL?format=csv") as response:
        assert response.headers["X-Pricecache-Coverage"] == "expected=5, present=5, complete=true"
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8"


async def test_arrow_is_given_or_refused_with_a_code(daemon: ApiDaemon) -> None:
    await daemon.stored(count=5)
    status, answer = await daemon.get("/cache/historical/AAPL?format=arrow")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        assert (status, answer["code"]) == (406, "format_unavailable")
    else:
        assert status == 200


async def test_an_unknown_value_is_null_and_empty_in_csv(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=2)
    nan = float("nan")
    bars = Bars.of([TODAY - 3], [[nan], [nan], [nan], [99.5], [nan]])
    await daemon.services.bars.commit([Change(entry, bars, "manual", 0.0, manual=True)])
    _, answer = await daemon.get("/cache/historical/AAPL?start=2026-11-17")
    assert answer["bars"][0] == {
        "date": "2026-11-17", "open": None, "high": None, "low": None, "close": 99.5, "volume": None,
    }  # fmt: skip
    _, columns = await daemon.get("/cache/historical/AAPL?start=2026-11-17&format=columns")
    assert columns["volume"][0] is None
    assert all(isinstance(volume, int) for volume in columns["volume"][1:])
    assert columns["close"][0] == 99.5
    assert (await daemon.get("/cache/historical/AAPL?start=2026-11-17&format=csv"))[1].splitlines()[
        1
    ] == "2026-11-17,,,,99.5,"


async def test_a_split_is_applied_on_request(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=3)
    split = Action(TODAY - 1, "split", 3.0, None, "test", manual=True)
    await daemon.services.bars.commit([Change(entry, Bars.empty(), "test", 0.0, manual=True, actions=(split,))])
    _, traded = await daemon.get("/cache/historical/AAPL?adjust=none")
    _, adjusted = await daemon.get("/cache/historical/AAPL")
    assert [bar["close"] for bar in traded["bars"]] == [100.0, 100.25, 100.5]
    assert [bar["close"] for bar in adjusted["bars"]] == [33.33333333333, 33.41666666667, 100.5]
    assert [bar["volume"] for bar in adjusted["bars"]] == [3000000, 3000003, 1000002]


async def test_provisional_bars_are_named(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=3)
    tail = Bars.of([TODAY], [[107.0]] * 5)
    await daemon.services.bars.set_tails([(entry, tail)])
    _, answer = await daemon.get("/cache/historical/AAPL")
    assert answer["provisional"] == ["2026-11-20"]
    assert answer["bars"][-1]["date"] == "2026-11-20"


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("period=1W", "2026-11-13", "2026-11-20"),
        ("period=1m", "2026-10-20", "2026-11-20"),
        ("period=YTD", "2025-12-31", "2026-11-20"),
        ("period=1M&end=2026-03-31", "2026-02-28", "2026-03-31"),
        ("start=2026-11-02", "2026-11-02", "2026-11-20"),
        ("start=2026-11-02&end=2026-11-02", "2026-11-02", "2026-11-02"),
    ],
)
async def test_a_range_is_echoed_as_it_was_understood(daemon: ApiDaemon, query: str, start: str, end: str) -> None:
    await daemon.stored(count=300)
    status, answer = await daemon.get(f"/cache/historical/AAPL?{query}")
    assert (status, answer["start"], answer["end"]) == (200, start, end)
    assert all(start <= bar["date"] <= end for bar in answer["bars"])


async def test_max_is_all_there_is(daemon: ApiDaemon) -> None:
    await daemon.stored(count=300)
    assert len((await daemon.get("/cache/historical/AAPL?period=MAX"))[1]["bars"]) == 300


async def test_a_start_in_the_future_is_refused(daemon: ApiDaemon) -> None:
    await daemon.stored()
    status, problem = await daemon.get("/cache/historical/AAPL?start=2026-11-21")
    assert (status, problem["code"]) == (422, "start_after_end")


@pytest.mark.parametrize("target", ["/cache/historical/AAPL", "/cache/live/AAPL", "/docs", "/openapi.json", "/"])
async def test_who_has_it_is_told_304(daemon: ApiDaemon, target: str) -> None:
    await daemon.stored()
    daemon.quoted()
    async with daemon.session.get(daemon.base + target) as first:
        tag = first.headers["ETag"]
    for named in (tag, f'"x", W/{tag.removeprefix("W/")}', "*"):
        async with daemon.session.get(daemon.base + target, headers={"If-None-Match": named}) as again:
            assert again.status == 304
            assert again.headers["ETag"] == tag
            assert await again.read() == b""
    async with daemon.session.get(daemon.base + target, headers={"If-None-Match": '"other"'}) as other:
        assert other.status == 200


async def test_a_tag_is_weak_where_the_answer_tells_something_that_it_leaves_out(daemon: ApiDaemon) -> None:
    await daemon.stored()
    daemon.quoted()
    for target, weak in (
        ("/cache/historical/AAPL", True),
        ("/cache/historical/AAPL?start=2026-11-19", True),
        ("/cache/historical/AAPL?interval=1h", True),
        ("/cache/historical/AAPL?format=csv", False),
        ("/cache/live/AAPL", True),
        ("/cache/live", True),
        ("/openapi.json", False),
    ):
        async with daemon.session.get(daemon.base + target) as response:
            assert response.headers["ETag"].startswith("W/") == weak, target


async def test_the_tag_of_history_is_of_its_content_and_not_of_when_it_was_checked(daemon: ApiDaemon) -> None:
    from dataclasses import replace

    entry = await daemon.stored()
    async with daemon.session.get(daemon.base + "/cache/historical/AAPL") as first:
        tag = first.headers["ETag"]
    entry.state = replace(entry.state, last_update=daemon.clock.time())
    entry.touch()
    async with daemon.session.get(daemon.base + "/cache/historical/AAPL") as second:
        assert second.headers["ETag"] == tag
        assert (await second.json())["lastUpdate"] == "2026-11-20T10:00:00Z"
    bars = Bars.of([TODAY - 1], [[1.0]] * 5)
    await daemon.services.bars.commit([Change(entry, bars, "scripted", 1.0)])
    async with daemon.session.get(daemon.base + "/cache/historical/AAPL", headers={"If-None-Match": tag}) as third:
        assert third.status == 200
        assert third.headers["ETag"] != tag
        assert (await third.json())["bars"][-1]["close"] == 1.0


async def test_kept_and_ordinary_answers_are_the_same_bytes(daemon: ApiDaemon) -> None:
    """The path that writes ready bytes and the path through aiohttp's response agree, and so does the packed twin."""
    await daemon.stored(count=200)
    target = daemon.base + "/cache/historical/AAPL"
    answers = []
    for headers in ({}, {}, {"Connection": "close"}, {"Origin": daemon.base}):
        async with daemon.session.get(target, headers={"Accept-Encoding": "identity", **headers}) as response:
            answers.append((await response.read(), response.headers["ETag"], response.headers["Content-Type"]))
    assert len(set(answers)) == 1
    for _ in range(2):
        async with daemon.session.get(target, auto_decompress=False) as packed:
            assert packed.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(await packed.read()) == answers[0][0]
    async with daemon.session.head(target, headers={"Accept-Encoding": "identity"}) as head:
        assert head.headers["Content-Length"] == str(len(answers[0][0]))
        assert await head.read() == b""


async def test_a_read_is_counted_whether_kept_or_not(daemon: ApiDaemon) -> None:
    await daemon.stored()
    for _ in range(3):
        await daemon.get("/cache/historical/AAPL")
    assert daemon.services.reader.hits == 3
    _, metrics = await daemon.get("/metrics")
    assert 'pricecache_http_requests_total{method="GET",route="/cache/historical/{symbol}",status="200"} 3.0' in metrics


async def test_kept_history_is_not_used_while_changes_may_go_unseen(daemon: ApiDaemon, database: Any) -> None:
    """Another daemon's commit shows, although nobody told this one."""
    from pricecache.core.catalog import Catalog
    from pricecache.stores.bars import BarStore
    from pricecache.stores.instruments import InstrumentStore

    await daemon.stored()
    await daemon.get("/cache/historical/AAPL")
    elsewhere = Catalog()
    await InstrumentStore(database, elsewhere).load_all()
    bars = Bars.of([TODAY - 1], [[7.0]] * 5)
    await BarStore(database).commit([Change(elsewhere.require(AAPL), bars, "scripted", 1.0)])
    daemon.services.catalog.trusted = False
    assert (await daemon.get("/cache/historical/AAPL"))[1]["bars"][-1]["close"] == 7.0


async def test_history_is_made_anew_when_a_session_falls_due(daemon: ApiDaemon) -> None:
    from datetime import UTC, datetime

    await daemon.stored()
    assert (await daemon.get("/cache/historical/AAPL"))[1]["coverage"]["complete"]
    daemon.clock.set(datetime(2026, 11, 20, 21, 31, tzinfo=UTC))
    coverage = (await daemon.get("/cache/historical/AAPL"))[1]["coverage"]
    assert not coverage["complete"]
    assert [gap["class"] for gap in coverage["missing"]] == ["pending"]


async def test_coverage_names_every_hole_with_its_class(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=10)
    await daemon.services.bars.commit(
        [Change(entry, Bars.of([TODAY - 40], [[1.0]] * 5), "scripted", 0.0)]  # far before the others
    )
    status, answer = await daemon.get("/cache/coverage/AAPL?start=2026-10-01")
    assert status == 200
    exactly(answers.SymbolCoverage, answer)
    assert {gap["class"] for gap in answer["missing"]} == {"not_requested", "not_due"}
    status, summary = await daemon.get("/cache/coverage")
    exactly(answers.SummaryOut, summary)
    exactly(answers.SummaryRow, summary["symbols"][0])
    assert summary["symbols"][0]["bars"] == 11


async def test_the_summary_follows_what_is_stored(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=10)
    before = (await daemon.get("/cache/coverage"))[1]["symbols"][0]["bars"]
    await daemon.services.bars.commit([Change(entry, Bars.of([TODAY - 100], [[1.0]] * 5), "scripted", 0.0)])
    assert (await daemon.get("/cache/coverage"))[1]["symbols"][0]["bars"] == before + 1
    await daemon.services.tracker.untrack([AAPL], "test")
    assert (await daemon.get("/cache/coverage"))[1]["symbols"] == []


async def test_status_tells_of_everything(daemon: ApiDaemon) -> None:
    await daemon.stored()
    daemon.quoted(stale_at=0.0)
    await daemon.stored(Instrument("IBM"), tracked=False)
    daemon.quoted(Instrument("IBM"), as_of=0.0)  # of old, and nobody refreshes it
    await daemon.get("/cache/historical/AAPL")
    status, answer = await daemon.get("/cache/status")
    assert status == 200
    exactly(answers.StatusOut, answer)
    assert answer["live"] == {
        "count": 1,
        "stale": 1,
        "oldest": "2026-11-20T09:59:50Z",
        "newest": "2026-11-20T09:59:50Z",
        "stream": None,
    }
    assert answer["historical"]["bars"] == 60
    assert answer["hitRate"] == 1.0
    assert answer["providers"][0]["name"] == "scripted"
    assert answer["providers"][0]["lastSuccessAt"] is None
    assert answer["storage"] == {"dataBytes": 1000, "documents": 3}


async def test_symbols_tell_their_state(daemon: ApiDaemon) -> None:
    from dataclasses import replace

    entry = await daemon.stored()
    entry.state = replace(entry.state, attempts=2, code="rate_limited", reason="slow down", next_retry=1795170000.0)
    await daemon.stored(Instrument("IBM"), tracked=False)
    status, answer = await daemon.get("/cache/symbols")
    assert status == 200
    for row in answer["symbols"]:
        exactly(answers.SymbolOut, row)
    assert [(row["symbol"], row["state"]) for row in answer["symbols"]] == [("AAPL", "failing"), ("IBM", "untracked")]
    assert answer["symbols"][0]["reason"] == "slow down"
    assert answer["symbols"][0]["nextRetry"] == "2026-11-20T10:20:00Z"
    assert [row["symbol"] for row in (await daemon.get("/cache/symbols?state=failing"))[1]["symbols"]] == ["AAPL"]


async def test_runs_in_which_nothing_happened_are_listed_when_asked_for(daemon: ApiDaemon) -> None:
    made = []
    for job, kept_until in (("live_price_update", 1e10), ("historical_sync", None), ("live_price_update", None)):
        run = Run(new_run_id(), job, "succeeded", "schedule", {}, START + len(made), kept_until=kept_until)
        await daemon.services.runs.save(run)
        made.append(run.id)
    listed = {
        query: [run["id"] for run in (await daemon.get(f"/cache/runs{query}"))[1]["runs"]]
        for query in ("", "?all=true", "?job=live_price_update", "?all=false&limit=1")
    }
    assert listed == {
        "": made[:0:-1],
        "?all=true": made[::-1],
        "?job=live_price_update": [made[2], made[0]],
        "?all=false&limit=1": [made[2]],
    }


async def test_the_scheduler_tells_its_jobs(daemon: ApiDaemon) -> None:
    status, answer = await daemon.get("/cache/scheduler/status")
    assert status == 200
    exactly(answers.SchedulerOut, answer)
    for job in answer["jobs"]:
        exactly(answers.JobOut, job)
    assert {"historical_sync", "live_price_update"} <= {job["id"] for job in answer["jobs"]}


async def test_no_get_calls_a_provider(daemon: ApiDaemon) -> None:
    """Every GET of the table but the search and the streams, for a symbol that is known and for one that is not."""
    await daemon.stored()
    daemon.truth(AAPL)
    for route in ROUTES:
        if route.method == "GET" and route.path != "/cache/symbols/search" and not route.takes_ticket:
            for symbol in ("AAPL", "NVDA"):
                path = route.path.replace("{symbol}", symbol).replace("{id}", "x").replace("{name}", "docs.js")
                status, _ = await daemon.get(path)
                assert status in (200, 404)
    assert daemon.provider.calls == []
    assert daemon.services.catalog.get(Instrument("NVDA")) is None
