"""Values of the daemon as the edge writes them: quotes, coverage, runs, and history in its four formats."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pricecache.api.wire import NotAcceptable, camel, encode, exact_instant, instant, iso_day
from pricecache.core.actions import Action, Adjust
from pricecache.core.bars import DAY_SECONDS, FIELDS, VOLUME, day_of
from pricecache.core.catalog import BEGINNING, Entry
from pricecache.core.coverage import Coverage, SyncState
from pricecache.core.quotes import Quote

if TYPE_CHECKING:
    from pricecache.cache.intraday import SampleCoverage
    from pricecache.cache.reader import HistoryAnswer
    from pricecache.stores.runs import Run

SIGNIFICANT_DIGITS = 13
"""Of adjusted prices: a quotient of two floats has seventeen, most of them noise."""


def etag_of(content: bytes) -> str:
    """A strong entity tag: it changes when, and only when, `content` does, on any daemon and after any restart."""
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def weak_etag_of(content: bytes) -> str:
    """The tag of an answer that tells, beside `content`, something of which nothing depends: an age, a last look."""
    return f"W/{etag_of(content)}"


def quote_fields(quote: Quote, now: float) -> dict[str, Any]:
    """One quote; `ageSeconds` comes last, so that it can be left out of what the tag is made of."""
    return {
        "symbol": quote.instrument.symbol,
        "market": quote.instrument.market,
        "price": quote.price,
        "previousClose": quote.previous_close,
        "open": quote.open,
        "dayHigh": quote.day_high,
        "dayLow": quote.day_low,
        "volume": quote.volume,
        "currency": quote.currency,
        "asOf": instant(quote.as_of),
        "stale": now >= quote.stale_at,
        "source": quote.source,
        "ageSeconds": age_seconds(quote, now),
    }


def age_seconds(quote: Quote, now: float) -> int:
    return max(0, int(now - quote.as_of))


def coverage_fields(coverage: Coverage) -> dict[str, Any]:
    return {
        "expected": coverage.expected,
        "present": coverage.present,
        "complete": coverage.complete,
        "ratio": coverage.ratio,
        "missing": [
            {
                "from": iso_day(stretch.first),
                "to": iso_day(stretch.last),
                "count": stretch.count,
                "class": stretch.absence,
                "reason": stretch.reason,
                "attempts": stretch.attempts,
                "nextRetry": instant(stretch.next_retry),
            }
            for stretch in coverage.missing
        ],
    }


OVERDUE_SECONDS = float(DAY_SECONDS)
"""A symbol that no run has come to with success for so long is not in order, though nothing speaks against it."""


def state_of(entry: Entry, now: float) -> str:
    """In one word how it stands with a symbol at instant `now` (seconds since 1970 UTC): untracked, quarantined,
    failing, pending, new, delisted or ok."""
    if not entry.tracked:
        return "untracked"
    if entry.state.quarantined_at is not None:
        return "quarantined"
    if entry.state.attempts or entry.state.withheld:
        return "failing"
    if entry.state.empty_since is not None or entry.state.code is not None:
        return "pending"  # a code without an attempt: it could not be asked for
    if entry.state.last_update is None:
        return "new"
    if entry.state.delisted_after is not None:
        return "delisted"
    is_overdue = entry.instrument.place.has_provider and now - entry.state.last_update >= OVERDUE_SECONDS
    return "pending" if is_overdue else "ok"


def symbol_fields(entry: Entry, now: float) -> dict[str, Any]:
    state = entry.state
    return {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "currency": entry.currency,
        "tracked": entry.tracked,
        "trackedSince": instant(entry.tracked_since),
        "trackedBy": entry.tracked_by,
        "state": state_of(entry, now),
        **failure_fields(state),
        "lastUpdate": instant(state.last_update),
        "first": iso_day(entry.head.first),
        "last": iso_day(entry.head.last),
        "bars": entry.head.count,
        "source": entry.source,
        "notice": entry.notice,
    }


def failure_fields(state: SyncState) -> dict[str, Any]:
    """Why a symbol is failing, how often in a row it was asked for in vain, and when it is asked for next."""
    code, reason, next_retry = state.code, state.reason, state.next_retry
    if state.withheld and not state.attempts:
        if state.parked:
            code, reason = "bars_parked", f"bars that await review: {len(state.parked)}; see GET /cache/quarantine"
        else:
            code = "bars_rejected"
            reason = f"bars that cannot be believed: {len(state.refused)}; see GET /cache/quarantine"
        next_retry = min(row.next_ask for row in state.withheld.values())
    return {"reason": reason, "code": code, "attempts": state.attempts, "nextRetry": instant(next_retry)}


def divergence_fields(state: SyncState) -> list[dict[str, Any]]:
    """Where a provider and what is held part."""
    return [
        {
            "kind": kind,
            "provider": divergence.provider,
            "detail": divergence.detail,
            "count": divergence.count,
            "from": iso_day(divergence.first),
            "to": iso_day(divergence.last),
            "since": instant(divergence.since),
            "lastSeen": instant(divergence.last_seen),
        }
        for kind, divergence in sorted(state.divergences.items())
    ]


def currency_fields(entry: Entry) -> list[dict[str, Any]]:
    """Since when an instrument's prices are in which currency; `from` null: from the beginning."""
    dated = entry.currencies or ((BEGINNING, entry.currency),)
    return [{"from": iso_day(None if since == BEGINNING else since), "currency": code} for since, code in dated]


