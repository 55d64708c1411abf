"""Prints `.env.example`: every setting with its meaning and its default. Run it in the virtual environment:

.venv/bin/python scripts/env_example.py > .env.example
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from pricecache.client import ClientSettings
from pricecache.settings import Settings, variable_of

_HEAD = """\
Settings of pricecache: copy this file to .env in the folder that the daemon is started in, and uncomment what is to
differ from the default shown. A variable of the environment wins over this file."""


def example() -> str:
    """The text of `.env.example`."""
    parts = [_commented(_HEAD), *_settings(Settings)]
    parts += [_commented("For the commands that talk to a daemon."), *_settings(ClientSettings)]
    return "\n\n".join(parts) + "\n"


def _settings(kind: type[BaseSettings]) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        yield f"{_commented(field.description or '')}\n# {variable_of(kind, name)}={_default(field)}"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _commented(text: str) -> str:
    return "\n".join(f"# {line}" for line in textwrap.wrap(" ".join(text.split()), 117))


if __name__ == "__main__":
    print(example(), end="")
