"""Daily bars as columns: the value that crosses every module, its packed form on disk, and how two are merged."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from pricecache.errors import Corrupt

DAY_SECONDS = 86400
OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)
FIELDS = ("open", "high", "low", "close", "volume")

MANUAL = 1
"""Flag: put in by a person or an import; a provider's bar never replaces it."""
RETRACTED = 2
"""Flag of journal rows only: a manual bar was taken back on this session."""
APPROVED = 4
"""Flag: a provider's bar that was parked until a person approved it; a later one of a provider replaces it as usual."""

PRICE_RTOL = 1e-6
VOLUME_RTOL = 5e-3


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Bars of one series in ascending order of session, one a session.

    `sessions`: int64, shape (n,), days since 1970-01-01 (the label of the exchange session).
    `values`: float64, shape (5, n), rows open, high, low, close, volume; NaN is unknown; close is always finite.
    Prices are as traded, in the series' currency. Immutable by convention: nobody writes into the arrays.
    """

    sessions: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sessions)

    @property
    def open(self) -> NDArray[np.float64]:
        return self.values[OPEN]

    @property
    def high(self) -> NDArray[np.float64]:
        return self.values[HIGH]

    @property
    def low(self) -> NDArray[np.float64]:
        return self.values[LOW]

    @property
    def close(self) -> NDArray[np.float64]:
        return self.values[CLOSE]

    @property
    def volume(self) -> NDArray[np.float64]:
        return self.values[VOLUME]

    @property
    def nbytes(self) -> int:
        return self.sessions.nbytes + self.values.nbytes

    def between(self, start: int | None, end: int | None) -> Bars:
        """The bars from session `start` to session `end`, both included, as views. None is no bound."""
        low = 0 if start is None else int(self.sessions.searchsorted(start))
        high = len(self.sessions) if end is None else int(self.sessions.searchsorted(end, side="right"))
        return Bars(self.sessions[low:high], self.values[:, low:high])

    @classmethod
    def empty(cls) -> Bars:
        return cls(np.empty(0, np.int64), np.empty((5, 0), np.float64))

    @classmethod
    def of(cls, sessions: Iterable[int], values: NDArray[np.float64] | list[list[float]]) -> Bars:
        """Build from unordered columns; of several rows for one session the last given stands."""
        days = np.asarray(list(sessions) if not isinstance(sessions, np.ndarray) else sessions, np.int64)
        block = np.asarray(values, np.float64).reshape(5, len(days))
        if len(days) > 1 and not (days[1:] > days[:-1]).all():
            order = np.argsort(days, kind="stable")
            last = np.append(np.diff(days[order]) != 0, True)
            days, block = days[order][last], block[:, order[last]]
        return cls(days, np.ascontiguousarray(block))


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return day.toordinal() - 719163


def day_of(number: int) -> date:
    return date.fromordinal(int(number) + 719163)


def years_of(sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The calendar year of each session, int64."""
    return sessions.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where each bar of a `Bars` of the same length came from.

    `source`: uint8 index into `sources`; `flags`: uint8 (`MANUAL`, `APPROVED`); `fetched_at`: int64, ms since 1970 UTC.
    """

    source: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    fetched_at: NDArray[np.int64]
    sources: tuple[str, ...]

    @classmethod
    def uniform(cls, n: int, source: str, fetched_at_ms: int, flags: int = 0) -> Provenance:
        return cls(np.zeros(n, np.uint8), np.full(n, flags, np.uint8), np.full(n, fetched_at_ms, np.int64), (source,))

    @property
    def by_hand(self) -> NDArray[np.bool_]:
        """Of each bar whether a person put it in."""
        return np.asarray((self.flags & MANUAL) != 0)

    def names(self) -> NDArray[np.str_]:
        """The source of each bar by name."""
        return np.array(self.sources or ("",))[self.source]

    def where(self, mask: NDArray[np.bool_] | NDArray[np.int64]) -> Provenance:
        """Those that `mask` picks: bool of the same length, or positions."""
        return Provenance(self.source[mask], self.flags[mask], self.fetched_at[mask], self.sources)


def concatenate(parts: Sequence[Bars]) -> Bars:
    """Consecutive runs of one series, in order, as one."""
    if not parts:
        return Bars.empty()
    return Bars(np.concatenate([part.sessions for part in parts]), np.concatenate([p.values for p in parts], axis=1))


def concatenate_provenance(parts: Sequence[Provenance]) -> Provenance:
    """The same for where the bars came from, over one list of sources."""
    sources = tuple(dict.fromkeys(name for part in parts for name in part.sources))
    codes = [np.array([sources.index(n) for n in part.sources] or [0], np.uint8)[part.source] for part in parts]
    return Provenance(
        np.concatenate([*codes, np.empty(0, np.uint8)]),
        np.concatenate([*(part.flags for part in parts), np.empty(0, np.uint8)]),
        np.concatenate([*(part.fetched_at for part in parts), np.empty(0, np.int64)]),
        sources,
    )


def pack_bars(bars: Bars) -> bytes:
    """Sessions, then open, high, low, close, volume; each a run of little-endian 8-byte values."""
    return bars.sessions.astype("<i8", copy=False).tobytes() + bars.values.astype("<f8", copy=False).tobytes()


def unpack_blocks(blocks: list[bytes]) -> Bars:
    """The inverse of `pack_bars` for consecutive years, in order. Raises `Corrupt` when a block has no whole rows."""
    if not blocks:
        return Bars.empty()
    try:
        arrays = [np.frombuffer(block, "<f8").reshape(6, -1) for block in blocks]
    except ValueError as exc:
        raise Corrupt from exc
    whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
    return Bars(whole[0].view("<i8"), whole[1:])


def pack_provenance(provenance: Provenance) -> bytes:
    return (
        provenance.fetched_at.astype("<i8", copy=False).tobytes()
        + provenance.source.tobytes()
        + provenance.flags.tobytes()
    )


def unpack_provenance(block: bytes, sources: Iterable[str]) -> Provenance:
    n, rest = divmod(len(block), 10)
    if rest:
        raise Corrupt
    return Provenance(
        np.frombuffer(block, np.uint8, n, 8 * n),
        np.frombuffer(block, np.uint8, n, 9 * n),
        np.frombuffer(block, "<i8", n),
        tuple(sources),
    )


def flags_of(block: bytes) -> bytes:
    """The flags in a packed provenance, one byte a bar, without unpacking the rest."""
    return block[9 * (len(block) // 10) :]


def checksum(block: bytes) -> int:
    """CRC-32 of a packed block."""
    return zlib.crc32(block)


@dataclass(frozen=True, slots=True)
class Merge:
    """The outcome of `merge`: the series as it is now, the rows that made it so, and which sessions they changed.

    `rows` is what the journal keeps: the accepted bars with every value as it now stands.
    """

    bars: Bars
    provenance: Provenance
    rows: Bars
    added: NDArray[np.int64]
    replaced: NDArray[np.int64]

    @property
    def changed(self) -> bool:
        return bool(len(self.added) or len(self.replaced))

    @property
    def first_changed(self) -> int:
        return int(min(self.added[:1].tolist() + self.replaced[:1].tolist()))


def same_values(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Column by column of two (5, n) blocks: the same bar?

    Prices to a relative 1e-6, because a vendor's float32 round trip rarely gives the same bits; volume to 0.5 %,
    because Yahoo revises it for weeks. An unknown value equals only an unknown one.
    """
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    with np.errstate(invalid="ignore"):
        tolerance = np.array([[PRICE_RTOL]] * 4 + [[VOLUME_RTOL]])
        near = np.abs(a - b) <= tolerance * np.maximum(np.abs(a), np.abs(b))
    return np.asarray(((near & ~nan_a & ~nan_b) | (nan_a & nan_b)).all(axis=0))


