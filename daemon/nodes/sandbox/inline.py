"""A sandbox without a pool: the interpreter in this very process. For tests on a mock clock, which would run ahead of
processes; never for code that is not trusted, since nothing here ends what outruns the interpreter's own limits."""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.nodes.sandbox.frames import Job, Outcome
from daemon.nodes.sandbox.host import interpreter, run_job


class InlineSandbox:
    """Implements Sandbox. Raises ImportError where the language's package is not installed."""

    def __init__(self, language: str) -> None:
        self._interpreter = interpreter(language, confined=False)

    async def run(self, job: Job, printed: Callable[[str], None]) -> Outcome:
        """In one go: nothing else happens meanwhile."""
        await trio.lowlevel.checkpoint()
        return run_job(self._interpreter, job, printed)

    async def serve(self) -> None:
        """Nothing goes on beside the calls."""

    async def aclose(self) -> None:
        """It can not be used again."""
        self._interpreter.close()
