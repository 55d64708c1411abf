"""Who of several daemons does a piece of work: leases that run out by themselves, by the database's clock."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from typing import Any

import pymongo
from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache.clock import Clock

_made_here: set[str] = set()


def new_owner() -> str:
    """A name for a daemon of this process, as no other has or had: `host:pid:random`."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    _made_here.add(owner)
    return owner


def is_gone(owner: str, mine: str) -> bool:
    """Whether `owner` was in a process of this machine, as `mine` is, that no longer exists. False when in doubt."""
    (host, pid), (my_host, my_pid) = _host_and_pid(owner), _host_and_pid(mine)
    if host != my_host or not pid.isdecimal() or owner == mine:
        return False
    if pid == my_pid:  # a former process may have had this one's number
        return owner not in _made_here
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _host_and_pid(owner: str) -> tuple[str, str]:
    host, _, pid = owner.rpartition(":")[0].rpartition(":")
    return host, pid


class LeaseStore:
    """Leases on named pieces of work. Loop-only.

    A lease saves work and protects nothing: who was paused may still believe in one that ran out. `epoch` grows with
    every change of owner; a write that must not come from a former owner carries it in its filter. Two tasks of one
    owner are one owner. `ttl`: seconds until a lease that is not renewed runs out; the server's clock counts them, so
    that daemons' clocks may differ.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], owner: str, ttl: float = 15.0) -> None:
        self.owner = owner
        self.ttl = ttl
        self._leases = database["leases"]

    async def acquire(self, name: str) -> int | None:
        """Take or keep the lease: its epoch, or None while somebody else has it."""
        me: dict[str, Any] = {"$literal": self.owner}
        is_free = {"$lte": [{"$ifNull": ["$until", "$$NOW"]}, "$$NOW"]}
        is_mine = {"$eq": ["$owner", me]}
        may_have = {"$or": [is_free, is_mine]}
        taken = {
            "owner": me,
            "until": self._until(),
            "epoch": {"$add": [{"$ifNull": ["$epoch", 0]}, {"$cond": [is_mine, 0, 1]}]},
        }
        # One round trip that also makes the document: an update that leaves everything as it is writes nothing.
        lease = await self._leases.find_one_and_update(
            {"_id": name},
            [{"$replaceWith": {"$cond": [may_have, {"$mergeObjects": ["$$ROOT", taken]}, "$$ROOT"]}}],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert lease is not None  # an upsert that returns the document after it
        return int(lease["epoch"]) if lease["owner"] == self.owner else None

    async def renew(self, name: str, epoch: int) -> bool:
        """Count the time from now again; False when the lease went to somebody else."""
        result = await self._leases.update_one(self._mine(name, epoch), [{"$set": {"until": self._until()}}])
        return result.matched_count == 1

    async def release(self, name: str, epoch: int) -> None:
        """Give the lease back, if it is still this one."""
        await self._leases.update_one(self._mine(name, epoch), [{"$set": {"owner": None, "until": "$$NOW"}}])

    async def is_released(self, name: str) -> bool:
        """Whether the last owner gave the lease back, rather than has it or let it run out."""
        return await self._leases.find_one({"_id": name, "owner": {"$ne": None}}, {"_id": 1}) is None

    async def expire_dead(self) -> int:
        """Let the leases of processes of this machine that no longer exist run out now, and count them."""
        owners = await self._leases.distinct("owner", {"owner": {"$ne": None}})
        dead = [owner for owner in owners if is_gone(owner, self.owner)]
        if not dead:
            return 0
        held = {"$expr": {"$gt": ["$until", "$$NOW"]}}
        result = await self._leases.update_many({"owner": {"$in": dead}, **held}, [{"$set": {"until": "$$NOW"}}])
        return result.modified_count

    def _mine(self, name: str, epoch: int) -> dict[str, Any]:
        return {"_id": name, "owner": self.owner, "epoch": epoch}

    def _until(self) -> dict[str, Any]:
        return {"$add": ["$$NOW", round(self.ttl * 1000)]}


class Lease:
    """A lease that was got, for as long as the work goes on. Loop-only."""

    def __init__(self, store: LeaseStore, name: str, epoch: int, clock: Clock) -> None:
        self.name = name
        self.epoch = epoch
        self._store = store
        self._clock = clock
        self._count_from(clock.monotonic())

    async def keep(self) -> bool:
        """Renew it once a third of its time is gone; False when it is lost.

        It is lost when somebody else has it, and when the database has not answered for all of its time.
        """
        asked_at = self._clock.monotonic()
        if asked_at < self._due:
            return True
        try:
            with pymongo.timeout(self._store.ttl / 3):
                is_held = await self._store.renew(self.name, self.epoch)
        except PyMongoError:
            return self._clock.monotonic() < self._ends
        self._count_from(asked_at)
        return is_held

    async def give_back(self) -> None:
        """Let others have it at once. A database that does not answer leaves it to run out."""
        with contextlib.suppress(PyMongoError), pymongo.timeout(self._store.ttl / 3):
            await self._store.release(self.name, self.epoch)

    def _count_from(self, asked_at: float) -> None:
        self._due, self._ends = asked_at + self._store.ttl / 3, asked_at + self._store.ttl
