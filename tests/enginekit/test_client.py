"""The client against a real socket that drops, delays, refuses and repeats."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
import trio
import trustme
from scripted_engine import HangUp, Silence, Twice, answers, scripted_engine, unavailable

from enginekit.client import Client, open_client
from enginekit.connection import Tuning
from enginekit.errors import ProtocolError, Unreachable, WorkflowFailed
from enginekit.messages import calls, schedules
from enginekit.messages.events import NodeEntered, WorkflowSucceeded
from enginekit.messages.json import encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

STARTED = calls.StartWorkflowResult(workflow_id="w", run_id="r1")
QUEUES = calls.ListQueuesResult(queues=[])
ALREADY = Refused(ErrorStatus.FAILED_PRECONDITION, "known", {"reason": "ALREADY_RECORDED"})
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def described(status: ExecutionStatus, run_id: str = "r1", **more: Any) -> calls.DescribeWorkflowResult:
    return calls.DescribeWorkflowResult(
        workflow_id="w",
        run_id=run_id,
        workflow="n",
        version=1,
        status=status,
        input=encode({}),
        started_at=NOW,
        history_length=3,
        **more,
    )


async def test_a_call_sends_its_params_and_decodes_its_result() -> None:
    async with scripted_engine(StartWorkflow=answers(STARTED)) as engine, open_client(engine.url, "tok") as client:
        started = await client.start("order", input={"total": 3}, labels={"kind": "test"}, workflow_id="w")
        assert started == STARTED
        (params,) = engine.params("StartWorkflow")
        assert params.pop("request_id")
        assert params == {"workflow": "order", "input": {"total": 3}, "labels": {"kind": "test"}, "workflow_id": "w"}
        assert engine.tokens == ["tok"]
        assert client.hello.engine == "test"


async def test_an_inline_definition_goes_as_a_definition() -> None:
    definition = {"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}
    async with scripted_engine(StartWorkflow=answers(STARTED)) as engine, open_client(engine.url, "tok") as client:
        await client.start(definition)
        (params,) = engine.params("StartWorkflow")
        assert params["definition"] == definition
        assert "workflow" not in params


async def test_a_lost_connection_is_made_again_and_the_start_repeated_under_the_same_request_id() -> None:
    async with (
        scripted_engine(StartWorkflow=answers(HangUp(), HangUp(), STARTED)) as engine,
        open_client(engine.url, "tok") as client,
    ):
        assert await client.start("order") == STARTED
        first, second, third = engine.params("StartWorkflow")
        assert first == second == third
        assert len(engine.tokens) == 3


async def test_every_call_under_way_survives_a_lost_connection() -> None:
    gate = trio.Event()

    async def queues(params: dict[str, Any]) -> object:
        if not gate.is_set():
            raise Silence
        return QUEUES

    async with scripted_engine(ListQueues=queues) as engine, open_client(engine.url, "tok") as client:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(client.call, calls.ListQueues())
            await engine.until("ListQueues", 40)
            gate.set()
            await engine.hang_up()
        assert engine.count("ListQueues") == 80


async def test_unavailable_and_exhausted_are_ridden_out() -> None:
    exhausted = Refused(ErrorStatus.RESOURCE_EXHAUSTED, "slow down", {"retry_after_seconds": 0.01})
    handler = answers(unavailable(), exhausted, unavailable(), QUEUES)
    async with scripted_engine(ListQueues=handler) as engine, open_client(engine.url, "tok") as client:
        assert await client.call(calls.ListQueues()) == QUEUES
        assert engine.count("ListQueues") == 4


async def test_a_retry_after_beyond_the_deadline_ends_the_call_at_once() -> None:
    handler = answers(unavailable(retry_after_seconds=3600))
    async with scripted_engine(ListQueues=handler) as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(Unreachable, match="not now"):
            await client.call(calls.ListQueues())
        assert engine.count("ListQueues") == 1


async def test_the_deadline_of_a_call_bounds_its_repeats_and_names_the_last_problem() -> None:
    async with (
        scripted_engine(ListQueues=answers(unavailable())) as engine,
        open_client(engine.url, "tok") as client,
    ):
        with pytest.raises(Unreachable, match=r"ListQueues was not answered within 2 s: UNAVAILABLE: not now") as end:
            await client.call(calls.ListQueues(), timeout_seconds=2)
        assert isinstance(end.value.__cause__, Refused)
        assert engine.count("ListQueues") > 1


async def test_a_silent_daemon_is_unreachable() -> None:
    async with scripted_engine(ListQueues=answers(Silence())) as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(Unreachable, match="silent"):
            await client.call(calls.ListQueues(), timeout_seconds=0.1)


@pytest.mark.parametrize(
    "status",
    [each for each in ErrorStatus if each not in (ErrorStatus.UNAVAILABLE, ErrorStatus.RESOURCE_EXHAUSTED)],
)
async def test_other_refusals_are_raised_with_their_data(status: ErrorStatus) -> None:
    refusal = Refused(status, "because", {"reason": "x", "faults": [{"path": "A"}]})
    async with scripted_engine(ListQueues=answers(refusal)) as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(Refused) as refused:
            await client.call(calls.ListQueues())
        assert (refused.value.status, refused.value.message) == (status, "because")
        assert refused.value.data == {"reason": "x", "faults": [{"path": "A"}]}
        assert engine.count("ListQueues") == 1


@pytest.mark.parametrize(
    ("params", "done"),
    [
        (calls.CompleteTask(token="t"), calls.Acknowledged()),
        (calls.FailTask(token="t", error="E"), calls.Acknowledged()),
        (calls.ReturnTask(token="t"), calls.Acknowledged()),
    ],
)
@pytest.mark.parametrize("trouble", [HangUp(), unavailable()])
async def test_a_report_known_after_a_repeat_of_ours_is_done(params: Any, done: object, trouble: Exception) -> None:
    method = type(params).__name__
    async with (
        scripted_engine(**{method: answers(trouble, ALREADY)}) as engine,
        open_client(engine.url, "tok") as client,
    ):
        assert await client.call(params) == done


async def test_deleting_what_a_repeat_of_ours_has_deleted_is_done() -> None:
    gone = Refused(ErrorStatus.NOT_FOUND, "no schedule")
    params = schedules.DeleteSchedule(schedule_id="s")
    async with (
        scripted_engine(DeleteSchedule=answers(HangUp(), gone)) as engine,
        open_client(engine.url, "tok") as client,
    ):
        assert await client.call(params) == calls.Acknowledged()
        with pytest.raises(Refused):
            await client.call(params)


async def test_a_report_that_was_known_before_is_refused() -> None:
    async with scripted_engine(CompleteTask=answers(ALREADY)) as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(Refused) as refused:
            await client.call(calls.CompleteTask(token="t"))
        assert refused.value.data == {"reason": "ALREADY_RECORDED"}


async def test_many_reports_known_after_a_repeat_are_done_and_others_are_not() -> None:
    known = calls.CompletionResult(status="FAILED_PRECONDITION", reason="ALREADY_RECORDED")
    closed = calls.CompletionResult(status="FAILED_PRECONDITION", reason="CLOSED")
    answer = calls.CompleteTasksResult(results=[known, closed])
    params = calls.CompleteTasks(tasks=[calls.TaskCompletion(token="a"), calls.TaskCompletion(token="b")])
    async with (
        scripted_engine(CompleteTasks=answers(HangUp(), answer, answer)) as engine,
        open_client(engine.url, "tok") as client,
    ):
        assert (await client.call(params)).results == [calls.CompletionResult(), closed]
        assert (await client.call(params)).results == [known, closed]


async def test_answers_come_in_any_order_and_twice() -> None:
    first = trio.Event()

    async def describe(params: dict[str, Any]) -> object:
        if params["workflow_id"] == "slow":
            await first.wait()
        else:
            first.set()
        return Twice(described(ExecutionStatus.RUNNING, run_id=params["workflow_id"]))

    async with scripted_engine(WaitWorkflow=describe) as engine, open_client(engine.url, "tok") as client:
        runs: dict[str, str] = {}

        async def ask(workflow_id: str) -> None:
            runs[workflow_id] = (await client.call(calls.WaitWorkflow(workflow_id=workflow_id))).run_id

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "slow")
            await engine.until("WaitWorkflow")
            nursery.start_soon(ask, "fast")
        assert runs == {"slow": "slow", "fast": "fast"}


async def test_cancelling_a_call_drops_its_answer_and_nothing_else() -> None:
    gate = trio.Event()

    async def queues(params: dict[str, Any]) -> object:
        await gate.wait()
        return QUEUES

    async with scripted_engine(ListQueues=queues) as engine, open_client(engine.url, "tok") as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call, calls.ListQueues())
                await engine.until("ListQueues")
                scope.cancel()
        gate.set()
        assert await client.call(calls.ListQueues()) == QUEUES


async def test_tasks_that_come_for_a_cancelled_poll_are_given_back() -> None:
    gate, returned = trio.Event(), trio.Event()
    task = calls.WorkerTask(
        token="tok-1",
        workflow_id="w",
        run_id="r",
        node="n",
        path="n",
        input=encode({}),
        attempt=1,
        timeout_seconds=9,
        idempotency_key="k",
        lease_seconds=30,
    )

    async def poll(params: dict[str, Any]) -> object:
        await gate.wait()
        return calls.PollTaskResult(tasks=[task])

    async def give_back(params: dict[str, Any]) -> object:
        returned.set()
        return calls.Acknowledged()

    async with scripted_engine(PollTask=poll, ReturnTask=give_back) as engine:
        async with open_client(engine.url, "tok") as client:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.call, calls.PollTask(queue="q", worker_id="me"))
                    await engine.until("PollTask")
                    scope.cancel()
            gate.set()
            await returned.wait()
        assert engine.params("ReturnTask")[0]["token"] == "tok-1"


async def test_waiting_calls_never_keep_short_ones_from_going_out() -> None:
    async with (
        scripted_engine(WaitWorkflow=answers(Silence()), ListQueues=answers(QUEUES)) as engine,
        open_client(engine.url, "tok", tuning=Tuning(long_polls=2, short_calls=1)) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(5):
            nursery.start_soon(client.wait, "w")
        await engine.until("WaitWorkflow", 2)
        assert await client.call(calls.ListQueues()) == QUEUES
        assert engine.count("WaitWorkflow") == 2
        nursery.cancel_scope.cancel()


async def test_calls_with_small_answers_go_out_together_and_others_alone() -> None:
    seen = answers(described(ExecutionStatus.SUCCEEDED))
    async with (
        scripted_engine(StartWorkflow=answers(STARTED), WaitWorkflow=seen, DescribeWorkflow=seen) as engine,
        open_client(engine.url, "tok", tuning=Tuning(batch_calls=8)) as client,
    ):
        async with trio.open_nursery() as nursery:
            for index in range(30):
                nursery.start_soon(client.start, "order")
                if index % 10 == 0:
                    nursery.start_soon(client.wait, "w")
                    nursery.start_soon(client.call, calls.DescribeWorkflow(workflow_id="w"))
        assert engine.count("StartWorkflow") == 30
        assert 1 < max(map(len, engine.messages)) <= 8
        assert all(len(message) == 1 or set(message) == {"StartWorkflow"} for message in engine.messages)


async def test_result_waits_until_the_run_it_saw_first_has_closed() -> None:
    seen = answers(
        described(ExecutionStatus.RUNNING, "r7"), described(ExecutionStatus.SUCCEEDED, "r7", output=encode([1, 2]))
    )
    async with scripted_engine(WaitWorkflow=seen) as engine, open_client(engine.url, "tok") as client:
        assert await client.result("w") == [1, 2]
        assert [params.get("run_id") for params in engine.params("WaitWorkflow")] == [None, "r7"]


async def test_result_of_a_failed_execution_raises_its_error() -> None:
    failed = described(ExecutionStatus.FAILED, error="Card.Declined", cause="no funds")
    async with scripted_engine(WaitWorkflow=answers(failed)) as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(WorkflowFailed, match=r"ended FAILED: Card\.Declined: no funds") as end:
            await client.result("w")
        assert (end.value.error, end.value.cause, end.value.run_id) == ("Card.Declined", "no funds", "r1")


async def history_engine(client_events: list[calls.GetHistoryResult], follow: bool) -> tuple[list[int], list[Any]]:
    async with (
        scripted_engine(GetHistory=answers(*client_events)) as engine,
        open_client(engine.url, "tok") as client,
    ):
        found = [event async for event in client.history("w", follow=follow)]
        assert all(isinstance(event, NodeEntered | WorkflowSucceeded) for event in found)
        return [event.id for event in found], engine.params("GetHistory")


def page(ids: list[int], closed: bool = False) -> calls.GetHistoryResult:
    events = [encode({"type": "NodeEntered", "id": n, "time": "2026-01-01T00:00:00Z", "node": "A", "path": "A",
                      "entry": n, "kind": "Pass"}) for n in ids]  # fmt: skip
    return calls.GetHistoryResult(run_id="r1", events=events, next_after_id=ids[-1] if ids else 3, closed=closed)


async def test_history_ends_with_what_there_is() -> None:
    ids, asked = await history_engine([page([1, 2]), page([3]), page([])], follow=False)
    assert ids == [1, 2, 3]
    assert [(params.get("run_id"), params.get("after_id", 0)) for params in asked] == [
        (None, 0),
        ("r1", 2),
        ("r1", 3),
    ]
    assert not any(params["wait_seconds"] for params in asked)


async def test_history_followed_goes_on_until_the_run_has_closed() -> None:
    ids, asked = await history_engine([page([1, 2, 3]), page([]), page([]), page([4, 5], closed=True)], follow=True)
    assert ids == [1, 2, 3, 4, 5]
    assert all(params["wait_seconds"] > 0 for params in asked)


async def test_an_event_that_is_not_understood_is_said_to_be_so() -> None:
    strange = calls.GetHistoryResult(run_id="r", events=[encode({"type": "Odd"})], next_after_id=1, closed=True)
    async with scripted_engine(GetHistory=answers(strange)) as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(ProtocolError, match="not understood"):
            await client.history("w").__anext__()


async def test_executions_come_page_by_page() -> None:
    def summary(name: str) -> calls.ExecutionSummary:
        return calls.ExecutionSummary(
            workflow_id=name,
            run_id="r",
            workflow=None,
            version=None,
            status=ExecutionStatus.RUNNING,
            error=None,
            labels={},
            started_at=NOW,
            closed_at=None,
        )

    first = calls.ListWorkflowsResult(executions=[summary("a"), summary("b")], next_page_token="more")
    last = calls.ListWorkflowsResult(executions=[summary("c")])
    async with scripted_engine(ListWorkflows=answers(first, last)) as engine, open_client(engine.url, "t") as client:
        assert [each.workflow_id async for each in client.executions()] == ["a", "b", "c"]
        assert [params.get("page_token") for params in engine.params("ListWorkflows")] == [None, "more"]


REFUSED_TOKEN = b'{"error": {"status": "UNAUTHENTICATED", "message": "the token has expired", "more": 1}}'


@pytest.mark.parametrize("body", [REFUSED_TOKEN, b"the token has expired"])
async def test_a_token_that_is_refused_is_refused_at_once_and_not_retried(body: bytes) -> None:
    async with scripted_engine() as engine:
        engine.reject = (401, body)
        with pytest.raises(Refused) as refused:
            async with open_client(engine.url, "old"):
                pytest.fail("entered")
        assert str(refused.value) == "UNAUTHENTICATED: the token has expired"


async def test_what_else_turns_a_handshake_away_is_named() -> None:
    async with scripted_engine() as engine:
        engine.reject = (404, b'{"error": {"status": "NOT_FOUND", "message": "nothing is at /rpc"}}')
        with pytest.raises(ProtocolError, match="turned the connection away: nothing is at /rpc"):
            async with open_client(engine.url, "tok"):
                pytest.fail("entered")


FULL = b'{"error": {"status": "RESOURCE_EXHAUSTED", "message": "full", "retry_after_seconds": 0.4}}'


@pytest.mark.parametrize("body", [FULL, b"", b"Bad Gateway"])
async def test_a_handshake_that_is_put_off_is_tried_again(body: bytes) -> None:
    async with scripted_engine(ListQueues=answers(QUEUES)) as engine:
        engine.reject = (503, body)
        tried: list[float] = []

        def token() -> str:
            tried.append(trio.current_time())
            if len(engine.tokens) >= 2:
                engine.reject = None
            return f"token-{len(engine.tokens)}"

        async with open_client(engine.url, token) as client:
            assert await client.call(calls.ListQueues()) == QUEUES
        assert engine.tokens == ["token-0", "token-1", "token-2"]
        if body == FULL:
            assert min(later - sooner for sooner, later in pairwise(tried)) >= 0.4, "not before it was told to"


async def test_an_expired_token_is_renewed_in_place_once_for_all_calls() -> None:
    current = "first"
    renewed: list[str] = []

    async def authenticate(params: dict[str, Any]) -> object:
        renewed.append(params["token"])
        return calls.HelloResult(engine="e", protocol="p", tenant="t", subject="s", scopes=[], limits=engine.limits)

    async def queues(params: dict[str, Any]) -> object:
        if not renewed:
            raise Refused(ErrorStatus.UNAUTHENTICATED, "expired")
        return QUEUES

    async with (
        scripted_engine(ListQueues=queues, Authenticate=authenticate) as engine,
        open_client(engine.url, lambda: current) as client,
    ):
        current = "second"
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.call, calls.ListQueues())
        assert renewed == ["second"]
        assert engine.tokens == ["first"]


async def test_something_that_is_no_engine_is_said_to_be_none() -> None:
    async with scripted_engine() as engine:
        engine.subprotocol = None
        with pytest.raises(ProtocolError, match="is it an engine"):
            async with open_client(engine.url, "tok"):
                pytest.fail("entered")


async def test_nobody_there_is_unreachable_and_says_why() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(Unreachable, match=r"no connection within 2 s: ws://127.*refused"):
        async with open_client(f"ws://127.0.0.1:{port}/rpc", "tok", connect_seconds=2):
            pytest.fail("entered")


async def test_a_daemon_that_comes_back_elsewhere_is_found_again() -> None:
    async with scripted_engine(ListQueues=answers(HangUp())) as first, scripted_engine(
        ListQueues=answers(QUEUES)
    ) as second:  # fmt: skip
        urls = iter([first.url])
        async with open_client(lambda: next(urls, second.url), "tok") as client:
            assert await client.call(calls.ListQueues()) == QUEUES
        assert (first.count("ListQueues"), second.count("ListQueues")) == (1, 1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/rpc", "127.0.0.1:7460", "ws:///rpc"])
async def test_a_url_that_is_none_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="no WebSocket URL"):
        async with open_client(url, "tok"):
            pytest.fail("entered")


async def test_a_call_that_is_too_long_for_the_daemon_is_refused_here() -> None:
    async with scripted_engine(StartWorkflow=answers(STARTED)) as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(Refused, match=r"1,\d{3},\d{3} bytes long, the daemon takes messages up to 1,000,000"):
            await client.start("order", input="x" * 1_000_001)
        assert await client.start("order") == STARTED
        assert engine.count("StartWorkflow") == 1


async def test_an_answer_that_is_too_long_ends_in_words_and_the_client_goes_on() -> None:
    long = described(ExecutionStatus.SUCCEEDED, output=encode("x" * 100_000))
    async with (
        scripted_engine(DescribeWorkflow=answers(long), ListQueues=answers(QUEUES)) as engine,
        open_client(engine.url, "tok", tuning=Tuning(message_bytes=50_000)) as client,
    ):
        with pytest.raises(Unreachable, match="message size"):
            await client.call(calls.DescribeWorkflow(workflow_id="w"), timeout_seconds=2)
        assert await client.call(calls.ListQueues()) == QUEUES


async def test_what_is_no_json_rpc_costs_the_connection_and_not_the_call() -> None:
    async def garbage(params: dict[str, Any]) -> object:
        if engine.count("ListQueues") == 1:
            for websocket in engine.open:
                await websocket.send_message("[1, 2")
            raise Silence
        return QUEUES

    async with scripted_engine(ListQueues=garbage) as engine, open_client(engine.url, "tok") as client:
        assert await client.call(calls.ListQueues()) == QUEUES
        assert len(engine.tokens) == 2


async def test_a_result_that_is_not_understood_is_a_protocol_error() -> None:
    async with (
        scripted_engine(ListQueues=answers({"queues": "none"})) as engine,
        open_client(engine.url, "tok") as client,
    ):
        with pytest.raises(ProtocolError, match="ListQueues"):
            await client.call(calls.ListQueues())


async def test_tls_is_verified() -> None:
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    authority.configure_trust(theirs)
    async with scripted_engine(ours, ListQueues=answers(QUEUES)) as engine:
        async with open_client(engine.url, "tok", tls=theirs) as client:
            assert await client.call(calls.ListQueues()) == QUEUES
        with pytest.raises(Unreachable, match="certificate verify failed"):
            async with open_client(engine.url, "tok", connect_seconds=4):
                pytest.fail("entered")


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    async with scripted_engine() as engine:
        with pytest.raises(KeyError):
            async with open_client(engine.url, "tok"):
                raise KeyError("mine")


async def test_a_cancelled_block_ends_quietly() -> None:
    async with scripted_engine() as engine:
        with trio.CancelScope() as scope:
            async with open_client(engine.url, "tok"):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught


async def test_a_client_can_still_tidy_up_while_it_is_cancelled() -> None:
    async with scripted_engine(ListQueues=answers(QUEUES)) as engine:
        with trio.CancelScope() as scope:
            async with open_client(engine.url, "tok") as client:
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(60, shield=True):
                        await client.call(calls.ListQueues())
        assert engine.count("ListQueues") == 1


async def test_a_closed_client_says_that_it_is_closed() -> None:
    kept: list[Client] = []
    async with scripted_engine() as engine:
        async with open_client(engine.url, "tok") as client:
            kept.append(client)
        with pytest.raises(trio.ClosedResourceError):
            await kept[0].call(calls.ListQueues())
