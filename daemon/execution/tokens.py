"""Task tokens: what a worker in another process shows to report about an attempt.

A token names the run, the task and how often it was given back, and is sealed with an HMAC under a key that only the
store has. So it is unguessable, new for every attempt and every hand-over, worth nothing to another tenant (who is
part of what is sealed), and cannot be read out of a history.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import msgspec

from enginekit.messages.links import RunRef, TaskRef
from enginekit.messages.status import ErrorStatus, Refused

CALLBACK: Final = -1
"""In the place of `returns`: the token of `$$.Task.Token`, which ends the task whoever has it at the time."""


class OpenedToken(msgspec.Struct, frozen=True):
    """What a token says: the task, and how often it had been given back when it was handed out (or CALLBACK)."""

    task: TaskRef
    returns: int


def mint(key: bytes, run: RunRef, event_id: int, returns: int) -> str:
    """At most 600 characters of the URL-safe alphabet and dots."""
    seal = _text(_seal(key, run, event_id, returns))
    return f"{_text(run.workflow_id.encode())}.{run.run_id}.{event_id}.{returns}.{seal}"


def named_in(tenant: str, token: str) -> TaskRef | None:
    """The task that a token names, unproved: for a log, where no key is at hand. None for what is no token of ours."""
    try:
        return _read(tenant, token)[0].task
    except Refused:
        return None


def open_token(key: bytes, tenant: str, token: str) -> OpenedToken:
    """What it says. Raises Refused INVALID_ARGUMENT for one that this engine did not make, or made for another
    tenant."""
    opened, given = _read(tenant, token)
    if not hmac.compare_digest(given, _seal(key, opened.task.run, opened.task.event_id, opened.returns)):
        raise _invalid()
    return opened


def _read(tenant: str, token: str) -> tuple[OpenedToken, bytes]:
    """What it says, and its seal. Raises Refused."""
    try:
        workflow_id, run_id, event_id, returns, seal = token.split(".")
        run = RunRef(tenant, _bytes(workflow_id).decode(), run_id)
        return OpenedToken(TaskRef(run, int(event_id)), int(returns)), _bytes(seal)
    except (ValueError, binascii.Error) as error:
        raise _invalid() from error


def _invalid() -> Refused:
    return Refused(ErrorStatus.INVALID_ARGUMENT, "token: not a task token of this engine and tenant")


def _seal(key: bytes, run: RunRef, event_id: int, returns: int) -> bytes:
    text = f"{run.tenant}\n{run.workflow_id}\n{run.run_id}\n{event_id}\n{returns}"
    return hmac.digest(key, text.encode(), hashlib.sha256)[:16]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
