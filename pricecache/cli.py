"""The command line: `serve` is the daemon, every other command talks to one that runs.

Exit codes: 0 it worked, 1 it failed in part or whole, 2 the command or a setting is wrong, 3 there is no daemon.
Nothing but the standard library is imported before a command is known: `serve` is to bind its port first.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pricecache import __version__

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

    from pricecache.client import Daemon
    from pricecache.settings import Settings

    Checked = TypeVar("Checked", bound=BaseSettings)

DONE, FAILED, USAGE, NO_DAEMON = 0, 1, 2, 3

_EXIT_CODES = "exit codes: 0 it worked, 1 it failed in part or whole, 2 the command or a setting is wrong, 3 no daemon"
_SYMBOL = "as AAPL, or SAP:DE with its market"


class UsageError(Exception):
    """The command or a setting is wrong; the text says which and how."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `arguments` default to those of the process."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if fault := _misused(options):
        parser.error(fault)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except UsageError as exc:
        print(f"pricecache: {exc}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`); without this the interpreter complains once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _misused(options: argparse.Namespace) -> str | None:
    action = getattr(options, "action", "list")
    if action in ("add", "remove", "search") and not options.symbols:
        return f"symbols {action}: {'give a text to search for' if action == 'search' else 'name a symbol'}"
    if action == "rename" and len(options.symbols) != 2:
        return "symbols rename: give the present symbol and the new one"
    if action != "rename" and getattr(options, "on", None):
        return f"symbols {action}: --on is for rename only"
    if action == "reset" and not options.provider:
        return "providers reset: give the name of the provider"
    if hasattr(options, "portfolio_id"):
        return _misused_transactions(options)
    if hasattr(options, "brokers_own") and (options.symbol is None) is not options.brokers_own:
        return "map-security: name a symbol, or give --brokers-own"
    if action in ("create", "revoke") and not options.key:
        return f"keys {action}: give the {'name' if action == 'create' else 'id'} of the key"
    return None


def _misused_transactions(options: argparse.Namespace) -> str | None:
    action = options.action
    if not options.portfolio_id:
        return f"transactions {action}: --portfolio-id says of which portfolio"
    if action == "import" and not options.file:
        return "transactions import: name the file, or - for standard input"
    if action != "import" and options.file:
        return f"transactions {action}: takes no file; --output says where an export goes"
    of_import = {
        "--dry-run": options.dry_run,
        "--quantity-basis": options.quantity_basis,
        "--account-id": options.account_id,
    }
    if action != "import" and (one := next((name for name, value in of_import.items() if value), None)):
        return f"transactions {action}: {one} is for import only"
    if action != "export" and options.output:
        return f"transactions {action}: --output is for export only"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pricecache", description="A daemon that keeps market prices whole.", epilog=_EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"pricecache {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(commands, "serve", _serve, "run the daemon in the foreground")
    _add_questions(commands)
    _add_work(commands)
    _add_transactions(commands)
    _add_histories(commands)
    _add_reconstructions(commands)
    _add_mappings(commands)
    _add_administration(commands)
    return parser


def _add_questions(commands: Any) -> None:
    _add(commands, "status", _remote("status"), "what the daemon holds and how its jobs do", _client_options())
    coverage = _add(
        commands, "coverage", _remote("coverage"), "which bars are there, which not, why", _client_options()
    )
    coverage.add_argument("symbol", nargs="?", metavar="SYMBOL", help=f"{_SYMBOL}; without one, all that are tracked")
    coverage.add_argument("--market", help="market of a symbol that names none (US)")
    coverage.add_argument("--start", metavar="DATE", help="first day, YYYY-MM-DD")
    coverage.add_argument("--end", metavar="DATE", help="last day, YYYY-MM-DD")

    providers = _add(
        commands, "providers", _remote("providers"), "how the providers of prices do; reset one", _client_options()
    )
    providers.add_argument("action", nargs="?", choices=("list", "reset"), default="list")
    providers.add_argument("provider", nargs="?", metavar="NAME", help="name of the provider to reset")
    providers.add_argument("--budget", action="store_true", help="with reset: count today's requests anew too")


def _add_work(commands: Any) -> None:
    _add(commands, "sync", _remote("sync"), "run the staged sync now", _client_options(), _run_options())
    backfill = _add(
        commands, "backfill", _remote("backfill"), "fetch the history of symbols", _client_options(), _run_options()
    )
    backfill.add_argument("symbols", nargs="+", metavar="SYMBOL", help=_SYMBOL)
    backfill.add_argument("--market", help="market of symbols that name none (US)")
    backfill.add_argument("--start", metavar="DATE", help="first day, YYYY-MM-DD")
    refresh = _add(
        commands, "refresh", _remote("refresh"), "fetch the latest quotes now", _client_options(), _run_options()
    )
    refresh.add_argument("symbols", nargs="*", metavar="SYMBOL", help=f"{_SYMBOL}; without one, all that are tracked")
    refresh.add_argument("--market", help="market of symbols that name none (US)")
    meaning = "list, find, track, untrack or rename symbols"
    symbols = _add(commands, "symbols", _remote("symbols"), meaning, _client_options(), _run_options())
    actions = ("list", "search", "add", "remove", "rename")
    symbols.add_argument("action", nargs="?", choices=actions, default="list")
    symbols.add_argument("symbols", nargs="*", metavar="SYMBOL", help=f"{_SYMBOL}; of search: any text; of rename: two")
    symbols.add_argument("--on", metavar="DATE", help="of rename: first day under the new symbol, YYYY-MM-DD (today)")
    symbols.add_argument("--market", help="market of symbols that name none (US)")


def _add_transactions(commands: Any) -> None:
    meaning = "list, import or export the transactions of a portfolio"
    one = _add(commands, "transactions", _remote("transactions"), meaning, _client_options())
    one.add_argument("action", nargs="?", choices=("list", "import", "export"), default="list")
    one.add_argument("file", nargs="?", metavar="FILE", help="of import: a csv or json file, - for standard input")
    one.add_argument("--portfolio-id", metavar="ID", help="the portfolio; needed")
    one.add_argument("--dry-run", action="store_true", help="of import: say what would change, and change nothing")
    one.add_argument("--format", choices=("csv", "json"), help="of the file (by its name, else csv)")
    one.add_argument(
        "--quantity-basis", choices=("asTraded", "adjusted"), help="of import: units of rows that do not say"
    )
    one.add_argument("--account-id", metavar="ID", help="of import: the account of rows that name none")
    one.add_argument("--output", metavar="FILE", help="of export: where to write (standard output)")


def _add_histories(commands: Any) -> None:
    meaning = "store the settled rows of portfolio histories"
    store = _add(commands, "materialize-history", _remote("materialize"), meaning, _client_options(), _run_options())
    store.add_argument("--portfolio-id", dest="portfolio", metavar="ID", help="only this portfolio (all behind)")
    store.add_argument("--force", action="store_true", help="compute all of it again, whatever is stored")
    meaning = "capture what portfolios closed at, of each day that is not captured yet"
    capture = _add(commands, "capture-snapshots", _remote("capture"), meaning, _client_options(), _run_options())
    capture.add_argument("--date", metavar="DATE", help="this day again, YYYY-MM-DD")
    meaning = "what is stored of portfolio histories, and drift"
    _add(commands, "materialized-stats", _remote("materialized"), meaning, _client_options())
    name, meaning = "invalidate-materialized-history", "let rows of a portfolio be computed again from a date on"
    doubt = _add(commands, name, _remote("invalidate"), meaning, _client_options())
    doubt.add_argument("--portfolio-id", dest="portfolio", metavar="ID", required=True)
    doubt.add_argument("--from-date", metavar="DATE", required=True, help="first day, YYYY-MM-DD")
    doubt.add_argument("--recalculate", action="store_true", help="at once, and wait until it is stored")


def _add_reconstructions(commands: Any) -> None:
    meaning = "make the history of what a broker says"
    one = _add(commands, "reconstruct", _remote("reconstruct"), meaning, _client_options(), _run_options())
    one.add_argument("file", nargs="?", metavar="FILE", help="a payload, Plaid's or the neutral one, - for standard "
                     "input; without one, what is known already is done again")  # fmt: skip
    one.add_argument(
        "--portfolio-id", dest="portfolio", metavar="ID", help="where the rows go (where they went before)"
    )
    one.add_argument("--portfolio-name", metavar="NAME", help="of the portfolio that is made where there is none yet")
    one.add_argument("--force", action="store_true", help="though the payload is the one it was made of last")
    meaning = "how far reconstructions have come, and what came of them"
    status = _add(commands, "reconstruction-status", _remote("reconstruction-status"), meaning, _client_options())
    status.add_argument("--portfolio-id", dest="portfolio", metavar="ID", help="only of this portfolio")
    status.add_argument(
        "--findings", type=int, metavar="N", help="how many findings of each are listed (20; at most 1000)"
    )


def _add_mappings(commands: Any) -> None:
    meaning = "what securities of brokers are priced by, and how sure that is"
    listed = _add(commands, "mappings", _remote("mappings"), meaning, _client_options())
    listed.add_argument("--state", choices=("mapped", "review", "unmapped", "overridden"), help="only these")
    meaning = "decide what a security of a broker is"
    decided = _add(commands, "map-security", _remote("map-security"), meaning, _client_options())
    decided.add_argument("mapping", metavar="ID", help="id of its mapping")
    decided.add_argument("symbol", nargs="?", metavar="SYMBOL", help=_SYMBOL)
    decided.add_argument("--market", help="market of a symbol that names none (US)")
    decided.add_argument("--brokers-own", action="store_true", help="it is nothing else: the broker's price stands")
    meaning = "take back what was decided of a security"
    undone = _add(commands, "unmap-security", _remote("unmap-security"), meaning, _client_options())
    undone.add_argument("mapping", metavar="ID", help="id of its mapping")
    for one in (listed, decided, undone):
        one.add_argument("--all", action="store_true", help="for everybody, with a key that may; else for the user")


def _add_administration(commands: Any) -> None:
    doctor = _add(commands, "doctor", _doctor, "check this installation and say how to put it right", _client_options())
    doctor.add_argument("--verify", action="store_true", help="replay the journal and compare it with what is read")
    doctor.add_argument("--rebuild", action="store_true", help="verify, and write anew what differs")
    keys = _add(commands, "keys", _remote("keys"), "list, create or revoke API keys", _client_options())
    keys.add_argument("action", nargs="?", choices=("list", "create", "revoke"), default="list")
    keys.add_argument("key", nargs="?", metavar="NAME|ID", help="name of the key to create, or id of the one to revoke")
    keys.add_argument("--scopes", default="read", help="of a key to create: read, ops, admin joined by + (read)")


def _client_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--json", action="store_true", help="print the daemon's JSON as it is")
    options.add_argument("--url", help="base URL of the daemon (PRICECACHE_URL, else from the settings)")
    options.add_argument("--user", help="user to act for, with a key that may (PRICECACHE_USER)")
    return options


def _run_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--no-wait", action="store_true", help="start the work and return at once")
    return options


def _add(
    commands: Any, name: str, command: Callable[..., int], meaning: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.", epilog=_EXIT_CODES, parents=parents
    )
    parser.set_defaults(command=command)
    return parser


def _serve(options: argparse.Namespace) -> int:
    settings = _settings()
    from pricecache.app import serve
    from pricecache.errors import Misconfigured

    try:
        return serve(settings)
    except Misconfigured as exc:
        raise UsageError(exc.detail) from exc


def _doctor(options: argparse.Namespace) -> int:
    from pricecache.doctor import examine
    from pricecache.logs import configure

    configure("error", "text")
    good = examine(_settings(), _daemon(options), verify=options.verify, rebuild=options.rebuild, as_json=options.json)
    return DONE if good else FAILED


def _remote(name: str) -> Callable[[argparse.Namespace], int]:
    def command(options: argparse.Namespace) -> int:
        from pricecache.client import NoDaemon
        from pricecache.commands.run import run
        from pricecache.errors import Invalid

        try:
            return run(name, _daemon(options), options)
        except Invalid as exc:
            raise UsageError(exc.detail) from exc
        except NoDaemon as exc:
            print(f"pricecache: {exc} Start one with `pricecache serve`.", file=sys.stderr)
            return NO_DAEMON

    return command


def _daemon(options: argparse.Namespace) -> Daemon:
    from pricecache.client import ClientSettings, Daemon

    settings = _checked(ClientSettings)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    try:
        return Daemon(options.url or settings.url or _address(), key, user=options.user or settings.user)
    except ValueError as exc:
        raise UsageError(f"The daemon's URL is wrong: {exc}") from exc


def _address() -> str:
    settings = _settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _settings() -> Settings:
    from pricecache.settings import Settings

    return _checked(Settings)


def _checked(settings: type[Checked]) -> Checked:
    from pydantic import ValidationError

    try:
        return settings()
    except ValidationError as exc:
        faults = [f"PRICECACHE_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in exc.errors()]
        raise UsageError("\npricecache: ".join(faults)) from exc
