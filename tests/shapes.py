"""Whether an answer has a shape that the OpenAPI document gives its endpoint, and nothing that the document hides."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from pricecache.api.openapi import openapi_document
from pricecache.api.routes import ROUTES

DOCUMENT = openapi_document(ROUTES)


def faults(path: str, answer: Any, *, method: str = "get", status: int = 200) -> list[str]:
    """Of the JSON that it answered; none when one of its shapes is that of the answer."""
    content = DOCUMENT["paths"][path][method]["responses"][str(status)]["content"]
    schema = content["application/json"]["schema"]
    return min((_faults_of(one, answer) for one in schema.get("anyOf", [schema])), key=len)


def _faults_of(schema: dict[str, Any], answer: Any) -> list[str]:
    return _broken(schema, answer) or _hidden(schema, answer, "$")


def _broken(schema: dict[str, Any], answer: Any) -> list[str]:
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(answer)]


def _hidden(schema: dict[str, Any], answer: Any, place: str) -> list[str]:
    """Fields of objects that the schema says nothing of."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        fitting = [one for one in schema["anyOf"] if not _broken(one, answer)]
        return min((_hidden(one, answer, place) for one in fitting), key=len, default=[])
    if isinstance(answer, list):
        return [told for at, one in enumerate(answer) for told in _hidden(schema["items"], one, f"{place}[{at}]")]
    if not isinstance(answer, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    told = [f"{place}.{name}: is not documented" for name in sorted(answer.keys() - known.keys())]
    both = sorted(answer.keys() & known.keys())
    return told + [fault for name in both for fault in _hidden(known[name], answer[name], f"{place}.{name}")]
