"""Which retrier and catcher an error meets, how long a retry waits, and what a catcher passes on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from language_machines import MAP_PROCESSOR, SCOPE, state

from daemon.language import (
    Map,
    Parallel,
    Retrier,
    StateError,
    Task,
    caught_output,
    matching_catcher,
    matching_retrier,
    retry_delay,
)
from enginekit.messages.json import JSON


@pytest.mark.parametrize(
    ("error", "matched"),
    [
        ("ErrorA", {"ErrorA", "States.ALL", "States.TaskFailed"}),
        ("Http.503", {"States.ALL", "States.TaskFailed"}),
        ("Lambda.Unknown", {"States.ALL", "States.TaskFailed"}),
        ("", {"States.ALL", "States.TaskFailed"}),
        ("States.TaskFailed", {"States.ALL", "States.TaskFailed"}),
        ("States.Timeout", {"States.ALL", "States.Timeout"}),
        ("States.HeartbeatTimeout", {"States.ALL", "States.Timeout", "States.HeartbeatTimeout"}),
        ("States.Permissions", {"States.ALL", "States.TaskFailed", "States.Permissions"}),
        ("States.ReferencePathConflict", {"States.ALL", "States.TaskFailed"}),
        ("States.DataLimitExceeded", {"States.DataLimitExceeded"}),
        ("States.Runtime", {"States.Runtime"}),
        ("errora", {"States.ALL", "States.TaskFailed"}),
    ],
)
def test_what_an_error_matches(error: str, matched: set[str]) -> None:
    names = [
        "ErrorA",
        "States.ALL",
        "States.TaskFailed",
        "States.Timeout",
        "States.HeartbeatTimeout",
        "States.Permissions",
        "States.DataLimitExceeded",
        "States.Runtime",
    ]
    for name in names:
        policy: dict[str, JSON] = {"ErrorEquals": [name]}
        fields: dict[str, JSON] = {"Retry": [policy], "Catch": [{**policy, "Next": "Other"}]}
        wanted = 0 if name in matched else None
        for found in (
            state(Task, fields),
            state(Parallel, {**fields, "Branches": [MAP_PROCESSOR]}),
            state(Map, fields),
        ):
            assert (matching_retrier(found, error), matching_catcher(found, error)) == (wanted, wanted), name


@pytest.mark.parametrize(
    ("error", "documented"),
    [
        ("States.Runtime", "States.NoChoiceMatched"),
        ("States.Runtime", "States.IntrinsicFailure"),
        ("States.ReferencePathConflict", "States.ResultPathMatchFailure"),
    ],
)
def test_what_an_error_with_another_name_in_the_specification_matches(error: str, documented: str) -> None:
    beside = {"States.ALL", "States.TaskFailed"} if error == "States.ReferencePathConflict" else set()
    others = {"States.NoChoiceMatched", "States.IntrinsicFailure", "States.ResultPathMatchFailure"} - {documented}
    for name in [error, documented, "States.ALL", "States.TaskFailed", "States.Timeout", *sorted(others)]:
        policy: dict[str, JSON] = {"ErrorEquals": [name]}
        fields: dict[str, JSON] = {"Retry": [policy], "Catch": [{**policy, "Next": "Other"}]}
        wanted = 0 if name in {error, documented} | beside else None
        for found in (
            state(Task, fields),
            state(Parallel, {**fields, "Branches": [MAP_PROCESSOR]}),
            state(Map, fields),
        ):
            matched = (matching_retrier(found, error, documented), matching_catcher(found, error, documented))
            assert matched == (wanted, wanted), name
            if name == documented:
                assert matching_catcher(found, error) is None


def test_the_first_match_counts() -> None:
    task = state(
        Task,
        {
            "Retry": [
                {"ErrorEquals": ["ErrorA", "ErrorB"], "IntervalSeconds": 1, "BackoffRate": 2, "MaxAttempts": 2},
                {"ErrorEquals": ["ErrorC"], "IntervalSeconds": 5},
                {"ErrorEquals": ["ErrorB"]},
            ],
            "Catch": [{"ErrorEquals": ["ErrorC"], "Next": "Other"}, {"ErrorEquals": ["States.ALL"], "Next": "Done"}],
        },
    )
    assert [matching_retrier(task, error) for error in ("ErrorA", "ErrorB", "ErrorC", "ErrorD")] == [0, 0, 1, None]
    assert [matching_catcher(task, error) for error in ("ErrorA", "ErrorC")] == [1, 0]
    assert [catcher.next for catcher in task.catch] == ["Other", "Done"]


def test_a_retrier_s_defaults() -> None:
    (retrier,) = state(Task, {"Retry": [{"ErrorEquals": ["States.ALL"]}]}).retry
    assert (retrier.interval_seconds, retrier.max_attempts, retrier.backoff_rate) == (1, 3, 2.0)
    assert (retrier.max_delay_seconds, retrier.jitter) == (None, False)


def test_how_long_retries_wait() -> None:
    retrier = Retrier(errors=("E",), interval_seconds=3, backoff_rate=1.5)
    assert [retry_delay(retrier, nth, SCOPE.random) for nth in (1, 2, 3)] == [3, 4.5, 6.75]
    capped = Retrier(errors=("E",), interval_seconds=3, backoff_rate=2, max_delay_seconds=5)
    assert [retry_delay(capped, nth, SCOPE.random) for nth in (1, 2, 3)] == [3, 5, 5]
    jittered = Retrier(errors=("E",), interval_seconds=4, backoff_rate=2, jitter=True)
    assert [retry_delay(jittered, nth, lambda: 0.25) for nth in (1, 2)] == [1, 2]


@settings(deadline=None)
@given(
    some.integers(1, 99_999_999), some.floats(1, 1e6), some.none() | some.integers(1, 31_622_400), some.booleans(),
    some.integers(1, 99_999_999), some.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_no_wait_is_without_bound(
    interval: int, rate: float, delay: int | None, jitter: bool, nth: int, fraction: float
) -> None:
    retrier = Retrier(
        errors=("E",), interval_seconds=interval, backoff_rate=rate, max_delay_seconds=delay, jitter=jitter
    )
    seconds = retry_delay(retrier, nth, lambda: fraction)
    assert math.isfinite(seconds)
    assert 0 <= seconds <= (delay or 31_622_400)


def test_what_a_catcher_passes_on() -> None:
    catch: JSON = [
        {"ErrorEquals": ["A"], "ResultPath": "$.error-info", "Next": "Other"},
        {"ErrorEquals": ["B"], "ResultPath": None, "Next": "Other"},
        {"ErrorEquals": ["States.ALL"], "Next": "Done"},
    ]
    task = state(Task, {"Catch": catch, "ResultPath": "$.unused", "OutputPath": "$.unused"})
    raw: JSON = {"a": 1}
    error = {"Error": "E", "Cause": "why"}
    made = [caught_output(task, catcher, raw, "E", "why", SCOPE) for catcher in task.catch]
    assert made == [{"a": 1, "error-info": error}, {"a": 1}, error]
    assert raw == {"a": 1}
    with pytest.raises(StateError) as raised:
        caught_output(task, task.catch[0], "text", "E", "why", SCOPE)
    assert (raised.value.error, raised.value.documented) == (
        "States.ReferencePathConflict",
        "States.ResultPathMatchFailure",
    )
    assert raised.value.cause == 'Unable to apply step "error-info" to input "text"'
