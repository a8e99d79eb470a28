"""What passes between the daemon and a process with an interpreter in it: length-prefixed MessagePack frames.

One job at a time: the daemon sends a Job, the child answers with any number of Printed and one Outcome. Both ends are
of one version, but the daemon takes the child for hostile: what it reads is bounded and decoded strictly.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import TypeAlias

import msgspec

HEADER = struct.Struct(">I")
"""The length of what follows, in bytes."""

LOG_CHARACTERS = 16 * 1024
"""How much of what code prints is kept: what an event can hold."""
CAUSE_CHARACTERS = 4096
"""How much of an error's text is kept."""


class CodeError(str, Enum):
    """The errors of code, as `Retry` and `Catch` match them."""

    INVALID_ARGUMENTS = "Code.InvalidArguments"
    SYNTAX_ERROR = "Code.SyntaxError"
    ERROR = "Code.Error"
    TIMEOUT = "Code.Timeout"
    MEMORY_LIMIT = "Code.MemoryLimit"
    STACK_OVERFLOW = "Code.StackOverflow"
    OUTPUT_LIMIT = "Code.OutputLimit"
    INVALID_OUTPUT = "Code.InvalidOutput"
    CRASHED = "Code.Crashed"
    UNAVAILABLE = "Code.Unavailable"


class TooMuchPrinted(Exception):
    """The code printed more than its limit."""


class Frame(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """Base of all that is sent."""


class Job(Frame, frozen=True):
    """Source text over an input (JSON), under limits. `tenant`: whose it is; interpreters keep tenants apart by it."""

    tenant: str
    source: str
    input: bytes
    milliseconds: int
    memory_bytes: int
    output_bytes: int


class Ready(Frame, frozen=True):
    """The interpreter is loaded, or why it cannot be. `compiled`: what makes the next process of its kind start sooner;
    said before the first job, so it is nobody's code."""

    fault: str = ""
    compiled: bytes = b""


class Printed(Frame, frozen=True):
    """Something that the code printed."""

    text: str


class Done(Frame, frozen=True):
    """The code ended; its result as JSON."""

    output: bytes


class Failed(Frame, frozen=True):
    """The code failed. `spent`: the process is not to be used again."""

    error: CodeError
    cause: str
    spent: bool = False


Outcome: TypeAlias = Done | Failed
Answer: TypeAlias = Ready | Printed | Done | Failed

_encoder = msgspec.msgpack.Encoder()
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def framed(message: Frame) -> bytes:
    """The frame with its length before it."""
    body = _encoder.encode(message)
    return HEADER.pack(len(body)) + body


def text_of(value: str, limit: int) -> str:
    """At most `limit` characters of a foreign text, in a form that can be sent."""
    return value[:limit].encode("utf-8", "replace").decode()
