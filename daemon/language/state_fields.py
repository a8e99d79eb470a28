"""Which fields each type of state has, and which are known but not available."""

from __future__ import annotations

from typing import Final

from daemon.language.definition import StateKind
from daemon.language.fields import Fields

_FLOW = ("InputPath", "OutputPath")
_NEXT = ("Next", "End")
_WORK = ("Parameters", "ResultPath")
_FALLIBLE = ("ResultSelector", "Retry", "Catch")
FIELDS: Final[dict[StateKind, tuple[str, ...]]] = {
    StateKind.PASS: (*_FLOW, *_NEXT, *_WORK, "Result"),
    StateKind.TASK: (
        *_FLOW,
        *_NEXT,
        *_WORK,
        *_FALLIBLE,
        "Resource",
        "TimeoutSeconds",
        "TimeoutSecondsPath",
        "HeartbeatSeconds",
        "HeartbeatSecondsPath",
        "Credentials",
        "TaskQueue",
        "ScheduleToStartSeconds",
        "Priority",
    ),
    StateKind.CHOICE: (*_FLOW, "Choices", "Default"),
    StateKind.WAIT: (*_FLOW, *_NEXT, "Seconds", "SecondsPath", "Timestamp", "TimestampPath"),
    StateKind.SUCCEED: _FLOW,
    StateKind.FAIL: ("Error", "ErrorPath", "Cause", "CausePath"),
    StateKind.PARALLEL: (*_FLOW, *_NEXT, *_WORK, *_FALLIBLE, "Branches"),
    StateKind.MAP: (
        *_FLOW,
        *_NEXT,
        *_WORK,
        *_FALLIBLE,
        "ItemsPath",
        "ItemSelector",
        "ItemProcessor",
        "Iterator",
        "MaxConcurrency",
        "MaxConcurrencyPath",
    ),
}
_COMMON: Final = ("Type", "Comment", "QueryLanguage")
_JSONATA: Final = "belongs to JSONata; only JSONPath is available in this version"
DISTRIBUTED: Final = "distributed Map states are not available in this version; only inline ones are"
_TOLERATED: Final = "tolerating failed items is not available in this version; the first one fails the Map state"
REFUSED: Final = {
    "Assign": "variables (Assign) are not available in this version",
    "Arguments": _JSONATA,
    "Output": _JSONATA,
    "Items": _JSONATA,
    "ItemReader": DISTRIBUTED,
    "ItemBatcher": DISTRIBUTED,
    "ResultWriter": DISTRIBUTED,
    "Label": DISTRIBUTED,
    "ToleratedFailureCount": _TOLERATED,
    "ToleratedFailureCountPath": _TOLERATED,
    "ToleratedFailurePercentage": _TOLERATED,
    "ToleratedFailurePercentagePath": _TOLERATED,
}


def check_names(sort: StateKind, fields: Fields) -> None:
    """Note every field that a state of this type has not."""
    allowed = (*_COMMON, *FIELDS[sort])
    for name in fields.values:
        if name in allowed:
            continue
        if name in REFUSED:
            fields.fault(name, REFUSED[name])
            continue
        owners = [each.value for each in StateKind if name in FIELDS[each]]
        if owners:
            fields.fault(name, f"a {sort.value} state has no such field (it belongs to {', '.join(owners)})")
        else:
            fields.fault(name, f"a {sort.value} state has no such field{fields.findings.suggest(name, allowed)}")
