"""The edge's language: JSON with camelCase keys, instants and dates as text, and errors as problems with a status."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, get_args

import orjson
from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from pricecache.api.problem import problem_fields
from pricecache.core.bars import day_of
from pricecache.errors import (
    AccessRevoked,
    BrokerError,
    BrokerUnavailable,
    Conflict,
    Forbidden,
    Invalid,
    LoginRequired,
    NotFound,
    PricecacheError,
    ProviderAnswerBad,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
    TooMuch,
    Unauthorized,
    Unavailable,
    VersionMismatch,
)


class Malformed(Invalid):
    """The request cannot be read at all."""

    code = "malformed"


class TooLarge(Invalid):
    """The body is longer than this daemon takes."""

    code = "body_too_large"


class TooSlow(Invalid):
    """The body did not arrive in time."""

    code = "body_too_slow"


class UnsupportedBody(Invalid):
    """Send the body as JSON, with Content-Type: application/json."""

    code = "unsupported_media_type"


class NotAcceptable(Invalid):
    """This format cannot be made here."""

    code = "format_unavailable"


class TooManyAttempts(PricecacheError):
    """Too many wrong keys from this address."""

    code = "too_many_attempts"

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class TooManyConnections(PricecacheError):
    """You have as many streams open as you may."""

    code = "too_many_user_connections"
    retry_after = 5.0


class UpgradeNeeded(Invalid):
    """This path speaks WebSocket: ask for an upgrade. The same events are at /api/stream."""

    code = "upgrade_needed"


# the first that fits stands, so the particular comes before the general
_STATUS: tuple[tuple[type[PricecacheError], int], ...] = (
    (Malformed, 400),
    (TooLarge, 413),
    (TooSlow, 408),
    (UnsupportedBody, 415),
    (NotAcceptable, 406),
    (TooManyAttempts, 429),
    (TooManyConnections, 429),
    (UpgradeNeeded, 426),
    (TooMuch, 400),
    (Invalid, 422),
    (NotFound, 404),
    (VersionMismatch, 412),
    (Conflict, 409),
    (Unauthorized, 401),
    (Forbidden, 403),
    (Unavailable, 503),
    (SymbolNotFound, 404),
    (RateLimited, 503),
    (ProviderUnavailable, 503),
    (ProviderAnswerBad, 502),
    (ProviderError, 502),
    (BrokerUnavailable, 503),
    (LoginRequired, 409),
    (AccessRevoked, 409),
    (BrokerError, 502),
)


def status_of(error: PricecacheError) -> int:
    """The HTTP status of a family of errors; 500 for those nobody outside can do anything about."""
    return next((status for family, status in _STATUS if isinstance(error, family)), 500)


def problem_of(error: PricecacheError, status: int, instance: str, request_id: str) -> dict[str, Any]:
    """The problem that tells of `error`: its facts in camelCase, and every bad row of the input."""
    more = camel(error.facts)
    rows = getattr(error, "rows", None)
    if rows:
        more["errors"] = camel(rows)
    retry_after = getattr(error, "retry_after", None)
    if retry_after is None and status == 503:
        retry_after = 1.0
    if retry_after is not None:
        more["retryAfter"] = retry_after
    members = problem_fields(status, error.code, error.detail, instance=instance, request_id=request_id)
    return {**members, **{name: value for name, value in more.items() if name not in members}}


_BUILT_IN = frozenset(get_args(core_schema.ErrorType))
_MOST_ROWS = 1000
_CODES = {"missing": "missing", "finite_number": "not_finite", "too_long": "too_many", "too_short": "too_few"}


def invalid_input(error: ValidationError, part: Literal["query", "body"], *, within: int = 0) -> Invalid:
    """Every fault that validation found, as one `Invalid` with a row for each; `Malformed` when it is not JSON.

    `within`: so many steps of every place are the model's own, such as the tag of a union, and not told.
    """
    faults = error.errors(include_url=False, include_input=False)[:_MOST_ROWS]
    rows = [_row(fault, fault["loc"][within:], part) for fault in faults]
    if rows[0]["code"] == "malformed_json":
        return Malformed(rows[0]["detail"], code="malformed_json")
    first = rows[0]
    what = f"{first['field']}: {first['detail']}" if "field" in first else first["detail"]
    detail = what if len(rows) == 1 else f"{len(rows)} faults; the first: {what}"
    return Invalid(detail, code=first["code"] if len(rows) == 1 else "invalid", rows=rows)


def _row(fault: Any, place: tuple[int | str, ...], part: str) -> dict[str, Any]:
    kind, context = fault["type"], fault.get("ctx", {})
    row: dict[str, Any] = {}
    numbers = [step for step in place if isinstance(step, int)]
    if numbers:
        row["row"] = numbers[0]
    if place:
        row["field"] = ".".join(str(step) for step in place)[:120]
    elif "field" in context:
        row["field"] = context["field"]
    if kind.startswith("json_"):
        row["code"] = "malformed_json"
    elif kind == "extra_forbidden":
        row["code"] = "unknown_parameter" if part == "query" else "unknown_field"
        row["detail"] = "there is no such parameter here" if part == "query" else "there is no such field here"
        return row
    elif kind in _BUILT_IN:
        row["code"] = _CODES.get(kind, "invalid_value")
    else:
        row["code"] = kind
    row["detail"] = fault["msg"]
    return row


def encode(value: Any) -> bytes:
    """JSON in UTF-8 with a final newline. NumPy arrays are taken; NaN and Infinity become null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def camel(value: Any) -> Any:
    """`value` with the keys of all its dicts in camelCase. Keys with anything but a-z, 0-9 and _ are names: kept."""
    if isinstance(value, Mapping):
        return {_camel_key(str(key)): camel(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [camel(item) for item in value]
    return value


@lru_cache(1024)
def _camel_key(key: str) -> str:
    return to_camel(key) if "_" in key and key.replace("_", "").isalnum() and key.islower() else key


def instant(seconds: float | None) -> str | None:
    """Seconds since 1970-01-01T00:00Z as `2026-11-20T10:00:00Z`; None is None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_instant(seconds: float) -> str:
    """`2026-11-20T10:00:00Z`, with milliseconds where there are any."""
    milliseconds = round(seconds * 1000)
    text = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds % 1000:03}Z" if milliseconds % 1000 else f"{text}Z"


def iso_day(session: int | None) -> str | None:
    """Days since 1970-01-01 as `2026-11-20`; None is None."""
    return None if session is None else day_of(session).isoformat()
