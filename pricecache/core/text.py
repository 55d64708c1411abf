"""Words that come from elsewhere, made fit to be kept and shown: one line, bounded, printable."""

from __future__ import annotations


def plain_text(text: str, longest: int = 300) -> str:
    """At most `longest` printable characters. What is not printable, lone surrogates too, is a space; runs of spaces
    are one."""
    beginning = text[: 2 * longest]  # a vendor may send megabytes
    words = "".join(character if character.isprintable() else " " for character in beginning).split()
    return " ".join(words)[:longest]
