"""Timer: tells History which runs' `wake_at` and which schedules' `next_at` has come, at about the right moment and in
batches.

The store keeps one `wake_at` a run and one `next_at` a schedule, indexed: those indexes are the sorted set of all
wake-ups. Timer holds only those of the next `window_seconds`, in a heap; the rest waits in the store at no cost. It
learns of wake-ups in two ways:

- *hints*: History says so after a commit that moved one. A later hint replaces an earlier one. A hint beyond what is
  held is dropped, but the next look at the store is brought forward to it.
- *looks* at the store: at the start, half a window before the first wake-up that is known beyond the window, and every
  now and then for hints and wake-ups that were lost. A look replaces everything held by what the store has: whatever
  it reads is at least as new as the hints that came before it.

How often is now and then: `scan_seconds` after something happened that may have been lost (a run was fired, a look
found what no hint had told of, a full batch of hints came and more may have found no room), and twice as long each
time that a look found everything as expected, up to `scan_limit_seconds`. So a timer that has nothing to do
does nothing, also under a mock clock that jumps over three days, and a lost wake-up is found soon while there is
traffic to lose. What History alone can know (that it has restarted) it says: RescanTimers.

Nothing is decided here: History looks whether anything is due, so that a wake-up too many changes nothing.
"""

from __future__ import annotations

import heapq
from typing import TypeAlias

import structlog
import trio

from daemon.clock import Clock, StepWatch
from daemon.links.interface import Request
from daemon.links.table import Links
from daemon.settings import TimerSettings
from daemon.stores.interface import Store, StoreUnavailable
from daemon.stores.rows import DueRun, DueSchedule
from enginekit.messages.links import (
    ArmSchedule,
    ArmTimer,
    LookAtClock,
    Millis,
    Ping,
    Pong,
    RescanTimers,
    RunRef,
    ScheduleRef,
    ToTimer,
    WakeRuns,
    WakeSchedules,
)
from enginekit.messages.status import ErrorStatus, Refused

log = structlog.get_logger("daemon.timer")

Sleeper: TypeAlias = RunRef | ScheduleRef
"""What is to be woken."""

RECEIVE_LIMIT = 256
FIRE_RUNS = 256
"""Runs, or schedules, in one message to History."""
PAGE_RUNS = 256
HELD_RUNS = 20_000
"""Runs, and as many schedules, held in memory. When more fall into the window, a shorter window is held."""
STEP_SECONDS = 1.0
"""While a wake-up is near, how often the wall clock is looked at: it may step."""
LEAST_STEP_SECONDS = 0.001
"""Differences of times can be too small to make any difference to a clock: a mock clock would stand still."""
CROWDED_SECONDS = 2.0
"""The pause between looks while more falls into the window than is held."""
PAUSE_SECONDS = 0.05
PAUSE_LIMIT_SECONDS = 2.0
FAR_FUTURE: Millis = 1 << 53


