"""A bounded pool of processes with an interpreter of one language, kept warm while they are used.

Calls wait their turn, first come, first served. A process that served a tenant goes to a call of the same tenant where
there is one; what a process keeps between jobs is the interpreter's business, which is to keep nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from daemon.nodes.sandbox.frames import CodeError, Failed, Job, Outcome
from daemon.nodes.sandbox.process import InterpreterProcess, NotStarted

_log = structlog.get_logger("code")


class Sandbox(Protocol):
    """Where code runs. A test that lives on a mock clock gives the node one without processes."""

    async def run(self, job: Job, printed: Callable[[str], None]) -> Outcome:
        """The job's outcome; `printed` gets the beginning of what it prints. Cancelled: the code is stopped."""

    async def serve(self) -> None:
        """Whatever has to go on beside the calls, until cancelled."""

    async def aclose(self) -> None:
        """End what is left. It can be used again all the same."""


class Pool:
    """Implements Sandbox. At most `processes` at once, each ended after `idle_seconds` without work."""

    def __init__(self, language: str, *, processes: int, idle_seconds: float, start_seconds: float) -> None:
        self._language = language
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        # A call, or the start of a spare, holds one of them; so there are never more processes than that.
        self._slots = trio.Semaphore(processes, max_value=processes)
        self._idle: list[InterpreterProcess] = []
        self._spares = 0
        self._compiled: int | None = None
        """The descriptor of a file with what the first process compiled."""
        self._changed = trio.Event()

    async def run(self, job: Job, printed: Callable[[str], None]) -> Outcome:
        """Whatever becomes of the process, an outcome; `Code.Unavailable` where none can be started."""
        async with self._slots:
            try:
                process = await self._take(job.tenant)
            except NotStarted as error:
                _log.error("no interpreter", language=self._language, reason=str(error))
                return Failed(CodeError.UNAVAILABLE, f"no {self._language} interpreter could be started: {error}")
            outcome: Outcome | None = None
            try:
                outcome = await process.run(job, printed)
                return outcome
            finally:
                if outcome is not None and process.alive:
                    self._idle.append(process)
                else:
                    await process.end()
                    self._spares += 1
                self._change()

    async def serve(self) -> None:
        """End what is idle for too long, and replace what was lost. Cancelled: ends what is idle."""
        try:
            while True:
                self._changed = trio.Event()
                while self._spares:
                    self._spares -= 1
                    await self._start_spare()
                await self._end_idle()
                with trio.move_on_at(self._next_end()):
                    await self._changed.wait()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End the processes that are idle. Those at work end with their calls."""
        idle, self._idle = self._idle, []
        if self._compiled is not None:
            os.close(self._compiled)
            self._compiled = None
        for process in idle:
            await process.end()

    async def _take(self, tenant: str) -> InterpreterProcess:
        """Raises NotStarted."""
        while self._idle:
            own = [process for process in self._idle if process.tenant == tenant]
            process = (own or self._idle)[-1]
            self._idle.remove(process)
            if process.alive:
                return process
            await process.end()
        return await self._start()

    async def _start(self) -> InterpreterProcess:
        """Raises NotStarted."""
        process, compiled = await InterpreterProcess.start(self._language, self._start_seconds, self._compiled)
        if compiled and self._compiled is None:
            self._compiled = _sealed(compiled)
        return process

    async def _start_spare(self) -> None:
        """In the place of a process that was lost, unless calls have filled it already."""
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            return
        try:
            if self._idle:
                return
            self._idle.append(await self._start())
        except NotStarted as error:
            _log.error("no interpreter", language=self._language, reason=str(error))
        finally:
            self._slots.release()

    async def _end_idle(self) -> None:
        over = trio.current_time() - self._idle_seconds
        for process in [process for process in self._idle if process.idle_since <= over]:
            self._idle.remove(process)
            await process.end()

    def _next_end(self) -> float:
        return min((process.idle_since for process in self._idle), default=float("inf")) + self._idle_seconds

    def _change(self) -> None:
        self._changed.set()


def _sealed(data: bytes) -> int:
    """The descriptor of a file in memory that nobody can change any more."""
    descriptor = os.memfd_create("compiled", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    )
    return descriptor
