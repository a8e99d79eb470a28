"""What a session does for child executions: it starts those that tasks ask for, tells the tasks how they closed, and
ends those that nobody waits for any more.

All of it goes through two effects. CHILD, named by the parent's task, says "look at this task's child": whether one is
to be started or ended is read off the parent's state when the effect is delivered, so that delivering it twice, or
late, does nothing wrong. NOTICE, named by the child's last event, says "tell the parent". Each is removed by a commit
that comes after that of what it was for; until then every session delivers it again. A child's start is a request named
by the task, so that there is one child a task whatever crashes in between.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
import trio

from daemon.execution import children
from daemon.execution.commands import Cancel, ChildClosed, ChildFault, ChildNotStarted, ChildStarted, Terminate
from daemon.execution.state import Task
from daemon.journal.identity import child_id
from daemon.language import ClosePolicy
from daemon.logs import about
from enginekit.messages.events import ParentTask
from enginekit.messages.json import NULL
from enginekit.messages.links import RunRef, StartRun, TaskRef
from enginekit.messages.status import ErrorStatus, Refused

if TYPE_CHECKING:
    from daemon.journal.live import LiveRun
    from daemon.journal.session import Session

log = structlog.get_logger("history")

CHILD_EFFECT: Final = "child"
"""Its id is minus the task's; its data the policy by which the child is ended."""
NOTICE_EFFECT: Final = "notice"
"""Its id is that of the child's last event."""

DELIVERIES: Final = 32
"""Effects that are delivered at once."""
RETRY_SECONDS: Final = 1.0
"""The pause after a delivery that was refused for now."""

_FAULTS: Final = {
    ErrorStatus.NOT_FOUND: ChildFault.NO_SUCH_WORKFLOW,
    ErrorStatus.ALREADY_EXISTS: ChildFault.NAME_IN_USE,
}

_Key: TypeAlias = tuple[RunRef, int]
"""A run, and the id of one of its effects."""


