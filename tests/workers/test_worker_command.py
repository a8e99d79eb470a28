"""`engine worker` and `engine task` as people use them: processes, signals, exit statuses, logs."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from worker_site import ENGINE, Site, lines, logged

from daemon.cli.main import engine as engine_command
from enginekit.messages import events as ev
from enginekit.messages.status import ExecutionStatus, Refused

LAMBDA = "arn:aws:lambda:eu-west-1:123456789012:function:step:live"


def one(resource: str, **more: object) -> dict:
    return {"StartAt": "Do", "States": {"Do": {"Type": "Task", "Resource": resource, **more, "End": True}}}


async def test_a_worker_serves_several_queues_and_drains_on_sigterm(site: Site) -> None:
    async with site.worker("--concurrency", "8", "--worker-id", "desk-1") as worker:
        first = await logged(worker, "working for engine")
        assert first["queues"] == ["step", "gated", "step:sync", "pages", "ask", "fails"]
        assert (first["worker"], first["tenant"], first["level"]) == ("desk-1", site.client.hello.tenant, "info")
        for queue in ("step", "step:sync"):
            await site.client.start(one(f"activity:{queue}"), input={"n": queue}, workflow_id=queue)
            assert await site.client.result(queue) == {"n": queue}
        await site.client.start(one("activity:gated"), input="late", workflow_id="long")
        await site.noted("begun", 3)
        worker.process.send_signal(signal.SIGTERM)
        await logged(worker, "finishing 1 tasks")
        (site.folder / "go").touch()
        assert await worker.process.wait() == 0
        assert await site.client.result("long") == "late"
        assert [line["event"] for line in lines(worker)][-3:] == [
            "stopping: SIGTERM",
            "finishing 1 tasks, for at most 20 s",
            "stopped",
        ]
    history = [event async for event in site.client.history("long")]
    assert [event.worker for event in history if isinstance(event, ev.TaskStarted)] == ["desk-1"]


async def test_what_does_not_finish_while_it_drains_is_given_back_and_goes_on_elsewhere(site: Site) -> None:
    async with site.worker("--drain-seconds", "0.1") as worker:
        await site.client.start(one("activity:pages"), input=5, workflow_id="p")
        await site.noted("stuck")
        worker.process.send_signal(signal.SIGINT)
        assert await worker.process.wait() == 0
        assert (await logged_after(worker, "task given back"))["workflow_id"] == "p"
    (site.folder / "go").touch()
    async with site.worker():
        assert await site.client.result("p") == 5
    assert [entry["page"] for entry in site.ledger("pages")] == [0, 1, 2, 3, 4], "no page was done twice"
    history = [event async for event in site.client.history("p")]
    returned, *undelivered = [event for event in history if isinstance(event, ev.TaskReturned)]
    assert bytes(returned.details) == b"3"
    assert "is stopping" in returned.reason
    # The poll that the worker has cancelled may be answered with the very task that it gave back.
    assert all(event.reason.startswith("the poll was") for event in undelivered)


async def logged_after(worker, text: str) -> dict:
    """Of a worker that has ended."""
    (line,) = [line for line in lines(worker) if text in line["event"]]
    return line


async def test_a_second_signal_gives_everything_back_at_once(site: Site) -> None:
    async with site.worker() as worker:
        await site.client.start(one("activity:step"), input={"seconds": 600}, workflow_id="w")
        await site.noted("begun")
        worker.process.send_signal(signal.SIGTERM)
        await logged(worker, "finishing 1 tasks")
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.process.wait() == 128 + signal.SIGTERM
    async for event in site.client.history("w", follow=True):
        if isinstance(event, ev.TaskReturned):
            assert "is stopping" in event.reason
            break


async def test_failures_are_logged_with_their_task_and_recorded(site: Site) -> None:
    async with site.worker("--queue", "fails", "--queue", "step") as worker:
        assert (await logged(worker, "working"))["queues"] == ["fails", "step"]
        await site.client.start(
            one("activity:fails", Retry=[{"ErrorEquals": ["Card.Declined"], "IntervalSeconds": 1}]),
            input="named",
            workflow_id="named",
        )
        await site.client.start(one("activity:fails"), workflow_id="unexpected")
        closed = await site.client.wait("unexpected")
        assert (closed.status, closed.error, closed.cause) == (ExecutionStatus.FAILED, "KeyError", "'missing'")
        expected = await logged(worker, "task failed: Card.Declined: no funds")
        assert (expected["workflow_id"], expected["path"], expected["attempt"]) == ("named", "Do", 1)
        assert "exception" not in expected
        unexpected = await logged(worker, "task failed: KeyError")
        assert "KeyError: 'missing'" in unexpected["exception"]
        own = [line for line in lines(worker) if line["event"] == "a line of my own"]
        assert {line["workflow_id"] for line in own} == {"named", "unexpected"}
    history = [event async for event in site.client.history("named", follow=False)]
    (failed,) = [event for event in history if isinstance(event, ev.TaskFailed)]
    (retry,) = [event for event in history if isinstance(event, ev.TaskRetryScheduled)]
    assert failed.retry_after_seconds == 700
    assert (retry.at - retry.time).total_seconds() == 700
    described = json.loads(await site.run("describe", "named", "--json"))
    assert described["nodes"][0]["next_retry_at"] == retry.at.isoformat().replace("+00:00", "Z")


async def test_lambda_functions_are_activities_by_their_name(site: Site) -> None:
    invoke = one("arn:aws:states:::lambda:invoke", Parameters={"FunctionName": "step", "Payload": {"n.$": "$.n"}})
    by_arn = one("arn:aws:states:::lambda:invoke", Parameters={"FunctionName": LAMBDA, "Payload": {"n": 2}})
    async with site.worker("--queue", "step"):
        await site.client.start(one(LAMBDA), input={"n": 0}, workflow_id="arn")
        assert await site.client.result("arn") == {"n": 0}
        await site.client.start(invoke, input={"n": 1}, workflow_id="invoke")
        wrapped = {"ExecutedVersion": "$LATEST", "Payload": {"n": 1}, "StatusCode": 200}
        assert await site.client.result("invoke") == wrapped
        await site.client.start(by_arn, workflow_id="invoke-arn")
        assert await site.client.result("invoke-arn") == wrapped | {"Payload": {"n": 2}}


async def test_a_factory_makes_its_own_worker(site: Site) -> None:
    async with site.worker(app="ledger_app:make") as worker:
        assert (await logged(worker, "working"))["worker"] == "made-by-hand"
        await site.client.start(one("activity:step"), input={"n": 1}, workflow_id="w")
        assert await site.client.result("w") == {"n": 1}


async def test_tokens_are_completed_failed_and_kept_by_anybody(site: Site) -> None:
    asking = one("activity:ask.waitForTaskToken", InputPath="$$.Task.Token", HeartbeatSeconds=600)
    async with site.worker("--queue", "ask"):
        for number, name in enumerate(("yes", "no", "from-python", "too-late"), 1):
            await site.client.start(asking, workflow_id=name)
            await site.noted("asked", number)
        yes, no, python, late = [entry["token"] for entry in site.ledger("asked")]
        assert await site.run("task", "heartbeat", yes, "--details", '{"seen": true}') == "heard\n"
        described = json.loads(await site.run("describe", "yes", "--json"))
        assert described["nodes"][0]["heartbeat_details"] == {"seen": True}
        assert await site.run("task", "complete", yes, "--output", '{"approved": true}') == "completed\n"
        assert await site.client.result("yes") == {"approved": True}
        assert await site.run("task", "fail", no, "--error", "Denied", "--cause", "not today") == "failed\n"
        closed = await site.client.wait("no")
        assert (closed.error, closed.cause) == ("Denied", "not today")
        assert not await site.client.heartbeat_task(python)
        await site.client.complete_task(python, {"by": "python"})
        assert await site.client.result("from-python") == {"by": "python"}
        await site.run("cancel", "too-late")
        assert json.loads(await site.run("task", "heartbeat", late, "--json")) == {"cancel_requested": True}
        await site.run("task", "complete", late, status=3)
        with pytest.raises(Refused, match="nobody waits for the task any more"):
            await site.client.fail_task(late, "E")
        await site.run("task", "complete", "not-a-token", status=3)
        await site.run("task", "complete", late, "--output", "{", status=2)
        await site.run("task", "fail", late, status=2)


async def test_a_worker_that_may_not_work_says_so(site: Site) -> None:
    token = (await site.run("token", "--scope", "read")).strip()
    environ = site.environ() | {"ENGINE_URL": site.local.url(), "ENGINE_TOKEN": token}
    done = await trio.run_process(
        [ENGINE, "worker", "ledger_app:app"],
        env=environ,
        cwd=Path(__file__).parent,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 3
    assert b'needs the scope "work"' in done.stderr


# --- what cannot be served -----------------------------------------------------------------------------------------

UNUSABLE = {
    "ledger_app": "write it as MODULE:NAME",
    ":app": "write it as MODULE:NAME",
    "ledger_app:": "write it as MODULE:NAME",
    "no_such_module:app": "there is no module 'no_such_module' in ",
    "ledger_app.inner:app": "there is no module 'ledger_app.inner' in ",
    "needs_nothing_that_is_there:app": "cannot be imported: ModuleNotFoundError: No module named 'nonesuch_at_all' (",
    "not_python:app": "cannot be imported: SyntaxError",
    "ledger_app:ap": "ledger_app has no 'ap'; did you mean 'app'?",
    "ledger_app:empty": "ledger_app:empty has no activities in it: name a queue and its function",
    "ledger_app:wrong": "the activity for queue 'q' is 3, which cannot be called",
    "ledger_app:number": "ledger_app:number is a value of type int; it has to be activities by their queues",
}


@pytest.mark.parametrize("app", UNUSABLE)
def test_what_cannot_be_served_is_said_before_a_daemon_is_asked(app, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    (tmp_path / "needs_nothing_that_is_there.py").write_text("\nimport nonesuch_at_all\n")
    (tmp_path / "not_python.py").write_text("def\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ENGINE_URL", "ws://127.0.0.1:9/rpc")
    result = CliRunner().invoke(engine_command, ["worker", app])
    assert result.exit_code == 2
    assert UNUSABLE[app] in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["ledger_app:app", "--queue", "nobody"], "ledger_app:app has no 'nobody'; it has step, gated, step:sync"),
        (["ledger_app:app", "--concurrency", "2"], "6 queues need as many slots"),
        (["ledger_app:make", "--concurrency", "2"], "--concurrency: ledger_app:make makes its own Worker"),
        (["ledger_app:app", "--concurrency", "0"], "--concurrency"),
    ],
)
def test_options_that_do_not_fit_are_usage(options, said, monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    result = CliRunner().invoke(engine_command, ["worker", *options])
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


async def test_a_factory_that_makes_no_worker_is_usage(site: Site) -> None:
    for app, said in (
        ("ledger_app:broken", "ledger_app:broken was called with the client and raised RuntimeError: no such thing ("),
        ("ledger_app:seconds_of", "ledger_app:seconds_of was called with the client and raised AssertionError"),
        ("ledger_app:perform", "ledger_app:perform was called with the client and raised AttributeError"),
        ("builtins:repr", "builtins:repr was called with the client and returned a value of type str, not a Worker"),
    ):
        assert said in await site.run("worker", app, status=2, stderr=True)


def test_a_daemon_that_is_not_there_is_4(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.delenv("ENGINE_URL", raising=False)
    monkeypatch.setenv("ENGINE_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(engine_command, ["worker", "ledger_app:app"])
    assert result.exit_code == 4
    monkeypatch.setenv("ENGINE_URL", "ws://127.0.0.1:9/rpc")
    monkeypatch.setenv("ENGINE_TOKEN", "t")
    result = CliRunner().invoke(engine_command, ["worker", "ledger_app:app", "--connect-seconds", "0.2"])
    assert result.exit_code == 4
