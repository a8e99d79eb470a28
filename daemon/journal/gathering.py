"""What a decision leaves for the next commit: events, tasks and effects of its run, and what is to leave after it.

Nothing is decided and nothing leaves here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from daemon.clock import moment
from daemon.execution.commands import Start
from daemon.execution.step import Child, Decision
from daemon.execution.tasks import seconds_since
from daemon.journal.batch import PROCEED, PendingWrite
from daemon.journal.children import CHILD_EFFECT, NOTICE_EFFECT
from daemon.journal.handout import offer_of, task_of
from daemon.journal.identity import child_id
from daemon.journal.live import LiveRun
from daemon.journal.mapping import STOP
from daemon.language import ClosePolicy, processor_of
from daemon.logs import about
from daemon.stores.rows import Effect, NewExecution
from enginekit.messages.events import Parent
from enginekit.messages.links import EndNodePolls, EndPolls, ExpireTask, QueueKey, RunRef, TaskKind, TaskRef

if TYPE_CHECKING:
    from daemon.journal.session import Session

log = structlog.get_logger("history")


class Gathers:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pending(self, live: LiveRun, first_event_id: int) -> PendingWrite:
        """What the next commit writes of the run."""
        session = self._session
        pending = session.committer.gathering.write_of(live, session.epochs[live.shard], first_event_id)
        session.committer.touch()
        return pending

    def gather(self, live: LiveRun, decision: Decision, created: NewExecution | None = None) -> None:
        """What was decided goes into the open batch, and what is to leave with it."""
        session = self._session
        run = live.run
        pending = self.pending(live, decision.first_event_id)
        batch = session.committer.gathering
        if created is not None:
            pending.created = created
        for task_id in decision.scheduled:
            if task_id in run.tasks:
                offer = offer_of(live, task_id)
                pending.tasks_added[task_id] = offer.task
                batch.offers.append((live, task_id, offer))
        pending.add(decision)
        batch.bytes += sum(map(len, decision.events))
        if run.ref.run_id in session.pulses:
            session.pulses[run.ref.run_id].forget(decision.removed + decision.returned)
        batch.offers += [(live, task_id, offer_of(live, task_id)) for task_id in decision.returned]
        batch.retired += [TaskRef(run.ref, task_id) for task_id in decision.retired]
        for task_id in decision.started:
            if task_id in run.tasks:
                _, task = task_of(live, task_id)
                queue = QueueKey(run.ref.tenant, task.kind, task.queue)
                batch.taken.setdefault(queue, []).append(TaskRef(run.ref, task_id))
            else:
                batch.retired.append(TaskRef(run.ref, task_id))
        batch.canceled += [TaskRef(run.ref, task_id) for task_id in decision.canceled]
        for worker, task_ids in decision.called_off.items():
            batch.called_off.setdefault(worker, []).extend(TaskRef(run.ref, task_id) for task_id in task_ids)
        for kind, name, worker, task_id in decision.silent:
            log.warning("a worker is lost; its task waits again", worker=worker, **about(TaskRef(run.ref, task_id)))
            if kind is TaskKind.NODE:
                session.matching.put(EndNodePolls(worker))
            else:
                session.matching.put(EndPolls(QueueKey(run.ref.tenant, kind, name), worker))
        if decision.probes:
            pulse = session.pulse(live)
            for task_id in decision.probes:
                pulse.probed.add(task_id)
                _, task = task_of(live, task_id)
                waited = seconds_since(task.queued_at, moment(session.clock.now()))
                queue = QueueKey(run.ref.tenant, task.kind, task.queue)
                session.matching.put(ExpireTask(TaskRef(run.ref, task_id), waited, queue))
        if decision.unfinished and run.ref.run_id not in session.effects:
            session.effects[run.ref.run_id] = run.last_event_id
            pending.effects_added.append(Effect(event_id=run.last_event_id, kind=PROCEED, data=b""))
            batch.unfinished.append(live)
        session.runs.changed(live)
        for mapping in {each[0] for each in decision.stopped}:
            data = msgspec.json.encode([each[1:] for each in decision.stopped if each[0] == mapping])
            pending.effects_added.append(Effect(event_id=-mapping, kind=STOP, data=data))
            batch.stopped.append((live, mapping, data))
        for child in decision.children:
            self._start_child(live, child)
        for task_id, policy in decision.children_due.items():
            self._oblige(live, pending, -task_id, CHILD_EFFECT, ClosePolicy(policy))
        if run.status.closed and decision.events:
            if live.parent is not None:
                session.mappings.closed(live)
            if run.parent_task is not None:
                self._oblige(live, pending, run.last_event_id, NOTICE_EFFECT, None)

    def _oblige(self, live: LiveRun, pending: PendingWrite, number: int, kind: str, policy: ClosePolicy | None) -> None:
        """The commit obliges us to see to a child, or a parent. What was to be looked at before is looked at again."""
        session = self._session
        ref = live.run.ref
        if not session.children.outstanding(ref, number):
            session.children.add(ref, number, policy)
            if number in pending.effects_removed:
                pending.effects_removed.remove(number)
            else:
                data = b"" if policy is None else policy.value.encode()
                pending.effects_added.append(Effect(event_id=number, kind=kind, data=data))
        session.committer.gathering.obliged.append((ref, number))

    def _start_child(self, parent: LiveRun, child: Child) -> None:
        """A run for items of a distributed Map, in the same commit as the event that counts it."""
        run, ref = parent.run, parent.run.ref
        machine = processor_of(parent.definition, child.machine)
        assert machine is not None
        self._session.start(
            Start(
                run=RunRef(ref.tenant, child_id(parent.shard, ref.run_id, child.mapping, child.number), child.run_id),
                workflow=run.workflow,
                version=run.version,
                definition_hash=run.definition_hash,
                input=child.input,
                labels={},
                request_id=None,
                timeout_seconds=None,
                parent=Parent(
                    workflow_id=ref.workflow_id,
                    run_id=ref.run_id,
                    event=child.mapping,
                    index=child.number,
                    state=child.machine,
                ),
            ),
            machine,
            None,
            parent,
        )
