"""What a return was computed from: the flows of each day, the payments of the XIRR, the days without a link."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.history import PORTFOLIO, History
from pricecache.core.returns import Performance, Window
from pricecache.core.scopes import Scope


@dataclass(frozen=True, slots=True)
class ReturnInputs:
    """Days since 1970-01-01, money in base currency, not rounded.

    `flows`: (day, inflow, outflow) of each day that had any, as the links of the time-weighted return take them; a
    holding that gets its first price comes in at its worth. None where only rows were kept. `payments`: (day, amount)
    of the XIRR, what is paid in negative: the value it begins with, the net flows, the value it ends with. `undefined`:
    days without capital, whose link does not count. `sessions`: how many the volatility is over.
    """

    flows: tuple[tuple[int, float, float], ...] | None
    payments: tuple[tuple[int, float], ...]
    undefined: tuple[int, ...]
    sessions: int


def inputs_of(
    history: History, own: Performance, scope: Scope = PORTFOLIO, *, sessions: NDArray[np.int64] | None = None
) -> ReturnInputs:
    """Those of `own`, the performance of `scope`."""
    window = Window(history, scope, own.start, own.end)
    return ReturnInputs(
        _flows(history, scope, window), _payments(own, window), tuple(window.undefined_days()),
        int(window.on(sessions).sum()),
    )  # fmt: skip


def _flows(history: History, scope: Scope, window: Window) -> tuple[tuple[int, float, float], ...] | None:
    if history.gross is None:
        return None
    if not len(window.days):
        return ()
    place = history.scopes.index(scope)
    inflow, outflow = history.gross.of(place, int(window.days[0]), len(window.days))
    at = np.flatnonzero((inflow != 0) | (outflow != 0))
    return tuple(zip(window.days[at].tolist(), inflow[at].tolist(), outflow[at].tolist(), strict=True))


def _payments(own: Performance, window: Window) -> tuple[tuple[int, float], ...]:
    at = np.flatnonzero(np.nan_to_num(window.flows))
    found = list(zip(window.days[at].tolist(), (-window.flows[at]).tolist(), strict=True))
    if own.start_value:
        found.insert(0, (own.start, -own.start_value))
    return tuple([*found, (own.end, own.end_value)] if own.end_value else found)
