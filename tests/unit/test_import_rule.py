"""Imports point one way.

errors, clock ← core ← {providers, brokers, stores, cache} ← {sync, portfolio, realtime} ← {jobs, api} ← app ← cli
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pricecache"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "clock"}),
    frozenset({"core"}),
    frozenset({"calendars", "metrics", "logs", "loopwatch", "garbage", "background"}),
    frozenset({"providers", "brokers", "stores", "cache"}),
    frozenset({"sync", "portfolio", "realtime"}),
    frozenset({"health", "jobs", "api"}),
    frozenset({"app", "daemon", "parts", "vendors", "offline"}),
    frozenset({"cli", "commands", "client", "display", "doctor", "__main__"}),
)
"""Rooms and top-level modules, innermost first. A room may import from itself, its own layer and those before it."""

LEAVES = frozenset({"metrics", "logs", "loopwatch", "garbage", "background"})
"""Modules that may import nothing of ours but the clock, and that core may not see."""

APART = {
    "stores": {"providers", "brokers", "cache"},
    "providers": {"stores", "cache", "brokers"},
    "brokers": {"stores", "cache", "providers"},
    "cache": {"providers", "brokers"},
    "portfolio": {"realtime"},
    "sync": {"realtime"},
}
"""Rooms of one layer that may not see each other."""

ONLY_FOR = {
    "settings": {"app", "daemon", "parts", "vendors", "offline", "cli", "doctor"},
    "logs": {"app", "daemon", "cli"},
    "commands": {"cli"},
    "doctor": {"cli"},
}
"""Modules that only some may import."""

HEAVY = frozenset(
    {
        *("pandas", "yfinance", "scipy", "exchange_calendars", "pyarrow", "bokeh_sampledata", "fiftyone"),
        *("plaid", "rapidfuzz"),
    }
)
"""Vendor packages that are imported inside functions only, off the start path."""

IMPURE = frozenset(
    {
        *("asyncio", "concurrent", "multiprocessing", "selectors", "signal", "subprocess", "threading"),
        *("http", "logging", "os", "random", "shutil", "socket", "ssl", "tempfile", "time", "urllib"),
    }
)
"""What core may not use of the standard library: it knows no clock, no thread, no environment, no network."""


@dataclass(frozen=True)
class Import:
    """`module` imports `target`; `nested` is true when it does so inside a function."""

    module: str
    target: str
    line: int
    nested: bool

    def __str__(self) -> str:
        return f"{self.module} line {self.line} imports {self.target}"


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name under it; `__init__` files by the name of their folder."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def imports() -> Iterator[Import]:
    for module, file in modules().items():
        yield from _imports_in(module, tree(file), nested=False)


def _imports_in(module: str, node: ast.AST, *, nested: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, nested)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module} line {child.lineno}: imports are absolute"
            for alias in child.names:
                yield Import(module, f"{child.module}.{alias.name}", child.lineno, nested)
        within = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports_in(module, child, nested=nested or within)


def room(module: str) -> str:
    return module.partition(".")[0]


def layer(name: str) -> int | None:
    return next((number for number, rooms in enumerate(LAYERS) if name in rooms), None)


def ours(target: str) -> str | None:
    """The module of ours that `target` is or is a name in; None for anybody else's."""
    if not target.startswith("pricecache."):
        return None
    name = target.removeprefix("pricecache.")
    known = modules()
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def our_imports() -> Iterator[tuple[Import, str]]:
    for found in imports():
        if (target := ours(found.target)) is not None:
            yield found, target


def report(faults: list[str]) -> None:
    assert not faults, "\n" + "\n".join(faults)


def test_every_module_belongs_to_a_layer() -> None:
    report([name for name in modules() if name not in ("", "settings") and layer(room(name)) is None])


def test_imports_point_inward() -> None:
    faults = []
    for found, target in our_imports():
        importer, imported = layer(room(found.module)), layer(room(target))
        if importer is not None and imported is not None and imported > importer:
            faults.append(f"{found}: {room(target)} lies further out than {room(found.module)}")
    report(faults)


def test_rooms_side_by_side_keep_apart() -> None:
    report([str(found) for found, target in our_imports() if room(target) in APART.get(room(found.module), ())])


def test_leaves_import_nothing_of_ours_but_the_clock() -> None:
    report([str(found) for found, target in our_imports() if room(found.module) in LEAVES and target != "clock"])


def test_settings_and_logs_are_for_the_outside_only() -> None:
    report(
        [
            f"{found}: only {', '.join(sorted(ONLY_FOR[target]))} may"
            for found, target in our_imports()
            if target in ONLY_FOR and not {found.module, room(found.module)} & (ONLY_FOR[target] | {target})
        ]
    )


def chamber(module: str) -> str:
    """The folder within its room that `module` is in (`core.walk`); itself where it is in none."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else module


def test_there_are_no_import_cycles() -> None:
    fail_on_cycle({(found.module, target) for found, target in our_imports()})


def test_folders_within_a_room_have_no_import_cycles() -> None:
    fail_on_cycle({(chamber(found.module), chamber(target)) for found, target in our_imports()})


def fail_on_cycle(pairs: set[tuple[str, str]]) -> None:
    edges: dict[str, set[str]] = defaultdict(set)
    for importer, imported in pairs:
        if importer != imported:
            edges[importer].add(imported)
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            pytest.fail(" imports ".join((*path[path.index(name) :], name)))
        if name not in done:
            for target in sorted(edges.get(name, ())):
                walk(target, (*path, name))
            done.add(name)

    for name in sorted(edges):
        walk(name, ())


def test_core_knows_only_the_pure_standard_library_numpy_and_errors() -> None:
    allowed = (sys.stdlib_module_names - IMPURE) | {"numpy", "pyxirr", "scipy"}
    faults = []
    for found in imports():
        if room(found.module) == "core":
            target = ours(found.target)
            mine = target is not None and room(target) in ("core", "errors")
            if not mine and found.target.partition(".")[0] not in allowed:
                faults.append(str(found))
    report(faults)


def test_heavy_vendor_packages_are_imported_inside_functions_only() -> None:
    report([str(found) for found in imports() if found.target.partition(".")[0] in HEAVY and not found.nested])


def test_init_files_export_nothing() -> None:
    faults = []
    for name, file in modules().items():
        if file.name == "__init__.py" and name and any(not _is_docstring(node) for node in tree(file).body):
            faults.append(str(file.relative_to(ROOT)))
    report(faults)


def test_the_package_itself_names_its_version_and_nothing_else() -> None:
    assert [ast.unparse(node.targets[0]) for node in tree(PACKAGE / "__init__.py").body if _assigns(node)] == [
        "__version__"
    ]
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree(PACKAGE / "__init__.py").body)


def test_every_module_says_its_job_first() -> None:
    report(
        [
            str(file.relative_to(ROOT))
            for file in modules().values()
            if file.name != "__init__.py" and not ast.get_docstring(tree(file))
        ]
    )


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}
    report([name for name in modules() if drawers & set(name.replace(".", "_").split("_"))])


def test_the_search_sees_nested_and_type_checking_imports() -> None:
    source = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nasync def f():\n    from b import c, d\n"
    )
    found = list(_imports_in("x", ast.parse(source), nested=False))
    assert [(one.target, one.nested) for one in found] == [
        ("typing.TYPE_CHECKING", False),
        ("a", False),
        ("b.c", True),
        ("b.d", True),
    ]


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _assigns(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign)
