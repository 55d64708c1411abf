"""A provider that tells the truth from a table, except where a test has scripted a failure; and it counts its calls."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pricecache.core.actions import Action, adjusted, in_effect
from pricecache.core.asking import Capability, Found, Pace
from pricecache.core.bars import Bars
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import ProviderError, SymbolNotFound
from pricecache.providers.base import Basis, History, Quotes


class HasTime(Protocol):
    def time(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Truth:
    """What really happened to one instrument: bars as traded and as declared actions, all that there ever were."""

    bars: Bars
    actions: tuple[Action, ...] = ()
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that reached the provider. A call for quotes has no range."""

    instruments: tuple[Instrument, ...]
    start: int | None = None
    end: int | None = None


class ScriptedProvider:
    """Implements `pricecache.providers.base.Provider`. Thread-safe.

    `truth`: what it knows; another instrument is not found. With `basis` split_adjusted it works every split of the
    table that has taken effect by the date of `clock` (without one: every split) into bars and dividends, and lists it
    though it be later than the range, as Yahoo does. `script(instrument, ...)` queues, for one instrument's next calls,
    an error to raise or a function over the true answer; None lets that call through. `prices` are its quotes, `found`
    what a search may come upon.
    """

    def __init__(self, name: str = "scripted", basis: Basis = "as_traded", final_lag: float = 1800.0) -> None:
        self.name = name
        self.capabilities: frozenset[Capability] = frozenset(("history", "live", "actions"))
        self.pace = Pace(per_second=1000.0, burst=1000, concurrency=4, timeout=5.0)
        self.final_lag = final_lag
        self.always_moving = False
        self.control: Instrument | None = None
        self.basis: Basis = basis
        self.clock: HasTime | None = None
        self.truth: dict[Instrument, Truth] = {}
        self.prices: dict[Instrument, Quote] = {}
        self.found: list[Found] = []
        self.calls: list[Call] = []
        self.closed = False
        self._scripts: defaultdict[Instrument, deque[Callable[[History], History] | ProviderError | None]] = (
            defaultdict(deque)
        )
        self._quote_failures: deque[ProviderError] = deque()
        self._lock = threading.Lock()

    def script(self, instrument: Instrument, *steps: Callable[[History], History] | ProviderError | None) -> None:
        """Queue what becomes of the next calls for the history of `instrument`."""
        self._scripts[instrument].extend(steps)

    def script_quotes(self, *errors: ProviderError) -> None:
        """Queue errors for the next calls for quotes."""
        self._quote_failures.extend(errors)

    def calls_for(self, instrument: Instrument) -> list[Call]:
        """The calls for the history of `instrument`, in order."""
        return [call for call in self.calls if call.instruments == (instrument,) and call.start is not None]

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        with self._lock:
            self.calls.append(Call((instrument,), start, end))
            step = self._scripts[instrument].popleft() if self._scripts[instrument] else None
        if isinstance(step, ProviderError):
            raise step
        answer = self._answer(instrument, start, end)
        return step(answer) if step is not None else answer

    def _answer(self, instrument: Instrument, start: int, end: int) -> History:
        truth = self.truth.get(instrument)
        if truth is None:
            raise SymbolNotFound
        bars, actions = truth.bars, truth.actions
        splits: tuple[Action, ...] = ()
        if self.basis == "split_adjusted":
            splits = tuple(action for action in self._past(actions) if action.kind == "split")
            bars = adjusted(bars, splits, "splits")
            actions = tuple(_rescaled(action, splits) for action in actions)
        first = int(bars.sessions[0]) if len(bars) else None
        return History(
            bars.between(start, end),
            self.basis,
            tuple(a for a in actions if start <= a.ex_date <= end or (a in splits and start <= a.ex_date)),
            truth.currency,
            first if first is not None and start < first else None,
        )

    def _past(self, actions: tuple[Action, ...]) -> tuple[Action, ...]:
        return actions if self.clock is None else in_effect(actions, int(self.clock.time() // 86400))

    def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        with self._lock:
            self.calls.append(Call(tuple(instruments)))
            failure = self._quote_failures.popleft() if self._quote_failures else None
        if failure is not None:
            raise failure
        return Quotes(
            [self.prices[i] for i in instruments if i in self.prices],
            {i: SymbolNotFound() for i in instruments if i not in self.prices},
        )

    def search(self, text: str, limit: int) -> Sequence[Found]:
        return [one for one in self.found if text.upper() in one.instrument.symbol][:limit]

    def close(self) -> None:
        self.closed = True


def _rescaled(action: Action, actions: Sequence[Action]) -> Action:
    if action.kind != "dividend":
        return action
    value = action.value
    for split in actions:
        if split.kind == "split" and split.ex_date > action.ex_date:
            value /= split.value
    return replace(action, value=value)
