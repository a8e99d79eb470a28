"""Bad input, over the wire of a real daemon: each kind gets its own clear error, nothing is written, and the
connection goes on where the protocol allows it."""

from __future__ import annotations

import base64
import json
import time

import pytest
from trio_websocket import ConnectionClosed, ConnectionRejected

ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
ASK = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:ask", "End": True}}}
WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}}
FAULTY = {
    "StartAt": "Ship",
    "States": {
        "Ship": {
            "Type": "Task",
            "Resource": "http",
            "Next": "Shp",
            "TimeoutSeconds": -1,
            "Retry": [{"ErrorEquals": ["States.ALL"], "MaxAttempts": "three"}],
        },
        "Shipped": {"Type": "Succeed", "Comment": 5},
        "Wait": {"Type": "Wait", "Secnds": 5, "End": True},
    },
}


def status(error):
    return error["data"]["status"]


class Unwritten:
    """Nothing is written meanwhile, and the connection answers afterwards."""

    def __init__(self, real, wire):
        self.real, self.wire = real, wire

    async def __aenter__(self):
        self.before = self.real.rows()
        return self.wire

    async def __aexit__(self, *_):
        assert self.real.rows() == self.before
        assert (await self.wire.result("Hello"))["tenant"] == "acme"


# --- definitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["RegisterWorkflow", "StartWorkflow"])
async def test_a_definition_is_refused_with_every_fault_and_its_path(real, method):
    async with real.connected() as wire, Unwritten(real, wire):
        named = {"name": "faulty"} if method == "RegisterWorkflow" else {}
        error = await wire.error(method, definition=FAULTY, **named)
        assert (error["code"], status(error)) == (-32602, "INVALID_ARGUMENT")
        assert 'States.Ship.Next: no state named "Shp"' in error["message"]
        paths = [fault["path"] for fault in error["data"]["faults"]]
        for path in (
            "States.Ship.Next",
            "States.Ship.TimeoutSeconds",
            "States.Ship.Retry[0].MaxAttempts",
            "States.Shipped.Comment",
            "States.Wait.Secnds",
        ):
            assert path in paths, (path, paths)


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ("{nonsense", "JSON"),
        ('{"StartAt": "A", "StartAt": "B", "States": {}}', "StartAt"),
        ([], "object"),
        ({}, "StartAt"),
        ({"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "htp", "End": True}}}, "htp"),
        (
            {
                "StartAt": "A",
                "QueryLanguage": "JSONata",
                "States": {"A": {"Type": "Pass", "InputPath": "$", "End": True}},
            },
            "JSONata",
        ),
    ],
)
async def test_each_kind_of_unusable_definition_says_why(real, definition, says):
    async with real.connected() as wire, Unwritten(real, wire):
        error = await wire.error("RegisterWorkflow", name="bad", definition=definition)
        assert status(error) == "INVALID_ARGUMENT"
        assert says in error["message"]


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cron": "every day"}, "cron: 'every day' has 2 fields"),
        ({"cron": "0 0 31 2 *"}, "cron: '0 0 31 2 *' never fires"),
        ({"time_zone": "Mars/Olympus"}, "time_zone: there is no time zone 'Mars/Olympus'"),
        ({"workflow": "nobody"}, 'workflow: no workflow "nobody" is registered'),
        ({"schedule_id": ""}, "schedule_id: must be 1 to 200 characters"),
        ({"schedule_id": "ä"}, "schedule_id: must be 1 to 200 characters"),
        ({"overlap": "maybe"}, "overlap: 'maybe' is not one of skip, buffer_one, allow, cancel_other"),
        ({"catch_up_seconds": -1}, "catch_up_seconds"),
        ({"every": 5}, "unknown parameter `every`"),
    ],
)
async def test_a_schedule_that_makes_no_sense_is_refused(real, wrong, says):
    async with real.connected() as wire:
        await wire.result("RegisterWorkflow", name="scheduled", definition=ECHO)
        async with Unwritten(real, wire):
            params = {"schedule_id": "s", "cron": "* * * * *", "workflow": "scheduled", **wrong}
            error = await wire.error("CreateSchedule", **params)
            assert status(error) in ("INVALID_ARGUMENT", "NOT_FOUND")
            assert says in error["message"]


