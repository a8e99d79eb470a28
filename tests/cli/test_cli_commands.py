"""Every command against a scripted engine: what it sends, what it prints, how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from scripted_engine import Handler, ScriptedEngine, answers, unavailable

from daemon.cli.session import CALL_SECONDS
from daemon.settings import Settings
from enginekit.messages import calls, schedules
from enginekit.messages.events import Usage
from enginekit.messages.json import encode
from enginekit.messages.schedules import Overlap, TriggerOutcome
from enginekit.messages.status import BreakerState, ErrorStatus, ExecutionStatus, Refused

Run = Callable[..., Result]
Serving = Callable[..., ScriptedEngine]

NOW = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)
STARTED = calls.StartWorkflowResult(workflow_id="order-1", run_id="r1")
DEFINITION = {"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}
MISSING = Refused(ErrorStatus.NOT_FOUND, "no execution order-9")


def described(status: ExecutionStatus = ExecutionStatus.RUNNING, **more: Any) -> calls.DescribeWorkflowResult:
    return calls.DescribeWorkflowResult(
        workflow_id="order-1",
        run_id="r1",
        workflow="order",
        version=2,
        status=status,
        input=encode({"total": 3}),
        started_at=NOW,
        history_length=7,
        **more,
    )


def event(number: int) -> msgspec.Raw:
    return encode(
        {
            "type": "NodeEntered",
            "id": number,
            "time": "2026-01-01T00:00:00Z",
            "node": "A",
            "path": "A",
            "entry": number,
            "kind": "Pass",
        }
    )


SUMMARY = calls.ExecutionSummary(
    workflow_id="order-1",
    run_id="r1",
    workflow="order",
    version=2,
    status=ExecutionStatus.FAILED,
    error="Card.Declined",
    labels={},
    started_at=NOW,
    closed_at=NOW,
)
HISTORY = calls.GetHistoryResult(run_id="r1", events=[event(1), event(2)], next_after_id=2, closed=True)
QUEUES = calls.ListQueuesResult(
    queues=[
        calls.QueueView(
            queue="resize", kind="activity", depth=3, oldest_seconds=1.5, pollers=2, dispatched=10, rate=0.5
        )
    ]
)
DAEMON = calls.DescribeDaemonResult(
    engine="0.1.0",
    python="3.11",
    trio="0.35",
    pid=77,
    started_at=NOW,
    services=[calls.ServiceView(name="history", state="RUNNING", restarts=1, uptime_seconds=5.0)],
    shards=[calls.ShardView(shard=0, epoch=4)],
    store=calls.StoreView(kind="sqlite", state="RUNNING", schema_version=1),
    breakers=[
        calls.BreakerView(
            destination="shop.example:443",
            state=BreakerState.OPEN,
            since=NOW,
            failure_rate=0.75,
            waiting=12,
            next_probe_at=NOW + timedelta(seconds=30),
        )
    ],
)
DEFINITIONS = calls.ListDefinitionsResult(
    definitions=[calls.DefinitionSummary(name="order", version=2, registered_at=NOW)]
)
NIGHTLY = schedules.DescribeScheduleResult(
    schedule_id="nightly",
    cron="30 2 * * *",
    time_zone="Europe/Berlin",
    workflow="order",
    version=2,
    input=encode({"total": 3}),
    labels={"team": "a"},
    overlap=Overlap.BUFFER_ONE,
    catch_up_seconds=3600,
    paused=False,
    note="as agreed",
    created_at=NOW,
    created_by="ada",
    next_at=NOW,
    upcoming=[NOW, NOW],
    buffered_at=None,
    last_run=schedules.ScheduledRun(at=NOW, workflow_id="nightly-1", run_id="r1"),
    started=7,
    skipped=1,
    missed=0,
    failed=2,
    last_error="no workflow",
    last_error_at=NOW,
)
SCHEDULES = schedules.ListSchedulesResult(
    schedules=[
        schedules.ScheduleSummary(
            schedule_id="nightly",
            cron="30 2 * * *",
            time_zone="Europe/Berlin",
            workflow="order",
            version=None,
            overlap=Overlap.SKIP,
            paused=True,
            note="",
            next_at=None,
            last_at=NOW,
            last_error=None,
        )
    ]
)
TRIGGERED = schedules.TriggerScheduleResult(outcome=TriggerOutcome.STARTED, workflow_id="nightly-2", run_id="r2")
CREATE = ["schedule", "create", "nightly", "order", "30 2 * * *"]
ANSWERS: dict[str, Handler] = {
    "CreateSchedule": answers(schedules.CreateScheduleResult(schedule_id="nightly", next_at=NOW)),
    "ListSchedules": answers(SCHEDULES),
    "DescribeSchedule": answers(NIGHTLY),
    "PauseSchedule": answers(calls.Acknowledged()),
    "ResumeSchedule": answers(calls.Acknowledged()),
    "TriggerSchedule": answers(TRIGGERED),
    "DeleteSchedule": answers(calls.Acknowledged()),
    "StartWorkflow": answers(STARTED),
    "DescribeWorkflow": answers(described()),
    "ListWorkflows": answers(calls.ListWorkflowsResult(executions=[SUMMARY])),
    "GetHistory": answers(HISTORY),
    "ListQueues": answers(QUEUES),
    "DescribeDaemon": answers(DAEMON),
    "ListDefinitions": answers(DEFINITIONS),
    "RegisterWorkflow": answers(calls.RegisterWorkflowResult(name="order", version=2)),
}


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (["start", "order"], {"workflow_id": "order-1", "run_id": "r1"}),
        (["describe", "order-1"], {"status": "RUNNING", "history_length": 7}),
        (["list"], [{"workflow_id": "order-1", "error": "Card.Declined"}]),
        (["history", "order-1"], [{"id": 1, "type": "NodeEntered"}, {"id": 2}]),
        (["history", "order-1", "--follow"], [{"id": 1}, {"id": 2}]),
        (["queues"], [{"queue": "resize", "depth": 3}]),
        (["status"], {"pid": 77, "engine": "0.1.0"}),
        (["definitions"], [{"name": "order", "version": 2}]),
        (CREATE, {"schedule_id": "nightly"}),
        (["schedule", "list"], [{"schedule_id": "nightly", "paused": True}]),
        (["schedule", "show", "nightly"], {"schedule_id": "nightly", "started": 7}),
        (["schedule", "trigger", "nightly"], {"outcome": "started", "run_id": "r2"}),
    ],
)
def test_json_is_one_document_and_nothing_else(run: Run, serving: Serving, arguments: list[str], shape: Any) -> None:
    serving(**ANSWERS)
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    found = document if isinstance(document, list) else [document]
    for part, expected in zip(found, shape if isinstance(shape, list) else [shape], strict=True):
        assert part.items() >= expected.items()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["start", "order"], ["order-1 r1"]),
        (["describe", "order-1"], ["order version 2", "RUNNING", "2026-03-04 05:06:07.089Z", '{"total":3}']),
        (["list"], ["EXECUTION", "order-1", "FAILED", "Card.Declined"]),
        (["history", "order-1"], ["NodeEntered", "kind=Pass"]),
        (["queues"], ["resize", "1.5 s", "0.5/s"]),
        (
            ["status"],
            ["pid 77", "history", "sqlite", "0 (epoch 4)", "shop.example:443  OPEN", "75%", "12", "05:06:37.089Z"],
        ),
        (["definitions"], ["order", "2026-03-04"]),
        (CREATE, ["nightly: fires at 2026-03-04 05:06:07.089Z"]),
        (["schedule", "list"], ["SCHEDULE", "nightly", "30 2 * * *", "Europe/Berlin", "skip", "paused"]),
        (
            ["schedule", "show", "nightly"],
            ["order version 2", "(Europe/Berlin)", "buffer_one", "7 started, 1 skipped, 0 missed, 2 failed", "team=a"],
        ),
        (["schedule", "next", "nightly"], ["2026-03-04 05:06:07.089Z\n2026-03-04 05:06:07.089Z"]),
        (["schedule", "pause", "nightly"], ["nightly: paused"]),
        (["schedule", "resume", "nightly"], ["nightly: fires at 2026-03-04"]),
        (["schedule", "trigger", "nightly"], ["nightly-2 r2"]),
        (["schedule", "delete", "nightly"], ["nightly: deleted"]),
    ],
)
def test_text_says_the_same_to_people(run: Run, serving: Serving, arguments: list[str], words: list[str]) -> None:
    serving(**ANSWERS)
    result = run(*arguments)
    assert result.exit_code == 0
    for word in words:
        assert word in result.stdout


def test_start_sends_what_the_options_say(run: Run, serving: Serving, tmp_path: Path) -> None:
    engine = serving(**ANSWERS)
    payload = tmp_path / "input.json"
    payload.write_text('{"total": 5}')
    options = ["--id", "order-1", "--timeout-seconds", "9.5", "--label", "a=1", "--label", "b=x=y", "--version", "3"]
    assert run("start", "order", "--input", f"@{payload}", *options).exit_code == 0
    (params,) = engine.params("StartWorkflow")
    assert params.pop("request_id")
    assert params == {
        "workflow": "order",
        "version": 3,
        "input": {"total": 5},
        "workflow_id": "order-1",
        "timeout_seconds": 9.5,
        "labels": {"a": "1", "b": "x=y"},
    }
    assert engine.tokens == ["a-token"]


def test_start_reads_input_from_stdin_and_a_definition_from_a_file(run: Run, serving: Serving, tmp_path: Path) -> None:
    engine = serving(**ANSWERS)
    file = tmp_path / "order.yaml"
    file.write_text("StartAt: A\nStates: {A: {Type: Succeed}}\n")
    assert run("start", str(file), "--input", "@-", stdin="[1]").exit_code == 0
    (params,) = engine.params("StartWorkflow")
    assert (params["definition"], params["input"]) == (file.read_text(), [1])
    assert "workflow" not in params


def test_waiting_prints_the_output(run: Run, serving: Serving) -> None:
    closed = described(ExecutionStatus.SUCCEEDED, output=encode({"shipped": True}))
    engine = serving(StartWorkflow=answers(STARTED), WaitWorkflow=answers(described(), closed))
    result = run("start", "order", "--wait")
    assert (result.exit_code, result.stdout, result.stderr) == (0, '{"shipped":true}\n', "")
    assert [params["run_id"] for params in engine.params("WaitWorkflow")] == ["r1", "r1"]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_workflow_that_fails_exits_1_and_says_why_on_stderr(run: Run, serving: Serving, as_json: bool) -> None:
    failed = described(ExecutionStatus.FAILED, error="Card.Declined", cause="no funds")
    serving(StartWorkflow=answers(STARTED), WaitWorkflow=answers(failed))
    result = run("start", "order", "--wait", *(["--json"] if as_json else []))
    assert result.exit_code == 1
    assert result.stderr == "Error: execution order-1 ended FAILED: Card.Declined: no funds\n"
    assert (json.loads(result.stdout)["status"] == "FAILED") if as_json else result.stdout == ""


def test_cancel_and_terminate_send_the_reason(run: Run, serving: Serving) -> None:
    engine = serving(CancelWorkflow=answers(calls.Acknowledged()), TerminateWorkflow=answers(calls.Acknowledged()))
    assert run("cancel", "order-1", "--run-id", "r1", "--reason", "no stock").exit_code == 0
    assert run("terminate", "order-1").exit_code == 0
    (cancel,), (terminate,) = engine.params("CancelWorkflow"), engine.params("TerminateWorkflow")
    assert cancel.pop("request_id") != terminate.pop("request_id")
    assert cancel == {"workflow_id": "order-1", "run_id": "r1", "reason": "no stock"}
    assert terminate == {"workflow_id": "order-1"}


def test_list_asks_for_what_the_options_say_and_stops_at_the_limit(run: Run, serving: Serving) -> None:
    page = calls.ListWorkflowsResult(executions=[SUMMARY, SUMMARY], next_page_token="more")
    engine = serving(ListWorkflows=answers(page))
    options = ["--status", "failed", "--workflow", "order", "--label", "a=1", "--limit", "3"]
    assert len(json.loads(run("list", *options, "--json").stdout)) == 3
    first, second = engine.params("ListWorkflows")
    assert first == {"status": "FAILED", "workflow": "order", "label": "a=1", "page_size": 3}
    assert second["page_token"] == "more"


def test_register_sends_the_text_of_the_file(run: Run, serving: Serving, tmp_path: Path) -> None:
    engine = serving(**ANSWERS)
    file = tmp_path / "order.json"
    file.write_text(json.dumps(DEFINITION, indent=3))
    result = run("register", "order", str(file))
    assert (result.exit_code, result.stdout) == (0, "order version 2\n")
    assert engine.params("RegisterWorkflow") == [{"name": "order", "definition": file.read_text()}]


def test_a_refusal_exits_3_with_its_message(run: Run, serving: Serving) -> None:
    serving(DescribeWorkflow=answers(MISSING))
    result = run("describe", "order-9", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "Error: NOT_FOUND: no execution order-9\n"


def test_a_refused_definition_shows_every_fault(run: Run, serving: Serving, tmp_path: Path) -> None:
    faults: Any = [{"path": "States.A.Next", "message": "no state named 'B'"}, {"path": "", "message": "odd"}]
    serving(RegisterWorkflow=answers(Refused(ErrorStatus.INVALID_ARGUMENT, "2 faults", {"faults": faults})))
    file = tmp_path / "order.json"
    file.write_text("{}")
    result = run("register", "order", str(file))
    assert result.exit_code == 3
    assert "  States.A.Next: no state named 'B'\n  odd\n" in result.stderr


def test_a_token_that_is_refused_exits_3(run: Run, serving: Serving) -> None:
    serving().reject = (401, b"the token has expired: get a new one")
    result = run("list")
    assert (result.exit_code, result.stderr) == (3, "Error: UNAUTHENTICATED: the token has expired: get a new one\n")


def test_nobody_at_the_url_exits_4(run: Run, monkeypatch: pytest.MonkeyPatch, serving: Serving) -> None:
    monkeypatch.setattr("daemon.cli.session.CONNECT_SECONDS", 0.1)
    monkeypatch.setenv("ENGINE_URL", "ws://127.0.0.1:1/rpc")
    monkeypatch.setenv("ENGINE_TOKEN", "t")
    result = run("list")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "ws://127.0.0.1:1/rpc: Connection refused" in result.stderr


def test_no_daemon_in_the_data_folder_exits_4_at_once(run: Run, tmp_path: Path) -> None:
    result = run("list")
    assert result.exit_code == 4
    assert result.stderr == f"Error: no daemon runs on {tmp_path / 'state'}: start one with `engine serve`\n"


def test_a_daemon_that_stays_unavailable_exits_4(run: Run, monkeypatch: pytest.MonkeyPatch, serving: Serving) -> None:
    monkeypatch.setattr("daemon.cli.session.CALL_SECONDS", 0.1)
    serving(ListQueues=answers(unavailable()))
    result = run("queues")
    assert result.exit_code == 4
    assert "not now" in result.stderr


def test_a_command_waits_longer_than_the_frontend_that_it_asks() -> None:
    assert Settings().frontend.call_timeout_seconds < CALL_SECONDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["start", "order", "--input", "{"], "--input: not a JSON document"),
        (["start", "order", "--input", "@/nowhere.json"], "/nowhere.json: cannot be read: No such file"),
        (["start", "order", "--label", "a"], "'a': write it as KEY=VALUE"),
        (["start", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file"),
        (["start", "order", "--timeout-seconds", "0"], "--timeout-seconds"),
        (["validate", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file"),
        (["list", "--status", "gone"], "--status"),
        (["describe"], "Missing argument"),
        (["dlq", "redrive"], "name LETTERs, or choose them by --workflow"),
        (["dlq", "discard", "--all", "a/1"], "name LETTERs, or choose them by --workflow"),
        (["dlq", "redrive", "--all", "--input", "1"], "--input goes with one LETTER"),
        (["rerun", "x"], "No such command"),
        (["token", "--tenant", "a b"], "tenant"),
    ],
)
def test_usage_faults_exit_2(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_an_engine_url_that_is_none_exits_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_URL", "localhost:7460")
    result = run("list")
    assert result.exit_code == 2
    assert "ENGINE_URL: 'localhost:7460' is no WebSocket URL" in result.stderr


def test_what_a_terminal_would_obey_is_shown_instead(run: Run, serving: Serving) -> None:
    serving(DescribeWorkflow=answers(described(ExecutionStatus.FAILED, error="\x1b[2Jgone", cause="a\x07b")))
    result = run("describe", "order-1")
    assert "\x1b" not in result.stdout
    assert "\\x1b[2Jgone" in result.stdout
    assert "a\\x07b" in result.stdout


def test_schedule_create_sends_what_the_options_say(run: Run, serving: Serving) -> None:
    engine = serving(**ANSWERS)
    options = ["--time-zone", "Europe/Berlin", "--version", "2", "--input", '{"a": 1}', "--label", "team=a"]
    more = ["--overlap", "cancel_other", "--catch-up-seconds", "60", "--paused", "--note", "not yet"]
    assert run(*CREATE, *options, *more).exit_code == 0
    (params,) = engine.params("CreateSchedule")
    assert params.pop("request_id")
    assert params == {
        "schedule_id": "nightly",
        "workflow": "order",
        "cron": "30 2 * * *",
        "time_zone": "Europe/Berlin",
        "version": 2,
        "input": {"a": 1},
        "labels": {"team": "a"},
        "overlap": "cancel_other",
        "catch_up_seconds": 60,
        "paused": True,
        "note": "not yet",
    }


def test_schedule_next_asks_for_as_many_as_are_wanted(run: Run, serving: Serving) -> None:
    engine = serving(**ANSWERS)
    assert (
        json.loads(run("schedule", "next", "nightly", "--count", "2", "--json").stdout)
        == ["2026-03-04T05:06:07.089000Z"] * 2
    )
    assert engine.params("DescribeSchedule") == [{"schedule_id": "nightly", "upcoming": 2}]


def test_a_schedule_that_has_to_wait_says_so(run: Run, serving: Serving) -> None:
    serving(TriggerSchedule=answers(schedules.TriggerScheduleResult(outcome=TriggerOutcome.BUFFERED)))
    assert "as soon as the execution before has closed" in run("schedule", "trigger", "nightly").stdout


@pytest.mark.parametrize(
    "wrong", [["--overlap", "perhaps"], ["--catch-up-seconds", "1"], ["--label", "x"], ["--input", "{"]]
)
def test_schedule_options_that_make_no_sense_exit_2(run: Run, serving: Serving, wrong: list[str]) -> None:
    engine = serving(**ANSWERS)
    assert run(*CREATE, *wrong).exit_code == 2
    assert engine.params("CreateSchedule") == []


def test_what_was_used_of_models_is_described(run: Run, serving: Serving) -> None:
    serving(DescribeWorkflow=answers(described(usage=Usage(requests=3, input_tokens=120, output_tokens=45))))
    assert "models:    3 requests, 120 tokens in, 45 out" in run("describe", "order-1").stdout
