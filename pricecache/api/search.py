"""Finding an instrument by symbol, name or former symbol: what is known here first, then what the providers know."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest
from typing import Any

from pricecache.api.call import Answer, Call
from pricecache.api.ownership import is_visible
from pricecache.core.asking import Found
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.notations import clean
from pricecache.errors import Invalid

HERE = "pricecache"
"""The source of a row that was known here."""


async def search(call: Call) -> Answer:
    text, limit = clean(call.query.q), call.query.limit
    seen = (entry for entry in call.services.catalog if is_visible(entry, call.principal))
    rows = {entry.instrument: _known(entry) for entry in _matching(seen, text, limit)}
    asked = await call.services.search.search(text)
    _merge(rows, asked.found, call.services.catalog)
    return Answer(
        {
            "query": text,
            "results": list(rows.values())[:limit],
            "providers": [{"name": name, "code": code} for name, code in asked.failures.items()],
        }
    )


def _matching(entries: Iterable[Entry], text: str, most: int) -> list[Entry]:
    """At most `most` entries, the best first: the symbol itself, its beginning, a name's, then any part of them."""
    meant = _meant(text)
    ranked = (
        (rank, not entry.tracked, len(entry.instrument.symbol), entry.instrument, entry)
        for entry in entries
        if (rank := _rank(entry, text, meant)) is not None
    )
    return [entry for *_, entry in nsmallest(most, ranked)]  # no two have one instrument


def _meant(text: str) -> Instrument | None:
    try:
        return Instrument.parse(text)
    except Invalid:
        return None


def _rank(entry: Entry, text: str, meant: Instrument | None) -> int | None:
    symbol, name = entry.instrument.symbol, (entry.name or "").upper()
    if entry.instrument == meant:
        return 0
    is_part = text in symbol or text in name
    if not is_part and not entry.aliases:
        return None  # nearly all of them
    if symbol == text:
        return 1
    former = [alias.symbol for alias in entry.aliases]
    if text in former or (meant is not None and meant.symbol in former):
        return 2
    if symbol.startswith(text):
        return 3
    if name.startswith(text):
        return 4
    if f" {text}" in name:
        return 5
    if any(symbol.startswith(text) for symbol in former):
        return 6
    return 7 if is_part else None


def _known(entry: Entry) -> dict[str, Any]:
    return _row(entry.instrument, entry.name, entry.kind, entry.currency, entry.tracked, HERE)


def _merge(rows: dict[Instrument, dict[str, Any]], found: Iterable[Found], catalog: Catalog) -> None:
    for one in found:
        entry = catalog.find(one.instrument)
        instrument = one.instrument if entry is None else entry.instrument
        row = rows.get(instrument)
        if row is None:
            row = rows[instrument] = (
                _row(instrument, None, None, instrument.currency, False, one.source) if entry is None else _known(entry)
            )
            if entry is None and one.currency is not None:
                row["currency"] = one.currency
        row["name"] = row["name"] or one.name
        row["kind"] = row["kind"] or one.kind or instrument.kind


def _row(
    instrument: Instrument, name: str | None, kind: str | None, currency: str, tracked: bool, source: str
) -> dict[str, Any]:
    return {
        "symbol": instrument.symbol,
        "market": instrument.market,
        "name": name,
        "kind": kind,
        "currency": currency,
        "tracked": tracked,
        "source": source,
    }
