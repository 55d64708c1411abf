"""Which entries a request names, and the errors of those that are not known here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pricecache.api.encoding import (
    action_fields,
)
from pricecache.core.actions import preferred
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.errors import Invalid, NotFound, PricecacheError

if TYPE_CHECKING:
    from pricecache.api.services import Services


async def current_entry(services: Services, instrument: Instrument) -> Entry:
    """The entry of `instrument`, brought up to the database while other daemons' changes may go unseen."""
    entry = services.catalog.require(instrument)
    if not services.catalog.trusted or not entry.current:
        await services.instruments.load([entry.id])
    return entry


def former_name(entry: Entry, asked: Instrument) -> str | None:
    """The symbol that `entry` was asked for by, when that is not its present one."""
    return None if asked == entry.instrument else asked.symbol


def named(names: Sequence[str], market: str | None) -> list[Instrument]:
    """The instruments that a query names, each once. Raises `Invalid` with a row for every name that cannot be one."""
    instruments, rows = [], []
    for row, name in enumerate(names):
        try:
            instruments.append(Instrument.parse_in(name, market))
        except Invalid as exc:
            rows.append({"row": row, "field": f"symbols.{row}", "code": exc.code, "detail": exc.detail})
    if rows:
        code = rows[0]["code"] if len(rows) == 1 else "invalid"
        raise Invalid(f"{len(rows)} of the names cannot be symbols.", code=str(code), rows=rows)
    return list(dict.fromkeys(instruments))


def require_all(catalog: Catalog, instruments: Sequence[Instrument]) -> None:
    """Raises `NotFound` code `unknown_symbol` that lists every one not known here."""
    problems: list[PricecacheError] = []
    for instrument in instruments:
        try:
            catalog.require(instrument)
        except NotFound as exc:
            problems.append(exc)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        errors: list[dict[str, Any]] = [{**p.facts, "code": p.code, "detail": p.detail} for p in problems]
        raise NotFound(f"{len(problems)} of the symbols are not known here.", code="unknown_symbol", errors=errors)


def actions_of(entry: Entry) -> dict[str, Any]:
    return {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "actions": [action_fields(action) for action in preferred(entry.actions)],
    }
