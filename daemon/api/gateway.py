"""The Frontend without a socket: a principal's call goes in, what History or Matching answered comes out.

Everything that is the same for every transport lives here: which scope a method needs, its parameters, its limits,
its deadline, where it is answered, and a poll's two steps (Matching chooses tasks, History records that they start).
What belongs to one connection (renewing a token, the order and the size of answers) does not.
"""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import msgspec
import structlog
import trio
from msgspec import Raw

from daemon.api.auth import Principal
from daemon.api.jsonrpc import UnknownMethod
from daemon.api.limits import Limited, TenantLimits
from daemon.api.methods import METHODS, Answerer, Method
from daemon.api.params import Shape
from daemon.api.turnstile import Turnstile
from daemon.clock import Clock
from daemon.execution.tokens import named_in
from daemon.links.interface import Caller
from daemon.links.roster import Roster, added_up
from daemon.links.table import Links
from daemon.logs import about
from daemon.metrics import Meter, Metrics
from daemon.settings import Settings
from enginekit.messages import calls
from enginekit.messages.events import TaskKind
from enginekit.messages.links import (
    ListBreakers,
    ListBreakersResult,
    MatchTasks,
    MatchTasksResult,
    QueueKey,
    StartTasks,
)
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import ServiceRate, WatchExecutions, WatchExecutionsResult

PROTOCOL = "engine.v1"
DRAIN_RETRY_SECONDS = 2.0
GIVE_BACK_SECONDS = 2.0
BREAKERS_SECONDS = 2.0
"""How long DescribeDaemon waits for Matching, which may be what is not well."""

log = structlog.get_logger(__name__)

ID_CHARACTERS: Final = 255
"""Of what may be an id, in the log."""
_encoder = msgspec.json.Encoder()
_SHAPES = {name: Shape(method.params) for name, method in METHODS.items()}


def engine_version() -> str:
    """The installed distribution's version; `0+source` when it runs from a source tree that is not installed."""
    try:
        return version("execution-plane")
    except PackageNotFoundError:
        return "0+source"


READS_AT_ONCE: Final = 2
READ_TURNS: Final = 16
"""So many reads, of everybody together, are let in every so many turns of the loop."""


