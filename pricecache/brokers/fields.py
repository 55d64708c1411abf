"""Fields of foreign JSON, read one by one: every fault is noted with its path, and nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from math import isfinite
from typing import Any

from pricecache.core.bars import day_number, day_of
from pricecache.core.currencies import ISO, is_known
from pricecache.core.text import plain_text
from pricecache.errors import Invalid

MOST_TOLD = 1000
"""Faults that are told one by one; all are counted."""
LONGEST_ID = 128
LONGEST_NAME = 200

_LIMIT = Decimal(10) ** 15
_FINEST = Decimal(1).scaleb(-12)
_PLAIN, _SHORT = 1e9, 14
_NUMBER = re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,3})?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_EARLIEST = day_number(date(1900, 1, 1))
_SEEMS_DATE = "a date is YYYY-MM-DD, and one that exists"


def let_go(found: Any) -> None:
    """Empty a list or dict, and those that are within it, step by step: a hundred thousand objects that go at once hold
    up every other thread for tens of milliseconds."""
    if isinstance(found, dict):
        while found:
            _let_go_of(found.popitem()[1])
    elif isinstance(found, list):
        while found:
            _let_go_of(found.pop())


def _let_go_of(one: Any) -> None:
    if isinstance(one, list):
        let_go(one)


class Faults:
    """What is wrong with a payload. `total`: all of it; `rows`: the first `MOST_TOLD`. Belongs to one thread."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.total = 0

    def add(self, path: str, code: str, detail: str) -> None:
        self.total += 1
        if len(self.rows) < MOST_TOLD:
            self.rows.append({"path": path, "code": code, "detail": detail})

    def raise_any(self) -> None:
        """`Invalid` with every fault: its own code when it is the only one, else `broker_data_refused`."""
        if not self.total:
            return
        first = self.rows[0]
        what = f"{first['path']}: {first['detail']}"
        if self.total == 1:
            raise Invalid(what, code=first["code"], rows=self.rows, total=1)
        detail = f"{self.total:,} faults; the first: {what}"
        raise Invalid(detail, code="broker_data_refused", rows=self.rows, total=self.total)


