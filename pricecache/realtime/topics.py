"""What connections listen to together: channels of one portfolio, or prices of the same instruments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pricecache.realtime.connection import Topic
from pricecache.realtime.messages import STATES, Message, Numbered, batch, channel_of, encoded, instant, names_of
from pricecache.realtime.places import Place

TAIL = 256
"""Numbered events of a portfolio that are remembered for those who are behind."""
Event = Mapping[str, Any]


class PortfolioTopic(Topic):
    """Some channels of one portfolio."""

    __slots__ = ("_latest", "_latest_version", "mask", "portfolio")

    def __init__(self, portfolio: ListenedPortfolio, mask: int) -> None:
        super().__init__()
        self.portfolio = portfolio
        self.mask = mask
        self._latest: list[bytes] = []
        self._latest_version = -1

    @property
    def channels(self) -> list[str]:
        return names_of(self.mask)

    def latest(self) -> list[bytes]:
        """All values of its channels as they are now, encoded once for each state of them."""
        if self._latest_version != self.portfolio.version:
            values = self.portfolio.values.values()
            self._latest = [encoded(event) for event in values if channel_of(event["type"]) & self.mask]
            self._latest_version = self.portfolio.version
        return self._latest


class PriceTopic(Topic):
    """Prices of a set of instruments, or, with `portfolio`, of whatever that one holds."""

    __slots__ = ("_symbols", "portfolio")

    def __init__(self, symbols: frozenset[str], portfolio: ListenedPortfolio | None = None) -> None:
        super().__init__()
        self._symbols = symbols
        self.portfolio = portfolio

    @property
    def symbols(self) -> frozenset[str]:
        """By `Instrument.key`."""
        return self._symbols if self.portfolio is None else self.portfolio.holdings

    def message(self, events: list[bytes], at: float) -> Message:
        owner = None if self.portfolio is None else self.portfolio.id
        return Message(batch({"type": "prices", "seq": None, "portfolioId": owner, "at": instant(at)}, events))


class ListenedPortfolio:
    """What the hub knows of a portfolio that somebody listens to. Loop-only.

    `sent`: the last numbered event that was handed to those who are in step, None until the first of them knows.
    `pending`: those after it, without a gap. `tail`: the last ones sent. `values`: the latest states by key, all there
    are. `changed`: keys published since the last flush. `counts`: events published since then, by channel.
    `version`: grows with every change of a value. `is_held`: whether its holdings were told since. `is_deleted`: it is
    no more, which its listeners are about to be told. `is_doubted`: events may have gone unseen while its first
    listener was told where it stands. `since`: when the first of what is pending was published.
    """

    __slots__ = (
        "changed", "counts", "epoch", "holdings", "id", "is_deleted", "is_doubted", "is_held", "is_mending", "joining",
        "pending", "prices", "sent", "since", "tail", "topics", "values", "version",
    )  # fmt: skip

    def __init__(self, portfolio_id: str) -> None:
        self.id = portfolio_id
        self.epoch = ""
        self.sent: int | None = None
        self.pending: list[Numbered] = []
        self.tail: list[Numbered] = []
        self.values: dict[str, Event] = {}
        self.changed: dict[str, None] = {}
        self.counts: dict[int, int] = {}
        self.holdings: frozenset[str] = frozenset()
        self.topics: tuple[PortfolioTopic, ...] = ()
        self.prices: PriceTopic | None = None
        self.version = 0
        self.joining = 0
        self.is_mending = False
        self.is_held = False
        self.is_deleted = False
        self.is_doubted = False
        self.since: float | None = None

    @property
    def is_wanted(self) -> bool:
        return bool(self.joining or self.topics or self.prices is not None)

    @property
    def last(self) -> int | None:
        """The last numbered event heard of with all before it."""
        return self.pending[-1].seq if self.pending else self.sent

    def after(self, seq: int) -> Sequence[Numbered] | None:
        """The events sent since `seq`, or None when they are not all remembered."""
        assert self.sent is not None
        if seq >= self.sent:
            return ()
        if not self.tail or self.tail[0].seq > seq + 1:
            return None
        return self.tail[seq + 1 - self.tail[0].seq :]

    def advance(self) -> list[Numbered]:
        """Move what is pending over to what is sent."""
        events, self.pending = self.pending, []
        if events:
            self.sent = events[-1].seq
            self.tail += events
            if len(self.tail) > 2 * TAIL:
                del self.tail[:-TAIL]
        return events

    def adopt(self, values: Mapping[str, Event]) -> None:
        """Take the states of a snapshot that nothing was published of yet."""
        new = {k: event for k, event in values.items() if k not in self.values and channel_of(event["type"]) & STATES}
        if new:
            self.values |= new
            self.version += 1

    def message(self, kind: str, seq: int, at: float, events: list[bytes], **more: Any) -> Message:
        head = {"type": kind, "epoch": self.epoch, "seq": seq, "portfolioId": self.id, "at": instant(at), **more}
        return Message(batch(head, events), Place(self.epoch, self.id, seq))
