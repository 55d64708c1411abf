"""Stores what is settled of histories: soon after somebody asked, and of all portfolios by a job."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from pricecache import garbage
from pricecache.clock import Clock
from pricecache.core.history import ENGINE_VERSION
from pricecache.core.materialised import Materialised
from pricecache.core.portfolios import BEGINNING, LedgerState, Portfolio
from pricecache.errors import NotFound, PricecacheError, Unavailable
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.portfolio.planning import LedgerView
from pricecache.portfolio.wholes import Whole, Wholes
from pricecache.stores.commits import pause
from pricecache.stores.history import HistoryStore, StoredHead, Writing
from pricecache.stores.ledger import RACES, LedgerMoved, LedgerStore, gave_up
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.runs import RunHandle

log = structlog.get_logger(__name__)

MATERIALIZE_JOB = "materialize_history"
SOON_SECONDS = 1.0
"""How long the rows of a portfolio wait in memory, so that several changes of it are stored at once."""
PAGE = 200
"""Portfolios that are looked at with one query."""
MANY_LOTS = 20_000
"""Of all points together; fewer are of use to whoever goes on from there."""
TOGETHER = 25
"""Portfolios that are stored in one transaction."""


@dataclass(slots=True)
class MaterialiserStats:
    """Since the start: portfolios stored, those found as they should be, and failures."""

    stored: int = 0
    unchanged: int = 0
    failed: int = 0


class Materialiser:
    """Loop-only. One write a portfolio is one transaction, so that it may be killed at any moment."""

    def __init__(
        self,
        wholes: Wholes,
        store: HistoryStore,
        portfolios: PortfolioStore,
        ledgers: LedgerStore,
        all_ledgers: Ledgers,
        markets: Markets,
        heads: PortfolioHeads,
        clock: Clock,
    ) -> None:
        self._wholes = wholes
        self._store = store
        self._portfolios = portfolios
        self._ledgers = ledgers
        self._all_ledgers = all_ledgers
        self._markets = markets
        self._heads = heads
        self._clock = clock
        self._wanted: dict[str, None] = {}
        self._is_wanted = asyncio.Event()
        self._is_failing = False
        self.stats = MaterialiserStats()

    @property
    def pending(self) -> int:
        return len(self._wanted)

    def want(self, portfolio_id: str) -> None:
        """Store what is settled of this portfolio soon."""
        self._wanted[portfolio_id] = None
        self._is_wanted.set()

    async def run(self) -> None:
        """Store what is wanted until cancelled. What a stop leaves is found by the job, or by who asks next."""
        while True:
            await self._is_wanted.wait()
            await self._clock.sleep(SOON_SECONDS)
            self._is_wanted.clear()
            wanted, self._wanted = list(self._wanted), {}
            for portfolio_id in wanted:
                await self._try(portfolio_id)

    async def _try(self, portfolio_id: str) -> None:
        try:
            await self.materialise(await self._portfolios.find(portfolio_id))
        except NotFound:
            return
        except (PyMongoError, PricecacheError) as exc:
            self.stats.failed += 1
            tell = log.debug if self._is_failing else log.warning
            tell("history is not stored", portfolio=portfolio_id, error=str(exc)[:300])
            self._is_failing = True
        except Exception:  # one portfolio's fault is not the next one's
            self.stats.failed += 1
            log.exception("history is not stored", portfolio=portfolio_id)
        else:
            if self._is_failing:
                log.info("history is stored again")
            self._is_failing = False

    async def ahead(self, portfolio: Portfolio, view: LedgerView) -> Whole | None:
        """For `materialise`, while the change is stored that makes the ledger what `view` is: its history, computed and
        packed. None where one is stored, which will do for part of it."""
        if await self._store.head(portfolio.id) is not None:
            return None
        whole = await self._wholes.ahead(portfolio, view)
        if whole.kept is not None:
            await asyncio.to_thread(_pack, whole.kept)
        return whole

    async def materialise(self, portfolio: Portfolio, ahead: Whole | None = None) -> bool:
        """Store what is settled of one portfolio; whether anything had to be written. `ahead`: what was computed of it
        before, which counts if it still holds."""
        for attempt in range(RACES):
            before = await self._store.head(portfolio.id)
            if before is None and ahead is not None and self._wholes.came_true(ahead, portfolio):
                whole = ahead
            else:
                whole = await self._wholes.settled(portfolio, is_stored=before is not None)
            if _is_stored(before, whole.kept) or _is_older(before, whole.kept):
                self.stats.unchanged += 1
                return False
            try:
                await self._write(portfolio, before, whole.kept)
            except LedgerMoved:
                self._heads.forget(portfolio.id)
                self._wholes.forget(portfolio.id)
                await pause(attempt)
                portfolio = await self._portfolios.find(portfolio.id)
                continue
            self.stats.stored += 1
            if whole.kept is not None and _lots_in(whole.kept) >= MANY_LOTS:  # too many for the loop to give back
                await asyncio.to_thread(_let_go_of_lots, whole.kept)
            return True
        raise gave_up()

    async def _write(self, portfolio: Portfolio, before: StoredHead | None, kept: Materialised | None) -> None:
        if kept is None:
            await self._store.drop(portfolio.id)
            return
        head = await self._store.write(portfolio.id, before, kept, self._clock.time())
        self._wholes.stored(portfolio.id, kept, head.version)

    async def doubt(self, portfolio: Portfolio, day: int) -> None:
        """Let the rows of `day` (since 1970-01-01) and after be computed again. Raises `NotFound`."""
        for attempt in range(RACES):
            try:
                await self._ledgers.doubt(portfolio.id, day)
            except LedgerMoved:
                await pause(attempt)
                await self._portfolios.find(portfolio.id)
            else:
                self.want(portfolio.id)
                return
        raise gave_up()

    # the job

    async def run_job(self, run: RunHandle) -> None:
        """Parameters: `portfolioId` for one, else all that are behind; `force` computes everything again."""
        force, one = bool(run.parameters.get("force")), run.parameters.get("portfolioId")
        if one is not None:
            portfolio = await self._portfolios.find(str(one))
            await self._do(run, portfolio, force)
            run.progress(1, 1)
            return
        after, done, total = "", 0, await self._portfolios.count()
        while (page := await self._portfolios.page(after, PAGE)) and not run.stopping:
            after = page[-1].id
            await self._do_page(run, page, force)
            done += len(page)
            run.progress(done, max(done, total))
        if not run.stopping:
            run.progress(done, done)

    async def _do_page(self, run: RunHandle, page: Sequence[Portfolio], force: bool) -> None:
        if force:
            for portfolio in page:
                if not run.stopping:
                    await self._do(run, portfolio, force)
            return
        ids = [portfolio.id for portfolio in page]
        states, heads = await self._ledgers.states(ids), {head.portfolio: head for head in await self._store.heads(ids)}
        behind = [one for one in page if self._is_behind(one, states.get(one.id), heads.get(one.id))]
        run.count("upToDate", len(page) - len(behind))
        for low in range(0, len(behind), TOGETHER):
            if run.stopping:
                return
            batch = behind[low : low + TOGETHER]
            for portfolio in await self._do_together(run, batch, heads):
                await self._do(run, portfolio, force)

    async def _do_together(
        self, run: RunHandle, batch: Sequence[Portfolio], heads: Mapping[str, StoredHead]
    ) -> Sequence[Portfolio]:
        """Several portfolios with a few operations; those that have to be done one by one are given back."""
        try:
            writings, alone = await self._computed(batch, heads)
            stored = await self._store.write_many(writings, self._clock.time()) if writings else []
        except Exception:  # whatever it is: told by who does them one by one
            return batch
        for one, head in zip(writings, stored, strict=True):
            self._wholes.stored(one.portfolio, one.kept, head.version)
        self.stats.stored += len(stored)
        run.count("stored", len(stored))
        return alone

    async def _computed(
        self, batch: Sequence[Portfolio], heads: Mapping[str, StoredHead]
    ) -> tuple[list[Writing], list[Portfolio]]:
        await self._all_ledgers.read_many(batch)
        known = [heads[one.id] for one in batch if one.id in heads]
        stored = await self._store.load_many(known, {one.id: one.rules.cash_tracking for one in batch})
        writings, alone = [], []
        for portfolio in batch:
            whole = await self._wholes.settled(portfolio, stored.get(portfolio.id))
            before = heads.get(portfolio.id)
            if whole.kept is None or _is_stored(before, whole.kept) or _is_older(before, whole.kept):
                alone.append(portfolio)
            else:
                writings.append(Writing(portfolio.id, before, whole.kept))
            await asyncio.sleep(0)
        return writings, alone

    async def _do(self, run: RunHandle, portfolio: Portfolio, force: bool) -> None:
        try:
            if force:
                await self.doubt(portfolio, BEGINNING)
            written = await self.materialise(portfolio)
        except NotFound:
            return
        except (PyMongoError, PricecacheError) as exc:
            self.stats.failed += 1
            code = exc.code if isinstance(exc, PricecacheError) else "database_unavailable"
            run.fail_portfolio(portfolio.id, code, str(exc)[:300])
        except Exception:  # one portfolio's fault is not the next one's
            self.stats.failed += 1
            log.exception("history is not stored", portfolio=portfolio.id)
            run.fail_portfolio(portfolio.id, "internal_error", "Our fault: the log has it.")
        else:
            run.count("stored" if written else "unchanged")

    def _is_behind(self, portfolio: Portfolio, state: LedgerState | None, head: StoredHead | None) -> bool:
        if state is None:
            return False
        if head is None:
            return state.places > 0
        ours = state.generation, ENGINE_VERSION, portfolio.rules
        if (head.stamp.generation, head.stamp.engine, head.stamp.rules) != ours:
            return True
        try:
            known = self._markets.settled(head.stamp.series)
        except Unavailable:  # a calendar is being built: the next run sees to it
            return False
        if known is None:
            return True
        facts, settled = known
        return facts != head.stamp.series or head.through < min(settled, self._wholes.today(portfolio) - 1)


def _pack(kept: Materialised) -> None:
    for point in kept.points:
        point.pack()


def _lots_in(kept: Materialised) -> int:
    """Of its points that could do without, packed as they are by now."""
    books = (point.unpacked.book for point in kept.points if point.packed is not None and point.unpacked is not None)
    return sum(len(held.lots) for book in books for held in book.positions)


def _let_go_of_lots(kept: Materialised) -> None:
    for point in kept.points:
        if point.packed is not None and point.unpacked is not None:
            lots: list[Any] = [lot for held in point.unpacked.book.positions for lot in held.lots]
            point.unpacked = None
            garbage.let_go(lots)


def _is_stored(before: StoredHead | None, kept: Materialised | None) -> bool:
    if before is None or kept is None:
        return before is None and kept is None
    return kept.stored == (before.version, kept.through) and before.stamp == kept.stamp


def _is_older(before: StoredHead | None, kept: Materialised | None) -> bool:
    """Whether `kept` was computed from less than what is stored: another daemon has heard of more."""
    if before is None or kept is None:
        return False
    ours, theirs = kept.stamp.series, before.stamp.series
    return any(
        facts is not None and (own := ours.get(key)) is not None and own.rev < facts.rev
        for key, facts in theirs.items()
    )
