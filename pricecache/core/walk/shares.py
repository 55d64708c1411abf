"""All shares of a broker's accounts as rows of a ledger: walked backwards, put down, and walked forwards again."""

from __future__ import annotations

from collections.abc import Sequence

from pricecache.core.ledger import Transaction
from pricecache.core.walk.in_lieu import FractionsPaid
from pricecache.core.walk.pairs import Pairs
from pricecache.core.walk.row import BrokerRow
from pricecache.core.walk.share_draft import Given, SharesWalked
from pricecache.core.walk.share_forward import ShareForward
from pricecache.core.walk.share_moves import go_short, move_apart
from pricecache.core.walk.share_rows import put_down
from pricecache.core.walk.share_walk import ShareWalk


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
    alone = [(i, one) for i, one in enumerate(said) if i not in pairs.taken and i not in twins]
    fractions = FractionsPaid(alone, given.prices)
    found = SharesWalked(given, said, walks, left_out, fractions, list(rows), list(sources))
    found.drop(left_out)
    put_down(found)
    move_apart(found)
    go_short(found)
    ShareForward(found).run()
    found.drop(found.fractions.used)  # what they paid is the money of a sale, and no income
    found.delays = [*pairs.delays, *found.fractions.delays]
    return found
