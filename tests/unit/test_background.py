"""Background tasks: one that dies shows for good, and all end when they are told to."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from pricecache.background import BackgroundTasks


async def for_ever() -> None:
    await asyncio.Event().wait()


async def broken() -> None:
    raise ZeroDivisionError("by zero")


async def nothing() -> None:
    pass


async def test_what_goes_on_is_ok_and_what_died_is_not_and_stays_so() -> None:
    tasks = BackgroundTasks()
    with capture_logs() as lines:
        for number, work in enumerate((for_ever, broken, nothing)):
            tasks.start(work(), f"task {number}")
        for _ in range(3):
            await asyncio.sleep(0)
    assert tasks.checks() == {"task 0": "ok", "task 1": "died: ZeroDivisionError", "task 2": "ended"}
    assert [(line["log_level"], line["event"], line["task"]) for line in lines] == [
        ("error", "a background task died", "task 1"),
        ("error", "a background task died", "task 2"),
    ]
    assert isinstance(lines[0]["exc_info"], ZeroDivisionError)
    await tasks.end()
    assert tasks.checks()["task 1"] == "died: ZeroDivisionError"


async def test_one_that_swallows_a_cancellation_is_cancelled_again() -> None:
    """As the driver may, when it comes at the end of an operation."""
    swallowed = []

    async def stubborn() -> None:
        while len(swallowed) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(1)
        await for_ever()

    tasks = BackgroundTasks()
    tasks.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    with capture_logs() as lines:
        await tasks.end()
    assert (len(swallowed), lines) == (2, [])


async def test_there_may_be_nothing_to_end() -> None:
    await BackgroundTasks().end()
