"""System calls that the kernel refuses a process, and all under it, from now on: what no interpreter needs, and what
somebody who broke out of one would.

Linux on x86-64 and arm64. Elsewhere, and where the kernel was built without it, nothing is refused.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2

# linux/bpf_common.h, linux/seccomp.h
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANSWER: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_KILL: Final = 0x80000000
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_X32: Final = 0x40000000
"""Another numbering of x86-64's calls starts here."""

_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
_ALWAYS: Final = {
    # name: (x86-64, arm64)
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "listen": (50, 201),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "unlinkat": (263, 35),
    "renameat2": (316, 276),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "mkdirat": (258, 34),
    "fchmodat": (268, 53),
    "fchownat": (260, 54),
    "unlink": (87, None),
    "rename": (82, None),
    "renameat": (264, 38),
    "link": (86, None),
    "symlink": (88, None),
    "mkdir": (83, None),
    "chmod": (90, None),
    "chown": (92, None),
}
_SETTLED: Final = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "open": (2, None),
    "creat": (85, None),
    "openat": (257, 56),
    "openat2": (437, 437),
}
"""What a process needs while it loads, and no more when it has: no file is opened, no process or thread begun."""


def refuse(*, settled: bool) -> bool:
    """Refuse this process the calls above, those of a settled one included where it is one. Whether it could be."""
    machine = platform.machine()
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None:
        return False
    column = 0 if machine == "x86_64" else 1
    named = _ALWAYS | _SETTLED if settled else _ALWAYS
    numbers = sorted({number for numbers in named.values() if (number := numbers[column]) is not None})
    return _install(_filter(architecture, numbers))


def _filter(architecture: int, numbers: list[int]) -> list[tuple[int, int, int, int]]:
    """The program: (code, jump if true, jump if false, operand) each."""
    checks = [(_EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_ANSWER, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, len(numbers) + 1, 0, _X32),
        *checks,
        (_ANSWER, 0, 0, _ALLOW),
        (_ANSWER, 0, 0, _REFUSE),
    ]


def _install(program: list[tuple[int, int, int, int]]) -> bool:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code)
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(held)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, None, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(head), 0, 0) == 0)
