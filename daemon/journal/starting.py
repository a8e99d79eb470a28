"""Starting runs: one start of a name at a time, from the look into the store to the commit.

Whoever wants a run to exist comes here: the Frontend's callers, a task that has a child execution, a schedule. A start
is named by its request: the same request again answers the run that it started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import Raw

from daemon.execution.commands import Start
from daemon.language import Definition
from daemon.links.sharding import shard_of
from daemon.stores.rows import DefinitionWrite
from enginekit.messages.calls import Labels, Reuse
from enginekit.messages.events import ParentTask
from enginekit.messages.links import RunRef
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

if TYPE_CHECKING:
    from daemon.journal.live import LiveRun
    from daemon.journal.session import Session


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is to exist. Without a `workflow_id` it is named by its run_id. `text` is an inline definition's."""

    tenant: str
    by: str | None
    definition: Definition
    definition_hash: str
    input: Raw
    text: str | None = None
    workflow: str | None = None
    version: int | None = None
    workflow_id: str | None = None
    request_id: str | None = None
    timeout_seconds: float | None = None
    labels: Labels = {}
    reuse: Reuse = Reuse.ALLOW
    parent_task: ParentTask | None = None


class Starts:
    """Within one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def start(self, wanted: Wanted) -> LiveRun | RunRef:
        """The run, gathered for the next commit; or, on disk already, the run that this request started before.

        Raises Refused: ALREADY_EXISTS where the workflow_id may not be used (again).
        """
        session = self._session
        tenant = wanted.tenant
        names = [(tenant, f"request {wanted.request_id}")] if wanted.request_id is not None else []
        if wanted.workflow_id is not None:
            names.append((tenant, f"workflow {wanted.workflow_id}"))
        while waiting := next((name for name in names if name in self._session.held), None):
            await self._session.held[waiting].wait()
        for name in names:
            self._session.held[name] = trio.Event()
        started = False
        try:
            now = session.clock.now()
            if wanted.workflow_id is None:
                run_id = session.run_ids.make(now, session.any_shard())
            else:
                run_id = session.run_ids.make(now, shard_of(tenant, wanted.workflow_id, session.shards))
            ref = RunRef(tenant, wanted.workflow_id or run_id, run_id)
            await session.committer.room()
            if names:
                earlier = await self._earlier(ref, wanted)
                if earlier is not None:
                    return earlier
            live = session.start(
                Start(
                    run=ref,
                    workflow=wanted.workflow,
                    version=wanted.version,
                    definition_hash=wanted.definition_hash,
                    input=wanted.input,
                    labels=wanted.labels,
                    request_id=wanted.request_id,
                    timeout_seconds=wanted.timeout_seconds,
                    parent_task=wanted.parent_task,
                ),
                wanted.definition,
                wanted.by,
            )
            batch = session.committer.gathering
            batch.held += names
            started = True
            if wanted.text is not None:
                batch.bring(
                    DefinitionWrite(tenant=tenant, hash=wanted.definition_hash, text=wanted.text, registered_at=now)
                )
            return live
        finally:
            if not started:
                for name in names:
                    self._session.held.pop(name).set()

    async def _earlier(self, ref: RunRef, wanted: Wanted) -> RunRef | None:
        """The run that this request started before. Raises Refused where the workflow_id may not be used again."""
        check = await self._session.store.start_check(ref.tenant, ref.workflow_id, wanted.request_id)
        if check.requested is not None:
            return check.requested
        latest = check.latest
        if latest is None:
            return None
        data = {"run_id": latest.run_id}
        if latest.status is ExecutionStatus.RUNNING:
            raise Refused(
                ErrorStatus.ALREADY_EXISTS,
                f'workflow_id: an execution "{ref.workflow_id}" is running (run {latest.run_id})',
                dict(data),
            )
        succeeded = latest.status is ExecutionStatus.SUCCEEDED
        if wanted.reuse is Reuse.REJECT or (wanted.reuse is Reuse.ALLOW_IF_FAILED and succeeded):
            raise Refused(
                ErrorStatus.ALREADY_EXISTS,
                f'workflow_id: "{ref.workflow_id}" was used by run {latest.run_id}, which closed as '
                f"{latest.status.value}; `reuse` is {wanted.reuse.value}",
                dict(data),
            )
        return None
