"""What was not stored, looked at and decided about over HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from yarl import URL

from pricecache.api import answers
from pricecache.core.bars import CLOSE, VOLUME, Bars, day_of
from pricecache.core.catalog import Entry
from pricecache.core.instruments import Instrument
from pricecache.errors import Unavailable
from pricecache.providers.base import History
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_api_reads import exactly

DAY = 86400.0
SPOILED = TODAY - 10


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database) as started:
        yield started


def changed(factor: float, *sessions: int, volume: bool = False) -> Any:
    def change(history: History) -> History:
        values = history.bars.values.copy()
        which = np.isin(history.bars.sessions, sessions) if sessions else slice(None)
        values[:VOLUME, which] *= factor
        if volume:
            values[VOLUME, which] /= factor
        return replace(history, bars=Bars(history.bars.sessions, values))

    return change


async def with_a_spike(daemon: ApiDaemon, factor: float = 4.0) -> Entry:
    daemon.truth(AAPL, 60)
    daemon.provider.script(AAPL, changed(factor, SPOILED))
    status, _ = await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL"})
    assert status == 200
    return daemon.services.catalog.require(AAPL)


async def listed(daemon: ApiDaemon, query: str = "") -> list[dict[str, Any]]:
    status, answer = await daemon.get(f"/cache/quarantine{query}")
    assert status == 200
    exactly(answers.QuarantineOut, answer)
    for item in answer["items"]:
        exactly(answers.QuarantineItemOut, item)
    return list(answer["items"])


async def closes(daemon: ApiDaemon) -> dict[str, float]:
    _, answer = await daemon.get("/cache/historical/AAPL?period=MAX&adjust=none")
    return {bar["date"]: bar["close"] for bar in answer["bars"]}


async def test_a_parked_bar_is_listed_with_its_reason_and_its_session_is_failing(daemon: ApiDaemon) -> None:
    entry = await with_a_spike(daemon)
    (item,) = await listed(daemon)
    day = day_of(SPOILED).isoformat()
    assert (item["session"], item["code"], item["state"], item["kind"]) == (day, "spike", "parked", "bar")
    assert item["bar"]["close"] == 4 * 76.0
    assert (item["times"], item["source"]) == (1, "scripted")
    assert day not in await closes(daemon)
    _, found = await daemon.get(f"/cache/coverage/AAPL?start={day}&end={day}")
    (hole,) = found["missing"]
    assert (hole["class"], hole["count"]) == ("failing", 1)
    assert "quarantine" in hole["reason"]
    assert hole["nextRetry"] is not None
    _, symbols = await daemon.get("/cache/symbols?state=failing")
    assert [(row["symbol"], row["code"]) for row in symbols["symbols"]] == [("AAPL", "bars_parked")]
    _, rows = await daemon.get("/cache/coverage?class=failing")
    assert [(row["symbol"], row["parked"], row["code"]) for row in rows["symbols"]] == [("AAPL", 1, "bars_parked")]
    assert entry.state.attempts == 0


async def test_an_approved_bar_is_stored_as_its_provider_gave_it(daemon: ApiDaemon) -> None:
    await with_a_spike(daemon)
    (item,) = await listed(daemon)
    status, decided = await daemon.call("POST", f"/cache/quarantine/{item['id']}/approve")
    assert (status, decided["state"], decided["decidedBy"]) == (200, "approved", "local")
    assert (await closes(daemon))[item["session"]] == item["bar"]["close"]
    assert await listed(daemon) == []
    assert [row["id"] for row in await listed(daemon, "?state=approved")] == [item["id"]]
    entry = daemon.services.catalog.require(AAPL)
    assert not entry.state.parked
    status, problem = await daemon.call("POST", f"/cache/quarantine/{item['id']}/drop")
    assert (status, problem["code"]) == (409, "already_decided")
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL", "start": "2026-10-01"})
    assert (await closes(daemon))[item["session"]] == pytest.approx(item["bar"]["close"] / 4)  # it thought better


async def test_an_approval_that_was_cut_short_is_finished_by_repeating_it_and_cannot_be_dropped(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await with_a_spike(daemon)
    (item,) = await listed(daemon)
    bars, during = daemon.services.bars, []
    commit = bars.commit

    async def cut_short(changes: Any) -> Any:
        during.append(await daemon.call("POST", f"/cache/quarantine/{item['id']}/drop"))
        await commit(changes)
        raise Unavailable("killed here")

    monkeypatch.setattr(bars, "commit", cut_short)
    assert (await daemon.call("POST", f"/cache/quarantine/{item['id']}/approve"))[0] == 503
    monkeypatch.undo()
    ((status, problem),) = during
    assert (status, problem["code"], problem["state"]) == (409, "already_decided", "approving")
    assert [row["state"] for row in await listed(daemon)] == ["approving"]
    status, decided = await daemon.call("POST", f"/cache/quarantine/{item['id']}/approve")
    assert (status, decided["state"], entry.state.parked) == (200, "approved", {})
    assert (await closes(daemon))[item["session"]] == item["bar"]["close"]
    assert (await daemon.call("POST", f"/cache/quarantine/{item['id']}/approve"))[0] == 409


async def test_a_symbol_that_counts_as_dead_is_listed_beside_what_is_parked(daemon: ApiDaemon) -> None:
    await with_a_spike(daemon)
    entry = await daemon.stored(Instrument("DEAD"))
    now = daemon.clock.time()
    entry.state = replace(
        entry.state, quarantined_at=now, not_found=5, attempts=5, reason="nobody knew it", next_retry=now + 7 * DAY
    )
    _, answer = await daemon.get("/cache/quarantine")
    exactly(answers.QuarantineOut, answer)
    (symbol,) = answer["symbols"]
    exactly(answers.QuarantinedSymbolOut, symbol)
    assert symbol == {
        "symbol": "DEAD", "market": "US", "since": "2026-11-20T10:00:00Z", "notFound": 5, "reason": "nobody knew it",
        "nextRetry": "2026-11-27T10:00:00Z",
    }  # fmt: skip
    assert len(answer["items"]) == 1
    for query, count in (
        ("symbol=AAPL", 0),
        ("symbol=DEAD", 1),
        ("market=US", 1),
        ("market=L", 0),
        ("state=parked", 0),
    ):
        assert len((await daemon.get(f"/cache/quarantine?{query}"))[1]["symbols"]) == count, query


async def test_a_dropped_bar_is_not_parked_again_and_another_one_is(daemon: ApiDaemon) -> None:
    entry = await with_a_spike(daemon)
    (item,) = await listed(daemon)
    status, decided = await daemon.call("POST", f"/cache/quarantine/{item['id']}/drop")
    assert (status, decided["state"]) == (200, "dropped")
    again = {"symbol": "AAPL", "start": "2026-10-01"}
    daemon.provider.script(AAPL, changed(4.0, SPOILED), changed(5.0, SPOILED))
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json=again)
    assert await listed(daemon) == []
    assert not entry.state.parked
    assert SPOILED in entry.state.holes
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json=again)
    (item,) = await listed(daemon)
    assert (item["state"], item["decidedBy"], item["times"]) == ("parked", None, 2)


async def test_a_suggested_split_is_put_in_with_its_day(daemon: ApiDaemon) -> None:
    daemon.truth(AAPL, 60)
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL"})
    daemon.provider.basis = "split_adjusted"
    daemon.provider.script(AAPL, *[changed(0.25, volume=True)] * 2)
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL", "start": "2026-10-01"})
    (item,) = await listed(daemon, "?symbol=AAPL&code=basis_unexplained")
    assert (item["kind"], item["session"], item["suggestion"]) == ("answer", None, {"kind": "split", "ratio": 4.0})
    target = f"/cache/quarantine/{item['id']}/approve"
    status, problem = await daemon.call("POST", target)
    assert (status, problem["code"]) == (422, "ex_date_missing")
    status, decided = await daemon.call("POST", target, json={"exDate": day_of(TODAY).isoformat()})
    assert (status, decided["state"]) == (200, "approved")
    _, actions = await daemon.get("/cache/actions/AAPL")
    assert [(a["kind"], a["ratio"], a["manual"]) for a in actions["actions"]] == [("split", 4.0, True)]


async def test_what_cannot_be_approved_says_what_can_be_done(daemon: ApiDaemon) -> None:
    daemon.truth(AAPL, 60)
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL"})
    daemon.provider.script(AAPL, changed(0.81), changed(-1.0, SPOILED))
    again = {"symbol": "AAPL", "start": "2026-10-01"}
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json=again)
    (item,) = await listed(daemon)
    status, problem = await daemon.call("POST", f"/cache/quarantine/{item['id']}/approve")
    assert (status, problem["code"]) == (422, "cannot_be_approved")
    assert "PUT /cache/actions/AAPL" in problem["detail"]
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json=again)
    (item,) = await listed(daemon, "?state=rejected")
    assert item["code"] == "bad_close"
    status, problem = await daemon.call("POST", f"/cache/quarantine/{item['id']}/approve")
    assert (status, problem["code"]) == (422, "cannot_be_approved")
    assert (await daemon.call("POST", f"/cache/quarantine/{item['id']}/drop"))[0] == 200


async def test_counts_are_of_all_and_the_list_is_filtered(daemon: ApiDaemon) -> None:
    await with_a_spike(daemon, 100.0)
    _, answer = await daemon.get("/cache/quarantine?code=spike")
    assert answer["items"] == []
    assert answer["counts"] == {"byState": {"parked": 1}, "byCode": {"unit_flip": 1}}
    assert len(await listed(daemon, "?market=US&limit=1")) == 1
    assert await listed(daemon, "?market=L") == []
    status, problem = await daemon.get("/cache/quarantine?symbol=NOPE")
    assert (status, problem["code"]) == (404, "unknown_symbol")


@pytest.mark.parametrize("decision", ["approve", "drop"])
async def test_an_unknown_item_is_not_found(daemon: ApiDaemon, decision: str) -> None:
    status, problem = await daemon.call("POST", f"/cache/quarantine/1-2-x-bar/{decision}")
    assert (status, problem["code"]) == (404, "unknown_item")


async def test_deciding_needs_the_scope_ops(database: Any) -> None:
    async with api_daemon(database, keys=["reader:read:secret-of-a-reader-key"], loopback=False) as daemon:
        headers = {"X-API-Key": "secret-of-a-reader-key"}
        assert (await daemon.get("/cache/quarantine", headers=headers))[0] == 200
        assert (await daemon.call("POST", "/cache/quarantine/x/drop", headers=headers))[0] == 403


async def test_a_divergence_is_shown_with_the_coverage(daemon: ApiDaemon) -> None:
    daemon.truth(AAPL, 60)
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL"})
    daemon.provider.script(AAPL, lambda h: replace(h, bars=h.bars.between(None, SPOILED)))
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL", "start": "2026-10-01"})
    _, coverage = await daemon.get("/cache/coverage/AAPL")
    exactly(answers.SymbolCoverage, coverage)
    (divergence,) = coverage["divergences"]
    exactly(answers.DivergenceOut, divergence)
    assert (divergence["kind"], divergence["provider"]) == ("provider_has_less", "scripted")
    assert divergence["from"] > day_of(SPOILED).isoformat()
    _, summary = await daemon.get("/cache/coverage?limit=1&market=US")
    exactly(answers.SummaryOut, summary)
    assert summary["divergences"] == {"provider_has_less": 1}
    assert summary["symbols"][0]["divergences"] == 1
    assert (await daemon.get("/cache/coverage?market=L"))[1]["expected"] == summary["expected"]
    _, status = await daemon.get("/cache/status")
    assert status["coverage"]["divergences"] == {"provider_has_less": 1}


async def test_a_bar_put_in_by_hand_settles_what_was_parked_of_its_session(daemon: ApiDaemon) -> None:
    entry = await with_a_spike(daemon)
    (item,) = await listed(daemon)
    body = {"bars": [{"date": item["session"], "close": 77.0}]}
    status, _ = await daemon.call("PUT", "/cache/historical/AAPL", json=body)
    assert status == 200
    assert not entry.state.parked
    assert await listed(daemon) == []
    assert [row["id"] for row in await listed(daemon, "?state=resolved")] == [item["id"]]


async def test_what_stands_in_a_stretch_is_of_its_own_sessions(daemon: ApiDaemon) -> None:
    await with_a_spike(daemon)
    day = day_of(SPOILED).isoformat()
    _, found = await daemon.get(f"/cache/coverage/AAPL?start={day}&end={day}")
    (hole,) = found["missing"]
    assert (hole["class"], hole["attempts"]) == ("failing", 1)


def unknown_here_and_there(history: History) -> History:
    values = history.bars.values.copy()
    for row in range(5):
        if row != CLOSE:
            values[row, row::7] = np.nan
    values[:, 11] = np.nan
    values[:CLOSE, 13] = -1.0
    return replace(history, bars=Bars(history.bars.sessions, values), rejected=((SPOILED, "line 5: no number"),))


def none_is_odd(value: Any) -> bool:
    if isinstance(value, dict):
        return all(none_is_odd(item) for item in value.values())
    if isinstance(value, list):
        return all(none_is_odd(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


async def test_no_value_that_is_no_number_ever_leaves(daemon: ApiDaemon) -> None:
    daemon.truth(AAPL, 60)
    daemon.provider.script(AAPL, unknown_here_and_there, changed(1.01, TODAY - 20, TODAY - 21))
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL"})
    await daemon.call("POST", "/cache/backfill-symbol?wait=5", json={"symbol": "AAPL", "start": "2026-01-01"})
    asked = [f"/cache/historical/AAPL?period=MAX&adjust={adjust}{how}"
             for adjust in ("none", "splits", "all") for how in ("", "&format=columns", "&format=csv")]  # fmt: skip
    asked += ["/cache/coverage/AAPL", "/cache/coverage", "/cache/quarantine", "/cache/quarantine?state=resolved"]
    asked += ["/cache/corrections/AAPL", "/cache/symbols", "/cache/symbols/AAPL", "/cache/status"]
    for path in asked:
        async with daemon.session.get(URL(daemon.base + path, encoded=True)) as response:
            text = await response.text()
        assert response.status == 200, path
        lowered = text.lower()
        assert "nan" not in lowered.replace("financ", ""), path
        assert "infinity" not in lowered, path
        if "csv" not in path:
            assert none_is_odd(json.loads(text)), path
    assert {item["code"] for item in await listed(daemon, "?state=resolved")} == {"bad_close", "bad_price", "bad_row"}
    _, said = await daemon.get("/cache/corrections/AAPL")
    assert said["total"] > 0
