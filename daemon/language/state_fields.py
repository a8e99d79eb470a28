"""Which fields each type of state has, in each query language."""

from __future__ import annotations

from typing import Final

from daemon.language.definition import StateKind
from daemon.language.fields import Fields

_NEXT = ("Next", "End")
_FALLIBLE = ("Retry", "Catch")
_TASK = (
    "Resource",
    "TimeoutSeconds",
    "HeartbeatSeconds",
    "Credentials",
    "TaskQueue",
    "ScheduleToStartSeconds",
    "Priority",
    "ParentClosePolicy",
)
_MAP = (
    "ItemSelector",
    "ItemProcessor",
    "Iterator",
    "MaxConcurrency",
    "ItemReader",
    "ItemBatcher",
    "ResultWriter",
    "ToleratedFailureCount",
    "ToleratedFailurePercentage",
    "Label",
)

_SHARED: Final[dict[StateKind, tuple[str, ...]]] = {
    StateKind.PASS: (*_NEXT, "Assign"),
    StateKind.TASK: (*_NEXT, "Assign", *_FALLIBLE, *_TASK),
    StateKind.CHOICE: ("Assign", "Choices", "Default"),
    StateKind.WAIT: (*_NEXT, "Assign", "Seconds", "Timestamp"),
    StateKind.SUCCEED: (),
    StateKind.FAIL: ("Error", "Cause"),
    StateKind.PARALLEL: (*_NEXT, "Assign", *_FALLIBLE, "Branches"),
    StateKind.MAP: (*_NEXT, "Assign", *_FALLIBLE, *_MAP),
}
_FLOW = ("InputPath", "OutputPath")
_WORK = (*_FLOW, "Parameters", "ResultPath")
_PATHS: Final[dict[StateKind, tuple[str, ...]]] = {
    StateKind.PASS: (*_WORK, "Result"),
    StateKind.TASK: (*_WORK, "ResultSelector", "TimeoutSecondsPath", "HeartbeatSecondsPath"),
    StateKind.CHOICE: _FLOW,
    StateKind.WAIT: (*_FLOW, "SecondsPath", "TimestampPath"),
    StateKind.SUCCEED: _FLOW,
    StateKind.FAIL: ("ErrorPath", "CausePath"),
    StateKind.PARALLEL: (*_WORK, "ResultSelector"),
    StateKind.MAP: (
        *_WORK,
        "ResultSelector",
        "ItemsPath",
        "MaxConcurrencyPath",
        "ToleratedFailureCountPath",
        "ToleratedFailurePercentagePath",
    ),
}
_QUERIES: Final[dict[StateKind, tuple[str, ...]]] = {
    StateKind.PASS: ("Output",),
    StateKind.TASK: ("Arguments", "Output"),
    StateKind.CHOICE: ("Output",),
    StateKind.WAIT: ("Output",),
    StateKind.SUCCEED: ("Output",),
    StateKind.FAIL: (),
    StateKind.PARALLEL: ("Arguments", "Output"),
    StateKind.MAP: ("Items", "Output"),
}
_COMMON: Final = ("Type", "Comment", "QueryLanguage")
_INSTEAD: Final = {
    "InputPath": "read what you need of $states.input",
    "OutputPath": "use Output",
    "Parameters": "use Arguments",
    "Result": "use Output",
    "ResultPath": "use Output or Assign",
    "ResultSelector": "use Output",
    "ItemsPath": "use Items",
    "Arguments": "use Parameters",
    "Items": "use ItemsPath",
    "Output": "use ResultSelector, ResultPath and OutputPath",
}


def fields_of(sort: StateKind, jsonata: bool) -> tuple[str, ...]:
    """The fields that a state of this type has in a query language."""
    return (*_COMMON, *_SHARED[sort], *(_QUERIES if jsonata else _PATHS)[sort])


def check_names(sort: StateKind, fields: Fields) -> None:
    """Note every field that a state of this type has not."""
    allowed = fields_of(sort, fields.jsonata)
    others = fields_of(sort, not fields.jsonata)
    for name in fields.values:
        if name in allowed:
            continue
        if name in others:
            fields.fault(name, _other_language(name, fields.jsonata))
            continue
        owners = [each.value for each in StateKind if name in fields_of(each, fields.jsonata)]
        if owners:
            fields.fault(name, f"a {sort.value} state has no such field (it belongs to {', '.join(owners)})")
        else:
            fields.fault(name, f"a {sort.value} state has no such field{fields.findings.suggest(name, allowed)}")


def _other_language(name: str, jsonata: bool) -> str:
    mine, other = ("JSONata", "JSONPath") if jsonata else ("JSONPath", "JSONata")
    instead = _INSTEAD.get(name)
    if instead is None and name.endswith("Path"):
        instead = f"{name.removesuffix('Path')} may hold an expression"
    return f"belongs to {other}, and this state is {mine}" + (f": {instead}" if instead else "")
