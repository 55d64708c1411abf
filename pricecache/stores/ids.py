"""Ids that nothing else has, and instants as BSON keeps them."""

from __future__ import annotations

from datetime import UTC, datetime

from bson import ObjectId


def new_id() -> str:
    """24 hexadecimal digits that nothing else has; later ones are greater."""
    return str(ObjectId())


def instant_of(seconds: float) -> datetime:
    """For BSON, which keeps milliseconds."""
    return datetime.fromtimestamp(seconds, UTC)
