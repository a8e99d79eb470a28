"""The Trio client: `async with open_client(url, token) as client`.

What lives here: what a call means (its request id, its deadline, whether an answer says to try again) and the calls
that people write most. The connection below knows bytes only; the command line, the console and the worker kit
stand on this.
"""

from __future__ import annotations

import random
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import msgspec
import trio
from msgspec import UNSET

from enginekit import jsonrpc
from enginekit.connection import Connection, Lost, TokenSource, Tuning, UrlSource
from enginekit.errors import ProtocolError, Unreachable, WorkflowFailed
from enginekit.messages import calls, schedules
from enginekit.messages.calls import (
    Call,
    HelloResult,
    Result,
    Reuse,
)
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.repeats import identified
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused, ReportRefusal
from enginekit.methods import DECODERS, Caller, goes_in_batches, wait_seconds
from enginekit.pages import Events, Executions, HistoryPages
from enginekit.subscription import Updates

_PASSING: Final = (ErrorStatus.UNAVAILABLE, ErrorStatus.RESOURCE_EXHAUSTED)
_PAUSE_SECONDS: Final = 0.05
_PAUSE_LIMIT_SECONDS: Final = 5.0
_RETURN_SECONDS: Final = 30.0


class Client(Caller):
    """Calls to one daemon, from any number of tasks. Made by `open_client`."""

    def __init__(
        self, connection: Connection, nursery: trio.Nursery, timeout_seconds: float, fresh_token: TokenSource | None
    ) -> None:
        self._connection = connection
        self._nursery = nursery
        self._timeout_seconds = timeout_seconds
        self._fresh_token = fresh_token
        self._renewals = 0
        self._renewing = trio.Lock()

    @property
    def hello(self) -> HelloResult:
        """Who the daemon is, what it takes, and whom it takes us for, as it said when it was last reached."""
        if self._connection.hello is None:
            raise trio.ClosedResourceError("this client has not reached its daemon")
        return self._connection.hello

    # --- executions ----------------------------------------------------------------------------------------------

    async def start(
        self,
        workflow: str | Mapping[str, JSON],
        *,
        input: JSON | msgspec.Raw = None,
        version: int | None = None,
        workflow_id: str | None = None,
        request_id: str | None = None,
        timeout_seconds: float | None = None,
        labels: Mapping[str, str] | None = None,
        reuse: Reuse = Reuse.ALLOW,
    ) -> calls.StartWorkflowResult:
        """Start an execution of a registered workflow (by name) or of a definition (a mapping).

        No `input` is `{}`. `timeout_seconds` is the execution's. Without a `request_id` this makes one, so that
        repeating the call on the wire starts nothing twice. Raises as `call` does.
        """
        named = isinstance(workflow, str)
        return await self.call(
            calls.StartWorkflow(
                workflow=workflow if isinstance(workflow, str) else None,
                definition=UNSET if named else encode(dict(workflow)),  # type: ignore[arg-type]
                version=version,
                input=_payload({} if input is None else input),
                workflow_id=workflow_id,
                request_id=request_id,
                timeout_seconds=timeout_seconds,
                labels=dict(labels or {}),
                reuse=reuse,
            )
        )

    async def signal(
        self, workflow_id: str, name: str, input: JSON | msgspec.Raw = None, *, run_id: str | None = None
    ) -> None:
        """Send a signal: a state `signal:NAME` of the execution takes it, now or when it comes to it. On disk when this
        returns. Raises as `call` does."""
        await self.call(calls.SignalWorkflow(workflow_id=workflow_id, run_id=run_id, name=name, input=_payload(input)))

    async def wait(self, workflow_id: str, run_id: str | None = None) -> calls.DescribeWorkflowResult:
        """The execution once it has closed; without `run_id` the run that is current now. Bound it with a cancel
        scope. Raises as `call` does."""
        while True:
            seen = await self.call(calls.WaitWorkflow(workflow_id=workflow_id, run_id=run_id))
            if seen.status.closed:
                return seen
            run_id = seen.run_id

    async def result(self, workflow_id: str, run_id: str | None = None) -> JSON:
        """The output of the execution, once it has succeeded. Raises WorkflowFailed when it ends in another way, and
        as `call` does."""
        closed = await self.wait(workflow_id, run_id)
        if closed.status is not ExecutionStatus.SUCCEEDED:
            raise WorkflowFailed(closed.workflow_id, closed.run_id, closed.status, closed.error, closed.cause)
        return decode(closed.output)

    @property
    def online(self) -> bool:
        """Whether there is a connection to the daemon right now."""
        return self._connection.is_open

    @property
    def problem(self) -> str:
        """Why there is none, in words."""
        return self._connection.problem

    @asynccontextmanager
    async def subscribe(self, topics: Sequence[str]) -> AsyncIterator[Updates]:
        """Be told of these topics as they change (`executions`, `queues`, `services`, `history:WORKFLOW_ID`), over
        losses of the connection, until the block ends. See `enginekit.subscription`."""
        updates = Updates(self, self._connection, list(topics))
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await updates.run()

        self._nursery.start_soon(run)
        try:
            yield updates
        finally:
            scope.cancel()
            await updates.end()

    def history(
        self, workflow_id: str, run_id: str | None = None, *, after_id: int = 0, follow: bool = False
    ) -> Events:
        """The run's events in order, from the one after `after_id`, to be read with `async for`; with `follow`, those
        to come as well, until the run has closed. Iterating raises as `call` does."""
        return Events(self.history_pages(workflow_id, run_id, after_id=after_id, follow=follow))

    def history_pages(
        self, workflow_id: str, run_id: str | None = None, *, after_id: int = 0, follow: bool = False
    ) -> HistoryPages:
        """The same page by page, events as the bytes they came in."""
        return HistoryPages(self, calls.GetHistory(workflow_id=workflow_id, run_id=run_id, after_id=after_id), follow)

    def executions(self, query: calls.ListWorkflows | None = None) -> Executions:
        """Every execution that `query` asks for, newest first, to be read with `async for`. Iterating raises as
        `call` does."""
        return Executions(self, query or calls.ListWorkflows())

    # --- tasks that wait for their token --------------------------------------------------------------------------

    async def complete_task(self, token: str, output: JSON | msgspec.Raw = None) -> None:
        """End the task with this result: one that a worker polled, or one whose state waits for `$$.Task.Token`.

        Raises as `call` does; Refused FAILED_PRECONDITION says in `data["reason"]` why it came too late.
        """
        await self.call(calls.CompleteTask(token=token, output=_payload(output)))

    async def fail_task(
        self, token: str, error: str, cause: str = "", *, retry_after_seconds: float | None = None
    ) -> None:
        """End the task's attempt with this error, for the state's `Retry` and `Catch` to match. Raises as
        `complete_task` does."""
        await self.call(calls.FailTask(token=token, error=error, cause=cause, retry_after_seconds=retry_after_seconds))

    async def heartbeat_task(self, token: str, details: JSON = None) -> bool:
        """Say that somebody still works on it: starts the state's `HeartbeatSeconds` anew. True: nobody waits for it
        any more. Raises as `complete_task` does."""
        beat = calls.HeartbeatTask(token=token, details=encode(details))
        return (await self.call(beat)).cancel_requested

    # --- the call itself -----------------------------------------------------------------------------------------

    async def _perform(self, params: Call, timeout_seconds: float | None) -> Result:
        params = identified(params, _new_id)
        method = type(params).__name__
        body = msgspec.json.encode(params)
        long_poll, batch = wait_seconds(params) > 0, goes_in_batches(params)
        late = self._hand_back if isinstance(params, calls.PollTask) else None
        budget = wait_seconds(params) + (self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        deadline = trio.current_time() + budget
        pause = _PAUSE_SECONDS
        repeated = renewed = False
        last: Exception | None = None
        with trio.move_on_at(deadline):
            while True:
                renewals = self._renewals
                wait = 0.0
                try:
                    reply = await self._connection.request(method, body, long_poll=long_poll, batch=batch, late=late)
                except Lost as lost:
                    last = lost
                else:
                    last = None
                    if reply.error is None:
                        return _recorded(_decoded(params, reply), repeated)
                    refused = jsonrpc.refusal(reply.error)
                    if refused.status is ErrorStatus.UNAUTHENTICATED and self._fresh_token and not renewed:
                        renewed = True
                        await self._authenticate(self._fresh_token, renewals)
                        continue
                    if repeated and _already_recorded(params, refused):
                        return calls.Acknowledged()
                    if refused.status not in _PASSING:
                        raise refused
                    last = refused
                    wait = jsonrpc.retry_after(refused) or pause * random.uniform(0.5, 1.0)
                    pause = min(pause * 2, _PAUSE_LIMIT_SECONDS)
                repeated = True
                if trio.current_time() + wait >= deadline:
                    break
                await trio.sleep(wait)
        problem = self._connection.problem if last is None and not self._connection.is_open else last
        raise Unreachable(
            f"{method} was not answered within {budget:g} s: {problem or 'the daemon is silent'}"
        ) from last

    async def _authenticate(self, source: TokenSource, seen: int) -> None:
        """Renew the token in place, once for all the calls that found it expired."""
        async with self._renewing:
            if self._renewals == seen:
                params = msgspec.json.encode(calls.Authenticate(token=source()))
                try:
                    reply = await self._connection.request("Authenticate", params)
                except Lost:
                    return  # the next connection asks for a token of its own
                if reply.error is not None:
                    raise jsonrpc.refusal(reply.error)
                self._renewals += 1

    def _hand_back(self, reply: jsonrpc.Reply) -> None:
        """Tasks came for a poll that was cancelled: nobody here will run them."""
        if reply.error is None:
            answer = _decoded(calls.PollTask, reply)
            if isinstance(answer, calls.PollTaskResult):
                for task in answer.tasks:
                    self._nursery.start_soon(self._return, task.token)

    async def _return(self, token: str) -> None:
        try:
            await self.call(
                calls.ReturnTask(token=token, reason="the poll was cancelled"), timeout_seconds=_RETURN_SECONDS
            )
        except (Refused, Unreachable, ProtocolError, trio.ClosedResourceError):
            return  # its lease will lapse, which comes to the same


@asynccontextmanager
async def open_client(
    url: str | UrlSource,
    token: str | TokenSource,
    *,
    timeout_seconds: float = 60.0,
    connect_seconds: float | None = None,
    tuning: Tuning | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """A client that is connected, and connects again by itself whenever the connection is lost, until the block ends.

    `url` is `ws://HOST:PORT/rpc` or `wss://…`; it and `token` may be functions, which are asked again for every
    connection (and, for the token, when it has expired). `timeout_seconds` bounds each call; `connect_seconds` (the
    same, without one) the first connection.

    Raises Unreachable when the first connection is not made in time, Refused when the daemon does not take the token,
    ProtocolError when no engine listens there, ValueError for a URL that is none. What the block raises comes out as
    it is, not in a group.
    """
    if isinstance(url, str):
        check_url(url)
    url_source = _constant(url) if isinstance(url, str) else url
    token_source = _constant(token) if isinstance(token, str) else token
    connection = Connection(url_source, token_source, tuning or Tuning(), tls)
    fresh_token = None if isinstance(token, str) else token
    first = timeout_seconds if connect_seconds is None else connect_seconds
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        try:
            with trio.move_on_after(first) as patience:
                await connection.opened()
            if patience.cancelled_caught:
                raise Unreachable(f"no connection within {first:g} s: {connection.problem}")
            yield Client(connection, nursery, timeout_seconds, fresh_token)
        except BaseException as error:  # noqa: BLE001 raised again below, outside the nursery and so outside its group
            failure = error
        finally:
            connection.close()
    if failure is not None:
        raise failure


def check_url(url: str) -> None:
    """Raises ValueError for what is no WebSocket URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is no WebSocket URL: write it like ws://127.0.0.1:7460/rpc")


def _constant(value: str) -> UrlSource:
    return lambda: value


def _payload(value: JSON | msgspec.Raw) -> msgspec.Raw:
    return value if isinstance(value, msgspec.Raw) else encode(value)


def _new_id() -> str:
    return uuid.uuid4().hex


def _decoded(params: Call | type[Call], reply: jsonrpc.Reply) -> Result:
    kind = params if isinstance(params, type) else type(params)
    try:
        return DECODERS[kind].decode(reply.result if isinstance(reply.result, msgspec.Raw) else b"")
    except (msgspec.MsgspecError, ValueError) as error:
        raise ProtocolError(f"{kind.__name__}: the daemon's answer is not understood: {error}") from error


def _already_recorded(params: Call, refused: Refused) -> bool:
    """Whether a call that was repeated is refused for having been carried out."""
    if isinstance(params, schedules.DeleteSchedule):
        return refused.status is ErrorStatus.NOT_FOUND
    return (
        isinstance(params, calls.CompleteTask | calls.FailTask | calls.ReturnTask)
        and refused.status is ErrorStatus.FAILED_PRECONDITION
        and refused.data.get("reason") == ReportRefusal.ALREADY_RECORDED.value
    )


def _recorded(result: Result, repeated: bool) -> Result:
    """After a repeat of ours, a report the daemon already has is a report that was recorded."""
    if not repeated or not isinstance(result, calls.CompleteTasksResult):
        return result
    already = ReportRefusal.ALREADY_RECORDED.value
    return calls.CompleteTasksResult(
        results=[calls.CompletionResult() if each.reason == already else each for each in result.results]
    )
