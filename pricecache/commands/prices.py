"""Commands on prices: what is kept and how whole, and the work that makes it so."""

from __future__ import annotations

import argparse
from typing import Any

from pricecache import display
from pricecache.client import Daemon, Refusal, path
from pricecache.commands.dialogue import (
    DONE,
    QUOTED_ROWS,
    exit_code_of,
    finished,
    follow,
    instrument_named,
    instruments_named,
    named,
    outcome_of,
    print_json,
)

_SYMBOL_COLUMNS = ("symbol", "market", "state", "bars", "first", "last", "lastUpdate", "nextRetry", "reason")
_PROVIDER_COLUMNS = ("name", "state", "calls24h", "errors24h", "lastSuccessAt", "lastErrorAt", "lastErrorCode")
_FOUND_COLUMNS = ("symbol", "market", "name", "kind", "currency", "tracked", "source")
_MOST_FOUND = 25
_JOB_COLUMNS = ("id", "nextRun", "lastRun", "lastOutcome", "durationMs", "missed", "running")
_COVERAGE_COLUMNS = ("symbol", "market", "expected", "present", "ratio", "holes", "first", "last", "lastUpdate")


def status(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get("/cache/status")
    if options.json:
        return print_json(answer)
    display.show_mapping({name: part for name, part in answer.items() if name not in ("symbols", "providers")})
    display.show_rows(answer["symbols"], _COVERAGE_COLUMNS, title="symbols", most=QUOTED_ROWS)
    display.show_rows(answer["providers"], _PROVIDER_COLUMNS, title="providers")
    display.show_rows(daemon.get("/cache/scheduler/status")["jobs"], _JOB_COLUMNS, title="jobs")
    return DONE


def coverage(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.symbol is None:
        return _coverage_of_all(daemon, options)
    instrument = instrument_named(options.symbol, options.market)
    answer = daemon.get(
        path("cache", "coverage", instrument.symbol), market=instrument.market, start=options.start, end=options.end
    )
    if options.json:
        return print_json(answer)
    display.show_mapping(answer)
    return DONE


def _coverage_of_all(daemon: Daemon, options: argparse.Namespace) -> int:
    status = daemon.get("/cache/status")
    if options.json:
        return print_json({"coverage": status["coverage"], "symbols": status["symbols"]})
    display.show_rows(status["symbols"], _COVERAGE_COLUMNS)
    display.show_mapping(status["coverage"], "all")
    return DONE


def providers(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.action == "reset":
        body = {"budget": True} if options.budget else {}
        answer = daemon.post(path("cache", "providers", options.provider, "reset"), body)
        rows = [answer]
    else:
        answer = daemon.get("/cache/providers")
        rows = answer["providers"]
    if options.json:
        return print_json(answer)
    display.show_rows([_provider_row(row) for row in rows])
    return DONE


def _provider_row(provider: dict[str, Any]) -> dict[str, Any]:
    budget, breaker = provider["budget"], provider["breaker"]
    return {
        "name": provider["name"],
        "state": provider["state"],
        "until": provider["coolDownUntil"] or breaker["until"],
        "spentToday": budget["spent"],
        "leftToday": budget["remaining"],
        **{name: provider[name] for name in ("calls24h", "errors24h", "spentDollars")},
        **{name: provider[name] for name in ("lastSuccessAt", "lastErrorAt", "lastErrorCode")},
    }


def sync(daemon: Daemon, options: argparse.Namespace) -> int:
    return follow(daemon, [("historical_sync", daemon.start("/cache/sync-historical"))], options)


def refresh(daemon: Daemon, options: argparse.Namespace) -> int:
    body = {"symbols": named(instruments_named(options))} if options.symbols else None
    return follow(daemon, [("live_price_update", daemon.start("/cache/refresh-live", body))], options)


def backfill(daemon: Daemon, options: argparse.Namespace) -> int:
    since = {"start": options.start} if options.start else {}
    started: list[tuple[str, dict[str, Any]]] = []
    worst = DONE
    for instrument in instruments_named(options):
        body = {"symbol": instrument.symbol, "market": instrument.market} | since
        try:
            started.append((str(instrument), daemon.start("/cache/backfill-symbol", body)))
        except Refusal as exc:
            display.complain(f"{instrument}: {exc}")
            worst = max(worst, exit_code_of(exc))
    return max(worst, follow(daemon, started, options, many=True))


def symbols(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.action == "list":
        return _list_symbols(daemon, options)
    if options.action == "search":
        return _search(daemon, options)
    if options.action == "rename":
        return _rename(daemon, options)
    body = {"symbols": named(instruments_named(options))}
    if options.action == "add":
        return _track(daemon, daemon.post("/cache/symbols", body), options)
    answer = daemon.delete("/cache/symbols", body)
    if options.json:
        return print_json(answer)
    display.show_mapping(answer)
    return DONE


def _track(daemon: Daemon, answer: dict[str, Any], options: argparse.Namespace) -> int:
    backfill = answer.get("run")
    if backfill and not options.no_wait:
        [(_, backfill)] = finished(daemon, [("backfill", backfill)])
    if options.json:
        print_json(answer | {"run": backfill})
    else:
        display.show_rows(answer["symbols"], _SYMBOL_COLUMNS)
        if backfill:
            display.show_run(backfill)
    return outcome_of(backfill) if backfill else DONE


def _list_symbols(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.symbols:
        return _list_named(daemon, options)
    answer = daemon.get("/cache/symbols")
    if options.json:
        return print_json(answer)
    if answer["symbols"]:
        display.show_rows(answer["symbols"], _SYMBOL_COLUMNS)
    else:
        display.say("No symbols are kept. Add one with `pricecache symbols add AAPL`.")
    return DONE


def _list_named(daemon: Daemon, options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    worst = DONE
    for instrument in instruments_named(options):
        try:
            rows.append(daemon.get(path("cache", "symbols", instrument.symbol), market=instrument.market))
        except Refusal as exc:
            display.complain(f"{instrument}: {exc}")
            worst = max(worst, exit_code_of(exc))
    if options.json:
        print_json({"symbols": rows})
    else:
        display.show_rows(rows, _SYMBOL_COLUMNS)
    return worst


def _search(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get("/cache/symbols/search", q=" ".join(options.symbols), limit=_MOST_FOUND)
    for provider in answer["providers"]:
        display.complain(f"{provider['name']} could not be asked: {provider['code']}.")
    if options.json:
        return print_json(answer)
    if answer["results"]:
        display.show_rows(answer["results"], _FOUND_COLUMNS)
    else:
        display.say("Nothing found.")
    return DONE


def _rename(daemon: Daemon, options: argparse.Namespace) -> int:
    instrument = instrument_named(options.symbols[0], options.market)
    body = {"to": options.symbols[1]} | ({"on": options.on} if options.on else {})
    answer = daemon.post(path("cache", "symbols", instrument.symbol, "rename"), body, market=instrument.market)
    if options.json:
        return print_json(answer)
    display.show_rows([answer], _SYMBOL_COLUMNS)
    return DONE
