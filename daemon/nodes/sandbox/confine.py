"""The second line of defence, in the child: what the kernel holds a process to, whatever its interpreter does.

The first is the interpreter, which knows no file, socket or process to begin with and counts its own time and memory.
Linux; elsewhere what the kernel does not have is left out.
"""

from __future__ import annotations

import os
import resource
import signal
import threading

from daemon.nodes.sandbox.seccomp import refuse

FILES = 32
"""Open files of a child: its own few, and the pipes to an interpreter in a process under it."""
FILE_BYTES = 64 * 1024
"""What a child may write: the file behind its standard error."""
GRACE_CPU_SECONDS = 2
"""How much longer than its time a job may compute before the kernel ends the process."""
_MIB = 1024 * 1024
_TICKS = os.sysconf("SC_CLK_TCK")

_held: dict[tuple[int, str], int] = {}
"""Descriptors of what the kernel tells of this process: it may open nothing later."""


def die_with_daemon() -> None:
    """End this process and all under it as soon as the daemon is gone: then the other end of standard input closes."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def confine() -> None:
    """No environment, no folder, no core, few files, no network. Limits on memory and CPU time are set for each job."""
    os.environ.clear()
    _held.update({(0, name): _opened(0, name) for name in ("stat", "statm")})
    refuse(settled=False)
    os.chdir("/")
    os.umask(0o777)
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NOFILE, FILES)


def settle(pid: int = 0, *, processes: bool = False) -> None:
    """Once everything is loaded: no writing beyond what its standard error may hold, and, unless it still needs
    `processes`, no further process or thread (from which the kernel exempts root) and, for this one itself, no file."""
    lower(resource.RLIMIT_FSIZE, FILE_BYTES, pid)
    if not processes:
        lower(resource.RLIMIT_NPROC, 0, pid)
        if pid == 0:
            refuse(settled=True)


def lower(limit: int, value: int, pid: int = 0) -> None:
    """A limit that nobody in the process can raise again."""
    _, hard = resource.prlimit(pid, limit)
    if hard == resource.RLIM_INFINITY or hard > value:
        resource.prlimit(pid, limit, (value, value))


def bound_job(milliseconds: int, memory_bytes: int, pid: int = 0) -> None:
    """Limits for the next job of a process: more CPU time than it has used so far, and more memory than it has now.

    The memory is what a process may write to and shares with nobody (RLIMIT_DATA): the address space says nothing of
    WebAssembly, which reserves 4 GiB of it and uses little.
    """
    seconds = int(_cpu_seconds(pid) + milliseconds / 1000) + 1 + GRACE_CPU_SECONDS
    _soften(resource.RLIMIT_CPU, seconds, pid)
    _soften(resource.RLIMIT_DATA, _data_bytes(pid) + memory_bytes + 64 * _MIB, pid)


def _soften(limit: int, value: int, pid: int) -> None:
    _, hard = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _cpu_seconds(pid: int) -> float:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _data_bytes(pid: int) -> int:
    return int(_read(pid, "statm").split()[5]) * resource.getpagesize()


def _read(pid: int, name: str) -> bytes:
    held = _held.get((pid, name))
    descriptor = _opened(pid, name) if held is None else held
    try:
        return os.pread(descriptor, 4096, 0)
    finally:
        if held is None:
            os.close(descriptor)


def _opened(pid: int, name: str) -> int:
    return os.open(f"/proc/{pid or 'self'}/{name}", os.O_RDONLY | os.O_CLOEXEC)
