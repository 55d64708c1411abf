"""The connection to MongoDB: how it is made, waited for, and what stands in the database before anything uses it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pymongo
import structlog
from pymongo import ASCENDING, DESCENDING, AsyncMongoClient, IndexModel, ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS
from pricecache.errors import Misconfigured

log = structlog.get_logger(__name__)

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Database = AsyncDatabase[Document]

RUNS_KEPT_SECONDS = 30 * DAY_SECONDS
DAY_RANGES_KEPT_SECONDS = 35 * DAY_SECONDS

DUPLICATE_KEY, WRITE_CONFLICT = 11000, 112
"""Codes of the server's errors, as the next one."""
_NAMESPACE_EXISTS = 48
_UNAUTHORIZED, _AUTHENTICATION_FAILED = 13, 18
_ANSWER_SECONDS = 2.0
_PATIENCE = 1.0  # a server that answers at once is not worth a line in the log


@dataclass(frozen=True, slots=True)
class Index:
    """An index that `prepare` sees to. `expire_after`: seconds after the date in its only key when a document goes.
    `only_with`: only documents that have this field stand in it."""

    collection: str
    keys: tuple[tuple[str, int], ...]
    unique: bool = False
    expire_after: int | None = None
    only_with: str | None = None

    def model(self) -> IndexModel:
        options: dict[str, Any] = {"unique": True} if self.unique else {}
        if self.expire_after is not None:
            options["expireAfterSeconds"] = self.expire_after
        if self.only_with is not None:
            options["partialFilterExpression"] = {self.only_with: {"$exists": True}}
        return IndexModel(list(self.keys), **options)


# Made beforehand: one that a transaction has to make itself conflicts with every other transaction that does.
ORDINARY = (
    *("series", "bar_years", "revisions", "actions"),
    *("portfolios", "accounts", "transactions", "ledger_state", "ledger_batches", "history", "history_heads"),
    *("orders", "stream_events", "broker_data", "reconstruction_findings"),
    *("snapshots", "snapshot_blocks", "snapshot_rosters", "snapshot_days", "snapshot_gone"),
)
TIME_SERIES: Mapping[str, Mapping[str, str]] = {
    "bars_1d": {"timeField": "ts", "metaField": "meta", "granularity": "hours"},
    # A bucket spans a day of it and holds 1,000 rows at most. With a sample a minute "seconds" made seven times the
    # buckets (one an hour instead of one a session); with one every two seconds both made the same number, 12 a
    # session, because the 1,000 rows end a bucket first. 5 to 7 bytes a sample on disk then, 3 to 4 with the latter.
    "samples": {"timeField": "ts", "metaField": "meta", "granularity": "minutes"},
}
_EXPIRY = {"samples": {"expireAfterSeconds": 30 * DAY_SECONDS}}
"""At first; a setting changes it (`stores/samples.py`)."""
INDEXES = (
    Index("instruments", (("symbol", ASCENDING), ("market", ASCENDING)), unique=True),
    Index("revisions", (("batch", ASCENDING),), unique=True),
    Index("runs", (("job", ASCENDING), ("startedAt", DESCENDING))),
    Index("runs", (("startedAt", DESCENDING),), expire_after=RUNS_KEPT_SECONDS),
    Index("runs", (("keptUntil", ASCENDING),), expire_after=0),
    Index("quote_batches", (("at", ASCENDING),), expire_after=3600),
    Index("bars_1d", (("meta.s", ASCENDING), ("ts", ASCENDING))),
    Index("samples", (("meta.s", ASCENDING), ("ts", ASCENDING))),
    Index("api_keys", (("digest", ASCENDING),), unique=True),
    Index("searches", (("at", ASCENDING),), expire_after=DAY_SECONDS),
    Index("page_sessions", (("expiresAt", ASCENDING),), expire_after=0),
    Index("stream_tickets", (("expiresAt", ASCENDING),), expire_after=0),
    Index("quarantine", (("series", ASCENDING), ("session", ASCENDING))),
    Index("quarantine", (("state", ASCENDING), ("lastSeen", DESCENDING))),
    Index("quarantine", (("expiresAt", ASCENDING),), expire_after=0),
    Index("portfolios", (("owner", ASCENDING), ("_id", ASCENDING))),
    Index("day_ranges", (("portfolio", ASCENDING), ("day", ASCENDING))),
    Index("day_ranges", (("at", ASCENDING),), expire_after=DAY_RANGES_KEPT_SECONDS),
    Index("accounts", (("portfolio", ASCENDING), ("_id", ASCENDING))),
    Index("transactions", (("portfolio", ASCENDING), ("day", ASCENDING), ("place", ASCENDING))),
    Index("ledger_batches", (("portfolio", ASCENDING), ("_id", ASCENDING))),
    Index("transactions", (("portfolio", ASCENDING), ("externalId", ASCENDING)), unique=True, only_with="externalId"),
    Index("orders", (("portfolio", ASCENDING), ("number", DESCENDING))),
    Index("orders", (("portfolio", ASCENDING), ("open", ASCENDING), ("number", DESCENDING)), only_with="open"),
    Index("broker_data", (("connection", ASCENDING), ("number", ASCENDING)), only_with="connection"),
    Index("stream_events", (("portfolio", ASCENDING), ("last", ASCENDING)), unique=True),
    Index("stream_events", (("expiresAt", ASCENDING),), expire_after=0),
    Index("connections", (("user", ASCENDING), ("_id", ASCENDING))),
    Index("connections", (("postedAs", ASCENDING),), unique=True, only_with="postedAs"),
    Index("connections", (("item", ASCENDING),), unique=True, only_with="item"),
    Index("connections", (("nextFetchAt", ASCENDING),), only_with="nextFetchAt"),
    Index("reconstructions", (("user", ASCENDING), ("_id", ASCENDING))),
    Index("reconstructions", (("portfolio", ASCENDING),)),
    Index("reconstructions", (("state", ASCENDING), ("queuedAt", ASCENDING))),
    Index("reconstructions", (("walked.series", ASCENDING), ("walked.last", ASCENDING)), only_with="walked.series"),
    Index("reconstructions", (("walked.awaited", ASCENDING),), only_with="walked.awaited"),
    Index("reconstructions", (("running", ASCENDING),), unique=True, only_with="running"),
    Index("reconstructions", (("slot", ASCENDING),), unique=True, only_with="slot"),
    Index("symbol_mappings", (("keys", ASCENDING),), unique=True),
    Index("symbol_mappings", (("changedAt", ASCENDING),)),
    Index("user_mappings", (("user", ASCENDING), ("keys", ASCENDING)), unique=True),
    Index("user_mappings", (("shared", ASCENDING),), only_with="shared"),
    Index("ledger_state", (("unseen", ASCENDING),), only_with="unseen"),
    Index("snapshot_rosters", (("portfolios", ASCENDING),)),
)
_SCHEMA = hashlib.sha256(repr((ORDINARY, sorted(TIME_SERIES.items()), INDEXES)).encode()).hexdigest()[:16]


