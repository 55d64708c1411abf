"""The documents as tests read them: their examples, what these answer, their links, and the tables made from the code.

`python -m tests.documents` writes the generated parts of the manual anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from pricecache.api.openapi import OWNER_TOO
from pricecache.api.routes import ROUTES
from pricecache.api.routing import Route
from pricecache.client import ClientSettings
from pricecache.metrics import Metrics
from pricecache.settings import Settings, variable_of

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MANUAL = ROOT / "HISTORICAL_PRICE_CACHING.md"
DOCUMENTS = [README, MANUAL, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BASE_URL = "http://127.0.0.1:8080"

ELIDED = "..."
OPEN_MAPS = frozenset(
    {"byCode", "byState", "closed", "counts", "divergences", "errorsByCode24h", "holes", "parameters"}
)
"""Members whose keys are names that depend on what happened: only their values have a shape."""
MAY_BE_EMPTY = frozenset({"missing"})
"""Arrays that have nothing in them on some days of the week."""


# --- examples


@dataclass(frozen=True)
class Example:
    """A command and the answer shown below it, "" when none is."""

    command: str
    answer: str


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and the number of its first line.

    `daemon`: whom its commands ask, as a comment `<!-- daemon: NAME -->` on the line above says; "" is one on sample
    prices.
    """

    path: Path
    line: int
    language: str
    text: str
    daemon: str = ""

    @property
    def name(self) -> str:
        return f"{self.path.name}:{self.line}"

    @property
    def examples(self) -> list[Example]:
        """Commands follow `$ ` in a `console` block and are lines of an `sh` block; a backslash at the end goes on."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        if self.language == "sh":
            return [Example(line, "") for line in joined.splitlines() if line.strip() and not line.startswith("#")]
        parts = re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]
        return [Example(command.strip(), answer.strip()) for command, _, answer in (p.partition("\n") for p in parts)]

    @property
    def is_runnable(self) -> bool:
        """Whether it talks to a daemon that runs. One that starts a daemon of its own is for a person to try."""
        asks = self.language == "console" or (self.language == "sh" and "curl " in self.text)
        return asks and "pricecache serve" not in self.text


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a document."""
    found, lines = [], path.read_text().splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if line.startswith("```"):
            if opened is None:
                opened = number
            else:
                text = "\n".join(lines[opened + 1 : number])
                asked = re.fullmatch(r"<!-- daemon: (.+) -->", lines[opened - 1]) if opened else None
                daemon = "" if asked is None else asked[1]
                found.append(Block(path, opened + 2, lines[opened][3:].strip(), text, daemon))
                opened = None
    return found


def run(block: Block, url: str, folder: Path, **variables: str) -> list[str]:
    """Run the commands of a block in one shell, in `folder`, against the daemon at `url`; what each of them printed.

    Without jq on PATH the commands that end in it are run without, and what needs it inside a command is skipped.
    Without curl everything is skipped, and fails in CI.
    """
    if shutil.which("curl") is None:
        reason = "curl is not installed, so the examples of the documents cannot be run (apt-get install curl)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    commands = [example.command for example in block.examples]
    if shutil.which("jq") is None:
        commands = [re.sub(r" \| jq( '[^']*'| [^\s')]+)?$", "", command) for command in commands]
        if any("| jq" in command for command in commands):
            pytest.skip("jq is not installed, and this example is built on it (apt-get install jq)")
    script = ["set -o pipefail", f'pricecache() {{ "{sys.executable}" -m pricecache "$@"; }}']
    script += [f"{command}\nprintf '\\036%s\\036' $?" for command in commands]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PRICECACHE_URL": url,
        "NO_PROXY": "*",
        **variables,
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script).replace(BASE_URL, url)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    printed = done.stdout.split("\036")
    failed = [c for c, code in zip(commands, printed[1::2], strict=False) if code != "0"]
    assert not failed, f"{failed} failed: {done.stderr}\n{done.stdout}"
    assert len(printed) == 2 * len(commands) + 1, done.stderr
    return printed[:-1:2]


def check_block(block: Block, url: str, folder: Path, **variables: str) -> None:
    """Run a block, and hold each answer that it shows against the one that came, by shape."""
    answers = run(block, url, folder, **variables)
    jq_is_missing = shutil.which("jq") is None
    for example, answer in zip(block.examples, answers, strict=True):
        if example.answer and not (jq_is_missing and "| jq" in example.command):
            found = differences(example.answer, answer)
            assert not found, f"{block.name}: {example.command}\n" + "\n".join(found) + f"\nit answered\n{answer}"


# --- shapes


def differences(shown: str, answered: str) -> list[str]:
    """What differs in shape between an answer in a document and a real one.

    JSON: the same keys with values of the same types, where null goes with anything; `...` at the end of an object or
    an array stands for more, and an array that shows an item has some. Heads of HTTP answers: the same status, and
    every header shown. Other text: every line shown, numbers aside.
    """
    if shown.startswith("HTTP/"):
        return _head_differences(shown, answered)
    try:
        expected = json.loads(re.sub(r"\.\.\.\s*(?=\])", '"..."', re.sub(r"\.\.\.\s*(?=\})", '"...": 0', shown)))
    except ValueError:
        return _text_differences(shown, answered)
    try:
        real = json.loads(answered)
    except ValueError as exc:
        return [f"the answer is no JSON: {exc}"]
    if real is None and expected is not None:
        return ["the answer is null"]
    return list(_json_differences(expected, real, "$"))


