"""`engine validate`: the language's own judgement on a file, without a daemon."""

from __future__ import annotations

import click

from daemon.cli.output import document, json_option, line
from daemon.cli.reading import read_definition
from daemon.cli.session import Failed
from daemon.language import InvalidDefinition, parse_definition


@click.command()
@click.argument("file", metavar="FILE")
@json_option
@click.pass_context
def validate(ctx: click.Context, file: str, as_json: bool) -> None:
    """Check the definition in FILE (JSON or YAML). Every fault stands on a line of its own; exit 1 if there is one."""
    faults: list[dict[str, str]] = []
    try:
        parse_definition(read_definition(file))
    except InvalidDefinition as invalid:
        faults = [{"path": fault.path, "message": fault.message} for fault in invalid.faults]
    if as_json:
        document({"valid": not faults, "faults": faults})
    elif not faults:
        line(f"{file}: valid")
    else:
        for fault in faults:
            line(f"{fault['path']}: {fault['message']}" if fault["path"] else fault["message"])
    if faults:
        ctx.exit(Failed.exit_code)
