"""What History tells those who watch executions, across a loss of the store."""

from __future__ import annotations

import pytest
import trio

from daemon.api.gateway import Gateway
from daemon.journal.watching import ANSWERED, KEPT
from enginekit.messages import calls
from enginekit.messages.json import encode
from enginekit.messages.status import ExecutionStatus
from enginekit.messages.subscriptions import WatchExecutions

ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
FAIL = {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "No"}}}
WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 60, "End": True}}}


@pytest.fixture
def ask(owner):
    async def ask(daemon, watch=None, after=(), wait=10.0):
        gateway: Gateway = daemon.gateway
        return await gateway.watch(owner, WatchExecutions(watch=watch, after=list(after), wait_seconds=wait))

    return ask


def test_changes_are_told_once_each_as_they_are_now(simulate, ask):
    async def scenario(daemon):
        begun = await ask(daemon)
        assert begun.executions == []
        started = await daemon.start(WAIT)
        first = await ask(daemon, begun.watch, begun.seq)
        assert [(each.run_id, each.status) for each in first.executions] == [(started.run_id, ExecutionStatus.RUNNING)]
        await daemon.closed(started)
        other = await daemon.start(ECHO)
        await daemon.closed(other)
        second = await ask(daemon, begun.watch, first.seq)
        assert [(each.run_id, each.status) for each in second.executions] == [
            (started.run_id, ExecutionStatus.SUCCEEDED),
            (other.run_id, ExecutionStatus.SUCCEEDED),
        ]
        again = await ask(daemon, begun.watch, [0])
        assert len(again.executions) == 2
        at = trio.current_time()
        nothing = await ask(daemon, begun.watch, second.seq)
        assert (nothing.executions, trio.current_time() - at) == ([], 10.0)

    simulate(scenario)


def test_what_nobody_asked_for_in_a_while_is_not_kept(simulate, ask):
    async def scenario(daemon):
        begun = await ask(daemon)
        await trio.sleep(100)
        await daemon.closed(await daemon.start(ECHO))
        later = await ask(daemon, begun.watch, begun.seq, 1.0)
        assert later.executions == []

    simulate(scenario)


def test_after_a_loss_everything_has_to_be_looked_at_again(simulate, ask):
    async def scenario(daemon):
        begun = await ask(daemon)
        daemon.memory.fail_next_commit(after_write=True)
        with pytest.raises(Exception, match="UNAVAILABLE"):
            await daemon.start(WAIT)
        await trio.sleep(1)
        assert (await ask(daemon, begun.watch, begun.seq)).watch != begun.watch

    simulate(scenario)


def test_children_are_not_told_of(simulate, ask):
    parent = {"StartAt": "P", "States": {"P": {"Type": "Task", "Resource": "workflow:child", "End": True}}}

    async def scenario(daemon):
        call = calls.RegisterWorkflow(name="child", definition=encode(ECHO))
        await daemon.call(call, calls.RegisterWorkflowResult)
        begun = await ask(daemon)
        started = await daemon.start(parent)
        await daemon.closed(started)
        seen = await ask(daemon, begun.watch, begun.seq)
        assert [each.run_id for each in seen.executions] == [started.run_id]

    simulate(scenario)


def test_who_asks_too_seldom_misses_some_and_is_told_how_many(simulate, ask):
    async def scenario(daemon):
        begun = await ask(daemon)
        for _ in range(KEPT + 50):
            await daemon.start(FAIL)
        told, missed, after = 0, [], begun.seq
        while told < KEPT:
            seen = await ask(daemon, begun.watch, after)
            assert len(seen.executions) <= ANSWERED
            told, after = told + len(seen.executions), seen.seq
            missed.append(seen.missed)
        assert missed == [50] + [0] * (KEPT // ANSWERED - 1)
        nothing = await ask(daemon, begun.watch, after, 1.0)
        assert (nothing.executions, nothing.missed) == ([], 0)

    simulate(scenario)


def test_everybody_who_waits_is_told_at_once(simulate, ask):
    async def scenario(daemon):
        begun = await ask(daemon)
        told = []

        async def wait():
            seen = await ask(daemon, begun.watch, begun.seq, 20.0)
            told.append((len(seen.executions), trio.current_time()))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(wait)
            await trio.sleep(1)
            await daemon.start(WAIT)
            at = trio.current_time()
        assert told == [(1, at)] * 5

    simulate(scenario)


def test_who_was_away_for_long_is_not_left_waiting_for_numbers_of_before(simulate, ask):
    async def scenario(daemon):
        begun = await ask(daemon)
        for _ in range(20):
            await daemon.start(FAIL)
        seen = await ask(daemon, begun.watch, begun.seq)
        assert len(seen.executions) == 20
        await trio.sleep(100)
        for _ in range(5):
            await daemon.start(FAIL)
        # What was noted of the tenant is gone: the answer says so by another name, and the topic begins anew.
        assert (await ask(daemon, begun.watch, seen.seq, 1.0)).watch != begun.watch

    simulate(scenario)
