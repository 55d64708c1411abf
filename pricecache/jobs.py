"""The jobs: when they run, what runs now, who asked for it, and how a stop waits for it.

A run on request and a run by the schedule are the same thing. The schedule itself follows the machine's wall clock,
because APScheduler has no other; everything else goes by the given clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pymongo
import structlog
from pymongo.errors import PyMongoError

from pricecache.background import cancelled
from pricecache.clock import Clock
from pricecache.errors import NotFound, PricecacheError, Unavailable
from pricecache.stores.leases import Lease, LeaseStore
from pricecache.stores.runs import HEARTBEAT_SECONDS, Run, RunHandle, RunState, RunStore, new_run_id, plain_text

if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    from pricecache.metrics import Metrics

log = structlog.get_logger(__name__)

_TICK_SECONDS = 1.0
_STORE_SECONDS = 2.0
_LAST_STORE_SECONDS = 5.0  # how a run ended is tried for longer: nothing comes after it
_ABANDONED_CHECK_SECONDS = 60.0
_CANCEL_SECONDS = 5.0


Routine = Callable[[RunHandle], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """A job: what it does and when.

    `every`: seconds between two scheduled runs, or `cron` (five fields) in `time_zone`; neither: only on request.
    `first_after`: seconds after the start until the first scheduled run; None: one interval. `concurrency`: how many
    runs with different parameters go on at once, the others queue. `key`: what of the parameters makes two requests
    equal, so that the second joins the first; None: all of them, as JSON. `uneventful_kept_seconds`: how long the
    record of a scheduled run is kept in which nothing failed; None: as long as any. `fails_with_all`: whether a run of
    which every single instrument failed has failed itself; its `total` is then the number of its instruments.
    """

    id: str
    routine: Routine
    every: float | None = None
    cron: str | None = None
    time_zone: str = "UTC"
    first_after: float | None = None
    concurrency: int = 1
    key: Callable[[Mapping[str, Any]], Hashable] | None = None
    uneventful_kept_seconds: float | None = None
    fails_with_all: bool = False

    @property
    def is_scheduled(self) -> bool:
        return self.every is not None or self.cron is not None

    def key_of(self, parameters: Mapping[str, Any]) -> Hashable:
        return self.key(parameters) if self.key else json.dumps(parameters, sort_keys=True)


class RunTicket:
    """A run that was asked for; who asks for an equal one while it goes on gets the same run."""

    def __init__(self, run: Run, over: asyncio.Event) -> None:
        self.run = run
        self._over = over

    async def finished(self, timeout: float | None = None) -> bool:
        """Wait for the end of the run, at most `timeout` seconds of real time; whether it has ended.

        To stop waiting does not stop the run.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._over.wait()
        return self._over.is_set()


@dataclass(slots=True)
class _Job:
    definition: JobDefinition
    slots: asyncio.Semaphore
    is_leased: bool = False
    missed: int = 0
    failing: bool = False
    last: Run | None = None


@dataclass(slots=True, eq=False)
class _Active:
    job: _Job
    key: Hashable
    handle: RunHandle
    lease: Lease | None = None
    saved_at: float = 0.0
    recorded: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def run(self) -> Run:
        return self.handle.run

    @property
    def ticket(self) -> RunTicket:
        return RunTicket(self.run, self.over)


