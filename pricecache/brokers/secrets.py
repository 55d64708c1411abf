"""What opens a user's accounts, encrypted: sealed with the first key, opened with any, bound to what it is for."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from pricecache.errors import Corrupt, Misconfigured, Unavailable

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_FILE = "secrets.key"


def check_keys(keys: Sequence[str]) -> None:
    """Raises `Misconfigured` with code `secrets_key_bad` when there is none, or one is no Fernet key; the error shows
    none of it."""
    for key in keys or ("",):
        try:
            is_good = len(base64.urlsafe_b64decode(key.encode("ascii", "replace"))) == 32
        except ValueError:
            is_good = False
        if not is_good:
            raise Misconfigured(
                "A key of PRICECACHE_SECRETS_KEY is not 32 bytes in URL-safe base64. Make one with: "
                "openssl rand -base64 32 | tr '+/' '-_'",
                code="secrets_key_bad",
            )


class SecretBox:
    """Seals texts. Thread-safe; the cryptography library is loaded by the first use.

    `keys`: Fernet keys (32 bytes in URL-safe base64), the one in use first, former ones behind it. Raises what
    `check_keys` does.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        from cryptography.fernet import Fernet, MultiFernet

        check_keys(keys)
        self._fernets = [Fernet(key) for key in keys]
        self._all: MultiFernet = MultiFernet(self._fernets)

    def seal(self, text: str, bound_to: str) -> bytes:
        """`text` encrypted; it opens only as what it is `bound_to`."""
        return self._all.encrypt(orjson.dumps([bound_to, text]))

    def open(self, sealed: bytes, bound_to: str) -> str:
        """Raises `Corrupt` with code `secret_unreadable` when no key fits, or it was sealed for something else."""
        from cryptography.fernet import InvalidToken

        try:
            named, text = orjson.loads(self._all.decrypt(sealed))
        except InvalidToken:
            named, text = None, ""
        if named != bound_to:
            raise Corrupt(
                "A stored access token cannot be decrypted. Put the key it was encrypted with behind the present one "
                "in PRICECACHE_SECRETS_KEY, or connect the account again.",
                code="secret_unreadable",
            )
        return str(text)

    def renewed(self, sealed: bytes) -> bytes | None:
        """The same under the first key, None where it is already."""
        from cryptography.fernet import InvalidToken

        try:
            self._fernets[0].decrypt(sealed)
        except InvalidToken:
            return self._all.rotate(sealed)
        return None


class Vault:
    """The box of a daemon, which `make` makes, in a thread, by the first use. Loop-only."""

    def __init__(self, make: Callable[[], SecretBox]) -> None:
        self._make = make
        self._box: SecretBox | None = None

    async def box(self) -> SecretBox:
        """Raises what `make` does, `Misconfigured` as `Unavailable`: the daemon has started without it."""
        if self._box is None:
            try:
                self._box = await asyncio.to_thread(self._make)
            except Misconfigured as exc:
                raise Unavailable(exc.detail, code=exc.code, retry_after=60.0) from exc
        return self._box


def key_in(folder: Path) -> str:
    """The key in the file `secrets.key` of a folder, made with mode 0600 where there is none.

    Raises `Misconfigured` with code `secrets_key_bad` when others than its owner may read it.
    """
    path = folder / KEY_FILE
    while True:
        try:
            key = path.read_text("ascii").strip()
        except FileNotFoundError:
            _make_key_file(path)
            continue
        if path.stat().st_mode & 0o077:
            raise Misconfigured(f"Others than its owner may read {KEY_FILE}: chmod 600 it.", code="secrets_key_bad")
        return key


def _make_key_file(path: Path) -> None:
    from cryptography.fernet import Fernet

    # whole or not at all, and never the second of two: what was encrypted with a key that is gone is gone too
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
