"""`engine history`: what happened in an execution, line by line or as JSON, and on request as it happens."""

from __future__ import annotations

import sys
from typing import Final

import click
import msgspec

from daemon.cli.output import document, json_option, line
from daemon.cli.session import talk
from enginekit.client import Client
from enginekit.messages.json import JSON, decode

_SHOWN_BEFORE: Final = frozenset({"id", "time", "type", "v", "node", "path", "entry"})
_VALUE_LENGTH: Final = 120


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="A run of it; the latest without it.")
@click.option("--follow", is_flag=True, help="Go on with what happens, until the execution has ended.")
@json_option
def history(workflow_id: str, run_id: str | None, follow: bool, as_json: bool) -> None:
    """Show an execution's events in order. With --json: one array (with --follow it ends with the execution)."""

    async def run(client: Client) -> None:
        first = True
        async for page in client.history_pages(workflow_id, run_id, follow=follow):
            for event in page.events:
                if as_json:
                    sys.stdout.write(("[" if first else ",\n") + bytes(event).decode())
                    first = False
                else:
                    _show(event)
            sys.stdout.flush()
        if as_json:
            sys.stdout.write("[]\n" if first else "]\n")

    talk(run)


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
