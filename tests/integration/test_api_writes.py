"""Changing things over HTTP: symbols, bars and actions by hand, and runs on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.api import answers
from pricecache.core.instruments import Instrument
from tests.integration.api_daemon import AAPL, ApiDaemon, api_daemon
from tests.integration.test_api_reads import exactly

IBM = Instrument("IBM")
PUT = "/cache/historical/FUND?market=CUSTOM"


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database) as started:
        yield started


async def test_bars_by_hand_are_stored_once(daemon: ApiDaemon) -> None:
    body = {
        "currency": "CHF",
        "bars": [{"date": "2024-01-02", "close": 185.64}, {"date": "2024-01-06", "close": "186"}],
    }
    status, answer = await daemon.call("PUT", PUT, json=body)
    assert status == 200
    exactly(answers.StoredOut, answer)
    assert answer == {"symbol": "FUND", "market": "CUSTOM", "stored": 2, "unchanged": 0, "rejected": []}
    assert (await daemon.call("PUT", PUT, json=body))[1]["unchanged"] == 2
    _, history = await daemon.get("/cache/historical/FUND?market=CUSTOM&adjust=none")
    assert history["currency"] == "CHF"
    assert [(bar["date"], bar["close"], bar["open"]) for bar in history["bars"]] == [
        ("2024-01-02", 185.64, None),
        ("2024-01-06", 186.0, None),
    ]
    assert daemon.provider.calls == []


async def test_bad_rows_are_rejected_one_by_one_and_the_good_ones_stored(daemon: ApiDaemon) -> None:
    bars = [
        {"date": "2024-01-03", "close": 10},
        {"date": "2024-01-02", "close": -1},
        {"date": "2030-01-01", "close": 10},
        {"date": "2024-01-03", "close": 11},
        {"date": "2024-01-04", "open": 9, "high": 8, "low": 9, "close": 9},
        {"date": "2024-01-05", "close": 10, "volume": -5},
    ]
    status, answer = await daemon.call("PUT", PUT, json={"bars": bars})
    assert (status, answer["stored"]) == (200, 1)
    assert [(row["row"], row["code"]) for row in answer["rejected"]] == [
        (1, "bad_close"),
        (2, "in_the_future"),
        (3, "duplicate_date"),
        (4, "high_below_low"),
        (5, "bad_volume"),
    ]


async def test_when_no_row_is_left_nothing_is_made(daemon: ApiDaemon) -> None:
    status, problem = await daemon.call("PUT", PUT, json={"bars": [{"date": "2030-01-01", "close": 10}]})
    assert (status, problem["code"]) == (422, "nothing_to_store")
    assert problem["errors"][0]["code"] == "in_the_future"
    assert len(daemon.services.catalog) == 0


async def test_bars_in_another_currency_are_refused(daemon: ApiDaemon) -> None:
    await daemon.stored()
    body = {"currency": "EUR", "bars": [{"date": "2024-01-02", "close": 1}]}
    status, problem = await daemon.call("PUT", "/cache/historical/AAPL", json=body)
    assert (status, problem["code"], problem["currency"]) == (409, "currency_mismatch", "USD")


async def test_a_bar_by_hand_beats_the_providers_until_it_is_taken_back(daemon: ApiDaemon) -> None:
    await daemon.stored()
    body = {"bars": [{"date": "2026-11-19", "close": 1.25}]}
    await daemon.call("PUT", "/cache/historical/AAPL", json=body)
    assert (await daemon.get("/cache/historical/AAPL"))[1]["bars"][-1]["close"] == 1.25
    status, answer = await daemon.call("DELETE", "/cache/historical/AAPL?start=2026-11-19")
    assert (status, answer) == (200, {"symbol": "AAPL", "market": "US", "retracted": 1})
    assert (await daemon.get("/cache/historical/AAPL"))[1]["bars"][-1]["close"] == 107.25
    assert (await daemon.call("DELETE", "/cache/historical/AAPL"))[1]["retracted"] == 0


async def test_actions_by_hand_come_and_go(daemon: ApiDaemon) -> None:
    await daemon.stored()
    actions = [
        {"date": "2026-11-19", "kind": "split", "ratio": 4.0},
        {"date": "2026-11-18", "kind": "dividend", "amount": 0.24},
    ]
    status, answer = await daemon.call("PUT", "/cache/actions/AAPL", json={"actions": actions})
    assert status == 200
    exactly(answers.ActionsOut, answer)
    assert answer == (await daemon.get("/cache/actions/AAPL"))[1]
    assert answer["actions"] == [
        {
            "date": "2026-11-18",
            "kind": "dividend",
            "amount": 0.24,
            "currency": "USD",
            "source": "manual",
            "manual": True,
        },
        {"date": "2026-11-19", "kind": "split", "ratio": 4.0, "currency": None, "source": "manual", "manual": True},
    ]
    assert (await daemon.get("/cache/historical/AAPL"))[1]["bars"][-2]["close"] == 26.75
    _, left = await daemon.call("DELETE", "/cache/actions/AAPL?kind=split")
    assert [action["kind"] for action in left["actions"]] == ["dividend"]
    _, left = await daemon.call("DELETE", "/cache/actions/AAPL")
    assert left["actions"] == []
    assert (await daemon.get("/cache/historical/AAPL"))[1]["bars"][-2]["close"] == 107.0


@pytest.mark.parametrize(
    ("actions", "code"),
    [
        ([{"date": "2026-11-19", "kind": "split", "ratio": 0}], "invalid_value"),
        ([{"date": "2026-11-19", "kind": "dividend", "ratio": 2}], "invalid"),
        ([{"date": "2026-11-19", "kind": "merger", "ratio": 2}], "invalid_value"),
        ([{"date": "2026-11-19", "kind": "split", "ratio": 2}] * 2, "duplicate_date"),
    ],
)
async def test_bad_actions_are_refused(daemon: ApiDaemon, actions: list[dict[str, Any]], code: str) -> None:
    await daemon.stored()
    status, problem = await daemon.call("PUT", "/cache/actions/AAPL", json={"actions": actions})
    assert (status, problem["code"]) == (422, code)
    assert (await daemon.get("/cache/actions/AAPL"))[1]["actions"] == []


async def test_a_symbol_is_tracked_and_filled_at_once(daemon: ApiDaemon) -> None:
    daemon.truth(IBM)
    status, answer = await daemon.call("POST", "/cache/symbols", json={"symbols": ["IBM"]})
    assert status == 201
    exactly(answers.TrackedOut, answer)
    run = await finished(daemon, answer["run"]["id"])
    assert run["state"] == "succeeded"
    assert len((await daemon.get("/cache/historical/IBM"))[1]["bars"]) == 30
    again = await daemon.call("POST", "/cache/symbols", json={"symbols": [{"symbol": "ibm", "market": "us"}]})
    assert (again[0], again[1]["run"]) == (200, None)


async def test_every_bad_symbol_is_told_and_none_is_tracked(daemon: ApiDaemon) -> None:
    symbols = ["IBM", "../etc", {"symbol": "SAP", "market": "MARS"}, {"symbol": {"$gt": ""}}, 7]
    status, problem = await daemon.call("POST", "/cache/symbols", json={"symbols": symbols})
    assert status == 422
    assert [(row["row"], row["code"]) for row in problem["errors"]] == [
        (1, "invalid_symbol"),
        (2, "unknown_market"),
        (3, "invalid_symbol"),
        (4, "invalid_symbol"),
    ]
    assert len(daemon.services.catalog) == 0


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/cache/symbols/AAPL", None),
        ("/cache/symbols/AAPL?market=US", None),
        ("/cache/symbols?symbols=AAPL", None),
        ("/cache/symbols", {"symbols": [{"symbol": "AAPL", "market": "US"}]}),
    ],
)
async def test_untracking_keeps_what_is_stored(daemon: ApiDaemon, target: str, body: Any) -> None:
    await daemon.stored()
    status, answer = await daemon.call("DELETE", target, **({"json": body} if body else {}))
    assert (status, answer) == (200, {"untracked": [{"symbol": "AAPL", "market": "US"}]})
    assert not daemon.services.catalog.require(AAPL).tracked
    assert len((await daemon.get("/cache/historical/AAPL"))[1]["bars"]) == 30


async def test_untracking_nothing_or_something_unknown_is_refused(daemon: ApiDaemon) -> None:
    assert (await daemon.call("DELETE", "/cache/symbols"))[1]["code"] == "no_symbols"
    status, problem = await daemon.call("DELETE", "/cache/symbols?symbols=NOPE")
    assert (status, problem["code"]) == (404, "unknown_symbol")


async def finished(daemon: ApiDaemon, run_id: str) -> dict[str, Any]:
    for _ in range(2000):
        _, run = await daemon.get(f"/cache/runs/{run_id}")
        if run["state"] not in ("queued", "running"):
            return dict(run)
    raise TimeoutError(run_id)


async def test_backfill_answers_with_the_finished_report(daemon: ApiDaemon) -> None:
    daemon.truth(IBM)
    status, run = await daemon.call("POST", "/cache/backfill-symbol", json={"symbol": "IBM"})
    assert status == 200
    exactly(answers.RunOut, run)
    assert (run["state"], run["job"], run["failures"]) == ("succeeded", "backfill_symbol", [])
    assert run == (await daemon.get(f"/cache/runs/{run['id']}"))[1]
    assert [r["id"] for r in (await daemon.get("/cache/runs?job=backfill_symbol"))[1]["runs"]] == [run["id"]]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"symbol": "sap:de"}, "SAP:DE"),
        ({"symbol": "SAP", "market": "DE"}, "SAP:DE"),
        ({"symbol": "SAP"}, "SAP:US"),
        ({"symbol": "SAP", "market": None}, "SAP:US"),
    ],
)
async def test_a_symbol_to_backfill_is_named_as_elsewhere(daemon: ApiDaemon, body: dict[str, Any], named: str) -> None:
    status, run = await daemon.call("POST", "/cache/backfill-symbol?wait=0", json=body)
    assert (status, run["parameters"]["symbols"]) == (202, [named])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"symbol": "SAP:DE", "market": "US"}, "symbol_of_another_market"),
        ({"symbol": "EURUSD=X", "market": "US"}, "symbol_of_another_market"),
        ({"symbol": "SAP:MARS"}, "unknown_market"),
        ({"symbol": "SAP", "market": "MARS"}, "unknown_market"),
        ({"symbol": ""}, "invalid_symbol"),
        ({"symbol": "SAP", "start": "2026-11-22"}, "start_in_the_future"),
    ],
)
async def test_what_cannot_be_backfilled_is_refused(daemon: ApiDaemon, body: dict[str, Any], code: str) -> None:
    status, problem = await daemon.call("POST", "/cache/backfill-symbol", json=body)
    assert (status, problem["code"]) == (422, code)
    assert len(daemon.services.catalog) == 0


async def test_verifying_tells_every_difference_and_has_done_its_work_all_the_same(
    daemon: ApiDaemon, database: Any
) -> None:
    """Two faults of one series are no sign that not one of the series could be looked at."""
    entry = await daemon.stored()
    assert (await daemon.call("POST", "/api/admin/verify"))[1]["counts"] == {"problems": 0}
    await database["series"].update_one({"_id": entry.id}, {"$set": {"count": 7}})
    await database["bar_years"].update_one({}, {"$set": {"k": 1}})
    await daemon.services.bars.refresh([entry])
    for expected in (True, False):
        _, run = await daemon.call("POST", "/api/admin/verify?wait=20", json={"rebuild": True})
        assert (run["state"], bool(run["counts"]["problems"]), run["error"]) == ("succeeded", expected, None)
    assert len((await daemon.get("/cache/historical/AAPL"))[1]["bars"]) == 30


async def test_who_does_not_wait_gets_a_run_to_follow(daemon: ApiDaemon) -> None:
    daemon.truth(IBM)
    async with daemon.session.post(daemon.base + "/cache/backfill-symbol?wait=0", json={"symbol": "IBM"}) as response:
        run = await response.json()
        assert response.status == 202
        assert response.headers["Location"] == f"/cache/runs/{run['id']}"
    assert run["state"] in ("queued", "running")
    assert (await finished(daemon, run["id"]))["state"] == "succeeded"


async def test_two_equal_requests_join_the_same_run(daemon: ApiDaemon) -> None:
    daemon.truth(IBM)
    body = {"symbol": "IBM"}
    answers = await asyncio.gather(*(daemon.call("POST", "/cache/backfill-symbol", json=body) for _ in range(5)))
    assert len({run["id"] for _, run in answers}) == 1
    assert len(daemon.provider.calls_for(IBM)) == 1


async def test_quotes_are_refreshed_now(daemon: ApiDaemon) -> None:
    await daemon.stored(IBM)
    daemon.truth(IBM)
    status, run = await daemon.call("POST", "/cache/refresh-live")
    assert (status, run["counts"]["updated"]) == (200, 1)
    assert (await daemon.get("/cache/live/IBM"))[1]["price"] == 51.0
    status, run = await daemon.call("POST", "/cache/refresh-live", json={"symbols": ["IBM"]})
    assert (status, run["parameters"]) == (200, {"symbols": ["IBM:US"]})


async def test_refreshing_what_is_unknown_names_all_of_it(daemon: ApiDaemon) -> None:
    status, problem = await daemon.call("POST", "/cache/refresh-live", json={"symbols": ["NOPE", "NADA"]})
    assert (status, problem["code"]) == (404, "unknown_symbol")
    assert [row["symbol"] for row in problem["errors"]] == ["NOPE", "NADA"]
    assert daemon.provider.calls == []


async def test_the_staged_sync_runs_now(daemon: ApiDaemon) -> None:
    status, run = await daemon.call("POST", "/cache/sync-historical", json={})
    assert (status, run["job"], run["state"]) == (200, "historical_sync", "succeeded")
    assert run["parameters"] == {"force": True}


async def test_an_unknown_run_is_not_found(daemon: ApiDaemon) -> None:
    status, problem = await daemon.get("/cache/runs/6b00263fc3255c7e2748f818")
    assert (status, problem["code"]) == (404, "unknown_run")


async def test_what_no_provider_has_is_not_asked_for(daemon: ApiDaemon) -> None:
    body = {"symbol": "FUND", "market": "CUSTOM"}
    status, problem = await daemon.call("POST", "/cache/backfill-symbol", json=body)
    assert (status, problem["code"]) == (422, "no_provider")
    status, problem = await daemon.call("POST", "/cache/refresh-live", json={"symbols": []})
    assert (status, problem["code"]) == (422, "too_few")
