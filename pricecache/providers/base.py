"""What a price provider is: one protocol, and the values that go in and come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from pricecache.core.actions import Action
from pricecache.core.asking import Capability, Found, Pace
from pricecache.core.bars import Bars
from pricecache.core.instruments import Instrument, InstrumentKind
from pricecache.core.quotes import Quote
from pricecache.errors import ProviderError, ProviderUnavailable, RateLimited

CLOSE_MISSING = "the close is missing"
"""The reason of a row of `History.rejected` that is no data: the vendor has not brought it yet."""

Basis = Literal["as_traded", "split_adjusted"]


@dataclass(frozen=True, slots=True)
class History:
    """A provider's answer for one instrument and a range of sessions.

    `bars`: as the provider gave them, ascending, close finite in every row; never a session that was not final at
    the time of asking. `basis`: whether those bars have splits worked into them; `actions`: all splits and dividends
    with an ex-date inside the range, values as the provider gave them; with basis `split_adjusted` also every later
    split, as it is worked into the bars though it is not of the range. `currency`: the provider's word, or None.
    `first_available`: the first session the provider has at all, when the answer shows it (a range asked from before
    it), else None. `rejected`: rows that could not be used, as `(session or None, reason)`. `notice`: what every
    reader should be told about this data, or None. `source`: the provider that answered, set by whoever called it;
    `kind` and `name`: what the provider says the instrument is, or None.
    """

    bars: Bars
    basis: Basis = "as_traded"
    actions: tuple[Action, ...] = ()
    currency: str | None = None
    first_available: int | None = None
    rejected: tuple[tuple[int | None, str], ...] = ()
    notice: str | None = None
    source: str = ""
    kind: InstrumentKind | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Quotes:
    """A provider's answer for many instruments: the quotes it had, and why the others have none."""

    quotes: Sequence[Quote]
    failures: Mapping[Instrument, ProviderError] = field(default_factory=dict)

    def checked(self) -> Quotes:
        """This answer, unless it is none: raises the failure when nothing came and all of it failed for a reason that
        is the provider's and not an instrument's (`RateLimited`, `ProviderUnavailable`)."""
        if not self.quotes and self.failures:
            reasons = list(self.failures.values())
            if all(isinstance(reason, RateLimited | ProviderUnavailable) for reason in reasons):
                raise reasons[0]
        return self


class Provider(Protocol):
    """A source of prices. Methods block; each is called in a thread of the provider's own pool.

    Raises, of the families in `errors`: `SymbolNotFound`, `RateLimited`, `ProviderUnavailable`, `ProviderAnswerBad`.
    Vendor exceptions end inside. `final_lag` is how many seconds after a close a session's bar is final there;
    `always_moving` says that its quotes move outside market hours too (the sample provider only). `control` is an
    instrument that it has as long as it works, which is asked for to tell an outage from a dead symbol; None if there
    is no such.
    """

    name: str
    capabilities: frozenset[Capability]
    pace: Pace
    final_lag: float
    always_moving: bool
    control: Instrument | None

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        """Bars and actions of sessions `start` to `end` (days since 1970-01-01), both included."""

    def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        """The latest quote of each. A failure of the provider raises; one of an instrument alone is in `failures`."""

    def search(self, text: str, limit: int) -> Sequence[Found]:
        """At most `limit` instruments that `text` may mean, the likeliest first. Called only with the capability."""

    def close(self) -> None:
        """Give back sockets and files."""


@runtime_checkable
class CountsRequests(Protocol):
    """A provider that counts what it really asks its vendor, where `Pace.costs` is only the usual."""

    def requests_of_thread(self) -> int:
        """Requests that were sent in this thread, ever."""