def action_fields(action: Action) -> dict[str, Any]:
    name = {"split": "ratio", "dividend": "amount", "rebase": "factor"}[action.kind]
    return {
        "date": iso_day(action.ex_date),
        "kind": action.kind,
        name: action.value,
        "currency": action.currency,
        "source": action.source,
        "manual": action.manual,
    }


def run_fields(run: Run, now: float) -> dict[str, Any]:
    ended = run.ended_at if run.ended_at is not None else now
    return {
        "id": run.id,
        "job": run.job,
        "state": run.state,
        "requestedBy": run.requested_by,
        "parameters": camel(run.parameters),
        "startedAt": instant(run.started_at),
        "endedAt": instant(run.ended_at),
        "durationMs": None if run.started_at is None else round(1000 * max(0.0, ended - run.started_at), 1),
        "done": run.done,
        "total": run.total,
        "percent": round(100 * run.done / run.total, 1) if run.total else None,
        "counts": camel(run.counts),
        "failures": camel(run.failures),
        "failuresTotal": run.failures_total,
        "message": run.message,
        "error": run.error,
    }


def history_json(
    answer: HistoryAnswer, fields: Sequence[str], *, columns: bool, requested: str | None = None
) -> tuple[bytes, str]:
    """Rows or columns with everything said about them, and the tag, which knows nothing of `lastUpdate`.

    `requested`: the former symbol it was asked for by, or None.
    """
    entry = answer.entry
    dates, values = iso_days(answer.bars.sessions), columns_of(answer.bars.values, answer.adjust, fields)
    content: dict[str, Any] = {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "currency": entry.currency,
        "interval": "1d",
        "adjust": answer.adjust,
        "start": iso_day(answer.start),
        "end": iso_day(answer.end),
    }
    if columns:
        content |= {"date": dates, **dict(zip(fields, values, strict=True))}
    else:
        names = ("date", *fields)
        rows = zip(dates, *(listed(column) for column in values), strict=True)
        content["bars"] = [dict(zip(names, row, strict=True)) for row in rows]
    content |= {
        "provisional": provisional_days(answer),
        "manual": iso_days(answer.manual),
        "coverage": coverage_fields(answer.coverage),
        "source": entry.source,
        "notice": entry.notice,
    }
    if requested is not None:
        content["requested"] = requested
    if entry.currencies:
        content["currencies"] = currency_fields(entry)
    if answer.as_known_on is not None:
        content["asKnownOn"] = exact_instant(answer.as_known_on)
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    updated = entry.state.last_update if answer.as_known_on is None else answer.known_since
    last_update = encode(instant(updated)).rstrip()
    return b'%s,"lastUpdate":%s}\n' % (body[:-1], last_update), weak_etag_of(body)


def history_csv(answer: HistoryAnswer, fields: Sequence[str]) -> tuple[bytes, str]:
    """A header and a line a bar; what is unknown is empty."""
    values = columns_of(answer.bars.values, answer.adjust, fields)
    return csv_of("date", iso_days(answer.bars.sessions), fields, values)


def csv_of(
    label: str, labels: Sequence[str], fields: Sequence[str], values: Sequence[NDArray[Any] | list[Any]]
) -> tuple[bytes, str]:
    """The table of these columns, `labels` first, and its tag."""
    lines = [",".join((label, *fields))]
    for at, *row in zip(labels, *(listed(column) for column in values), strict=True):
        lines.append(",".join((at, *("" if value is None else repr(value) for value in row))))
    body = ("\n".join(lines) + "\n").encode()
    return body, etag_of(body)


async def history_arrow(answer: HistoryAnswer, fields: Sequence[str]) -> tuple[bytes, str]:
    """An Arrow IPC stream: date32, then float64 columns. Raises `NotAcceptable` without pyarrow."""
    facts = {"symbol": answer.entry.instrument.symbol, "market": answer.entry.instrument.market,
             "currency": answer.entry.currency, "adjust": answer.adjust}  # fmt: skip
    if answer.as_known_on is not None:
        facts["asKnownOn"] = exact_instant(answer.as_known_on)
    facts |= currency_facts(answer.entry, "currencies")
    days = answer.bars.sessions.astype("datetime64[D]")
    return await arrow_of("date", days, answer.bars.values, fields, facts)


