"""What every store refuses before it looks at its own data: batches that no store could write as they are said."""

from __future__ import annotations

from daemon.stores.faults import BatchRefused
from daemon.stores.rows import Batch, RunWrite


def check_batch(batch: Batch) -> None:
    """Raises BatchRefused naming the run that is at fault."""
    if len({write.run.run_id for write in batch.runs}) != len(batch.runs):
        raise BatchRefused("a run is written twice in one batch")
    for write in batch.runs:
        _check_run(write)
    schedules = batch.all_schedules()
    if len({write.schedule for write in schedules}) != len(schedules):
        raise BatchRefused("a schedule is written twice in one batch")
    for schedule in schedules:
        if schedule.data is None and schedule.revision == 1:
            raise BatchRefused(f"schedule {schedule.schedule.schedule_id!r}: it is not there to be removed")
    for definition in batch.definitions:
        if (definition.name is None) != (definition.version is None):
            raise BatchRefused(f"definition {definition.hash}: a name and a version go together")


def _check_run(write: RunWrite) -> None:
    run = write.run
    if write.created is not None and (write.first_event_id != 1 or not write.events):
        raise BatchRefused(f"run {run.run_id}: a run is created with its first event")
    if write.closing is not None and not write.closing.status.closed:
        raise BatchRefused(f"run {run.run_id}: {write.closing.status.value} is not how a run closes")
    if write.closing is not None and not write.events:
        raise BatchRefused(f"run {run.run_id}: a run closes with its last event")
    if write.schedule is not None and write.schedule.schedule.tenant != run.tenant:
        raise BatchRefused(f"run {run.run_id}: its schedule is another tenant's")
    if write.reopened and (write.created is not None or not write.events):
        raise BatchRefused(f"run {run.run_id}: a run is opened again with its next event")
    for task in write.tasks_added:
        if task.task.run != run or task.queue.tenant != run.tenant:
            raise BatchRefused(f"run {run.run_id}: task {task.task.event_id} is another run's or another tenant's")
