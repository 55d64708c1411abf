"""When garbage is collected: never by looking through what stays to the end, which would hold the event loop up."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
