"""`engine token`: lets somebody into the local daemon."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.api.auth import sign_local_token
from daemon.api.keys import KeyUnusable
from daemon.cli.output import document, json_option, line
from daemon.cli.session import DaemonRefused
from enginekit.local import SCOPES, TENANT, LocalDaemon, data_dir


@click.command()
@click.option("--tenant", default=TENANT, show_default=True)
@click.option("--subject", default="local", show_default=True, help="Who it is for; stands in histories.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="May be repeated; all of them without it."
)
@click.option("--ttl", type=click.IntRange(min=1), default=3600, show_default=True, help="Seconds it is valid.")
@click.option(
    "--data-dir", "folder", type=click.Path(file_okay=False, path_type=Path), help="The daemon's data folder."
)
@json_option
def token(tenant: str, subject: str, scopes: tuple[str, ...], ttl: int, folder: Path | None, as_json: bool) -> None:
    """Sign a token with the local daemon's own key, which is made when there is none yet."""
    local = folder or data_dir()
    if refusal := LocalDaemon(local).refuses_own_tokens():
        raise DaemonRefused(refusal)
    try:
        signed = sign_local_token(local, tenant, subject, list(scopes or SCOPES), float(ttl))
    except KeyUnusable as error:
        raise DaemonRefused(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        document({"token": signed})
    else:
        line(signed)