class Fields:
    """One object of a payload. Each method reads one field: what is missing is None, what is wrong is None and noted.
    `is_sound`: nothing was wrong so far. Belongs to one thread."""

    __slots__ = ("_before", "_given", "faults", "path")

    def __init__(self, given: Mapping[str, Any], path: str, faults: Faults) -> None:
        self._given = given
        self.faults = faults
        self._before = faults.total
        self.path = path

    @property
    def is_sound(self) -> bool:
        return self.faults.total == self._before

    def fault(self, name: str, code: str, detail: str) -> None:
        self.faults.add(f"{self.path}.{name}" if self.path else name, code, detail)

    def follows(self) -> None:
        """It is not sound for what is noted elsewhere."""
        self._before = -1

    def missing(self, name: str) -> None:
        self.fault(name, "missing", "this is needed")

    def has(self, name: str) -> bool:
        return self._given.get(name) is not None

    def unknown(self, known: frozenset[str]) -> None:
        """Note every field that is none of `known`."""
        for name in self._given.keys() - known:
            self.fault(plain_text(str(name), 64), "unknown_field", "there is no such field here")

    def id(self, name: str, *, required: bool = True) -> str | None:
        """Kept to the letter."""
        value = self._given.get(name)
        if isinstance(value, str) and 0 < len(value) <= LONGEST_ID and value.isprintable():
            return value
        if value is None:
            if required:
                self.missing(name)
            return None
        self.fault(name, "invalid_value", f"an id is text of 1 to {LONGEST_ID} printable characters")
        return None

    def text(self, name: str, longest: int = LONGEST_NAME) -> str | None:
        """In one line; what is longer is cut. Nothing but blanks is None."""
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, str):
            if len(value) <= longest and value.isprintable() and "  " not in value:
                return value.strip() or None
            return plain_text(value, longest) or None
        self.fault(name, "invalid_value", "this is text")
        return None

    def word(self, name: str, *, required: bool = False) -> str | None:
        """In small letters, for a choice of words."""
        value = self._given.get(name)
        if isinstance(value, str) and len(value) <= 64:
            return value.strip().lower()
        if value is None:
            if required:
                self.missing(name)
            return None
        self.fault(name, "invalid_value", "this is a word")
        return None

    def amount(self, name: str, *, required: bool = False) -> Decimal | None:
        """A number, or a decimal as text, of less than 1e15; what is finer than 1e-12 is rounded."""
        value = self._given.get(name)
        if type(value) is Decimal:
            text = str(value)
            if len(text) < _SHORT and "E" not in text and value.is_finite():
                return value  # most are: no more than twelve digits behind the point
        elif type(value) is float and -_PLAIN < value < _PLAIN:
            text = repr(value)
            if len(text) < _SHORT and "e" not in text:
                return Decimal(text)
        value = self._value(name, required)
        if value is None:
            return None
        found = _decimal(value)
        if found is None:
            self.fault(name, "invalid_value", "an amount is a number, or a decimal as text")
        elif not found.is_finite():
            self.fault(name, "not_finite", "an amount is a finite number")
        elif abs(found) >= _LIMIT:
            self.fault(name, "out_of_range", "an amount is below 1e15")
        else:
            return found if found.as_tuple().exponent >= -12 else _rounded(found)  # type: ignore[operator]
        return None

    def day(self, name: str, latest: int, *, since: int = _EARLIEST, required: bool = False) -> int | None:
        """Days since 1970-01-01, from `since` to `latest`, of 1900 and later."""
        value = self._value(name, required)
        if value is None:
            return None
        found = _day(value)
        if found is None:
            self.fault(name, "bad_date", _SEEMS_DATE)
        elif found < _EARLIEST:
            self.fault(name, "date_too_early", "a date lies after 1899")
        elif found < since:
            self.fault(name, "date_too_old", f"nothing here may be of before {day_of(since)}")
        elif found > latest:
            self.fault(name, "date_in_the_future", "the day has not come yet")
        else:
            return found
        return None

    def currency(self, name: str) -> str | None:
        value = self._given.get(name)
        if value is None or (isinstance(value, str) and value in ISO):
            return value
        found = value.strip() if isinstance(value, str) else ""
        found = found if is_known(found) else found.upper()
        if is_known(found):
            return found
        self.fault(name, "bad_currency", "a currency is a code of ISO 4217 such as USD, or BTC, ETH, USDT, USDC")
        return None

    def flag(self, name: str) -> bool | None:
        value = self._value(name, required=False)
        if value is None or isinstance(value, bool):
            return value
        self.fault(name, "invalid_value", "this is true or false")
        return None

    def object(self, name: str) -> Fields | None:
        value = self._value(name, required=False)
        if value is None:
            return None
        if isinstance(value, Mapping):
            return Fields(value, f"{self.path}.{name}" if self.path else name, self.faults)
        self.fault(name, "invalid_value", "this is an object")
        return None

    def objects(self, name: str, most: int, *, required: bool = False, may_be_null: bool = False) -> Iterator[Fields]:
        """Each object of a list. A list that is longer than `most` is noted, and none of it read. Without one there is
        nothing to read; null is no list, unless it `may_be_null`."""
        value = self._value(name, required)
        if value is None and (required or may_be_null or name not in self._given):
            return
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            self.fault(name, "invalid_value", "this is a list of objects")
            return
        if len(value) > most:
            self.fault(name, "too_many", f"there may be {most:,} of these")
            return
        place = f"{self.path}.{name}" if self.path else name
        for number, one in enumerate(value):
            if isinstance(one, Mapping):
                yield Fields(one, f"{place}[{number}]", self.faults)
            else:
                self.faults.add(f"{place}[{number}]", "invalid_value", "this is an object")

    def raw(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Each object of a list as it came, none of it checked."""
        value = self._given.get(name)
        return (one for one in value if isinstance(one, Mapping)) if isinstance(value, list | tuple) else iter(())

    def ends(self, name: str, field: str) -> list[str]:
        """What the first and the last object of a list have as the text `field`, where they have one."""
        value = self._given.get(name)
        if not isinstance(value, list) or not value:
            return []
        found = [one.get(field) for one in (value[0], value[-1]) if isinstance(one, Mapping)]
        return [str(one) for one in found if isinstance(one, str | date)]

    def is_same_as(self, other: Fields) -> bool:
        """Whether both say the same."""
        return self._given == other._given

    def _value(self, name: str, required: bool) -> Any:
        value = self._given.get(name)
        if value is None and required:
            self.missing(name)
        return value


class Listed:
    """The ids of what the lists called `name` have. Belongs to one thread.

    What names one that is none of them is a fault of code `unknown`, but not where a part of the lists could not be
    read: it follows from what is noted there."""

    def __init__(self, name: str, unknown: str) -> None:
        self._name = name
        self._unknown = unknown
        self._ids: set[str] = set()
        self._is_whole = True

    def read(
        self, part: Fields, most: int, field: str, *, required: bool = False
    ) -> Iterator[tuple[Fields, str | None]]:
        """Each object of the list in `part`, with its id in `field`."""
        before = part.faults.total
        found = list(part.objects(self._name, most, required=required))
        self._is_whole &= part.faults.total == before
        for given in found:
            name = given.id(field)
            if name is None:
                self._is_whole = False
            else:
                self._ids.add(name)
            yield given, name

    def check(self, given: Fields, field: str, name: str, kept: Container[str]) -> bool:
        """Whether it is among those that are `kept`: of sound ones all are."""
        if name in kept:
            return True
        if self._is_whole and name not in self._ids:
            given.fault(field, self._unknown, f"{self._name} has none of this id")
        else:
            given.follows()
        return False


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, float):
        return Decimal(repr(value)) if isfinite(value) else Decimal("NaN")
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value) if abs(value) < 10**15 else _LIMIT
    if isinstance(value, str):
        value = value.strip()
        if value.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return Decimal("NaN")
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    return value if isinstance(value, Decimal) else None


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_FINEST, ROUND_HALF_EVEN).normalize()


def _day(value: Any) -> int | None:
    if isinstance(value, str):
        return _day_of_text(value) if len(value) == 10 else None
    if isinstance(value, datetime):
        return day_number(value.date())
    return day_number(value) if isinstance(value, date) else None


@lru_cache(4096)
def _day_of_text(text: str) -> int | None:
    if not _DATE.fullmatch(text) or not text.isascii():
        return None
    try:
        return day_number(date.fromisoformat(text))
    except ValueError:
        return None
