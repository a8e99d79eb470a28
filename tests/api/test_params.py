"""Bad parameters: each refusal names the field and what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.api.methods import METHODS, Scope
from daemon.api.params import DEFINITION_BYTES, NESTING, Shape
from enginekit.messages import calls
from enginekit.messages.status import ErrorStatus, Refused

LIMIT = 1024


def refusal(params: type[calls.Call], text: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        Shape(params).decode(text, LIMIT)
    assert caught.value.status is ErrorStatus.INVALID_ARGUMENT
    return caught.value


@pytest.mark.parametrize(
    ("params", "text", "message", "field"),
    [
        (
            calls.StartWorkflow,
            b'{"workflw":"a"}',
            "unknown parameter `workflw`; did you mean `workflow`?",
            "workflw",
        ),
        (calls.StartWorkflow, b'{"zzz":1}', "unknown parameter `zzz`", "zzz"),
        (calls.Hello, b'{"a":1}', "unknown parameter `a`", "a"),
        (
            calls.CompleteTasks,
            b'{"tasks":[{"token":"t"},{"token":"t","outpt":1}]}',
            "unknown parameter `tasks[1].outpt`; did you mean `output`?",
            "tasks[1].outpt",
        ),
        (calls.CompleteTasks, b'{"tasks":[{"output":1}]}', "missing parameter `tasks[0].token`", "tasks[0].token"),
        (calls.DescribeWorkflow, b"{}", "missing parameter `workflow_id`", "workflow_id"),
        (calls.DescribeWorkflow, b"[]", "params: must be an object: parameters go by name", None),
        (calls.DescribeWorkflow, b'{"workflow_id":7}', "workflow_id: expected `str`, got `int`", "workflow_id"),
        (
            calls.DescribeWorkflow,
            b'{"workflow_id":"a b"}',
            "workflow_id: must be 1 to 255 characters of A-Z a-z 0-9 . _ : @ / -",
            "workflow_id",
        ),
        (
            calls.DescribeWorkflow,
            b'{"workflow_id":"' + b"x" * 256 + b'"}',
            "workflow_id: expected `str` of length <= 255",
            "workflow_id",
        ),
        (
            calls.StartWorkflow,
            b'{"workflow":"w","reuse":"never"}',
            "reuse: 'never' is not one of allow, allow_if_failed, reject",
            "reuse",
        ),
        (
            calls.ListWorkflows,
            b'{"started_after":"2026-01-01T00:00:00"}',
            "started_after: expected `datetime` with a timezone component",
            "started_after",
        ),
        (calls.ListWorkflows, b'{"label":"x"}', "label: must be `key=value`", "label"),
        (calls.ListWorkflows, b'{"page_size":0}', "page_size: expected `int` >= 1", "page_size"),
        (calls.StartWorkflow, b"{}", "name a registered `workflow`, or send a `definition`", "workflow"),
        (
            calls.StartWorkflow,
            b'{"workflow":"w","definition":{}}',
            "send either `workflow` or `definition`, not both",
            "definition",
        ),
        (
            calls.StartWorkflow,
            b'{"definition":{},"version":1}',
            "version: goes with `workflow`; an inline `definition` has none",
            "version",
        ),
        (
            calls.CompleteTask,
            b'{"token":"t","output":1e999}',
            "output: not a JSON document: Number out of range",
            "output",
        ),
    ],
)
def test_a_refusal_names_the_field(params: type[calls.Call], text: bytes, message: str, field: str | None) -> None:
    refused = refusal(params, text)
    assert refused.message == message
    assert refused.data.get("field") == field


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("params", "before", "after", "field"),
    [
        (calls.StartWorkflow, b'{"workflow":"w","input":', b"}", "input"),
        (calls.CompleteTask, b'{"token":"t","output":', b"}", "output"),
        (calls.HeartbeatTask, b'{"token":"t","details":', b"}", "details"),
        (calls.CompleteTasks, b'{"tasks":[{"token":"t"},{"token":"t","output":', b"}]}", "tasks[1].output"),
    ],
)
def test_a_payload_is_bounded_in_size_and_depth(
    params: type[calls.Call], before: bytes, after: bytes, field: str
) -> None:
    shape = Shape(params)
    shape.decode(before + b'"' + b"x" * (LIMIT - 2) + b'"' + after, LIMIT)
    refused = refusal(params, before + b'"' + b"x" * (LIMIT - 1) + b'"' + after)
    assert refused.data == {"field": field, "size_bytes": LIMIT + 1, "limit_bytes": LIMIT}
    assert refused.message == f"{field}: 1,025 bytes; at most 1,024 are taken"

    shape.decode(before + nested(NESTING) + after, LIMIT)
    refused = refusal(params, before + nested(NESTING + 1) + after)
    assert refused.message == f"{field}: nests more than {NESTING} levels deep"


def test_brackets_that_do_not_nest_are_no_depth() -> None:
    text = json.dumps({"workflow": "w", "input": [[], '[[[{{\\"' * 60]})
    Shape(calls.StartWorkflow).decode(text.encode(), 10_000)
    wide = b'{"workflow":"w","input":[' + b",".join([b"[]"] * 300) + b"]}"
    Shape(calls.StartWorkflow).decode(wide, 10_000)


def test_a_definition_has_a_limit_of_its_own() -> None:
    text = b'{"name":"w","definition":"' + b"x" * (DEFINITION_BYTES - 2) + b'"}'
    Shape(calls.RegisterWorkflow).decode(text, LIMIT)
    too_long = refusal(calls.RegisterWorkflow, text.replace(b'"x', b'"xx', 1))
    assert too_long.data["limit_bytes"] == DEFINITION_BYTES


@given(
    st.sampled_from(sorted(METHODS)),
    st.dictionaries(
        st.sampled_from(
            ["workflow", "workflow_id", "input", "token", "tasks", "labels", "wait_seconds", "status", "x", "queue"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=5,
    ),
)
def test_any_params_are_decoded_or_refused(method: str, params: dict[str, Any]) -> None:
    row = METHODS[method]
    found: calls.Call | Refused
    try:
        found = Shape(row.params).decode(json.dumps(params).encode(), LIMIT)
    except Refused as refused:
        found = refused
    if isinstance(found, Refused):
        assert found.status is ErrorStatus.INVALID_ARGUMENT
        assert found.message
    else:
        assert type(found) is row.params


def test_the_table_has_every_method_and_only_saying_hello_is_free() -> None:
    assert {name for name, method in METHODS.items() if method.scope is None} == {"Hello", "Authenticate"}
    assert {method.scope for method in METHODS.values()} == {None, *Scope}
    for name, method in METHODS.items():
        assert method.params.__name__ == name
