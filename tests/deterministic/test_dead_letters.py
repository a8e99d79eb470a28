"""Dead letters and redriving on the whole daemon, by the calls of the wire."""

from __future__ import annotations

import pytest
import trio

from daemon.journal import dead_letters as journal
from daemon.journal.across import Across
from daemon.settings import DeadLetterSettings, HistorySettings, Settings
from daemon.stores.memory import MemoryStore
from enginekit.messages import calls, dead_letters
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

NOTHING_KEPT = Settings(history=HistorySettings(cache_bytes=0))
WORK = {"Type": "Task", "Resource": "activity:work"}
SHIP = {"StartAt": "A", "States": {"A": {**WORK, "Next": "B"}, "B": {**WORK, "End": True}}}


async def poll(daemon, count=1):
    result = await daemon.call(
        calls.PollTask(queue="work", worker_id="w", max_tasks=count, wait_seconds=5), calls.PollTaskResult
    )
    return result.tasks


async def complete(daemon, output=None):
    (task,) = await poll(daemon)
    await daemon.call(calls.CompleteTask(token=task.token, output=encode(output)), calls.Acknowledged)
    return task


async def fail(daemon, error="Boom", cause="why"):
    (task,) = await poll(daemon)
    await daemon.call(calls.FailTask(token=task.token, error=error, cause=cause), calls.Acknowledged)
    return task


async def letters(daemon, **wanted):
    return await daemon.call(dead_letters.ListDeadLetters(**wanted), dead_letters.ListDeadLettersResult)


async def one_letter(daemon):
    (letter,) = (await letters(daemon)).dead_letters
    return letter


async def redrive(daemon, letter, **more):
    return await daemon.call(dead_letters.RedriveDeadLetter(id=letter.id, **more), calls.RedriveResult)


async def refused(awaitable):
    with pytest.raises(Refused) as found:
        await awaitable
    return found.value


@pytest.mark.parametrize("settings", [Settings(), NOTHING_KEPT])
def test_from_a_failure_to_its_success(simulate, settings):
    async def scenario(daemon):
        started = await daemon.start(SHIP, {"n": 1}, workflow_id="order-1")
        await complete(daemon, {"n": 2})
        first = await fail(daemon)
        assert (await daemon.closed(started)).status is ExecutionStatus.FAILED
        assert daemon.metrics.registry.get_sample_value("engine_dead_letters_total") == 1
        letter = await one_letter(daemon)
        assert (letter.workflow_id, letter.run_id, letter.path, letter.error, letter.attempts) == (
            "order-1",
            started.run_id,
            "B",
            "Boom",
            1,
        )
        whole = await daemon.call(dead_letters.GetDeadLetter(id=letter.id), dead_letters.GetDeadLetterResult)
        assert (decode(whole.input), whole.resource) == ({"n": 2}, "activity:work")
        assert [(each.attempt, each.error, each.cause) for each in whole.failures] == [(1, "Boom", "why")]
        assert await redrive(daemon, letter) == calls.RedriveResult(workflow_id="order-1", run_id=started.run_id)
        assert (await letters(daemon)).dead_letters == []
        second = await complete(daemon, "done")
        assert (second.attempt, second.idempotency_key) == (2, first.idempotency_key)
        closed = await daemon.closed(started)
        assert (closed.status, decode(closed.output)) == (ExecutionStatus.SUCCEEDED, "done")
        types = [type(event).__name__ for event in await daemon.events(started)]
        assert types.count("NodeEntered") == 2
        assert "WorkflowRedriven" in types
        gone = await refused(redrive(daemon, letter))
        assert gone.status is ErrorStatus.FAILED_PRECONDITION

    simulate(scenario, settings=settings)


def test_an_edited_input_is_what_the_worker_gets_under_another_key(simulate):
    async def scenario(daemon):
        started = await daemon.start(SHIP, {"n": 1})
        first = await fail(daemon)
        await redrive(daemon, await one_letter(daemon), input=encode({"n": "edited"}))
        second = await fail(daemon)
        assert decode(second.input) == {"n": "edited"}
        assert second.idempotency_key != first.idempotency_key
        letter = await one_letter(daemon)
        whole = await daemon.call(dead_letters.GetDeadLetter(id=letter.id), dead_letters.GetDeadLetterResult)
        assert (decode(whole.input), [each.attempt for each in whole.failures]) == ({"n": "edited"}, [1, 2])
        call = calls.RedriveWorkflow(workflow_id=started.workflow_id)
        await daemon.call(call, calls.RedriveResult)
        third = await complete(daemon)
        assert (decode(third.input), third.idempotency_key) == ({"n": "edited"}, second.idempotency_key)
        await complete(daemon, 1)
        assert decode((await daemon.closed(started)).output) == 1

    simulate(scenario)


