"""Python in the child, by pydantic-monty: an interpreter of its own without files, sockets or processes, in Rust.

The library runs it in a process under this one. It gets a fresh session for each job, and a fresh process whenever the
tenant changes, after a failure of its limits, and after JOBS jobs. The code's value is that of its last expression, or
of a `return` outside of any function.
"""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import msgspec
import pydantic_monty as monty

from daemon.nodes.sandbox.confine import bound_job, settle
from daemon.nodes.sandbox.frames import CodeError, Done, Failed, Job, Outcome, TooMuchPrinted

JOBS: Final = 1000
"""Jobs of one tenant that one process of the library's may run."""
GRACE_SECONDS: Final = 0.5
"""How long after its time the library kills a process that sits in one long operation."""
DEPTH: Final = 200
"""Lists and objects in one another that a result may have."""

_SOURCE: Final = "<python-input-0>"
_UNSUPPORTED: Final = "The monty syntax parser does not yet support "
_TIME: Final = re.compile(r"(feed time|turn time|sleep) limit exceeded")
_MEMORY: Final = re.compile(r"memory limit exceeded|the worker exceeded its memory limit")


class NotResult(Exception):
    """The value has no JSON form, or too large a one. The message says where in it and why."""

    def __init__(self, cause: str, error: CodeError = CodeError.INVALID_OUTPUT) -> None:
        super().__init__(cause)
        self.error = error


class PythonInterpreter:
    def __init__(self, confined: bool) -> None:
        self._confined = confined
        self._stack = ExitStack()
        self._pool: monty.Monty | None = None
        self._tenant: str | None = None
        self._jobs = 0

    def rest(self) -> None:
        """A process of the library's is there before the next job comes."""
        if self._pool is None:
            pool = monty.Monty(
                min_processes=1,
                max_processes=1,
                feed_duration_limit_grace=GRACE_SECONDS,
                turn_duration_limit_grace=GRACE_SECONDS,
            )
            self._pool = self._stack.enter_context(pool)
            self._tenant, self._jobs = None, 0

    def compiled(self) -> bytes:
        return b""

    def confine(self) -> None:
        """It has to start the library's processes, which it confines one by one."""
        settle(processes=True)

    def run(self, job: Job, printed: Callable[[str], None]) -> Outcome:
        if self._tenant not in (None, job.tenant) or self._jobs >= JOBS:
            self.close()
        self._tenant, self._jobs = job.tenant, self._jobs + 1
        self.rest()
        assert self._pool is not None
        seconds = job.milliseconds / 1000
        limits = monty.ResourceLimits(
            max_memory=job.memory_bytes,
            max_feed_duration_secs=seconds,
            max_total_sleep_secs=seconds,
            max_suspensions=10_000,
        )
        begun = time.monotonic()
        try:
            with self._pool.checkout(
                limits=limits,
                os_policy={"sleep": "system", "sleep_system_max": math.inf},
                # At each line: a process that is killed has told what it printed.
                print_flush_interval=0,
            ) as session:
                pid = session.worker_pid
                assert pid is not None
                settle(pid)
                bound_job(job.milliseconds, job.memory_bytes, pid)
                if self._confined:
                    bound_job(job.milliseconds, job.memory_bytes)

                def print_callback(stream: str, text: str) -> None:
                    try:
                        printed(text)
                    except TooMuchPrinted:
                        # What a callback raises is told when the code has ended: this code ends here.
                        os.kill(pid, signal.SIGKILL)
                        raise

                value = session.feed_run(
                    job.source, inputs={"input": msgspec.json.decode(job.input)}, print_callback=print_callback
                )
            return Done(_encoded(value, job.output_bytes))
        except NotResult as error:
            return Failed(error.error, str(error))
        except monty.MontyError as error:
            return _failure(error, job, time.monotonic() - begun)

    def close(self) -> None:
        """End the library's process; the next job gets another one."""
        self._stack.close()
        self._pool = None


def _failure(error: monty.MontyError, job: Job, seconds: float) -> Failed:
    if isinstance(error, monty.MontyCrashedError):
        if error.timed_out or seconds * 1000 >= job.milliseconds:
            return Failed(CodeError.TIMEOUT, f"it ran longer than {job.milliseconds} ms", spent=True)
        return Failed(CodeError.CRASHED, f"the interpreter ended: {error}", spent=True)
    inner = error.exception()
    kind, message = type(inner).__name__, str(inner)
    frames = error.traceback() if isinstance(error, (monty.MontySyntaxError, monty.MontyRuntimeError)) else []
    place = next((frame for frame in reversed(frames) if frame.filename == _SOURCE), None)
    where = "" if place is None else f" (line {place.line}, column {place.column})"
    if isinstance(error, monty.MontySyntaxError) or message.startswith(_UNSUPPORTED):
        return Failed(CodeError.SYNTAX_ERROR, message.removeprefix("The monty syntax parser ") + where)
    if isinstance(inner, TimeoutError) and _TIME.match(message):
        return Failed(CodeError.TIMEOUT, f"it ran longer than {job.milliseconds} ms", spent=True)
    if isinstance(inner, MemoryError) and _MEMORY.search(message):
        return Failed(CodeError.MEMORY_LIMIT, f"it used more than {job.memory_bytes} bytes", spent=True)
    name = "" if place is None or place.function_name in (None, "<module>") else f" in {place.function_name}"
    where = "" if place is None else f" (line {place.line}{name})"
    return Failed(CodeError.ERROR, f"{kind}: {message}{where}" if message else f"{kind}{where}")


# --- results -----------------------------------------------------------------------------------------------------


def _encoded(value: object, output_bytes: int) -> bytes:
    """Raises NotResult."""
    # Objects that a value holds many times are many in JSON: what is looked at is bounded before it is written.
    budget = [output_bytes]
    _check(value, "the result", 0, budget)
    return msgspec.json.encode(value)


def _check(value: object, where: str, depth: int, budget: list[int]) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        raise NotResult("the result has more values than its limit has bytes", CodeError.OUTPUT_LIMIT)
    if depth > DEPTH:
        raise NotResult(f"the result has more than {DEPTH} levels")
    if value is None or isinstance(value, (bool, str)):
        return
    if type(value) is int:
        if value.bit_length() > 14_000:
            raise NotResult(f"{where} is a number of more than 4,300 digits")
        return
    if type(value) is float:
        if not math.isfinite(value):
            raise NotResult(f"{where} is {value}, which JSON does not have")
        return
    if type(value) in (list, tuple):
        for index, item in enumerate(value):  # type: ignore[arg-type, var-annotated]
            _check(item, f"{where}[{index}]", depth + 1, budget)
        return
    if type(value) is dict:
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotResult(f"{where} has the key {key!r:.60}, and JSON's are strings")
            _check(item, f"{where}.{key[:60]}", depth + 1, budget)
        return
    raise NotResult(f"{where} is a {_kind(value)}, which has no JSON form")


def _kind(value: object) -> str:
    return value.name if isinstance(value, monty.MontyClassProxy) else type(value).__name__
