"""Rows without money that are a split of the market's, or no more than another id: shares that go and come again."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from pricecache.core.ledger import ZERO
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import Key, Placed

APART_DAYS = 3
_TELLS = frozenset({"merger", "split", "adjustment"})
"""What such a row is called where nothing else has to show that it is no sale and no delivery."""
_MAY_BE = _TELLS | {"transfer", "sell", "buy", "stock_distribution"}
_SAYS_SPLIT = frozenset({"transfer", "buy"})
_WORD = re.compile(r"\bsplit\b", re.IGNORECASE)
_SAME = Fraction(1, 100)


class ChangedId(NamedTuple):
    """Rows of one instrument and account that are a split on `day`, or, where as many came as went, nothing."""

    key: Key
    day: int
    members: tuple[Placed, ...]

    @property
    def is_split(self) -> bool:
        return bool(sum(one.quantity for _, one in self.members))


def changed_ids(live: Sequence[Placed], prices: BrokerPrices) -> Iterator[ChangedId]:
    """Of rows that no money moved with, at most `APART_DAYS` days apart: what goes and comes by a ratio of the
    market's, under whatever ids, or under another id by rows that are called as much; and what came alone, or went,
    with a note that says split, near one of the market's."""
    rows: dict[Key, list[Placed]] = defaultdict(list)
    for i, one in live:
        if one.instrument is not None and one.quantity and not one.cash and one.row.action in _MAY_BE:
            rows[one.account, one.instrument].append((i, one))
    for key, several in rows.items():
        taken: set[int] = set()
        for change in _of_one(key, several, prices):
            taken.update(i for i, _ in change.members)
            yield change
        rest = [(i, one) for i, one in several if i not in taken and one.row.action in _SAYS_SPLIT]
        for i, one in rest:
            day = one.row.day
            is_near = _WORD.search(one.row.note or "") and prices.split_ratio(key[1], *_near(day, day)) != 1
            if is_near:
                yield ChangedId(key, day, ((i, one),))


def _of_one(key: Key, rows: Sequence[Placed], prices: BrokerPrices) -> Iterator[ChangedId]:
    sides: dict[tuple[int, str | None, bool], list[Placed]] = defaultdict(list)
    for i, one in rows:
        sides[one.row.day, one.row.security, one.quantity > 0].append((i, one))
    free = {side for side in sides if side[2]}
    for out in sorted((side for side in sides if not side[2]), key=str):
        near = [into for into in free if abs(into[0] - out[0]) <= APART_DAYS]
        into = min(near, key=lambda side: (side[1] == out[1], abs(side[0] - out[0]), str(side)), default=None)
        if into is not None and _is_change(key, sides[out], sides[into], prices):
            free.discard(into)
            yield ChangedId(key, min(out[0], into[0]), (*sides[out], *sides[into]))


def _is_change(key: Key, out: Sequence[Placed], into: Sequence[Placed], prices: BrokerPrices) -> bool:
    gone, came = (abs(sum((one.quantity for _, one in side), ZERO)) for side in (out, into))
    days = [one.row.day for _, one in (*out, *into)]
    market = prices.split_ratio(key[1], *_near(min(days), max(days)))
    if market == 1 and out[0][1].row.security == into[0][1].row.security:
        return False
    called = all(one.row.action in _TELLS for _, one in (*out, *into))
    if gone == came:
        return market == 1 and (called or all(one.row.action == "transfer" for _, one in (*out, *into)))
    return called if market == 1 else _is_of(gone, came, market)


def _near(first: int, last: int) -> tuple[int, int]:
    return first - APART_DAYS - 1, last + APART_DAYS


def _is_of(gone: Decimal, came: Decimal, ratio: Fraction) -> bool:
    """But for a fraction, which is paid out or rounded."""
    made = Fraction(gone) * ratio
    return abs(made - Fraction(came)) < 1 or abs(Fraction(came) / made - 1) <= _SAME
