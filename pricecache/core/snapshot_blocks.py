"""Some hundred portfolios side by side as the close of a day needs them: what each holds, and since when it only holds.

A portfolio that nothing happens to is worth quantities times prices, account by account, on every day. So a block keeps
the quantities, the cost, and what may make them others: the generation of the ledger, and the series it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.packed_arrays import pack_arrays, unpack_arrays
from pricecache.errors import Corrupt

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

SIZE = 256
"""Portfolios in a block: a year of its days is read in some ten milliseconds for one of them."""
NEVER = 1 << 40
"""Since when a portfolio only holds that has to be computed from its ledger every time."""
_CODE_BITS = 24
_LETTERS = 27
_NONE_HELD: Numbers = np.empty(0, np.int64)


def price_code(series: int, base: str) -> int:
    """The column that the price of `series` in the whole currency `base` stands in, as a number."""
    return series << _CODE_BITS | currency_number(base)


def cash_code(currency: str, base: str) -> int:
    """The same of one of the whole `currency`; negative."""
    return -1 - price_code(currency_number(currency), base)


def of_code(code: int) -> tuple[int | str, str]:
    """The series or the currency, and the base currency, that a column is of."""
    plain = code if code >= 0 else -1 - code
    what, base = plain >> _CODE_BITS, currency_of(plain & ((1 << _CODE_BITS) - 1))
    return (what if code >= 0 else currency_of(what)), base


def currency_number(currency: str) -> int:
    """At most five letters as a number below 2^24."""
    number = 0
    for letter in currency:
        number = number * _LETTERS + (ord(letter) - 64)
    return number


def currency_of(number: int) -> str:
    letters = ""
    while number:
        number, letter = divmod(number, _LETTERS)
        letters = chr(letter + 64) + letters
    return letters


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One portfolio as it is held from the end of day `since` (since 1970-01-01) on, at `generation` of its ledger.

    `accounts`: in the order of its history. `costs`: float64, of the portfolio and of each account, rounded.
    `counts`: int64, for each account how many entries are positions, and how many cash. `columns`: int64, codes of
    the entries in that order, `quantities`: float64, of each. `series`: int64, everything that its history depends on;
    `is_rate`: bool, which of these are exchange rates.
    """

    portfolio: str
    generation: int
    since: int
    currency: str
    time_zone: str
    tracks_cash: bool
    accounts: tuple[str, ...]
    costs: Floats
    counts: Numbers
    columns: Numbers
    quantities: Floats
    series: Numbers
    is_rate: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Block:
    """Members in columns. Immutable.

    By portfolio: `generation`, `since`, `currency` (as a number), `zone` (place in `zones`), `tracks_cash`, `accounts`
    (how many), `entries`, `named` (series). `costs`: by scope, the portfolio before its accounts. `counts`: two for
    each account. `column`: of each entry a place in `codes`, `quantities` beside it. `series`: places in `watched`,
    `is_rate` beside those.
    """

    portfolios: tuple[str, ...]
    account_ids: tuple[tuple[str, ...], ...]
    zones: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, members: Sequence[Member]) -> Block:
        zones = tuple(sorted({one.time_zone for one in members}))
        codes, column = _numbered([one.columns for one in members])
        watched, series = _numbered([one.series for one in members])
        is_rate = np.zeros(len(watched), np.bool_)
        is_rate[series] = _joined([one.is_rate for one in members], np.bool_)
        arrays: dict[str, NDArray[Any]] = {
            "generation": np.array([one.generation for one in members], np.int64),
            "since": np.array([one.since for one in members], np.int64),
            "currency": np.array([currency_number(one.currency) for one in members], np.int64),
            "zone": np.array([zones.index(one.time_zone) for one in members], np.int64),
            "tracks_cash": np.array([one.tracks_cash for one in members], np.bool_),
            "accounts": np.array([len(one.accounts) for one in members], np.int64),
            "entries": np.array([len(one.columns) for one in members], np.int64),
            "named": np.array([len(one.series) for one in members], np.int64),
            "costs": _joined([one.costs for one in members], np.float64),
            "counts": _joined([one.counts for one in members], np.int64).astype(np.int32),
            "codes": codes,
            "column": column.astype(np.int32),
            "quantities": _joined([one.quantities for one in members], np.float64),
            "watched": watched,
            "is_rate": is_rate,
            "series": series.astype(np.int32),
        }
        ids = tuple(one.portfolio for one in members)
        return cls(ids, tuple(one.accounts for one in members), zones, arrays)

    def __len__(self) -> int:
        return len(self.portfolios)

    @property
    def scopes(self) -> int:
        """Portfolios and their accounts, counted."""
        return len(self.portfolios) + int(self.arrays["accounts"].sum())

    @cached_property
    def _places(self) -> dict[str, Numbers]:
        """Where the parts of each portfolio begin, and end."""
        a = self.arrays
        each = {"accounts": a["accounts"], "scopes": a["accounts"] + 1, "entries": a["entries"], "named": a["named"]}
        return {name: np.concatenate([_NONE_HELD, [0], np.cumsum(counts)]) for name, counts in each.items()}

    def member(self, place: int) -> Member:
        a = self.arrays
        cut = {name: slice(int(at[place]), int(at[place + 1])) for name, at in self._places.items()}
        own = cut["accounts"]
        series = a["series"][cut["named"]]
        return Member(
            self.portfolios[place], int(a["generation"][place]), int(a["since"][place]),
            currency_of(int(a["currency"][place])), self.zones[int(a["zone"][place])], bool(a["tracks_cash"][place]),
            self.account_ids[place], a["costs"][cut["scopes"]],
            a["counts"][2 * own.start : 2 * own.stop].astype(np.int64),
            a["codes"][a["column"][cut["entries"]]], a["quantities"][cut["entries"]], a["watched"][series],
            a["is_rate"][series],
        )  # fmt: skip

    def pack(self) -> bytes:
        """All but the names."""
        return pack_arrays(self.arrays)

    @classmethod
    def unpack(
        cls,
        kept: bytes,
        portfolios: Sequence[str],
        account_ids: Sequence[Sequence[str]],
        zones: Sequence[str],
    ) -> Block:
        """The inverse. Raises `Corrupt` when it is damaged, or is not of these."""
        arrays = unpack_arrays(kept)
        accounts = [len(ids) for ids in account_ids]
        if len(portfolios) != len(accounts) or arrays["accounts"].tolist() != accounts:
            raise Corrupt("A block of snapshots is not of the portfolios that it names.")
        return cls(tuple(portfolios), tuple(tuple(ids) for ids in account_ids), tuple(zones), arrays)


def _numbered(parts: Sequence[Numbers]) -> tuple[Numbers, Numbers]:
    found, places = np.unique(_joined(parts, np.int64), return_inverse=True)
    return found, places.astype(np.int64)


def _joined(parts: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *parts])
