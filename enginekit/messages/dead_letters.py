"""The calls about dead letters: tasks that failed for good, and by which their execution failed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Raw, UnsetType

from enginekit.messages.calls import Call, ErrorName, Id, PageSize, Reason, Result, RunName, Token
from enginekit.messages.events import Failure

LetterId = Annotated[str, Meta(min_length=1, max_length=300, pattern=r"^[0-9a-f-]{36}/[0-9]{1,18}\Z")]
"""The run_id of the execution that failed, and the id of its TaskDeadLettered."""


class ListDeadLetters(Call, frozen=True, kw_only=True):
    """Newest first."""

    workflow_id: RunName | None = None
    workflow: Id | None = None
    node: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    error: ErrorName | None = None
    after: Annotated[datetime, Meta(tz=True)] | None = None
    before: Annotated[datetime, Meta(tz=True)] | None = None
    page_size: PageSize = 100
    page_token: Token | None = None


class DeadLetterSummary(Result, frozen=True, kw_only=True):
    """`attempts`: how many there were (of more than a hundred, the last hundred are kept)."""

    id: str
    workflow_id: str
    run_id: str
    workflow: str | None
    version: int | None
    node: str
    path: str
    resource: str
    error: str
    cause: str
    attempts: int
    at: datetime


class ListDeadLettersResult(Result, frozen=True, kw_only=True):
    dead_letters: list[DeadLetterSummary]
    next_page_token: str | None = None


class GetDeadLetter(Call, frozen=True, kw_only=True):
    id: LetterId


class GetDeadLetterResult(DeadLetterSummary, frozen=True, kw_only=True):
    """The whole of it: what the task was given, and how each attempt failed, and when."""

    input: Raw
    failures: list[Failure]


class RedriveDeadLetter(Call, frozen=True, kw_only=True):
    """As RedriveWorkflow, of the execution that it made fail."""

    id: LetterId
    request_id: Id | None = None
    reason: Reason = ""
    input: Raw | UnsetType = UNSET


class DiscardDeadLetter(Call, frozen=True, kw_only=True):
    id: LetterId
