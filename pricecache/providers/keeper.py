"""Who keeps the account of a provider: the protocol, and the one that keeps it in the memory of this daemon."""

from __future__ import annotations

from typing import Protocol

from pricecache.clock import Clock
from pricecache.core.asking import Lane, Pace
from pricecache.core.provider_accounts import Account, Admission, Change


class Keeper(Protocol):
    """Keeps one provider's account. Loop-only."""

    @property
    def account(self) -> Account:
        """The account as it is known here."""

    async def admit(self, lane: Lane, cost: int, trial_cost: int) -> Admission:
        """As `Account.admit`, of the account as all daemons together have it."""

    def give_back(self, admission: Admission) -> None:
        """Undo an admission of which no use was made."""

    def note(self, change: Change) -> tuple[Account, Account]:
        """Change the account, to be kept for good soon; as it was known before and is known now."""

    async def apply(self, change: Change) -> None:
        """Change the account; kept for good when it returns, if the database answers."""

    async def freshen(self) -> None:
        """Look at what other daemons have noted, unless that was done in the last second."""


class LocalKeeper:
    """Keeps an account for as long as the daemon runs. Loop-only."""

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self.account = Account()
        self._pace = pace
        self._clock = clock

    async def admit(self, lane: Lane, cost: int, trial_cost: int) -> Admission:
        self.account, admission = self.account.admit(self._pace, lane, cost, trial_cost, self._clock.time())
        return admission

    def give_back(self, admission: Admission) -> None:
        self.account = self.account.returned(self._pace, admission)

    def note(self, change: Change) -> tuple[Account, Account]:
        before, self.account = self.account, change(self.account)
        return before, self.account

    async def apply(self, change: Change) -> None:
        self.note(change)

    async def freshen(self) -> None:
        """There is nobody else."""
