"""All shares of a broker's accounts as rows of a ledger: walked backwards, put down, and walked forwards again."""

from __future__ import annotations

from collections.abc import Sequence

from pricecache.core.broker_pairs import BrokerRow, Pairs
from pricecache.core.ledger import Transaction
from pricecache.core.share_draft import Given, SharesWalked
from pricecache.core.share_forward import ShareForward
from pricecache.core.share_moves import go_short, move_apart
from pricecache.core.share_rows import put_down
from pricecache.core.share_walk import ShareWalk


def shares_of(
    given: Given,
    said: Sequence[BrokerRow],
    pairs: Pairs,
    twins: frozenset[int],
    rows: Sequence[Transaction],
    sources: Sequence[int],
) -> SharesWalked:
    """`said`: the broker's rows, with `pairs` of them; `twins`: places of those that are said twice and may be left
    out; `rows`: what they are in a ledger, with the place of each in `sources`."""
    walks = ShareWalk(given, said, pairs, twins).run(rows, sources)
    left_out = frozenset(source for walked in walks.values() for source in walked.left_out)
    found = SharesWalked(given, said, walks, left_out, list(rows), list(sources))
    if left_out:
        kept = [(row, source) for row, source in zip(rows, sources, strict=True) if source not in left_out]
        found.rows, found.sources = [row for row, _ in kept], [source for _, source in kept]
    put_down(found)
    move_apart(found)
    go_short(found)
    ShareForward(found).run()
    return found
