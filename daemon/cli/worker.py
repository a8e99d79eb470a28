"""`engine worker`: a process that runs your activities, from the command line to its exit status.

Exit status: 0 drained, 2 usage, 3 the daemon does not let it work, 4 the daemon could not be reached, 128 + N ended at
once by a second signal N.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping

import click
import trio

from daemon.cli.loading import load_app
from daemon.cli.session import talk
from enginekit.activity import CURRENT
from enginekit.client import Client
from enginekit.errors import ProtocolError
from enginekit.messages.status import Refused
from enginekit.worker import Worker

CONNECT_SECONDS = 30.0
CONCURRENCY = 16
DRAIN_SECONDS = 20.0

_log = logging.getLogger("enginekit.worker")


@click.command()
@click.argument("app", metavar="MODULE:APP")
@click.option("--queue", "queues", multiple=True, help="Serve this one of APP's queues; may be repeated. Default: all.")
@click.option("--concurrency", type=click.IntRange(min=1), help=f"Tasks at once, over all queues. [{CONCURRENCY}]")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    help=f"On SIGTERM, how long running tasks may go on before they are given back. [{DRAIN_SECONDS:g}]",
)
@click.option("--worker-id", help="Stands in histories; made of host and process without it.")
@click.option(
    "--connect-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=CONNECT_SECONDS,
    show_default=True,
    help="How long the first connection may take. Later ones are waited for.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]), default="auto")
@click.pass_context
def worker(
    ctx: click.Context,
    app: str,
    queues: tuple[str, ...],
    concurrency: int | None,
    drain_seconds: float | None,
    worker_id: str | None,
    connect_seconds: float,
    log_level: str,
    log_format: str,
) -> None:
    """Run activities for the daemon's `activity:NAME` and Lambda tasks until SIGTERM or Ctrl-C.

    APP is what MODULE has under that name: activities by their queues (a dict, or enginekit.worker.Activities), or a
    function that takes the client and returns a Worker.

    The first signal lets running tasks finish, for a while; a second one gives them back at once.
    """
    _configure_logs(log_level, log_format)
    loaded = load_app(app)
    if not isinstance(loaded, Mapping):
        for option, value in (
            ("--queue", queues),
            ("--concurrency", concurrency),
            ("--drain-seconds", drain_seconds),
            ("--worker-id", worker_id),
        ):
            if value:
                raise click.UsageError(f"{option}: {app} makes its own Worker, and says so there")
        ctx.exit(talk(lambda client: _work(client, loaded), connect_seconds))
    for queue in queues:
        if queue not in loaded:
            raise click.BadParameter(f"{app} has no {queue!r}; it has {', '.join(loaded)}", param_hint="--queue")
    wanted = {queue: loaded[queue] for queue in queues or loaded}
    slots = max(CONCURRENCY, len(wanted)) if concurrency is None else concurrency
    if slots < len(wanted):
        raise click.BadParameter(f"{len(wanted)} queues need as many slots", param_hint="--concurrency")

    def make(client: Client) -> Worker:
        seconds = DRAIN_SECONDS if drain_seconds is None else drain_seconds
        return Worker(client, wanted, concurrency=slots, worker_id=worker_id, drain_seconds=seconds)

    ctx.exit(talk(lambda client: _work(client, make), connect_seconds))


async def _work(client: Client, make: Callable[[Client], Worker]) -> int:
    """Work until a signal. The exit status; raises what keeps the worker from its work."""
    working = make(client)
    stopped_by = 0
    problem: Refused | ProtocolError | None = None
    at_once = trio.CancelScope()

    async def heed(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal stopped_by
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            stopping = False
            async for number in signals:
                if stopping:
                    stopped_by = number
                    _log.warning("stopping at once: %s", signal.Signals(number).name)
                    at_once.cancel()
                    return
                stopping = True
                _log.info("stopping: %s", signal.Signals(number).name)
                working.stop()

    async with trio.open_nursery() as nursery:
        await nursery.start(heed)
        hello = client.hello
        about = {"worker": working.worker_id, "queues": working.queues, "tenant": hello.tenant}
        _log.info("working for engine %s", hello.engine, extra=about)
        try:
            with at_once:
                await working.run()
        except (Refused, ProtocolError) as error:
            problem = error
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem
    _log.info("stopped", extra=about)
    return 128 + stopped_by if stopped_by else 0


class _OfTask(logging.Filter):
    """Adds the task to whatever an activity logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        task = CURRENT.get()
        if task is not None:
            for name in ("workflow_id", "run_id", "path", "attempt"):
                if not hasattr(record, name):
                    setattr(record, name, getattr(task, name))
        return True


def _configure_logs(level: str, form: str) -> None:
    # Only now: what a worker's process imports, its activities wait for.
    from daemon.logs import configure_logs
    from daemon.settings import LogSettings

    configure_logs(LogSettings(level=level, format=form))
    for handler in logging.getLogger().handlers:
        handler.addFilter(_OfTask())
