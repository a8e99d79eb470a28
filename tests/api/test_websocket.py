"""Real sockets: the handshake, calls beside one another, limits, and how connections end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import jwt
import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed

from daemon.api import websocket
from daemon.links.interface import Request
from daemon.settings import HistorySettings, Settings
from enginekit.messages import calls
from enginekit.messages.calls import PollTaskResult, Result, WorkerTask
from enginekit.messages.links import MatchTasks, MatchTasksResult, StartTasks, TaskRef
from enginekit.messages.status import Refused


class AdjustableClock:
    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def now(self) -> int:
        return int(self.seconds * 1000)


def worker_task(token: str, size: int = 1) -> WorkerTask:
    return WorkerTask(
        token=token,
        workflow_id="w",
        run_id="r",
        node="Pack",
        path="Pack",
        input=msgspec.Raw(msgspec.json.encode("x" * size)),
        attempt=1,
        timeout_seconds=60,
        idempotency_key="k",
        lease_seconds=30,
    )


async def never(_: Request) -> Result | Refused:
    await trio.sleep_forever()


def hand_out(peers: Any, make_task_ref: Callable[[int], TaskRef], *tasks: WorkerTask) -> None:
    peers.on(MatchTasks, MatchTasksResult(tasks=[make_task_ref(number) for number in range(len(tasks))]))
    peers.on(StartTasks, PollTaskResult(tasks=list(tasks)))


async def closed_with(client: Any) -> int | None:
    """Read to the end; the code it closes with."""
    with trio.fail_after(60):
        while True:
            try:
                await client.connection.get_message()
            except ConnectionClosed as closed:
                return closed.reason.code if closed.reason is not None else None


async def shake_hands(
    stream: trio.SocketStream, authorization: str | None, path: str = "/rpc", subprotocol: str | None = None
) -> None:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    if authorization is not None:
        lines.append(f"Authorization: {authorization}")
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    await stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode())


async def rejected(served: Any, authorization: str | None, **options: str) -> tuple[int, dict[str, Any]]:
    """The status and the error of a handshake that is refused; the connection is closed after it."""
    host, port = served.frontend.bound.split(":")
    answer = b""
    with trio.fail_after(60):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await shake_hands(stream, authorization, **options)
            async for chunk in stream:
                answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]


async def test_a_call_is_answered(serve: Any) -> None:
    async with serve() as served, served.client() as client:
        assert client.connection.subprotocol == "engine.v1"
        hello = await client.call("Hello")
        assert (hello["tenant"], hello["subject"], hello["protocol"]) == ("acme", "ada", "engine.v1")
        assert hello["scopes"] == ["admin", "read", "work", "write"]
        assert await client.call("CompleteTask", token="t", output={"n": [1, None]}) == {}
        (asked,) = served.peers.of(calls.CompleteTask)
        assert bytes(asked.output) == b'{"n":[1,null]}'
        assert served.peers.subjects == [("acme", "ada")]


async def test_a_client_may_offer_no_subprotocol_but_not_only_others(serve: Any) -> None:
    async with serve() as served:
        async with served.client(subprotocols=None) as client:
            assert client.connection.subprotocol is None
            assert "engine" in await client.call("Hello")
        async with served.client(subprotocols=["mqtt", "engine.v1"]) as client:
            assert client.connection.subprotocol == "engine.v1"
        status, error = await rejected(served, f"Bearer {served.token()}", subprotocol="mqtt")
        assert (status, error["status"]) == (400, "INVALID_ARGUMENT")


async def test_nobody_gets_in_without_a_good_token(serve: Any) -> None:
    async with serve() as served:
        good = served.token()
        unsigned = jwt.encode(jwt.decode(good, options={"verify_signature": False}), None, algorithm="none")
        for authorization, part in (
            (None, "no token"),
            ("Basic YTpi", "must be `Bearer TOKEN`"),
            ("Bearer x", "malformed"),
            (f"Bearer {good[:-4]}AAAA", "signature is wrong"),
            (f"Bearer {unsigned}", "not signed"),
        ):
            status, error = await rejected(served, authorization)
            assert (status, error["status"]) == (401, "UNAUTHENTICATED")
            assert part in error["message"]
        assert (await rejected(served, f"Bearer {good}", path="/rpcx"))[0] == 404
        async with served.client() as client:
            assert "engine" in await client.call("Hello")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /rpc HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /rpc HTTP/1.1\r\nHost: \xff\xfe" + b"." * 300 + b"\r\nConnection: upgrade\r\n\r\n",
        b"GET /rpc HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nSec-WebSocket-Version: 7\r\n\r\n",
        b"",
    ],
)
async def test_garbage_in_the_handshake_ends_that_connection_only(serve: Any, garbage: bytes) -> None:
    async with serve() as served:
        host, port = served.frontend.bound.split(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(garbage)
            await stream.send_eof()
            with trio.fail_after(60):
                while await stream.receive_some():
                    pass
        async with served.client() as client:
            assert "engine" in await client.call("Hello")


async def test_bad_calls_are_refused_and_the_connection_goes_on(serve: Any) -> None:
    async with serve(batch_calls=3) as served, served.client() as client:
        assert (await client.ask("{nonsense"))["error"]["code"] == -32700
        assert (await client.ask("[]"))["error"]["code"] == -32600
        assert (await client.ask(b'{"jsonrpc":"2.0","id":1,"method":"\xff"}'))["error"]["code"] == -32700
        assert (await client.ask(json.dumps([{}] * 4)))["error"]["code"] == -32600
        error = await client.call("StartWorkflw", workflow="a")
        assert (error["code"], error["data"]["status"]) == (-32601, "INVALID_ARGUMENT")
        error = await client.call("StartWorkflow", workflw="a")
        assert error["message"] == "unknown parameter `workflw`; did you mean `workflow`?"
        assert (error["code"], error["data"]) == (-32602, {"status": "INVALID_ARGUMENT", "field": "workflw"})
        assert served.peers.asked == []
        assert "engine" in await client.call("Hello")


async def test_a_payload_over_the_limit_writes_nothing(serve: Any) -> None:
    settings = Settings(history=HistorySettings(payload_bytes=1024))
    async with serve(settings) as served, served.client() as client:
        error = await client.call("StartWorkflow", workflow="w", input="x" * 1023)
        assert error["message"] == "input: 1,025 bytes; at most 1,024 are taken"
        assert served.peers.asked == []
        assert "error" not in await client.call("StartWorkflow", workflow="w", input="x" * 1000)


@pytest.mark.parametrize("frame", ["x" * 10_000, "é" * 2500, "x" * 3_000_000])
async def test_a_frame_over_the_limit_closes_with_1009(serve: Any, frame: str) -> None:
    async with serve(frame_bytes=4096) as served:
        async with served.client() as client:
            await client.send(frame)
            assert await closed_with(client) == 1009
        async with served.client() as client:
            assert "engine" in await client.call("Hello")


async def test_notifications_run_and_are_not_answered(serve: Any) -> None:
    async with serve() as served, served.client() as client:
        await client.send('{"jsonrpc":"2.0","method":"CompleteTask","params":{"token":"a"}}')
        await client.send('{"jsonrpc":"2.0","method":"Nothing"}')
        await client.send('[{"jsonrpc":"2.0","method":"CompleteTask","params":{"token":"b"}}]')
        await served.peers.until(lambda: len(served.peers.asked) == 2)
        assert "engine" in await client.call("Hello")
        assert sorted(asked.token for asked in served.peers.of(calls.CompleteTask)) == ["a", "b"]


async def test_a_batch_is_answered_in_its_order_without_its_notifications(serve: Any) -> None:
    async def describe(request: Request) -> Result | Refused:
        return calls.ListQueuesResult(queues=[])

    async with serve() as served, served.client() as client:
        served.peers.on(calls.ListQueues, describe)
        batch = [
            {"jsonrpc": "2.0", "id": "a", "method": "ListQueues"},
            {"jsonrpc": "2.0", "method": "CompleteTask", "params": {"token": "t"}},
            {"jsonrpc": "2.0", "id": None, "method": "CompleteTask", "params": {"token": "t"}},
            7,
            {"jsonrpc": "2.0", "id": "b", "method": "Unknown"},
        ]
        answers = await client.ask(json.dumps(batch))
        assert [answer["id"] for answer in answers] == ["a", None, None, "b"]
        assert [answer.get("error", {}).get("code") for answer in answers] == [None, None, -32600, -32601]


async def test_a_long_poll_blocks_nothing(serve: Any) -> None:
    async with serve() as served, served.client() as client:
        release = trio.Event()

        async def match(_: Request) -> Result:
            await release.wait()
            return MatchTasksResult(tasks=[])

        served.peers.on(MatchTasks, match)
        for number in range(20):
            await client.send(
                json.dumps(
                    {
                        "jsonrpc": "2.0",
                        "id": 100 + number,
                        "method": "PollTask",
                        "params": {"queue": "q", "worker_id": "w"},
                    }
                )
            )
        for _ in range(10):
            assert "engine" in await client.call("Hello")
        release.set()
        polled = [await client.receive() for _ in range(20)]
        assert sorted(answer["id"] for answer in polled) == list(range(100, 120))


async def test_too_many_calls_under_way_are_refused_with_when_to_come_again(serve: Any) -> None:
    async with serve(in_flight_calls=8) as served, served.client() as client:
        served.peers.on(MatchTasks, never)
        poll = '{"jsonrpc":"2.0","id":%d,"method":"PollTask","params":{"queue":"q","worker_id":"w"}}'
        for number in range(8):
            await client.send(poll % number)
        await served.peers.until(lambda: len(served.peers.asked) == 8)
        for number in range(20):
            answer = await client.ask(poll % (100 + number))
            assert answer["id"] == 100 + number
            assert answer["error"]["data"] == {"status": "RESOURCE_EXHAUSTED", "retry_after_seconds": 0.1}
        answers = await client.ask(f"[{poll % 200},{poll % 201}]")
        assert [answer["error"]["data"]["status"] for answer in answers] == ["RESOURCE_EXHAUSTED"] * 2
        assert len(served.peers.asked) == 8


async def test_an_expired_token_is_renewed_in_place(serve: Any) -> None:
    clock = AdjustableClock()
    async with serve(clock=clock) as served:

        def token(tenant: str, seconds: float, scopes: str = "read") -> str:
            key = (served.data_dir / "key").read_bytes()
            claims = {
                "iss": "engine",
                "aud": "engine",
                "sub": "eve",
                "tenant": tenant,
                "scope": scopes,
                "exp": clock.seconds + seconds,
            }
            return jwt.encode(claims, key, algorithm="HS256")

        async with served.client(token("acme", 60)) as client:
            served.peers.on(calls.ListQueues, calls.ListQueuesResult(queues=[]))
            assert await client.call("ListQueues") == {"queues": []}
            clock.seconds += 66
            for _ in range(2):
                error = await client.call("ListQueues")
                assert (error["code"], error["data"]["status"]) == (-32001, "UNAUTHENTICATED")
            error = await client.call("Authenticate", token=token("acme", -60))
            assert "expired" in error["message"]
            error = await client.call("Authenticate", token=token("rival", 60))
            assert error["data"]["status"] == "PERMISSION_DENIED"
            assert (await client.call("Authenticate", tokn="x"))["data"]["status"] == "INVALID_ARGUMENT"
            assert (await client.call("ListQueues"))["data"]["status"] == "UNAUTHENTICATED"
            renewed = await client.call("Authenticate", token=token("acme", 60, "read work"))
            assert (renewed["tenant"], renewed["scopes"]) == ("acme", ["read", "work"])
            assert await client.call("ListQueues") == {"queues": []}


async def test_the_connections_are_bounded(serve: Any) -> None:
    async with serve(connections=2) as served:
        async with served.client() as first, served.client() as second:
            status, error = await rejected(served, f"Bearer {served.token()}")
            assert (status, error["status"], error["retry_after_seconds"]) == (503, "RESOURCE_EXHAUSTED", 5.0)
            for client in (first, second):
                assert "engine" in await client.call("Hello")
        async with served.client() as third:
            assert "engine" in await third.call("Hello")


async def test_a_handler_that_fails_costs_one_answer(serve: Any) -> None:
    async with serve() as served, served.client() as client:
        served.peers.on(calls.ListQueues, calls.Acknowledged())
        error = await client.call("ListQueues")
        assert (error["code"], error["data"]["status"]) == (-32603, "INTERNAL")
        assert "engine" in await client.call("Hello")


@asynccontextmanager
async def raw_client(served: Any) -> AsyncIterator[trio.SocketStream]:
    """A client that has shaken hands and then reads nothing at all."""
    host, port = served.frontend.bound.split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await shake_hands(stream, f"Bearer {served.token()}")
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        assert head.startswith(b"HTTP/1.1 101 ")
        yield stream


def masked(text: str) -> bytes:
    """A small text frame with the mask 0."""
    body = text.encode()
    assert len(body) < 126
    return bytes([0x81, 0x80 | len(body)]) + b"\0\0\0\0" + body


ENDED = "engine_rpc_connections_ended_total"
POLL = '{"jsonrpc":"2.0","id":1,"method":"PollTask","params":{"queue":"q","worker_id":"w"}}'


async def test_a_slow_reader_is_cut_off_and_its_tasks_go_back(
    serve: Any, make_task_ref: Callable[[int], TaskRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "SEND_SECONDS", 0.5)
    async with serve(outbox_bytes=3_000_000) as served:
        numbers = iter(range(1000))

        async def start(_: Request) -> Result:
            return PollTaskResult(tasks=[worker_task(f"t{next(numbers)}", 1_000_000)])

        served.peers.on(MatchTasks, MatchTasksResult(tasks=[make_task_ref(1)]))
        served.peers.on(StartTasks, start)
        async with raw_client(served) as stream:
            await stream.send_all(masked(POLL) * 20)
            await served.peers.until(
                lambda: bool(served.count(ENDED, reason="slow") and served.peers.of(calls.ReturnTask))
            )
        returned = [asked.token for asked in served.peers.of(calls.ReturnTask)]
        assert len(returned) == len(set(returned))
        assert set(returned) <= {f"t{number}" for number in range(20)}
        async with served.client() as client:
            assert "engine" in await client.call("Hello")


async def test_a_client_that_reads_gets_more_than_the_outbox_holds(
    serve: Any, make_task_ref: Callable[[int], TaskRef]
) -> None:
    async with serve(outbox_bytes=3_000_000) as served:
        numbers = iter(range(1000))

        async def start(_: Request) -> Result:
            return PollTaskResult(tasks=[worker_task(f"t{next(numbers)}", 1_000_000)])

        served.peers.on(MatchTasks, MatchTasksResult(tasks=[make_task_ref(1)]))
        served.peers.on(StartTasks, start)
        async with served.client() as client:
            for number in range(20):
                await client.send(POLL.replace('"id":1', f'"id":{number}'))
            answers = [await client.receive() for _ in range(20)]
        assert {answer["result"]["tasks"][0]["token"] for answer in answers} == {f"t{number}" for number in range(20)}
        assert served.peers.of(calls.ReturnTask) == []


async def test_a_poll_whose_client_is_gone_gives_its_tasks_back(
    serve: Any, make_task_ref: Callable[[int], TaskRef]
) -> None:
    async with serve() as served:
        go_on = trio.Event()

        async def start(_: Request) -> Result:
            await go_on.wait()
            return PollTaskResult(tasks=[worker_task("t1"), worker_task("t2")])

        served.peers.on(MatchTasks, MatchTasksResult(tasks=[make_task_ref(1), make_task_ref(2)]))
        served.peers.on(StartTasks, start)
        async with raw_client(served) as stream:
            await stream.send_all(masked(POLL))
            await served.peers.until(lambda: bool(served.peers.of(StartTasks)))
        with trio.fail_after(60):
            async with served.client() as client:
                assert "engine" in await client.call("Hello")
        go_on.set()
        await served.peers.until(lambda: len(served.peers.of(calls.ReturnTask)) == 2)
        assert sorted(asked.token for asked in served.peers.of(calls.ReturnTask)) == ["t1", "t2"]


async def test_a_poll_by_notification_keeps_no_task(serve: Any, make_task_ref: Callable[[int], TaskRef]) -> None:
    async with serve() as served, served.client() as client:
        hand_out(served.peers, make_task_ref, worker_task("t1"))
        await client.send('{"jsonrpc":"2.0","method":"PollTask","params":{"queue":"q","worker_id":"w"}}')
        await served.peers.until(lambda: bool(served.peers.of(calls.ReturnTask)))


async def test_a_batch_whose_answers_are_too_long_together_is_answered_in_part(
    serve: Any, make_task_ref: Callable[[int], TaskRef]
) -> None:
    async with serve(outbox_bytes=250_000) as served, served.client() as client:
        hand_out(served.peers, make_task_ref, worker_task("t", 100_000))
        poll = {"jsonrpc": "2.0", "method": "PollTask", "params": {"queue": "q", "worker_id": "w"}}
        answers = await client.ask(json.dumps([{**poll, "id": number} for number in range(4)]))
        statuses = sorted(answer.get("error", {"data": {"status": ""}})["data"]["status"] for answer in answers)
        assert statuses == ["", "", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
        assert len(served.peers.of(calls.ReturnTask)) == 2


async def test_a_stopped_frontend_says_goodbye_and_gives_back_what_it_was_handing_out(
    serve: Any, make_task_ref: Callable[[int], TaskRef]
) -> None:
    codes: list[int | None] = []
    starting, go_on = trio.Event(), trio.Event()

    async def start(_: Request) -> Result:
        starting.set()
        await go_on.wait()
        return PollTaskResult(tasks=[worker_task("t1")])

    async with trio.open_nursery() as nursery, serve() as served:
        served.peers.on(MatchTasks, MatchTasksResult(tasks=[make_task_ref(1)]))
        served.peers.on(StartTasks, start)
        connected = trio.Event()

        async def stay(poll: bool) -> None:
            async with served.client() as client:
                if poll:
                    await client.send(POLL)
                    await starting.wait()
                connected.set()
                codes.append(await closed_with(client))

        nursery.start_soon(stay, True)
        await connected.wait()
        connected = trio.Event()
        nursery.start_soon(stay, False)
        await connected.wait()
        nursery.start_soon(release_soon, served, go_on)
    assert codes == [1001, 1001]
    assert [asked.token for asked in served.peers.of(calls.ReturnTask)] == ["t1"]


async def release_soon(served: Any, go_on: trio.Event) -> None:
    """Let the start be recorded only once the Frontend is stopping: no connection is accepted any more."""
    host, port = served.frontend.bound.split(":")
    while True:
        try:
            await (await trio.open_tcp_stream(host, int(port))).aclose()
        except OSError:
            break
    go_on.set()


async def test_a_drained_frontend_answers_unavailable_over_the_wire(serve: Any) -> None:
    async with serve() as served, served.client() as client:
        await served.frontend.drain()
        error = await client.call("StartWorkflow", workflow="w")
        assert (error["code"], error["data"]["status"], error["data"]["retry_after_seconds"]) == (
            -32007,
            "UNAVAILABLE",
            2.0,
        )
        assert await client.call("CompleteTask", token="t") == {}
