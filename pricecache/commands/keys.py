"""Commands on API keys."""

from __future__ import annotations

import argparse
from typing import Any

from pricecache import display
from pricecache.client import Daemon, path
from pricecache.commands.dialogue import DONE, print_json
from pricecache.errors import Invalid


def keys(daemon: Daemon, options: argparse.Namespace) -> int:
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
        return print_json(answer)
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
