"""From the bytes of a file to checked rows: JSON with every digit of its numbers, CSV by its header."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import ValidationError

from pricecache.api.import_inputs import MOST_ROWS, ImportRow
from pricecache.api.ledger_inputs import RefusedRow
from pricecache.api.uploads import Upload
from pricecache.api.wire import Malformed, invalid_input
from pricecache.errors import Invalid

DELIMITERS = ",;\t"
ALIASES = {
    "action": "type",
    "tradeDate": "date",
    "ticker": "symbol",
    "shares": "quantity",
    "commission": "fees",
    "fee": "fees",
    "tax": "taxes",
    "accountName": "account",
    "comment": "note",
}
"""What brokers call fields, beside their names here."""
_NUMBERS = frozenset({"quantity", "price", "amount", "fees", "taxes", "fxRate", "ratio"})
_FREE_TEXT = frozenset({"note", "externalId", "link", "account", "toAccount"})
_REQUIRED = ("date", "type")
_GROUPED = re.compile(r"[+-]?\d[\d.,'’ \u00a0\u202f]*\d")
_POINT_ONLY = re.compile(r"[+-]?\d+\.?\d*")
_SPLIT_FIELD = re.compile(r"[a-z]+(?:_[a-z]+)*?(?=_(?:required|not|out))")


def _key(name: str) -> str:
    """`fx_rate`, `FX Rate` and `fxRate` are one name."""
    return "".join(char for char in name.casefold() if char.isalnum())


_FIELDS = {info.alias or name: name for name, info in ImportRow.model_fields.items()}
_BY_KEY = {_key(name): name for name in _FIELDS} | {_key(alias): name for alias, name in ALIASES.items()}
_BASES = {"astraded": "asTraded", "adjusted": "adjusted"}


@dataclass(frozen=True, slots=True, eq=False)
class ImportFile:
    """The rows of a file, each checked by itself. `lines`: of a CSV the line on which each begins, from 1; `columns`:
    the header that each field stands under."""

    rows: list[ImportRow | RefusedRow]
    lines: Sequence[int] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    def located(self, fault: Mapping[str, Any]) -> dict[str, Any]:
        """A fault of one of the rows with the line and the column it is in."""
        row, where = fault.get("row"), dict[str, Any]()
        if row is not None and row < len(self.lines):
            where["line"] = self.lines[row]
        column = self.columns.get(str(fault.get("field") or _field_of(str(fault.get("code")))))
        if column is not None and "column" not in fault:
            where["column"] = column
        return {**{name: fault[name] for name in ("row",) if name in fault}, **where, **fault}


def read_file(upload: Upload) -> ImportFile:
    """Blocking. Raises `Malformed` (codes `bad_encoding`, `malformed_json`, `malformed_csv`) and `Invalid` for a header
    that cannot be understood, and for no row or more than `MOST_ROWS`; what is wrong with a row stands in its place."""
    text = _decoded(upload.content)
    file = _from_csv(text) if upload.kind == "csv" else _from_json(text)
    if not file.rows:
        raise Invalid("There is no row in this file.", code="too_few")
    return file


def _decoded(content: bytes) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as exc:
        raise Malformed(
            f"The file is not UTF-8: byte {exc.start} cannot be read. Save it as UTF-8.", code="bad_encoding"
        ) from exc


def _checked(given: Any, faults: Sequence[dict[str, Any]] = ()) -> ImportRow | RefusedRow:
    try:
        row = ImportRow.model_validate(given)
    except ValidationError as exc:
        return RefusedRow([*faults, *invalid_input(exc, "body").rows])
    return RefusedRow(list(faults)) if faults else row


def _require_room(count: int) -> None:
    if count > MOST_ROWS:
        raise Invalid(f"A file may have {MOST_ROWS:,} rows; send it in parts.", code="too_many")


# JSON


def _from_json(text: str) -> ImportFile:
    try:
        # the hook is Python's, so that other threads get their turn while a long text is read
        found = json.loads(text, parse_float=_decimal, parse_constant=_no_number, object_pairs_hook=_object)
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"The file is no JSON: {exc}"[:200], code="malformed_json") from exc
    given = _rows_in(found)
    _require_room(len(given))
    del found
    given.reverse()
    rows = []
    while given:  # each is given back as soon as it is read
        rows.append(_checked(given.pop()))
    return ImportFile(rows)


def _decimal(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent that is too long: the row is refused by what it says
        return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _rows_in(found: Any) -> list[Any]:
    if isinstance(found, dict) and "transactions" in found:
        unknown = found.keys() - {"transactions", "total"}
        if unknown:
            name = min(unknown)[:64]
            raise Invalid(f"There is no field {name} beside transactions.", code="unknown_field")
        found = found["transactions"]
    elif isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise Invalid('The file is {"transactions": [...]}, or a list of transactions.', code="invalid_value")
    return found


# CSV


def _from_csv(text: str) -> ImportFile:
    records = _records(text, _delimiter(text))
    _, titles = next(records, (1, []))
    fields = _fields_of(titles)
    rows: list[ImportRow | RefusedRow] = []
    lines = []
    for line, cells in records:
        rows.append(_row_of(cells, fields))
        lines.append(line)
        _require_room(len(rows))
    columns = {name: title for name, title in zip(fields, titles, strict=True) if name is not None}
    return ImportFile(rows, lines, columns)


def _delimiter(text: str) -> str:
    """The one by which the header has most names that are known; of several the first of `DELIMITERS`."""
    start = len(text) - len(text.lstrip("\r\n"))
    header = re.match(r"[^\r\n]*", text[start : start + (1 << 16)])
    line = header[0] if header else ""
    return max(DELIMITERS, key=lambda one: sum(_key(title) in _BY_KEY for title in _cells(line, one)))


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank, with the line it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            detail = f"line {line}: {exc}; a cell with a delimiter, a quote or a line break stands in quotes"
            raise Malformed(detail, code="malformed_csv", line=line) from exc
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _fields_of(titles: Sequence[str]) -> list[str | None]:
    fields = [_BY_KEY.get(_key(title)) for title in titles]
    faults = []
    for place, (title, name) in enumerate(zip(titles, fields, strict=True)):
        if name is None and title.strip():
            faults.append(_of_header(title, "unknown_column", "there is no such field; take the column out"))
        elif name is not None and name in fields[:place]:
            faults.append(_of_header(title, "duplicate_column", f"another column is {name} already"))
    faults += [_of_header(name, "column_missing", "every row needs it") for name in _REQUIRED if name not in fields]
    if faults:
        first = f"{faults[0]['column']}: {faults[0]['detail']}"
        detail = first if len(faults) == 1 else f"{len(faults)} faults in the header; the first: {first}"
        raise Invalid(detail, code=faults[0]["code"] if len(faults) == 1 else "invalid", rows=faults)
    return fields


def _of_header(column: str, code: str, detail: str) -> dict[str, Any]:
    return {"column": column[:120], "code": code, "detail": detail}


def _row_of(cells: Sequence[str], fields: Sequence[str | None]) -> ImportRow | RefusedRow:
    if len(cells) != len(fields):
        detail = f"{len(cells)} cells, and the header has {len(fields)}"
        return RefusedRow([{"code": "cell_count", "detail": detail}])
    given: dict[str, str] = {}
    faults = []
    for name, cell in zip(fields, cells, strict=True):
        text = cell.strip()
        if not text:
            continue
        if name is None:
            faults.append({"code": "cell_count", "detail": "a cell under no header"})
        elif name in _NUMBERS and _is_ambiguous(text):
            detail = f"{text[:40]} can be read in two ways: write 1234.56, without separators of thousands"
            faults.append({"field": name, "code": "ambiguous_number", "detail": detail})
        else:
            given[name] = cell if name in _FREE_TEXT else _normal(name, text)
    return _checked(given, faults)


def _is_ambiguous(text: str) -> bool:
    return _GROUPED.fullmatch(text) is not None and _POINT_ONLY.fullmatch(text) is None


def _normal(name: str, text: str) -> str:
    if name == "type":
        return re.sub(r"[\s-]+", "_", text.lower())
    return _BASES.get(_key(text), text) if name == "quantityBasis" else text


def _field_of(code: str) -> str | None:
    """The field that a code such as `fx_rate_not_positive` is about."""
    found = _SPLIT_FIELD.match(code)
    if found is None:
        return None
    first, *rest = found[0].split("_")
    name = first + "".join(part.capitalize() for part in rest)
    return {"instrument": "symbol", "toAccount": "toAccountId"}.get(name, name)
