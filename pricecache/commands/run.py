"""The commands that talk to a daemon: ask, wait where there is something to wait for, show."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from pricecache import display
from pricecache.client import Daemon, Refusal
from pricecache.commands import brokers, keys, portfolios, prices
from pricecache.commands.dialogue import exit_code_of, place_of, print_json

_COMMANDS: dict[str, Callable[[Daemon, argparse.Namespace], int]] = {
    "status": prices.status,
    "coverage": prices.coverage,
    "providers": prices.providers,
    "sync": prices.sync,
    "refresh": prices.refresh,
    "backfill": prices.backfill,
    "symbols": prices.symbols,
    "transactions": portfolios.transactions,
    "materialize": portfolios.materialize,
    "materialized": portfolios.materialized,
    "capture": portfolios.capture,
    "invalidate": portfolios.invalidate,
    "mappings": brokers.mappings,
    "map-security": brokers.map_security,
    "unmap-security": brokers.unmap_security,
    "keys": keys.keys,
    "reconstruct": brokers.reconstruct,
    "reconstruction-status": brokers.reconstruction_status,
}


def run(name: str, daemon: Daemon, options: argparse.Namespace) -> int:
    """Run the command `name`; returns its exit code. Raises `Invalid` for a symbol that cannot be one, `NoDaemon`."""
    try:
        return _COMMANDS[name](daemon, options)
    except Refusal as exc:
        return _refused(exc, options)


def _refused(refusal: Refusal, options: argparse.Namespace) -> int:
    if options.json:
        print_json(refusal.problem)
    code = refusal.problem.get("code")
    display.complain(f"{refusal}{f' [{code}]' if code else ''}")
    for row in refusal.problem.get("rows") or refusal.problem.get("errors") or []:
        display.complain(f"  {place_of(row)}: {row.get('detail', row.get('code', ''))}")
    return exit_code_of(refusal)
