"""The OpenAPI 3.1 document, made from the same table of routes that requests are matched and checked by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import pricecache
from pricecache.api.answers import Problem
from pricecache.api.problem import CONTENT_TYPE
from pricecache.api.uploads import FORM, PART

if TYPE_CHECKING:
    from pricecache.api.routing import Answered, Route

_REFERENCE = "#/components/schemas/{model}"
_SECURITY = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "Scopes read, ops, admin."},
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "sub is the user."},
    "session": {"type": "apiKey", "in": "cookie", "name": "pricecache_session"},
}
_PATH_PARAMETERS = {
    "symbol": "Such as AAPL, BRK-B, ^GSPC or EURUSD=X; SAP:DE names its market too.",
    "id": "As it was given when the thing was made.",
    "name": "Name of the file.",
    "accountId": "As it was given when the account was made.",
    "transactionId": "As it was given when the transaction was put in.",
    "orderId": "What the system that reports the order calls it.",
    "period": "1W, 1M, 3M, 6M, 1Y, 2Y, 5Y, YTD or MAX.",
}


def openapi_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document for `routes`, with a schema for every model they name."""
    wanted: dict[tuple[type[BaseModel], str], None] = {(Problem, "serialization"): None}
    for route in routes:
        wanted |= {(model, "validation"): None for model in (route.query, route.body) if model is not None}
        models = [one for shapes in route.answers.values() for one in _listed(shapes) if not isinstance(one, str)]
        wanted |= {(model, "serialization"): None for model in models}
    references, definitions = models_json_schema(list(wanted), ref_template=_REFERENCE)  # type: ignore[arg-type]
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references, definitions["$defs"])
    queries = {route.query.__name__ for route in routes if route.query is not None}
    schemas = {name: schema for name, schema in definitions["$defs"].items() if name not in queries}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pricecache",
            "version": pricecache.__version__,
            "description": "Market prices kept whole. Errors are problems as of RFC 9457, with a stable code.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
        "tags": [{"name": name} for name in dict.fromkeys(tag for route in routes for tag in route.tags)],
    }


OWNER_TOO = ", or user for an instrument of the user's own"


def _operation(route: Route, references: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{_identifier(route.path)}",
        "summary": route.summary,
        "tags": list(route.tags),
        "parameters": [*_in_path(route.path), *_in_query(route.query, definitions)],
        "responses": _responses(route, references),
        "security": _security(route),
    }
    if route.scope is not None:
        operation["description"] = f"Scope: {route.scope}{OWNER_TOO if route.owner_may else ''}."
    if route.body is not None:
        schema = references[route.body, "validation"]
        content = {"application/json": {"schema": schema}}
        if route.takes_file:
            file = {"type": "object", "properties": {PART: {"type": "string", "format": "binary"}}, "required": [PART]}
            content |= {"text/csv": {"schema": {"type": "string"}}, FORM: {"schema": file}}
        operation["requestBody"] = {"required": not route.body_optional, "content": content}
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.scope is None:
        return [{}]
    names = ["apiKey", "bearer", "session"] if route.scope in ("read", "user") or route.owner_may else ["apiKey"]
    return [{name: []} for name in names]


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in names
    ]


def _in_query(model: type[BaseModel] | None, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = definitions[model.__name__]
    required = set(schema.get("required", ()))
    return [_parameter(name, dict(facts), name in required) for name, facts in schema["properties"].items()]


def _parameter(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    parameter = {"name": name, "in": "query", "required": required}
    if description := schema.pop("description", None):
        parameter["description"] = description
    choices = [choice for choice in schema.pop("anyOf", ()) if choice != {"type": "null"}]
    if choices:
        schema |= choices[0]
    schema.pop("title", None)
    if schema.get("default", ...) is None:
        del schema["default"]
    if schema.get("type") == "array":
        parameter |= {"style": "form", "explode": False}
    return {**parameter, "schema": schema}


def _responses(route: Route, references: Any) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, shapes in route.answers.items():
        models = [references[one, "serialization"] for one in _listed(shapes) if not isinstance(one, str)]
        content: dict[str, Any] = {
            one: {"schema": {"type": "string"}} for one in _listed(shapes) if isinstance(one, str)
        }
        if models:
            schema = models[0] if len(models) == 1 else {"anyOf": models}
            content = {"application/json": {"schema": schema}, **content}
        responses[str(status)] = {"description": "As described.", "content": content}
    problem = {CONTENT_TYPE: {"schema": references[Problem, "serialization"]}}
    responses["default"] = {"description": "A problem, with its code.", "content": problem}
    return responses


def _listed(shapes: Answered | tuple[Answered, ...]) -> tuple[Answered, ...]:
    return shapes if isinstance(shapes, tuple) else (shapes,)


def _identifier(path: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in path.strip("/")).strip("_") or "start"
