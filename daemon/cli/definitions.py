"""Registered workflows: `register`, `definitions`."""

from __future__ import annotations

import click

from daemon.cli.output import document, json_option, line, moment, table
from daemon.cli.reading import read_definition
from daemon.cli.session import talk
from enginekit.client import Client
from enginekit.messages.calls import DefinitionSummary, ListDefinitions, RegisterWorkflow
from enginekit.messages.json import encode


@click.command()
@click.argument("name")
@click.argument("file", metavar="FILE")
@json_option
def register(name: str, file: str, as_json: bool) -> None:
    """Store the definition in FILE (JSON or YAML) under NAME. The same text again keeps its version."""
    params = RegisterWorkflow(name=name, definition=encode(read_definition(file)))
    registered = talk(lambda client: client.call(params))
    if as_json:
        document(registered)
    else:
        line(f"{registered.name} version {registered.version}")


@click.command()
@json_option
def definitions(as_json: bool) -> None:
    """List the registered definitions."""

    async def run(client: Client) -> list[DefinitionSummary]:
        found: list[DefinitionSummary] = []
        token: str | None = None
        while True:
            page = await client.call(ListDefinitions(page_size=1000, page_token=token))
            found += page.definitions
            token = page.next_page_token
            if token is None:
                return found

    found = talk(run)
    if as_json:
        document(found)
        return
    rows = [(each.name, str(each.version), moment(each.registered_at)) for each in found]
    table(("name", "version", "registered"), rows)
