"""`engine history`: what happened in an execution, line by line or as JSON, and on request as it happens; from a daemon
or out of a store's file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from daemon.cli.output import document, json_option, line
from daemon.cli.session import Failed, talk
from enginekit.client import Client
from enginekit.local import TENANT
from enginekit.messages.json import JSON, decode

_SHOWN_BEFORE: Final = frozenset({"id", "time", "type", "v", "node", "path", "entry"})
_VALUE_LENGTH: Final = 120
_PAGE_EVENTS: Final = 1000
_PAGE_BYTES: Final = 4 * 1024 * 1024


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="A run of it; the latest without it.")
@click.option("--follow", is_flag=True, help="Go on with what happens, until the execution has ended.")
@click.option(
    "--store",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read it from this SQLite file, whether a daemon has it open or not: as it is stored, a payload once.",
)
@click.option("--tenant", default=TENANT, show_default=True, help="Whose it is, with --store.")
@json_option
def history(workflow_id: str, run_id: str | None, follow: bool, store: Path | None, tenant: str, as_json: bool) -> None:
    """Show an execution's events in order. With --json: one array (with --follow it ends with the execution)."""
    if store is not None and follow:
        raise click.UsageError("--follow asks a daemon: leave out --store")
    printed = _Printed(as_json)
    if store is not None:
        for events in _stored(store, tenant, workflow_id, run_id):
            printed.page([msgspec.Raw(event) for event in events])
    else:

        async def run(client: Client) -> None:
            async for page in client.history_pages(workflow_id, run_id, follow=follow):
                printed.page(page.events)

        talk(run)
    printed.end()


class _Printed:
    """Pages of events on stdout."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._first = True

    def page(self, events: list[msgspec.Raw]) -> None:
        for event in events:
            if self._as_json:
                sys.stdout.write(("[" if self._first else ",\n") + bytes(event).decode())
                self._first = False
            else:
                _show(event)
        sys.stdout.flush()

    def end(self) -> None:
        if self._as_json:
            sys.stdout.write("[]\n" if self._first else "]\n")


def _stored(path: Path, tenant: str, workflow_id: str, run_id: str | None) -> Iterator[list[bytes]]:
    """Pages of a history. Raises Failed."""
    # Only now: whoever asks a daemon needs nothing of the store.
    from daemon.stores.faults import StoreUnusable
    from daemon.stores.sqlite.database import open_reader

    try:
        reader = open_reader(path)
        try:
            if run_id is None:
                latest = reader.latest_run(tenant, workflow_id)
                if latest is None:
                    raise Failed(f'{path} has no execution "{workflow_id}" of tenant "{tenant}"')
                run_id = latest.run_id
            execution = reader.execution(tenant, run_id)
            if execution is None or execution.run.workflow_id != workflow_id:
                raise Failed(f'{path} has no run {run_id} of "{workflow_id}" of tenant "{tenant}"')
            last = 0
            while page := reader.events(tenant, run_id, last, _PAGE_EVENTS, _PAGE_BYTES):
                yield page
                last += len(page)
        finally:
            reader.close()
    except StoreUnusable as unusable:
        raise Failed(str(unusable)) from unusable


def _show(event: msgspec.Raw) -> None:
    fields = decode(event)
    if not isinstance(fields, dict):
        document(fields)
        return
    where = fields.get("path") or fields.get("node") or ""
    rest = " ".join(f"{name}={_short(value)}" for name, value in fields.items() if name not in _SHOWN_BEFORE)
    line(f"{fields.get('id'):>5}  {fields.get('time')}  {fields.get('type'):<24} {where:<20} {rest}".rstrip())


def _short(value: JSON) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 1] + "…"
