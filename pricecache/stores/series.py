"""The small documents of a series: its head, its provisional tail and its actions, to and from MongoDB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bson import Binary

from pricecache.core.actions import Action
from pricecache.core.bars import Bars, pack_bars, unpack_blocks
from pricecache.core.catalog import Entry, SeriesHead

Document = Mapping[str, Any]


def head_from(document: Document) -> SeriesHead:
    return SeriesHead(
        rev=document["rev"],
        years={int(year): rev for year, rev in document.get("years", {}).items()},
        first=document.get("first"),
        last=document.get("last"),
        count=document.get("n", 0),
        actions_rev=document.get("actionsRev", 0),
    )


def head_fields(head: SeriesHead) -> dict[str, Any]:
    return {
        "rev": head.rev,
        "years": {str(year): rev for year, rev in sorted(head.years.items())},
        "first": head.first,
        "last": head.last,
        "n": head.count,
        "actionsRev": head.actions_rev,
    }


def tail_from(document: Document) -> Bars:
    return unpack_blocks([document["tail"]]) if document.get("tail") else Bars.empty()


def tail_field(tail: Bars) -> Binary:
    return Binary(pack_bars(tail) if len(tail) else b"")


def actions_from(document: Document | None) -> tuple[Action, ...]:
    if document is None:
        return ()
    return tuple(
        Action(item["d"], item["k"], item["v"], item.get("cur"), item.get("src", ""), item.get("manual", False))
        for item in document["items"]
    )


def action_items(actions: Iterable[Action]) -> list[dict[str, Any]]:
    return [
        {"d": a.ex_date, "k": a.kind, "v": a.value, "cur": a.currency, "src": a.source, "manual": a.manual}
        for a in actions
    ]


def apply_head(entry: Entry, series: Document, actions: Document | None) -> bool:
    """Bring `entry` to what the database holds; what was derived from an older revision is dropped.

    False when the two documents are of different revisions, as when a commit came between reading the one and the
    other: then nothing is taken, and `entry` is doubted until it is read again.
    """
    head, tail, known = head_from(series), tail_from(series), actions_from(actions)
    if head.rev < entry.head.rev:
        return True  # read before our own last commit
    if head.actions_rev != (0 if actions is None else actions.get("r", 0)):
        entry.doubt()
        return False
    entry.current = True
    if head.rev != entry.head.rev:
        entry.sessions = entry.manual = None
    elif tail_field(tail) == tail_field(entry.tail) and known == entry.actions:
        return True
    entry.head, entry.tail, entry.actions = head, tail, known
    entry.touch()
    return True
