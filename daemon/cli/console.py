"""`engine console`: the daemon in a terminal."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from enginekit.client import check_url
from enginekit.local import find_daemon


@click.command()
def console() -> None:
    """Watch the daemon and its executions, and act on them."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("the console needs a terminal; `engine status`, `queues` and `list` write to a pipe")
    found = find_daemon()
    if isinstance(found.url, str):
        try:
            check_url(found.url)
        except ValueError as error:
            raise click.UsageError(f"ENGINE_URL: {error}") from error
    os.environ.setdefault("TEXTUAL_FPS", "120")  # a picture waits for the next of so many moments in a second
    from console.app import run_console  # half a second, which nobody else should wait

    asyncio.run(run_console(found))
