"""The workflow language: Amazon States Language in both of its query languages. Parse, validate, evaluate.

Pure: no I/O, no clock, no randomness, no await. What an evaluation needs of these comes in through a `Scope`. A
definition is parsed and compiled once (`parse_definition`) and then only evaluated.
"""

from __future__ import annotations

from daemon.language.causes import framed, too_large
from daemon.language.child import NAME_IN_USE, NO_SUCH_MACHINE, ChildCall, child_call
from daemon.language.definition import (
    Catcher,
    Choice,
    Definition,
    Fail,
    Fault,
    InvalidDefinition,
    Machine,
    Map,
    Parallel,
    Pass,
    Retrier,
    State,
    StateKind,
    Succeed,
    Task,
    Transformation,
    Wait,
    processor_of,
)
from daemon.language.distribute import Plan, item_input, items_of, plan_of, units
from daemon.language.errors import StateError
from daemon.language.evaluate import (
    Chosen,
    TaskTimes,
    arguments,
    assigned,
    choose,
    failure,
    map_concurrency,
    map_item_input,
    map_items,
    output,
    pass_result,
    task_result,
    task_target,
    task_times,
    wait_until,
)
from daemon.language.evaluation import Meter, Scope
from daemon.language.fields import ArgumentCheck
from daemon.language.parse import parse_definition
from daemon.language.resource import (
    BadResource,
    ClosePolicy,
    ExecutionMode,
    Resource,
    ResourceKind,
    parse_resource,
)
from daemon.language.retry import caught_output, caught_variables, matching_catcher, matching_retrier, retry_delay

__all__ = [
    "NAME_IN_USE",
    "NO_SUCH_MACHINE",
    "ArgumentCheck",
    "BadResource",
    "Catcher",
    "ChildCall",
    "Choice",
    "Chosen",
    "ClosePolicy",
    "Definition",
    "ExecutionMode",
    "Fail",
    "Fault",
    "InvalidDefinition",
    "Machine",
    "Map",
    "Meter",
    "Parallel",
    "Pass",
    "Plan",
    "Resource",
    "ResourceKind",
    "Retrier",
    "Scope",
    "State",
    "StateError",
    "StateKind",
    "Succeed",
    "Task",
    "TaskTimes",
    "Transformation",
    "Wait",
    "arguments",
    "assigned",
    "caught_output",
    "caught_variables",
    "child_call",
    "choose",
    "failure",
    "framed",
    "item_input",
    "items_of",
    "map_concurrency",
    "map_item_input",
    "map_items",
    "matching_catcher",
    "matching_retrier",
    "output",
    "parse_definition",
    "parse_resource",
    "pass_result",
    "plan_of",
    "processor_of",
    "retry_delay",
    "task_result",
    "task_target",
    "task_times",
    "too_large",
    "units",
    "wait_until",
]
