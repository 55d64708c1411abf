"""What was captured before beside what is captured now: final rows stay, whatever order portfolios stand in since."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pricecache.core.snapshot_values import FIELDS
from pricecache.stores.snapshots import FINAL, DayRows, Roster


def kept_over(row: DayRows, own: Roster, before: DayRows, roster: Roster | None, *, is_again: bool) -> DayRows:
    """`row`, whose portfolios are `own`, over what was captured `before` of `roster` (None: nobody knows whose): what
    is final there stays, unless it is to be captured again and is another now."""
    row = replace(row, version=before.version)
    if row.roster != before.roster:
        if roster is None:
            return row
        before = aligned(before, roster, own)
    counts = np.array([len(ids) + 1 for ids in own.accounts], np.int64)
    is_kept = (before.flags & FINAL) > 0
    if is_again and len(counts):
        same = np.isclose(row.values, before.values, rtol=0, atol=0.005, equal_nan=True).all(axis=0)
        is_kept &= np.logical_and.reduceat(same, np.cumsum(counts) - counts) & ((row.flags & FINAL) > 0)
    values = np.where(is_kept.repeat(counts), before.values, row.values)
    flags, at = np.where(is_kept, before.flags, row.flags), np.where(is_kept, before.at, row.at)
    return replace(row, values=values, flags=flags, at=at)


def aligned(rows: DayRows, roster: Roster, own: Roster) -> DayRows:
    """Rows of one roster in the order of another; nothing of what has other accounts there, or is not there."""
    counts = [len(ids) + 1 for ids in roster.accounts]
    starts = np.cumsum([0, *counts]).tolist()
    place = {name: at for at, name in enumerate(roster.portfolios)}
    values = np.full((FIELDS, sum(len(ids) + 1 for ids in own.accounts)), np.nan)
    flags, at = np.zeros(len(own.portfolios), np.uint8), np.zeros(len(own.portfolios), np.int64)
    scope = 0
    for number, (name, accounts) in enumerate(zip(own.portfolios, own.accounts, strict=True)):
        old = place.get(name)
        if old is not None and roster.accounts[old] == accounts:
            values[:, scope : scope + counts[old]] = rows.values[:, starts[old] : starts[old + 1]]
            flags[number], at[number] = rows.flags[old], rows.at[old]
        scope += len(accounts) + 1
    return replace(rows, values=values, flags=flags, at=at)