# --- frames, methods, parameters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", -32700),
        ("not json", -32700),
        ('{"jsonrpc":"2.0","id":1,"method":"Hello","params":{"a":"\\ud83d"', -32700),
        ("[]", -32600),
        ("5", -32600),
        ('{"jsonrpc":"1.0","id":1,"method":"Hello"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"StartWorkflw"}', -32601),
        ('{"jsonrpc":"2.0","id":1,"method":"Hello","params":[1]}', -32602),
    ],
)
async def test_malformed_frames_and_unknown_methods(real, frame, code):
    async with real.connected() as wire, Unwritten(real, wire):
        error = (await wire.raw(frame))["error"]
        assert (error["code"], status(error)) == (code, "INVALID_ARGUMENT")
        assert len(error["message"]) > 10


@pytest.mark.parametrize(
    ("method", "params", "says"),
    [
        ("DescribeWorkflow", {}, "workflow_id"),
        ("DescribeWorkflow", {"workflow_id": 5}, "workflow_id"),
        ("DescribeWorkflow", {"workflow_id": ""}, "workflow_id"),
        ("DescribeWorkflow", {"workflow_id": "a b"}, "workflow_id"),
        ("DescribeWorkflow", {"workflow_id": "x" * 256}, "workflow_id"),
        ("DescribeWorkflow", {"workflow_id": "a\n"}, "workflow_id"),
        ("DescribeWorkflow", {"workflw_id": "a"}, "workflow_id"),
        ("StartWorkflow", {}, "definition"),
        ("StartWorkflow", {"workflow": "a", "definition": ECHO}, "definition"),
        ("StartWorkflow", {"definition": ECHO, "reuse": "perhaps"}, "reuse"),
        ("StartWorkflow", {"definition": ECHO, "timeout_seconds": -1}, "timeout_seconds"),
        ("StartWorkflow", {"definition": ECHO, "labels": {"a": 1}}, "labels"),
        ("StartWorkflow", {"definition": ECHO, "extra": 1}, "extra"),
        ("WaitWorkflow", {"workflow_id": "a", "wait_seconds": 1e9}, "wait_seconds"),
        ("GetHistory", {"workflow_id": "a", "limit": 0}, "limit"),
        ("ListWorkflows", {"status": "ASLEEP"}, "status"),
        ("ListWorkflows", {"started_after": "yesterday"}, "started_after"),
        ("PollTask", {"queue": "q"}, "worker_id"),
        ("CompleteTask", {"output": 1}, "token"),
        ("CompleteTask", {"token": "nonsense"}, "token"),
        ("CompleteTasks", {"tasks": []}, "tasks"),
        ("Authenticate", {}, "token"),
    ],
)
async def test_missing_wrong_and_unknown_parameters_are_named(real, method, params, says):
    async with real.connected() as wire, Unwritten(real, wire):
        error = await wire.error(method, **params)
        assert (error["code"], status(error)) == (-32602, "INVALID_ARGUMENT")
        assert says in error["message"]


# --- tokens ----------------------------------------------------------------------------------------------------------


def unsigned(real):
    """`alg: none`, with everything else as it must be."""
    claims = real.token().split(".")[1]
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    return f"{header}.{claims}."


TOKENS = {
    "expired": (lambda real: real.token(exp=int(time.time()) - 60), "expired"),
    "wrongly signed": (lambda real: real.token(key=b"x" * 32), "signature"),
    "another audience": (lambda real: real.token(aud="elsewhere"), "audience"),
    "alg none": (unsigned, "alg"),
    "another algorithm": (lambda real: real.token(algorithm="HS512", key=b"x" * 64), "hs512"),
    "no tenant": (lambda real: real.token(tenant=""), "tenant"),
    "no token": (lambda real: "nonsense", "token"),
}


