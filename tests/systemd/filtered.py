"""Runs a program under a unit's `SystemCallFilter`, as systemd would: what is not in it is refused with EPERM.

`filtered.py FILTER... -- PROGRAM ARGUMENT...`, each FILTER as a line of the unit has it:
`@system-service`, `~@privileged`.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, EPERM = 0x7FFF0000, 0x00050001
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def members() -> dict[str, list[str]]:
    """systemd's sets of system calls."""
    told = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    sets: dict[str, list[str]] = {}
    for line in told.splitlines():
        if line.startswith("@"):
            found = sets[line.strip()] = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            found.append(line.strip())
    return sets


def calls(sets: dict[str, list[str]], name: str) -> set[str]:
    return set().union(*(calls(sets, each) for each in sets[name])) if name.startswith("@") else {name}


def confine(filters: list[str]) -> None:
    sets, names = members(), set[str]()
    for line in filters:
        for word in line.removeprefix("~").split():
            names = names - calls(sets, word) if line.startswith("~") else names | calls(sets, word)
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text()))
    steps = [(LOAD, 0, 0, 0)]
    for number in sorted(int(numbers[name]) for name in names if name in numbers):
        steps += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    steps.append((RETURN, 0, 0, EPERM))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert prctl(SECCOMP, FILTER, ctypes.byref(program), 0, 0) == 0
    try:
        os.chroot("/")
    except PermissionError:
        return
    raise AssertionError("nothing is refused")


if __name__ == "__main__":
    end = sys.argv.index("--")
    confine(sys.argv[1:end])
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
