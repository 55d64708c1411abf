"""The commands that talk to a daemon: ask, wait where there is something to wait for, show."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pricecache import display
from pricecache.client import Daemon, Refusal, path
from pricecache.core.instruments import Instrument
from pricecache.errors import Invalid

DONE, FAILED, USAGE = 0, 1, 2

_QUOTED_ROWS = 20
_SYMBOL_COLUMNS = ("symbol", "market", "state", "bars", "first", "last", "lastUpdate", "nextRetry", "reason")
_PROVIDER_COLUMNS = ("name", "state", "calls24h", "errors24h", "lastSuccessAt", "lastErrorAt", "lastErrorCode")
_FOUND_COLUMNS = ("symbol", "market", "name", "kind", "currency", "tracked", "source")
_MOST_FOUND = 25
_TRANSACTION_COLUMNS = (
    *("date", "type", "symbol", "market", "quantity", "price", "amount", "fees", "taxes", "currency", "accountId"),
    *("externalId", "note"),
)
_RECONSTRUCTION = "/api/portfolio/reconstruction"
_FINDING_COLUMNS = ("code", "date", "symbol", "quantity", "amount", "currency", "detail")
_MAPPING_COLUMNS = (
    *("id", "name", "ticker", "exchange", "currency", "state", "symbol", "market", "isBrokersOwn", "confidence"),
    "candidate",
)
_MEDIA = {"csv": "text/csv", "json": "application/json"}
_MOST_LISTED = 5000
_JOB_COLUMNS = ("id", "nextRun", "lastRun", "lastOutcome", "durationMs", "missed", "running")
_COVERAGE_COLUMNS = ("symbol", "market", "expected", "present", "ratio", "holes", "first", "last", "lastUpdate")


def run(name: str, daemon: Daemon, options: argparse.Namespace) -> int:
    """Run the command `name`; returns its exit code. Raises `Invalid` for a symbol that cannot be one, `NoDaemon`."""
    try:
        return _COMMANDS[name](daemon, options)
    except Refusal as exc:
        return _refused(exc, options)


def _status(daemon: Daemon, options: argparse.Namespace) -> int:
    status = daemon.get("/cache/status")
    if options.json:
        return _print_json(status)
    display.show_mapping({name: part for name, part in status.items() if name not in ("symbols", "providers")})
    display.show_rows(status["symbols"], _COVERAGE_COLUMNS, title="symbols", most=_QUOTED_ROWS)
    display.show_rows(status["providers"], _PROVIDER_COLUMNS, title="providers")
    display.show_rows(daemon.get("/cache/scheduler/status")["jobs"], _JOB_COLUMNS, title="jobs")
    return DONE


def _coverage(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.symbol is None:
        return _coverage_of_all(daemon, options)
    instrument = _instrument(options.symbol, options.market)
    answer = daemon.get(
        path("cache", "coverage", instrument.symbol), market=instrument.market, start=options.start, end=options.end
    )
    if options.json:
        return _print_json(answer)
    display.show_mapping(answer)
    return DONE


def _coverage_of_all(daemon: Daemon, options: argparse.Namespace) -> int:
    status = daemon.get("/cache/status")
    if options.json:
        return _print_json({"coverage": status["coverage"], "symbols": status["symbols"]})
    display.show_rows(status["symbols"], _COVERAGE_COLUMNS)
    display.show_mapping(status["coverage"], "all")
    return DONE


def _providers(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.action == "reset":
        body = {"budget": True} if options.budget else {}
        answer = daemon.post(path("cache", "providers", options.provider, "reset"), body)
        rows = [answer]
    else:
        answer = daemon.get("/cache/providers")
        rows = answer["providers"]
    if options.json:
        return _print_json(answer)
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


def _sync(daemon: Daemon, options: argparse.Namespace) -> int:
    return _follow(daemon, [("historical_sync", daemon.start("/cache/sync-historical"))], options)


def _refresh(daemon: Daemon, options: argparse.Namespace) -> int:
    body = {"symbols": _named(_instruments(options))} if options.symbols else None
    return _follow(daemon, [("live_price_update", daemon.start("/cache/refresh-live", body))], options)


def _backfill(daemon: Daemon, options: argparse.Namespace) -> int:
    since = {"start": options.start} if options.start else {}
    started: list[tuple[str, dict[str, Any]]] = []
    worst = DONE
    for instrument in _instruments(options):
        body = {"symbol": instrument.symbol, "market": instrument.market} | since
        try:
            started.append((str(instrument), daemon.start("/cache/backfill-symbol", body)))
        except Refusal as exc:
            display.complain(f"{instrument}: {exc}")
            worst = max(worst, _exit_code(exc))
    return max(worst, _follow(daemon, started, options, many=True))


def _symbols(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.action == "list":
        return _list_symbols(daemon, options)
    if options.action == "search":
        return _search(daemon, options)
    if options.action == "rename":
        return _rename(daemon, options)
    body = {"symbols": _named(_instruments(options))}
    if options.action == "add":
        return _track(daemon, daemon.post("/cache/symbols", body), options)
    answer = daemon.delete("/cache/symbols", body)
    if options.json:
        return _print_json(answer)
    display.show_mapping(answer)
    return DONE


def _track(daemon: Daemon, answer: dict[str, Any], options: argparse.Namespace) -> int:
    backfill = answer.get("run")
    if backfill and not options.no_wait:
        [(_, backfill)] = _finished(daemon, [("backfill", backfill)])
    if options.json:
        _print_json(answer | {"run": backfill})
    else:
        display.show_rows(answer["symbols"], _SYMBOL_COLUMNS)
        if backfill:
            display.show_run(backfill)
    return _outcome(backfill) if backfill else DONE


def _transactions(daemon: Daemon, options: argparse.Namespace) -> int:
    base = path("api", "portfolios", options.portfolio_id, "transactions")
    if options.action == "import":
        return _import(daemon, base, options)
    if options.action == "export":
        return _export(daemon, base, options)
    answer = daemon.get(base, limit=_MOST_LISTED)
    if options.json:
        return _print_json(answer)
    listed = answer["transactions"]
    if listed:
        display.show_rows(listed, _TRANSACTION_COLUMNS)
    display.say(
        f"{answer['total']} transactions" + ("" if len(listed) == answer["total"] else f", {len(listed)} shown")
    )
    return DONE


def _import(daemon: Daemon, base: str, options: argparse.Namespace) -> int:
    name = options.format or ("json" if options.file.lower().endswith(".json") else "csv")
    query = {"quantityBasis": options.quantity_basis, "accountId": options.account_id}
    dry_run = "true" if options.dry_run else None
    answer = daemon.upload(f"{base}/import", _content(options.file), _MEDIA[name], dryRun=dry_run, **query)
    if options.json:
        _print_json(answer)
    else:
        _show_import(answer)
    return DONE if answer.get("accepted", True) else USAGE


def _content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as exc:
        raise Invalid(f"{file} cannot be read: {exc.strerror or exc}.") from exc


def _show_import(answer: dict[str, Any]) -> None:
    counts = ", ".join(f"{answer[name]} {name}" for name in ("created", "updated", "unchanged"))
    since = f"; history changes from {answer['affectsFrom']} on" if answer["affectsFrom"] else ""
    display.say(f"{'would be ' if answer['dryRun'] else ''}{counts}{since}")
    changed = [row for row in answer.get("rows", ()) if row["action"] == "update"]
    display.show_rows(changed, ("line", "row", "before", "after"), title="updates", most=_QUOTED_ROWS)
    display.show_rows(answer.get("holdings", ()), title="holdings at the end", most=_QUOTED_ROWS)
    questions = [{**row, "looks": row["units"]["verdict"]} for row in answer["questions"]]
    columns = ("line", "row", "date", "symbol", "price", "quantityBasis", "looks")
    display.show_rows(questions, columns, title="rows that look to be in other units", most=_QUOTED_ROWS)
    faults = answer.get("errors", ())
    if faults:
        display.complain(f"it would be refused: {answer['errorsTotal']} faults")
    for row in faults[:_QUOTED_ROWS]:
        display.complain(f"  {_where(row)}: {row['detail']} [{row['code']}]")


def _export(daemon: Daemon, base: str, options: argparse.Namespace) -> int:
    by_name = "json" if (options.output or "").lower().endswith(".json") or options.json else "csv"
    content = daemon.download(f"{base}/export", format=options.format or by_name)
    if options.output is None:
        sys.stdout.buffer.write(content)
        return DONE
    try:
        Path(options.output).write_bytes(content)
    except OSError as exc:
        raise Invalid(f"{options.output} cannot be written: {exc.strerror or exc}.") from exc
    return DONE


def _keys(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.action == "list":
        answer = daemon.get("/api/admin/keys")
        if not options.json:
            _show_keys(answer["keys"])
            return DONE
    elif options.action == "create":
        answer = _create_key(daemon, options.key, options.scopes.split("+"))
    else:
        answer = daemon.delete(path("api", "admin", "keys", options.key))
    if options.json:
        return _print_json(answer)
    if answer:
        display.show_mapping(answer)
    return DONE


def _show_keys(keys: list[dict[str, Any]]) -> None:
    if keys:
        display.show_rows(keys)
    else:
        display.say("No keys have been created here. Those of PRICECACHE_API_KEYS are not listed.")


def _create_key(daemon: Daemon, name: str, scopes: list[str]) -> dict[str, Any]:
    first = not daemon.has_key
    if first and "admin" not in scopes:
        raise Invalid(
            "Once there is a key, nobody without one is let in, and this one could create no other. Begin with "
            "--scopes read+ops+admin, set PRICECACHE_API_KEY to it, then create this one."
        )
    answer: dict[str, Any] = daemon.post("/api/admin/keys", {"name": name, "scopes": scopes})
    display.complain("The secret is shown this once." + (" Set PRICECACHE_API_KEY to it." if first else ""))
    return answer


def _materialize(daemon: Daemon, options: argparse.Namespace) -> int:
    body = {"force": options.force} | ({"portfolioId": options.portfolio} if options.portfolio else {})
    return _follow(daemon, [("materialize_history", daemon.start("/api/admin/history/materialize", body))], options)


def _capture(daemon: Daemon, options: argparse.Namespace) -> int:
    body = {"date": options.date} if options.date else {}
    return _follow(daemon, [("eod_snapshot", daemon.start("/api/portfolio/daily-snapshots/capture", body))], options)


def _materialized(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get("/api/admin/history/stats")
    if options.json:
        return _print_json(answer)
    display.show_mapping(answer)
    return DONE


def _invalidate(daemon: Daemon, options: argparse.Namespace) -> int:
    body = {"portfolioId": options.portfolio, "fromDate": options.from_date, "recalculate": options.recalculate}
    answer = daemon.post("/api/admin/history/invalidate", body)
    if options.json:
        return _print_json(answer)
    display.show_mapping(answer)
    return DONE


def _reconstruct(daemon: Daemon, options: argparse.Namespace) -> int:
    query = {"portfolioId": options.portfolio, "portfolioName": options.portfolio_name}
    force = "true" if options.force else None
    content = b"{}" if options.file is None else _content(options.file)
    answer = daemon.upload(f"{_RECONSTRUCTION}/request", content, _MEDIA["json"], force=force, **query)
    asked = answer["reconstructions"]
    if options.no_wait:
        listed = asked
    else:
        with display.progress() as follower:
            listed = [_reconstructed(daemon, one, follower) for one in asked]
    if options.json:
        _print_json({"reconstructions": listed})
    else:
        _show_reconstructions(listed, "unchanged" if answer["unchanged"] else None)
    return max(FAILED if one["state"] in ("failed", "waiting") else DONE for one in listed)


def _reconstructed(daemon: Daemon, one: dict[str, Any], follower: display.Follower) -> dict[str, Any]:
    """Follow it until it has ended, or is put off."""
    found = one
    for found in daemon.poll(f"{_RECONSTRUCTION}/status", "reconstructions", connectionId=one["connectionId"]):
        follower("reconstruction", {"total": 100, "done": found["percent"], "message": found["message"]})
        if found["state"] not in ("queued", "running"):
            break
    return found


def _reconstruction_status(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get(f"{_RECONSTRUCTION}/status", portfolioId=options.portfolio)
    if options.json:
        return _print_json(answer)
    if answer["reconstructions"]:
        _show_reconstructions(answer["reconstructions"])
    else:
        display.say("Nothing was reconstructed yet. Begin with `pricecache reconstruct FILE`.")
    return DONE


def _show_reconstructions(listed: Sequence[dict[str, Any]], state: str | None = None) -> None:
    display.show_rows([_reconstruction_row(one, state) for one in listed])
    for one in listed:
        result = one.get("result")
        if result is not None:
            display.show_rows(result["findings"], _FINDING_COLUMNS, f"findings ({result['findingsTotal']})")
        if one["error"]:
            display.complain(f"{one['error']['detail']} [{one['error']['code']}]")


def _reconstruction_row(one: dict[str, Any], state: str | None) -> dict[str, Any]:
    result = one.get("result") or {}
    securities = result.get("securities") or {}
    return {
        **{name: one[name] for name in ("portfolioId", "connectionId")},
        "state": state or one["state"],
        **{name: one[name] for name in ("percent", "message", "attempts", "nextAttempt")},
        **{name: result.get(name) for name in ("from", "to", "transactions", "openings", "adjustments")},
        "securities": securities.get("total"),
        "byBroker": securities.get("brokersOwn"),
        **{name: (result.get("worth") or {}).get(name) for name in ("brokerValue", "value")},
    }


def _mappings(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get(path(*_mappings_path(options)), state=options.state, limit=_MOST_LISTED)
    if options.json:
        return _print_json(answer)
    _show_mappings(answer["mappings"])
    display.say(", ".join(f"{number} {state}" for state, number in answer["counts"].items()))
    return DONE


def _map_security(daemon: Daemon, options: argparse.Namespace) -> int:
    body: dict[str, Any] = {"symbol": None}
    if options.symbol is not None:
        body = _named([_instrument(options.symbol, options.market)])[0]
    return _show_mapping(daemon.put(path(*_mappings_path(options), options.mapping), body), options)


def _unmap_security(daemon: Daemon, options: argparse.Namespace) -> int:
    return _show_mapping(daemon.delete(path(*_mappings_path(options), options.mapping)), options)


def _mappings_path(options: argparse.Namespace) -> tuple[str, ...]:
    return "api", "admin" if options.all else "portfolio", "mappings"


def _show_mapping(answer: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        return _print_json(answer)
    _show_mappings([answer])
    return DONE


def _show_mappings(mappings: list[dict[str, Any]]) -> None:
    rows = [{**row["security"], **row, "candidate": _plainly(row["candidate"])} for row in mappings]
    display.show_rows(rows, _MAPPING_COLUMNS)


def _plainly(named: dict[str, Any] | None) -> str | None:
    return None if named is None else f"{named['symbol']}:{named['market']}"


_COMMANDS: dict[str, Callable[[Daemon, argparse.Namespace], int]] = {
    "status": _status,
    "coverage": _coverage,
    "providers": _providers,
    "sync": _sync,
    "refresh": _refresh,
    "backfill": _backfill,
    "symbols": _symbols,
    "transactions": _transactions,
    "materialize": _materialize,
    "materialized": _materialized,
    "capture": _capture,
    "invalidate": _invalidate,
    "mappings": _mappings,
    "map-security": _map_security,
    "unmap-security": _unmap_security,
    "keys": _keys,
    "reconstruct": _reconstruct,
    "reconstruction-status": _reconstruction_status,
}


def _list_symbols(daemon: Daemon, options: argparse.Namespace) -> int:
    if options.symbols:
        return _list_named(daemon, options)
    answer = daemon.get("/cache/symbols")
    if options.json:
        return _print_json(answer)
    if answer["symbols"]:
        display.show_rows(answer["symbols"], _SYMBOL_COLUMNS)
    else:
        display.say("No symbols are kept. Add one with `pricecache symbols add AAPL`.")
    return DONE


def _list_named(daemon: Daemon, options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    worst = DONE
    for instrument in _instruments(options):
        try:
            rows.append(daemon.get(path("cache", "symbols", instrument.symbol), market=instrument.market))
        except Refusal as exc:
            display.complain(f"{instrument}: {exc}")
            worst = max(worst, _exit_code(exc))
    if options.json:
        _print_json({"symbols": rows})
    else:
        display.show_rows(rows, _SYMBOL_COLUMNS)
    return worst


def _search(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get("/cache/symbols/search", q=" ".join(options.symbols), limit=_MOST_FOUND)
    for provider in answer["providers"]:
        display.complain(f"{provider['name']} could not be asked: {provider['code']}.")
    if options.json:
        return _print_json(answer)
    if answer["results"]:
        display.show_rows(answer["results"], _FOUND_COLUMNS)
    else:
        display.say("Nothing found.")
    return DONE


def _rename(daemon: Daemon, options: argparse.Namespace) -> int:
    instrument = _instrument(options.symbols[0], options.market)
    body = {"to": options.symbols[1]} | ({"on": options.on} if options.on else {})
    answer = daemon.post(path("cache", "symbols", instrument.symbol, "rename"), body, market=instrument.market)
    if options.json:
        return _print_json(answer)
    display.show_rows([answer], _SYMBOL_COLUMNS)
    return DONE


def _instruments(options: argparse.Namespace) -> list[Instrument]:
    return [_instrument(symbol, options.market) for symbol in options.symbols]


def _instrument(symbol: str, market: str | None) -> Instrument:
    return Instrument.parse_in(symbol, market)


def _named(instruments: Iterable[Instrument]) -> list[dict[str, str]]:
    return [{"symbol": instrument.symbol, "market": instrument.market} for instrument in instruments]


def _follow(
    daemon: Daemon, started: Sequence[tuple[str, dict[str, Any]]], options: argparse.Namespace, *, many: bool = False
) -> int:
    if not options.no_wait:
        started = _finished(daemon, started)
    runs = [run for _, run in started]
    if options.json:
        _print_json({"runs": runs} if many else runs[0])
    else:
        for label, report in started:
            display.show_run(report, label)
    return max((_outcome(report) for report in runs), default=DONE)


def _finished(daemon: Daemon, started: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    reports = []
    with display.progress() as follower:
        for label, run in started:
            report = run
            for report in daemon.follow(run):
                follower(label, report)
            reports.append((label, report))
    return reports


def _outcome(report: dict[str, Any]) -> int:
    if report["state"] in ("queued", "running"):
        return DONE
    clean = report["state"] == "succeeded" and not (report.get("failuresTotal") or report.get("failures"))
    return DONE if clean else FAILED


def _refused(refusal: Refusal, options: argparse.Namespace) -> int:
    if options.json:
        _print_json(refusal.problem)
    code = refusal.problem.get("code")
    display.complain(f"{refusal}{f' [{code}]' if code else ''}")
    for row in refusal.problem.get("rows") or refusal.problem.get("errors") or []:
        display.complain(f"  {_where(row)}: {row.get('detail', row.get('code', ''))}")
    return _exit_code(refusal)


def _where(row: dict[str, Any]) -> str:
    """The place of a fault as whoever wrote the file looks for it."""
    column = row.get("column") or row.get("field")
    if "path" in row:
        return str(row["path"])
    if "line" in row:
        return f"line {row['line']}" + (f", {column}" if column else "")
    return str(column or row.get("row", ""))


def _exit_code(refusal: Refusal) -> int:
    return USAGE if refusal.status in (400, 422) else FAILED


def _print_json(answer: object) -> int:
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    return DONE
