"""`engine validate`: the judgement on a file of the language, and of the node types that are installed here, without a
daemon (which may have others, and knows its connections)."""

from __future__ import annotations

import click

from daemon.cli.output import document, json_option, line
from daemon.cli.reading import read_definition
from daemon.cli.session import Failed
from daemon.language import ArgumentCheck, Fault, InvalidDefinition, parse_definition
from daemon.logs import configure_logs
from daemon.nodes.registry import NodeTypeError, NodeTypes
from daemon.settings import LogSettings, Settings


@click.command()
@click.argument("file", metavar="FILE")
@json_option
@click.pass_context
def validate(ctx: click.Context, file: str, as_json: bool) -> None:
    """Check the definition in FILE (JSON or YAML). Every fault stands on a line of its own; exit 1 if there is one.

    What may surprise in a valid definition is told on lines that begin with "warning:".
    """
    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()
    try:
        warnings = parse_definition(read_definition(file), check=_check()).warnings
    except InvalidDefinition as invalid:
        faults = invalid.faults
    if as_json:
        document({"valid": not faults, "faults": list(map(_shown, faults)), "warnings": list(map(_shown, warnings))})
    elif not faults:
        line(f"{file}: valid")
    for fault in () if as_json else faults:
        line(str(fault))
    for warning in () if as_json else warnings:
        line(f"warning: {warning}")
    if faults:
        ctx.exit(Failed.exit_code)


def _check() -> ArgumentCheck | None:
    configure_logs(LogSettings(level="warning"))  # What node types log belongs on stderr.
    try:
        nodes = NodeTypes(Settings())
    except NodeTypeError:
        return None  # The installation's fault, not the file's; the daemon will not start with it.
    return lambda name, arguments: nodes.check(name, arguments, None) if name in nodes.names() else ()


def _shown(fault: Fault) -> dict[str, str]:
    return {"path": fault.path, "message": fault.message}
