"""One process with an interpreter in it, from the daemon's side: started, given one job after another, ended.

The process leads a group of its own, so that ending it ends whatever is under it. It ends by SIGKILL: it holds nothing
that would have to be put away.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import msgspec
import trio

from daemon.nodes.sandbox import frames
from daemon.nodes.sandbox.frames import LOG_CHARACTERS, CodeError, Failed, Job, Outcome

GRACE_SECONDS = 1.0
"""How much longer than a job's time its process may be silent: the interpreter is given the chance to say it itself."""
_REAP_SECONDS = 5.0
_COMPILED_BYTES = 16 * 1024 * 1024
_SPACE_BYTES = 64 * 1024
"""What a frame may have beside a result."""
_TOLD_BYTES = 500
_NEEDED = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
"""What a Python may need of the environment to start. The child drops it then."""
_HAS_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
"""Asks whether a process has ended, and leaves it to be waited for."""


class NotStarted(Exception):
    """No process, or none with an interpreter in it. The message says why."""


class _Lost(Exception):
    """The process has ended, or sends what it should not."""


class InterpreterProcess:
    """To be made by `start`, used by one task at a time, and ended by `end`."""

    def __init__(
        self, process: trio.Process, stream: trio.SocketStream, lifeline: int, errors: int, idle_since: float
    ) -> None:
        self.idle_since = idle_since
        self.tenant: str | None = None
        """Whose job it ran last."""
        self._process = process
        self._stream = stream
        self._lifeline = lifeline
        """While this is open, the child lives."""
        self._errors = errors
        self._data = bytearray()
        self._ended = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._ended and os.waitid(os.P_PID, self.pid, _HAS_ENDED) is None

    @classmethod
    async def start(
        cls, language: str, start_seconds: float, compiled: int | None = None
    ) -> tuple[InterpreterProcess, bytes]:
        """A process that is ready for a job, and what it compiled, where it was not given a file (its descriptor) with
        what another had. Raises NotStarted. Cancelled: none is left behind."""
        given = () if compiled is None else (compiled,)
        ours, theirs = socket.socketpair()
        lifeline, ours_of_it = os.pipe()
        descriptors = (theirs.fileno(), *given)
        errors = os.memfd_create("stderr")
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-m", "daemon.nodes.sandbox.host", language, *map(str, descriptors)],
                stdin=lifeline,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=descriptors,
                env={name: os.environ[name] for name in _NEEDED if name in os.environ},
                start_new_session=True,
            )
        except BaseException as error:
            ours.close()
            os.close(ours_of_it)
            os.close(errors)
            if isinstance(error, OSError):
                raise NotStarted(str(error)) from error
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        made = cls(process, stream, ours_of_it, errors, trio.current_time())
        ready: frames.Answer | None = None
        try:
            with trio.move_on_after(start_seconds):
                ready = await made._next(_COMPILED_BYTES)
            if not isinstance(ready, frames.Ready):
                raise NotStarted(f"it was not ready within {start_seconds:g} seconds")
            if ready.fault:
                raise NotStarted(ready.fault)
        except _Lost as error:
            raise NotStarted(f"it ended at once ({made._told() or error})") from error
        finally:
            if not isinstance(ready, frames.Ready) or ready.fault:
                await made.end()
        return made, ready.compiled

    async def run(self, job: Job, printed: Callable[[str], None]) -> Outcome:
        """The job's outcome. `printed` is called with the beginning of what it prints, as it comes.

        Whatever happens to the process, an outcome; it may have to be ended then, as `alive` says. Cancelled: it has
        to be ended, too.
        """
        outcome: Outcome | None = None
        self.tenant = job.tenant
        with trio.move_on_after(job.milliseconds / 1000 + GRACE_SECONDS):
            try:
                await self._stream.send_all(frames.framed(job))
                outcome = await self._outcome(job, printed)
            except (_Lost, trio.BrokenResourceError):
                outcome = await self._lost(job)
        if outcome is None:
            outcome = Failed(CodeError.TIMEOUT, f"it ran longer than {job.milliseconds} ms", spent=True)
        if isinstance(outcome, Failed) and outcome.spent:
            self._kill()
        self.idle_since = trio.current_time()
        return outcome

    async def end(self) -> None:
        """Kill it and what is under it, and wait until it is gone. Cancelled: does both all the same."""
        self._kill()
        with trio.CancelScope(shield=True), trio.move_on_after(_REAP_SECONDS):
            await self._process.wait()
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1

    def _kill(self) -> None:
        if self._ended:
            return
        self._ended = True
        # Until it is waited for nobody else can have its number, whether it has ended or not.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._stream.socket.close()
        os.close(self._lifeline)

    # --- what it says ------------------------------------------------------------------------------------------------

    async def _outcome(self, job: Job, printed: Callable[[str], None]) -> Outcome:
        room = LOG_CHARACTERS
        while True:
            answer = await self._next(job.output_bytes + _SPACE_BYTES)
            match answer:
                case frames.Printed():
                    printed(answer.text[:room])
                    room -= min(len(answer.text), room)
                case frames.Done() | frames.Failed():
                    return answer
                case frames.Ready():
                    raise _Lost("it answered out of turn")

    async def _next(self, most: int) -> frames.Answer:
        """Raises _Lost."""
        (size,) = frames.HEADER.unpack(await self._exactly(frames.HEADER.size))
        if size > most:
            raise _Lost("it sends too much")
        try:
            return frames.decode_answer.decode(await self._exactly(size))
        except msgspec.MsgspecError as error:
            raise _Lost("it sends what is no answer") from error

    async def _exactly(self, size: int) -> bytes:
        while len(self._data) < size:
            try:
                part = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise _Lost("it has ended") from error
            if not part:
                raise _Lost("it has ended")
            self._data += part
        data = bytes(self._data[:size])
        del self._data[:size]
        return data

    async def _lost(self, job: Job) -> Failed:
        """What the end of the process comes to, by how it ended and what it left on its standard error."""
        self._kill()
        await self._process.wait()
        code, told = self._process.returncode, self._told()
        if code == -signal.SIGXCPU:
            return Failed(CodeError.TIMEOUT, f"it ran longer than {job.milliseconds} ms", spent=True)
        if "memory allocation of" in told or "MemoryError" in told:
            return Failed(CodeError.MEMORY_LIMIT, f"it used more than {job.memory_bytes} bytes", spent=True)
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with status {code}"
        return Failed(CodeError.CRASHED, f"its process ended {how}{': ' if told else ''}{told}", spent=True)

    def _told(self) -> str:
        """The end of its standard error."""
        try:
            size = os.fstat(self._errors).st_size
            data = os.pread(self._errors, _TOLD_BYTES, max(size - _TOLD_BYTES, 0))
        except OSError:
            return ""
        return data.decode("utf-8", "replace").strip()
