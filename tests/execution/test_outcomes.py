"""What an attempt comes to beside its output: logs, usage, the pause that a server asks for, where it went."""

from __future__ import annotations

from datetime import timedelta

import pytest

from daemon.execution.commands import Pulse, RecordOutcome
from daemon.execution.destination import destination_of
from daemon.execution.view import describe
from enginekit.messages import events as ev
from enginekit.messages.events import TimeoutKind, Usage
from enginekit.messages.json import encode

SHOP = "https://shop.example/orders"
CALL = {"Type": "Task", "Resource": "http", "Parameters": {"Method": "GET", "ApiEndpoint": SHOP}, "End": True}


def one(drive, **more):
    return drive({"StartAt": "A", "States": {"A": {**CALL, **more}}})


def retry_at(run):
    (event,) = [event for event in run.events if isinstance(event, ev.TaskRetryScheduled)]
    return event.at


def report(run, **outcome):
    run.do(RecordOutcome(task=run.task("A")[1].id, worker="w", **outcome))


def test_logs_and_usage_stand_on_the_event_that_ends_the_attempt_and_usage_adds_up(drive):
    run = one(drive, Retry=[{"ErrorEquals": ["Busy"], "IntervalSeconds": 1}])
    report(run, error="Busy", log="tried", usage=Usage(requests=1, input_tokens=10))
    run.advance(2)
    report(run, output=encode(1), log="done", usage=Usage(requests=1, input_tokens=2, output_tokens=5))
    failed, completed = (event for event in run.events if isinstance(event, ev.TaskFailed | ev.TaskCompleted))
    assert (failed.log, completed.log) == ("tried", "done")
    assert describe(run.run, Pulse(since=run.now)).usage == Usage(requests=2, input_tokens=12, output_tokens=5)


def test_the_next_attempt_waits_for_as_long_as_the_server_asked(drive):
    run = one(drive, Retry=[{"ErrorEquals": ["Busy"], "IntervalSeconds": 1}])
    report(run, error="Busy", retry_after_seconds=90.0)
    assert retry_at(run) == run.now + timedelta(seconds=90)


def test_no_server_can_ask_for_more_than_the_limit(drive):
    run = one(drive, Retry=[{"ErrorEquals": ["Busy"], "IntervalSeconds": 1}])
    report(run, error="Busy", retry_after_seconds=1e9)
    assert retry_at(run) == run.now + timedelta(seconds=3600)


def test_the_default_retry_waits_as_well(drive):
    run = one(drive)
    report(run, error="States.Http.StatusCode.503", retry_after_seconds=20.0)
    assert retry_at(run) == run.now + timedelta(seconds=20)


def test_a_shorter_pause_than_the_policys_is_not_taken(drive):
    run = one(drive, Retry=[{"ErrorEquals": ["Busy"], "IntervalSeconds": 10}])
    report(run, error="Busy", retry_after_seconds=2.0)
    assert retry_at(run) == run.now + timedelta(seconds=10)


def test_a_missed_heartbeat_says_how_long_there_was_none(drive):
    run = one(drive, HeartbeatSeconds=4, TimeoutSeconds=60)
    report(run, timed_out=TimeoutKind.HEARTBEAT, ran_seconds=30.0)
    (event,) = [event for event in run.events if isinstance(event, ev.TaskTimedOut)]
    assert (event.error, event.waited_seconds) == ("States.HeartbeatTimeout", 4.0)


@pytest.mark.parametrize(
    ("resource", "arguments", "destination"),
    [
        ("http", {"ApiEndpoint": "https://Shop.example/a?b"}, "shop.example:443"),
        ("http", {"ApiEndpoint": "http://shop.example:8080"}, "shop.example:8080"),
        ("http", {"ApiEndpoint": "http://[::1]/x"}, "[::1]:80"),
        ("http", {"ApiEndpoint": "http://user:secret@shop.example/"}, "shop.example:80"),
        ("http", {"ApiEndpoint": "http://shop.example:port/"}, None),
        ("http", {"ApiEndpoint": "/items", "Connection": "shop"}, "http/shop"),
        ("http", {"ApiEndpoint": "/items"}, None),
        ("http", {"ApiEndpoint": 7}, None),
        ("http", [], None),
        ("ai:openai", {"Model": "m", "Connection": "local"}, "ai:openai/local/m"),
        ("ai:anthropic", {"Model": "m"}, "ai:anthropic/-/m"),
        ("ai:anthropic", {}, None),
        ("echo", {"ApiEndpoint": "http://shop.example"}, None),
    ],
)
def test_where_a_task_goes_is_read_off_its_arguments(resource, arguments, destination):
    assert destination_of(resource, arguments) == destination


def test_where_a_task_goes_is_recorded_with_it(drive):
    run = one(drive)
    (scheduled,) = [event for event in run.events if isinstance(event, ev.TaskScheduled)]
    assert (scheduled.destination, run.task("A")[1].destination) == ("shop.example:443", "shop.example:443")
