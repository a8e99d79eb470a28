"""What one tenant may ask for: calls a second by group, with bursts, and how much of it at once.

Pure accounts: time is passed in. One tenant's flood is refused before anything is done for it, and each refusal says
when to come again. Whoever asks on regardless waits for its refusals (`REFUSAL_SECONDS`), so that a flood is slowed
down by its own connections' bounds and costs the others next to nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from itertools import islice
from typing import Final

from daemon.settings import LimitSettings
from enginekit.messages.status import ErrorStatus, Refused

TENANTS: Final = 10_000
"""Beyond so many tenants, accounts are forgotten that say nothing: nothing is under way, nothing was taken lately."""
LOOKED_AT: Final = 8
"""Accounts that are looked at for each new one then."""
REFUSAL_SECONDS: Final = 0.25
"""The longest that a refusal is held back."""
BUSY_SECONDS: Final = 0.5
"""When to come again where too much is under way: nobody knows when it ends."""


class Group(Enum):
    """Methods that are counted together."""

    START = "start"
    WRITE = "write"
    READ = "read"
    WORK = "work"


class Limited(Refused):
    """A tenant asks for more than it may."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(ErrorStatus.RESOURCE_EXHAUSTED, message, {"retry_after_seconds": retry_after_seconds})
        self.held_back_seconds = min(retry_after_seconds, REFUSAL_SECONDS)
        """How long the refusal is held back."""


class TokenBucket:
    """`rate` calls a second in the long run, and up to `burst` at once."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> float:
        """0 where the call is let in; else the seconds until one would be, and nothing is taken."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._rate

    def full(self, now: float) -> bool:
        """Whether it is as good as a new one."""
        return self._left + (now - self._at) * self._rate >= self._burst


class Account:
    """One tenant's."""

    __slots__ = ("buckets", "connections", "in_flight", "polls")

    def __init__(self) -> None:
        self.buckets: dict[Group, TokenBucket] = {}
        self.connections = 0
        self.in_flight = 0
        self.polls = 0

    def says_nothing(self, now: float) -> bool:
        """Whether a new one would be the same."""
        under_way = self.connections or self.in_flight or self.polls
        return not under_way and all(bucket.full(now) for bucket in self.buckets.values())


class TenantLimits:
    """Every tenant's accounts."""

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._rates = {
            Group.START: (settings.starts_per_second, settings.starts_burst),
            Group.WRITE: (settings.writes_per_second, settings.writes_burst),
            Group.READ: (settings.reads_per_second, settings.reads_burst),
            Group.WORK: (settings.work_per_second, settings.work_burst),
        }

    def __len__(self) -> int:
        return len(self._accounts)

    def admit(self, tenant: str, group: Group | None, method: str, waits: bool, now: float) -> Account:
        """A call begins; `waits`: it is a long poll. `release` it when it has ended. Raises Limited."""
        account = self._account(tenant, now)
        settings = self._settings
        if waits:
            if account.polls >= settings.long_polls:
                raise _busy(f"{settings.long_polls:,} long polls of tenant {tenant} wait already (limits.long_polls)")
        elif account.in_flight >= settings.in_flight_calls:
            limit = settings.in_flight_calls
            raise _busy(f"{limit:,} calls of tenant {tenant} are under way already (limits.in_flight_calls)")
        if group is not None:
            self._take(account, tenant, group, method, now)
        if waits:
            account.polls += 1
        else:
            account.in_flight += 1
        return account

    def release(self, account: Account, waits: bool) -> None:
        """A call that was admitted has ended."""
        if waits:
            account.polls -= 1
        else:
            account.in_flight -= 1

    def connect(self, tenant: str, now: float) -> None:
        """A connection is opened. Raises Limited."""
        account, limit = self._account(tenant, now), self._settings.connections
        if account.connections >= limit:
            raise _busy(f"{limit:,} connections of tenant {tenant} are open already (limits.connections)", 5.0)
        account.connections += 1

    def disconnect(self, tenant: str) -> None:
        """It has ended."""
        self._accounts[tenant].connections -= 1

    def _take(self, account: Account, tenant: str, group: Group, method: str, now: float) -> None:
        rate, burst = self._rates[group]
        if not rate:
            return
        bucket = account.buckets.get(group)
        if bucket is None:
            bucket = account.buckets[group] = TokenBucket(rate, burst, now)
        seconds = bucket.take(now)
        if seconds:
            raise Limited(
                f"{method}: tenant {tenant} may make {rate:g} calls of this kind a second, and {burst:g} at once "
                f"(limits.{_SETTINGS[group]}_per_second, limits.{_SETTINGS[group]}_burst)",
                max(round(seconds, 3), 0.001),
            )

    def _account(self, tenant: str, now: float) -> Account:
        account = self._accounts.get(tenant)
        if account is None:
            if len(self._accounts) >= TENANTS:
                self._forget(now)
            account = self._accounts[tenant] = Account()
        self._accounts.move_to_end(tenant)
        return account

    def _forget(self, now: float) -> None:
        """Those that say nothing, among the few that were not used for longest. One whose bucket is empty stays: a
        flood of other tenants' names does not fill it again."""
        for tenant, account in list(islice(self._accounts.items(), LOOKED_AT)):
            if account.says_nothing(now):
                del self._accounts[tenant]
            else:
                self._accounts.move_to_end(tenant)


_SETTINGS: Final = {Group.START: "starts", Group.WRITE: "writes", Group.READ: "reads", Group.WORK: "work"}


def _busy(message: str, seconds: float = BUSY_SECONDS) -> Limited:
    return Limited(message, seconds)
