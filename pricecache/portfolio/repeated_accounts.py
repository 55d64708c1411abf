"""Whether a user has connected accounts already: connected twice, they would count twice."""

from __future__ import annotations

from collections.abc import Iterable

from pricecache.core.broker.account_identity import ShownAccounts
from pricecache.errors import Conflict
from pricecache.stores.connection_documents import Connection

_BROKEN = frozenset({"login_required", "revoked"})
_LOST_KEY = "secret_unreadable"


def is_broken(connection: Connection) -> bool:
    """Whether a new login can take the place of its own: that opens nothing any more, or cannot be read."""
    return connection.state in _BROKEN or is_unreadable(connection)


def is_unreadable(connection: Connection) -> bool:
    """Whether the key is lost that its login was encrypted with."""
    return connection.failure is not None and connection.failure.code == _LOST_KEY


def repeated(shown: ShownAccounts, others: Iterable[Connection]) -> tuple[Connection, dict[str, str]] | None:
    """The connection among `others` that has some of the accounts, one that works first, and their ids there by those
    of `shown`. None: no other has."""
    found = [(one, shown.same_in(one.shown)) for one in others if one.shown is not None]
    return min(((one, same) for one, same in found if same), key=lambda pair: is_broken(pair[0]), default=None)


def already_connected(connection: Connection) -> Conflict:
    name = connection.institution or "this institution"
    return Conflict(
        f"Accounts of this login at {name} are connected already and would count twice. Log in to that connection "
        "again, or send allowDuplicate with a new login if they are to.",
        code="already_connected",
        connection_id=connection.id,
    )
