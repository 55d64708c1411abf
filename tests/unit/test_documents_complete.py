"""What there is stands in the manual: settings, endpoints, metrics, jobs, codes, commands, lines of the log."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from pricecache.api import wire
from pricecache.api.routes import ROUTES
from pricecache.cli import main
from pricecache.client import ClientSettings
from pricecache.core.coverage import Absence
from pricecache.settings import Settings, variable_of
from tests import documents
from tests.documents import DOCUMENTS, MANUAL, README, ROOT

TEXT = MANUAL.read_text()
ENTRANCES = ("pricecache.__main__", "pricecache.daemon", "pricecache.calendars")
"""What is run, or imported by its name, so that an import statement leads to everything else that is in use."""
OURS = re.compile(r"127\.0\.0\.1|localhost|([\w-]+\.)*(example|test|invalid)|([\w-]+\.)*example\.(com|org|net)")
STRANGERS = re.compile(r"(?<![\w.])/(home|root|Users|work|mnt|workspace)/")


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def modules() -> list[Path]:
    """Those that a daemon or a command may load. What nothing leads to yet has no users either."""
    files = {module_name(path): path for path in (ROOT / "pricecache").rglob("*.py")}
    found, ahead = set[str](), list(ENTRANCES)
    while ahead:
        name = ahead.pop()
        if name in files and name not in found:
            found.add(name)
            ahead += imported_by(files[name])
    return sorted(files[name] for name in found)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported_by(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = modules()


def text_of(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def codes_in(path: Path) -> Iterator[str]:
    """Of errors, of rows of input, of what verifying finds: wherever a literal becomes a `code`."""
    for node in nodes(path):
        found: list[ast.AST | None] = []
        if isinstance(node, ast.keyword) and node.arg == "code":
            found = [node.value]
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "code" for t in node.targets):
            found = [*ast.walk(node.value)]
        elif isinstance(node, ast.Dict):
            found = [value for key, value in zip(node.keys, node.values, strict=True) if text_of(key) == "code"]
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = {"PydanticCustomError": 0, "_fault": 1, "problem_fields": 1, "_query_row": 1, "_check_text": 2}
            found = [*node.args[place[name] : place[name] + 1]] if name in place else []
        yield from (code for item in found if (code := text_of(item)))


def codes() -> list[str]:
    from pricecache.core import doubt, plausibility
    from pricecache.core.walk import findings

    found = {code for path in MODULES for code in codes_in(path)}
    return sorted(found | set(wire._CODES.values()) | set(plausibility._DETAILS) | set(doubt._DETAILS) | findings.CODES)


def events() -> list[str]:
    """What the log says at level warning and above."""
    found = set()
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.Call) and node.args and (event := text_of(node.args[0])):
                by_method = isinstance(node.func, ast.Attribute) and node.func.attr in ("warning", "error", "exception")
                logger = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
                if (by_method and logger in ("log", "_log", "_log()")) or ast.unparse(node.func) in ("tell", "say"):
                    found.add(event)
    return sorted(found)


def job_ids() -> list[str]:
    found = []
    for file in sorted((ROOT / "pricecache" / "parts").glob("*.py")):
        module = import_module(f"pricecache.parts.{file.stem}" if file.stem != "__init__" else "pricecache.parts")
        for node in nodes(file):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "JobDefinition":
                found.append(text_of(node.args[0]) or getattr(module, ast.unparse(node.args[0])))
    return found


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", [variable_of(k, n) for k in (Settings, ClientSettings) for n in k.model_fields])
def test_every_setting_stands_in_the_manual(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_endpoint_stands_in_the_manual_with_an_example(route: documents.Route) -> None:
    assert f"`{route.method} {route.path}`" in TEXT
    path = re.sub(r"\\\{\w+\\\}", r"[^/\\s'?]+", re.escape(route.path))
    method = rf"-X {route.method} .*" if route.method != "GET" else ""
    pattern = re.compile(rf"^curl .*{method}http://127\.0\.0\.1:8080{path}(['?\s]|$)")
    commands = [e.command for b in documents.blocks(MANUAL) if b.language == "console" for e in b.examples]
    commands += [inner for c in commands for inner in re.findall(r"\$\((curl [^|)]*)", c)]
    named = [c for c in commands if pattern.search(c) and (method or not re.search(r"-X (POST|PUT|DELETE)", c))]
    assert named, f"no example calls {route.method} {route.path}"


def test_every_part_that_is_generated_is_as_the_code_has_it() -> None:
    """When this fails: .venv/bin/python -m tests.documents"""
    for name in documents.generated():
        assert f"<!-- generated: {name} -->\n" in TEXT or "/docs/{name}" in name or name == "GET /"
    assert documents.regenerated(TEXT) == TEXT


@pytest.mark.parametrize("name", [name for name, *_ in documents.all_metrics()])
def test_every_metric_stands_in_the_manual(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("job", job_ids())
def test_every_job_stands_in_the_manual(job: str) -> None:
    assert re.search(rf"^\| `{job}` \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize("code", codes())
def test_every_code_stands_in_the_manual(code: str) -> None:
    assert re.search(rf"^\|.*`{code}`.*\|", TEXT, re.MULTILINE)


def test_the_manual_has_the_status_of_each_code_that_has_a_class_of_its_own() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", TEXT, re.MULTILINE)
    told = {code: int(status) for status, cell in rows for code in re.findall(r"`(\w+)`", cell)}
    for family, status in wire._STATUS:
        assert told.get(family.code, status) == status


@pytest.mark.parametrize("absence", get_args(Absence))
def test_every_class_of_absence_stands_in_the_manual(absence: str) -> None:
    assert re.search(rf"^\| `{absence}` \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize("event", events())
def test_every_line_of_the_log_that_warns_stands_in_the_manual(event: str) -> None:
    assert f"`{event}`" in TEXT


def test_every_alert_stands_in_the_manual() -> None:
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "deploy" / "prometheus-rules.yaml").read_text())
    assert alerts
    assert [alert for alert in alerts if f"| {alert} |" not in TEXT] == []


def test_every_command_and_its_options_stand_in_the_manual(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^    (\w+)  ", help_of(capsys), re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        assert f"| `pricecache {command}` |" in TEXT
        for option in re.findall(r"--[a-z-]+", help_of(capsys, command)):
            assert option == "--help" or option in TEXT, f"{command} {option}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(path: Path) -> None:
    for link in documents.links(path):
        if re.match(r"https?:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), link
        assert not anchor or anchor in documents.anchors(found), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_document_names_a_host_or_a_home_of_somebody(path: Path) -> None:
    text = path.read_text()
    hosts = [host.rpartition("@")[2] for host in re.findall(r"\b[a-z]+://([\w.@:%-]+)", text)]
    strange = [host for host in hosts if not OURS.fullmatch(re.sub(r":\d+$", "", host.rstrip(".:")))]
    assert strange == []
    assert STRANGERS.findall(text) == []


@pytest.mark.parametrize(
    ("shown", "answered", "told"),
    [
        ('{"a": 1, "b": null}', '{"a": 2.5, "b": "x"}', False),
        ('{"a": 1, ...}', '{"a": 2, "b": 3}', False),
        ('{"a": [{"b": 1}, ...]}', '{"a": [{"b": 2}, {"b": 3}]}', False),
        ('{"holes": {"pending": 1}}', '{"holes": {}}', False),
        ('{"missing": [{"b": 1}]}', '{"missing": []}', False),
        ('{"a": [{"b": 1}]}', '{"a": []}', True),
        ('{"a": 1}', "null", True),
        ('{"a": 1}', '{"a": 2, "b": 3}', True),
        ('{"a": 1, "b": 2}', '{"a": 1}', True),
        ('{"a": 1}', '{"a": "1"}', True),
        ('{"a": [{"b": 1}]}', '{"a": [{"c": 1}]}', True),
        ('{"code": "x"}', "no JSON", True),
        ("HTTP/1.1 200 OK\nETag: x", "HTTP/1.1 200 OK\r\netag: y\r\nDate: z\r\n\r\n", False),
        ("HTTP/1.1 200 OK\nETag: x", "HTTP/1.1 304 Not Modified\r\netag: y\r\n\r\n", True),
        ("date,close\n2026-01-02,1.5\n...", "date,close\n2025-03-04,22.25\n2025-03-05,1.5\n", False),
        ("date,close\n2026-01-02,1.5", "date,open,close\n2025-03-04,1.5,22.25\n", True),
    ],
)
def test_an_answer_of_another_shape_than_the_document_shows_is_told(shown: str, answered: str, told: bool) -> None:
    assert bool(documents.differences(shown, answered)) is told


def test_the_readme_leads_to_the_manual_and_to_the_architecture() -> None:
    assert {"HISTORICAL_PRICE_CACHING.md", "docs/architecture.md"} <= set(documents.links(README))
