"""Logging belongs to the process: what a test sets up is taken down again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback


def print_plainly() -> None:
    """What tests let through shows a failure as Python does. structlog's own way, with rich and the value of every
    variable, takes a tenth of a second for each, on the loop whose stalls are measured."""
    *others, _ = structlog.get_config()["processors"]
    structlog.configure(processors=[*others, ConsoleRenderer(colors=False, exception_formatter=plain_traceback)])


@contextmanager
def logging_as_before() -> Iterator[None]:
    """On leaving, the handlers and levels of all loggers, and structlog's settings, are what they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in list(root.manager.loggerDict)}
    try:
        yield
    finally:
        structlog.reset_defaults()
        print_plainly()
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in list(root.manager.loggerDict):
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
