"""Log lines: JSON for machines, text at a terminal, libraries held back."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from pricecache.logs import configure
from tests.logs import logging_as_before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with logging_as_before():
        yield


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_fields() -> None:
    stream = io.StringIO()
    configure("info", "auto", stream)
    structlog.get_logger("pricecache.sync").warning("provider failed", symbol="AAPL", attempts=2)
    (line,) = lines(stream)
    assert line.pop("timestamp", "").endswith("Z")  # type: ignore[attr-defined]
    assert line == {
        "event": "provider failed",
        "level": "warning",
        "logger": "pricecache.sync",
        "symbol": "AAPL",
        "attempts": 2,
    }


def test_a_traceback_stays_on_its_line() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("x").exception("run failed")
    (line,) = lines(stream)
    assert "ValueError: broken" in str(line["exception"])


def test_a_terminal_gets_text() -> None:
    stream = Terminal()
    configure("info", "auto", stream)
    structlog.get_logger("x").info("daemon is ready", port=8080)
    assert "daemon is ready" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_a_level_holds_back_what_is_under_it() -> None:
    stream = io.StringIO()
    configure("warning", "json", stream)
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_libraries_speak_in_the_same_shape_and_only_when_it_matters() -> None:
    stream = io.StringIO()
    configure("debug", "json", stream)
    logging.getLogger("apscheduler.scheduler").info("Added job")
    logging.getLogger("yfinance").error("possibly delisted")
    logging.getLogger("pymongo.topology").warning("lost %s", "primary")
    assert [(line["logger"], line["event"]) for line in lines(stream)] == [("pymongo.topology", "lost primary")]


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger("x").info("odd", value={1: object}, nothing=float("nan"))
    (line,) = lines(stream)
    assert line["nothing"] is None