def connect(uri: str, *, app_name: str = "pricecache", timeout_ms: int = 20000) -> Client:
    """A client whose acknowledged writes are on disk on a majority, and whose reads see only such writes.

    Connects at first use. `timeout_ms`: how long an operation waits for a server that can take it; bound the whole of
    an operation with `pymongo.timeout`. What is given here wins over the URI's options. Dates come back aware, in UTC.
    Raises `Misconfigured` with code `mongodb_uri`.
    """
    try:
        return AsyncMongoClient(
            uri,
            appname=app_name,
            w="majority",
            journal=True,
            readConcernLevel="majority",
            retryWrites=True,
            retryReads=True,
            tz_aware=True,
            uuidRepresentation="standard",
            connectTimeoutMS=2000,
            heartbeatFrequencyMS=2000,
            serverSelectionTimeoutMS=timeout_ms,
            waitQueueTimeoutMS=timeout_ms,
        )
    except (InvalidURI, ConfigurationError, ValueError):
        # The library's own words may quote the password.
        raise Misconfigured(
            "The MongoDB URI cannot be read. Write it as mongodb://user:password@host:27017/?replicaSet=name, with "
            "reserved characters in user and password percent-encoded.",
            code="mongodb_uri",
        ) from None


async def wait_until_writable(client: Client, clock: Clock) -> None:
    """Return once the server is the primary of a replica set (or a mongos); until then wait, for ever.

    Logs once when a wait begins and once when it ends. Raises `Misconfigured` with code `not_a_replica_set` or
    `mongodb_credentials`.
    """
    began = clock.monotonic()
    waiting, pause = False, 0.005
    await _open(client)
    while (reason := await _why_not_writable(client)) is not None:
        if not waiting and clock.monotonic() - began >= _PATIENCE:
            waiting = True
            log.warning("waiting for mongodb", reason=reason)
        # Heartbeats tell; nothing is sent, because a connection opened before rs.initiate() would never have sessions.
        await clock.sleep(pause)
        pause = min(0.25, pause * 1.5)
    if waiting:
        log.info("mongodb is writable", waited_seconds=round(clock.monotonic() - began, 1))


