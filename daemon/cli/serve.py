"""`engine serve`: from the command line to a running daemon, and from its end to the exit status.

Exit status: 0 drained, 1 a service failed for good, 2 wrong settings, 3 the store or the key cannot be used,
128 + N ended at once by a second signal N.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Final

import click
import trio

import daemon
from enginekit.local import data_dir

ROLES: Final = ("frontend", "history", "matching", "worker", "timer")
"""As `daemon.roles` has them; named here, since importing that comes after the look for another `daemon`."""
DISTRIBUTION: Final = "execution-plane"


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="engine.toml; all defaults without it.")
@click.option("--data-dir", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where the daemon lives.")
@click.option("--roles", metavar="ROLE,…", help=f"The services to run, of {','.join(ROLES)}; all without it.")
@click.option(
    "--http-listen",
    metavar="HOST:PORT",
    help="Where to serve /healthz, /readyz and /metrics, before what --config says.",
)
@click.pass_context
def serve(
    ctx: click.Context, config: Path | None, folder: Path | None, roles: str | None, http_listen: str | None
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C, which let running tasks finish; a second one ends it at once."""
    shadow = find_shadow()
    if shadow is not None:
        raise click.ClickException(shadow)
    named = read_roles(roles)
    # Only now: what another distribution's `daemon` does to these imports is what the check above explains.
    from daemon.assembly import Daemon
    from daemon.clock import WallClock
    from daemon.configuration import BadSettings, load_settings, parse_listen
    from daemon.logs import configure_logs
    from daemon.roles import Role
    from daemon.supervisor import ExitCode, Unusable
    from daemon.supervisor import serve as supervise
    from daemon.systemd import find_notifier

    try:
        settings = load_settings(config)
    except BadSettings as error:
        raise click.UsageError(str(error)) from error
    if http_listen is not None:
        try:
            parse_listen(http_listen)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--http-listen") from error
    configure_logs(settings.log)
    try:
        built = Daemon(
            settings,
            folder or data_dir(),
            WallClock(),
            roles=frozenset(map(Role, named)),
            http_listen=http_listen,
            notifier=find_notifier(),
        )
    except Unusable as error:
        click.echo(f"Error: {error}", err=True)
        ctx.exit(ExitCode.UNUSABLE)
    ctx.exit(trio.run(supervise, built))


def read_roles(roles: str | None) -> set[str]:
    """Those named. Raises click.BadParameter for roles that there are not."""
    if roles is None:
        return set(ROLES)
    named = {role.strip() for role in roles.split(",")}
    unknown = sorted(named - set(ROLES))
    if unknown:
        raise click.BadParameter(f"no role {unknown[0]!r}; there are {', '.join(ROLES)}", param_hint="--roles")
    return named


def find_shadow(home: Path | None = None) -> str | None:
    """What is wrong when the package `daemon` is not ours: other distributions use that name, too."""
    ours = home or Path(__file__).resolve().parent.parent
    loaded = Path(daemon.__file__ or "").resolve().parent
    if loaded != ours:
        return (
            f"another `daemon` package shadows the engine's: Python imports {loaded} instead of {ours}; "
            "run the engine in an environment of its own"
        )
    for name in sorted(set(metadata.packages_distributions().get("daemon", ())) - {DISTRIBUTION}):
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            if file.name == "__init__.py" and Path(str(distribution.locate_file(file))).resolve().parent == ours:
                return (
                    f"the distribution {name} has written its own `daemon` package over the engine's in {ours}; "
                    f"uninstall {name}, then reinstall {DISTRIBUTION}, or give each an environment of its own"
                )
    return None
