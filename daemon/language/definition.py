"""A parsed definition: machines, their states, retriers and catchers, and the faults of one that is not valid.

Types only. Everything is immutable and holds its expressions compiled; the fields that are expressions are this
package's business, the rest is for whoever runs the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import ClassVar, NamedTuple, TypeAlias

import msgspec

from daemon.language.evaluation import Evaluation, Expression
from daemon.language.resource import ClosePolicy, Resource
from enginekit.messages.json import JSON


class Fault(NamedTuple):
    """One thing wrong with a definition. `path` is like `States.Ship.Retry[0].MaxAttempts`, empty for the whole."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidDefinition(ValueError):
    """The definition is refused, with every fault found in it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


class StateKind(str, Enum):
    """The types of state."""

    PASS = "Pass"
    TASK = "Task"
    CHOICE = "Choice"
    WAIT = "Wait"
    SUCCEED = "Succeed"
    FAIL = "Fail"
    PARALLEL = "Parallel"
    MAP = "Map"


Placement: TypeAlias = Callable[[JSON, JSON], JSON]
"""A compiled ResultPath: (raw input, result) -> the two combined. Raises StateError."""

Rule: TypeAlias = Callable[[JSON, Evaluation], bool]
"""A compiled Choice Rule, on the effective input. Raises StateError."""

Quantity: TypeAlias = "int | Expression | None"
"""A number written in the definition, what gives it (the expression checks its range), or neither."""


class Retrier(msgspec.Struct, frozen=True, kw_only=True):
    """One policy of a `Retry`. `jitter` is JitterStrategy FULL."""

    errors: tuple[str, ...]
    interval_seconds: int = 1
    max_attempts: int = 3
    backoff_rate: float = 2.0
    max_delay_seconds: int | None = None
    jitter: bool = False


class Catcher(msgspec.Struct, frozen=True, kw_only=True):
    """One way out of a failed state."""

    errors: tuple[str, ...]
    next: str
    place: Placement | None = None
    output: Expression | None = None
    assign: Expression | None = None


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """What every state has. `where` is its path in the definition. An absent path expression means `$`.

    A JSONata state has `output` where a JSONPath one has `output_path` (and `selector` and `place`). `assign` makes an
    object of the variables that are assigned.
    """

    name: str
    where: str
    jsonata: bool = False
    next: str | None = None
    end: bool = False
    input_path: Expression | None = None
    output_path: Expression | None = None
    output: Expression | None = None
    assign: Expression | None = None


class _Worked(_State, frozen=True, kw_only=True):
    """A state that gets arguments made (`Parameters`, `Arguments`) and a result placed."""

    parameters: Expression | None = None
    place: Placement | None = None


class _Fallible(_Worked, frozen=True, kw_only=True):
    """A state whose failure can be retried and caught."""

    selector: Expression | None = None
    retry: tuple[Retrier, ...] = ()
    catch: tuple[Catcher, ...] = ()


class Pass(_Worked, frozen=True, kw_only=True):
    """Passes its input on, or a fixed result."""

    kind: ClassVar[StateKind] = StateKind.PASS
    has_result: bool = False
    result: JSON = None


class Task(_Fallible, frozen=True, kw_only=True):
    """Runs what its resource names."""

    kind: ClassVar[StateKind] = StateKind.TASK
    resource: Resource
    timeout: Quantity = None
    heartbeat: Quantity = None
    schedule_to_start: int | None = None
    priority: int = 0
    task_queue: str | None = None
    close_policy: ClosePolicy = ClosePolicy.CANCEL


class ChoiceRule(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `Choices`."""

    holds: Rule
    next: str
    output: Expression | None = None
    assign: Expression | None = None


class Choice(_State, frozen=True, kw_only=True):
    """Goes where the first rule that holds says. The state's own `output` and `assign` go with the default."""

    kind: ClassVar[StateKind] = StateKind.CHOICE
    rules: tuple[ChoiceRule, ...]
    default: str | None = None


class Wait(_State, frozen=True, kw_only=True):
    """Waits for some seconds, or until a time."""

    kind: ClassVar[StateKind] = StateKind.WAIT
    until: Callable[[JSON, Evaluation], datetime]
    named: bool = False
    """Whether it is a time that the definition names, and not so many seconds."""


class Succeed(_State, frozen=True, kw_only=True):
    """Ends its machine well."""

    kind: ClassVar[StateKind] = StateKind.SUCCEED


class Fail(_State, frozen=True, kw_only=True):
    """Ends its machine with an error."""

    kind: ClassVar[StateKind] = StateKind.FAIL
    error: str | Expression = ""
    cause: str | Expression = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """States and where to start: a whole definition, a branch of a Parallel, a processor of a Map."""

    start_at: str
    states: dict[str, State]


class Parallel(_Fallible, frozen=True, kw_only=True):
    """Runs its branches at the same time."""

    kind: ClassVar[StateKind] = StateKind.PARALLEL
    branches: tuple[Machine, ...]


class ItemFormat(str, Enum):
    """What an ItemReader reads: a folder's files, or the items in one file."""

    LIST = "LIST"
    JSON = "JSON"
    JSONL = "JSONL"
    CSV = "CSV"


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Where a distributed Map's items come from. `arguments` make an object with the file's or folder's place.

    `pointer` leads to the items inside a JSON document, `headers` are a CSV file's where its first row is not.
    """

    format: ItemFormat
    arguments: Expression
    max_items: Quantity = None
    pointer: str = ""
    delimiter: str = ","
    headers: tuple[str, ...] | None = None


class Batcher(msgspec.Struct, frozen=True, kw_only=True):
    """How items are put together, several for one run."""

    max_items: Quantity = None
    max_bytes: Quantity = None
    input: Expression | None = None


class Transformation(str, Enum):
    """What becomes of an item's result."""

    NONE = "NONE"
    COMPACT = "COMPACT"
    FLATTEN = "FLATTEN"


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the results. Without `arguments` they are the state's result, else they are written to files at
    the place that `arguments` make, and the result tells where."""

    arguments: Expression | None
    transformation: Transformation
    lines: bool = False


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """What a Map of Mode DISTRIBUTED has beyond one that is inline."""

    label: str | None = None
    reader: Reader | None = None
    batcher: Batcher | None = None
    writer: Writer = Writer(arguments=None, transformation=Transformation.COMPACT)
    tolerated_count: Quantity = None
    tolerated_percentage: Quantity = None


class Map(_Fallible, frozen=True, kw_only=True):
    """Runs its processor for every item. `parameters` is the ItemSelector; `items_text` is how the definition says
    where the items are, for causes."""

    kind: ClassVar[StateKind] = StateKind.MAP
    processor: Machine
    items: Expression | None = None
    items_text: str = "$"
    concurrency: Quantity = None
    distribution: Distribution | None = None


State: TypeAlias = Pass | Task | Choice | Wait | Succeed | Fail | Parallel | Map


def processor_of(machine: Machine, name: str) -> Machine | None:
    """The processor of the Map state of this name, however deep it is."""
    found = machine.states.get(name)
    if isinstance(found, Map):
        return found.processor
    for state in machine.states.values():
        inner = state.branches if isinstance(state, Parallel) else (state.processor,) if isinstance(state, Map) else ()
        for each in inner:
            made = processor_of(each, name)
            if made is not None:
                return made
    return None


class Definition(Machine, frozen=True, kw_only=True):
    """A whole valid definition. `warnings` tell of what will run but may surprise."""

    comment: str | None = None
    version: str | None = None
    timeout_seconds: int | None = None
    warnings: tuple[Fault, ...] = ()
