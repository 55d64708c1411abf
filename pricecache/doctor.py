"""Whether this installation can work, check by check, each with what to do when it cannot."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pricecache import __version__, display
from pricecache.api.origins import is_loopback
from pricecache.client import Daemon, NoDaemon, Refusal
from pricecache.clock import SystemClock
from pricecache.core.instruments import Instrument
from pricecache.core.markets import MARKETS
from pricecache.errors import Invalid, PricecacheError
from pricecache.settings import Settings

_LEAST_FREE = 2 * 1024**3
_PATIENCE_SECONDS = 15.0
_CLOCKS_APART_SECONDS = 5.0
_BUILT = 1_760_000_000.0
"""Seconds since 1970 UTC of a moment before this program was written: an earlier clock is wrong."""
_MARKS = {"good": "ok", "note": "-", "bad": "BAD"}
_MONGODB_FIX = (
    "Wait while it starts; if it stays so, read the daemon's log and the log of mongod in the data directory."
)
_PROVIDERS = {"yfinance": "yfinance", "csv": None, "sample": "bokeh_sampledata"}
"""Each provider and the package that it needs."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and what to do about it when it is not good."""

    name: str
    outcome: Literal["good", "note", "bad"]
    found: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What replaying the journal showed: whether all is well now, and each difference that was found."""

    clean: bool
    differences: Sequence[Mapping[str, Any]]
    error: str | None = None


def examine(settings: Settings, daemon: Daemon, *, verify: bool, rebuild: bool, as_json: bool) -> bool:
    """Look at everything and print it; True when all of it is good. Starts the private mongod for a moment when no
    daemon runs and its data are there."""
    running = _readiness(daemon)
    checks = list(_checks(settings, running))
    if not as_json:
        for check in checks:
            _print(check)
    verdict = _verified(settings, daemon, running, rebuild, quiet=as_json) if verify or rebuild else None
    if as_json:
        report = {"checks": [asdict(check) for check in checks], "verify": verdict and asdict(verdict)}
        print(json.dumps(report, indent=2, default=str))
    elif verdict:
        _print_verdict(verdict)
    return all(check.outcome != "bad" for check in checks) and (verdict is None or verdict.clean)


def _checks(settings: Settings, running: Check | None) -> Iterator[Check]:
    yield Check("program", "good", f"pricecache {__version__}")
    yield _clock(time.time())
    yield _time_zones()
    yield _data_directory(settings.data_dir)
    yield _free_space(settings.data_dir)
    if settings.mongodb_uri is None:
        yield _mongod(settings)
    yield running or Check("daemon", "note", "none runs here", "Start one with `pricecache serve`.")
    if running is None:
        yield _database(settings)
    yield _listening(settings)
    yield _symbols(settings.symbols)
    for provider in settings.providers:
        yield _provider(provider, settings)


def _readiness(daemon: Daemon) -> Check | None:
    try:
        daemon.get("/readyz")
    except NoDaemon:
        return None
    except Refusal as exc:
        waits = ", ".join(f"{part} {state}" for part, state in exc.problem.get("checks", {}).items() if state != "ok")
        return Check("daemon", "bad", f"runs at {daemon.url} and is not ready: {waits or exc}", _MONGODB_FIX)
    return Check("daemon", "good", f"runs at {daemon.url} and is ready, its database with it")


def _clock(now: float) -> Check:
    told = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if now < _BUILT:
        return Check("clock", "bad", told, "Set the machine's clock: sessions are due by it.")
    return Check("clock", "good", told)


def _time_zones() -> Check:
    missing = []
    for market in MARKETS.values():
        try:
            ZoneInfo(market.time_zone)
        except ZoneInfoNotFoundError:
            missing.append(market.time_zone)
    if missing:
        return Check("time zones", "bad", f"missing: {', '.join(sorted(set(missing)))}", "Run pip install tzdata.")
    return Check("time zones", "good", "all that the markets need")


def _data_directory(folder: Path) -> Check:
    shown = str(folder.resolve())
    if not folder.exists():
        parent = next(above for above in folder.resolve().parents if above.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return Check("data directory", "note", f"{shown} is not there yet; the first start makes it")
        return Check("data directory", "bad", f"{shown} cannot be made", _data_fix(parent))
    if not folder.is_dir():
        return Check("data directory", "bad", f"{shown} is no folder", "Name another in PRICECACHE_DATA_DIR.")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check("data directory", "bad", f"{shown} is not ours to write", _data_fix(folder))
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Check("data directory", "bad", f"{shown} is open to others (mode {mode:o})", f"Run chmod 700 {shown}")
    return Check("data directory", "good", shown)


def _data_fix(folder: Path) -> str:
    return f"Give {folder} to the user that runs the daemon, or name another folder in PRICECACHE_DATA_DIR."


def _free_space(folder: Path) -> Check:
    place = next(above for above in (folder.resolve(), *folder.resolve().parents) if above.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1024**3:.1f} GiB free"
    if free < _LEAST_FREE:
        return Check("disk", "bad", found, "Make room: mongod stops when the disk is full. 2 GiB free is the least.")
    return Check("disk", "good", found)


def _mongod(settings: Settings) -> Check:
    from pricecache.stores.embedded import find_mongod

    try:
        program = find_mongod(settings.mongod)
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except PricecacheError as exc:
        return Check("mongod", "bad", "none that can be used", exc.detail)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return Check("mongod", "bad", f"{program} does not run: {exc}", "Name another in PRICECACHE_MONGOD.")
    if answer.returncode != 0:
        return Check(
            "mongod", "bad", answer.stderr.strip(), "Install the library it names (Debian: libcurl4, libssl3)."
        )
    return Check("mongod", "good", f"{program}, {answer.stdout.splitlines()[0]}")


def _database(settings: Settings) -> Check:
    if settings.mongodb_uri is None and not settings.data_dir.exists():
        return Check("database", "note", "not there yet; the first start makes it")
    try:
        apart = asyncio.run(_clocks_apart(settings))
    except PricecacheError as exc:
        return Check("database", "bad", exc.detail, "Put that right, then run pricecache doctor again.")
    except TimeoutError:
        return Check("database", "bad", f"no answer in {_PATIENCE_SECONDS:.0f} s", "Is it running, and reachable?")
    if apart > _CLOCKS_APART_SECONDS:
        return Check("database", "bad", f"its clock is {apart:.0f} s from ours", "Keep both clocks by NTP.")
    return Check("database", "good", "reachable and writable")


async def _clocks_apart(settings: Settings) -> float:
    from pricecache.stores.embedded import PrivateMongod

    if settings.mongodb_uri is not None:
        return await _ask_database(settings.mongodb_uri.get_secret_value())
    async with PrivateMongod(settings.data_dir, mongod=settings.mongod, cache_gb=settings.mongod_cache_gb) as server:
        return await _ask_database(server.uri)


async def _ask_database(uri: str) -> float:
    from pricecache.stores.client import connect, wait_until_writable

    client = connect(uri)
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await wait_until_writable(client, SystemClock())
            told = (await client.admin.command("hello"))["localTime"]
        return abs(time.time() - float(told.timestamp()))
    finally:
        await client.close()


def _listening(settings: Settings) -> Check:
    found = f"{settings.host}, port {settings.port}, {len(settings.api_keys)} keys in the settings"
    if not settings.api_keys and not is_loopback(settings.host):
        fix = "Set PRICECACHE_API_KEYS=name:scopes:secret, or PRICECACHE_HOST=127.0.0.1."
        return Check("address", "bad", f"{found}: refused without keys", fix)
    return Check("address", "good", found)


def _symbols(symbols: tuple[str, ...]) -> Check:
    wrong = []
    for symbol in symbols:
        try:
            Instrument.parse(symbol)
        except Invalid as exc:
            wrong.append(f"{symbol}: {exc.detail}")
    if wrong:
        return Check("symbols", "bad", "; ".join(wrong), "Put PRICECACHE_SYMBOLS right.")
    return Check("symbols", "good", f"{len(symbols)} in the settings")


def _provider(name: str, settings: Settings) -> Check:
    title = f"provider {name}"
    if name not in _PROVIDERS:
        return Check(title, "bad", "unknown", f"PRICECACHE_PROVIDERS may name {', '.join(_PROVIDERS)}.")
    package = _PROVIDERS[name]
    if package and importlib.util.find_spec(package) is None:
        return Check(title, "bad", f"its package {package} is missing", f"Run pip install {package}.")
    return _csv_folder(title, settings.csv_dir) if name == "csv" else Check(title, "good", "its package is there")


def _csv_folder(title: str, folder: Path | None) -> Check:
    if folder is None or not folder.is_dir():
        return Check(title, "bad", f"no folder {folder or ''}".strip(), "Name it in PRICECACHE_CSV_DIR.")
    count = sum(1 for _ in folder.glob("*.csv"))
    if not count:
        return Check(title, "bad", f"no SYMBOL.csv in {folder}", "Put one file for each symbol there.")
    return Check(title, "good", f"{count} files in {folder}")


def _verified(settings: Settings, daemon: Daemon, running: Check | None, rebuild: bool, *, quiet: bool) -> Verdict:
    """Through the daemon when one runs: the data directory of a private mongod has one owner at a time."""
    if running is None:
        return _verified_here(settings, rebuild)
    try:
        return _verified_there(daemon, rebuild, quiet=quiet)
    except (Refusal, NoDaemon) as exc:
        return Verdict(False, [], str(exc))


def _verified_here(settings: Settings, rebuild: bool) -> Verdict:
    from pricecache.app import verify

    try:
        differences = verify(settings, rebuild)
    except PricecacheError as exc:
        return Verdict(False, [], exc.detail)
    return Verdict(rebuild or not differences, differences)


def _verified_there(daemon: Daemon, rebuild: bool, *, quiet: bool) -> Verdict:
    report = run = daemon.start("/api/admin/verify", {"rebuild": rebuild})
    with nullcontext() if quiet else display.progress() as follower:
        for report in daemon.follow(run):
            if follower:
                follower("verify", report)
    failures = report.get("failures") or []
    clean = report["state"] == "succeeded" and (rebuild or not failures)
    return Verdict(clean, failures, report.get("error"))


def _print(check: Check) -> None:
    print(f"{_MARKS[check.outcome]:5}{check.name:20}{check.found}")
    if check.fix:
        print(f"{'':25}{check.fix}")


def _print_verdict(verdict: Verdict) -> None:
    if verdict.error:
        display.complain(verdict.error)
    display.show_rows(verdict.differences, title="differences between the journal and what is read")
    if verdict.clean and not verdict.differences:
        print("The journal's replay equals what is read.")
