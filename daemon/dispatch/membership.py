"""Who is there to have partitions: a lease for each process with the role matching, and who holds one.

Who has which partition follows from that alone (`daemon.links.sharding.owner_of`). Two who think that a partition is
theirs are harmless for a while; one without an owner is not, so a lease is short.
"""

from __future__ import annotations

from typing import Protocol

import trio

from daemon.stores.interface import Store, StoreUnavailable

KIND = "matching/"
"""What its members are called in the store, before their names."""


class MembershipUnavailable(Exception):
    """Who is there cannot be told right now."""


class Membership(Protocol):
    """Members are names, a new one for each start of a process. Both may raise MembershipUnavailable. Cancelled:
    whether it was done is not known; done again, it changes nothing."""

    async def attend(self, member: str, lease_seconds: float) -> list[str]:
        """Begin the member's lease, or renew it: it ends so long from now. All who hold one, in the order of their
        names."""

    async def leave(self, member: str) -> None:
        """End the member's lease. One that is not there is passed over."""


class StoreMembership:
    """By the leases of the store that the processes share, whose clock they go by. Whoever has shards is another kind
    of member there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def attend(self, member: str, lease_seconds: float) -> list[str]:
        try:
            there = await self._store.attend(KIND + member, lease_seconds)
        except StoreUnavailable as unavailable:
            raise MembershipUnavailable(str(unavailable)) from unavailable
        return [name.removeprefix(KIND) for name in there.members if name.startswith(KIND)]

    async def leave(self, member: str) -> None:
        try:
            await self._store.leave(KIND + member)
        except StoreUnavailable as unavailable:
            raise MembershipUnavailable(str(unavailable)) from unavailable


class MemoryMembership:
    """Among services of one process."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    async def attend(self, member: str, lease_seconds: float) -> list[str]:
        now = trio.current_time()
        self._until[member] = now + lease_seconds
        self._until = {name: until for name, until in self._until.items() if until > now}
        return sorted(self._until)

    async def leave(self, member: str) -> None:
        self._until.pop(member, None)