def merge(held: Bars, origin: Provenance, new: Bars, source: str, fetched_at_ms: int, flags: int = 0) -> Merge:
    """Lay `new` over `held`: add what is missing, replace what differs, keep what is equal.

    A bar held as `MANUAL` is replaced only by a manual one. An unknown value (NaN) never replaces a known one of a
    bar from the same kind of hand: a provider that returns less does not take away.
    """
    nothing = new.sessions[:0]
    if not len(held):
        return Merge(new, Provenance.uniform(len(new), source, fetched_at_ms, flags), new, new.sessions, nothing)
    at = held.sessions.searchsorted(new.sessions)
    known = at < len(held)
    known[known] = held.sessions[at[known]] == new.sessions[known]
    after, differs = _against(held, origin, at[known], new.values[:, known], flags)
    replaced = Bars(new.sessions[known][differs], after[:, differs])
    added = Bars(new.sessions[~known], new.values[:, ~known])
    if not len(replaced) and not len(added):
        return Merge(held, origin, Bars(nothing, new.values[:, :0]), nothing, nothing)
    bars, provenance = _with_replaced(held, origin, at[known][differs], replaced, source, fetched_at_ms, flags)
    bars, provenance = _with_added(bars, provenance, added, source, fetched_at_ms, flags)
    return Merge(bars, provenance, _in_order([replaced, added]), added.sessions, replaced.sessions)


def _against(
    held: Bars, origin: Provenance, at: NDArray[np.int64], values: NDArray[np.float64], flags: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    before, manual = held.values[:, at], (origin.flags[at] & MANUAL) != 0
    if flags & MANUAL:
        return values, ~same_values(before, values) | ~manual
    after = np.where(np.isnan(values), before, values)
    return after, ~same_values(before, after) & ~manual


def _with_replaced(
    held: Bars, origin: Provenance, at: NDArray[np.int64], rows: Bars, source: str, fetched_at_ms: int, flags: int
) -> tuple[Bars, Provenance]:
    if not len(rows):
        return held, origin
    sources = origin.sources if source in origin.sources else (*origin.sources, source)
    values = held.values.copy()
    codes, marks, times = origin.source.copy(), origin.flags.copy(), origin.fetched_at.copy()
    values[:, at] = rows.values
    codes[at], marks[at], times[at] = sources.index(source), flags, fetched_at_ms
    return Bars(held.sessions, values), Provenance(codes, marks, times, sources)


def _with_added(
    held: Bars, origin: Provenance, rows: Bars, source: str, fetched_at_ms: int, flags: int
) -> tuple[Bars, Provenance]:
    if not len(rows):
        return held, origin
    both = concatenate([held, rows])
    whence = concatenate_provenance([origin, Provenance.uniform(len(rows), source, fetched_at_ms, flags)])
    if rows.sessions[0] > held.sessions[-1]:
        return both, whence
    order = np.argsort(both.sessions, kind="stable")
    return Bars(both.sessions[order], both.values[:, order]), whence.where(order)


def _in_order(parts: Sequence[Bars]) -> Bars:
    rows = concatenate(parts)
    order = np.argsort(rows.sessions, kind="stable")
    return Bars(rows.sessions[order], rows.values[:, order])
