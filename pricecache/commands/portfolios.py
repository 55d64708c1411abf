"""Commands on portfolios: transactions in files, stored histories, end-of-day snapshots."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pricecache import display
from pricecache.client import Daemon, path
from pricecache.commands.dialogue import (
    DONE,
    MEDIA,
    MOST_LISTED,
    QUOTED_ROWS,
    USAGE,
    content_of,
    follow,
    place_of,
    print_json,
)
from pricecache.errors import Invalid

_TRANSACTION_COLUMNS = (
    *("date", "type", "symbol", "market", "quantity", "price", "amount", "fees", "taxes", "currency", "accountId"),
    *("externalId", "note"),
)


def transactions(daemon: Daemon, options: argparse.Namespace) -> int:
    base = path("api", "portfolios", options.portfolio_id, "transactions")
    if options.action == "import":
        return _import(daemon, base, options)
    if options.action == "export":
        return _export(daemon, base, options)
    answer = daemon.get(base, limit=MOST_LISTED)
    if options.json:
        return print_json(answer)
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
    answer = daemon.upload(f"{base}/import", content_of(options.file), MEDIA[name], dryRun=dry_run, **query)
    if options.json:
        print_json(answer)
    else:
        _show_import(answer)
    return DONE if answer.get("accepted", True) else USAGE


def _show_import(answer: dict[str, Any]) -> None:
    counts = ", ".join(f"{answer[name]} {name}" for name in ("created", "updated", "unchanged"))
    since = f"; history changes from {answer['affectsFrom']} on" if answer["affectsFrom"] else ""
    display.say(f"{'would be ' if answer['dryRun'] else ''}{counts}{since}")
    changed = [row for row in answer.get("rows", ()) if row["action"] == "update"]
    display.show_rows(changed, ("line", "row", "before", "after"), title="updates", most=QUOTED_ROWS)
    display.show_rows(answer.get("holdings", ()), title="holdings at the end", most=QUOTED_ROWS)
    questions = [{**row, "looks": row["units"]["verdict"]} for row in answer["questions"]]
    columns = ("line", "row", "date", "symbol", "price", "quantityBasis", "looks")
    display.show_rows(questions, columns, title="rows that look to be in other units", most=QUOTED_ROWS)
    faults = answer.get("errors", ())
    if faults:
        display.complain(f"it would be refused: {answer['errorsTotal']} faults")
    for row in faults[:QUOTED_ROWS]:
        display.complain(f"  {place_of(row)}: {row['detail']} [{row['code']}]")


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


def materialize(daemon: Daemon, options: argparse.Namespace) -> int:
    body = {"force": options.force} | ({"portfolioId": options.portfolio} if options.portfolio else {})
    return follow(daemon, [("materialize_history", daemon.start("/api/admin/history/materialize", body))], options)


def capture(daemon: Daemon, options: argparse.Namespace) -> int:
    body = {"date": options.date} if options.date else {}
    return follow(daemon, [("eod_snapshot", daemon.start("/api/portfolio/daily-snapshots/capture", body))], options)


def materialized(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get("/api/admin/history/stats")
    if options.json:
        return print_json(answer)
    display.show_mapping(answer)
    return DONE


def invalidate(daemon: Daemon, options: argparse.Namespace) -> int:
    body = {"portfolioId": options.portfolio, "fromDate": options.from_date, "recalculate": options.recalculate}
    answer = daemon.post("/api/admin/history/invalidate", body)
    if options.json:
        return print_json(answer)
    display.show_mapping(answer)
    return DONE
