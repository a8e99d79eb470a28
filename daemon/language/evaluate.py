"""Running a state's expressions: what goes into a state, what comes out, where it leads.

Every function is pure, takes the state's raw input, leaves it as it is, and may raise StateError. The values they
answer may share parts with the input and with the definition: nobody changes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple, cast

import msgspec

from daemon.language.causes import no_items_at, unexpected
from daemon.language.definition import Choice, ChoiceRule, Fail, Map, Parallel, Pass, Quantity, State, Task, Wait
from daemon.language.errors import DATA_LIMIT_EXCEEDED, NO_CHOICE_MATCHED, RUNTIME, StateError
from daemon.language.evaluation import Evaluation, Expression, Scope
from daemon.language.resource import function_name
from daemon.language.values import weigh
from enginekit.messages.json import JSON, encode

MAX_ASSIGNED_BYTES: Final = 256 * 1024
"""How much one state may assign, in bytes of JSON."""


class TaskTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The times a Task's definition gives, in seconds; None where it gives none.

    `timeout_seconds` is from start to close, `schedule_to_start_seconds` how long it may wait for a worker.
    """

    timeout_seconds: float | None
    heartbeat_seconds: float | None
    schedule_to_start_seconds: float | None


_NO_TIMES: Final = TaskTimes(timeout_seconds=None, heartbeat_seconds=None, schedule_to_start_seconds=None)


class Chosen(NamedTuple):
    """What a Choice state comes to."""

    next: str
    output: JSON
    assigned: dict[str, JSON] | None


def arguments(state: State, raw: JSON, scope: Scope) -> JSON:
    """What the state works on: InputPath, then Parameters; or Arguments. For a Map, that is before its items are
    taken."""
    select = state.input_path
    template = state.parameters if isinstance(state, (Pass, Task, Parallel)) else None
    if template is None:
        return raw if select is None else select(raw, Evaluation(scope))
    evaluation = Evaluation(scope)
    return template(raw if select is None else select(raw, evaluation), evaluation)


def output(state: State, raw: JSON, result: JSON, scope: Scope) -> JSON:
    """What the state passes on: ResultSelector, ResultPath, OutputPath, as far as its type has them; or Output.

    For Wait, Succeed and Choice `result` is the effective input (`arguments`), which OutputPath applies to.
    """
    if state.jsonata:
        return result if state.output is None else state.output(raw, _evaluation(state, result, scope))
    evaluation = Evaluation(scope)
    if isinstance(state, (Task, Parallel, Map)):
        if state.selector is not None:
            result = state.selector(result, evaluation)
        if state.place is not None:
            result = state.place(raw, result)
    elif isinstance(state, Pass) and state.place is not None:
        result = state.place(raw, result)
    return result if state.output_path is None else state.output_path(result, evaluation)


def assigned(state: State, raw: JSON, result: JSON, scope: Scope) -> dict[str, JSON] | None:
    """The variables that the state assigns once it has its result, None where it assigns none.

    All of them see the variables as they were when the state was entered. In JSONPath, `$` is the result.
    """
    if state.assign is None:
        return None
    value = raw if state.jsonata else result
    return variables_of(state.assign, value, _evaluation(state, result, scope))


def _evaluation(state: State, result: JSON, scope: Scope) -> Evaluation:
    """After the state's work: `$states.result` is there for those types of state that have one."""
    return Evaluation(scope, result) if isinstance(state, (Task, Parallel, Map)) else Evaluation(scope)


def variables_of(assign: Expression, value: JSON, evaluation: Evaluation) -> dict[str, JSON]:
    """What an Assign comes to. Raises StateError (States.DataLimitExceeded) when it is too much."""
    made = assign(value, evaluation)
    assert isinstance(made, dict)
    if weigh(made) > MAX_ASSIGNED_BYTES and len(encode(made)) > MAX_ASSIGNED_BYTES:
        raise StateError(DATA_LIMIT_EXCEEDED, f"Its variables have more than {MAX_ASSIGNED_BYTES:,} bytes.")
    return made


def pass_result(state: Pass, raw: JSON, scope: Scope) -> JSON:
    """A Pass state's result: its Result if it has one, else its arguments."""
    return state.result if state.has_result else arguments(state, raw, scope)


def choose(state: Choice, raw: JSON, scope: Scope) -> Chosen:
    """Where it goes, with what. Raises StateError (documented as States.NoChoiceMatched) without a Default."""
    evaluation = Evaluation(scope)
    value = raw if state.input_path is None else state.input_path(raw, evaluation)
    chosen: Choice | ChoiceRule = state
    following = state.default
    for rule in state.rules:
        if rule.holds(value, evaluation):
            chosen, following = rule, rule.next
            break
    if following is None:
        cause = "Failed to transition out of the state. The state does not point to a next state."
        raise StateError(RUNTIME, cause, documented=NO_CHOICE_MATCHED)
    made = value
    if chosen.output is not None:
        made = chosen.output(raw, Evaluation(scope))
    elif state.output_path is not None:
        made = state.output_path(value, evaluation)
    variables = None
    if chosen.assign is not None:
        variables = variables_of(chosen.assign, value, Evaluation(scope))
    return Chosen(following, made, variables)


