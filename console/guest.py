"""Trio as a guest in the loop that Textual runs on: one thread, two worlds. Knows nothing of either's business.

`ask` is the bridge from asyncio to Trio; what runs in Trio may call plain functions of the asyncio side directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import outcome
import trio

T = TypeVar("T")


class Guest:
    """Trio's side: a nursery that lasts as long as `hosted`. `failures` are what `ask` hands on to its caller."""

    def __init__(self, nursery: trio.Nursery, loop: asyncio.AbstractEventLoop, failures: tuple[type[Exception], ...]):
        self._nursery = nursery
        self._loop = loop
        self._failures = failures
        self._token = trio.lowlevel.current_trio_token()

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run `call` in Trio and await it in asyncio. Raises what it raises, where that is one of the failures.
        Cancelled in asyncio, the call goes on; ended by Trio, this is cancelled."""
        answer: asyncio.Future[T] = self._loop.create_future()

        async def run() -> None:
            try:
                value = await call()
            except self._failures as failure:
                if not answer.done():
                    answer.set_exception(failure)
            else:
                if not answer.done():
                    answer.set_result(value)
            finally:
                if not answer.done():
                    answer.cancel()

        self._token.run_sync_soon(self._nursery.start_soon, run)
        return await answer

    def tell(self, action: Callable[[], None]) -> None:
        """Run `action` in Trio, soon."""
        self._token.run_sync_soon(action)


@asynccontextmanager
async def hosted(
    main: Callable[[], Awaitable[None]], failures: tuple[type[Exception], ...], ended: Callable[[], None]
) -> AsyncIterator[Guest]:
    """`main` in Trio for the block, in asyncio's loop; cancelled at its end. `ended` is called when Trio has ended, by
    itself or because of that. What ended it by itself is raised at the end of the block."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[Guest] = loop.create_future()
    done: asyncio.Future[outcome.Outcome[None]] = loop.create_future()
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                ready.set_result(Guest(nursery, loop, failures))
                await main()

    def finished(result: outcome.Outcome[None]) -> None:
        done.set_result(result)
        ended()

    trio.lowlevel.start_guest_run(
        run,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        run_sync_soon_not_threadsafe=loop.call_soon,
        done_callback=finished,
        host_uses_signal_set_wakeup_fd=True,
        restrict_keyboard_interrupt_to_checkpoints=True,
    )
    guest = await ready
    try:
        yield guest
    finally:
        if not done.done():
            guest.tell(scope.cancel)
        (await done).unwrap()
