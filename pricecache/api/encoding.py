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

from pricecache.api.wire import NotAcceptable, camel, encode, instant, iso_day
from pricecache.core.actions import Action
from pricecache.core.bars import FIELDS, day_of
from pricecache.core.catalog import Entry
from pricecache.core.coverage import Coverage
from pricecache.core.quotes import Quote

if TYPE_CHECKING:
    from pricecache.cache.reader import HistoryAnswer
    from pricecache.stores.runs import Run

SIGNIFICANT_DIGITS = 13
"""Of adjusted prices: a quotient of two floats has seventeen, most of them noise."""


def etag_of(content: bytes) -> str:
    """A strong entity tag: it changes when, and only when, `content` does, on any daemon and after any restart."""
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


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
                "nextRetry": instant(stretch.next_retry),
            }
            for stretch in coverage.missing
        ],
    }


def state_of(entry: Entry) -> str:
    """In one word how it stands with a symbol: untracked, failing, new, delisted or ok."""
    if not entry.tracked:
        return "untracked"
    if entry.state.attempts:
        return "failing"
    if entry.state.last_update is None:
        return "new"
    return "delisted" if entry.state.delisted_after is not None else "ok"


def symbol_fields(entry: Entry) -> dict[str, Any]:
    state = entry.state
    return {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "currency": entry.currency,
        "tracked": entry.tracked,
        "trackedSince": instant(entry.tracked_since),
        "trackedBy": entry.tracked_by,
        "state": state_of(entry),
        "reason": state.reason if state.attempts else None,
        "code": state.code if state.attempts else None,
        "attempts": state.attempts,
        "nextRetry": instant(state.next_retry) if state.attempts else None,
        "lastUpdate": instant(state.last_update),
        "first": iso_day(entry.head.first),
        "last": iso_day(entry.head.last),
        "bars": entry.head.count,
        "source": entry.source,
        "notice": entry.notice,
    }


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
        "failuresTotal": getattr(run, "failures_total", len(run.failures)),
        "message": run.message,
        "error": run.error,
    }


def history_json(answer: HistoryAnswer, fields: Sequence[str], *, columns: bool) -> tuple[bytes, str]:
    """Rows or columns with everything said about them, and the tag, which knows nothing of `lastUpdate`."""
    entry = answer.entry
    dates, values = iso_days(answer.bars.sessions), _values(answer, fields)
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
        rows = zip(dates, *(_listed(column) for column in values), strict=True)
        content["bars"] = [dict(zip(names, row, strict=True)) for row in rows]
    content |= {
        "provisional": [day for day, is_provisional in zip(dates, answer.provisional, strict=True) if is_provisional],
        "coverage": coverage_fields(answer.coverage),
        "source": entry.source,
        "notice": entry.notice,
    }
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    last_update = encode(instant(entry.state.last_update)).rstrip()
    return b'%s,"lastUpdate":%s}\n' % (body[:-1], last_update), etag_of(body)


def history_csv(answer: HistoryAnswer, fields: Sequence[str]) -> tuple[bytes, str]:
    """A header and a line a bar; what is unknown is empty."""
    columns = [_listed(column) for column in _values(answer, fields)]
    lines = [",".join(("date", *fields))]
    for day, *row in zip(iso_days(answer.bars.sessions), *columns, strict=True):
        lines.append(",".join((day, *("" if value is None else repr(value) for value in row))))
    body = ("\n".join(lines) + "\n").encode()
    return body, etag_of(body)


async def history_arrow(answer: HistoryAnswer, fields: Sequence[str]) -> tuple[bytes, str]:
    """An Arrow IPC stream: date32, then float64 columns. Raises `NotAcceptable` without pyarrow."""
    try:
        pa: Any = await asyncio.to_thread(importlib.import_module, "pyarrow")
    except ImportError as exc:
        raise NotAcceptable(
            "Arrow needs the package pyarrow beside pricecache; json, columns and csv need nothing.",
            code="format_unavailable",
        ) from exc
    arrays = [pa.array(answer.bars.sessions.astype(np.int32)).cast(pa.date32())]
    arrays += [pa.array(answer.bars.values[FIELDS.index(name)], from_pandas=True) for name in fields]
    facts = {"symbol": answer.entry.instrument.symbol, "market": answer.entry.instrument.market,
             "currency": answer.entry.currency, "adjust": answer.adjust}  # fmt: skip
    table = pa.table(arrays, names=["date", *fields]).replace_schema_metadata(facts)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    return body, etag_of(body)


def coverage_headers(coverage: Coverage) -> dict[str, str]:
    """What is missing, for formats that have no place for it."""
    complete = "true" if coverage.complete else "false"
    return {"X-Pricecache-Coverage": f"expected={coverage.expected}, present={coverage.present}, complete={complete}"}


def iso_days(sessions: NDArray[np.int64]) -> list[str]:
    return [_iso(session) for session in sessions.tolist()]


@lru_cache(100_000)
def _iso(session: int) -> str:
    return day_of(session).isoformat()


def _values(answer: HistoryAnswer, fields: Sequence[str]) -> list[NDArray[Any]]:
    """The columns wanted, contiguous: prices float64, volume int64 when every value of it is a whole number."""
    return [
        _whole_numbers(answer.bars.volume) if name == "volume" else _tidied(answer, FIELDS.index(name))
        for name in fields
    ]


def _tidied(answer: HistoryAnswer, row: int) -> NDArray[np.float64]:
    prices = np.ascontiguousarray(answer.bars.values[row])
    if answer.adjust == "none" or not len(prices):
        return prices
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(np.abs(prices)))
        scale = 10.0 ** np.clip(digits, 0, 22)  # powers of ten up to here are exact in a float64
        rounded = np.round(prices * scale) / scale
    return np.where(np.isfinite(rounded), rounded, prices)


def _whole_numbers(volume: NDArray[np.float64]) -> NDArray[Any]:
    volume = np.ascontiguousarray(volume)
    with np.errstate(invalid="ignore"):
        whole = np.rint(volume)
        # after a split the quotient of two whole numbers may miss one by a bit
        near = np.abs(volume - whole) <= 1e-9 * np.abs(volume)
    fits = near & (np.abs(volume) < 2**53)
    return whole.astype(np.int64) if fits.all() else volume


def _listed(column: NDArray[Any]) -> list[Any]:
    values = column.tolist()
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        return [value if np.isfinite(value) else None for value in values]
    return values
