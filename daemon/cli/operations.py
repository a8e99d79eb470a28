"""Looking after a daemon: `queues`, `status`."""

from __future__ import annotations

import click

from daemon.cli.output import document, json_option, line, moment, table
from daemon.cli.session import talk
from enginekit.messages.calls import DescribeDaemon, ListQueues, ProcessView


@click.command()
@json_option
def queues(as_json: bool) -> None:
    """Show the task queues: what waits in each, for how long, and who asks for it."""
    found = talk(lambda client: client.call(ListQueues())).queues
    if as_json:
        document(found)
        return
    rows = [
        (
            each.queue,
            each.kind,
            str(each.depth),
            f"{each.oldest_seconds:.1f} s" if each.depth else "",
            str(each.pollers),
            str(each.dispatched),
            f"{each.rate:.1f}/s",
        )
        for each in found
    ]
    table(("queue", "kind", "depth", "oldest", "pollers", "dispatched", "rate"), rows)


def _process(each: ProcessView) -> tuple[str, ...]:
    if each.silent_since is not None:
        condition = f"silent since {moment(each.silent_since)}"
    elif each.drains:
        condition = "draining"
    elif each.waiting_for:
        condition = f"waiting for {', '.join(each.waiting_for)}"
    else:
        condition = "ready"
    return (
        f"{each.host}, pid {each.pid}",
        ",".join(each.roles),
        each.engine,
        moment(each.started_at),
        condition,
        str(sum(service.restarts for service in each.services)),
        str(len(each.shards)),
        str(len(each.partitions)),
    )


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the daemon's services, shards and store, all processes where there are several, and the circuit breakers
    of what your tasks call."""
    seen = talk(lambda client: client.call(DescribeDaemon()))
    if as_json:
        document(seen)
        return
    line(f"engine {seen.engine} (Python {seen.python}, Trio {seen.trio}), pid {seen.pid}")
    line(f"started {moment(seen.started_at)}")
    line(f"store: {seen.store.kind}, {seen.store.state}, schema {seen.store.schema_version}")
    line("shards: " + ", ".join(f"{each.shard} (epoch {each.epoch})" for each in seen.shards))
    rows = [
        (each.name, each.state, str(each.restarts), f"{each.uptime_seconds:.0f} s", each.last_error or "")
        for each in seen.services
    ]
    table(("service", "state", "restarts", "uptime", "last error"), rows)
    if len(seen.processes) > 1:
        table(
            ("process", "roles", "engine", "up since", "is", "restarts", "shards", "partitions"),
            [_process(each) for each in seen.processes],
        )
    if seen.breakers is None:
        line("circuit breakers: not known, matching does not answer")
    elif not seen.breakers:
        line("circuit breakers: all closed, and no call failed lately")
    else:
        table(
            ("destination", "breaker", "since", "failed", "waiting", "next probe"),
            [
                (
                    each.destination,
                    each.state.value,
                    moment(each.since),
                    f"{each.failure_rate:.0%}",
                    str(each.waiting),
                    moment(each.next_probe_at),
                )
                for each in seen.breakers
            ],
        )
