"""A console on a slow link, while more happens than the daemon keeps for it: end to end, through Subscribe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import trio
from sitting import PATIENCE_SECONDS, Sitting, access, sit
from slow_link import SlowLink, slow_link

from daemon.journal import watching
from enginekit.client import Client, open_client
from enginekit.local import Access
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import encode

BRIEF = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}
IN_FLIGHT = 100
MORE_THAN_IS_KEPT = watching.KEPT + 2000
"""Of which several hundred are on their way, or get through."""


async def _begin(client: Client) -> None:
    await client.call(RegisterWorkflow(name="brief", definition=encode(BRIEF)))
    await client.start("brief", workflow_id="the-first")
    await client.wait("the-first")


async def _start_many(client: Client) -> None:
    """Answered as always, though somebody does not read: or this would not end."""
    left = iter(range(MORE_THAN_IS_KEPT))

    async def lane() -> None:
        for number in left:
            await client.start("brief", workflow_id=f"brief-{number}")

    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(lane)
    await client.start("brief", workflow_id="the-last")
    await client.wait("the-last")


def test_who_misses_changes_is_told_and_has_the_whole_picture_again(daemon) -> None:
    found = access(daemon, tenant="slow")

    async def do(what: Callable[[Client], Awaitable[None]]) -> None:
        async with open_client(found.url, found.token) as client:
            await what(client)

    async def look(sitting: Sitting, link: SlowLink) -> None:
        await sitting.press("3")
        await sitting.sees("● live", "1 ·", "the-first")
        link.fast.clear()
        await asyncio.to_thread(trio.run, do, _start_many)
        await sitting.sees("● live", "brief-", without="the-last")
        link.fast.set()
        seen = await sitting.sees("● live", "the-last", "changes were missed, read again")
        assert "SUCCEEDED" in next(line for line in seen.splitlines() if "the-last" in line)
        end = time.monotonic() + PATIENCE_SECONDS
        # The old picture, which was complete once, may stay for a while yet.
        while f"{MORE_THAN_IS_KEPT + 2:,} ·" not in sitting.text():
            assert time.monotonic() < end, sitting.text()
            await sitting.press("G")
        await sitting.press("G")
        await sitting.sees("the-first")
        known = sitting.app.source.state.executions.by_run.values()
        assert {each.status.value for each in known} == {"SUCCEEDED"}
        assert len({each.workflow_id for each in known}) == MORE_THAN_IS_KEPT + 2

    trio.run(do, _begin)
    with slow_link(daemon.url) as link:
        sit(Access(link.url, found.token), lambda sitting: look(sitting, link), size=(120, 30))
