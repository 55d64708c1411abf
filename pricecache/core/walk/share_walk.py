"""Shares of a broker's accounts walked backwards from today's holdings, each account and instrument by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from operator import attrgetter

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import fitted
from pricecache.core.walk.backward import Move, Task, Walked, walk
from pricecache.core.walk.pairs import Pairs
from pricecache.core.walk.row import BrokerRow, Key
from pricecache.core.walk.share_draft import Given
from pricecache.core.walk.short_evidence import ShortEvidence
from pricecache.core.walk.splits import beside_the_market

_CLOSING = frozenset({"expiry", "exercise"})


class ShareWalk:
    """Walks every account and instrument of `given`. `twins`: places of rows that are said twice and may be left out.
    For one thread."""

    def __init__(
        self, given: Given, rows: Sequence[BrokerRow], pairs: Pairs, twins: frozenset[int] = frozenset()
    ) -> None:
        self._given, self._rows, self._pairs, self._twins = given, rows, pairs, twins
        self._today: dict[Key, Decimal] = defaultdict(lambda: ZERO)
        self._waypoints: dict[Key, dict[int, Decimal]] = defaultdict(lambda: defaultdict(lambda: ZERO))
        self._late: dict[Key, dict[int, list[tuple[int, Decimal]]]] = defaultdict(lambda: defaultdict(list))
        self._moves: dict[Key, list[Move]] = defaultdict(list)
        self._contracts: dict[Instrument, int | None] = {}
        self._sold_short: dict[Key, set[int]] = defaultdict(set)
        self._bought_back: dict[Key, set[int]] = defaultdict(set)

    def run(self, rows: Sequence[Transaction], sources: Sequence[int]) -> dict[Key, Walked]:
        """`rows`: what the broker's rows are in a ledger, with the place of each."""
        self._holdings()
        self._evidence()
        self._gather(rows, sources)
        keys = sorted({*self._today, *self._moves, *self._waypoints, *self._pairs.splits})
        return {key: self._walk(key) for key in keys}

    # what is given

    def _holdings(self) -> None:
        given = self._given
        for one in given.data.holdings:
            key = given.accounts[one.account], given.instruments[one.security]
            self._today[key] += fitted(one.quantity)
        for point in given.data.waypoints:
            if point.security is not None:
                key = given.accounts[point.account], given.instruments[point.security]
                self._waypoints[key][point.day] += fitted(point.quantity)
                self._late[key][point.day] += point.late

    def _evidence(self) -> None:
        """Of short positions: what may be written, and rows that say that they sell short or buy back."""
        securities = self._given.data.securities
        for name, instrument in self._given.instruments.items():
            security = securities.get(name)
            if security is not None and security.is_contract:
                self._contracts[instrument] = security.option.expires if security.option is not None else None
        for source, one in enumerate(self._rows):
            if one.instrument is None:
                continue
            key, action = (one.account, one.instrument), one.row.action
            if action == "short":
                self._sold_short[key].add(source)
            elif action == "cover" or (action in _CLOSING and one.quantity > 0 and one.instrument in self._contracts):
                self._bought_back[key].add(source)

    def _shorts(self, key: Key) -> ShortEvidence | None:
        """None where there is none."""
        is_contract = key[1] in self._contracts
        points = self._waypoints[key].values() if key in self._waypoints else ()
        is_owed = self._today.get(key, ZERO) < 0 or any(quantity < 0 for quantity in points)
        if not (is_contract or is_owed or key in self._sold_short or key in self._bought_back):
            return None
        return ShortEvidence(
            frozenset(self._sold_short.get(key, ())),
            frozenset(self._bought_back.get(key, ())),
            is_contract,
            self._contracts.get(key[1]),
        )

    def _gather(self, rows: Sequence[Transaction], sources: Sequence[int]) -> None:
        moves = self._moves
        for row, source in zip(rows, sources, strict=True):
            quantity, instrument = row.quantity, row.instrument
            if quantity is None or instrument is None:
                continue
            if row.to_account is not None:
                moves[row.account, instrument].append(Move(row.day, -quantity, 2, source))
                moves[row.to_account, instrument].append(Move(row.day, quantity, 2, source))
            elif row.comes_in:
                moves[row.account, instrument].append(Move(row.day, quantity, 1, source))
            elif row.goes_out:
                moves[row.account, instrument].append(Move(row.day, -abs(quantity), 3, source))

    def _walk(self, key: Key) -> Walked:
        data, moves = self._given.data, self._moves.get(key, [])
        market = self._given.market.splits(key[1])
        column = self._given.market.prices.get(key[1])
        calendar = column.closes.due if column is not None and len(column.closes.due) else None
        said = sorted(self._pairs.splits.get(key, ()), key=attrgetter("day"))
        split_rows = beside_the_market(said, market, calendar, data.first_day, data.day) if said else []
        twins = [one for one in moves if one.source in self._twins] if self._twins else []
        return walk(
            Task(
                self._today.get(key, ZERO), data.day, data.first_day, moves, market, split_rows,
                sorted(self._waypoints[key].items()) if key in self._waypoints else (), twins,
                shorts=self._shorts(key), late=self._late.get(key, {}),
            )
        )  # fmt: skip
