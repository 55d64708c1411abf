"""How far a server-sent stream of several portfolios was sent, as the id that its client comes again with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pricecache.realtime.frames import id_chunk

LOST = 10**15 - 1
"""A number greater than there are: of a portfolio whose place was another database's, so that it begins anew."""


@dataclass(frozen=True, slots=True)
class Place:
    """A number in the events of a portfolio."""

    epoch: str
    portfolio_id: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


class Places:
    """Loop-only.

    `came`: from where each portfolio goes on, as number and epoch (None: whichever it is), which stays its place until
    something of it is sent. Of those that are not among them nothing was told yet.
    """

    __slots__ = ("_is_told", "_sent")

    def __init__(self, came: Mapping[str, tuple[int, str | None]]) -> None:
        self._sent = dict(came)
        self._is_told = False

    def moved(self, place: Place) -> bytes:
        """The chunk in front of a message after which this is the place; empty when the client knows it already."""
        new = place.seq, place.epoch
        if self._is_told and self._sent.get(place.portfolio_id) == new:
            return b""
        self._is_told = True
        self._sent[place.portfolio_id] = new
        here = ((one, seq if epoch in (None, place.epoch) else LOST) for one, (seq, epoch) in self._sent.items())
        return id_chunk(f"{place.epoch}:" + ",".join(f"{one}={seq}" for one, seq in here))

    def forget(self, portfolio_id: str) -> None:
        self._sent.pop(portfolio_id, None)