class Timer:
    """One run of the Timer service."""

    def __init__(self, links: Links, store: Store, settings: TimerSettings, clock: Clock) -> None:
        self._links = links
        self._store = store
        self._settings = settings
        self._clock = clock
        self._watch = StepWatch(clock)
        self._window: Millis = round(settings.window_seconds * 1000)
        self._armed: dict[Sleeper, Millis] = {}
        self._heap: list[tuple[Millis, int, Sleeper]] = []
        self._serial = 0
        # Fired wake-ups that the store has not yet been seen without: when, and how many looks have found them still.
        self._fired: dict[Sleeper, tuple[Millis, int]] = {}
        self._horizon: Millis = 0
        self._beyond: Millis | None = None
        self._crowded = False
        self._interval = settings.scan_seconds
        self._looked_at = 0.0
        self._safety_look_at = 0.0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Once: a restart takes a new Timer, which looks into the store first.

        Started as soon as it receives.
        """
        task_status.started()
        while True:
            if self._watch.look():
                # History moves what lasts before it hears of anything that is due by the clock as it is now.
                await self._links.history.send(LookAtClock())
            if self._until_look() <= 0:
                await self._look()
            await self._fire()
            batch: list[ToTimer | Request] = []
            with trio.move_on_after(self._until_something()):
                batch = await self._links.timer.receive(RECEIVE_LIMIT)
            for message in batch:
                self._take(message)
            if len(batch) >= RECEIVE_LIMIT:
                # The link may have been full, and hints turned away.
                self._look_within(self._settings.scan_seconds)

    # --- what comes in -----------------------------------------------------------------------------------------------

    def _take(self, message: ToTimer | Request) -> None:
        match message:
            case ArmTimer(run, wake_at):
                self._hint(run, wake_at)
            case ArmSchedule(schedule, next_at):
                self._hint(schedule, next_at)
            case RescanTimers():
                self._fired.clear()
                self._look_within(0.0)
            case Request(call=Ping()):
                message.answer(Pong())
            case Request():
                message.refuse(
                    Refused(ErrorStatus.INVALID_ARGUMENT, f"Timer does not answer {type(message.call).__name__}")
                )

    def _hint(self, sleeper: Sleeper, wake_at: Millis) -> None:
        self._fired.pop(sleeper, None)
        if wake_at < self._horizon and (len(self._armed) < HELD_RUNS or sleeper in self._armed):
            self._arm(sleeper, wake_at)
        else:
            self._armed.pop(sleeper, None)
            self._crowded = self._crowded or wake_at < self._horizon
            self._beyond = wake_at if self._beyond is None else min(self._beyond, wake_at)

    def _arm(self, sleeper: Sleeper, wake_at: Millis) -> None:
        if self._armed.get(sleeper) == wake_at:
            return
        self._armed[sleeper] = wake_at
        self._serial += 1
        heapq.heappush(self._heap, (wake_at, self._serial, sleeper))
        if len(self._heap) > 2 * len(self._armed) + 64:
            self._heap = [item for item in self._heap if self._armed.get(item[2]) == item[0]]
            heapq.heapify(self._heap)

    # --- what is due -------------------------------------------------------------------------------------------------

    def _earliest(self) -> Millis | None:
        heap = self._heap
        while heap and self._armed.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    async def _fire(self) -> None:
        """Tell History of everything whose time has come. Waits while History's link is full: History waits for
        nobody, and hints that find no room meanwhile are made good for by a look."""
        while True:
            now = self._clock.now()
            runs: list[RunRef] = []
            schedules: list[ScheduleRef] = []
            while max(len(runs), len(schedules)) < FIRE_RUNS and self._is_due(now):
                sleeper = heapq.heappop(self._heap)[2]
                self._fired[sleeper] = (self._armed.pop(sleeper), 0)
                if isinstance(sleeper, RunRef):
                    runs.append(sleeper)
                else:
                    schedules.append(sleeper)
            if not runs and not schedules:
                return
            crowded = len(self._fired) > HELD_RUNS
            self._look_within(CROWDED_SECONDS if crowded else self._settings.scan_seconds)
            if runs:
                await self._links.history.send(WakeRuns(runs))
            if schedules:
                await self._links.history.send(WakeSchedules(schedules))

    def _is_due(self, now: Millis) -> bool:
        earliest = self._earliest()
        return earliest is not None and earliest <= now

    # --- when to wake ------------------------------------------------------------------------------------------------

    def _look_within(self, seconds: float) -> None:
        """Something may have been lost: look into the store at most `seconds` from now, and keep an eye on it."""
        self._interval = self._settings.scan_seconds
        self._safety_look_at = min(self._safety_look_at, trio.current_time() + seconds)

    def _until_look(self) -> float:
        """Seconds until the next look at the store."""
        now = trio.current_time()
        until = self._safety_look_at - now
        if self._beyond is not None:
            ahead = (self._beyond - self._clock.now()) / 1000
            if self._crowded:
                ahead = max(ahead - STEP_SECONDS, self._looked_at + CROWDED_SECONDS - now)
            else:
                ahead -= self._settings.window_seconds / 2
            until = min(until, ahead)
        return until

    def _until_something(self) -> float:
        """Seconds until there is something to do unless a message comes."""
        until = self._until_look()
        earliest = self._earliest()
        if earliest is not None:
            until = min(until, (earliest - self._clock.now()) / 1000, STEP_SECONDS)
        return max(until, LEAST_STEP_SECONDS)

    # --- looking into the store --------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Take over the store's wake-ups of the window. While the store is away, wait for it: then nothing can fire
        that History could write down."""
        pause = PAUSE_SECONDS
        while True:
            now = self._clock.now()
            try:
                rows, beyond, horizon = await self._read(now + self._window)
            except StoreUnavailable as error:
                if pause == PAUSE_SECONDS:
                    log.warning("the store cannot be read; timers go on when it is back", reason=str(error))
                await self._store.wait_ready()
                await trio.sleep(pause)
                pause = min(2 * pause, PAUSE_LIMIT_SECONDS)
            else:
                break
        expected = self._take_over(rows)
        self._beyond, self._horizon = beyond, horizon
        self._crowded = horizon < now + self._window
        scan = self._settings.scan_seconds
        self._interval = max(scan, min(2 * self._interval, self._settings.scan_limit_seconds)) if expected else scan
        self._looked_at = trio.current_time()
        self._safety_look_at = self._looked_at + self._interval

    async def _read(self, until: Millis) -> tuple[list[tuple[Sleeper, Millis]], Millis | None, Millis]:
        """What is to be woken before `until`, the first wake-up that is not among it, and until when that is all:
        sooner than `until` where there is too much."""
        runs, beyond, horizon = await self._read_runs(until)
        schedules, later, end = await self._read_schedules(until)
        if beyond is None or (later is not None and later < beyond):
            beyond = later
        return runs + schedules, beyond, min(horizon, end)

    async def _read_runs(self, until: Millis) -> tuple[list[tuple[Sleeper, Millis]], Millis | None, Millis]:
        found: list[tuple[Sleeper, Millis]] = []
        after: DueRun | None = None
        while page := await self._store.due_runs(FAR_FUTURE, PAGE_RUNS, after):
            for row in page:
                if row.wake_at >= until or len(found) >= HELD_RUNS:
                    return found, row.wake_at, min(row.wake_at, until)
                found.append((row.run, row.wake_at))
            if len(page) < PAGE_RUNS:
                break
            after = page[-1]
        return found, None, until

    async def _read_schedules(self, until: Millis) -> tuple[list[tuple[Sleeper, Millis]], Millis | None, Millis]:
        found: list[tuple[Sleeper, Millis]] = []
        after: DueSchedule | None = None
        while page := await self._store.due_schedules(FAR_FUTURE, PAGE_RUNS, after):
            for row in page:
                if row.next_at >= until or len(found) >= HELD_RUNS:
                    return found, row.next_at, min(row.next_at, until)
                found.append((row.schedule, row.next_at))
            if len(page) < PAGE_RUNS:
                break
            after = page[-1]
        return found, None, until

    def _take_over(self, rows: list[tuple[Sleeper, Millis]]) -> bool:
        """Hold exactly these. Whether they are what hints and earlier looks had led to expect."""
        before, self._armed, self._heap = self._armed, {}, []
        fired, self._fired = self._fired, {}
        expected = True
        for sleeper, at in rows:
            wake_at, looks = fired.get(sleeper, (None, 0))
            if wake_at == at and looks == 0:
                # History may be about to write down what it did; if the next look still finds this, it was lost.
                self._fired[sleeper] = (at, 1)
                expected = False
                continue
            if before.get(sleeper) != at and (self._beyond is None or at < self._beyond):
                expected = False
            self._arm(sleeper, at)
        return expected
