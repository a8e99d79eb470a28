"""What goes into the script and comes out of it: an `Ask` and a `Told` in MessagePack. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from daemon.queues.interface import Ask, Claim, Demand, Depth, Heard, Notice, Places, Report, Terms, Told
from enginekit.messages.links import (
    EndNodePolls,
    EndPolls,
    HandBackTasks,
    QueuedTask,
    QueueKey,
    TaskKind,
    TaskRef,
    TasksFinished,
)

AGE_DIGITS: Final = 15

_notices: Final[dict[str, msgspec.json.Decoder[Notice]]] = {
    kind.__name__: msgspec.json.Decoder(kind) for kind in (EndPolls, EndNodePolls, HandBackTasks, TasksFinished, Report)
}
_encoder = msgspec.msgpack.Encoder()
_tasks = msgspec.json.Decoder(QueuedTask)
_json = msgspec.json.Encoder()


class _Told(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """As the script packs it."""

    claims: list[tuple[list[str], int]]
    anew: int
    turned_away: list[str]
    to_fill: list[str]
    scan: int
    next_ms: float
    depths: list[tuple[str, int, int]]
    places: tuple[int, int, int]


_tolds = msgspec.msgpack.Decoder(_Told)
_said = msgspec.json.Decoder(tuple[str, msgspec.Raw])
_names = msgspec.msgpack.Decoder(list[str])


def queue_name(key: QueueKey) -> str:
    """As it is written in keys."""
    return f"{key.kind.value}|{quote(key.tenant, safe=':@')}|{quote(key.name, safe=':@/')}"


def queue_key(name: str) -> QueueKey:
    kind, tenant, queue = name.split("|")
    return QueueKey(unquote(tenant), TaskKind(kind), unquote(queue))


def task_id(ref: TaskRef) -> str:
    """A run_id is nobody else's, so the rest of a name need not be there."""
    return f"{ref.run.run_id}/{ref.event_id:07d}"


def encode(ask: Ask, terms: Terms, member: str, *, depths: bool = False, only_drop: bool = False) -> bytes:
    """`depths`: they are asked for, too. `only_drop`: nothing is done that takes memory."""
    return _encoder.encode(
        [
            terms.tasks,
            round(terms.lease_seconds * 1000),
            round(terms.delay_seconds * 1000),
            [*(_offer(task, 1) for task in ask.offered), *(_offer(task, 0) for task in ask.brought)],
            [task_id(ref) for ref in ask.dropped],
            [task_id(ref) for ref in ask.released],
            [task_id(ref) for ref in ask.delayed],
            [task_id(ref) for ref in ask.renewed],
            [[queue_name(key) for key in keys] for keys in (ask.fills, ask.filled)],
            [_demand(demand) for demand in ask.demands],
            member,
            round(ask.scan_seconds * 1000),
            [_json.encode((type(notice).__name__, notice)).decode() for notice in ask.notices],
            int(depths),
            int(only_drop),
        ]
    )


def decode(packed: bytes) -> Told:
    told = _tolds.decode(packed)
    return Told(
        claims=[Claim(tasks=[_tasks.decode(task) for task in tasks], more=bool(more)) for tasks, more in told.claims],
        anew=bool(told.anew),
        turned_away=[queue_key(name) for name in told.turned_away],
        to_fill=[queue_key(name) for name in told.to_fill],
        scan=bool(told.scan),
        next_in=None if told.next_ms < 0 else told.next_ms / 1000,
        places=_places(*told.places),
    )


def _places(everywhere: int, leased: int, delayed: int) -> Places | None:
    if everywhere < 0:
        return None
    return Places(ready=max(everywhere - leased - delayed, 0), leased=leased, delayed=delayed)


def decode_depths(packed: bytes) -> list[Depth]:
    return [
        Depth(queue=queue_key(name), depth=depth, oldest=oldest) for name, depth, oldest in _tolds.decode(packed).depths
    ]


def decode_heard(entries: list[tuple[bytes, bytes]]) -> Heard:
    """Of entries of the notices' stream: the field, and what it has. What is not known is passed over."""
    woken: dict[str, None] = {}
    notices: list[Notice] = []
    for field, value in entries:
        if field == b"w":
            woken.update(dict.fromkeys(_names.decode(value)))
        elif field == b"m":
            kind, body = _said.decode(value)
            if kind in _notices:
                notices.append(_notices[kind].decode(body))
    return Heard(woken=[queue_key(name) for name in woken], notices=notices)


def _offer(task: QueuedTask, anew: int) -> list[Any]:
    """`anew`: where it is leased, it was given back."""
    identity = task_id(task.task)
    record = [
        queue_name(task.queue),
        task.queue.name if task.queue.kind is TaskKind.NODE else "",
        str(-task.priority),
        f"{task.scheduled_at:0{AGE_DIGITS}d} {identity}",
        _json.encode(task).decode(),
        _destination(task.queue.tenant, task.destination) if task.destination is not None else "",
        str(task.scheduled_at),
        0,
    ]
    return [identity, record, anew]


def _demand(demand: Demand) -> list[Any]:
    return [
        demand.tasks,
        "" if demand.queue is None else queue_name(demand.queue),
        demand.resources,
        [_destination(tenant, name) for tenant, name in demand.without],
    ]


def _destination(tenant: str, name: str) -> str:
    return f"{quote(tenant, safe=':@')}|{name}"
