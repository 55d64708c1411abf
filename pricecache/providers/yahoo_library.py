"""Loads the yfinance library and what it brings along, in one order and by one thread at a time."""

from __future__ import annotations

import importlib
import threading
from types import ModuleType

LIBRARY = "yfinance"

_loading = threading.Lock()


def loaded(*names: str) -> list[ModuleType]:
    """The modules of these names. Thread-safe.

    The library imports its own parts while it is imported. A thread that asks for such a part and one that asks for
    the library wait for each other then, and Python ends that by giving one of them a module that is not finished.
    """
    with _loading:
        importlib.import_module(LIBRARY)
        return [importlib.import_module(name) for name in names]