def wait_until(state: Wait, raw: JSON, scope: Scope) -> datetime:
    """When a Wait state is over (UTC; it may be past already)."""
    evaluation = Evaluation(scope)
    return state.until(raw if state.input_path is None else state.input_path(raw, evaluation), evaluation)


def failure(state: Fail, raw: JSON, scope: Scope) -> tuple[str, str]:
    """A Fail state's error and cause; empty where it names none."""
    evaluation = Evaluation(scope)
    error = state.error if isinstance(state.error, str) else state.error(raw, evaluation)
    cause = state.cause if isinstance(state.cause, str) else state.cause(raw, evaluation)
    return cast(str, error), cast(str, cause)


def task_times(state: Task, raw: JSON, scope: Scope) -> TaskTimes:
    """A Task's times; paths are applied to its effective input."""
    if state.timeout is None and state.heartbeat is None and state.schedule_to_start is None:
        return _NO_TIMES
    return TaskTimes(
        timeout_seconds=_quantity(state.timeout, state, raw, scope),
        heartbeat_seconds=_quantity(state.heartbeat, state, raw, scope),
        schedule_to_start_seconds=state.schedule_to_start,
    )


def task_target(state: Task, args: JSON) -> tuple[str, JSON]:
    """The task queue a task goes to, and what its worker gets, from the state's arguments.

    Only for `arn:aws:states:::lambda:invoke` do the two differ from the resource's queue and the arguments.
    """
    resource = state.resource
    if not resource.lambda_invoke:
        return state.task_queue or resource.queue, args
    if not isinstance(args, dict):
        raise StateError(RUNTIME, f"{_arguments_of(state)}: lambda:invoke wants an object with FunctionName.")
    queue = state.task_queue or resource.queue
    if not queue:
        written = args.get("FunctionName")
        named = function_name(written) if isinstance(written, str) else None
        if named is None:
            raise StateError(RUNTIME, f"{_arguments_of(state)}/FunctionName: does not name a Lambda function.")
        queue = named
    return queue, args.get("Payload", {})


def _arguments_of(state: Task) -> str:
    return "Arguments" if state.jsonata else "Parameters"


def task_result(state: Task, result: JSON) -> JSON:
    """A task's result as the reference service wraps it: only that of `arn:aws:states:::lambda:invoke` is, and not
    where it comes by the task's token."""
    if not state.resource.lambda_invoke or state.resource.wait_for_token:
        return result
    return {"ExecutedVersion": "$LATEST", "Payload": result, "StatusCode": 200}


def map_items(state: Map, raw: JSON, scope: Scope) -> list[JSON] | dict[str, JSON]:
    """A Map state's items: what ItemsPath leads to in its effective input, which must be an array (or an object, for
    a distributed Map)."""
    evaluation = Evaluation(scope)
    value = raw if state.input_path is None else state.input_path(raw, evaluation)
    if state.items is not None:
        value = state.items(value, evaluation)
    if not isinstance(value, list) and not (state.distribution is not None and isinstance(value, dict)):
        if state.jsonata and state.items is not None:
            raise unexpected(state.items_text, "Items", "array", value)
        raise no_items_at(state.items_text)
    return value


def map_item_input(state: Map, raw: JSON, index: int, value: JSON, scope: Scope) -> JSON:
    """The input of one item's run: the item, or what ItemSelector makes with `$$.Map.Item.Index` and `.Value`."""
    if state.parameters is None:
        return value
    evaluation = Evaluation(item_scope(scope, {"Index": index, "Value": value}))
    return state.parameters(raw if state.input_path is None else state.input_path(raw, evaluation), evaluation)


def item_scope(base: Scope, item: dict[str, JSON]) -> Scope:
    """The scope of one item: the base one with `$$.Map.Item`."""
    return Scope(
        context=lambda: {**base.context(), "Map": {"Item": item}},
        random=base.random,
        uuid=base.uuid,
        now=base.now,
        variable=base.variable,
        meter=base.meter,
    )


def map_concurrency(state: Map, raw: JSON, scope: Scope) -> int:
    """How many items may run at a time; 0 for as many as there are."""
    return _quantity(state.concurrency, state, raw, scope) or 0


def _quantity(quantity: Quantity, state: State, raw: JSON, scope: Scope) -> int | None:
    """The number, read from the effective input where a path gives it; the path's expression checks its range."""
    if quantity is None or isinstance(quantity, int):
        return quantity
    evaluation = Evaluation(scope)
    value = raw if state.input_path is None else state.input_path(raw, evaluation)
    return cast(int, quantity(value, evaluation))
