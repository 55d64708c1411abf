"""Some hundred portfolios side by side as the close of a day needs them: what each holds, and since when it only holds.

A portfolio that nothing happens to is worth quantities times prices, account by account, on every day. So a block keeps
the quantities, the cost, and what may make them others: the generation of the ledger, and the series it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.packed_arrays import pack_arrays, unpack_arrays
from pricecache.errors import Corrupt

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Ids = NDArray[np.bytes_]

SIZE = 256
"""Portfolios in a block: a year of its days is read in some ten milliseconds for one of them."""
NEVER = 1 << 40
"""Since when a portfolio only holds that has to be computed from its ledger every time."""
CODE_BITS = 24
"""Of a column's number, the lowest: of its base currency."""
_LETTERS = 27
_ID = "S24"


def price_code(series: int, base: str) -> int:
    """The column that the price of `series` in the whole currency `base` stands in, as a number."""
    return series << CODE_BITS | currency_number(base)


def cash_code(currency: str, base: str) -> int:
    """The same of one of the whole `currency`; negative."""
    return -1 - price_code(currency_number(currency), base)


def of_code(code: int) -> tuple[int | str, str]:
    """The series or the currency, and the base currency, that a column is of."""
    plain = code if code >= 0 else -1 - code
    what, base = plain >> CODE_BITS, currency_of(plain & ((1 << CODE_BITS) - 1))
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
    the entries in that order, `quantities`: float64, of each. `series`: int64, everything that its history depends on.
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


@dataclass(frozen=True, eq=False)
class Block:
    """Members in columns. Immutable.

    `ids`: S24, of the portfolios. `arrays`, by portfolio: `generation`, `since`, `currency` (as a number), `zone` (a
    place in `zones`), `tracks_cash`, `accounts` (how many), `entries`, `named` (series beside those held).
    `account_ids`: S24, one after the other. `costs`: by scope, the portfolio before its accounts. `counts`: two for
    each account. `column`: of each entry a place in `codes`, `quantities` beside it. `series`: places in `watched`.
    """

    ids: Ids
    zones: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, members: Sequence[Member]) -> Block:
        zones = tuple(sorted({one.time_zone for one in members}))
        codes, column = _numbered([one.columns for one in members])
        others = [_not_held(one) for one in members]
        watched, series = _numbered([one.series[at] for one, at in zip(members, others, strict=True)])
        accounts = [account for one in members for account in one.accounts]
        arrays: dict[str, NDArray[Any]] = {
            "generation": np.array([one.generation for one in members], np.int64),
            "since": np.array([one.since for one in members], np.int64),
            "currency": np.array([currency_number(one.currency) for one in members], np.int32),
            "zone": np.array([zones.index(one.time_zone) for one in members], np.uint16),
            "tracks_cash": np.array([one.tracks_cash for one in members], np.bool_),
            "accounts": _small(np.array([len(one.accounts) for one in members], np.int64)),
            "entries": _small(np.array([len(one.columns) for one in members], np.int64)),
            "named": _small(np.array([len(at) for at in others], np.int64)),
            "account_ids": ids_of(accounts),
            "costs": _joined([one.costs for one in members], np.float64),
            "counts": _small(_joined([one.counts for one in members], np.int64)),
            "codes": codes,
            "column": _small(column),
            "quantities": _joined([one.quantities for one in members], np.float64),
            "watched": watched,
            "series": _small(series),
        }
        return cls(ids_of([one.portfolio for one in members]), zones, arrays)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + sum(one.nbytes for one in self.arrays.values())

    @cached_property
    def portfolios(self) -> tuple[str, ...]:
        return names_of(self.ids)

    @cached_property
    def account_ids(self) -> tuple[tuple[str, ...], ...]:
        """Of each portfolio."""
        names, at = names_of(self.arrays["account_ids"]), self._places["accounts"].tolist()
        return tuple(names[low:high] for low, high in pairwise(at))

    @property
    def latest(self) -> int:
        """The last day since which one of them only holds."""
        since = self.arrays["since"]
        return int(since[since < NEVER].max(initial=-NEVER))

    @property
    def scopes(self) -> int:
        """Portfolios and their accounts, counted."""
        return len(self.ids) + len(self.arrays["account_ids"])

    @cached_property
    def _places(self) -> dict[str, Numbers]:
        """Where the parts of each portfolio begin, and end."""
        a = self.arrays
        each = {"accounts": a["accounts"], "scopes": a["accounts"].astype(np.int64) + 1, "entries": a["entries"]}
        each["named"] = a["named"]
        return {name: np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]) for name, counts in each.items()}

    def member(self, place: int) -> Member:
        a = self.arrays
        cut = {name: slice(int(at[place]), int(at[place + 1])) for name, at in self._places.items()}
        own = cut["accounts"]
        columns, series = a["codes"][a["column"][cut["entries"]]], a["series"][cut["named"]]
        held = np.unique(columns[columns >= 0] >> CODE_BITS)
        return Member(
            self.portfolios[place], int(a["generation"][place]), int(a["since"][place]),
            currency_of(int(a["currency"][place])), self.zones[int(a["zone"][place])], bool(a["tracks_cash"][place]),
            self.account_ids[place], a["costs"][cut["scopes"]],
            a["counts"][2 * own.start : 2 * own.stop].astype(np.int64), columns, a["quantities"][cut["entries"]],
            np.concatenate([held, a["watched"][series]]),
        )  # fmt: skip

    def pack(self) -> bytes:
        """All but the ids and the names of zones."""
        return pack_arrays(self.arrays)

    @classmethod
    def unpack(cls, kept: bytes, ids: bytes, zones: Sequence[str]) -> Block:
        """The inverse. Raises `Corrupt` when it is damaged, or is not of these."""
        arrays = unpack_arrays(kept)
        found = unpack_ids(ids)
        if len(arrays["accounts"]) != len(found) or int(arrays["accounts"].sum()) != len(arrays["account_ids"]):
            raise Corrupt("A block of snapshots is not of the portfolios that it names.")
        return cls(found, tuple(zones), arrays)


def ids_of(names: Sequence[str]) -> Ids:
    """At most 24 letters each."""
    return np.array([name.encode() for name in names], _ID)


def names_of(ids: Ids) -> tuple[str, ...]:
    return tuple(one.decode() for one in ids.tolist())


def unpack_ids(kept: bytes) -> Ids:
    """Of the bytes of an array of ids. Raises `Corrupt`."""
    try:
        return np.frombuffer(kept, _ID)
    except ValueError as exc:
        raise Corrupt("Ids cannot be read.") from exc


def _not_held(one: Member) -> Numbers:
    """Places of the series that no position of it says already."""
    held = one.columns[one.columns >= 0] >> CODE_BITS
    return np.flatnonzero(~np.isin(one.series, held))


def _small(numbers: Numbers) -> NDArray[Any]:
    """In as few bytes as these places and counts take."""
    return numbers.astype(np.uint16 if not len(numbers) or int(numbers.max()) < 1 << 16 else np.int32)


def _numbered(parts: Sequence[Numbers]) -> tuple[Numbers, Numbers]:
    found, places = np.unique(_joined(parts, np.int64), return_inverse=True)
    return found, places.astype(np.int64)


def _joined(parts: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *parts])
