"""Who waits to be summed up: those first that somebody waits for, each in its order."""

from __future__ import annotations

from pricecache.realtime.waiting import Waiting


def taken(waiting: Waiting) -> list[tuple[int, int]]:
    found = []
    while (one := waiting.take()) is not None:
        found.append(one)
    return found


def test_those_come_first_that_somebody_waits_for() -> None:
    waiting = Waiting()
    for slot in range(5):
        waiting.add(slot, 2, is_urgent=slot == 3)
    waiting.hurry(1)
    waiting.hurry(9)
    assert len(waiting) == 5
    assert [slot for slot, _ in taken(waiting)] == [3, 1, 0, 2, 4]


def test_reasons_add_up_and_what_was_urgent_stays_so() -> None:
    waiting = Waiting()
    waiting.add(0, 1, is_urgent=False)
    waiting.add(1, 2, is_urgent=False)
    waiting.add(1, 4, is_urgent=True)
    waiting.add(1, 8, is_urgent=False)
    waiting.add(2, 1, is_urgent=False)
    waiting.drop(2)
    assert taken(waiting) == [(1, 14), (0, 1)]
