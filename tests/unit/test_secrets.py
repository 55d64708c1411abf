"""Access tokens at rest: unreadable without the key, bound to their item, and carried over to a new key."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest

from pricecache.brokers.secrets import SecretBox, key_in
from pricecache.errors import Corrupt, Misconfigured

OLD, NEW = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2))
TOKEN = "access-sandbox-12345678"


def test_what_is_sealed_shows_nothing_and_opens_again() -> None:
    box = SecretBox([OLD])
    sealed = box.seal(TOKEN, "item-1")
    assert TOKEN.encode() not in sealed
    assert b"item-1" not in sealed
    assert box.seal(TOKEN, "item-1") != sealed
    assert SecretBox([OLD]).open(sealed, "item-1") == TOKEN


@pytest.mark.parametrize(
    ("keys", "bound_to", "cut"), [([NEW], "item-1", 0), ([OLD], "item-2", 0), ([OLD], "item-1", 5)]
)
def test_another_key_another_item_and_a_changed_byte_are_refused(keys: list[str], bound_to: str, cut: int) -> None:
    sealed = SecretBox([OLD]).seal(TOKEN, "item-1")
    with pytest.raises(Corrupt) as raised:
        SecretBox(keys).open(sealed[cut:], bound_to)
    assert raised.value.code == "secret_unreadable"


def test_a_former_key_still_opens_until_everything_is_under_the_new_one() -> None:
    sealed = SecretBox([OLD]).seal(TOKEN, "item-1")
    both = SecretBox([NEW, OLD])
    assert both.open(sealed, "item-1") == TOKEN
    renewed = both.renewed(sealed)
    assert renewed is not None
    assert SecretBox([NEW]).open(renewed, "item-1") == TOKEN
    assert both.renewed(renewed) is None


@pytest.mark.parametrize("keys", [[], [""], ["short"], [OLD, "not-a-key-at-all"]])
def test_what_is_no_key_is_told_and_not_shown(keys: list[str]) -> None:
    with pytest.raises(Misconfigured) as raised:
        SecretBox(keys)
    assert raised.value.code == "secrets_key_bad"
    assert "not-a-key" not in str(raised.value)


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(key_in(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.key"]
    assert (tmp_path / "secrets.key").stat().st_mode & 0o777 == 0o600
    SecretBox([found[0]])


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key_in(tmp_path)
    (tmp_path / "secrets.key").chmod(0o644)
    with pytest.raises(Misconfigured) as raised:
        key_in(tmp_path)
    assert raised.value.code == "secrets_key_bad"
