"""A history that is kept: every day that is settled, what it was computed from, and where it can be gone on from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pricecache.core.chunks import between, joined, spans
from pricecache.core.history import Checkpoint, History, history
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.stamps import Stamp

LOT_BYTES, POSITION_BYTES = 120, 600


@dataclass(slots=True, eq=False)
class Point:
    """The end of a day to go on from, packed until somebody does."""

    day: int
    packed: bytes | None = None
    unpacked: Checkpoint | None = None

    def checkpoint(self) -> Checkpoint:
        """Raises `Corrupt` when what was packed cannot be read, or is another engine's."""
        if self.unpacked is None:
            assert self.packed is not None
            self.unpacked = Checkpoint.unpack(self.packed)
        return self.unpacked

    def pack(self) -> bytes:
        if self.packed is None:
            assert self.unpacked is not None
            self.packed = self.unpacked.pack()
        return self.packed

    @property
    def nbytes(self) -> int:
        """About what it takes in memory; lots that two checkpoints share count twice."""
        packed = 0 if self.packed is None else len(self.packed)
        if self.unpacked is None:
            return packed
        positions = self.unpacked.book.positions
        lots = sum(len(held.lots) for held in positions)
        return packed + len(positions) * POSITION_BYTES + lots * LOT_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class Materialised:
    """The days `history.start` to `through` of a portfolio, as computed from what `stamp` says.

    `points`: ascending, the last of `through`; those before it of ends of spans (`chunks`). `reused_through`: the last
    day that was not computed just now, None for none. `stored`: which version of what is stored this has the days of,
    and up to which day; None where it has none of them.
    """

    stamp: Stamp
    history: History
    points: tuple[Point, ...]
    reused_through: int | None = None
    stored: tuple[int, int] | None = None
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nbytes", self.history.nbytes + sum(point.nbytes for point in self.points) + 2000)

    @property
    def start(self) -> int:
        return self.history.start

    @property
    def through(self) -> int:
        return self.history.end

    def point_before(self, day: int) -> Point | None:
        """The last point up to `day`."""
        return next((point for point in reversed(self.points) if point.day <= day), None)


def gone_on(kept: Materialised, stamp: Stamp, ledger: Ledger, market: MarketData, through: int) -> Materialised:
    """`kept`, of which nothing is doubtful, up to day `through`, which is not before its end. `ledger`, `market`: all
    there is after it. Pure. Raises `Corrupt` when its last point cannot be read."""
    if through == kept.through:
        return replace(kept, stamp=stamp, reused_through=through)
    return _with_tail(kept, kept.points[-1], stamp, ledger, market, through)


def brought_up(
    kept: Materialised | None, stamp: Stamp, ledger: Ledger, market: MarketData, through: int, doubtful_from: int
) -> Materialised | None:
    """The history up to day `through` as of `stamp`, with what `kept` has of before `doubtful_from` and nothing of it
    computed again but from the last point before that on. None when there is not one day. Pure.

    Raises `Corrupt` when a point of `kept` cannot be read.
    """
    first = ledger.first_day
    if first is None or first > through:
        return None
    point = goes_on_from(kept, ledger, through, doubtful_from)
    if kept is not None and point is not None and point.day == kept.through == through:
        return replace(kept, stamp=stamp, reused_through=through)
    if kept is None or point is None:
        wanted = {span.last for span in spans(first, through)}
        whole = history(ledger, market, through, checkpoints=sorted(wanted))
        assert whole is not None
        return Materialised(stamp, _bare(whole), _points((), whole, wanted))
    return _with_tail(kept, point, stamp, ledger, market, through)


def goes_on_from(kept: Materialised | None, ledger: Ledger, through: int, doubtful_from: int) -> Point | None:
    """The point after which `brought_up` computes; None: from the first day on."""
    if kept is None or kept.start != ledger.first_day:
        return None
    return kept.point_before(min(doubtful_from - 1, through))


def _with_tail(
    kept: Materialised, point: Point, stamp: Stamp, ledger: Ledger, market: MarketData, through: int
) -> Materialised:
    """What `kept` has up to `point`, and the days after it computed."""
    first = kept.start
    wanted = {span.last for span in spans(first, through)}
    head = between(kept.history, first, point.day)
    points = [one for one in kept.points if one.day <= point.day]
    stored = _stored(kept, point.day)
    if point.day == through:
        return Materialised(stamp, head, _points(points, None, wanted), through, stored)
    tail = history(
        ledger, market, through, since=point.checkpoint(), checkpoints=sorted(day for day in wanted if day > point.day)
    )
    assert tail is not None
    whole = joined([head, tail], ledger.rules.cash_tracking)
    return Materialised(stamp, _bare(whole), _points(points, tail, wanted), point.day, stored)


def _points(kept: Iterable[Point], computed: History | None, wanted: set[int]) -> tuple[Point, ...]:
    found = [point for point in kept if point.day in wanted]
    if computed is not None:
        found += [Point(day, None, point) for day, point in sorted(computed.checkpoints.items()) if day in wanted]
    return tuple(found)


def _stored(kept: Materialised, day: int) -> tuple[int, int] | None:
    return None if kept.stored is None else (kept.stored[0], min(kept.stored[1], day))


def _bare(whole: History) -> History:
    return replace(whole, checkpoints={})
