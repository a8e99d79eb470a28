"""What one commit writes, and what it releases once it is on disk.

Decisions gather here while the batch before is being written. Nothing leaves a batch before its commit: no answer, no
offer of a task, no acknowledgement (invariant 1).
"""

from __future__ import annotations

from typing import NamedTuple

import trio

from daemon.clock import millis
from daemon.execution import snapshot
from daemon.execution.commands import Pulse
from daemon.execution.deadlines import next_wake
from daemon.execution.step import Decision
from daemon.journal.letters import letter_row
from daemon.journal.live import LiveRun
from daemon.links.interface import Request
from daemon.stores.rows import (
    Batch,
    Closing,
    DefinitionWrite,
    Effect,
    LetterRow,
    MapResult,
    NewExecution,
    Purge,
    RunWrite,
    ScheduleWrite,
    Snapshot,
)
from enginekit.messages.calls import Result
from enginekit.messages.links import Millis, OfferTask, QueuedTask, QueueKey, RunRef, TaskRef
from enginekit.messages.status import Refused

PROCEED = "proceed"
"""The effect of a step that was cut short."""

SNAPSHOT_BYTES = 64 * 1024
"""A tail shorter than this is not worth a snapshot."""


class PendingWrite:
    """One run's share of a batch while it gathers."""

    __slots__ = (
        "created",
        "effects_added",
        "effects_removed",
        "epoch",
        "events",
        "first_event_id",
        "letters_added",
        "letters_removed",
        "live",
        "reopened",
        "results_added",
        "results_removed",
        "schedule",
        "tasks_added",
        "tasks_removed",
        "tasks_returned",
        "tasks_started",
    )

    def __init__(self, live: LiveRun, epoch: int, first_event_id: int) -> None:
        self.live = live
        self.epoch = epoch
        self.first_event_id = first_event_id
        self.events: list[bytes] = []
        self.created: NewExecution | None = None
        self.tasks_added: dict[int, QueuedTask] = {}
        self.tasks_started: list[int] = []
        self.tasks_returned: list[int] = []
        self.tasks_removed: list[int] = []
        self.effects_added: list[Effect] = []
        self.effects_removed: list[int] = []
        self.results_added: list[MapResult] = []
        self.results_removed: list[int] = []
        self.schedule: ScheduleWrite | None = None
        """The schedule that has started or canceled it."""
        self.reopened = False
        self.letters_added: list[LetterRow] = []
        self.letters_removed: list[int] = []

    def add(self, decision: Decision) -> None:
        self.events += decision.events
        for task_id in decision.removed:
            # A task that comes and goes within one batch never was, for the store.
            if self.tasks_added.pop(task_id, None) is None:
                self.tasks_removed.append(task_id)
        self.results_added += [
            MapResult(map_id=each.mapping, number=each.number, status=each.status, data=bytes(each.data))
            for each in decision.results
        ]
        if decision.dead_letter is not None:
            self.letters_added.append(letter_row(self.live.run, decision.dead_letter))
        self.reopened = self.reopened or decision.redriven
        self.tasks_started += decision.started
        self.tasks_returned += decision.returned

    def row(self, pulse: Pulse) -> tuple[RunWrite, Millis | None]:
        """The write, with the run's next wake-up and, where its time has come, a snapshot."""
        live = self.live
        run = live.run
        wake = next_wake(run, pulse)
        wake_at = None if wake is None else millis(wake)
        closing = None
        if run.closed_at is not None and self.events:
            closing = Closing(status=run.status, error=run.error, closed_at=millis(run.closed_at))
        return (
            RunWrite(
                shard=live.shard,
                epoch=self.epoch,
                run=run.ref,
                first_event_id=self.first_event_id,
                events=self.events,
                wake_at=wake_at,
                created=self.created,
                closing=closing,
                snapshot=_snapshot(live),
                tasks_added=list(self.tasks_added.values()),
                tasks_started=self.tasks_started,
                tasks_returned=self.tasks_returned,
                tasks_removed=self.tasks_removed,
                effects_added=self.effects_added,
                effects_removed=self.effects_removed,
                results_added=self.results_added,
                results_removed=self.results_removed,
                schedule=self.schedule,
                reopened=self.reopened,
                letters_added=self.letters_added,
                letters_removed=self.letters_removed,
            ),
            wake_at,
        )


