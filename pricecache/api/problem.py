"""A problem as RFC 9457 says it: the one shape of every answer that is an error. Light: the door imports it first."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from aiohttp import web

SERVER = "pricecache"
CONTENT_TYPE = "application/problem+json"


def problem_fields(
    status: int, code: str, detail: str, *, instance: str = "", request_id: str | None = None, **more: Any
) -> dict[str, Any]:
    """The members of a problem in their usual order, `more` (camelCase keys) at the end."""
    fields: dict[str, Any] = {
        "type": f"urn:pricecache:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
    }
    if request_id is not None:
        fields["requestId"] = request_id
    return fields | more


def problem_response(fields: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    """The answer that carries `fields`. With `retryAfter` among them it has a Retry-After header too."""
    heads = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", "Server": SERVER}
    retry_after = fields.get("retryAfter")
    if retry_after is not None:
        heads["Retry-After"] = str(max(1, round(retry_after)))
    heads["X-Content-Type-Options"] = "nosniff"
    heads.update(headers or {})
    body = json.dumps(fields, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
    return web.Response(body=body, status=fields["status"], headers=heads)
