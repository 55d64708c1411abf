"""What people put in: symbols to keep, bars and actions by hand, and taking them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pricecache.api.call import Answer, Call
from pricecache.api.encoding import run_fields, symbol_fields
from pricecache.api.entries import actions_of, current_entry, named
from pricecache.api.inputs import BAR_FIELDS, BarInput, DividendInput, SplitInput
from pricecache.api.ownership import require_owner
from pricecache.core.actions import Action
from pricecache.core.bars import Bars, day_number
from pricecache.core.catalog import Entry
from pricecache.core.instruments import Instrument
from pricecache.core.plausibility import check_manual
from pricecache.errors import Conflict, Invalid
from pricecache.stores.bars import Change
from pricecache.stores.instruments import Own

MANUAL_SOURCE = "manual"


async def track(call: Call) -> Answer:
    tracked = await call.services.tracker.track(call.body.symbols, call.principal.name)
    now = call.services.clock.time()
    run = None if tracked.run is None else run_fields(tracked.run.run, now)
    return Answer(
        {"symbols": [symbol_fields(entry, now) for entry in tracked.entries], "run": run},
        201 if tracked.added else 200,
        {"Location": f"/cache/runs/{run['id']}"} if run else {},
    )


async def untrack(call: Call) -> Answer:
    return await _untrack(call, [call.instrument])


async def untrack_many(call: Call) -> Answer:
    by_query = named(call.query.symbols or [], call.query.market)
    wanted = [*by_query, *(call.body.symbols or [])]
    if not wanted:
        raise Invalid("Name the symbols: ?symbols=AAPL,SAP:DE, or a body with symbols.", code="no_symbols")
    return await _untrack(call, wanted)


async def _untrack(call: Call, instruments: Sequence[Instrument]) -> Answer:
    entries = await call.services.tracker.untrack(instruments, call.principal.name)
    gone = [{"symbol": entry.instrument.symbol, "market": entry.instrument.market} for entry in entries]
    return Answer({"untracked": gone})


async def put_bars(call: Call) -> Answer:
    """Rows that cannot be prices are refused one by one; when none is left, the whole input is."""
    services = call.services
    instrument, now = call.writable, services.clock.time()
    bars, rejected = _believable(call.body.bars, now)
    if not len(bars):
        raise Invalid("None of the bars can be stored.", code="nothing_to_store", rows=rejected)
    entry = await _entry_for_bars(call, instrument, int(bars.sessions[0]), now)
    change = Change(entry, bars, MANUAL_SOURCE, now, manual=True)
    committed = (await services.bars.commit([change]))[0]
    stored = len(committed.added) + len(committed.replaced)
    await services.review.put_by_hand(entry, bars.sessions.tolist())
    return Answer(
        {
            "symbol": entry.instrument.symbol,
            "market": entry.instrument.market,
            "stored": stored,
            "unchanged": len(bars) - stored,
            "rejected": rejected,
        }
    )


async def retract_bars(call: Call) -> Answer:
    entry = await current_entry(call.services, call.writable)
    held = await call.services.bars.held(entry)
    low = 0 if call.query.start is None else held.searchsorted(day_number(call.query.start))
    high = len(held) if call.query.end is None else held.searchsorted(day_number(call.query.end), side="right")
    now = call.services.clock.time()
    committed = await call.services.bars.retract(entry, held[low:high].tolist(), now)
    return Answer(
        {
            "symbol": entry.instrument.symbol,
            "market": entry.instrument.market,
            "retracted": len(committed.replaced) + len(committed.removed),
        }
    )


async def put_actions(call: Call) -> Answer:
    entry = await current_entry(call.services, call.writable)
    now = call.services.clock.time()
    new = tuple(_action(item, entry) for item in call.body.actions)
    _refuse_twice([action.key for action in new])
    change = Change(entry, Bars.empty(), MANUAL_SOURCE, now, manual=True, actions=new)
    await call.services.bars.commit([change])
    return Answer(actions_of(entry))


async def retract_actions(call: Call) -> Answer:
    entry = await current_entry(call.services, call.writable)
    day = None if call.query.date_ is None else day_number(call.query.date_)
    keys = [
        action.key
        for action in entry.actions
        if action.manual and day in (None, action.ex_date) and call.query.kind in (None, action.kind)
    ]
    if keys:
        await call.services.bars.retract_actions(entry, keys, call.services.clock.time())
    return Answer(actions_of(entry))


async def _entry_for_bars(call: Call, instrument: Instrument, first: int, now: float) -> Entry:
    """The entry that bars are put to: made when there is none, kept from their first session on, not tracked."""
    services, currency = call.services, call.body.currency
    entry = services.catalog.find(instrument) or await _new_entry(call, instrument, first, now)
    if currency is not None and currency != entry.currency:
        if entry.head.count:
            raise Conflict(
                f"{instrument} is kept in {entry.currency}, not in {currency}.",
                code="currency_mismatch",
                currency=entry.currency,
            )
        await services.instruments.set_facts(entry, currency=currency)
    return entry


async def _new_entry(call: Call, instrument: Instrument, first: int, now: float) -> Entry:
    instruments, by, user = call.services.instruments, call.principal.name, call.principal.user
    if instrument.place.has_provider or user is None:
        (entry,) = await instruments.add([instrument], wanted_from=first, tracked=False, by=by, now=now)
    else:
        (entry,) = await instruments.add_own([Own(instrument)], user, wanted_from=first, by=by, now=now)
        require_owner(entry, user)  # somebody may have been faster
    return entry


def _believable(rows: Sequence[BarInput], now: float) -> tuple[Bars, list[dict[str, Any]]]:
    """The rows that can be prices, as bars, and for each other its place in the input and why not."""
    rejected: list[dict[str, Any]] = []
    places: dict[int, int] = {}
    for row, item in enumerate(rows):
        session = day_number(item.date_)
        if session in places:
            rejected.append({"row": row, "code": "duplicate_date", "detail": f"row {places[session]} has this date"})
        else:
            places[session] = row
    kept = [rows[row] for row in places.values()]
    values = [[np.nan if (value := getattr(item, name)) is None else value for item in kept] for name in BAR_FIELDS]
    bars, refused = check_manual(Bars.of(list(places), values), now)
    rejected += [{"row": places[r.session], "code": r.code, "detail": r.detail} for r in refused]
    return bars, sorted(rejected, key=lambda rejection: rejection["row"])


def _action(item: SplitInput | DividendInput, entry: Entry) -> Action:
    day = day_number(item.date_)
    if isinstance(item, SplitInput):
        return Action(day, "split", item.ratio, None, MANUAL_SOURCE, manual=True)
    return Action(day, "dividend", item.amount, item.currency or entry.currency, MANUAL_SOURCE, manual=True)


def _refuse_twice(keys: Sequence[tuple[int, str]]) -> None:
    rows = [
        {"row": row, "code": "duplicate_date", "detail": "another action of this kind has this date"}
        for row, key in enumerate(keys)
        if key in keys[:row]
    ]
    if rows:
        raise Invalid("Two actions of one kind have the same date.", code="duplicate_date", rows=rows)
