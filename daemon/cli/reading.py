"""What commands read: JSON from an option, a definition from a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from msgspec import Raw

from enginekit.messages.json import NotJSON, decode, encode

DEFINITION_SUFFIXES = (".json", ".yaml", ".yml")
LABEL_FORM = "KEY=VALUE"


def read_input(text: str | None, option: str = "--input") -> Raw | None:
    """The value of an option like `--input`: JSON, `@FILE`, or `@-` for stdin. Raises click.BadParameter."""
    if text is None:
        return None
    data = text.encode()
    where = option
    if text.startswith("@"):
        where = text[1:]
        try:
            data = sys.stdin.buffer.read() if where == "-" else Path(where).read_bytes()
        except OSError as error:
            raise click.BadParameter(f"{where}: cannot be read: {error.strerror}", param_hint=option) from error
    try:
        return encode(decode(data))
    except NotJSON as error:
        raise click.BadParameter(f"{where}: {error}", param_hint=option) from error


def is_definition_file(text: str) -> bool:
    """FILE or NAME? A file is what exists, or is called like one."""
    return text.endswith(DEFINITION_SUFFIXES) or Path(text).is_file()


def read_definition(path: str) -> str:
    """The text of a definition, JSON or YAML. Raises click.BadParameter."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{path}: is not UTF-8 text (byte {error.start})") from error


def read_labels(pairs: tuple[str, ...]) -> dict[str, str]:
    """`--label key=value`, each. Raises click.BadParameter."""
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{pair!r}: write it as {LABEL_FORM}", param_hint="--label")
        labels[key] = value
    return labels
