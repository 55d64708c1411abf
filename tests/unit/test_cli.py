"""The command line: what each command asks the daemon, what it prints, and with which code it exits."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pricecache import __version__, client
from pricecache.cli import main
from tests.fakes.daemon import FakeDaemon

ROOT = Path(__file__).parents[2]
RUN = {
    "id": "r1",
    "job": "historical_sync",
    "state": "succeeded",
    "done": 2,
    "total": 2,
    "counts": {"stored": 251},
    "failures": [],
    "failuresTotal": 0,
    "durationMs": 1234,
    "message": "",
    "error": None,
}
FAILURE = {"symbol": "DEAD", "market": "US", "code": "symbol_not_found", "detail": "[nothing] is known of it"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PRICECACHE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon()
    daemon.start()
    monkeypatch.setenv("PRICECACHE_URL", daemon.url)
    yield daemon
    daemon.stop()


@pytest.fixture
def free_port() -> Iterator[int]:
    """Nobody listens there, and nobody else may meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


def usage_error(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


# which code it exits with


def test_success_is_0(daemon: FakeDaemon) -> None:
    daemon.put("POST /cache/sync-historical?wait=0", RUN)
    assert main(["sync"]) == 0


@pytest.mark.parametrize(
    "run", [RUN | {"state": "failed"}, RUN | {"state": "interrupted"}, RUN | {"failures": [FAILURE]}], ids=str
)
def test_work_that_failed_in_part_or_whole_is_1(daemon: FakeDaemon, run: dict[str, Any]) -> None:
    daemon.put("POST /cache/sync-historical?wait=0", run)
    assert main(["sync"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("backfill",),
        ("symbols", "add"),
        ("symbols", "remove"),
        ("symbols", "search"),
        ("symbols", "rename", "FB"),
        ("symbols", "list", "AAPL", "--on", "2022-06-09"),
        ("keys", "create"),
        ("keys", "revoke"),
        ("providers", "reset"),
        ("sync", "--loud"),
        ("transactions",),
        ("map-security",),
        ("map-security", "m1"),
        ("map-security", "m1", "AAPL", "--brokers-own"),
        ("unmap-security",),
        ("mappings", "--state", "lost"),
        ("transactions", "import", "--portfolio-id", "p1"),
        ("transactions", "export", "x.csv", "--portfolio-id", "p1"),
        ("transactions", "list", "--dry-run", "--portfolio-id", "p1"),
        ("transactions", "import", "x.csv", "--output", "y", "--portfolio-id", "p1"),
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_be_understood_is_2(arguments: tuple[str, ...]) -> None:
    assert usage_error(*arguments) == 2


@pytest.mark.parametrize("symbol", ["A BC", "AAPL:MARS", "x" * 9000, "%2f"])
def test_a_symbol_that_cannot_be_one_is_2_and_asks_nothing(daemon: FakeDaemon, symbol: str) -> None:
    assert main(["backfill", symbol]) == 2
    assert daemon.asked == []


def test_a_setting_that_cannot_work_is_2_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRICECACHE_PORT", "ninety")
    assert main(["status"]) == 2
    assert "PRICECACHE_PORT" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://127.0.0.1:99999", "nonsense"])
def test_a_url_that_is_none_is_2(url: str) -> None:
    assert main(["status", "--url", url]) == 2


@pytest.mark.parametrize(
    "arguments", [("status",), ("sync",), ("backfill", "AAPL"), ("symbols",), ("keys",), ("coverage", "AAPL")]
)
def test_no_daemon_is_3_and_said_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free_port: int, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PRICECACHE_PORT", str(free_port))
    assert main(arguments) == 3
    shown = capsys.readouterr()
    assert f"No daemon answers at http://127.0.0.1:{free_port}" in shown.err
    assert shown.out == ""


def test_something_else_on_the_port_is_3(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.put("GET /cache/symbols", b"<html>hello</html>")
    assert main(["symbols"]) == 3
    assert "is not pricecache" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [(400, 2), (422, 2), (401, 1), (403, 1), (404, 1), (503, 1)])
def test_a_refusal_is_said_with_its_code(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], status: int, code: int
) -> None:
    problem = {"title": "No", "status": status, "code": "some_code", "detail": "Do this instead."}
    daemon.put("GET /cache/status", problem, status=status)
    assert main(["status"]) == code
    assert "Do this instead. [some_code]" in capsys.readouterr().err


# what it asks


def test_the_key_is_sent_and_never_on_the_command_line(monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon) -> None:
    monkeypatch.setenv("PRICECACHE_API_KEY", "secret")
    daemon.put("GET /cache/symbols", {"symbols": []})
    main(["symbols"])
    assert daemon.asked[0].headers["X-API-Key"] == "secret"


@pytest.mark.parametrize(
    ("arguments", "request_line", "body"),
    [
        (["sync"], "POST /cache/sync-historical?wait=0", None),
        (["refresh"], "POST /cache/refresh-live?wait=0", None),
        (
            ["refresh", "AAPL", "sap:de"],
            "POST /cache/refresh-live?wait=0",
            {"symbols": [{"symbol": "AAPL", "market": "US"}, {"symbol": "SAP", "market": "DE"}]},
        ),
        (
            ["backfill", "VOD", "--market", "L", "--start", "2020-01-02"],
            "POST /cache/backfill-symbol?wait=0",
            {"symbol": "VOD", "market": "L", "start": "2020-01-02"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_work_is_asked_for_as_the_api_has_it(
    daemon: FakeDaemon, arguments: list[str], request_line: str, body: object
) -> None:
    daemon.put(request_line, {"run": RUN}, status=202)
    assert main(arguments) == 0
    assert [(f"{one.method} {one.path}", one.body) for one in daemon.asked] == [(request_line, body)]


@pytest.mark.parametrize(("action", "method"), [("add", "POST"), ("remove", "DELETE")])
def test_symbols_are_tracked_and_untracked(daemon: FakeDaemon, action: str, method: str) -> None:
    daemon.put(f"{method} /cache/symbols", {"symbols": [{"symbol": "AAPL", "market": "US"}]})
    assert main(["symbols", action, "AAPL"]) == 0
    assert daemon.asked[0].body == {"symbols": [{"symbol": "AAPL", "market": "US"}]}


def test_a_symbol_newly_tracked_is_backfilled_before_the_command_ends(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"symbol": "AAPL", "market": "US", "state": "new"}]
    daemon.put("POST /cache/symbols", {"symbols": rows, "run": RUN | {"state": "running"}}, status=201)
    daemon.put("GET /cache/runs/r1", RUN | {"state": "failed"})
    assert main(["symbols", "add", "AAPL", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"symbols": rows, "run": RUN | {"state": "failed"}}


def test_coverage_of_all_is_a_row_for_each_symbol_and_the_whole(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"symbol": "AAPL", "market": "US", "expected": 10, "present": 9, "ratio": 0.9, "holes": {"pending": 1}}
    daemon.put("GET /cache/status", {"coverage": {"expected": 10, "present": 9, "ratio": 0.9}, "symbols": [row]})
    assert main(["coverage"]) == 0
    assert "pending 1" in capsys.readouterr().out


def test_a_symbol_is_one_segment_of_the_path(daemon: FakeDaemon) -> None:
    daemon.put("GET /cache/coverage/EURUSD%3DX?market=FX&start=2024-01-01", {"symbol": "EURUSD=X"})
    assert main(["coverage", "EURUSD=X:FX", "--start", "2024-01-01"]) == 0


def test_symbols_named_are_listed_alone_and_those_not_kept_are_told(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.put("GET /cache/symbols/SAP?market=DE", {"symbol": "SAP", "market": "DE", "state": "ok"})
    assert main(["symbols", "list", "SAP.DE"]) == 0
    assert main(["symbols", "list", "SAP:DE", "NOPE"]) == 1
    printed = capsys.readouterr()
    assert printed.out.count("SAP") == 2
    assert "NOPE:US" in printed.err


def test_no_symbols_and_no_keys_are_told_in_words(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.put("GET /cache/symbols", {"symbols": []})
    daemon.put("GET /api/admin/keys", {"keys": []})
    assert main(["symbols"]) == 0
    assert main(["keys"]) == 0
    assert [line.split(".")[0] for line in capsys.readouterr().out.splitlines()] == [
        "No symbols are kept",
        "No keys have been created here",
    ]


def test_symbols_are_searched_for_and_whom_it_could_not_ask_is_told(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"symbol": "AAPL", "market": "US", "name": "Apple Inc.", "tracked": False}
    failed = [{"name": "fmp", "code": "rate_limited"}]
    found = {"query": "APPLE INC", "results": [row], "providers": failed}
    daemon.put("GET /cache/symbols/search?q=apple+inc&limit=25", found, found | {"results": []})
    assert main(["symbols", "search", "apple", "inc"]) == 0
    assert main(["symbols", "search", "apple", "inc"]) == 0
    printed = capsys.readouterr()
    assert "Apple Inc." in printed.out
    assert printed.out.endswith("Nothing found.\n")
    assert "fmp could not be asked: rate_limited." in printed.err


def test_a_symbol_is_renamed_from_a_day_on(daemon: FakeDaemon) -> None:
    daemon.put("POST /cache/symbols/FB/rename?market=US", {"symbol": "META", "market": "US"})
    assert main(["symbols", "rename", "FB", "META", "--on", "2022-06-09"]) == 0
    assert daemon.asked[0].body == {"to": "META", "on": "2022-06-09"}


def reconstructed(name: str, findings: list[dict[str, Any]], total: int | None = None) -> dict[str, Any]:
    result = {"findings": findings, "findingsTotal": total or len(findings), "securities": {"total": 3, "review": 1}}
    facts = {"percent": 100, "message": "Done", "attempts": 1, "nextAttempt": None, "error": None}
    return {"connectionId": f"c-{name}", "portfolioId": f"p-{name}", "state": "done", **facts, "result": result}


def test_a_reconstruction_whose_portfolio_is_deleted_meanwhile_has_failed(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    queued = {**reconstructed("one", []), "state": "queued", "percent": 0}
    daemon.put("POST /api/portfolio/reconstruction/request", {"reconstructions": [queued], "unchanged": False})
    daemon.put("GET /api/portfolio/reconstruction/status?connectionId=c-one", {"reconstructions": []})
    assert main(["reconstruct"]) == 1
    assert "[portfolio_gone]" in capsys.readouterr().err


def test_what_reconstructions_found_is_told_with_its_portfolio_its_account_and_its_place(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"code": "cash_unexplained", "detail": "more came in", "date": "2026-11-02", "accountId": "acc-1",
               "amount": 12.5, "currency": "USD", "rows": ["t1", "t2"], "externalId": "x/9"}  # fmt: skip
    remark = {"code": "cancelled_row", "detail": "cancelled by another", "path": "transactions[4]"}
    listed = [reconstructed("one", [missing]), reconstructed("two", [remark], 30)]
    daemon.put("GET /api/portfolio/reconstruction/status?findings=1", {"reconstructions": listed})
    assert main(["reconstruction-status", "--findings", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (headings,) = (line for line in lines if line.startswith("portfolio id  account id"))
    assert "symbol" not in headings
    (first,) = (line for line in lines if "cash_unexplained" in line)
    assert [word for word in ("p-one", "acc-1", "2026-11-02", "12.5", "t1, t2", "x/9") if word not in first] == []
    (second,) = (line for line in lines if "cancelled_row" in line)
    assert second.startswith("p-two")
    assert "transactions[4]" in second
    assert "findings (31)" in lines
    assert lines[-1].startswith("... and 29 more")


def test_keys_are_created_listed_and_revoked(
    monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRICECACHE_API_KEY", "of-an-admin")
    daemon.put("POST /api/admin/keys", {"id": "k1", "name": "grafana", "secret": "shown-once"}, status=201)
    daemon.put("GET /api/admin/keys", {"keys": [{"id": "k1", "name": "grafana", "scopes": ["read", "ops"]}]})
    daemon.put("DELETE /api/admin/keys/k1", b"", status=204)
    assert main(["keys", "create", "grafana", "--scopes", "read+ops"]) == 0
    assert main(["keys"]) == 0
    assert main(["keys", "revoke", "k1"]) == 0
    assert daemon.asked[0].body == {"name": "grafana", "scopes": ["read", "ops"]}
    assert "shown-once" in capsys.readouterr().out


def test_a_first_key_that_would_lock_everybody_out_is_not_created(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "grafana"]) == 2
    assert "--scopes read+ops+admin" in capsys.readouterr().err
    assert daemon.asked == []


def test_providers_are_shown_as_a_table_and_reset_by_name(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "name": "yfinance",
        "state": "coolingDown",
        "coolDownUntil": "2026-11-20T10:02:00Z",
        "breaker": {"state": "closed", "until": None},
        "budget": {"perDay": 500, "spent": 7, "remaining": 493},
        "calls24h": 12,
        "errors24h": 1,
        "spentDollars": 0.007,
        "lastSuccessAt": "2026-11-20T10:00:00Z",
        "lastErrorAt": None,
        "lastErrorCode": None,
    }
    daemon.put("GET /cache/providers", {"providers": [row]})
    daemon.put("POST /cache/providers/yfinance/reset", row)
    assert main(["providers"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("yfinance", "coolingDown", "10:02:00", "493", "0.007", "left today"))
    assert main(["providers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"providers": [row]}
    assert main(["providers", "reset", "yfinance", "--budget"]) == 0
    assert main(["providers", "reset", "yfinance"]) == 0
    assert [one.body for one in daemon.asked[-2:]] == [{"budget": True}, {}]


# mappings

SECURITY = {"id": "s1", "name": "Apple", "kind": "equity", "ticker": "AAPL", "exchange": "XNAS", "isin": None,
            "cusip": None, "sedol": None, "currency": "USD"}  # fmt: skip
MAPPING = {"id": "m1", "state": "review", "symbol": "B-XYZ", "market": "CUSTOM", "isBrokersOwn": True,
           "confidence": 0.7, "reasons": ["ticker (+0.50): AAPL:US"], "candidate": {"symbol": "AAPL", "market": "US"},
           "security": SECURITY, "decision": None, "updatedAt": None}  # fmt: skip
COUNTS = {"mapped": 1, "review": 1, "unmapped": 0, "overridden": 0}


def test_mappings_are_listed_for_the_user_or_for_everybody(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"counts": COUNTS, "mappings": [MAPPING]}
    daemon.put("GET /api/portfolio/mappings?limit=5000", answer)
    daemon.put("GET /api/admin/mappings?state=review&limit=5000", answer)
    assert main(["mappings"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("m1", "B-XYZ", "AAPL:US", "1 mapped, 1 review"))
    assert main(["mappings", "--state", "review", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_what_a_security_is_can_be_decided_and_taken_back(daemon: FakeDaemon) -> None:
    daemon.put("PUT /api/portfolio/mappings/m1", MAPPING)
    daemon.put("PUT /api/admin/mappings/m1", MAPPING)
    daemon.put("DELETE /api/portfolio/mappings/m1", MAPPING)
    assert main(["map-security", "m1", "SAP:DE"]) == 0
    assert main(["map-security", "m1", "--brokers-own", "--all"]) == 0
    assert main(["unmap-security", "m1"]) == 0
    assert [one.body for one in daemon.asked] == [{"symbol": "SAP", "market": "DE"}, {"symbol": None}, None]


# transactions

TRANSACTIONS = "/api/portfolios/p1/transactions"
TAKEN = {"dryRun": False, "created": 2, "updated": 0, "unchanged": 1, "affectsFrom": "2026-01-05", "questions": []}


@pytest.mark.parametrize(
    ("name", "options", "query", "kind"),
    [
        ("a.csv", [], "", "text/csv"),
        ("a.json", [], "", "application/json"),
        ("a.txt", ["--format", "json"], "", "application/json"),
        ("a.csv", ["--dry-run"], "?dryRun=true", "text/csv"),
        (
            "a.csv", ["--quantity-basis", "adjusted", "--account-id", "b"],
            "?quantityBasis=adjusted&accountId=b", "text/csv",
        ),
    ],
)  # fmt: skip
def test_a_file_is_sent_as_it_is(
    daemon: FakeDaemon, tmp_path: Path, name: str, options: list[str], query: str, kind: str
) -> None:
    content = b"[1]" if kind == "application/json" else b"date,type\r\n"
    (tmp_path / name).write_bytes(content)
    daemon.put(f"POST {TRANSACTIONS}/import{query}", TAKEN, status=201)
    assert main(["transactions", "import", name, "--portfolio-id", "p1", *options]) == 0
    (asked,) = daemon.asked
    assert asked.headers["Content-Type"] == kind
    assert asked.body == ([1] if kind == "application/json" else content)


def test_what_an_import_did_is_told_in_a_line(
    daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("x")
    daemon.put(f"POST {TRANSACTIONS}/import", TAKEN, status=201)
    assert main(["transactions", "import", "a.csv", "--portfolio-id", "p1"]) == 0
    assert capsys.readouterr().out == "2 created, 0 updated, 1 unchanged; history changes from 2026-01-05 on\n"
    assert main(["transactions", "import", "a.csv", "--portfolio-id", "p1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == TAKEN


def test_a_dry_run_that_would_be_refused_is_2_and_every_fault_is_told(
    daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("x")
    fault = {"row": 3, "line": 5, "column": "Shares", "code": "ambiguous_number", "detail": "write 1234.56"}
    question = {"row": 1, "line": 3, "date": "2026-01-05", "symbol": "AAPL", "price": 100.0,
                "quantityBasis": "asTraded", "units": {"verdict": "adjusted"}}  # fmt: skip
    update = {"row": 0, "line": 2, "action": "update", "before": {"note": "a"}, "after": {"note": "b"}}
    answer = {**TAKEN, "dryRun": True, "accepted": False, "rows": [update], "questions": [question], "errors": [fault],
              "errorsTotal": 1, "holdings": [{"symbol": "AAPL", "before": 1, "after": 4}]}  # fmt: skip
    daemon.put(f"POST {TRANSACTIONS}/import?dryRun=true", answer)
    assert main(["transactions", "import", "a.csv", "--dry-run", "--portfolio-id", "p1"]) == 2
    printed = capsys.readouterr()
    assert "would be 2 created" in printed.out
    assert all(text in printed.out for text in ("note a", "note b", "asTraded", "adjusted", "holdings at the end"))
    assert "line 5, Shares: write 1234.56 [ambiguous_number]" in printed.err


def test_a_file_that_is_refused_is_2_with_the_place_of_each_fault(
    daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("x")
    rows = [{"row": 0, "line": 2, "column": "Date", "code": "bad_date", "detail": "no date"}]
    daemon.put(f"POST {TRANSACTIONS}/import", {"code": "bad_date", "detail": "no date", "errors": rows}, status=422)
    assert main(["transactions", "import", "a.csv", "--portfolio-id", "p1"]) == 2
    assert "line 2, Date: no date" in capsys.readouterr().err
    assert main(["transactions", "import", "none.csv", "--portfolio-id", "p1"]) == 2
    assert "none.csv cannot be read" in capsys.readouterr().err


def test_an_export_goes_to_standard_output_or_a_file_byte_by_byte(
    daemon: FakeDaemon, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    content = "date,type\r\nä".encode()
    for name in ("csv", "json"):
        daemon.put(f"GET {TRANSACTIONS}/export?format={name}", content)
    assert main(["transactions", "export", "--portfolio-id", "p1"]) == 0
    assert capfdbinary.readouterr().out == content
    assert main(["transactions", "export", "--portfolio-id", "p1", "--output", "a.json"]) == 0
    assert (tmp_path / "a.json").read_bytes() == content
    assert main(["transactions", "export", "--portfolio-id", "p1", "--output", "no/where"]) == 2
    daemon.put(f"GET {TRANSACTIONS}/export?format=csv", {"code": "unknown_portfolio", "detail": "no"}, status=404)
    assert main(["transactions", "export", "--portfolio-id", "p1"]) == 1


def test_transactions_are_listed(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"date": "2026-01-05", "type": "buy", "symbol": "AAPL", "quantity": 10, "price": 171.25}
    daemon.put(f"GET {TRANSACTIONS}?limit=5000", {"transactions": [row], "total": 7000})
    assert main(["transactions", "--portfolio-id", "p1"]) == 0
    printed = capsys.readouterr().out
    assert "171.25" in printed
    assert printed.endswith("7000 transactions, 1 shown\n")


def test_the_user_is_sent_beside_the_key(monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon) -> None:
    daemon.put(f"GET {TRANSACTIONS}?limit=5000", {"transactions": [], "total": 0})
    monkeypatch.setenv("PRICECACHE_USER", "ann")
    main(["transactions", "--portfolio-id", "p1"])
    main(["transactions", "--portfolio-id", "p1", "--user", "bob"])
    assert [asked.headers["X-User-Id"] for asked in daemon.asked] == ["ann", "bob"]


# what it waits for and prints


def test_a_run_is_looked_at_until_its_end_less_and_less_often(daemon: FakeDaemon) -> None:
    daemon.put("GET /cache/runs/r1", *({"run": RUN | {"state": "running", "done": done}} for done in range(20)), RUN)
    waits: list[float] = []
    follower = client.Daemon(daemon.url, sleep=waits.append)
    states = [run["state"] for run in follower.follow(RUN | {"state": "queued"})]
    assert states == ["queued", *["running"] * 20, "succeeded"]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.1, 1.0)


def test_a_run_is_followed_and_then_reported(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.put("POST /cache/sync-historical?wait=0", {"run": RUN | {"state": "queued", "done": 0, "total": None}})
    daemon.put("GET /cache/runs/r1", RUN)
    assert main(["sync"]) == 0
    assert capsys.readouterr().out.strip() == "historical_sync succeeded in 1.2 s: 251 stored"


def test_a_run_that_had_nothing_to_do_says_why(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    why = "No session closed on 2026-11-14, by now."
    path = "POST /api/portfolio/daily-snapshots/capture?wait=0"
    daemon.put(path, RUN | {"job": "eod_snapshot", "counts": {"days": 0}, "done": 0, "total": 0, "message": why})
    assert main(["capture-snapshots", "--date", "2026-11-14"]) == 0
    assert capsys.readouterr().out.splitlines() == ["eod_snapshot succeeded in 1.2 s: 0 days", why]


def test_one_of_something_is_counted_as_one(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"days": 1, "captured": 2, "documents": 1}
    daemon.put("POST /api/portfolio/daily-snapshots/capture?wait=0", RUN | {"job": "eod_snapshot", "counts": counts})
    main(["capture-snapshots"])
    assert capsys.readouterr().out.strip() == "eod_snapshot succeeded in 1.2 s: 1 day, 2 captured, 1 document"


def test_a_run_is_not_waited_for_when_told_so(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.put("POST /cache/sync-historical?wait=0", {"run": RUN | {"state": "queued"}})
    assert main(["sync", "--no-wait", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "r1"
    assert len(daemon.asked) == 1


def test_failures_are_listed_as_they_are(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are no markup to the table."""
    daemon.put("POST /cache/sync-historical?wait=0", RUN | {"failures": [FAILURE], "failuresTotal": 1})
    main(["sync"])
    assert "[nothing] is known of it" in capsys.readouterr().out


def test_one_symbol_refused_does_not_keep_the_others_from_their_backfill(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["POST /cache/backfill-symbol?wait=0"] = [
        (404, json.dumps({"code": "symbol_not_found", "detail": "No such symbol."}).encode()),
        (202, json.dumps({"run": RUN}).encode()),
    ]
    assert main(["backfill", "DEAD", "AAPL", "--json"]) == 1
    shown = capsys.readouterr()
    assert "DEAD:US: No such symbol." in shown.err
    assert [run["id"] for run in json.loads(shown.out)["runs"]] == ["r1"]


@pytest.mark.parametrize(
    ("arguments", "path", "answer"),
    [
        (["status"], "/cache/status", {"live": {"count": 3}, "hitRate": None}),
        (["symbols"], "/cache/symbols", {"symbols": [{"symbol": "AAPL", "state": "tracked"}]}),
        (["coverage"], "/cache/status", {"coverage": {"ratio": 1.0}, "symbols": [{"symbol": "AAPL", "expected": 3}]}),
        (["coverage", "AAPL"], "/cache/coverage/AAPL?market=US", {"expected": 3, "missing": []}),
        (["keys"], "/api/admin/keys", {"keys": []}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_json_is_the_answer_as_it_came(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], arguments: list[str], path: str, answer: object
) -> None:
    daemon.put(f"GET {path}", answer)
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_status_is_readable_and_cuts_long_lists_short(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"symbol": f"S{number}", "coverage": 0.5} for number in range(30)]
    daemon.put(
        "GET /cache/status", {"hitRate": 0.951, "storage": {"sizeBytes": 12345}, "symbols": rows, "providers": []}
    )
    daemon.put("GET /cache/scheduler/status", {"running": True, "jobs": [{"id": "historical_sync", "missed": 0}]})
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "hit rate" in out
    assert "0.951" in out
    assert "size bytes" in out
    assert "historical_sync" in out
    assert "S19" in out
    assert "S20" not in out
    assert "... and 10 more" in out


def test_a_table_in_a_pipe_is_never_cut(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "because " * 60
    daemon.put("GET /cache/symbols", {"symbols": [{"symbol": "AAPL", "reason": reason}]})
    main(["symbols"])
    assert reason.strip() in capsys.readouterr().out


# the program as a process


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pricecache", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_program_says_its_version() -> None:
    assert process("--version").stdout == f"pricecache {__version__}\n"


def test_the_program_exits_with_the_code_of_its_command(free_port: int) -> None:
    answer = process("status", PRICECACHE_PORT=str(free_port))
    assert (answer.returncode, answer.stdout) == (3, "")


def test_progress_shows_on_a_terminal_and_the_report_stays_clean(daemon: FakeDaemon) -> None:
    daemon.put("POST /cache/sync-historical?wait=0", {"run": RUN | {"state": "queued", "done": 0, "total": None}})
    daemon.put("GET /cache/runs/r1", RUN | {"state": "running", "done": 1, "message": "Processing AAPL"}, RUN)
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "wb") as terminal:
        answer = subprocess.run(
            [sys.executable, "-m", "pricecache", "sync", "--json"],
            env={**os.environ, "PRICECACHE_URL": daemon.url, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=terminal,
            timeout=60,
            check=False,
        )
        shown = os.read(ours, 65536).decode()
    assert json.loads(answer.stdout) == RUN
    assert "1/2" in shown
    assert "Processing AAPL" in shown


def test_a_reader_that_goes_away_is_no_traceback(daemon: FakeDaemon) -> None:
    daemon.put("GET /cache/symbols", {"symbols": [{"symbol": f"S{number}"} for number in range(20_000)]})
    program = f"{sys.executable} -m pricecache symbols --json | head -n 1"
    answer = subprocess.run(
        ["bash", "-c", program],
        env={**os.environ, "PRICECACHE_URL": daemon.url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.stdout == "{\n"
    assert answer.stderr == ""
