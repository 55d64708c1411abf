"""What whoever changes the code looks for in docs/architecture.md stands there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pricecache"
TEXT = (ROOT / "docs" / "architecture.md").read_text()
OF_COMMANDS = {"cli", "client", "commands", "doctor"}
"""Modules that run in another process than the daemon."""


def section(title: str) -> str:
    return re.split(r"^#+ ", TEXT.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def named(text: str) -> set[str]:
    return set(re.findall(r"`([\w-]+)`", text))


def background_tasks() -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / "daemon.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self.background.start":
            name = node.args[1]
            assert isinstance(name, ast.Constant)
            found.add(str(name.value))
    return found


def apart() -> Iterator[str]:
    """Exceptions of the daemon's that are no `PricecacheError`."""
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in OF_COMMANDS:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and "Exception" in map(ast.unparse, node.bases):
                    yield node.name


def test_every_background_task_is_listed() -> None:
    tasks = section("Start and stop").partition("Background tasks")[2].partition("\n\n")[0]
    assert len(background_tasks()) > 15
    assert background_tasks() - named(tasks) == set()


@pytest.mark.parametrize("room", ["api", "brokers"])
def test_every_module_is_put_under_a_subject(room: str) -> None:
    modules = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}
    assert modules - named(section(f"What is in {room}")) == set()


def test_every_exception_that_no_caller_sees_is_listed() -> None:
    assert set(apart()) - {"PricecacheError"} == named(section("Errors")) & set(apart())
