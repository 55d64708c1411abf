"""When garbage is collected: never by looking through what stays to the end, which would hold the event loop up."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def exempt_what_is_there() -> None:
    """Leave everything that is in memory now out of all collections from here on. Takes microseconds.

    A hundred thousand objects of modules, classes and the catalog live as long as the process; to look through them
    holds the interpreter, and with it the event loop, for 35 to 70 ms at a time. What of them is garbage in cycles is
    never given back, so this is for a handful of moments: after much was loaded that stays.
    """
    gc.freeze()


@contextmanager
def put_off() -> Iterator[None]:
    """Collect nothing inside, where much is made that stays; afterwards collect as before, but not through that."""
    gc.disable()
    try:
        yield
    finally:
        exempt_what_is_there()
        gc.enable()


_NEVER = 1 << 30
_young_only = 0
_usual: tuple[int, int, int] = (0, 0, 0)


@contextmanager
def young_only() -> Iterator[None]:
    """Inside, look through young objects only; what is there at the end is left out of all collections from there on.

    For work that makes hundreds of thousands of objects of which many stay, such as the rows of a long ledger: a
    collection that looks through all of them holds the interpreter for 100 to 300 ms. They are freed as usual when
    nothing refers to them; cycles that become garbage inside and have grown old by its end are never given back.
    Loop-only; may overlap.
    """
    global _young_only, _usual
    if not _young_only:
        gc.collect()  # of little, as what was there at the start is left out: nothing of it is to stay for good
        _usual = gc.get_threshold()
        gc.set_threshold(_usual[0], _usual[1], _NEVER)
    _young_only += 1
    try:
        yield
    finally:
        _young_only -= 1
        if not _young_only:
            gc.collect(1)
            exempt_what_is_there()
            gc.set_threshold(*_usual)


def grown_old() -> None:
    """Look through what was made since the last look, and not again inside `young_only`.

    For loops that give back as much as they make: by that count nothing is young, and the next look would be at all of
    it at once, for 40 ms where that is 100,000 rows.
    """
    gc.collect(1)


_PIECE = 500


def let_go(*holders: list[Any] | dict[Any, Any]) -> None:
    """Empty them, a few hundred values at a time: to give back 50,000 at once holds the interpreter for 20 to 60 ms.

    Blocking, for a thread, and for what nobody else refers to.
    """
    for holder in holders:
        if isinstance(holder, list):
            while holder:
                del holder[-_PIECE:]
        else:
            while holder:
                holder.popitem()