class Gateway:
    """Answers calls. One a Frontend; every transport uses the same."""

    def __init__(
        self,
        links: Links,
        settings: Settings,
        describe: Callable[[], calls.DescribeDaemonResult],
        clock: Clock,
        metrics: Metrics,
        roster: Roster | None = None,
    ) -> None:
        self._links = links
        self._roster = roster
        self._settings = settings
        self._describe = describe
        self._clock = clock
        self._metrics = metrics
        self._call_seconds = settings.frontend.call_timeout_seconds
        self._engine = engine_version()
        self._draining = False
        self._polls: dict[trio.CancelScope, tuple[str, str]] = {}
        """Those that wait for Matching: by which tenant's worker."""
        self._starts: set[trio.CancelScope] = set()
        self._admitted = 0
        self._settled = trio.Event()
        self.reads = Turnstile(READS_AT_ONCE, READ_TURNS)
        self.limits = TenantLimits(settings.limits)
        self.answered = 0
        """Calls answered so far, refusals among them."""

    async def call(self, principal: Principal, method: str, params: bytes) -> bytes:
        """The encoded result of a call. Raises and is cancelled as `perform`."""
        return _encoder.encode(await self.perform(principal, method, params))

    async def perform(self, principal: Principal, method: str, params: Raw | bytes) -> calls.Result:
        """The result of a call.

        Raises Refused, also (as INTERNAL, with a reference into the log) for whatever went wrong unforeseen.
        Cancelled: History may go on with what it was asked; tasks that a poll had already started are given back.
        """
        begun = trio.current_time()
        status: ErrorStatus | None = None
        row = METHODS.get(method)
        try:
            if row is None:
                raise UnknownMethod(f"there is no method {method[:100]!r}{_near(method)}")
            return await self._perform(principal, row, params)
        except Refused as refused:
            status = refused.status
            raise
        except Exception as error:
            status = ErrorStatus.INTERNAL
            reference = secrets.token_hex(6)
            log.exception(
                "frontend.call_failed",
                method=method[:100],
                reference=reference,
                tenant=principal.tenant,
                **_named(params),
            )
            raise Refused(
                ErrorStatus.INTERNAL, f"the daemon failed to answer; its log has more under {reference}"
            ) from error
        finally:
            self.answered += 1
            seconds = trio.current_time() - begun if row is not None and row.timed else None
            self._metrics.call(method if row is not None else "unknown", status, seconds)

    def hello(self, principal: Principal) -> calls.HelloResult:
        """What Hello and Authenticate answer."""
        settings = self._settings
        return calls.HelloResult(
            engine=self._engine,
            protocol=PROTOCOL,
            tenant=principal.tenant,
            subject=principal.subject,
            scopes=sorted(principal.scopes),
            limits=calls.Limits(
                payload_bytes=settings.history.payload_bytes,
                frame_bytes=settings.frontend.frame_bytes,
                history_events=settings.history.history_events,
                history_bytes=settings.history.history_bytes,
                batch_calls=settings.frontend.batch_calls,
            ),
            expires_at=principal.expiry,
        )

    async def give_back(self, principal: Principal, tokens: Sequence[str], reason: str) -> None:
        """Return tasks whose poll's answer reached nobody, so that another worker gets them now and not only when
        their lease lapses.

        Never raises Refused: what cannot be returned is left to its lease. Bounded by GIVE_BACK_SECONDS, and shielded,
        because its callers are being cancelled.
        """
        if not tokens:
            return
        self._metrics.undelivered(len(tokens))
        with trio.move_on_after(GIVE_BACK_SECONDS, shield=True):
            async with trio.open_nursery() as nursery:
                for token in tokens:
                    nursery.start_soon(self._give_one_back, principal, token, reason)

    async def drain(self) -> None:
        """Take no new work: starts and polls are refused with UNAVAILABLE, polls that wait end without a task.
        Returns once those that were let in before are answered; everything else goes on being answered."""
        self._draining = True
        for scope in self._polls:
            scope.cancel()
        while self._admitted:
            self._settled = trio.Event()
            await self._settled.wait()

    def hurry(self, seconds: float) -> None:
        """What is seen through though its caller is cancelled (starting the tasks of a poll) ends within this time."""
        for scope in self._starts:
            scope.deadline = min(scope.deadline, trio.current_time() + seconds)

    def check(self, principal: Principal, method: str) -> None:
        """Raises Refused where the principal may not call the method (any more)."""
        self._check(principal, METHODS[method])

    def meter(self) -> Callable[[], list[ServiceRate]]:
        """How busy the services are, here and in other processes, from now on."""
        meter, roster = Meter(self._metrics, trio.current_time), self._roster
        return meter.rates if roster is None else lambda: added_up([*meter.rates(), *roster.rates()])

    async def watch(self, principal: Principal, call: WatchExecutions) -> WatchExecutionsResult:
        """What has changed among the executions. Raises Refused."""
        caller = Caller(principal.tenant, principal.subject)
        timeout = call.wait_seconds + self._call_seconds
        return await self._links.history.request(caller, call, WatchExecutionsResult, timeout)

    async def _perform(self, principal: Principal, row: Method, params: Raw | bytes) -> calls.Result:
        self._check(principal, row)
        shape, payload_bytes = _SHAPES[row.name], self._settings.history.payload_bytes
        # What cannot be a long poll is refused unread: a flood is not to cost what it asks for.
        call = None if row.timed else shape.decode(params, payload_bytes)
        waits = call is not None and row.waits(call)
        try:
            account = self.limits.admit(principal.tenant, row.group, row.name, waits, trio.current_time())
        except Limited as limited:
            self._metrics.limited()
            await trio.sleep(limited.held_back_seconds)
            raise
        try:
            if call is None:
                call = shape.decode(params, payload_bytes)
            if row.reads:
                await self.reads.enter()
            if row.new_work:
                return await self._admit(principal, row, call)
            return await self._route(principal, row, call)
        finally:
            self.limits.release(account, waits)

    def _check(self, principal: Principal, row: Method) -> None:
        if principal.expires_at is not None and self._clock.now() >= principal.expires_at * 1000:
            raise Refused(
                ErrorStatus.UNAUTHENTICATED, "the token has expired: renew it in place with Authenticate, or reconnect"
            )
        if row.scope is not None and row.scope.value not in principal.scopes:
            held = " ".join(sorted(principal.scopes)) or "none"
            raise Refused(
                ErrorStatus.PERMISSION_DENIED,
                f'{row.name} needs the scope "{row.scope.value}"; the token has: {held}',
                {"scope": row.scope.value},
            )

    async def _admit(self, principal: Principal, row: Method, call: calls.Call) -> calls.Result:
        if self._draining:
            raise Refused(
                ErrorStatus.UNAVAILABLE,
                "the daemon is shutting down and takes no new work; try again",
                {"retry_after_seconds": DRAIN_RETRY_SECONDS},
            )
        self._admitted += 1
        try:
            return await self._route(principal, row, call)
        finally:
            self._admitted -= 1
            if not self._admitted:
                self._settled.set()

    async def _route(self, principal: Principal, row: Method, call: calls.Call) -> calls.Result:
        caller = Caller(principal.tenant, principal.subject)
        if row.answerer is Answerer.HISTORY:
            timeout = row.timeout(call, self._call_seconds)
            return await self._links.history.request(caller, call, row.result, timeout)
        if row.answerer is Answerer.MATCHING:
            return await self._links.matching.request(caller, call, row.result, self._call_seconds)
        if isinstance(call, calls.PollTask):
            return await self._poll(principal, caller, call)
        if isinstance(call, calls.StopPolls):
            return self._stop_polls(principal.tenant, call.worker_id)
        if isinstance(call, calls.DescribeDaemon):
            return await self._describe_daemon(caller)
        if isinstance(call, calls.Hello):
            return self.hello(principal)
        raise Refused(
            ErrorStatus.INVALID_ARGUMENT,
            f"{row.name} is about the connection it comes on, and this call came without one",
        )

    async def _describe_daemon(self, caller: Caller) -> calls.DescribeDaemonResult:
        """What the daemon says of itself, with the breakers that Matching has. That one is down is told, too."""
        described = self._describe()
        try:
            found = await self._links.matching.request(caller, ListBreakers(), ListBreakersResult, BREAKERS_SECONDS)
        except Refused as refused:
            log.info("frontend.breakers_unknown", why=str(refused))
            return described
        return msgspec.structs.replace(described, breakers=found.breakers)

    async def _poll(self, principal: Principal, caller: Caller, call: calls.PollTask) -> calls.PollTaskResult:
        """Matching chooses, History starts. Tasks that were over meanwhile are left out, so a poll that gets none of
        those chosen asks again for as long as it may wait."""
        queue = QueueKey(principal.tenant, TaskKind.ACTIVITY, call.queue)
        until = trio.current_time() + call.wait_seconds
        while True:
            left = max(0.0, until - trio.current_time())
            chosen: MatchTasksResult | None = None
            with trio.CancelScope() as waiting:
                self._polls[waiting] = (principal.tenant, call.worker_id)
                try:
                    ask = MatchTasks(queue=queue, worker_id=call.worker_id, max_tasks=call.max_tasks, wait_seconds=left)
                    chosen = await self._links.matching.request(
                        caller, ask, MatchTasksResult, left + self._call_seconds
                    )
                finally:
                    del self._polls[waiting]
            if chosen is None or not chosen.tasks:
                return calls.PollTaskResult(tasks=[])
            start = StartTasks(tasks=chosen.tasks, worker_id=call.worker_id)
            started = await self._start(principal, caller, start)
            if started.tasks or trio.current_time() >= until or self._draining:
                self._metrics.dispatched(TaskKind.ACTIVITY, len(started.tasks))
                return started

    def _stop_polls(self, tenant: str, worker_id: str) -> calls.StopPollsResult:
        waiting = [scope for scope, of in self._polls.items() if of == (tenant, worker_id)]
        for scope in waiting:
            scope.cancel()
        return calls.StopPollsResult(stopped=len(waiting))

    async def _start(self, principal: Principal, caller: Caller, start: StartTasks) -> calls.PollTaskResult:
        # Once History is asked, the starts are as good as recorded: see it through, then look who still waits.
        started = calls.PollTaskResult(tasks=[])
        with trio.CancelScope(shield=True) as seeing_through:
            self._starts.add(seeing_through)
            try:
                started = await self._links.history.request(caller, start, calls.PollTaskResult, self._call_seconds)
            finally:
                self._starts.discard(seeing_through)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            await self.give_back(principal, tokens_of(started), "the poll was given up")
            raise
        return started

    async def _give_one_back(self, principal: Principal, token: str, reason: str) -> None:
        try:
            await self._links.history.request(
                Caller(principal.tenant, principal.subject),
                calls.ReturnTask(token=token, reason=reason),
                calls.Acknowledged,
                GIVE_BACK_SECONDS,
            )
        except Refused as refused:
            task = named_in(principal.tenant, token)
            log.info(
                "frontend.task_not_returned",
                why=str(refused),
                **(about(task) if task is not None else {"tenant": principal.tenant}),
            )


class _Named(msgspec.Struct):
    """What parameters may name an execution by."""

    workflow_id: object = None
    run_id: object = None


_named_decoder = msgspec.json.Decoder(_Named)


def _named(params: Raw | bytes) -> dict[str, str]:
    """The execution that a call is about, for the log."""
    try:
        found = _named_decoder.decode(params)
    except msgspec.MsgspecError:
        return {}
    ids = {"workflow_id": found.workflow_id, "run_id": found.run_id}
    return {name: value[:ID_CHARACTERS] for name, value in ids.items() if isinstance(value, str)}


def _near(method: str) -> str:
    near = difflib.get_close_matches(method[:100], METHODS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def tokens_of(result: calls.Result) -> tuple[str, ...]:
    """The tokens of the tasks that a result hands to its receiver."""
    return tuple(task.token for task in result.tasks) if isinstance(result, calls.PollTaskResult) else ()
