"""How a repeat of a call is known as one: by the `request_id` that it carries. Which calls carry one is said here, and
nothing of who repeats them, or when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

from enginekit.messages import calls, dead_letters, schedules
from enginekit.messages.calls import Call

C = TypeVar("C", bound=Call)


def identified(params: C, new_id: Callable[[], str]) -> C:
    """The call with a request id, its caller's or a new one, where it is one that changes something and would do so
    again. `new_id` makes one that nobody has or had."""
    if (
        isinstance(
            params,
            calls.StartWorkflow
            | calls.SignalWorkflow
            | calls.CancelWorkflow
            | calls.TerminateWorkflow
            | schedules.CreateSchedule
            | schedules.TriggerSchedule
            | calls.RedriveWorkflow
            | dead_letters.RedriveDeadLetter,
        )
        and params.request_id is None
    ):
        return cast(C, msgspec.structs.replace(params, request_id=new_id()))
    return params
