"""Settings: names, defaults, what is refused, and the example file that lists them."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from pricecache.client import ClientSettings
from pricecache.settings import Settings, unknown_settings

ROOT = Path(__file__).parents[2]
KINDS = (Settings, ClientSettings)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PRICECACHE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def fields() -> list[tuple[type[BaseSettings], str]]:
    return [(kind, name) for kind in KINDS for name in kind.model_fields]


@pytest.mark.parametrize(("kind", "name"), fields())
def test_every_setting_says_what_it_means(kind: type[BaseSettings], name: str) -> None:
    described = kind.model_fields[name].description
    assert described
    assert described.endswith(".")


@pytest.mark.parametrize(
    "name", [name for name in Settings.model_fields if name.endswith(("_seconds", "_hours", "_days"))]
)
def test_a_duration_has_its_unit_in_its_name_and_is_a_number(name: str) -> None:
    assert isinstance(Settings.model_fields[name].default, int | float)


def test_the_daemon_starts_without_any_setting() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.providers) == ("127.0.0.1", 8080, ("yfinance",))
    assert settings.mongodb_uri is None
    assert settings.api_keys == ()


def test_lists_are_comma_separated_and_forgive_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRICECACHE_SYMBOLS", " AAPL, SAP:DE ,,")
    monkeypatch.setenv("PRICECACHE_PROVIDERS", "csv,yfinance")
    assert Settings().symbols == ("AAPL", "SAP:DE")
    assert Settings().providers == ("csv", "yfinance")


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PRICECACHE_PORT=9001\nPRICECACHE_MONGODB_DATABASE=prices\n")
    monkeypatch.setenv("PRICECACHE_PORT", "9002")
    assert (Settings().port, Settings().mongodb_database) == (9002, "prices")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("LIVE_SECONDS", "0"),
        ("LIVE_SECONDS", "inf"),
        ("LIVE_SECONDS", "nan"),
        ("SYNC_SECONDS", "1e300"),
        ("DRAIN_SECONDS", "inf"),
        ("COLUMN_CACHE_MB", "inf"),
        ("YAHOO_STREAM_URL", "https://example.org"),
        ("BACKFILL_DAYS", "-1"),
        ("MONGODB_DATABASE", "a/b"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_value_that_cannot_work_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"PRICECACHE_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_secrets_do_not_show_in_the_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MONGODB_URI", "API_KEYS", "JWT_SECRET"):
        monkeypatch.setenv(f"PRICECACHE_{name}", "hush-hush")
    monkeypatch.setenv("FINANCIAL_MODELING_PREP_API_KEY", "hush-hush")
    assert "hush-hush" not in repr(Settings())


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_the_example_file_is_what_its_script_makes_of_the_settings() -> None:
    """When this fails: .venv/bin/python scripts/env_example.py > .env.example"""
    made = runpy.run_path(str(ROOT / "scripts" / "env_example.py"))["example"]()
    assert (ROOT / ".env.example").read_text() == made


def test_the_example_file_uncommented_changes_nothing(tmp_path: Path) -> None:
    text = re.sub(r"^# (PRICECACHE_\w+=.)", r"\1", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(text)
    assert "PRICECACHE_PORT" in dotenv_values(tmp_path / ".env")
    for kind in KINDS:
        assert kind() == kind(_env_file=None)


def test_a_name_that_is_no_setting_is_found_with_what_was_likely_meant() -> None:
    names = ["PRICECACHE_LIFE_SECONDS", "PRICECACHE_PORT", "PRICECACHE_URL", "PRICECACHE_QQQ", "HOME"]
    assert unknown_settings(names) == {"PRICECACHE_LIFE_SECONDS": "PRICECACHE_LIVE_SECONDS", "PRICECACHE_QQQ": None}
