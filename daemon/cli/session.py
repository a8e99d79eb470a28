"""How a command talks to a daemon: a client for as long as the command takes, and what goes wrong as an exit status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import trio

from enginekit.client import Client, check_url, open_client
from enginekit.errors import ProtocolError, Unreachable
from enginekit.local import find_daemon
from enginekit.messages.json import JSON
from enginekit.messages.status import Refused

CONNECT_SECONDS = 5.0
CALL_SECONDS = 40.0
"""Longer than a Frontend waits for the service behind it, so that what it says of that is heard."""

T = TypeVar("T")


class Failed(click.ClickException):
    """The workflow failed, or the file is not valid."""

    exit_code = 1


class DaemonRefused(click.ClickException):
    """The daemon refused the call."""

    exit_code = 3


class NotReached(click.ClickException):
    """The daemon could not be reached."""

    exit_code = 4


def talk(conversation: Callable[[Client], Awaitable[T]], connect_seconds: float | None = None) -> T:
    """Run `conversation` with a client that is connected, after CONNECT_SECONDS at most, or as many as are given.

    Raises DaemonRefused, NotReached, click.UsageError for an ENGINE_URL that is none, click.Abort when interrupted.
    """
    found = find_daemon()
    if isinstance(found.url, str):
        try:
            check_url(found.url)
        except ValueError as error:
            raise click.UsageError(f"ENGINE_URL: {error}") from error

    async def run() -> T:
        if not isinstance(found.url, str):
            found.url()  # a folder where no daemon has ever run needs no patience
        async with open_client(
            found.url,
            found.token,
            timeout_seconds=CALL_SECONDS,
            connect_seconds=CONNECT_SECONDS if connect_seconds is None else connect_seconds,
        ) as client:
            return await conversation(client)

    try:
        return trio.run(run)
    except Refused as refused:
        raise DaemonRefused(explain(refused)) from refused
    except (Unreachable, ProtocolError) as error:
        raise NotReached(str(error)) from error
    except KeyboardInterrupt:
        raise click.Abort from None
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            raise click.Abort from None
        raise


def explain(refused: Refused) -> str:
    """A refusal for a person: a definition's faults each on a line of their own."""
    faults = refused.data.get("faults")
    if isinstance(faults, list) and faults:
        return "\n".join([f"{refused.status.value}:", *(f"  {_fault(fault)}" for fault in faults)])
    return str(refused)


def _fault(fault: JSON) -> str:
    if isinstance(fault, dict):
        path, message = fault.get("path"), fault.get("message")
        return f"{path}: {message}" if path else str(message)
    return str(fault)
