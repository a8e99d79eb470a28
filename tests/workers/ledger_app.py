"""Activities that write down what they do: `begun.jsonl` for every attempt, one file in `effects/` for every effect.

An effect is named by its idempotency key, as a good neighbour would have it: the same key again performs nothing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import trio

from enginekit.activity import Activities, TaskContext
from enginekit.messages.json import JSON
from enginekit.worker import ActivityError, Worker

FOLDER = Path(os.environ.get("LEDGER", "."))

app = Activities()


def note(name: str, **what: object) -> None:
    """One line, in one write."""
    line = json.dumps(what | {"pid": os.getpid()}).encode() + b"\n"
    file = os.open(FOLDER / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def perform(key: str) -> bool:
    """False when it was performed before."""
    (FOLDER / "effects").mkdir(exist_ok=True)
    try:
        os.close(os.open(FOLDER / "effects" / key.replace(":", "-"), os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


def seconds_of(value: JSON) -> float:
    assert isinstance(value, dict)
    seconds = value.get("seconds", 0)
    assert isinstance(seconds, int | float)
    return seconds


@app.register
async def step(value: JSON, task: TaskContext) -> JSON:
    note("begun", node=task.node, workflow=task.workflow_id, attempt=task.attempt)
    try:
        await trio.sleep(seconds_of(value))
    except trio.Cancelled:
        note("cancelled", node=task.node, workflow=task.workflow_id)
        raise
    perform(task.idempotency_key)
    return value


@app.register
async def gated(value: JSON, task: TaskContext) -> JSON:
    """Takes until the file `go` is there."""
    note("begun", node=task.node, workflow=task.workflow_id, attempt=task.attempt)
    try:
        while not (FOLDER / "go").exists():  # noqa: ASYNC110
            await trio.sleep(0.02)
    except trio.Cancelled:
        note("cancelled", node=task.node, workflow=task.workflow_id)
        raise
    return value


@app.register("step:sync")
def step_sync(value: JSON, task: TaskContext) -> JSON:
    note("begun", node=task.node, workflow=task.workflow_id, attempt=task.attempt)
    until = time.monotonic() + seconds_of(value)
    while time.monotonic() < until:
        if task.cancelled:
            note("cancelled", node=task.node, workflow=task.workflow_id)
            return None
        time.sleep(0.01)
    perform(task.idempotency_key)
    return value


@app.register
def pages(value: JSON, task: TaskContext) -> JSON:
    """Goes through pages, and on from where the last attempt was."""
    assert isinstance(value, int)
    page = task.heartbeat_details or 0
    assert isinstance(page, int)
    while page < value:
        note("pages", page=page, attempt=task.attempt)
        page += 1
        task.heartbeat(page)
        if page == 3 and not (FOLDER / "go").exists():
            note("stuck", page=page)
            time.sleep(600)
    return page


@app.register
def ask(value: JSON, task: TaskContext) -> JSON:
    note("asked", token=value)
    return "sent"


@app.register
async def fails(value: JSON, task: TaskContext) -> JSON:
    logging.getLogger("mine").info("a line of my own")
    if value == "named":
        raise ActivityError("Card.Declined", "no funds", retry_after_seconds=700)
    raise KeyError("missing")


def make(client):  # type: ignore[no-untyped-def]
    return Worker(client, {"step": step}, worker_id="made-by-hand")


def broken(client):  # type: ignore[no-untyped-def]
    raise RuntimeError("no such thing")


empty: dict[str, object] = {}
wrong = {"q": 3}
number = 7