@pytest.mark.parametrize("kind", TOKENS)
async def test_a_bad_token_is_refused_at_the_handshake(real, kind):
    make, says = TOKENS[kind]
    before = real.rows()
    with pytest.raises(ConnectionRejected) as rejected:
        async with real.connected(make(real)):
            pass
    assert rejected.value.status_code == 401
    body = json.loads(rejected.value.body)
    assert says in json.dumps(body).lower()
    assert "UNAUTHENTICATED" in json.dumps(body)
    assert real.rows() == before


@pytest.mark.parametrize("kind", TOKENS)
async def test_a_bad_token_does_not_renew_a_connection_and_leaves_it_as_it_was(real, kind):
    make, says = TOKENS[kind]
    async with real.connected() as wire, Unwritten(real, wire):
        error = await wire.error("Authenticate", token=make(real))
        assert (error["code"], status(error)) == (-32001, "UNAUTHENTICATED")
        assert says in error["message"].lower()


async def test_a_token_without_the_scope_may_not(real):
    async with real.connected(real.token(scope="read")) as wire, Unwritten(real, wire):
        error = await wire.error("StartWorkflow", definition=ECHO)
        assert status(error) == "PERMISSION_DENIED"
        assert "write" in error["message"]


# --- sizes -----------------------------------------------------------------------------------------------------------


async def test_a_payload_over_the_limit_names_its_size_and_the_limit(real):
    async with real.connected() as wire, Unwritten(real, wire):
        error = await wire.error("StartWorkflow", definition=ECHO, input="x" * 300_000)
        assert status(error) == "INVALID_ARGUMENT"
        assert "input" in error["message"]
        assert "262" in error["message"].replace(",", "")


async def test_a_payload_that_nests_too_deeply_is_refused(real):
    async with real.connected() as wire, Unwritten(real, wire):
        deep = "[" * 5000 + "]" * 5000
        frame = '{"jsonrpc":"2.0","id":1,"method":"StartWorkflow","params":{"definition":%s,"input":%s}}'
        error = (await wire.raw(frame % (json.dumps(ECHO), deep)))["error"]
        assert status(error) == "INVALID_ARGUMENT"


async def test_a_message_over_the_frame_limit_closes_with_1009_and_the_next_connection_works(real):
    before = real.rows()
    async with real.connected() as wire:
        with pytest.raises(ConnectionClosed) as closed:
            await wire.ask("StartWorkflow", definition=ECHO, input="x" * (5 * 1024 * 1024))
        assert closed.value.reason.code == 1009
    assert real.rows() == before
    async with real.connected() as wire:
        await wire.result("Hello")


# --- what is not there, or is somebody else's ------------------------------------------------------------------------

NAMING = [
    ("DescribeWorkflow", {}),
    ("WaitWorkflow", {"wait_seconds": 0}),
    ("GetHistory", {}),
    ("CancelWorkflow", {}),
    ("TerminateWorkflow", {}),
]


@pytest.mark.parametrize(("method", "more"), NAMING)
async def test_an_execution_that_does_not_exist(real, method, more):
    async with real.connected() as wire, Unwritten(real, wire):
        for run in ({}, {"run_id": "01a205d7-ab87-7000-8f42-3bf323e1b32a"}):
            error = await wire.error(method, workflow_id="nowhere", **run, **more)
            assert (error["code"], status(error)) == (-32003, "NOT_FOUND")
            assert "nowhere" in error["message"]