def _head_differences(shown: str, answered: str) -> list[str]:
    (head, _, body), (real_head, _, real_body) = (
        text.replace("\r", "").strip().partition("\n\n") for text in (shown, answered)
    )
    (status, *headers), (real_status, *real_headers) = head.splitlines(), real_head.splitlines()
    found = [] if status == real_status else [f"{status!r} became {real_status!r}"]
    names = {header.partition(":")[0].lower() for header in real_headers}
    found += [f"no header {h}" for h in headers if h != ELIDED and h.partition(":")[0].lower() not in names]
    return found + (differences(body, real_body) if body.strip() not in ("", ELIDED) else [])


def _text_differences(shown: str, answered: str) -> list[str]:
    real = {_skeleton(line) for line in answered.splitlines()}
    return [f"no line like {line!r}" for line in shown.splitlines() if line != ELIDED and _skeleton(line) not in real]


def _skeleton(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "0", line)).strip()


def _json_differences(shown: Any, real: Any, at: str) -> Iterator[str]:
    if shown is None or real is None:
        return
    if _kind(shown) != _kind(real):
        yield f"{at} is {_kind(shown)} in the document and {_kind(real)} in the answer"
    elif isinstance(shown, dict):
        yield from _object_differences(shown, real, at)
    elif isinstance(shown, list):
        items = [item for item in shown if item != ELIDED]
        if items and not real and at.rpartition(".")[2] not in MAY_BE_EMPTY:
            yield f"{at} is empty in the answer"
        for number, item in enumerate(items):
            if real:
                yield from _json_differences(item, real[min(number, len(real) - 1)], f"{at}[{number}]")


def _object_differences(shown: dict[str, Any], real: dict[str, Any], at: str) -> Iterator[str]:
    if at.rpartition(".")[2] in OPEN_MAPS:
        return
    for key in shown.keys() - real.keys() - {ELIDED}:
        yield f"{at}.{key} is not in the answer"
    if ELIDED not in shown:
        for key in real.keys() - shown.keys():
            yield f"{at}.{key} is not in the document"
    for key in shown.keys() & real.keys():
        yield from _json_differences(shown[key], real[key], f"{at}.{key}")


def _kind(value: Any) -> str:
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "an array", dict: "an object"}
    return kinds[type(value)]


# --- links


def links(path: Path) -> list[str]:
    """Targets of the links of a document, code aside."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(path: Path) -> set[str]:
    """What a link into a document may name: its headings, as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


# --- what is generated


def generated() -> dict[str, Callable[[], str]]:
    """The generated parts of the manual by the name in their marker `<!-- generated: NAME -->`."""
    parts: dict[str, Callable[[], str]] = {
        "settings": lambda: _settings_table(Settings),
        "client settings": lambda: _settings_table(ClientSettings),
        "metrics": _metrics_table,
        "endpoints": _endpoints_table,
    }
    for route in ROUTES:
        parts[f"{route.method} {route.path}"] = lambda route=route: _parameters(route)  # type: ignore[misc]
    return parts


def regenerated(text: str) -> str:
    """The manual with every generated part as the code has it now."""
    for name, make in generated().items():
        begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}{make()}{end}{rest.partition(end)[2]}"
    return text


def all_metrics() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name, type, labels and meaning of every metric that a scrape may show."""
    return [(d.name, d.kind, d.labels, d.help) for d in Metrics("0").describe()]


def _metrics_table() -> str:
    rows = [(f"`{n}`", kind, ", ".join(labels) or "", text) for n, kind, labels, text in all_metrics()]
    return _table(("metric", "type", "labels", "meaning"), rows)


def _settings_table(kind: type[BaseSettings]) -> str:
    rows = [
        (f"`{variable_of(kind, name)}`", _default(field), field.description or "")
        for name, field in kind.model_fields.items()
    ]
    return _table(("setting", "default", "meaning"), rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == ():
        return "(none)"
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _endpoints_table() -> str:
    rows = [(f"`{route.method} {route.path}`", _scope(route), route.summary) for route in ROUTES]
    return _table(("endpoint", "scope", "what it is for"), rows)


def _scope(route: Route) -> str:
    return (route.scope or "(open)") + (", or the owner" if route.owner_may else "")


def _parameters(route: Route) -> str:
    own = OWNER_TOO if route.owner_may else ""
    said = f"Scope: {route.scope or 'none, it is open to everybody'}{own}."
    if route.body is not None and route.body_optional:
        said += " The body may be left out."
    rows = [*_fields(route.query, "query"), *_fields(route.body, "body")]
    table = "\n" + _table(("in", "name", "type", "default", "meaning"), rows) if rows else ""
    return f"{said}\n{table}"


def _fields(model: type[BaseModel] | None, part: str) -> Iterator[tuple[str, ...]]:
    if model is None:
        return
    schema = model.model_json_schema(by_alias=True)
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else _shown(field.get("default"))
        yield part, f"`{name}`", _type(field, schema.get("$defs", {})), default, field.get("description", "")


def _shown(default: Any) -> str:
    if default is None:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    inner = definitions[field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    if "properties" in inner:
        needed = inner.get("required", ())
        return "{" + ", ".join(n if n in needed else f"{n}?" for n in inner["properties"]) + "}"
    kinds = field.get("anyOf") or field.get("oneOf")
    if kinds:
        return " or ".join(dict.fromkeys(_type(kind, definitions) for kind in kinds if kind.get("type") != "null"))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), definitions)}"
    kind = {"string": "text"}.get(field.get("type", ""), field.get("type", "any"))
    if "patternProperties" in field:
        return "{name: text}"
    return {"date": "date", "date-time": "instant"}.get(field.get("format", "")) or kind + _limits(field)


def _limits(field: dict[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    return f", {low:g} to {high:g}" if low is not None and high is not None else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    MANUAL.write_text(regenerated(MANUAL.read_text()))