class Children:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._policies: dict[_Key, ClosePolicy | None] = {}
        """What is to be delivered; None for a notice."""
        self._queues: OrderedDict[str, deque[_Key]] = OrderedDict()
        """By tenant: they take turns, so that one's hundred thousand children hold up nobody else's."""
        self._busy: set[_Key] = set()
        self._again: set[_Key] = set()
        self._idle = trio.lowlevel.ParkingLot()

    def outstanding(self, ref: RunRef, effect: int) -> bool:
        """Whether the effect is in the store already, or on its way there."""
        return (ref, effect) in self._policies

    def add(self, ref: RunRef, effect: int, policy: ClosePolicy | None) -> None:
        """There is such an effect. It is delivered from when `due` is called."""
        self._policies[ref, effect] = policy

    def due(self, ref: RunRef, effect: int) -> None:
        """It is on disk, or what it is about has changed: deliver it (again)."""
        key = ref, effect
        if key in self._busy:
            self._again.add(key)
        elif key in self._policies:
            self._busy.add(key)
            self._queues.setdefault(ref.tenant, deque()).append(key)
            self._idle.unpark()

    async def run(self) -> None:
        """Deliver, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(DELIVERIES):
                nursery.start_soon(self._deliver_all)

    async def _deliver_all(self) -> None:
        while True:
            while not self._queues:
                await self._idle.park()
            key = self._next()
            ref, effect = key
            policy = self._policies[key]
            try:
                if policy is None:
                    await self._tell_parent(ref)
                else:
                    await self._look(ref, -effect, policy)
            except Refused as refused:
                if refused.status in (ErrorStatus.UNAVAILABLE, ErrorStatus.RESOURCE_EXHAUSTED):
                    self._again.add(key)
                    await trio.sleep(RETRY_SECONDS)
                else:
                    # The run is set aside, or is not there any more: nobody can do this.
                    log.warning("an effect cannot be delivered", why=refused.message, **_about(ref, effect))
                    self._busy.discard(key)
                    self._again.discard(key)
                    continue
            self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.due(ref, effect)
            else:
                await self._remove(ref, effect)

    def _next(self) -> _Key:
        """The oldest of the tenant whose turn it is."""
        tenant, queue = self._queues.popitem(last=False)
        key = queue.popleft()
        if queue:
            self._queues[tenant] = queue
        return key

    async def _remove(self, ref: RunRef, effect: int) -> None:
        del self._policies[ref, effect]

        def done(live: LiveRun) -> None:
            self._session.remove_effect(live, effect)

        self._session.when_live(ref, done, partial(_log_lost, ref, effect))

    # --- the parent's side ------------------------------------------------------------------------------------------

    async def _look(self, parent: RunRef, task_id: int, policy: ClosePolicy) -> None:
        """Make of the task's child what the parent's state says. Raises Refused."""
        live = await self._session.live(parent)
        found = children.waited_for(live.run, task_id)
        if found is None:
            await self._end(parent, task_id, policy)
        elif found[1].child is None:
            command, child = await self._start(live, found[1])
            await self._session.across.act(parent, command)
            if child is not None and children.waited_for((await self._session.live(parent)).run, task_id) is None:
                await self._end(parent, task_id, policy)

    async def _start(self, parent: LiveRun, task: Task) -> tuple[ChildStarted | ChildNotStarted, RunRef | None]:
        """What is to be told to the parent, and the child. On disk when this returns. Raises Refused: try again."""
        session, ref, asked = self._session, parent.run.ref, task.child_start
        assert asked is not None
        above = parent.run.parent_task
        own = child_id(parent.shard, ref.run_id, task.id, 0)
        waited = ParentTask(
            workflow_id=ref.workflow_id, run_id=ref.run_id, task=task.id, depth=1 if above is None else above.depth + 1
        )
        try:
            found = await session.across.start(
                StartRun(
                    workflow=asked.workflow,
                    version=asked.version,
                    input=task.input.raw,
                    workflow_id=asked.workflow_id or (own if asked.waited else None),
                    request_id=own,
                    parent_task=waited if asked.waited else None,
                ),
                ref.tenant,
            )
        except Refused as refused:
            if refused.status not in _FAULTS:
                raise
            return ChildNotStarted(task=task.id, fault=_FAULTS[refused.status], cause=refused.message), None
        started = ChildStarted(
            task=task.id, workflow_id=found.workflow_id, run_id=found.run_id, started_at=found.started_at
        )
        return started, RunRef(ref.tenant, found.workflow_id, found.run_id)

    async def _end(self, parent: RunRef, task_id: int, policy: ClosePolicy) -> None:
        """End the child that nobody waits for, if it was started. Raises Refused."""
        if policy is ClosePolicy.ABANDON:
            return
        session = self._session
        own = child_id(session.shard(parent), parent.run_id, task_id, 0)
        child = (await session.store.start_check(parent.tenant, own, own)).requested
        if child is None:
            return
        reason = f'its parent "{parent.workflow_id}" does not wait for it any more'
        command: Cancel | Terminate = (
            Terminate(reason=reason, request_id=own)
            if policy is ClosePolicy.TERMINATE
            else Cancel(reason=reason, request_id=own)
        )
        await session.across.act(child, command)

    # --- the child's side -------------------------------------------------------------------------------------------

    async def _tell_parent(self, child: RunRef) -> None:
        """Raises Refused."""
        run = (await self._session.live(child)).run
        about = run.parent_task
        assert about is not None
        if run.closed_at is None:
            # It was redriven before this was told: the parent hears how it ends then.
            return
        await self._session.across.act(
            RunRef(child.tenant, about.workflow_id, about.run_id),
            ChildClosed(
                task=about.task,
                workflow_id=child.workflow_id,
                run_id=child.run_id,
                workflow=run.workflow,
                status=run.status,
                input=run.input.raw,
                output=NULL if run.output is None else run.output.raw,
                error=run.error,
                cause=run.cause,
                documented=run.documented,
                usage=run.usage,
                started_at=run.started_at,
                closed_at=run.closed_at,
            ),
        )


def _about(ref: RunRef, effect: int) -> dict[str, str | int]:
    """An effect below zero is about the task of that number."""
    return about(TaskRef(ref, -effect) if effect < 0 else ref)


def _log_lost(ref: RunRef, effect: int, refused: Refused) -> None:
    log.warning("an effect's execution cannot be loaded", why=refused.message, **_about(ref, effect))
