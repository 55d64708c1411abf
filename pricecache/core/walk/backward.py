"""One balance walked backwards from what it is today: rows taken back, splits divided out, contradictions told.

Shares and money are walked alike. Within a day the ledger's order counts: splits first, then what comes in, internal
transfers, what goes out; so what goes out is taken back first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from math import prod
from typing import NamedTuple

from pricecache.core.ledger import ZERO
from pricecache.core.lots import FINEST, scaled
from pricecache.core.marketdata import NEVER
from pricecache.core.walk.short_evidence import Point, ShortEvidence, unexplained
from pricecache.core.walk.splits import Decided, SplitDays, SplitRow

LATE_DAYS = 5
"""A balance is right if the walk passes through it so many days before or after: rows are posted late."""
SPECK = Decimal("0.001")
_SPECK_SHARE = Decimal("0.0001")
_MOST_LEFT_OUT = 100
"""Rows that are there twice are left out one by one, each time with a walk; beyond so many it is no slip."""


class Move(NamedTuple):
    """`quantity`: signed. `rank`: 1 what comes in, 2 between accounts, 3 what goes out. `source`: place of the broker's
    row, negative for none."""

    day: int
    quantity: Decimal
    rank: int
    source: int


Twins = dict[int, dict[Decimal, list[Move]]]
"""By day and quantity."""


class Correction(NamedTuple):
    """What no row explains: so much came (or went) on `day`, in its units. `source`: the row that shows it, or -1."""

    day: int
    quantity: Decimal
    code: str
    source: int = -1


@dataclass(frozen=True, slots=True)
class Task:
    """`quantity`: at the end of day `day`. `first_day`: the walk ends before it. `splits`: the market's, `(day, ratio)`
    ascending. `split_rows`: the broker's, ascending. `waypoints`: `(day, quantity)`. `twins`: of `moves`, those that
    are said twice, either of which may be wrong. `may_be_negative`: always; `shorts`: where that is shown. `late_days`:
    for how long the balance may be below zero for want of a row that is posted late. `smallest`: what counts as
    nothing. `late`: by day of a waypoint, what rows up to it move that were not known when it was said,
    `(day, quantity)` ascending, in the units of their day."""

    quantity: Decimal
    day: int
    first_day: int
    moves: Sequence[Move]
    splits: Sequence[tuple[int, Fraction]] = ()
    split_rows: Sequence[SplitRow] = ()
    waypoints: Sequence[tuple[int, Decimal]] = ()
    twins: Sequence[Move] = ()
    may_be_negative: bool = False
    shorts: ShortEvidence | None = None
    late_days: int = 0
    smallest: Decimal = ZERO
    code: str = "quantity_unexplained"
    late: Mapping[int, Sequence[tuple[int, Decimal]]] = field(default_factory=dict)


@dataclass(slots=True)
class Walked:
    """`quantity`: what there is at the end. `opening`: what was there before `first_day`. `ends`: `(day, quantity)`,
    descending, at the end of days on which something moved. `targets`: by day what there is right after its splits.
    `left_out`: twins that were one too many."""

    quantity: Decimal = ZERO
    opening: Decimal = ZERO
    ends: list[tuple[int, Decimal]] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    targets: dict[int, Decimal] = field(default_factory=dict)
    decided: list[Decided] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)

    def end_of(self, day: int) -> Decimal:
        """What there was at the end of `day`."""
        at = bisect_left(self.ends, -day, key=lambda one: -one[0])
        moved, quantity = self.ends[at] if at < len(self.ends) else (-NEVER, self.opening)
        split = max((one for one in self.targets if moved < one <= day), default=None)
        return quantity if split is None else self.targets[split]

    @property
    def is_short(self) -> bool:
        known = [self.quantity, self.opening, *self.targets.values(), *(end for _, end in self.ends)]
        return min(known) < 0


def walk(task: Task) -> Walked:
    """All the way back. Pure; a waypoint that differs, and a row too many, are put right and the walk begun anew."""
    found = Walked()
    forced: list[Correction] = []
    settled_days: set[int] = set()
    explained: set[int] = set()
    twins: Twins = defaultdict(lambda: defaultdict(list))
    for move in task.twins:
        twins[move.day][move.quantity].append(move)
    while True:
        one = _Pass(task, forced, settled_days, explained, found.left_out, twins)
        again = one.run()
        if again is None:
            one.walked.left_out = found.left_out
            return one.walked
        if again.left_out is not None:
            found.left_out.append(again.left_out)
            forced, settled_days, explained = [], set(), set()
        else:
            forced = again.forced
            (explained if again.is_of_shorts else settled_days).add(again.settled_day)


class _Again(NamedTuple):
    left_out: int | None = None
    forced: list[Correction] = []  # noqa: RUF012
    settled_day: int = 0
    is_of_shorts: bool = False


class _Pass:
    def __init__(
        self,
        task: Task,
        forced: Sequence[Correction],
        settled_days: set[int],
        explained: set[int],
        left_out: Sequence[int],
        twins: Twins,
    ) -> None:
        self.twins = twins
        self.sizes: dict[Fraction, list[Move]] = {}
        self.of_day: dict[int, list[Move]] = defaultdict(list)
        self.task, self.forced, self.explained = task, forced, explained
        self.may_be_negative = task.may_be_negative or task.shorts is not None
        self.points: list[Point] = []
        self.left_out = frozenset(left_out)
        self.walked = Walked(task.quantity, corrections=list(forced))
        self.quantity = task.quantity
        self.largest = abs(task.quantity)
        self.before_first = ZERO
        self.net = self._net()
        self.waypoints = {
            day: quantity
            for day, quantity in task.waypoints
            if task.first_day - 1 <= day < task.day and day not in settled_days
        }
        self.anchors = sorted({task.day, *(day for day, _ in task.waypoints if task.first_day <= day < task.day)})
        self.known = {day for day, _ in task.waypoints}
        self.opened = self._of_day(task.shorts.opens if task.shorts is not None else frozenset())
        self.closed = self._of_day(task.shorts.closes if task.shorts is not None else frozenset())
        self.splits = SplitDays(task.split_rows, task.splits, task.first_day, task.day)
        self.ratio = Fraction(1)
        self.ratios: dict[int, Fraction] = {}
        self.days = sorted({*self.net, *self.anchors, *self.waypoints, *self.splits.days}, reverse=True)

    def _net(self) -> dict[int, Decimal]:
        net: dict[int, Decimal] = {}
        for day, quantity, _, source in self.task.moves:
            if source not in self.left_out:
                net[day] = net.get(day, ZERO) + quantity
        for one in self.forced:
            net[one.day] = net.get(one.day, ZERO) + one.quantity
        return net

    def _of_day(self, sources: frozenset[int]) -> dict[int, Decimal]:
        found: dict[int, Decimal] = {}
        for day, quantity, _, source in self.task.moves if sources else ():
            if source in sources and source not in self.left_out:
                found[day] = found.get(day, ZERO) + abs(quantity)
        return found

    def run(self) -> _Again | None:
        for day in self.days:
            self.ratios[day] = self.ratio
            if day in self.twins:
                self._note_twins(day)
            if day in self.waypoints and (again := self._compare(day)):
                return again
            if self.points and day in self.known:
                self.points = []
            if day in self.net and (again := self._take_back(day)):
                return again
            self._divide(day)
        if self.points and (again := self._explain(self.task.first_day - 1)):
            return again
        day, until = self.task.first_day - 1, self.anchors[0]
        twin = self._twin_in_gap(Fraction(0), self._contradictions(day, until), day, until)
        if twin is not None:
            return _Again(left_out=twin)
        if self._is_speck(self.quantity):
            self._round_off()
        self.walked.opening = self.quantity
        return None

    def _take_back(self, day: int) -> _Again | None:
        self.walked.ends.append((day, self.quantity))
        self.largest = max(self.largest, abs(self.quantity))
        self.quantity -= self.net[day]
        self.before_first = self.quantity
        if self.task.shorts is not None:
            self._note_point(day, self.walked.ends[-1][1])
        if self.quantity >= -self.task.smallest or self.may_be_negative or self._is_late(day):
            return None
        twin = self._twin(-Fraction(self.quantity) * self.ratio, day, self.task.day)
        if twin is not None:
            return _Again(left_out=twin)
        code = "rounding" if self._is_speck(self.quantity) else self.task.code
        self.walked.corrections.append(Correction(day, self.quantity, code, self._impossible(day)))
        self.quantity = ZERO
        return None

    def _is_speck(self, quantity: Decimal) -> bool:
        if self.task.smallest:
            return False
        return 0 < abs(quantity) <= min(SPECK, self.largest * _SPECK_SHARE)

    def _is_late(self, day: int) -> bool:
        """Whether a row of the days before makes up for it."""
        if not self.task.late_days:
            return False
        balance = self.quantity
        for before in self.days[bisect_right(self.days, -day, key=lambda one: -one) :]:
            if before < day - self.task.late_days:
                return False
            balance -= self.net.get(before, ZERO)
            if balance >= -self.task.smallest:
                return True
        return False

    def _impossible(self, day: int) -> int:
        """The row of `day` with which, going back, there is less than nothing."""
        balance = self.walked.ends[-1][1]
        for move in sorted(self._rows_of(day), key=lambda one: -one.rank):
            balance -= move.quantity
            if balance < 0 and move.quantity > 0:
                return move.source
        return -1

    def _rows_of(self, day: int) -> list[Move]:
        if not self.of_day:
            for one in self.task.moves:
                self.of_day[one.day].append(one)
        return [one for one in self.of_day.get(day, ()) if one.source not in self.left_out]

    def _twin(self, size: Fraction, day: int, until: int) -> int | None:
        """A row from `day` up to `until` that is there twice and is just so much, in units of today."""
        if not self.task.twins or len(self.left_out) >= _MOST_LEFT_OUT:
            return None
        found = self.sizes.get(size, ())
        return next((move.source for move in reversed(found) if day <= move.day <= until), None)

    def _note_twins(self, day: int) -> None:
        for quantity, moves in self.twins.get(day, {}).items():
            free = [move for move in moves if move.source not in self.left_out]
            if free:
                self.sizes.setdefault(Fraction(quantity) * self.ratio, []).append(free[-1])

    # splits

    def _divide(self, day: int) -> None:
        if day not in self.splits.days:
            return
        for decided in self.splits.decided(day, self.quantity, self._moved):
            self._divide_by_row(decided)
        if day in self.splits.alone:
            self._divide_by(day, self.splits.alone[day], None)

    def _divide_by_row(self, decided: Decided) -> None:
        after, ratio = decided.applied(self.quantity)
        self.walked.decided.append(after)
        if after.code == "split_unexplained":
            self._move_by_row(after)
        if ratio is not None:
            self._divide_by(after.day, ratio, after.before)

    def _move_by_row(self, decided: Decided) -> None:
        """Shares that came or went by a row that is called a split and cannot be one."""
        rows = decided.row.rows
        if not rows.quantity or any(one[2:] == ("split_unexplained", rows.sources[0]) for one in self.forced):
            return
        self._note_end(decided.day)
        self.walked.corrections.append(Correction(decided.day, rows.quantity, "split_unexplained", rows.sources[0]))
        self.quantity -= rows.quantity
        self.before_first = self.quantity
        if self.task.shorts is not None:
            self._note_point(decided.day, self.quantity + rows.quantity)
        if self.quantity < 0 and not self.may_be_negative:
            self.walked.corrections.append(Correction(decided.day, self.quantity, self.task.code, rows.sources[0]))
            self.quantity = ZERO

    def _note_end(self, day: int) -> None:
        if not self.walked.ends or self.walked.ends[-1][0] != day:
            self.walked.ends.append((day, self.quantity))

    def _divide_by(self, day: int, ratio: Fraction, before: Decimal | None) -> None:
        self.ratio *= ratio  # of nothing, too: earlier rows are in those units
        if self.quantity:
            self.walked.targets.setdefault(day, self.quantity)
            self.quantity = scaled(self.quantity, 1 / ratio) if before is None else before

    def _moved(self, low: int, high: int) -> Decimal | None:
        """What moved from day `low` up to, not including, `high`; None where nothing did."""
        found = [self.net[day] for day in self.days if low <= day < high and day in self.net]
        return sum(found, ZERO) if found else None

    # waypoints

    def _compare(self, day: int) -> _Again | None:
        """None when the walk passes through the waypoint, else what puts it right."""
        wanted = self._wanted(day)
        until = self.anchors[bisect_right(self.anchors, day)]
        is_near = any(self._is_near(one, other) for one in self._around(day) for other in wanted)
        difference = ZERO if is_near else min((one - self.quantity for one in wanted), key=abs)
        between = self._contradictions(day, until)
        twin = self._twin_in_gap(Fraction(difference) * self.ratio, between, day, until)
        if twin is not None:
            return _Again(left_out=twin)
        if is_near:
            return None
        if self.points and wanted[0] >= 0 and (again := self._explain(day)):
            return again
        correction = self._put_right(day, until, difference, between)
        return _Again(forced=[*self.walked.corrections, correction], settled_day=day)

    def _wanted(self, day: int) -> list[Decimal]:
        """What the waypoint can mean: of the rows that came after it, it has none, the first ones, or all but them."""
        said, late = self.waypoints[day], self.task.late.get(day, ())
        moved = [scaled(quantity, self._split_between(then, day)) for then, quantity in late]
        return [said, *(said + one for one in (*accumulate(reversed(moved)), *accumulate(moved[:-1])))]

    def _split_between(self, day: int, until: int) -> Fraction:
        return prod((ratio for then, ratio in self.task.splits if day < then <= until), start=Fraction(1))

    def _contradictions(self, day: int, until: int) -> list[Correction]:
        codes = (self.task.code, "rounding")
        return [one for one in self.walked.corrections if one.code in codes and day < one.day <= until]

    def _twin_in_gap(self, size: Fraction, between: Sequence[Correction], day: int, until: int) -> int | None:
        """A row there twice that explains what a balance lacks, or that and all contradictions since together."""
        whole = size - sum((Fraction(one.quantity) * self.ratios[one.day] for one in between), Fraction(0))
        for said_twice in dict.fromkeys((size, whole)):
            twin = self._twin(said_twice, day + 1, until) if said_twice else None
            if twin is not None:
                return twin
        return None

    def _is_near(self, one: Decimal, other: Decimal) -> bool:
        apart = abs(one - other)
        return apart <= self.task.smallest or (
            not self.task.smallest and apart <= min(SPECK, abs(other) * _SPECK_SHARE)
        )

    def _around(self, day: int) -> list[Decimal]:
        found = [self.quantity]
        found += [end for later, end in self.walked.ends if later <= day + LATE_DAYS]
        balance = self.quantity
        for before in self.days[bisect_left(self.days, -day, key=lambda one: -one) :]:
            if before <= day - LATE_DAYS:
                break
            balance -= self.net.get(before, ZERO)
            found.append(balance)
            if before in self.splits.alone:
                balance = scaled(balance, 1 / self.splits.alone[before])
                found.append(balance)
        return found

    def _put_right(self, day: int, until: int, difference: Decimal, between: Sequence[Correction]) -> Correction:
        """On the day of the later balance, or before more would go than there is; where a contradiction in between
        ends what is known, there."""
        expires = self.task.shorts.expires if self.task.shorts is not None else None
        if difference > 0 and expires is not None and day < expires <= until:
            size = Fraction(difference) * self.ratio
            quantity = scaled(Decimal(1), size / self._ratio_on(expires)) or FINEST
            return Correction(expires, -quantity, "expiry_missing")
        if difference > 0:
            at = min((one.day for one in between), default=until)
            return Correction(at, -self._in_units(difference, day, at), "balance_differs")
        at = until
        for later, end in reversed(self.walked.ends):
            is_between = day < later <= until and not self.task.may_be_negative
            is_between &= self.task.shorts is None or end >= 0
            if is_between and end - self._in_units(-difference, day, later) < -self.task.smallest:
                at = later
                break
        return Correction(at, self._in_units(-difference, day, at), "balance_differs")

    def _in_units(self, quantity: Decimal, day: int, later: int) -> Decimal:
        return scaled(quantity, self.ratio / self.ratios[later]) or FINEST

    def _ratio_on(self, day: int) -> Fraction:
        """Between the units of `day` and those of today; the walk is behind it."""
        walked = self.days[bisect_left(self.days, -day, key=lambda one: -one)]
        return self.ratios[walked]

    # short positions

    def _note_point(self, day: int, end: Decimal) -> None:
        closed, opened = self.closed.get(day, ZERO), self.opened.get(day, ZERO)
        sizes = (Fraction(size) * self.ratio for size in (end, self.quantity, closed, opened))
        self.points.append(Point(day, *sizes))

    def _explain(self, since: int) -> _Again | None:
        """None when what was held after day `since`, up to the next balance, adds up with the short positions that are
        in evidence."""
        shorts = self.task.shorts
        if shorts is None or since in self.explained:
            return None
        until = self.anchors[bisect_right(self.anchors, since)]
        corrections, expired = [], Fraction(0)
        for day, size in unexplained(self.points, is_contract=shorts.is_contract):
            twin = self._twin(-size, day, self.task.day)
            if twin is not None:
                return _Again(left_out=twin)
            if shorts.expires is not None and day <= shorts.expires <= until:
                expired += size
            else:
                corrections.append(self._missing(day, size))
        if expired and shorts.expires is not None:
            quantity = scaled(Decimal(1), expired / self._ratio_on(shorts.expires))
            corrections.append(Correction(shorts.expires, quantity, "expiry_missing"))
        corrections = [one for one in corrections if one.quantity]
        if not corrections:
            return None
        return _Again(forced=[*self.walked.corrections, *corrections], settled_day=since, is_of_shorts=True)

    def _missing(self, day: int, size: Fraction) -> Correction:
        """Of `size` in units of today: behind the last row of `day` that shows it."""
        quantity = scaled(Decimal(1), size / self.ratios[day])
        code = "rounding" if self._is_speck(quantity) else self.task.code
        found = [one.source for one in self._rows_of(day) if one.quantity * quantity < 0]
        return Correction(day, quantity, code, found[-1] if found else -1)

    # what is left

    def _round_off(self) -> None:
        """A speck that rounded rows leave is put right where the rows begin: nothing was held before."""
        moved = [one for one, _ in self.walked.ends]
        if not moved:
            return
        first = min(moved)
        self.walked.corrections.append(Correction(first, self.before_first, "rounding"))
        for day in [day for day in self.walked.targets if day <= first]:
            del self.walked.targets[day]
        self.quantity = ZERO