async def _open(client: Client) -> None:
    try:
        await client.aconnect()
    except ConfigurationError as exc:  # the name in a mongodb+srv URI is looked up only now
        raise Misconfigured(
            "The MongoDB URI names no server: the DNS record of its mongodb+srv host cannot be found.",
            code="mongodb_uri",
        ) from exc


async def _why_not_writable(client: Client) -> str | None:
    servers = client.topology_description.server_descriptions().values()
    if not servers:  # the driver has dropped them all: they belong to another set
        return f"no server is a member of the replica set {client.topology_description.replica_set_name}"
    kinds = {server.server_type_name for server in servers}
    if "Standalone" in kinds:
        raise Misconfigured(
            "The MongoDB server is not a replica set. Start it with --replSet NAME and run rs.initiate() once; "
            "one member is enough.",
            code="not_a_replica_set",
        )
    if kinds & {"RSPrimary", "Mongos"}:
        return await _why_not_usable(client)
    for server in servers:
        _refuse_bad_credentials(server.error)
    if "RSGhost" in kinds:
        return "the replica set has not been initiated: run rs.initiate()"
    if kinds & {"RSSecondary", "RSArbiter", "RSOther"}:
        return "the replica set has no primary"
    return "no server answers"


async def _why_not_usable(client: Client) -> str | None:
    try:
        with pymongo.timeout(_ANSWER_SECONDS):
            await client.admin.command("ping")
    except PyMongoError as exc:
        _refuse_bad_credentials(exc)
        return f"the server does not answer: {type(exc).__name__}"
    return None


def _refuse_bad_credentials(exc: BaseException | None) -> None:
    if isinstance(exc, OperationFailure) and exc.code in (_UNAUTHORIZED, _AUTHENTICATION_FAILED):
        raise Misconfigured(
            "MongoDB refuses the user or the password of the URI, or the user may not use this database; it needs the "
            "role readWrite there.",
            code="mongodb_credentials",
        ) from exc


async def prepare(database: Database) -> None:
    """Create the collections and indexes that are missing. Idempotent, also when several daemons do it at once.

    Costs two reads when everything stands. Raises `Misconfigured` with code `not_time_series` when a collection of
    that name is an ordinary one, or `mongodb_credentials`.
    """
    try:
        kinds = await _collection_kinds(database)
        stored = await database["settings"].find_one({"_id": "schema"}) if "settings" in kinds else None
        if stored is not None and stored.get("fingerprint") == _SCHEMA and kinds.keys() >= {*ORDINARY, *TIME_SERIES}:
            return
        await _create_collections(database, kinds)
        await _create_indexes(database)
        await database["settings"].update_one({"_id": "schema"}, {"$set": {"fingerprint": _SCHEMA}}, upsert=True)
    except OperationFailure as exc:
        _refuse_bad_credentials(exc)
        raise


async def _collection_kinds(database: Database) -> dict[str, str]:
    kinds = {}
    async for collection in await database.list_collections():
        kinds[collection["name"]] = collection["type"]
    for name in TIME_SERIES:
        if kinds.get(name, "timeseries") != "timeseries":
            raise Misconfigured(
                f"The collection {database.name}.{name} is not a time-series collection, so it is not pricecache's. "
                "Name another database in PRICECACHE_MONGODB_DATABASE.",
                code="not_time_series",
            )
    return kinds


async def _create_collections(database: Database, kinds: Mapping[str, str]) -> None:
    wanted: dict[str, Document] = {name: {} for name in ORDINARY}
    wanted |= {name: {"timeseries": dict(options), **_EXPIRY.get(name, {})} for name, options in TIME_SERIES.items()}
    for name, options in wanted.items():
        if name in kinds:
            continue
        try:
            await database.create_collection(name, check_exists=False, **options)
        except OperationFailure as exc:
            if exc.code != _NAMESPACE_EXISTS:
                raise
    await _collection_kinds(database)  # who came first may have made an ordinary one


async def _create_indexes(database: Database) -> None:
    for collection in sorted({index.collection for index in INDEXES}):
        models = [index.model() for index in INDEXES if index.collection == collection]
        await database[collection].create_indexes(models)


async def next_id(database: Database, name: str, count: int = 1) -> int:
    """The first of `count` consecutive numbers of this name, from 1 on, that nobody else was or will be given."""
    try:
        counter = await _count_up(database, name, count)
    except DuplicateKeyError:  # two made the counter at once
        counter = await _count_up(database, name, count)
    return counter - count + 1


async def _count_up(database: Database, name: str, count: int) -> int:
    document = await database["counters"].find_one_and_update(
        {"_id": name}, {"$inc": {"value": count}}, upsert=True, return_document=ReturnDocument.AFTER
    )
    assert document is not None  # an upsert that returns the document after it
    return int(document["value"])
