"""Reading and compiling one state of each type."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from daemon.language.causes import no_seconds_at, no_timestamp, no_timestamp_at, of_parameter
from daemon.language.definition import (
    Choice,
    ChoiceRule,
    Fail,
    Parallel,
    Pass,
    State,
    StateKind,
    Succeed,
    Task,
    Wait,
)
from daemon.language.evaluation import Evaluation, Expression
from daemon.language.fields import LONGEST_SECONDS, MAX_COUNT, Fields
from daemon.language.graph import Graph
from daemon.language.parse_choice import parse_condition
from daemon.language.parse_fields import (
    assignment,
    catchers,
    looked_up,
    quantity,
    query,
    result_path,
    retriers,
    selection,
    template,
    text_or_path,
    transition,
)
from daemon.language.parse_map import Nested, parse_map
from daemon.language.parse_task import check_arguments, close_policy, parse_resource_field
from daemon.language.query import RESULT
from daemon.language.state_fields import check_names
from daemon.language.timestamps import parse_timestamp
from enginekit.messages.json import JSON


def parse_state(sort: StateKind, fields: Fields, name: str, graph: Graph, nested: Nested) -> State | None:
    """Read one state; None when it cannot be built. What is wrong with it is reported."""
    check_names(sort, fields)
    if sort is StateKind.PASS:
        return _pass(fields, name, graph)
    if sort is StateKind.TASK:
        return _task(fields, name, graph)
    if sort is StateKind.CHOICE:
        return _choice(fields, name, graph)
    if sort is StateKind.WAIT:
        return _wait(fields, name, graph)
    if sort is StateKind.SUCCEED:
        graph.end(name)
        return Succeed(
            name=name,
            where=fields.where,
            jsonata=fields.jsonata,
            end=True,
            input_path=selection(fields, "InputPath"),
            output_path=selection(fields, "OutputPath"),
            output=template(fields, "Output") if fields.jsonata else None,
        )
    if sort is StateKind.FAIL:
        graph.end(name)
        return Fail(
            name=name,
            where=fields.where,
            jsonata=fields.jsonata,
            end=True,
            error=text_or_path(fields, "Error"),
            cause=text_or_path(fields, "Cause"),
        )
    if sort is StateKind.PARALLEL:
        return _parallel(fields, name, graph, nested)
    return parse_map(fields, name, graph, nested)


def _warn_of_static(fields: Fields) -> None:
    """A Result stands as it is: what looks computed in it is not."""
    pending: list[tuple[str, JSON]] = [(fields.path("Result"), fields.values.get("Result"))]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for name, item in value.items():
                pending.append((f"{path}.{name}", item))
                if name.endswith(".$"):
                    fields.findings.warn(f"{path}.{name}", "is not evaluated: Result is static, use Parameters")
        elif isinstance(value, list):
            pending.extend((f"{path}[{index}]", item) for index, item in enumerate(value))


def _pass(fields: Fields, name: str, graph: Graph) -> Pass:
    _warn_of_static(fields)
    following, end = transition(fields, name, graph)
    return Pass(
        name=name,
        where=fields.where,
        jsonata=fields.jsonata,
        next=following,
        end=end,
        input_path=selection(fields, "InputPath"),
        output_path=selection(fields, "OutputPath"),
        output=template(fields, "Output") if fields.jsonata else None,
        assign=assignment(fields),
        parameters=template(fields, "Parameters"),
        place=result_path(fields),
        has_result="Result" in fields,
        result=fields.values.get("Result"),
    )


def _task(fields: Fields, name: str, graph: Graph) -> Task | None:
    following, end = transition(fields, name, graph)
    resource = parse_resource_field(fields)
    timeout = quantity(fields, "TimeoutSeconds", 1, LONGEST_SECONDS)
    heartbeat = quantity(fields, "HeartbeatSeconds", 1, LONGEST_SECONDS)
    if isinstance(timeout, int) and isinstance(heartbeat, int) and heartbeat >= timeout:
        fields.fault("HeartbeatSeconds", f"must be less than TimeoutSeconds ({timeout})")
    schedule_to_start = fields.whole("ScheduleToStartSeconds", 1, LONGEST_SECONDS)
    priority = fields.whole("Priority", -MAX_COUNT, MAX_COUNT)
    queue = fields.text("TaskQueue")
    if queue is not None and not 0 < len(queue) <= 255:
        fields.fault("TaskQueue", "the name of a task queue has from 1 to 255 characters")
    policy = close_policy(fields)
    if fields.object("Credentials") is not None:
        fields.findings.warn(fields.path("Credentials"), "has no meaning here and is not used")
    input_path = selection(fields, "InputPath")
    parameters = template(fields, "Arguments" if fields.jsonata else "Parameters")
    output = template(fields, "Output", RESULT) if fields.jsonata else None
    assign = assignment(fields, RESULT)
    selector = template(fields, "ResultSelector")
    place = result_path(fields)
    retry = retriers(fields)
    catch = catchers(fields, graph, name)
    output_path = selection(fields, "OutputPath")
    if resource is None:
        return None
    check_arguments(fields, resource)
    return Task(
        name=name,
        where=fields.where,
        jsonata=fields.jsonata,
        next=following,
        end=end,
        input_path=input_path,
        output_path=output_path,
        output=output,
        assign=assign,
        parameters=parameters,
        selector=selector,
        place=place,
        retry=retry,
        catch=catch,
        resource=resource,
        timeout=timeout,
        heartbeat=heartbeat,
        schedule_to_start=schedule_to_start,
        priority=priority or 0,
        task_queue=queue,
        close_policy=policy,
    )


def _choice(fields: Fields, name: str, graph: Graph) -> Choice:
    if "Choices" not in fields:
        fields.findings.fault(fields.where, "needs Choices, its rules")
    rules: list[ChoiceRule] = []
    for each in fields.objects("Choices"):
        rule = parse_condition(each)
        target = each.text("Next")
        if target is not None:
            graph.link(name, each.path("Next"), target)
        else:
            graph.unknown()
            if "Next" not in each:
                each.findings.fault(each.where, "needs Next, the state to go to")
        output = template(each, "Output") if each.jsonata else None
        assign = assignment(each)
        if rule is not None and target is not None:
            rules.append(ChoiceRule(holds=rule, next=target, output=output, assign=assign))
    default = fields.text("Default")
    if default is not None:
        graph.link(name, fields.path("Default"), default)
    return Choice(
        name=name,
        where=fields.where,
        jsonata=fields.jsonata,
        input_path=selection(fields, "InputPath"),
        output_path=selection(fields, "OutputPath"),
        output=template(fields, "Output") if fields.jsonata else None,
        assign=assignment(fields),
        rules=tuple(rules),
        default=default,
    )


def _wait(fields: Fields, name: str, graph: Graph) -> Wait | None:
    following, end = transition(fields, name, graph)
    names = ("Seconds", "Timestamp") if fields.jsonata else ("Seconds", "SecondsPath", "Timestamp", "TimestampPath")
    given = [each for each in names if each in fields]
    if len(given) != 1:
        found = f"here are {' and '.join(given)}" if given else "there is none"
        fields.findings.fault(
            fields.where, f"a Wait state has one of {', '.join(names[:-1])} and {names[-1]}, and {found}"
        )
    until = _until(fields)
    input_path = selection(fields, "InputPath")
    output_path = selection(fields, "OutputPath")
    output = template(fields, "Output") if fields.jsonata else None
    assign = assignment(fields)
    if until is None:
        return None
    return Wait(
        name=name,
        where=fields.where,
        jsonata=fields.jsonata,
        next=following,
        end=end,
        input_path=input_path,
        output_path=output_path,
        output=output,
        assign=assign,
        until=until,
        named="Seconds" not in given[0],
    )


def _until(fields: Fields) -> Callable[[JSON, Evaluation], datetime] | None:
    """When the wait is over."""
    refusal, phrase = no_seconds_at("SecondsPath", LONGEST_SECONDS), of_parameter("SecondsPath")
    seconds = quantity(fields, "Seconds", 0, LONGEST_SECONDS, refusal, phrase)
    moment = _moment(fields)
    if isinstance(seconds, int):
        duration = timedelta(seconds=seconds)
        return lambda value, evaluation: evaluation.scope.now + duration
    if seconds is not None:
        read_seconds = seconds

        def after_seconds(value: JSON, evaluation: Evaluation) -> datetime:
            found = read_seconds(value, evaluation)
            assert isinstance(found, int)
            return evaluation.scope.now + timedelta(seconds=found)

        return after_seconds
    if isinstance(moment, datetime):
        return lambda value, evaluation: moment
    if moment is not None:
        read_timestamp = moment

        def at_timestamp(value: JSON, evaluation: Evaluation) -> datetime:
            found = read_timestamp(value, evaluation)
            parsed = parse_timestamp(found) if isinstance(found, str) else None
            assert parsed is not None
            return parsed

        return at_timestamp
    return None


def _moment(fields: Fields) -> datetime | Expression | None:
    """Timestamp, or what gives it."""
    given = query(fields, "Timestamp", _timestamp, no_timestamp("Timestamp"))
    if given is None:
        by_path = "TimestampPath"
        given = looked_up(fields, by_path, _timestamp, no_timestamp_at(by_path), of_parameter(by_path))
    if given is not None:
        return given
    written = fields.text("Timestamp")
    parsed = parse_timestamp(written) if written is not None else None
    if written is not None and parsed is None:
        fields.fault("Timestamp", f'"{written[:60]}" is not a timestamp like 2016-03-14T01:59:00Z')
    return parsed


def _timestamp(value: JSON) -> JSON:
    return value if isinstance(value, str) and parse_timestamp(value) is not None else None


def _parallel(fields: Fields, name: str, graph: Graph, nested: Nested) -> Parallel:
    following, end = transition(fields, name, graph)
    if "Branches" not in fields:
        fields.findings.fault(fields.where, "needs Branches")
    return Parallel(
        name=name,
        where=fields.where,
        jsonata=fields.jsonata,
        next=following,
        end=end,
        input_path=selection(fields, "InputPath"),
        output_path=selection(fields, "OutputPath"),
        output=template(fields, "Output", RESULT) if fields.jsonata else None,
        assign=assignment(fields, RESULT),
        parameters=template(fields, "Arguments" if fields.jsonata else "Parameters"),
        selector=template(fields, "ResultSelector"),
        place=result_path(fields),
        retry=retriers(fields),
        catch=catchers(fields, graph, name),
        branches=tuple(nested(branch, (), "a branch") for branch in fields.objects("Branches")),
    )