class Jobs:
    """All jobs of this daemon. Loop-only. `drain_seconds`: how long a stop waits for what runs."""

    def __init__(
        self,
        runs: RunStore,
        leases: LeaseStore,
        clock: Clock,
        *,
        drain_seconds: float = 30.0,
        metrics: Metrics | None = None,
    ) -> None:
        self._runs = runs
        self._leases = leases
        self._clock = clock
        self._drain_seconds = drain_seconds
        self._metrics = metrics
        self._jobs: dict[str, _Job] = {}
        self._active: dict[str, _Active] = {}  # by run id
        self._joinable: dict[tuple[str, Hashable], _Active] = {}
        self._scheduler: AsyncIOScheduler | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False
        self._is_unstored = False

    def define(self, job: JobDefinition) -> None:
        """Add a job. All are added before `start`."""
        self._jobs[job.id] = _Job(job, asyncio.Semaphore(job.concurrency))

    # Starting and stopping

    async def start(self) -> None:
        """Begin to follow the schedule, after ending in the log the runs that daemons left behind."""
        await self._clear_abandoned()
        await self._recall_last_runs()
        scheduler = await asyncio.to_thread(_new_scheduler)  # an import of some 80 ms
        self._listen(scheduler)
        for job in self._jobs.values():
            self._schedule(scheduler, job.definition)
        scheduler.start()
        self._scheduler = scheduler
        self._watch = asyncio.create_task(self._watch_abandoned(), name="abandoned-runs")

    async def stop(self) -> None:
        """Start nothing more, ask what runs to end, wait `drain_seconds` for it, then cancel it. Idempotent."""
        self._stopping = True
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)  # cancels the ticks, which only watch: runs are tasks of their own
            self._scheduler = None
        if self._watch is not None:
            await cancelled([self._watch])
            self._watch = None
        for active in self._active.values():
            active.handle.stopping = True
        await self._drain()

    async def _drain(self) -> None:
        tasks = [active.task for active in self._active.values() if active.task is not None]
        if not tasks:
            return
        patience = asyncio.create_task(self._clock.sleep(self._drain_seconds), name="drain")
        everything = asyncio.create_task(_all_done(tasks), name="drained")
        await asyncio.wait([patience, everything], return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        everything.cancel()
        if late := [task for task in tasks if not task.done()]:
            log.warning("running jobs are cancelled", runs=[task.get_name() for task in late])
            for task in late:
                task.cancel()
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)

    # The schedule

    def _schedule(self, scheduler: AsyncIOScheduler, definition: JobDefinition) -> None:
        if not definition.is_scheduled:
            return
        options: dict[str, Any] = {"id": definition.id, "args": [definition.id]}
        if definition.first_after is not None:
            options["next_run_time"] = datetime.now(UTC) + timedelta(seconds=definition.first_after)
        scheduler.add_job(self._tick, trigger_of(definition), **options)

    def _listen(self, scheduler: AsyncIOScheduler) -> None:
        from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED

        scheduler.add_listener(self._on_missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        scheduler.add_listener(self._on_broken, EVENT_JOB_ERROR)
        # It would write a line for each of these by itself.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)

    def _on_missed(self, event: Any) -> None:
        job = self._jobs[event.job_id]
        if any(active.job is job for active in self._active.values()):  # else another daemon still runs it
            self._miss(job, "the run before still goes on")

    def _on_broken(self, event: Any) -> None:
        if not self._stopping:  # which cancels the ticks
            log.error("a scheduled run could not be started", job=event.job_id, exc_info=event.exception)

    def _miss(self, job: _Job, reason: str) -> None:
        job.missed += 1
        tell = log.warning if job.missed == 1 else log.debug
        tell("a scheduled run is missed", job=job.definition.id, reason=reason, missed=job.missed)

    async def _tick(self, job_id: str) -> None:
        job = self._jobs[job_id]
        active = self._joinable.get((job_id, job.definition.key_of({})))
        if active is None and not self._stopping:
            active = await self._start_scheduled(job)
        if active is not None:
            await active.over.wait()  # so that the scheduler knows that it goes on

    async def _start_scheduled(self, job: _Job) -> _Active | None:
        lease = None
        if not job.is_leased:
            try:
                lease = await self._lease_or_watch(job)
            except PyMongoError as exc:
                self._miss(job, f"the database does not answer: {type(exc).__name__}")
                return None
            if lease is None or self._stopping:
                await self._give_back(job, lease)
                return None
        active = self._joinable.get((job.definition.id, job.definition.key_of({})))  # begun meanwhile
        if active is None:
            active = self._begin(job, {}, "schedule")
        active.lease = active.lease or lease
        return active

    async def _lease_or_watch(self, job: _Job) -> Lease | None:
        # While another daemon runs it there is nothing to do, unless that daemon dies before it is done.
        while (lease := await self._lease(job)) is None:
            await self._clock.sleep(self._leases.ttl / 3)
            with pymongo.timeout(_STORE_SECONDS):
                if job.is_leased or await self._leases.is_released(job.definition.id):
                    return None
        return lease

    # Running

    async def run(self, job_id: str, parameters: Mapping[str, Any], requested_by: str = "operator") -> RunTicket:
        """Run a job now, or join an equal run that is queued or going on. `parameters`: JSON values.

        Returns when the run is on record. Works before `start` too. Raises `NotFound` with code `unknown_job`, and
        `Unavailable` with code `stopping`.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id}. Jobs are {', '.join(self._jobs)}.", code="unknown_job")
        active = self._joinable.get((job_id, job.definition.key_of(parameters)))
        if active is None:
            if self._stopping:
                raise Unavailable("The daemon is stopping.", code="stopping", retry_after=5.0)
            active = self._begin(job, dict(parameters), requested_by)
        await active.recorded.wait()
        return active.ticket

    def active(self) -> list[Run]:
        """The runs that are queued or going on here, oldest first."""
        return [active.run for active in self._active.values()]

    async def get(self, run_id: str) -> Run:
        """A run of any daemon, one of this daemon's as it is right now. Raises `NotFound` with code `unknown_run`."""
        active = self._active.get(run_id)
        return active.run if active is not None else await self._runs.get(run_id)

    def _begin(self, job: _Job, parameters: dict[str, Any], requested_by: str) -> _Active:
        run = Run(new_run_id(), job.definition.id, "queued", requested_by, parameters, self._clock.time())
        run.owner = self._leases.owner
        active = _Active(job, job.definition.key_of(parameters), RunHandle(run))
        self._active[run.id] = active
        self._joinable[(run.job, active.key)] = active
        active.task = asyncio.create_task(self._go(active), name=f"{run.job} {run.id}")
        return active

    async def _go(self, active: _Active) -> None:
        attending = asyncio.create_task(self._attend(active), name=f"attending {active.run.id}")
        try:
            if active.job.slots.locked():
                await self._record(active)
            async with active.job.slots:
                await self._work(active)
        except asyncio.CancelledError:
            self._end(active, "interrupted", "It was stopped before it was done.")
            raise
        finally:
            await cancelled([attending])
            await self._finish(active)

    async def _work(self, active: _Active) -> None:
        run, definition = active.run, active.job.definition
        if active.handle.stopping:
            self._end(active, "interrupted", "The daemon stopped before it began.")
            return
        run.state, run.started_at = "running", self._clock.time()
        await self._record(active)
        await self._lease_if_free(active)
        try:
            await definition.routine(active.handle)
        except Exception as exc:
            self._end(active, "failed", exc.detail if isinstance(exc, PricecacheError) else f"{exc!r}")
            self._tell_failure(active, exc)
        else:
            self._end_well(active)

    async def _record(self, active: _Active) -> None:
        await self._save(active)
        active.recorded.set()

    def _end_well(self, active: _Active) -> None:
        if active.handle.stopping and (active.run.total is None or active.run.done < active.run.total):
            self._end(active, "interrupted", "It was stopped before it was done.")
            return
        if active.job.definition.fails_with_all and _all_failed(active.handle):
            self._end(active, "failed", f"Of {len(active.handle.failed)} not one succeeded.")
            return
        self._end(active, "succeeded", None)
        if active.job.failing:
            active.job.failing = False
            log.info("job works again", job=active.run.job)

    def _tell_failure(self, active: _Active, exc: Exception) -> None:
        tell = log.debug if active.job.failing else log.error
        active.job.failing = True
        tell("job failed", job=active.run.job, run=active.run.id, exc_info=exc)

    def _end(self, active: _Active, state: RunState, error: str | None) -> None:
        active.run.state, active.run.error = state, None if error is None else plain_text(error)
        active.run.ended_at = self._clock.time()
        kept_seconds = active.job.definition.uneventful_kept_seconds
        is_uneventful = state == "succeeded" and not active.run.failures_total
        if kept_seconds is not None and is_uneventful and active.run.requested_by == "schedule":
            active.run.kept_until = active.run.ended_at + kept_seconds
        del self._joinable[(active.run.job, active.key)]  # who asks from now on wants a run that begins from now on
        active.job.last = active.run
        if self._metrics is not None:
            self._metrics.job_runs.labels(active.run.job, state).inc()
            if state == "succeeded":
                self._metrics.job_last_success.labels(active.run.job).set(active.run.ended_at)

    async def _finish(self, active: _Active) -> None:
        try:
            await self._save(active)
            await self._give_back(active.job, active.lease)
        finally:
            del self._active[active.run.id]
            active.recorded.set()
            active.over.set()

    # What goes on beside a run: its progress into the log, its lease renewed

    async def _attend(self, active: _Active) -> None:
        while True:
            await self._clock.sleep(_TICK_SECONDS)
            await self._keep_lease(active)
            if active.handle.changed or self._clock.monotonic() - active.saved_at >= HEARTBEAT_SECONDS:
                await self._save(active)

    async def _save(self, active: _Active) -> None:
        active.handle.changed = False
        active.saved_at = self._clock.monotonic()
        is_last = active.run.is_finished and not self._is_unstored
        seconds = _LAST_STORE_SECONDS if is_last else _STORE_SECONDS
        try:
            with pymongo.timeout(seconds):
                await self._runs.save(active.run)
        except PyMongoError as exc:
            # A run is worth more than its record. What is never stored is ended as interrupted by the next start.
            active.handle.changed = True
            tell = log.debug if self._is_unstored else log.warning
            self._is_unstored = True
            tell("runs cannot be recorded", run=active.run.id, error=f"{exc!r}")
        else:
            if self._is_unstored:
                self._is_unstored = False
                log.info("runs are recorded again")

    async def _lease(self, job: _Job) -> Lease | None:
        job.is_leased = True  # before the await: no two runs of this daemon may think that it is theirs to give back
        epoch = None
        try:
            with pymongo.timeout(_STORE_SECONDS):
                epoch = await self._leases.acquire(job.definition.id)
        finally:
            job.is_leased = epoch is not None
        return None if epoch is None else Lease(self._leases, job.definition.id, epoch, self._clock)

    async def _lease_if_free(self, active: _Active) -> None:
        # A run on request goes ahead without the lease; with it, other daemons leave their ticks out meanwhile.
        if active.job.definition.is_scheduled and not active.job.is_leased:
            with contextlib.suppress(PyMongoError):
                active.lease = await self._lease(active.job)

    async def _keep_lease(self, active: _Active) -> None:
        if active.lease is not None and not await active.lease.keep():
            log.warning("lease lost", job=active.run.job, run=active.run.id)
            active.lease, active.job.is_leased = None, False
            active.handle.stopping = True

    async def _give_back(self, job: _Job, lease: Lease | None) -> None:
        if lease is not None:
            job.is_leased = False
            await lease.give_back()

    # Runs of daemons that are gone

    async def _watch_abandoned(self) -> None:
        while True:
            await self._clock.sleep(_ABANDONED_CHECK_SECONDS)
            await self._clear_abandoned()

    async def _clear_abandoned(self) -> None:
        try:
            with pymongo.timeout(_STORE_SECONDS):
                await self._leases.expire_dead()
                if count := await self._runs.interrupt_abandoned(self._leases.owner):
                    log.info("abandoned runs are marked as interrupted", runs=count)
        except PyMongoError as exc:
            log.debug("abandoned runs cannot be looked for", error=f"{exc!r}")

    async def _recall_last_runs(self) -> None:
        for job in self._jobs.values():
            with contextlib.suppress(PyMongoError), pymongo.timeout(_STORE_SECONDS):
                finished = [run for run in await self._runs.recent(5, job.definition.id) if run.is_finished]
                job.last = job.last or next(iter(finished), None)

    # Telling

    def status(self) -> dict[str, Any]:
        """`{"running", "jobs": [{"id", "nextRun", "lastRun", "lastOutcome", "durationMs", "missed", "running"}]}`.

        Instants as RFC 3339 in UTC. `nextRun` is None for a job that only runs on request; `missed` counts since the
        start; `running` is the id of the oldest run that is queued or going on, or None.
        """
        return {
            "running": self.is_following_schedule,
            "jobs": [self._status_of(job) for job in self._jobs.values()],
        }

    @property
    def is_following_schedule(self) -> bool:
        return self._scheduler is not None and not self._stopping

    def next_run(self, job_id: str) -> datetime | None:
        """When the schedule next starts this job, or None."""
        scheduled = self._scheduler.get_job(job_id) if self._scheduler is not None else None
        return None if scheduled is None else scheduled.next_run_time

    def _status_of(self, job: _Job) -> dict[str, Any]:
        last, next_run = job.last, self.next_run(job.definition.id)
        running = [active.run.id for active in self._active.values() if active.job is job]
        duration = None if last is None or last.ended_at is None else round((last.ended_at - last.started_at) * 1000)
        return {
            "id": job.definition.id,
            "nextRun": None if next_run is None else _rfc3339(next_run.timestamp()),
            "lastRun": None if last is None else _rfc3339(last.started_at),
            "lastOutcome": None if last is None else last.state,
            "durationMs": duration,
            "missed": job.missed,
            "running": running[0] if running else None,
        }


async def _all_done(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


def _all_failed(handle: RunHandle) -> bool:
    # more failures than the total: some of them lie outside of what it counts, and say nothing of that
    total, failed = handle.run.total, len(handle.failed)
    return total is not None and failed > 0 and total in (0, failed)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _new_scheduler() -> AsyncIOScheduler:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    # A tick that comes late, after a suspend for instance, is still run, once. These count only inside job_defaults.
    defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    return AsyncIOScheduler(timezone=UTC, job_defaults=defaults)


def trigger_of(definition: JobDefinition) -> Any:
    """What tells a scheduler when a job that is scheduled starts."""
    from zoneinfo import ZoneInfo

    from apscheduler.triggers.cron import CronTrigger
    from apscheduler.triggers.interval import IntervalTrigger

    if definition.cron is not None:
        return CronTrigger.from_crontab(definition.cron, ZoneInfo(definition.time_zone))
    return IntervalTrigger(seconds=definition.every, timezone=UTC)
