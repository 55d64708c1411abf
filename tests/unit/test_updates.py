"""The update queue loses no mark, keeps to its rate, waits no longer than it says, and stays small."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pricecache.core.rate_windows import RateWindows
from pricecache.core.updates import RETRY_SECONDS, Priority, Reason, Taken, UpdateQueue

MARKET, BULK, MANUAL = Priority.MARKET, Priority.BULK, Priority.MANUAL
ORDER = (MANUAL, MARKET, BULK)

few_slots = st.lists(st.integers(0, 5), max_size=8)
some_slots = st.lists(st.integers(0, 40), max_size=8)
quarters = st.integers(0, 40).map(lambda n: n / 4)
"""Seconds that floats add and compare without rounding."""
gaps = st.floats(0, 30, allow_nan=False)
priorities = st.sampled_from(Priority)
reasons = st.one_of(st.none(), st.integers(1, 15).map(Reason))


def slots(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def taken(queue: UpdateQueue, now: float, most: int | None = None) -> list[int]:
    return queue.take(now, most).slots.tolist()


def drained(queue: UpdateQueue, now: float) -> list[tuple[float, int]]:
    """Takes whenever the queue says so until nothing is pending: instants and slots."""
    found = []
    while (due := queue.next_due(now)) is not None:
        now = due
        found += [(now, slot) for slot in taken(queue, now)]
    return found


@dataclass
class Pending:
    """What the model knows of one pending slot."""

    first: float
    due: float
    not_before: float
    priority: Priority


class Queue(RuleBasedStateMachine):
    """The queue against dicts and lists, and against what it promises."""

    @initialize(debounce=quarters, longer=quarters, per_minute=st.integers(0, 4))
    def begin(self, debounce: float, longer: float, per_minute: int) -> None:
        self.debounce, self.max_wait, self.per_minute = debounce, debounce + longer, per_minute
        self.queue = UpdateQueue(debounce, self.max_wait, per_minute)
        self.now = 1000.0
        self.pending: dict[int, Pending] = {}
        self.begun: dict[int, list[float]] = {}
        self.unanswered: dict[int, int] = {}
        self.out: list[tuple[int, int, int]] = []
        self.coalesced = self.deferred = self.computed = self.failed = self.batches = 0

    @rule(seconds=st.one_of(quarters, st.sampled_from([59.75, 60.0, 60.25])))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def wait_until_due(self) -> None:
        self.now = self.queue.next_due(self.now) or self.now

    @rule(marked=st.one_of(few_slots, some_slots), priority=priorities, why=reasons)
    def mark(self, marked: list[int], priority: Priority, why: Reason | None) -> None:
        self.queue.mark(slots(*marked), self.now, priority, why)
        bits = int(why or {MARKET: Reason.PRICE, BULK: Reason.LEDGER, MANUAL: Reason.MANUAL}[priority])
        self.coalesced += len(marked) - len(set(marked) - self.pending.keys())
        for slot in set(marked):
            one = self._merged(slot, priority, bits)
            if priority == MANUAL:
                one.due = min(one.due, self.now)
            elif one.priority != MANUAL:
                one.due = max(min(self.now + self.debounce, one.first + self.max_wait), one.not_before)

    @rule(most=st.one_of(st.none(), st.integers(0, 4)))
    def take(self, most: int | None) -> None:
        got = self.queue.take(self.now, most)
        ready = []
        for slot, one in self.pending.items():
            if one.due <= self.now:
                window = self._window(slot)
                if self.per_minute and len(window) >= self.per_minute and one.priority != MANUAL:
                    one.due = one.not_before = window[-self.per_minute] + 60
                    self.deferred += 1
                else:
                    ready.append(slot)
        ready.sort(key=lambda slot: (ORDER.index(self.pending[slot].priority), self.pending[slot].first, slot))
        expected = ready[:most]
        assert got.slots.tolist() == expected
        assert got.priorities.tolist() == [self.pending[slot].priority for slot in expected]
        assert got.reasons.tolist() == [self.unanswered[slot] for slot in expected]
        for slot in expected:
            del self.unanswered[slot]
            one = self.pending.pop(slot)
            self.begun.setdefault(slot, []).append(self.now)
            if self.per_minute and one.priority != MANUAL:
                assert len(self._window(slot)) <= self.per_minute
        self.out += zip(expected, got.reasons.tolist(), got.priorities.tolist(), strict=True)
        self.computed += len(expected)
        self.batches += bool(expected)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), says_priorities=st.booleans())
    def put_back(self, data: Any, says_priorities: bool) -> None:
        newest = {slot: (slot, why, priority) for slot, why, priority in self.out}
        failed = data.draw(st.lists(st.sampled_from(sorted(newest.values())), unique=True))
        self.out = []
        numbers, why, urgent = (np.array([one[i] for one in failed], np.int64) for i in range(3))
        given_priorities = urgent.astype(np.uint8) if says_priorities else None
        self.queue.put_back(numbers, why.astype(np.uint8), self.now, given_priorities)
        retry = self.now + RETRY_SECONDS
        for slot, bits, priority in failed:
            before = self.pending.get(slot)
            asked_since = before is not None and before.priority == MANUAL
            one = self._merged(slot, Priority(priority) if says_priorities else _by_reasons(bits), bits)
            one.not_before = max(one.not_before, retry)
            if before is None:
                one.due = retry
            elif not asked_since:
                one.due = max(one.due, retry)
        self.failed += len(failed)

    @rule(slot=st.integers(0, 100))
    def forget(self, slot: int) -> None:
        self.queue.forget(slot)
        self.pending.pop(slot, None)
        self.begun.pop(slot, None)
        self.unanswered.pop(slot, None)
        self.out = [one for one in self.out if one[0] != slot]

    @invariant()
    def it_says_when_to_take_next(self) -> None:
        due = [one.due for one in self.pending.values()]
        assert self.queue.next_due(self.now) == (max(min(due), self.now) if due else None)

    @invariant()
    def it_says_where_it_stands(self) -> None:
        stats = self.queue.stats(self.now)
        counts = [sum(one.priority == priority for one in self.pending.values()) for priority in Priority]
        windows = [len(self._window(slot)) for slot in self.begun] if self.per_minute else []
        assert [stats.pending_market, stats.pending_bulk, stats.pending_manual] == counts
        assert stats.pending == len(self.pending)
        assert stats.coalesced == self.coalesced
        assert stats.deferred == self.deferred
        assert stats.computed == self.computed
        assert stats.put_back == self.failed
        assert stats.batches == self.batches
        assert stats.rate_limit_windows == sum(count > 0 for count in windows)
        assert stats.full_windows == sum(count >= self.per_minute for count in windows)
        waited = [self.now - one.first for one in self.pending.values()]
        assert stats.oldest_waiting_seconds == max(waited, default=0.0)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        for _ in range(3 * len(self.pending) + 1):
            self.wait_until_due()
            self.take(None)
        assert not self.unanswered

    def _merged(self, slot: int, priority: Priority, bits: int) -> Pending:
        self.unanswered[slot] = self.unanswered.get(slot, 0) | bits
        one = self.pending.setdefault(slot, Pending(self.now, float("inf"), float("-inf"), priority))
        one.priority = min(one.priority, priority, key=ORDER.index)
        return one

    def _window(self, slot: int) -> list[float]:
        return [start for start in self.begun.get(slot, []) if self.now - start < 60]


def _by_reasons(bits: int) -> Priority:
    if bits & Reason.MANUAL:
        return MANUAL
    return MARKET if bits & (Reason.PRICE | Reason.SCHEDULE) else BULK


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(gaps, few_slots, priorities), max_size=60), st.integers(0, 3))
def test_every_mark_is_followed_by_a_take_whatever_the_rate_limit(
    steps: list[tuple[float, list[int], Priority]], per_minute: int
) -> None:
    """Guarantee 1, with floats that round."""
    queue, now, waiting = UpdateQueue(per_minute=per_minute), 0.0, set[int]()
    for gap, marked, priority in steps:
        now += gap
        waiting -= set(taken(queue, now))
        queue.mark(slots(*marked), now, priority)
        waiting |= set(marked)
    waiting -= {slot for _, slot in drained(queue, now)}
    assert not waiting


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 12), st.sampled_from([MARKET, BULK, MARKET, MANUAL])), min_size=20),
       st.integers(1, 5))  # fmt: skip
def test_none_but_manual_ones_exceed_the_rate_in_any_minute(
    steps: list[tuple[float, Priority]], per_minute: int
) -> None:
    """Guarantee 2: a take that is not manual is at most the `per_minute`-th within 60 s, manual ones counted."""
    queue, now, starts = UpdateQueue(0.0, 0.0, per_minute), 0.0, list[float]()
    for gap, priority in steps:
        now += gap
        queue.mark(slots(3), now, priority)
        got = queue.take(now)
        if len(got):
            starts.append(now)
            inside = [start for start in starts if start + 60 > now]
            assert len(inside) <= per_minute or got.priorities.tolist() == [MANUAL]
        elif priority == MANUAL:
            pytest.fail("A manual one waits for nothing.")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.01, 1.9), min_size=50, max_size=400), st.integers(0, 4))
def test_a_slot_that_is_marked_without_a_pause_is_taken_by_its_longest_wait_or_when_a_place_is_free(
    pauses: list[float], per_minute: int
) -> None:
    """Guarantee 3."""
    queue, now, first, starts = UpdateQueue(2.0, 5.0, per_minute), 0.0, None, list[float]()
    for pause in pauses:
        until = now + pause
        while (due := queue.next_due(now)) is not None and due <= until:
            now = due
            if taken(queue, now):
                assert first is not None
                place = starts[-per_minute] + 60 if 0 < per_minute <= len(starts) else 0.0
                assert now <= max(first + 5.0, place)
                starts.append(now)
                first = None
        now = until
        queue.mark(slots(0), now)
        first = now if first is None else first
        assert now <= max(first + 5.0, starts[-per_minute] + 60 if 0 < per_minute <= len(starts) else 0.0)


def test_a_hundred_rapid_marks_are_one_computation() -> None:
    queue = UpdateQueue()
    for number in range(100):
        queue.mark(slots(7), number / 100)
    assert drained(queue, 1.0) == [(0.99 + 2.0, 7)]
    assert queue.stats(3.0).coalesced == 99


def test_a_hundred_marks_over_ten_seconds_are_at_most_five_computations() -> None:
    queue, computed = UpdateQueue(), []
    for number in range(100):
        now = number / 10
        computed += taken(queue, now)
        queue.mark(slots(7), now)
    computed += [slot for _, slot in drained(queue, now)]
    assert 1 <= len(computed) <= 5


def test_the_most_urgent_are_taken_first_and_of_these_the_longest_waiting() -> None:
    queue = UpdateQueue()
    queue.mark(slots(1), 0.0, BULK)
    queue.mark(slots(2), 1.0, MARKET)
    queue.mark(slots(3), 0.5, MARKET)
    queue.mark(slots(4), 2.0, MANUAL)
    assert taken(queue, 9.0, most=3) == [4, 3, 2]
    assert taken(queue, 9.0) == [1]


def test_a_manual_mark_makes_a_deferred_slot_due_at_once_and_counts_in_its_window() -> None:
    queue = UpdateQueue(0.0, 0.0, per_minute=1)
    queue.mark(slots(0), 0.0)
    assert taken(queue, 0.0) == [0]
    queue.mark(slots(0), 10.0)
    assert taken(queue, 10.0) == []
    assert queue.next_due(10.0) == 60.0
    queue.mark(slots(0), 20.0, MANUAL)
    got = queue.take(20.0)
    assert (got.slots.tolist(), got.reasons.tolist()) == ([0], [Reason.PRICE | Reason.MANUAL])
    queue.mark(slots(0), 70.0)
    assert taken(queue, 70.0) == []
    assert drained(queue, 70.0) == [(80.0, 0)]


def test_marks_while_deferred_do_not_bring_a_slot_forward_and_count_as_one_deferral() -> None:
    queue = UpdateQueue(0.0, 0.0, per_minute=1)
    queue.mark(slots(0), 0.0)
    taken(queue, 0.0)
    for now in range(1, 60):
        queue.mark(slots(0), float(now))
        assert taken(queue, float(now)) == []
    assert taken(queue, 60.0) == [0]
    assert queue.stats(60.0).deferred == 1


def test_marks_do_not_hasten_what_failed_but_asking_does() -> None:
    queue = UpdateQueue()
    queue.mark(slots(1, 2), 0.0, BULK)
    failed = queue.take(2.0)
    queue.put_back(failed.slots, failed.reasons, 3.0, failed.priorities)
    queue.mark(slots(1), 3.5)
    queue.mark(slots(2), 4.0, MANUAL)
    got = queue.take(4.0)
    assert (got.slots.tolist(), got.reasons.tolist()) == ([2], [Reason.LEDGER | Reason.MANUAL])
    assert queue.next_due(4.0) == 3.0 + RETRY_SECONDS
    queue.mark(slots(2), 4.0)
    assert taken(queue, 6.0) == [2]
    again = queue.take(8.0)
    assert (again.slots.tolist(), again.reasons.tolist()) == ([1], [Reason.LEDGER | Reason.PRICE])
    assert again.priorities.tolist() == [MARKET]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(some_slots, priorities, st.sets(st.integers(0, 40))), min_size=1, max_size=12))
def test_what_failed_is_taken_again_with_all_its_reasons(
    steps: list[tuple[list[int], Priority, set[int]]],
) -> None:
    """Guarantee 6: reasons marked and not yet computed are those of the next take, however often it failed."""
    queue, now, open_reasons = UpdateQueue(per_minute=2), 0.0, dict[int, int]()

    def compute(got: Taken, failing: set[int]) -> None:
        assert got.reasons.tolist() == [open_reasons[slot] for slot in got.slots.tolist()]
        failed = np.isin(got.slots, list(failing))
        queue.put_back(got.slots[failed], got.reasons[failed], now, got.priorities[failed])
        for slot in got.slots[~failed].tolist():
            del open_reasons[slot]

    for marked, priority, failing in steps:
        queue.mark(slots(*marked), now, priority)
        for slot in marked:
            bit = {MARKET: Reason.PRICE, BULK: Reason.LEDGER, MANUAL: Reason.MANUAL}[priority]
            open_reasons[slot] = open_reasons.get(slot, 0) | bit
        now += 3.0
        compute(queue.take(now), failing)
    while (due := queue.next_due(now)) is not None:
        now = due
        compute(queue.take(now), set())
    assert not open_reasons


def test_a_forgotten_slot_is_not_taken_and_its_next_owner_starts_anew() -> None:
    queue = UpdateQueue(0.0, 0.0, per_minute=1)
    queue.mark(slots(0, 1), 0.0)
    taken(queue, 0.0)
    queue.mark(slots(0, 1), 1.0)
    queue.forget(0)
    assert queue.stats(1.0).rate_limit_windows == 1
    queue.mark(slots(0), 1.0)
    assert taken(queue, 1.0) == [0]
    queue.forget(0)
    queue.forget(99)
    assert drained(queue, 1.0) == [(60.0, 1)]


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in ((2.0, 1.0, 20), (-1.0, 1.0, 20), (2.0, 5.0, -1)):
        with pytest.raises(ValueError, match="debounce"):
            UpdateQueue(*wrong)


def test_rings_of_forgotten_slots_are_used_again() -> None:
    windows = RateWindows(20)
    for slot in range(1000):
        windows.begin(slots(slot), float(slot))
        windows.forget(slot)
    assert windows.nbytes == 1024 * 4 + 16 * (20 * 8 + 4)
    assert windows.in_use(0.0) == (0, 0)


def test_a_thousand_pending_are_far_under_five_megabytes() -> None:
    every = np.arange(1000)
    tracemalloc.start()
    queue = UpdateQueue()
    for number in range(200):
        queue.mark(every, number / 100)
    assert queue.stats(2.0).pending == 1000
    assert queue.nbytes == 1024 * (3 * 8 + 2)
    taken(queue, 10.0)
    queue.mark(every, 10.0)
    assert queue.nbytes == queue.stats(10.0).nbytes == 1024 * (3 * 8 + 2) + 1024 * (4 + 20 * 8 + 4)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1_000_000
