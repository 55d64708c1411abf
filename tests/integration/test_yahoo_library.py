"""The yfinance library is loaded by one thread at a time, whoever needs it first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RACE = """
import sys, threading, time
from pathlib import Path
from pricecache.clock import SystemClock
from pricecache.providers import yahoo, yahoo_stream

provider = yahoo.YahooProvider(Path(sys.argv[1]), SystemClock(), "http://127.0.0.1:9")
failed = []

def load(work, is_first):
    while not is_first and "yfinance" not in sys.modules:
        time.sleep(0)
    try:
        work()
    except BaseException as exc:
        failed.append(repr(exc))

works = [provider._loaded, lambda: yahoo_stream._load("ws://127.0.0.1:9")]
if sys.argv[2] == "stream":
    works.reverse()
threads = [threading.Thread(target=load, args=[work, work is works[0]]) for work in works]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
provider.close()
print(failed)
"""


@pytest.mark.parametrize("first", ["polling", "stream"] * 2)
def test_polling_and_the_stream_may_load_it_at_once(first: str, tmp_path: Path) -> None:
    """The other one comes while it is being imported. A fresh process each time: only the first import can fail."""
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path), first], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
