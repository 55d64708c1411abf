"""The daemon's own mongod: started, kept alive, kept private, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pymongo.errors import PyMongoError
from structlog.testing import capture_logs

from pricecache.errors import Misconfigured
from pricecache.stores.client import connect
from pricecache.stores.embedded import PrivateMongod, find_mongod
from tests.mongod import mongod_or_reason

OWNER = """
import asyncio, sys, threading
from pathlib import Path
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from pricecache.stores.embedded import PrivateMongod

async def main():
    private = PrivateMongod(Path(sys.argv[1]))
    if sys.argv[2] == "orphaning":
        thread = threading.Thread(target=private.spawn)
        thread.start()
        thread.join()
    uri = await private.start()
    from pricecache.stores.client import connect
    client = connect(uri)
    await client["kept"]["things"].insert_one({"_id": sys.argv[2]})
    print(private.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    if mongod_or_reason()[0] is None:
        pytest.skip(mongod_or_reason()[1])
    folder = Path(tempfile.mkdtemp(prefix="pc"))
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
async def private(data_dir: Path) -> AsyncIterator[PrivateMongod]:
    async with PrivateMongod(data_dir) as started:
        yield started


async def write(uri: str, name: str) -> None:
    async with connect(uri) as client:
        await client["kept"]["things"].insert_one({"_id": name})


async def names(uri: str) -> set[str]:
    async with connect(uri) as client:
        return {document["_id"] async for document in client["kept"]["things"].find()}


async def gone(pid: int, within: float = 20.0) -> bool:
    async with asyncio.timeout(within):
        while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            await asyncio.sleep(0.01)
    return True


async def owner(data_dir: Path, manner: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(data_dir), manner], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        return process, int(await asyncio.to_thread(process.stdout.readline))
    except BaseException:
        end(process)
        raise


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


async def test_a_fresh_directory_becomes_a_replica_set_with_transactions(private: PrivateMongod) -> None:
    async with connect(private.uri) as client:
        assert (await client.admin.command("hello"))["setName"] == "pricecache"
        await client["kept"].create_collection("things")
        async with client.start_session() as session, await session.start_transaction():
            await client["kept"]["things"].insert_one({"_id": "in a transaction"}, session=session)
    assert await names(private.uri) == {"in a transaction"}


async def test_it_listens_on_no_tcp_port(private: PrivateMongod) -> None:
    mine = set()
    for entry in Path(f"/proc/{private.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            mine.add(os.readlink(entry))
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    inodes = {fields[9] for fields in map(str.split, tables.splitlines()) if len(fields) > 9}
    assert not mine & {f"socket:[{inode}]" for inode in inodes}


async def test_nobody_else_may_look_into_the_directory(private: PrivateMongod) -> None:
    assert stat.S_IMODE(private.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(private.socket.stat().st_mode) & 0o077 == 0


async def test_the_interrupt_of_a_terminal_does_not_reach_it(private: PrivateMongod) -> None:
    assert private.pid is not None
    assert os.getsid(private.pid) != os.getsid(0)


async def test_data_survive_a_stop(data_dir: Path) -> None:
    for name in ("first", "second"):
        async with PrivateMongod(data_dir) as private:
            await write(private.uri, name)
            pid = private.pid
        assert pid is not None
        assert await gone(pid)
        assert private.pid is None
        assert not private.socket.exists()
    async with PrivateMongod(data_dir) as private:
        assert await names(private.uri) == {"first", "second"}


async def test_killed_it_comes_back_with_its_data(private: PrivateMongod) -> None:
    async with connect(private.uri) as client:
        with capture_logs() as lines:
            for number in range(3):
                await client["kept"]["things"].insert_one({"_id": str(number)})
                assert private.pid is not None
                os.kill(private.pid, signal.SIGKILL)
                assert len([_ async for _ in client["kept"]["things"].find()]) == number + 1
                async with asyncio.timeout(10):  # it answers a moment before it is told, and two ends are told as one
                    while [line["event"] for line in lines].count("mongod is back") <= number:
                        await asyncio.sleep(0.01)
            await client["kept"]["things"].insert_one({"_id": "after"})
    assert private.restarts == 3
    assert await names(private.uri) == {"0", "1", "2", "after"}
    told = [(line["log_level"], line["event"]) for line in lines]
    assert told == [("warning", "mongod ended and is restarted"), ("info", "mongod is back")] * 3


async def test_it_goes_with_a_killed_owner(data_dir: Path) -> None:
    process, pid = await owner(data_dir, "killed")
    end(process)
    async with PrivateMongod(data_dir) as private:
        assert await gone(pid, within=0.1)
        assert await names(private.uri) == {"killed"}


async def test_one_that_was_left_over_is_ended_by_the_next_start(data_dir: Path) -> None:
    """A mongod started off the main thread is not tied to its owner's death, so it outlives a kill -9."""
    process, pid = await owner(data_dir, "orphaning")
    end(process)
    assert Path(f"/proc/{pid}/cmdline").exists()
    with capture_logs() as lines:
        async with PrivateMongod(data_dir) as private:
            assert await gone(pid, within=0.1)
            assert await names(private.uri) == {"orphaning"}
    assert [line["signal"] for line in lines if line["event"] == "ending a left-over mongod"] == ["SIGTERM"]


async def test_a_pid_file_that_names_another_process_is_not_believed(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "mongod.pid").write_text(f"{os.getpid()}\n")
    async with PrivateMongod(data_dir) as private:
        assert private.pid != os.getpid()


async def test_a_second_owner_is_refused_and_told_who_the_first_is(data_dir: Path) -> None:
    process, pid = await owner(data_dir, "first")
    try:
        with pytest.raises(Misconfigured, match=f"in use by process {process.pid}") as refusal:
            await PrivateMongod(data_dir).start()
        assert refusal.value.code == "data_dir_in_use"
        assert await names(PrivateMongod(data_dir).uri) == {"first"}
    finally:
        end(process)
    assert await gone(pid)


async def test_a_path_too_long_for_a_socket_works(data_dir: Path) -> None:
    long_dir = data_dir / ("a long name, with a comma " * 4).strip()
    async with PrivateMongod(long_dir) as private:
        await write(private.uri, "deep")
        folder = private.socket.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()
    async with PrivateMongod(long_dir) as private:
        assert await names(private.uri) == {"deep"}


async def test_a_directory_that_was_moved_works(data_dir: Path) -> None:
    async with PrivateMongod(data_dir) as private:
        await write(private.uri, "moved")
    other = data_dir.rename(data_dir.with_name("elsewhere"))
    async with PrivateMongod(other) as private:
        assert await names(private.uri) == {"moved"}
        await write(private.uri, "again")


async def test_a_stop_while_it_starts_leaves_nothing(data_dir: Path) -> None:
    private = PrivateMongod(data_dir)
    private.spawn()
    pid = private.pid
    starting = asyncio.create_task(private.ready())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert pid is not None
    assert await gone(pid)
    async with PrivateMongod(data_dir):
        pass


async def test_a_program_that_ends_at_once_is_given_up_with_its_last_words(data_dir: Path) -> None:
    program = data_dir.parent / "mongod"
    program.write_text("#!/bin/sh\necho 'error while loading shared libraries: libcrypto.so.3'\nexit 127\n")
    program.chmod(0o755)
    with capture_logs(), pytest.raises(Misconfigured, match="libcrypto") as refusal:
        await PrivateMongod(data_dir, mongod=program).start()
    assert refusal.value.code == "mongod_failed"
    async with PrivateMongod(data_dir):
        """The lock was given back."""


def test_a_program_that_is_not_there_says_what_to_install(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match="PRICECACHE_MONGOD names /nowhere/mongod"):
        find_mongod(Path("/nowhere/mongod"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in [name for name in sys.modules if name.split(".")[0] == "fiftyone"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(Misconfigured, match=r"pip install 'pricecache\[embedded\]'") as refusal:
        find_mongod(None)
    assert refusal.value.code == "mongod_missing"


def test_a_directory_that_cannot_be_made_is_refused(data_dir: Path) -> None:
    data_dir.write_text("a file in the way")
    with pytest.raises(Misconfigured) as refusal:
        PrivateMongod(data_dir).spawn()
    assert refusal.value.code == "data_dir_unusable"


async def test_a_long_log_is_put_aside(data_dir: Path) -> None:
    data_dir.mkdir()
    with (data_dir / "mongod.log").open("wb") as log:
        log.truncate(20_000_001)
    async with PrivateMongod(data_dir):
        assert (data_dir / "mongod.log").stat().st_size < 1_000_000
        assert (data_dir / "mongod.log.1").stat().st_size == 20_000_001


async def test_spawning_does_not_wait_for_mongod(data_dir: Path) -> None:
    private = PrivateMongod(data_dir)
    began = time.thread_time()  # what others on the machine take is not ours
    private.spawn()
    took = time.thread_time() - began
    with pytest.raises(PyMongoError):
        async with connect(private.uri, timeout_ms=1) as client:
            await client.admin.command("ping")
    await private.ready()
    await private.stop()
    assert took < 0.1
