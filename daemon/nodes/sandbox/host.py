"""The child: one interpreter, one job at a time, until the daemon lets go of it.

    python -P -m daemon.nodes.sandbox.host python|javascript SOCKET [COMPILED]

SOCKET is a descriptor's number: the way to the daemon. COMPILED is that of a file with what an earlier process like
this one compiled. Standard input is the lifeline: when it closes, this process and what is under it end at once.
Standard output leads nowhere, so that nothing that code might write there is taken for an answer.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Protocol

from daemon.nodes.sandbox import frames
from daemon.nodes.sandbox.confine import confine, die_with_daemon
from daemon.nodes.sandbox.frames import (
    CAUSE_CHARACTERS,
    LOG_CHARACTERS,
    CodeError,
    Done,
    Failed,
    Job,
    Outcome,
    TooMuchPrinted,
    text_of,
)

Print = Callable[[str], None]


class Interpreter(Protocol):
    """One language. Nothing of a job may be left for the next one to see."""

    def run(self, job: Job, printed: Print) -> Outcome:
        """Run a job to its end, within its limits as far as the interpreter keeps them. `printed` is called with what
        the code prints, and may raise TooMuchPrinted."""

    def rest(self) -> None:
        """Clear up after a job and get ready for the next, while nobody waits."""

    def compiled(self) -> bytes:
        """What would spare another one of its kind the work of starting; empty: nothing."""

    def confine(self) -> None:
        """Give up what running code does not need."""

    def close(self) -> None:
        """End what is under it. (The child does not: it is killed.)"""


class Printer:
    """Counts what is printed, and passes on the beginning: at once, so that it is known whatever happens to the
    process, but after AT_ONCE times gathered, so that nobody's loop is kept busy with it."""

    AT_ONCE = 100
    PAUSE_SECONDS = 0.05

    def __init__(self, output_bytes: int, keep: Print) -> None:
        self._left = output_bytes
        self._room = LOG_CHARACTERS
        self._keep = keep
        self._gathered = ""
        self._passed = 0
        self._next_at = 0.0
        self.exceeded = False

    def __call__(self, text: str) -> None:
        """Raises TooMuchPrinted."""
        self._left -= len(text.encode("utf-8", "replace"))
        kept = text_of(text, self._room)
        self._room -= len(kept)
        self._gathered += kept
        if self._passed < self.AT_ONCE or time.monotonic() >= self._next_at:
            self._pass_on()
        if self._left < 0:
            self.exceeded = True
            raise TooMuchPrinted

    def finish(self) -> None:
        """Pass on what is gathered."""
        if self._gathered:
            self._pass_on()

    def _pass_on(self) -> None:
        # Perhaps nothing, when there is no more room: it still tells that there is progress.
        self._keep(self._gathered)
        self._gathered = ""
        self._passed += 1
        self._next_at = time.monotonic() + self.PAUSE_SECONDS


def interpreter(language: str, *, confined: bool, compiled: bytes = b"") -> Interpreter:
    """`confined`: this process is the interpreter's alone, and the kernel is to hold it to each job's limits.
    `compiled` is what another one's `compiled()` gave. Raises ImportError where its package is not installed."""
    if language == "python":
        from daemon.nodes.sandbox.python import PythonInterpreter

        return PythonInterpreter(confined)
    from daemon.nodes.sandbox.javascript import JavaScriptInterpreter

    return JavaScriptInterpreter(confined, compiled)


def run_job(made: Interpreter, job: Job, keep: Print) -> Outcome:
    """A job's outcome, with whatever the interpreter does not name itself. `keep` gets the beginning of what is
    printed."""
    printer = Printer(job.output_bytes, keep)
    try:
        outcome = made.run(job, printer)
    except MemoryError:
        outcome = Failed(CodeError.MEMORY_LIMIT, f"it used more than {job.memory_bytes} bytes", spent=True)
    except Exception as error:  # noqa: BLE001 - whatever an interpreter does, it is this job's end alone
        outcome = Failed(CodeError.CRASHED, f"the interpreter failed: {type(error).__name__}: {error}", spent=True)
    printer.finish()
    if printer.exceeded:
        return Failed(CodeError.OUTPUT_LIMIT, f"it printed more than {job.output_bytes} bytes", spent=True)
    if isinstance(outcome, Done) and len(outcome.output) > job.output_bytes:
        return Failed(
            CodeError.OUTPUT_LIMIT,
            f"the result has {len(outcome.output)} bytes as JSON, over the limit of {job.output_bytes}",
        )
    if isinstance(outcome, Failed):
        return Failed(outcome.error, text_of(outcome.cause, CAUSE_CHARACTERS), outcome.spent)
    return outcome


def main() -> None:
    language, descriptor, *given = sys.argv[1:]
    channel = socket.socket(fileno=int(descriptor))
    # Not for processes under this one: they could answer in its place, and would keep the daemon from seeing its end.
    channel.set_inheritable(False)
    die_with_daemon()
    try:
        made = interpreter(language, confined=True, compiled=_contents(int(given[0])) if given else b"")
        confine()
        made.rest()
        made.confine()
    except Exception as error:  # noqa: BLE001 - told to whoever waits for this process
        channel.sendall(frames.framed(frames.Ready(f"{type(error).__name__}: {error}")))
        return
    channel.sendall(frames.framed(frames.Ready(compiled=b"" if given else made.compiled())))
    while (job := _receive(channel)) is not None:
        outcome = run_job(made, job, lambda text: channel.sendall(frames.framed(frames.Printed(text))))
        channel.sendall(frames.framed(outcome))
        del job
        if isinstance(outcome, Failed) and outcome.spent:
            return
        made.rest()


def _contents(descriptor: int) -> bytes:
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    return data


def _receive(channel: socket.socket) -> Job | None:
    header = _exactly(channel, frames.HEADER.size)
    if header is None:
        return None
    body = _exactly(channel, frames.HEADER.unpack(header)[0])
    return None if body is None else frames.decode_job(body)


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


if __name__ == "__main__":
    main()
