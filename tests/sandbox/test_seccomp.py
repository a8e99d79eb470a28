"""What the kernel refuses a process that was told to do without. In processes of their own: there is no way back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_CALL = "import ctypes\nif ctypes.CDLL(None, use_errno=True).{}: raise OSError(ctypes.get_errno(), '')"
TRIES = {
    "socket": "import socket; socket.socket()",
    "open": "open('/etc/passwd')",
    "write": "open('/dev/null', 'w')",
    "program": "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "fork": "import os\nif os.fork() == 0: os._exit(0)",
    "thread": "import _thread; _thread.start_new_thread(print, ())",
    "remove": "import os; os.unlink('/nowhere')",
    "rename": "import os; os.rename('/nowhere', '/elsewhere')",
    "link": "import os; os.symlink('/nowhere', '/elsewhere')",
    "namespace": _CALL.format("unshare(0x10000000)"),
    "trace": _CALL.format("ptrace(0, 0, 0, 0)"),
}
STILL_WHILE_LOADING = ("open", "write", "program", "fork", "thread")


def told(name: str, *, settled: bool) -> str:
    program = f"""
import _thread, ctypes, os, socket
from daemon.nodes.sandbox.seccomp import refuse
libc = ctypes.CDLL(None)
assert refuse(settled={settled})
try:
    exec({TRIES[name]!r})
except (OSError, RuntimeError) as error:
    print(type(error).__name__)
else:
    print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the numbers of calls are not known")
@pytest.mark.parametrize("name", TRIES)
def test_a_settled_process_is_refused(name: str) -> None:
    assert told(name, settled=True) in ("PermissionError", "RuntimeError")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the numbers of calls are not known")
@pytest.mark.parametrize("name", TRIES)
def test_one_that_still_loads_may_load(name: str) -> None:
    assert (told(name, settled=False) == "done") is (name in STILL_WHILE_LOADING)
