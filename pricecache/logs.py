"""Where log lines go and how they look: JSON for machines, key and value for a person at a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

_QUIET = {
    "aiohttp.access": logging.CRITICAL,
    "apscheduler": logging.WARNING,
    "asyncio": logging.WARNING,
    "peewee": logging.WARNING,
    "pymongo": logging.WARNING,
    "stamina": logging.CRITICAL,
    "urllib3": logging.WARNING,
    # A connection that breaks is told once, by who keeps it.
    "websockets": logging.CRITICAL,
    # It logs each failed symbol itself; ours are logged once, by who asked.
    "yfinance": logging.CRITICAL,
}


def configure(
    level: str = "info",
    format: Literal["auto", "json", "text"] = "auto",  # noqa: A002 - named as its setting is
    stream: TextIO | None = None,
) -> None:
    """Send the lines of this program and of its libraries to `stream` (standard error), from `level` up.

    `auto` is text when `stream` is a terminal, else JSON: one object a line, with `timestamp` in RFC 3339 and UTC.
    """
    stream = stream or sys.stderr
    text = format == "text" or (format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(shared, text, stream))
    _install(handler, level)


def _formatter(shared: list[Processor], text: bool, stream: TextIO) -> logging.Formatter:
    drop = ProcessorFormatter.remove_processors_meta
    if text:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        return ProcessorFormatter(foreign_pre_chain=shared, processors=[drop, renderer])
    return ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            drop,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ],
    )


def _install(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)


def _json(event: dict[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
