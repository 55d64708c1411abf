"""One symbol in detail, and what a person says of it: another name, its end, its currency, how a provider spells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pricecache.api.call import Answer, Call
from pricecache.api.encoding import currency_fields, symbol_fields
from pricecache.api.entries import current_entry
from pricecache.api.inputs import SymbolBody
from pricecache.api.ownership import name_for
from pricecache.api.wire import iso_day
from pricecache.core.bars import day_number, day_of
from pricecache.core.catalog import Alias, Entry, currencies_with
from pricecache.core.instruments import Instrument
from pricecache.errors import Invalid

EARLIEST = -25567
"""1900-01-01, the first day that anything without a history can have been delisted after."""


async def details(call: Call) -> Answer:
    entry = await current_entry(call.services, call.instrument)
    found = details_of(entry, call.instrument, call.services.clock.time())
    return Answer({**found, "trackedBy": name_for(call.principal, entry.tracked_by)})


async def rename(call: Call) -> Answer:
    """The same rename once more changes nothing."""
    asked = call.instrument
    entry = await current_entry(call.services, asked)
    to = _new_name(call, entry)
    today = call.services.reader.today(entry)
    on = today if call.body.on is None else day_number(call.body.on)
    if on > today:
        raise in_the_future("on")
    await call.services.instruments.rename(entry, to, on)
    return Answer(details_of(entry, entry.instrument, call.services.clock.time()))


async def describe(call: Call) -> Answer:
    body: SymbolBody = call.body
    entry = await current_entry(call.services, call.instrument)
    given = body.model_fields_set
    facts: dict[str, Any] = {name: getattr(body, name) for name in ("kind", "name") if name in given}
    if body.spellings is not None:
        _require_in_use(call, [name for name, symbol in body.spellings.items() if symbol is not None])
        merged = {**entry.spellings, **body.spellings}
        facts["spellings"] = {provider: symbol for provider, symbol in merged.items() if symbol is not None}
    if body.currency is not None:
        facts |= _currencies(call, entry, day_number(body.currency.from_), body.currency.code)
    if "delisted_after" in given:
        after = None if body.delisted_after is None else day_number(body.delisted_after)
        _require_after_first_bar(entry, after)
        await call.services.instruments.set_delisted(entry, after)
    if facts:
        await call.services.instruments.set_by_hand(entry, facts)
    return Answer(details_of(entry, call.instrument, call.services.clock.time()))


def details_of(entry: Entry, asked: Instrument, now: float) -> dict[str, Any]:
    place = entry.instrument.place
    former = {"requested": asked.symbol} if asked != entry.instrument else {}
    return {
        **symbol_fields(entry, now),
        **former,
        "id": entry.id,
        "kind": entry.kind,
        "name": entry.name,
        "aliases": [_alias_fields(alias) for alias in entry.aliases],
        "spellings": dict(entry.spellings),
        "currencies": currency_fields(entry),
        "delistedAfter": iso_day(entry.state.delisted_after),
        "calendar": place.calendar,
        "timeZone": place.time_zone,
        "marketName": place.name,
    }


def _alias_fields(alias: Alias) -> dict[str, Any]:
    return {
        "symbol": alias.symbol,
        "market": alias.market,
        "from": iso_day(alias.since),
        "to": iso_day(alias.until),
    }


def _new_name(call: Call, entry: Entry) -> Instrument:
    body = call.body
    try:
        if body.market is not None:
            return Instrument.parse(body.to, body.market)
        return Instrument.parse_in(body.to, entry.instrument.market)
    except Invalid as exc:
        row = {"field": "to", "code": exc.code, "detail": exc.detail}
        raise Invalid(exc.detail, code=exc.code, rows=[row], **exc.facts) from exc


def _currencies(call: Call, entry: Entry, since: int, code: str) -> dict[str, Any]:
    if since > call.services.reader.today(entry):
        raise in_the_future("currency.from")
    dated = currencies_with(entry.currencies, entry.currency, since, code)
    return {"currencies": [list(item) for item in dated], "currency": dated[-1][1] if dated else code}


def _require_in_use(call: Call, providers: Sequence[str]) -> None:
    named = [pool.name for pool in call.services.chain.pools]
    rows = [
        {"field": f"spellings.{name}", "code": "provider_not_in_use", "detail": f"in use are {', '.join(named)}"}
        for name in providers
        if name not in named
    ]
    if rows:
        raise Invalid(
            f"spellings: in use are {', '.join(named)}; others are not asked.", code="provider_not_in_use", rows=rows
        )


def _require_after_first_bar(entry: Entry, after: int | None) -> None:
    first = entry.head.first if entry.head.first is not None else EARLIEST
    if after is not None and after < first:
        row = {"field": "delistedAfter", "code": "delisted_before_first_bar", "detail": f"before {day_of(first)}"}
        raise Invalid(
            f"delistedAfter: {day_of(after)} is before {day_of(first)}.", code="delisted_before_first_bar", rows=[row]
        )


def in_the_future(field: str) -> Invalid:
    """What to raise."""
    row = {"field": field, "code": "date_in_the_future", "detail": "the day has not come yet"}
    return Invalid(f"{field}: the day has not come yet.", code="date_in_the_future", rows=[row])
