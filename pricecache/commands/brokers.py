"""Commands on brokers: histories made of what they say, and what their securities are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pricecache import display
from pricecache.client import Daemon, path
from pricecache.commands.dialogue import (
    DONE,
    FAILED,
    MEDIA,
    MOST_LISTED,
    content_of,
    instrument_named,
    named,
    print_json,
)

_RECONSTRUCTION = "/api/portfolio/reconstruction"
_FINDING_COLUMNS = (
    *("portfolioId", "accountId", "code", "date", "symbol", "market", "quantity", "amount", "currency", "detail"),
    *("path", "rows", "externalId"),
)
_GONE = {"code": "portfolio_gone", "detail": "The portfolio was deleted meanwhile. Post again for another one."}
_MAPPING_COLUMNS = (
    *("id", "name", "ticker", "exchange", "currency", "state", "symbol", "market", "isBrokersOwn", "confidence"),
    "candidate",
)


def reconstruct(daemon: Daemon, options: argparse.Namespace) -> int:
    query = {"portfolioId": options.portfolio, "portfolioName": options.portfolio_name}
    force = "true" if options.force else None
    content = b"{}" if options.file is None else content_of(options.file)
    answer = daemon.upload(f"{_RECONSTRUCTION}/request", content, MEDIA["json"], force=force, **query)
    asked = answer["reconstructions"]
    if options.no_wait:
        listed = asked
    else:
        with display.progress() as follower:
            listed = [_reconstructed(daemon, one, follower) for one in asked]
    if options.json:
        print_json({"reconstructions": listed})
    else:
        _show_reconstructions(listed, "unchanged" if answer["unchanged"] else None)
    return max(FAILED if one["state"] in ("failed", "waiting") else DONE for one in listed)


def _reconstructed(daemon: Daemon, one: dict[str, Any], follower: display.Follower) -> dict[str, Any]:
    """Follow it until it has ended, or is put off; what is deleted meanwhile, with its portfolio, has failed."""
    found = {**one, "state": "failed", "error": _GONE}
    for found in daemon.poll(f"{_RECONSTRUCTION}/status", "reconstructions", connectionId=one["connectionId"]):
        follower("reconstruction", {"total": 100, "done": found["percent"], "message": found["message"]})
        if found["state"] not in ("queued", "running"):
            break
    return found


def reconstruction_status(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get(f"{_RECONSTRUCTION}/status", portfolioId=options.portfolio, findings=options.findings)
    if options.json:
        return print_json(answer)
    if answer["reconstructions"]:
        _show_reconstructions(answer["reconstructions"])
    else:
        display.say("Nothing was reconstructed yet. Begin with `pricecache reconstruct FILE`.")
    return DONE


def _show_reconstructions(listed: Sequence[dict[str, Any]], state: str | None = None) -> None:
    display.show_rows([_reconstruction_row(one, state) for one in listed])
    _show_findings(listed)
    for one in listed:
        if one["error"]:
            whose = f"connection {one['connectionId']}: " if len(listed) > 1 else ""
            display.complain(f"{whose}{one['error']['detail']} [{one['error']['code']}]")


def _show_findings(listed: Sequence[dict[str, Any]]) -> None:
    """In one table with the columns that any of them has something in."""
    results = [(one["portfolioId"], one["result"]) for one in listed if one.get("result")]
    rows = [{"portfolioId": portfolio, **found} for portfolio, result in results for found in result["findings"]]
    total = sum(result["findingsTotal"] for _, result in results)
    columns = [name for name in _FINDING_COLUMNS if any(row.get(name) is not None for row in rows)]
    display.show_rows(rows, columns, f"findings ({total})")
    if total > len(rows):
        display.say(f"... and {total - len(rows)} more: `pricecache reconstruction-status --findings N` has N of each")


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
        "review": securities.get("review"),
        **{name: (result.get("worth") or {}).get(name) for name in ("brokerValue", "value")},
    }


def mappings(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.get(path(*_mappings_path(options)), state=options.state, limit=MOST_LISTED)
    if options.json:
        return print_json(answer)
    _show_mappings(answer["mappings"])
    display.say(", ".join(f"{number} {state}" for state, number in answer["counts"].items()))
    return DONE


def map_security(daemon: Daemon, options: argparse.Namespace) -> int:
    body: dict[str, Any] = {"symbol": None}
    if options.symbol is not None:
        body = named([instrument_named(options.symbol, options.market)])[0]
    return _show_mapping(daemon.put(path(*_mappings_path(options), options.mapping), body), options)


def unmap_security(daemon: Daemon, options: argparse.Namespace) -> int:
    return _show_mapping(daemon.delete(path(*_mappings_path(options), options.mapping)), options)


def _mappings_path(options: argparse.Namespace) -> tuple[str, ...]:
    return "api", "admin" if options.all else "portfolio", "mappings"


def _show_mapping(answer: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        return print_json(answer)
    _show_mappings([answer])
    return DONE


def _show_mappings(mappings: list[dict[str, Any]]) -> None:
    rows = [{**row["security"], **row, "candidate": _plainly(row["candidate"])} for row in mappings]
    display.show_rows(rows, _MAPPING_COLUMNS)


def _plainly(named: dict[str, Any] | None) -> str | None:
    return None if named is None else f"{named['symbol']}:{named['market']}"