async def test_a_workflow_that_does_not_exist(real):
    async with real.connected() as wire, Unwritten(real, wire):
        for method, params in (
            ("StartWorkflow", {"workflow": "nowhere"}),
            ("GetDefinition", {"name": "nowhere"}),
            ("GetDefinition", {"name": "nowhere", "version": 3}),
        ):
            error = await wire.error(method, **params)
            assert status(error) == "NOT_FOUND"
            assert "nowhere" in error["message"]


async def test_what_belongs_to_another_tenant_is_not_there(real):
    other = real.token(tenant="other")
    async with real.connected(other) as theirs, real.connected() as wire:
        await theirs.result("RegisterWorkflow", name="private", definition=WAIT)
        run = await theirs.result("StartWorkflow", workflow="private", workflow_id="secret")
        asked = await theirs.result("StartWorkflow", definition=ASK, workflow_id="asked")
        polled = await theirs.result("PollTask", queue="ask", worker_id="w", wait_seconds=60)
        token = polled["tasks"][0]["token"]
        assert polled["tasks"][0]["run_id"] == asked["run_id"]
        async with Unwritten(real, wire):
            for method, more in NAMING:
                for named in ({}, {"run_id": run["run_id"]}):
                    error = await wire.error(method, workflow_id="secret", **named, **more)
                    assert status(error) == "NOT_FOUND", method
            for method, params in (("StartWorkflow", {"workflow": "private"}), ("GetDefinition", {"name": "private"})):
                assert status(await wire.error(method, **params)) == "NOT_FOUND"
            for method, params in (
                ("CompleteTask", {"output": 1}),
                ("FailTask", {"error": "E"}),
                ("ReturnTask", {}),
                ("HeartbeatTask", {}),
            ):
                error = await wire.error(method, token=token, **params)
                assert status(error) == "INVALID_ARGUMENT", method
                assert "token" in error["message"]
            many = await wire.result("CompleteTasks", tasks=[{"token": token, "output": 1}])
            assert many["results"][0]["status"] == "INVALID_ARGUMENT"
            listed = await wire.result("ListWorkflows")
            assert {"secret", "asked"}.isdisjoint(row["workflow_id"] for row in listed["executions"])
            assert "private" not in [row["name"] for row in (await wire.result("ListDefinitions"))["definitions"]]
            assert "ask" not in [row["queue"] for row in (await wire.result("ListQueues"))["queues"]]
            empty = await wire.result("PollTask", queue="ask", worker_id="w", wait_seconds=0)
            assert empty["tasks"] == []
        await theirs.result("CompleteTask", token=token, output={"yes": True})
        closed = await theirs.result("WaitWorkflow", workflow_id="asked", wait_seconds=60)
        assert (closed["status"], closed["output"]) == ("SUCCEEDED", {"yes": True})
        repeated = await theirs.error("CompleteTask", token=token, output=2)
        assert (status(repeated), repeated["data"]["reason"]) == ("FAILED_PRECONDITION", "ALREADY_RECORDED")


async def test_a_workflow_id_in_use_and_an_execution_that_has_closed(real):
    async with real.connected() as wire:
        await wire.result("StartWorkflow", definition=WAIT, workflow_id="taken", request_id="first")
        async with Unwritten(real, wire):
            error = await wire.error("StartWorkflow", definition=WAIT, workflow_id="taken", request_id="second")
            assert (error["code"], status(error)) == (-32004, "ALREADY_EXISTS")
        await wire.result("CancelWorkflow", workflow_id="taken", request_id="c", reason="enough")
        async with Unwritten(real, wire):
            assert status(await wire.error("TerminateWorkflow", workflow_id="taken")) == "FAILED_PRECONDITION"
            await wire.result("CancelWorkflow", workflow_id="taken", request_id="c")
            again = await wire.result("StartWorkflow", definition=WAIT, workflow_id="taken", request_id="first")
            seen = await wire.result("DescribeWorkflow", workflow_id="taken", run_id=again["run_id"])
            assert seen["status"] == "CANCELED"