@pytest.mark.parametrize("after_write", [True, False])
def test_a_redrive_whose_commit_is_lost_is_asked_for_again(simulate, after_write):
    async def scenario(daemon):
        started = await daemon.start(SHIP)
        await fail(daemon)
        letter = await one_letter(daemon)
        daemon.memory.fail_next_commit(after_write=after_write)
        lost = await refused(redrive(daemon, letter, request_id="r"))
        assert lost.status is ErrorStatus.UNAVAILABLE
        while True:
            try:
                await redrive(daemon, letter, request_id="r")
                break
            except Refused:
                await trio.sleep(0.1)
        assert (await letters(daemon)).dead_letters == []
        await complete(daemon)
        await complete(daemon, 2)
        assert decode((await daemon.closed(started)).output) == 2
        types = [type(event).__name__ for event in await daemon.events(started)]
        assert types.count("WorkflowRedriven") == 1

    simulate(scenario, settings=NOTHING_KEPT)


def test_a_newer_run_that_holds_the_id_is_in_the_way(simulate):
    async def scenario(daemon):
        await daemon.start(SHIP, workflow_id="order-1")
        await fail(daemon)
        letter = await one_letter(daemon)
        newer = await daemon.start(SHIP, workflow_id="order-1")
        why = await refused(redrive(daemon, letter))
        assert (why.status, why.data["run_id"]) == (ErrorStatus.FAILED_PRECONDITION, newer.run_id)
        assert "a newer run holds that id" in why.message
        await fail(daemon)
        assert (await refused(redrive(daemon, letter))).status is ErrorStatus.FAILED_PRECONDITION
        found = (await letters(daemon, workflow_id="order-1")).dead_letters
        assert [each.run_id for each in found] == [newer.run_id, letter.run_id]
        await redrive(daemon, found[0])
        busy = await refused(daemon.start(SHIP, workflow_id="order-1"))
        assert busy.status is ErrorStatus.ALREADY_EXISTS

    simulate(scenario)


def test_a_parent_that_has_moved_on_is_not_disturbed(simulate):
    catch = [{"ErrorEquals": ["Boom"], "Next": "Rest"}]
    parent = {
        "StartAt": "P",
        "States": {
            "P": {"Type": "Task", "Resource": "workflow:ship", "Catch": catch, "End": True},
            "Rest": {"Type": "Wait", "Seconds": 60, "End": True},
        },
    }

    async def scenario(daemon):
        call = calls.RegisterWorkflow(name="ship", definition=encode(SHIP))
        await daemon.call(call, calls.RegisterWorkflowResult)
        started = await daemon.start(parent)
        await fail(daemon)
        letter = await one_letter(daemon)
        assert letter.workflow == "ship"
        await trio.sleep(5)
        await redrive(daemon, letter)
        await complete(daemon)
        await complete(daemon, "late")
        await trio.sleep(5)
        child = await daemon.call(
            calls.DescribeWorkflow(workflow_id=letter.workflow_id, run_id=letter.run_id), calls.DescribeWorkflowResult
        )
        assert (child.status, decode(child.output)) == (ExecutionStatus.SUCCEEDED, "late")
        closed = await daemon.closed(started)
        assert decode(closed.output)["Error"] == "Boom"
        assert await daemon.memory.effects(10) == []

    simulate(scenario)


def test_an_execution_whose_time_has_passed_gets_it_anew(simulate):
    async def scenario(daemon):
        started = await daemon.start(SHIP, timeout_seconds=60)
        await fail(daemon)
        letter = await one_letter(daemon)
        await trio.sleep(3600)
        await redrive(daemon, letter)
        closed = await daemon.closed(started)
        assert closed.status is ExecutionStatus.TIMED_OUT
        assert (await letters(daemon)).dead_letters == []
        call = calls.RedriveWorkflow(workflow_id=started.workflow_id, run_id=started.run_id)
        await daemon.call(call, calls.RedriveResult)
        await complete(daemon)
        await complete(daemon, 1)
        assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED

    simulate(scenario)


