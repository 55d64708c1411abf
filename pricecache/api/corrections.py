"""What was superseded, by what, and when."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pricecache.api.call import Answer, Call
from pricecache.api.encoding import action_fields
from pricecache.api.entries import current_entry
from pricecache.api.wire import exact_instant, instant, iso_day
from pricecache.core.actions import Action
from pricecache.core.bars import FIELDS, VOLUME, day_number

if TYPE_CHECKING:
    from pricecache.stores.corrections import ActionCorrection, Correction, Version


async def corrections(call: Call) -> Answer:
    entry = await current_entry(call.services, call.instrument)
    start = None if call.query.start is None else day_number(call.query.start)
    end = None if call.query.end is None else day_number(call.query.end)
    found = await call.services.bars.corrections(entry, start, end, call.query.limit)
    return Answer(
        {
            "symbol": entry.instrument.symbol,
            "market": entry.instrument.market,
            "corrections": [_correction_fields(correction) for correction in found.bars],
            "actions": [_action_correction_fields(correction) for correction in found.actions],
            "total": found.total,
            "actionsTotal": found.actions_total,
        }
    )


def _correction_fields(correction: Correction) -> dict[str, Any]:
    return {
        "date": iso_day(correction.session),
        "revision": correction.rev,
        "at": exact_instant(correction.at / 1000),
        "kind": correction.kind,
        "from": _version_fields(correction.before),
        "to": None if correction.after is None else _version_fields(correction.after),
    }


def _version_fields(version: Version) -> dict[str, Any]:
    values: list[Any] = [None if math.isnan(value) else value for value in version.values]
    if values[VOLUME] is not None and values[VOLUME].is_integer():
        values[VOLUME] = int(values[VOLUME])
    return {
        **dict(zip(FIELDS, values, strict=True)),
        "source": version.source,
        "fetchedAt": instant(version.fetched_at / 1000),
        "committedAt": exact_instant(version.committed_at / 1000),
        "revision": version.rev,
    }


def _action_correction_fields(correction: ActionCorrection) -> dict[str, Any]:
    return {
        "date": iso_day(correction.before.ex_date),
        "action": correction.before.kind,
        "revision": correction.rev,
        "at": exact_instant(correction.at / 1000),
        "kind": correction.kind,
        "from": _facts(correction.before),
        "to": None if correction.after is None else _facts(correction.after),
    }


def _facts(action: Action) -> dict[str, Any]:
    return {name: value for name, value in action_fields(action).items() if name not in ("date", "kind")}
