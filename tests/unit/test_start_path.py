"""What is loaded before the daemon is ready: nothing that takes a tenth of a second and is not needed yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_EVERYTHING = """
import importlib, pkgutil, sys
import pricecache
for module in pkgutil.walk_packages(pricecache.__path__, "pricecache."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sys.modules)
"""


def loaded_by(program: str) -> set[str]:
    """Names of the top-level packages that are loaded in a new interpreter once `program` has run."""
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return {name.partition(".")[0] for name in answer.stdout.split()}


@pytest.fixture(scope="module")
def everything() -> set[str]:
    """Every module of ours is imported: more than the daemon needs until it is ready, and never less."""
    return loaded_by(_EVERYTHING)


@pytest.mark.parametrize(
    "package",
    ["pandas", "yfinance", "scipy", "exchange_calendars", "pyarrow", "bokeh_sampledata", "curl_cffi", "fiftyone"],
)
def test_no_module_of_ours_loads(everything: set[str], package: str) -> None:
    assert package not in everything


def test_the_command_line_loads_the_standard_library_only() -> None:
    """`serve` goes straight from here to the composition root, which binds the port before it loads anything else."""
    program = "import sys; before = set(sys.modules); import pricecache.cli as c; c._parser(); print(*sys.modules)"
    foreign = loaded_by(program) - set(sys.stdlib_module_names) - {"pricecache", "__main__"}
    # what an editable install hooks into every interpreter is there before any program of ours
    assert foreign <= loaded_by("import sys; print(*sys.modules)")


def test_the_command_line_keeps_away_from_asyncio_and_the_network() -> None:
    program = "import sys; import pricecache.cli as c; c._parser(); print(*sys.modules)"
    assert not loaded_by(program) & {"asyncio", "http", "socket", "logging"}
