"""One ownership of the shards: from taking their epochs to losing the store.

Everything that History knows beyond the store lives in a session and goes with it. Decisions are made here one after
the other, without an await between reading a run's state and gathering what was decided; runs that are not in memory
are read back first, and what was asked of them meanwhile waits in order.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Coroutine
from functools import partial

import structlog
import trio

from daemon.clock import Clock, millis, moment
from daemon.execution import tokens
from daemon.execution.commands import Command, Environment, Limits, Proceed, Pulse, Start, TaskDefaults, Wake
from daemon.execution.decide import decide, start
from daemon.execution.state import Run
from daemon.execution.step import Decision
from daemon.journal.across import Across
from daemon.journal.batch import PROCEED
from daemon.journal.children import CHILD_EFFECT, NOTICE_EFFECT, Children
from daemon.journal.clock_steps import ClockSteps
from daemon.journal.committer import Commits, Committer
from daemon.journal.dead_letters import sweep
from daemon.journal.definitions import Definitions
from daemon.journal.finding import Action, Finder, Lost
from daemon.journal.gathering import Gathers
from daemon.journal.identity import RunIds
from daemon.journal.lease import Lease, lapsed
from daemon.journal.live import LiveRun, LiveRuns
from daemon.journal.mapping import STOP, Mappings
from daemon.journal.outbox import Outbox
from daemon.journal.purging import purge_expired
from daemon.journal.releasing import Releases
from daemon.journal.schedules import Schedules
from daemon.journal.starting import Starts
from daemon.journal.stepping import Stepper
from daemon.journal.waiting import Waiters
from daemon.journal.watching import Watch
from daemon.language import ClosePolicy, Machine
from daemon.links.interface import Request
from daemon.links.sharding import shard_of_ref
from daemon.links.table import Links
from daemon.logs import about
from daemon.metrics import Metrics
from daemon.settings import Settings
from daemon.stores.interface import Store
from daemon.stores.rows import NewExecution, ShardEpochs, StoredEffect
from enginekit.messages.calls import Result
from enginekit.messages.links import (
    RefillQueues,
    ReportAgain,
    RescanTimers,
    RunRef,
    ToMatching,
    ToTimer,
    ToWorker,
)
from enginekit.messages.status import ErrorStatus, Refused

log = structlog.get_logger("history")


class Session:
    """What History knows while it owns its shards."""

    def __init__(
        self,
        links: Links,
        store: Store,
        commits: Commits,
        lease: Lease,
        settings: Settings,
        clock: Clock,
        entropy: random.Random,
        definitions: Definitions,
        owned: ShardEpochs,
        shards: int,
        run_ids: RunIds,
        metrics: Metrics,
        nursery: trio.Nursery,
    ) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self.definitions = definitions
        self.metrics = metrics
        self.nursery = nursery
        self.lease = lease
        self.epochs = owned.epochs
        self.shards = shards
        """How many there are, whoever has them."""
        self.token_key = owned.token_key
        self.run_ids = run_ids
        self.entropy = entropy
        self.runs = LiveRuns(settings.history.cache_bytes * len(owned.epochs) // shards)
        self.waiters = Waiters(settings.history.waiters)
        self.pulses: dict[str, Pulse] = {}
        self.quiet = Pulse(since=moment(clock.now()))
        self._gathers, self._releases = Gathers(self), Releases(self)
        self.committer = Committer(
            commits,
            self.pulses,
            self.quiet,
            settings.history.batch_bytes,
            self._releases.release,
            self.set_aside,
            metrics,
        )
        self.decided = 0
        self.mappings = Mappings(self, settings.files.path, threads=clock.real)
        self.committer.settle = self.mappings.settle
        self.stepper = Stepper(self.proceed, lambda: self.decided)
        self.effects: dict[str, int] = {}
        """The event id of each run's outstanding `proceed` effect."""
        self.held: dict[tuple[str, str], trio.Event] = {}
        """Names that a start or a registration is under way for."""
        self.starts = Starts(self)
        self.children = Children(self)
        self.watch = Watch(self)
        self.schedules = Schedules(self)
        self.clock_steps = ClockSteps(self)
        self.finder = Finder(store, definitions, self.runs, shards, nursery)
        self.history = links.history
        self.across = Across(self)
        self.matching: Outbox[ToMatching] = Outbox(links.matching, RefillQueues())
        self.worker: Outbox[ToWorker] = Outbox(links.worker, ReportAgain())
        self.timer: Outbox[ToTimer] = Outbox(links.timer, RescanTimers())
        history, tasks = settings.history, settings.tasks
        self.limits = Limits(
            payload_bytes=history.payload_bytes,
            history_events=history.history_events,
            history_bytes=history.history_bytes,
        )
        self.defaults = TaskDefaults(
            timeout_seconds=tasks.timeout_seconds,
            schedule_to_start_seconds=tasks.schedule_to_start_seconds,
            lease_seconds=tasks.lease_seconds,
            returns=tasks.returns,
            retry_attempts=tasks.retry_attempts,
            retry_interval_seconds=tasks.retry_interval_seconds,
            retry_backoff_rate=tasks.retry_backoff_rate,
            retry_max_delay_seconds=tasks.retry_max_delay_seconds,
            retry_after_limit_seconds=tasks.retry_after_limit_seconds,
        )

    async def begin(self) -> None:
        """Take up what the last owner left: report again, offer again, and go on with steps that were cut short."""
        self.nursery.start_soon(self.committer.run)
        self.nursery.start_soon(self.waiters.run)
        self.nursery.start_soon(self.stepper.run)
        if self.settings.dead_letters.retention_days:
            self.nursery.start_soon(sweep, self, self.settings.dead_letters.retention_days)
        if self.settings.history.retention_days:
            self.nursery.start_soon(purge_expired, self, self.settings.history.retention_days)
        for outbox in (self.matching, self.worker, self.timer):
            self.nursery.start_soon(outbox.run)
        self.worker.put(ReportAgain())
        self.matching.put(RefillQueues())
        self.timer.put(RescanTimers())
        after: StoredEffect | None = None
        cut_short: list[RunRef] = []
        stopped: list[StoredEffect] = []
        while page := await self.store.effects(1000, after, self.some):
            for effect in page:
                kind, number = effect.effect.kind, effect.effect.event_id
                if kind == PROCEED:
                    self.effects[effect.run.run_id] = number
                    cut_short.append(effect.run)
                elif kind == STOP:
                    stopped.append(effect)
                elif kind in (CHILD_EFFECT, NOTICE_EFFECT):
                    policy = ClosePolicy(effect.effect.data.decode()) if kind == CHILD_EFFECT else None
                    self.children.add(effect.run, number, policy)
                    self.children.due(effect.run, number)
            after = page[-1]
        # Nothing is decided before all of them are known: a run has one step to go on with.
        self.nursery.start_soon(self.children.run)
        for ref in cut_short:
            self.when_live(ref, self.stepper.add, partial(_log_lost, ref))
        for each in stopped:
            self.mappings.stop(each.run, self.shard(each.run), -each.effect.event_id, each.effect.data)
        await self.schedules.begin()

    def end(self) -> None:
        """Nobody knows what is on disk: whoever waits here is told to ask again."""
        refused = Refused(
            ErrorStatus.UNAVAILABLE,
            "History is starting again; whether this was recorded is not known: ask again",
            {"retry_after_seconds": 0.5},
        )
        for batch in (self.committer.committing, self.committer.gathering):
            if batch is not None:
                for answer in batch.answers:
                    answer.request.refuse(refused)
        self.finder.refuse_all(refused)
        self.waiters.refuse_all(refused)

    async def keep_up(self) -> None:
        """Wait while too many runs are being read back, or more is decided than the store has taken."""
        await self.finder.keep_up()
        await self.committer.room()

    def shard(self, ref: RunRef) -> int:
        return shard_of_ref(ref, self.shards)

    @property
    def some(self) -> list[int] | None:
        """Its shards, for reading what is theirs; None where it has all."""
        return None if len(self.epochs) == self.shards else list(self.epochs)

    def when_live(self, ref: RunRef, action: Action, lost: Lost) -> None:
        """Do it to the run: now, where it is in memory, else when it has been read back, in the order asked."""
        if self.some is None or self.shard(ref) in self.epochs:
            self.finder.when_live(ref, action, lost)
        else:
            lost(lapsed())

    def any_shard(self) -> int:
        """One of its own, for what may be in any."""
        return self.entropy.choice(list(self.epochs))

    # --- deciding -----------------------------------------------------------------------------------------------

    def environment(self, ref: RunRef, definition: Machine, by: str | None) -> Environment:
        return Environment(
            definition=definition,
            now=moment(self.clock.now()),
            by=by,
            random=self.entropy.random,
            uuid=lambda: str(uuid.UUID(int=self.entropy.getrandbits(128), version=4)),
            run_id=lambda: self.run_ids.make(self.clock.now(), self.shard(ref)),
            token=lambda event_id, returns: tokens.mint(self.token_key, ref, event_id, returns),
            limits=self.limits,
            defaults=self.defaults,
        )

    def start(self, command: Start, definition: Machine, by: str | None, parent: LiveRun | None = None) -> LiveRun:
        """A new run, gathered for the next commit. Raises Refused."""
        self.decided += 1
        ref = command.run
        self.clock_steps.look()
        self.clock_steps.begun(ref.run_id)
        try:
            run, decision = start(command, self.environment(ref, definition, by))
        except Exception as error:
            log.exception("a start could not be decided", **about(ref))
            raise Refused(ErrorStatus.INTERNAL, "the execution could not be started; nothing was written") from error
        live = LiveRun(run, definition, self.shard(ref), parent)
        self.runs.add(live)
        self._gathers.gather(
            live,
            decision,
            NewExecution(
                workflow=run.workflow,
                version=run.version,
                definition_hash=run.definition_hash,
                labels=run.labels,
                request_id=run.request_id,
                started_at=millis(run.started_at),
                parent=_started_by(run),
            ),
        )
        return live

    def act(self, live: LiveRun, command: Command, by: str | None = None) -> Decision:
        """Decide, and gather what was decided. Raises Refused."""
        ref = live.run.ref
        problem = self.finder.set_aside_for(ref)
        if problem is not None:
            raise problem
        self.clock_steps.look()
        self.clock_steps.settle(live)
        self.decided += 1
        maps, letter = list(live.run.mappings), live.run.letter
        try:
            decision = decide(live.run, command, self.environment(ref, live.definition, by))
            if decision.events or decision.probes:
                self._gathers.gather(live, decision)
                self._forget_results(live, maps)
                if decision.redriven:
                    self.discard_letter(live, letter)
        except Refused:
            raise
        except Exception as error:
            # The state may be half-way: nothing more is decided on it, what was committed before stays true.
            log.exception("a decision failed", **about(ref))
            raise self.set_aside(ref, f"a decision failed: {error!r}") from error
        return decision

    def act_quietly(self, live: LiveRun, command: Command, by: str | None = None) -> Decision | None:
        """The same where nobody waits for a refusal; None when it was refused."""
        try:
            return self.act(live, command, by)
        except Refused as refused:
            log.warning(
                "a command was refused", command=type(command).__name__, why=refused.message, **about(live.run.ref)
            )
            return None

    def wake(self, live: LiveRun) -> None:
        """Its `wake_at` has come."""
        decision = self.act_quietly(live, Wake(pulse=self.pulses.get(live.run.ref.run_id, self.quiet)))
        if decision is not None and not decision.events and not live.run.status.closed:
            # Nothing was due after all (a lease was renewed): the row's wake_at moves on.
            self._gathers.pending(live, live.run.last_event_id + 1)

    def proceed(self, live: LiveRun) -> None:
        """Go on where a step was cut short."""
        effect = self.effects.pop(live.run.ref.run_id, None)
        if effect is None or self.finder.set_aside_for(live.run.ref) is not None:
            return
        decision = self.act_quietly(live, Proceed())
        if decision is not None and decision.files and live.run.ref.run_id not in self.effects:
            # Files are wanted: until they have been read or written, that is what the effect stands for.
            self.effects[live.run.ref.run_id] = effect
        else:
            self.remove_effect(live, effect)
        for file in decision.files if decision is not None else ():
            self.mappings.serve(live, file)

    def remove_effect(self, live: LiveRun, event_id: int) -> None:
        """It has been done."""
        self._gathers.pending(live, live.run.last_event_id + 1).effects_removed.append(event_id)

    def _forget_results(self, live: LiveRun, maps: list[int]) -> None:
        """Of Maps that are over: their results are in files, or not wanted."""
        over = [mapping for mapping in maps if mapping not in live.run.mappings]
        if over:
            self._gathers.pending(live, live.run.last_event_id + 1).results_removed += over

    def discard_letter(self, live: LiveRun, event_id: int) -> None:
        """It is not wanted any more."""
        self._gathers.pending(live, live.run.last_event_id + 1).letters_removed.append(event_id)

    async def live(self, ref: RunRef) -> LiveRun:
        """The run, as it is now: after another await it may have been forgotten. Raises Refused."""
        found: list[LiveRun] = []
        lost: list[Refused] = []
        done = trio.Event()

        def have(live: LiveRun) -> None:
            # It stays in memory until whoever waits here has its turn: there is never a second state of it. (Cancelled
            # in between, the session ends, and all that it has in memory with it.)
            live.waiters += 1
            found.append(live)
            done.set()

        def have_not(refused: Refused) -> None:
            lost.append(refused)
            done.set()

        self.when_live(ref, have, have_not)
        await done.wait()
        if lost:
            raise lost[0]
        found[0].waiters -= 1
        return found[0]

    def pulse(self, live: LiveRun) -> Pulse:
        """The run's own."""
        return self.pulses.setdefault(live.run.ref.run_id, Pulse(since=self.quiet.since))

    # --- what leaves ----------------------------------------------------------------------------------------------

    def answer(self, request: Request, outcome: Result | Refused, *about: LiveRun) -> None:
        """Answer, or refuse, as soon as everything that the answer may know of these runs is on disk."""
        self._releases.answer(request, outcome, *about)

    def refuser(self, request: Request) -> Lost:
        """Refuses the request, for an action that cannot be done."""
        return partial(self.answer, request)

    def finish(self, request: Request, rest: Coroutine[None, None, None]) -> None:
        """Do the part of an answer that waits for the store. Whatever becomes of it, the request is ended."""
        self._releases.finish(request, rest)

    def set_aside(self, ref: RunRef, why: str) -> Refused:
        """This run cannot go on here: nothing more is decided about it, and whoever asked is told."""
        refused = self.finder.set_aside(ref, why)
        live = self.runs.get(ref.run_id)
        for batch in (self.committer.committing, self.committer.gathering):
            if batch is not None:
                batch.leave_out(ref, live, refused)
        if live is not None:
            live.batch = None
            self.waiters.refuse(live, refused)
        self.runs.remove(ref.run_id)
        return refused


def _started_by(run: Run) -> str | None:
    """The run_id of the execution that started it, and waits for it."""
    if run.parent is not None:
        return run.parent.run_id
    return None if run.parent_task is None else run.parent_task.run_id


def _log_lost(ref: RunRef, refused: Refused) -> None:
    log.warning("the execution of an effect cannot be loaded", why=refused.message, **about(ref))