async def arrow_of(
    label: str, labels: NDArray[Any], values: NDArray[np.float64], fields: Sequence[str], facts: dict[str, str]
) -> tuple[bytes, str]:
    """The Arrow stream of `labels` (datetime64) and of those rows of `values`, shape (5, n), that `fields` names."""
    try:
        pa: Any = await asyncio.to_thread(importlib.import_module, "pyarrow")
    except ImportError as exc:
        raise NotAcceptable(
            "Arrow needs the package pyarrow beside pricecache; json, columns and csv need nothing.",
            code="format_unavailable",
        ) from exc
    first = pa.array(labels)
    if label == "time":
        first = first.cast(pa.timestamp("ms", tz="UTC"))
    arrays = [first, *(pa.array(values[FIELDS.index(name)], from_pandas=True) for name in fields)]
    table = pa.table(arrays, names=[label, *fields]).replace_schema_metadata(facts)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    return body, etag_of(body)


def coverage_headers(coverage: Coverage | SampleCoverage, provisional: Sequence[str] = ()) -> dict[str, str]:
    """What is missing, and which bars are not final, for formats that have no place for it."""
    complete = "true" if coverage.complete else "false"
    said = {"X-Pricecache-Coverage": f"expected={coverage.expected}, present={coverage.present}, complete={complete}"}
    return said | {"X-Pricecache-Provisional": ", ".join(provisional)} if provisional else said


def currency_facts(entry: Entry, name: str) -> dict[str, str]:
    """Under `name` all currencies of an instrument whose prices changed theirs: `USD, EUR;from=2026-11-02`."""
    dated = currency_fields(entry) if entry.currencies else []
    told = [code["currency"] + (f";from={code['from']}" if code["from"] else "") for code in dated]
    return {name: ", ".join(told)} if told else {}


def provisional_days(answer: HistoryAnswer) -> list[str]:
    return iso_days(answer.bars.sessions[answer.provisional])


def iso_days(sessions: NDArray[np.int64]) -> list[str]:
    return [_iso(session) for session in sessions.tolist()]


@lru_cache(100_000)
def _iso(session: int) -> str:
    return day_of(session).isoformat()


def columns_of(values: NDArray[np.float64], adjust: Adjust, fields: Sequence[str]) -> list[NDArray[Any] | list[Any]]:
    """The columns wanted of `values`, shape (5, n), contiguous: prices float64; volume int64, or a list of int and
    None, when every known value of it is a whole number."""
    return [
        _whole_numbers(values[VOLUME]) if name == "volume" else _tidied(values[FIELDS.index(name)], adjust)
        for name in fields
    ]


def _tidied(prices: NDArray[np.float64], adjust: Adjust) -> NDArray[np.float64]:
    prices = np.ascontiguousarray(prices)
    if adjust == "none" or not len(prices):
        return prices
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(np.abs(prices)))
        scale = 10.0 ** np.clip(digits, 0, 22)  # powers of ten up to here are exact in a float64
        rounded = np.round(prices * scale) / scale
    # what is too small for so few digits is told as it is, and never as nothing
    return np.where(np.isfinite(rounded) & (digits <= 22), rounded, prices)


def _whole_numbers(volume: NDArray[np.float64]) -> NDArray[Any] | list[Any]:
    volume = np.ascontiguousarray(volume)
    unknown = np.isnan(volume)
    if unknown.any() and not unknown.all():  # one that is unknown does not make fractions of the others
        known = _whole_numbers(volume[~unknown])
        assert not isinstance(known, list)
        return _with_none(known, ~unknown)
    with np.errstate(invalid="ignore"):
        whole = np.rint(volume)
        # after a split the quotient of two whole numbers may miss one by a bit
        near = np.abs(volume - whole) <= 1e-9 * np.abs(volume)
    fits = near & (np.abs(volume) < 2**53)
    return whole.astype(np.int64) if fits.all() else volume


def listed(column: NDArray[Any] | list[Any]) -> list[Any]:
    """The values as JSON and CSV write them; those that are unknown None."""
    if isinstance(column, list):
        return column
    if column.dtype.kind == "f" and not (finite := np.isfinite(column)).all():
        return _with_none(column[finite], finite)
    return column.tolist()


def _with_none(known: NDArray[Any], where: NDArray[np.bool_]) -> list[Any]:
    values = np.full(len(where), None, object)
    values[where] = known.tolist()
    return values.tolist()