def _snapshot(live: LiveRun) -> Snapshot | None:
    """A snapshot once the tail has outgrown the last one, so that their cost stays in proportion."""
    run = live.run
    if run.history_bytes - live.snapshot_at <= max(SNAPSHOT_BYTES, live.snapshot_size):
        return None
    data = snapshot.dump(run)
    live.snapshot_at = run.history_bytes
    live.snapshot_size = len(data)
    return Snapshot(event_id=run.last_event_id, fingerprint=snapshot.FINGERPRINT, data=data)


class Answer(NamedTuple):
    """How a request ends, and the runs that this tells about."""

    request: Request
    outcome: Result | Refused
    about: tuple[RunRef, ...] = ()

    def give(self) -> None:
        if isinstance(self.outcome, Refused):
            self.request.refuse(self.outcome)
        else:
            self.request.answer(self.outcome)


class Gathering:
    """A batch that is gathering, or being written."""

    def __init__(self) -> None:
        self.committed = trio.Event()
        self.writes: dict[str, PendingWrite] = {}
        self.definitions: list[DefinitionWrite] = []
        self._texts: set[tuple[str, str]] = set()
        """Those among them that are inline ones, by tenant and hash."""
        self.schedules: list[ScheduleWrite] = []
        """Those that go with no run."""
        self.purges: list[Purge] = []
        """Runs that are to go."""
        self.bytes = 0
        """Of the events, definitions and schedules in it."""
        self.answers: list[Answer] = []
        self.offers: list[tuple[LiveRun, int, OfferTask]] = []
        self.retired: list[TaskRef] = []
        self.taken: dict[QueueKey, list[TaskRef]] = {}
        """Those that a worker in another process has started, by their queue."""
        self.canceled: list[TaskRef] = []
        self.called_off: dict[str, list[TaskRef]] = {}
        """Of the canceled, those that a Worker in another process may be running, by that Worker."""
        self.recorded: dict[str, list[TaskRef]] = {}
        """Outcomes, by the worker that reported them."""
        self.unfinished: list[LiveRun] = []
        self.stopped: list[tuple[LiveRun, int, bytes]] = []
        """Runs with a Map that is over, the Map, and what is to be canceled of it."""
        self.obliged: list[tuple[RunRef, int]] = []
        """Runs, and their effects about a child or a parent that are to be delivered."""
        self.held: list[tuple[str, str]] = []
        """Names that other starts wait for."""

    @property
    def empty(self) -> bool:
        return not self.writes and not self.definitions and not self.schedules and not self.purges

    def all_schedules(self) -> list[ScheduleWrite]:
        """Those of its runs, too."""
        return [*self.schedules, *(each.schedule for each in self.writes.values() if each.schedule is not None)]

    def write_of(self, live: LiveRun, epoch: int, first_event_id: int) -> PendingWrite:
        """The run's share, begun if need be."""
        run_id = live.run.ref.run_id
        pending = self.writes.get(run_id)
        if pending is None:
            pending = self.writes[run_id] = PendingWrite(live, epoch, first_event_id)
            live.batch = self
        return pending

    def bring(self, text: DefinitionWrite) -> None:
        """An inline definition's, with the run that is started by it, and even where it is on disk: it goes from there
        with the last run that has it, and nobody can know that this was not the moment. Once is enough for all."""
        key = text.tenant, text.hash
        if key not in self._texts:
            self._texts.add(key)
            self.bytes += len(text.text)
            self.definitions.append(text)

    def leave_out(self, ref: RunRef, live: LiveRun | None, refused: Refused) -> None:
        """Write nothing of this run after all, and tell those who wait for it."""
        self.writes.pop(ref.run_id, None)
        kept = []
        for answer in self.answers:
            if ref in answer.about:
                answer.request.refuse(refused)
            else:
                kept.append(answer)
        self.answers = kept
        self.offers = [offer for offer in self.offers if offer[0] is not live]
        self.unfinished = [other for other in self.unfinished if other is not live]

    def rows(self, pulses: dict[str, Pulse], quiet: Pulse) -> tuple[Batch, list[tuple[LiveRun, Millis]]]:
        """The batch as the store takes it, and the wake-ups in it."""
        runs: list[RunWrite] = []
        wakes: list[tuple[LiveRun, Millis]] = []
        for run_id, pending in self.writes.items():
            row, wake_at = pending.row(pulses.get(run_id, quiet))
            runs.append(row)
            if wake_at is not None:
                wakes.append((pending.live, wake_at))
        return Batch(runs=runs, definitions=self.definitions, schedules=self.schedules, purges=self.purges), wakes
