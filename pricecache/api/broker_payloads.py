"""From the bytes that somebody posts to what a broker says: Plaid's own JSON, or the neutral one, or none at all."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import ValidationError

from pricecache import garbage
from pricecache.api.reconstruction_inputs import Asked
from pricecache.api.uploads import Upload
from pricecache.api.wire import Malformed, UnsupportedBody, invalid_input
from pricecache.brokers.neutral import read_neutral
from pricecache.brokers.plaid_payload import plaids_day, read_plaid
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.broker.data import BrokerData
from pricecache.errors import Invalid, PricecacheError
from pricecache.portfolio.broker_intake import PLAIDS, UNNAMED, Posted, scope_of

_LONG = 1 << 20
MOST_VALUES = 6_000_000
"""Of a body: 200,000 of Plaid's transactions have half as many, and more than so many take a gigabyte."""
_MOST_PAGES = 5000
_OURS = ("portfolioId", "portfolioName", "force", "connectionId")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, and what was posted with it; None: nothing but to do it again."""

    asked: Asked
    posted: Posted | None


def read_request(upload: Upload | None, now: float) -> Request:
    """Blocking. `now`: seconds since 1970 UTC. Raises `Malformed`, `UnsupportedBody`, and `Invalid` with a row for
    every fault of what was posted."""
    if upload is None:
        return Request(_asked({}), None)
    if upload.kind != "json":
        raise UnsupportedBody("Send the payload with Content-Type: application/json.")
    _require_few(upload.content)
    body = _parsed(upload.content)
    is_long = len(upload.content) >= _LONG
    try:
        return _request(body, upload.content, now)
    except PricecacheError as exc:
        # the frames of a refusal hold what was refused, and are freed late, or never
        traceback.clear_frames(exc.__traceback__)
        is_long = True
        raise
    finally:
        if is_long:
            _let_go(body)


def _require_few(content: bytes) -> None:
    # each is a value or less, and takes a hundred bytes where it may be one in the text
    if sum(map(content.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise Invalid(f"The body has more than {MOST_VALUES:,} values.", code="too_many")


def _let_go(value: dict[str, Any] | list[Any], depth: int = 4) -> None:
    children = value.values() if isinstance(value, dict) else value if len(value) <= _MOST_PAGES else ()
    for child in children:
        if depth and isinstance(child, dict | list):
            _let_go(child, depth - 1)
    garbage.let_go(value)


def _request(body: dict[str, Any], content: bytes, now: float) -> Request:
    asked = _asked({name: body.pop(name) for name in _OURS if name in body})
    named = {name: body.pop(name) for name in ("plaid", "broker") if name in body}
    if len(named) > 1 or (named and body) or (asked.connection_id is not None and (named or body)):
        raise Invalid("Send one payload, or name a connection.", code="ambiguous_payload")
    kind, payload = next(iter(named.items()), (_kind_of(body), body))
    if kind is None:
        return Request(asked, None)
    if not isinstance(payload, dict):
        raise _no_object(kind, f"{kind} is an object.")
    day = plaids_day(now) if kind == "plaid" else int(now // DAY_SECONDS)
    data, name = _plaid(payload, day) if kind == "plaid" else _neutral(payload, day)
    digest = hashlib.sha256(f"{day} {kind} ".encode() + content).hexdigest()
    return Request(asked, Posted(data, name, digest))


def _kind_of(body: Mapping[str, Any]) -> str | None:
    if not body:
        return None
    if "asOf" not in body and ("investment_transactions" in body or _has_plaids_accounts(body)):
        return "plaid"
    if "asOf" in body or "accounts" in body:
        return "broker"
    name = min(body)[:64]
    raise Invalid(f"There is no field {name}: send plaid, broker, connectionId, or nothing.", code="unknown_field")


def _has_plaids_accounts(body: Mapping[str, Any]) -> bool:
    listed = [body[name] for name in ("accounts", "holdings") if isinstance(body.get(name), list)]
    return any(isinstance(one, dict) and "account_id" in one for several in listed for one in several)


def _plaid(payload: Mapping[str, Any], day: int) -> tuple[BrokerData, str]:
    """`payload`: one object with everything, or `holdings` and `transactions` as Plaid answered them, the latter one
    page or a list of them."""
    item = payload.get("item")
    listed: list[Any]
    held, pages = payload.get("holdings"), payload.get("transactions")
    if isinstance(held, dict):
        item = item or held.get("item")
        listed = pages if isinstance(pages, list) else [pages] if "transactions" in payload else []
        for number, page in enumerate(listed):
            if not isinstance(page, dict):
                path = f"transactions[{number}]" if isinstance(pages, list) else "transactions"
                raise _no_object(path, "A page of transactions is an object.")
        given: tuple[Mapping[str, Any], list[Mapping[str, Any]]] = held, listed
    else:
        given = payload, [payload]
    name = item.get("institution_name") if isinstance(item, dict) else None
    institution = name[:200] if isinstance(name, str) and name.strip() else None
    return read_plaid(*given, today=day, institution=institution), PLAIDS


def _no_object(path: str, detail: str) -> Invalid:
    return Invalid(detail, code="invalid_value", rows=[{"path": path, "code": "invalid_value", "detail": detail}])


def _neutral(payload: Mapping[str, Any], day: int) -> tuple[BrokerData, str]:
    source = payload.get("source")
    name = source.strip()[:64] if isinstance(source, str) and source.strip() else UNNAMED
    return read_neutral(payload, today=day, scope=scope_of(name)), name


def _asked(given: Mapping[str, Any]) -> Asked:
    try:
        return Asked.model_validate(given)
    except ValidationError as exc:
        raise invalid_input(exc, "body") from exc


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Malformed(f"The body is not UTF-8: byte {exc.start} cannot be read.", code="bad_encoding") from exc
    try:
        found = _loaded(text)
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"The body is no JSON: {exc}"[:200], code="malformed_json") from exc
    if not isinstance(found, dict):
        raise Invalid("The body is an object.", code="invalid_value")
    return found


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_object)
    except InvalidOperation:
        return json.loads(text, parse_float=_decimal, parse_constant=_no_number, object_pairs_hook=_object)


def _decimal(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent that is too long: refused by what it says
        return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As it is Python's, other threads get their turn while a long text is read."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice[:64]} stands twice in one object")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
