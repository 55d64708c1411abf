"""Bars of live prices over HTTP: intraday from samples, and today's from the latest quote until a final one comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest

from pricecache.api import answers
from pricecache.api.kept_answers import KeptRunning
from pricecache.cache import intraday
from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.catalog import Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch
from pricecache.stores.bars import Change
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_api_reads import exactly

HISTORY = "/cache/historical/AAPL"
RUNNING = HISTORY + "?start=2026-11-19"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    """At 15:02:30 UTC of a Friday: New York has been open for half an hour."""
    async with api_daemon(database) as started:
        started.clock.set(at("2026-11-20T15:02:30"))
        yield started


def priced(daemon: ApiDaemon, time: str, price: float, volume: float | None = None, **facts: Any) -> None:
    """A price that was published at `time` of the Friday, or of another day when it names one."""
    when = at(time if "T" in time else f"2026-11-20T{time}")
    quote = Quote(AAPL, price, "USD", when, when, "scripted", None, volume=volume, stale_at=when + 1800, **facts)
    daemon.services.live.publish(QuoteBatch.of([quote]))
    daemon.services.intraday.samples.record([quote])


async def sampled(daemon: ApiDaemon) -> Entry:
    entry = await daemon.stored()
    priced(daemon, "2026-11-19T20:59:00", 107.0, 5e6)
    priced(daemon, "14:30:10", 110.0, 1000)
    priced(daemon, "14:33:00", 112.0, 3000)
    priced(daemon, "14:36:00", 111.0, 3500)
    await daemon.services.intraday.samples.flush()
    priced(daemon, "15:01:00", 109.0, 9000)
    return entry


async def test_intraday_bars_are_those_of_the_last_session_with_samples(daemon: ApiDaemon) -> None:
    await sampled(daemon)
    status, answer = await daemon.get(f"{HISTORY}?interval=5m")
    assert status == 200
    exactly(answers.HistoryOut, answer)
    assert answer["bars"] == [
        {"time": "2026-11-20T14:30:00Z", "open": 110.0, "high": 112.0, "low": 110.0, "close": 112.0, "volume": 3000},
        {"time": "2026-11-20T14:35:00Z", "open": 111.0, "high": 111.0, "low": 111.0, "close": 111.0, "volume": 500},
        {"time": "2026-11-20T15:00:00Z", "open": 109.0, "high": 109.0, "low": 109.0, "close": 109.0, "volume": 5500},
    ]
    assert (answer["interval"], answer["start"], answer["end"]) == (
        "5m", "2026-11-20T14:30:00Z", "2026-11-20T20:59:59Z",
    )  # fmt: skip
    assert answer["provisional"] == ["2026-11-20T15:00:00Z"]
    assert answer["source"] == "scripted"
    assert answer["coverage"] == {
        "from": "2026-11-20T14:30:10Z", "to": "2026-11-20T15:01:00Z", "samples": 4, "expected": 7, "present": 3,
        "complete": False, "reason": "no price was sampled in 4 of the bars",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "times"),
    [
        ("interval=1h", ["2026-11-20T14:30"]),
        ("interval=1h&period=1D", ["2026-11-20T14:30"]),
        ("interval=1h&period=1W", ["2026-11-19T20:30", "2026-11-20T14:30"]),
        ("interval=1h&period=max", ["2026-11-19T20:30", "2026-11-20T14:30"]),
        ("interval=1h&start=2026-11-19&end=2026-11-19", ["2026-11-19T20:30"]),
        ("interval=1h&period=1D&end=2026-11-19", ["2026-11-19T20:30"]),
        ("interval=1m&start=2026-11-20T14:33:00Z&end=2026-11-20T14:36:00Z", ["2026-11-20T14:33", "2026-11-20T14:36"]),
        ("interval=1m&start=2026-11-20T09:33:00-05:00&end=2026-11-20T14:35:59Z", ["2026-11-20T14:33"]),
        ("interval=1m&start=2026-11-20T15:33:00%2B01:00&end=2026-11-20", ["14:33", "14:36", "15:01"]),
        ("interval=15m&provisional=false", ["2026-11-20T14:30"]),
        ("interval=1h&start=2026-11-16&end=2026-11-17", []),
    ],
)
async def test_intraday_bars_of_a_range(daemon: ApiDaemon, query: str, times: list[str]) -> None:
    await sampled(daemon)
    status, answer = await daemon.get(f"{HISTORY}?{query}")
    assert status == 200
    found = [bar["time"][:16] for bar in answer["bars"]]
    assert [one[-len(time) :] for one, time in zip(found, times, strict=True)] == times


@pytest.mark.parametrize(
    ("query", "code", "status"),
    [
        ("interval=5m&start=2026-11-20T15:00:00Z&end=2026-11-20T14:00:00Z", "start_after_end", 422),
        ("interval=5m&start=2026-11-23", "start_after_end", 422),
        ("interval=5m&start=2026-11-20T15:00Z", "bad_date", 422),
        ("interval=5m&start=2026-11-20T25:00:00Z", "bad_date", 422),
        ("interval=1d&start=2026-11-20T15:00:00Z", "bad_date", 422),
        ("interval=1m&period=1D&start=2026-11-20", "period_and_start", 422),
    ],
)
async def test_a_range_that_makes_no_sense_is_refused(daemon: ApiDaemon, query: str, code: str, status: int) -> None:
    await sampled(daemon)
    found, problem = await daemon.get(f"{HISTORY}?{query}")
    assert (found, problem["code"]) == (status, code)


async def test_samples_after_the_last_bar_count_for_nothing_before_the_close(daemon: ApiDaemon) -> None:
    await sampled(daemon)
    at_ = "2026-11-20T14:30:00Z"
    answer = (await daemon.get(f"{HISTORY}?interval=5m&start={at_}&end={at_}"))[1]
    coverage = answer["coverage"]
    assert (coverage["from"], coverage["to"], coverage["samples"]) == (
        "2026-11-20T14:30:10Z", "2026-11-20T14:33:00Z", 2,
    )  # fmt: skip


async def test_too_many_bars_are_refused_and_it_is_said_what_to_do(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sampled(daemon)
    monkeypatch.setattr(intraday, "MOST_BARS", 30)
    status, problem = await daemon.get(f"{HISTORY}?interval=1m")
    assert (status, problem["code"]) == (400, "too_many_bars")
    assert "a longer interval" in problem["detail"]
    assert (await daemon.get(f"{HISTORY}?interval=15m&period=max"))[0] == 200


async def test_without_samples_there_are_no_bars_and_a_reason(daemon: ApiDaemon) -> None:
    await daemon.stored()
    status, answer = await daemon.get(f"{HISTORY}?interval=1h")
    assert (status, answer["bars"]) == (200, [])
    assert answer["coverage"]["reason"] == "bars are made of samples of live prices, and none are there yet"
    assert answer["coverage"]["from"] is None
    assert not answer["coverage"]["complete"]


async def test_columns_csv_and_arrow_tell_the_same(daemon: ApiDaemon) -> None:
    await sampled(daemon)
    _, rows = await daemon.get(f"{HISTORY}?interval=5m&fields=close,volume")
    _, columns = await daemon.get(f"{HISTORY}?interval=5m&fields=close,volume&format=columns")
    assert [{n: columns[n][i] for n in ("time", "close", "volume")} for i in range(3)] == rows["bars"]
    async with daemon.session.get(f"{daemon.base}{HISTORY}?interval=5m&fields=close,volume&format=csv") as response:
        assert (await response.text()).splitlines() == [
            "time,close,volume",
            *(f"{bar['time']},{bar['close']},{bar['volume']}" for bar in rows["bars"]),
        ]
        assert response.headers["X-Pricecache-Coverage"] == "expected=7, present=3, complete=false"
        assert response.headers["X-Pricecache-Provisional"] == "2026-11-20T15:00:00Z"
    async with daemon.session.get(f"{daemon.base}{HISTORY}?interval=5m&format=arrow") as response:
        try:
            pa = import_module("pyarrow")
        except ImportError:
            assert response.status == 406
        else:
            table = pa.ipc.open_stream(await response.read()).read_all()
            assert table.column_names == ["time", "open", "high", "low", "close", "volume"]
            assert [f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in table["time"].to_pylist()] == columns["time"]


async def test_intraday_bars_are_adjusted_as_daily_ones_are(daemon: ApiDaemon) -> None:
    entry = await sampled(daemon)
    actions = (
        Action(TODAY, "dividend", 1.0, "USD", "test", manual=True),
        Action(TODAY, "split", 2.0, None, "test", manual=True),
    )
    await daemon.services.bars.commit([Change(entry, Bars.empty(), "test", 0.0, manual=True, actions=actions)])
    closes = {}
    for mode in ("none", "splits", "all"):
        _, hourly = await daemon.get(f"{HISTORY}?interval=1h&period=1W&adjust={mode}")
        _, daily = await daemon.get(f"{HISTORY}?start=2026-11-19&end=2026-11-19&adjust={mode}")
        closes[mode] = [bar["close"] for bar in hourly["bars"]]
        assert closes[mode][0] / 107.0 == pytest.approx(daily["bars"][0]["close"] / 107.25)
        assert closes[mode][1] == 109.0
    assert closes["none"][0] == 107.0
    assert closes["splits"][0] == 53.5
    assert closes["all"][0] < 53.5


async def test_who_has_the_intraday_bars_is_told_304_until_another_sample_comes(daemon: ApiDaemon) -> None:
    await sampled(daemon)
    target = f"{daemon.base}{HISTORY}?interval=5m"
    async with daemon.session.get(target) as first:
        tag = {"If-None-Match": first.headers["ETag"]}
    for _ in range(2):
        async with daemon.session.get(target, headers=tag) as again:
            assert again.status == 304
    priced(daemon, "15:02:00", 120.0, 9100)
    async with daemon.session.get(target, headers=tag) as third:
        assert third.status == 200
        assert (await third.json())["bars"][-1]["high"] == 120.0
    daemon.clock.set(at("2026-11-20T15:05:00"))  # another bar could be there by now
    assert (await daemon.get(f"{HISTORY}?interval=5m"))[1]["coverage"]["expected"] == 8


# ---- today's bar in daily history


async def test_the_session_that_runs_has_a_bar_of_its_quote(daemon: ApiDaemon) -> None:
    await daemon.stored()
    before = (await daemon.get(RUNNING))[1]
    priced(daemon, "15:00:00", 110.0, 9000, open=108.0, day_high=111.0, day_low=107.5)
    status, answer = await daemon.get(RUNNING)
    assert status == 200
    assert answer["bars"] == before["bars"] + [
        {"date": "2026-11-20", "open": 108.0, "high": 111.0, "low": 107.5, "close": 110.0, "volume": 9000}
    ]
    assert answer["provisional"] == ["2026-11-20"]
    assert answer["coverage"] == before["coverage"]
    assert answer["coverage"]["missing"][0]["class"] == "not_due"
    final = (await daemon.get(RUNNING + "&provisional=false"))[1]
    assert (final["bars"], final["provisional"]) == (before["bars"], [])
    async with daemon.session.get(daemon.base + RUNNING + "&format=csv") as csv:
        assert (await csv.text()).splitlines()[-1] == "2026-11-20,108.0,111.0,107.5,110.0,9000"
        assert csv.headers["X-Pricecache-Provisional"] == "2026-11-20"
    assert (await daemon.get(RUNNING + "&format=columns"))[1]["close"][-1] == 110.0


@pytest.mark.parametrize("form", ["json", "columns", "csv", "arrow"])
@pytest.mark.parametrize("range_", ["period=1M", "start=2026-11-20", "start=2026-11-01&end=2026-11-20"])
async def test_what_was_asked_for_before_the_open_is_not_answered_again_after_it(
    daemon: ApiDaemon, range_: str, form: str
) -> None:
    if form == "arrow":
        pytest.importorskip("pyarrow")
    await daemon.stored()
    daemon.clock.set(at("2026-11-20T10:00:00"))
    target = f"{daemon.base}{HISTORY}?{range_}&format={form}"
    async with daemon.session.get(target) as early:
        tag = {"If-None-Match": early.headers["ETag"]}
    daemon.clock.set(at("2026-11-20T14:29:59"))
    async with daemon.session.get(target, headers=tag) as still:
        assert still.status == 304
    daemon.clock.set(at("2026-11-20T14:40:00"))
    priced(daemon, "14:40:00", 110.0)
    async with daemon.session.get(target, headers=tag) as late:
        assert late.status == 200
        assert late.headers["ETag"] != early.headers["ETag"]
        if form == "json":
            assert (await late.json())["bars"][-1]["date"] == "2026-11-20"


async def test_every_new_quote_shows_in_the_bar_at_once(daemon: ApiDaemon) -> None:
    await daemon.stored()
    for second, price in enumerate((110.0, 111.0, 111.0, 90.0)):
        priced(daemon, f"15:00:0{second}", price)
        for _ in range(2):
            assert (await daemon.get(RUNNING))[1]["bars"][-1]["close"] == price
    async with daemon.session.get(daemon.base + RUNNING) as first:
        tag = {"If-None-Match": first.headers["ETag"]}
    priced(daemon, "15:00:09", 90.0)
    async with daemon.session.get(daemon.base + RUNNING, headers=tag) as again:
        assert again.status == 304
    priced(daemon, "15:00:10", 90.5)
    async with daemon.session.get(daemon.base + RUNNING, headers=tag) as third:
        assert third.status == 200


@pytest.mark.parametrize(
    "query", ["", "&adjust=none", "&fields=volume,close", "&fields=low", "&adjust=all&fields=high"]
)
async def test_another_quote_changes_the_last_row_and_nothing_else(daemon: ApiDaemon, query: str) -> None:
    """What is spliced is what would have been made anew, tag and packed twin included."""
    await daemon.stored(count=300)
    target = f"{HISTORY}?start=2026-01-05{query}"
    for second in range(4):
        price, volume = 110.0 + second / 3, (1000.0, None, 1500.0, 2500.5)[second]
        priced(daemon, f"15:00:0{second}", price, volume, open=108.0, day_high=111.5, day_low=107.5)
        found = []
        for path in (target, target, f"{target}&provisional=true&format=json"):
            for packed in ("identity", "gzip"):
                async with daemon.session.get(daemon.base + path, headers={"Accept-Encoding": packed}) as response:
                    found.append((await response.read(), response.headers["ETag"].replace("-gz", "")))
        daemon.services.kept._kept.pop(f"{target}&provisional=true&format=json")  # so that it is made anew
        kept = daemon.services.kept.get(target)
        has_volume = "fields" not in query or "volume" in query
        assert isinstance(kept, KeptRunning) == (second < 3 or not has_volume)  # a fraction changes every row
        assert len(set(found)) == 1


async def test_a_range_without_the_session_that_runs_does_not_care_about_quotes(daemon: ApiDaemon) -> None:
    await daemon.stored()
    priced(daemon, "15:00:00", 110.0)
    target = f"{HISTORY}?end=2026-11-19"
    assert (await daemon.get(target))[1]["provisional"] == []
    kept = daemon.services.kept.get(target)
    priced(daemon, "15:00:05", 111.0)
    assert kept is not None
    assert kept.current(daemon.clock.time())


@pytest.mark.parametrize(
    "facts",
    [
        {"stale_at": 0.0},
        {"currency": "EUR"},
        {"session": TODAY - 1},
        {"as_of": at("2026-11-20T14:00:00")},
    ],
    ids=["stale", "another currency", "another session", "before the open"],
)
async def test_a_quote_that_says_nothing_of_the_session_makes_no_bar(daemon: ApiDaemon, facts: dict[str, Any]) -> None:
    await daemon.stored()
    daemon.quoted(**{"session": TODAY, **facts})
    answer = (await daemon.get(RUNNING))[1]
    assert (answer["provisional"], answer["bars"][-1]["date"]) == ([], "2026-11-19")


async def test_a_price_made_long_after_the_close_is_not_the_sessions(daemon: ApiDaemon) -> None:
    await daemon.stored()
    daemon.clock.set(at("2026-11-20T23:00:00"))
    daemon.quoted(session=TODAY, as_of=at("2026-11-20T21:00:02"), price=110.0)
    assert (await daemon.get(RUNNING))[1]["bars"][-1]["close"] == 110.0
    daemon.quoted(session=TODAY, as_of=at("2026-11-20T22:30:00"), price=111.0)
    assert (await daemon.get(RUNNING))[1]["provisional"] == []


async def test_the_bar_goes_when_its_quote_becomes_stale_and_comes_back(daemon: ApiDaemon) -> None:
    await daemon.stored()
    priced(daemon, "15:00:00", 110.0)
    assert (await daemon.get(RUNNING))[1]["provisional"] == ["2026-11-20"]
    daemon.clock.set(at("2026-11-20T15:30:00"))
    assert (await daemon.get(RUNNING))[1]["provisional"] == []
    held = daemon.services.live.get(AAPL.key)
    assert held is not None
    daemon.services.live.publish(QuoteBatch.of([replace(held, stale_at=daemon.clock.time() + 900)]))
    assert (await daemon.get(RUNNING))[1]["provisional"] == ["2026-11-20"]


async def test_a_final_bar_takes_the_place_of_the_quotes(daemon: ApiDaemon) -> None:
    entry = await daemon.stored()
    priced(daemon, "15:00:00", 110.0)
    await daemon.get(RUNNING)
    await daemon.services.bars.commit([Change(entry, Bars.of([TODAY], [[42.0]] * 5), "scripted", 1.0)])
    answer = (await daemon.get(RUNNING))[1]
    assert (answer["bars"][-1]["close"], answer["provisional"]) == (42.0, [])


async def test_what_the_quote_does_not_say_of_the_day_comes_from_samples(daemon: ApiDaemon) -> None:
    await daemon.stored()
    for time, price in (("14:30:20", 108.0), ("14:40:00", 112.0), ("14:50:00", 107.0), ("15:00:00", 110.0)):
        priced(daemon, time, price)
    bar = (await daemon.get(RUNNING))[1]["bars"][-1]
    assert [bar[name] for name in ("open", "high", "low", "close", "volume")] == [108.0, 112.0, 107.0, 110.0, None]


async def test_what_nobody_knows_of_the_day_is_null(daemon: ApiDaemon) -> None:
    await daemon.stored()
    priced(daemon, "15:00:00", 110.0)  # the first sample, half an hour after the open
    bar = (await daemon.get(RUNNING))[1]["bars"][-1]
    assert [bar[name] for name in ("open", "high", "low", "close")] == [None, None, None, 110.0]


async def test_a_market_without_closing_time_has_its_day_in_utc(daemon: ApiDaemon) -> None:
    coin = Instrument("BTC-USD", "CRYPTO")
    await daemon.stored(coin)
    daemon.quoted(coin, 60000.0)
    answer = (await daemon.get("/cache/historical/BTC-USD?market=CRYPTO&start=2026-11-19"))[1]
    assert answer["provisional"] == ["2026-11-20"]
    assert answer["bars"][-1]["close"] == 60000.0


async def test_reads_at_once_agree_on_the_bar(daemon: ApiDaemon) -> None:
    await daemon.stored()
    priced(daemon, "14:44:00", 110.0)
    found = await asyncio.gather(*(daemon.get(f"{RUNNING}&fields=open,close") for _ in range(5)))
    assert {str(answer["bars"][-1]) for _, answer in found} == {"{'date': '2026-11-20', 'open': 110.0, 'close': 110.0}"}


async def test_a_provisional_bar_of_a_finished_session_is_completed_from_samples(daemon: ApiDaemon) -> None:
    entry = await daemon.stored()
    for time, price in (("14:30:20", 108.0), ("14:40:00", 112.0), ("20:59:30", 110.0)):
        priced(daemon, time, price)
    daemon.clock.set(at("2026-11-20T21:05:00"))
    status, _ = await daemon.call("POST", "/cache/sync-historical")
    assert status == 200
    assert entry.tail.sessions.tolist() == [TODAY]
    assert entry.tail.values[:4, 0].tolist() == [108.0, 112.0, 108.0, 110.0]
    assert (await daemon.get(RUNNING))[1]["provisional"] == ["2026-11-20"]
    assert (await daemon.get(RUNNING + "&provisional=false"))[1]["provisional"] == []
