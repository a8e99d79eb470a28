"""Dead letters as rows: what is told of a task that failed for good, by the names of the wire."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from daemon.clock import millis
from daemon.execution.state import Run
from daemon.logs import about
from daemon.stores.rows import LetterRow
from enginekit.messages.dead_letters import DeadLetterSummary, GetDeadLetterResult

SUMMARY_CAUSE_CHARACTERS: Final = 500
"""How much of a cause a list shows."""

log = structlog.get_logger("history")

_decoder = msgspec.json.Decoder(GetDeadLetterResult)


def letter_id(run_id: str, event_id: int) -> str:
    return f"{run_id}/{event_id}"


def letter_row(run: Run, entry: int) -> LetterRow:
    """Of the run that has just closed, by the failure of this node."""
    node, at = run.nodes[entry], run.closed_at
    assert at is not None
    failures = node.failures
    letter = GetDeadLetterResult(
        id=letter_id(run.ref.run_id, run.letter),
        workflow_id=run.ref.workflow_id,
        run_id=run.ref.run_id,
        workflow=run.workflow,
        version=run.version,
        node=node.name,
        path=node.path,
        resource=run.letter_resource,
        error=run.error or "",
        cause=run.cause or "",
        attempts=node.attempt if failures else 0,
        at=at,
        input=(node.input if node.arguments is None else node.arguments).raw,
        failures=failures,
    )
    return LetterRow(
        event_id=run.letter,
        workflow=run.workflow,
        node=node.name,
        error=letter.error,
        at=millis(at),
        data=msgspec.json.encode(letter),
    )


def whole(row: LetterRow) -> GetDeadLetterResult:
    return _decoder.decode(row.data)


def summary(row: LetterRow) -> DeadLetterSummary:
    letter = whole(row)
    return DeadLetterSummary(
        id=letter.id,
        workflow_id=letter.workflow_id,
        run_id=letter.run_id,
        workflow=letter.workflow,
        version=letter.version,
        node=letter.node,
        path=letter.path,
        resource=letter.resource,
        error=letter.error,
        cause=letter.cause[:SUMMARY_CAUSE_CHARACTERS],
        attempts=letter.attempts,
        at=letter.at,
    )


def log_letter(run: Run, row: LetterRow) -> None:
    """The letter is on disk. It is about all attempts of a node, so the line names no single task."""
    log.warning(
        "a node failed for good: a dead letter",
        node=row.node,
        error=row.error,
        letter=letter_id(run.ref.run_id, row.event_id),
        **about(run.ref),
    )