def test_letters_are_listed_by_filter_in_pages_and_discarded(simulate):
    async def scenario(daemon):
        for number in range(7):
            await daemon.start(SHIP, workflow_id=f"order-{number}")
            await fail(daemon, error="Boom" if number % 2 else "Bang")
            await trio.sleep(1)
        page = await letters(daemon, page_size=3)
        names = [each.workflow_id for each in page.dead_letters]
        while page.next_page_token is not None:
            page = await letters(daemon, page_size=3, page_token=page.next_page_token)
            names += [each.workflow_id for each in page.dead_letters]
        assert names == [f"order-{number}" for number in reversed(range(7))]
        found = (await letters(daemon, error="Boom", node="A")).dead_letters
        assert [each.workflow_id for each in found] == ["order-5", "order-3", "order-1"]
        for letter in found:
            await daemon.call(dead_letters.DiscardDeadLetter(id=letter.id), calls.Acknowledged)
        assert (await letters(daemon, error="Boom")).dead_letters == []
        assert len((await letters(daemon)).dead_letters) == 4
        for call in (dead_letters.DiscardDeadLetter(id=found[0].id), dead_letters.GetDeadLetter(id=found[0].id)):
            assert (await refused(daemon.call(call, calls.Result))).status is ErrorStatus.NOT_FOUND
        # What was thrown away is the letter: the execution can be redriven by its own name.
        await daemon.call(calls.RedriveWorkflow(workflow_id="order-5"), calls.RedriveResult)
        bad = await refused(letters(daemon, page_token="nonsense"))
        assert bad.status is ErrorStatus.INVALID_ARGUMENT
        bad = await refused(daemon.call(dead_letters.GetDeadLetter(id="nonsense"), dead_letters.GetDeadLetterResult))
        assert (bad.status, "RUN_ID/NUMBER" in bad.message) == (ErrorStatus.INVALID_ARGUMENT, True)

    simulate(scenario)


def test_nothing_expires_unless_a_setting_says_so(simulate):
    async def scenario(daemon):
        await daemon.start(SHIP)
        await fail(daemon)
        await trio.sleep(40 * 86400)
        return len((await letters(daemon)).dead_letters)

    assert simulate(scenario) == 1
    assert simulate(scenario, settings=Settings(dead_letters=DeadLetterSettings(retention_days=30))) == 0


def test_letters_that_are_anothers_to_discard_are_passed_over(simulate, monkeypatch):
    """However many these are: those behind them go, and nobody looks at them again and again meanwhile."""
    monkeypatch.setattr(journal, "SWEEP_LETTERS", 2)

    async def scenario(daemon):
        started = []
        for number in range(7):
            started.append(await daemon.start(SHIP, workflow_id=f"order-{number}"))
            await fail(daemon)
        own = started[0].run_id
        monkeypatch.setattr(Across, "owns", lambda self, ref: ref.run_id == own)
        looks = 0
        look = MemoryStore.dead_letters

        async def counted(self, wanted):
            nonlocal looks
            looks += wanted.before is not None
            assert looks < 1000, "it goes round and round"
            return await look(self, wanted)

        monkeypatch.setattr(MemoryStore, "dead_letters", counted)
        await trio.sleep(30 * 86400 + 2 * journal.SWEEP_SECONDS)
        left = {each.run_id for each in (await letters(daemon)).dead_letters}
        assert left == {each.run_id for each in started[1:]}

    simulate(scenario, settings=Settings(dead_letters=DeadLetterSettings(retention_days=30)))


def test_what_is_wrong_with_an_edited_input_is_told_and_nothing_is_written(simulate):
    async def scenario(daemon):
        started = await daemon.start(SHIP)
        await fail(daemon)
        letter = await one_letter(daemon)
        before = await daemon.events(started)
        large = await refused(redrive(daemon, letter, input=encode("x" * 300_000)))
        assert large.status is ErrorStatus.INVALID_ARGUMENT
        assert await daemon.events(started) == before
        assert (await one_letter(daemon)) == letter

    simulate(scenario)
