"""Of which days a broker has told every row, and when: the later word of a day counts, whatever came in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

MOST = 60
"""Windows that an account keeps; beyond those, early ones that touch count as told when the later of them was."""
UNTOLD = -1


class Window(NamedTuple):
    """Every row of the days from `first` to `last` was told of on day `told_on`."""

    first: int
    last: int
    told_on: int


def told_of(windows: Sequence[Window], day: int) -> int:
    """When every row of `day` was told of: `UNTOLD` where none was. Of days after the last window the rows that there
    are were told with it. `windows`: ascending. Pure."""
    for window in reversed(windows):
        if day >= window.first:
            return window.told_on if day <= window.last or window is windows[-1] else UNTOLD
    return UNTOLD


def known_since(windows: Sequence[Window], day: int) -> int:
    """When a row of `day` was told of, though it may not be every one of that day. `windows`: ascending, one at least.
    Pure."""
    return next((one.told_on for one in windows if day <= one.last), windows[-1].told_on)


def united(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Ascending, none of a day that another one is of: of each day the latest. Pure."""
    found: list[Window] = []
    for window in _pieces(list(windows)):
        if found and _touch(found[-1], window) and found[-1].told_on == window.told_on:
            window = Window(found.pop().first, *window[1:])
        found.append(window)
    while len(found) > MOST:
        at = next((at for at in range(len(found) - 1) if _touch(found[at], found[at + 1])), None)
        if at is None:
            break
        one, other = found[at : at + 2]
        found[at : at + 2] = [Window(one.first, other.last, max(one.told_on, other.told_on))]
    return tuple(found)


def _pieces(windows: Sequence[Window]) -> Iterator[Window]:
    cuts = sorted({one.first for one in windows} | {one.last + 1 for one in windows})
    for first, end in pairwise(cuts):
        told = [one.told_on for one in windows if one.first <= first <= one.last]
        if told:
            yield Window(first, end - 1, max(told))


def _touch(one: Window, other: Window) -> bool:
    return one.last + 1 == other.first
