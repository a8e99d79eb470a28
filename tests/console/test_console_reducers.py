"""From notifications to state, without Textual and without a daemon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from console import reducers
from console.state import Choice, ConsoleState, Executions, Link, Opened, Standing
from console.views import choice_in_words, staleness, visible
from console.words import span, sparkline
from enginekit.errors import ProtocolError
from enginekit.messages.calls import ExecutionSummary, ListWorkflowsResult, QueueView
from enginekit.messages.status import ExecutionStatus
from enginekit.messages.subscriptions import ExecutionsChanged, HistoryGrown, Notify, QueuesChanged

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def execution(number: int, status: ExecutionStatus = ExecutionStatus.RUNNING, **more: object) -> ExecutionSummary:
    fields: dict[str, object] = {
        "workflow_id": f"order-{number}",
        "run_id": f"run-{number:06}",
        "workflow": "order",
        "version": 1,
        "status": status,
        "error": None,
        "labels": {"shop": f"s{number % 3}"},
        "started_at": START + timedelta(seconds=number),
        "closed_at": None,
    }
    return ExecutionSummary(**{**fields, **more})


def notify(topic: str, data: object, **more: object) -> Notify:
    return Notify(subscription="s", topic=topic, seq=1, data=msgspec.Raw(msgspec.json.encode(data)), **more)


def listed(*numbers: int, complete: bool = False) -> Executions:
    page = ListWorkflowsResult(
        executions=[execution(number) for number in numbers], next_page_token=None if complete else "older"
    )
    return reducers.with_page(Executions(), page)


def numbers(executions: Executions) -> list[int]:
    return [int(run.removeprefix("run-")) for run in executions.order]


def test_new_executions_come_first_and_known_ones_change_in_place() -> None:
    state = ConsoleState(executions=listed(9, 8, 7))
    changed = [execution(8, ExecutionStatus.FAILED), execution(11), execution(10)]
    state = reducers.told(state, notify("executions", ExecutionsChanged(executions=changed)), now=5.0)
    assert numbers(state.executions) == [11, 10, 9, 8, 7]
    assert state.executions.by_run["run-000008"].status is ExecutionStatus.FAILED
    assert state.link.as_of == 5.0
    assert not state.executions.behind


def test_what_is_older_than_all_that_was_read_waits_for_its_page() -> None:
    assert numbers(reducers.with_executions(listed(9, 8), [execution(3)])) == [9, 8]
    assert numbers(reducers.with_executions(listed(9, 8, complete=True), [execution(3)])) == [9, 8, 3]


def test_one_that_is_not_wanted_any_more_goes() -> None:
    running = replace(listed(9, 8, 7), choice=Choice(status=ExecutionStatus.RUNNING))
    after = reducers.with_executions(running, [execution(8, ExecutionStatus.SUCCEEDED), execution(10)])
    assert numbers(after) == [10, 9, 7]
    assert "run-000008" not in after.by_run


@given(st.lists(st.lists(st.integers(0, 60), max_size=8), max_size=8))
def test_the_order_is_that_of_the_daemon_however_changes_come(batches: list[list[int]]) -> None:
    executions = listed(40, 30, 20, complete=True)
    for batch in batches:
        executions = reducers.with_executions(executions, [execution(number) for number in batch])
    known = {40, 30, 20}.union(*batches)
    assert numbers(executions) == sorted(known, reverse=True)
    assert set(executions.order) == set(executions.by_run)


@pytest.mark.parametrize("how", [{"missed": 3}, {"snapshot": True}])
def test_after_missed_changes_and_a_new_beginning_all_is_read_again(how) -> None:
    state = ConsoleState(executions=listed(9))
    state = reducers.told(state, notify("executions", ExecutionsChanged(executions=[]), **how), now=1.0)
    assert state.executions.behind
    assert state.executions.missed == how.get("missed", 0)


def test_another_choice_is_read_anew_another_text_is_not() -> None:
    executions = listed(9, 8)
    assert reducers.chosen(executions, Choice(text="8")).order == executions.order
    other = reducers.chosen(executions, Choice(workflow="order"))
    assert (other.order, other.behind) == ([], True)


def test_text_is_found_in_names_labels_and_errors() -> None:
    executions = reducers.with_executions(listed(9, 8, 7), [execution(8, error="Shop.Down")])
    for text, found in (("ORDER-9", [9]), ("shop=s1", [7]), ("shop.down", [8]), ("nothing", [])):
        chosen = replace(executions, choice=Choice(text=text))
        assert [int(run[4:]) for run in visible(chosen)] == found
    words = choice_in_words(replace(executions, choice=Choice(text="x")), 1)
    assert words.startswith("1 of 3+ ")


def test_queues_change_go_and_begin_anew() -> None:
    def queue(name: str, rate: float = 1.0) -> QueueView:
        return QueueView(queue=name, kind="node", depth=1, oldest_seconds=0, pollers=0, dispatched=0, rate=rate)

    state = ConsoleState()
    first = QueuesChanged(queues=[queue("a"), queue("b")])
    state = reducers.told(state, notify("queues", first, snapshot=True), 1.0)
    state = reducers.told(state, notify("queues", QueuesChanged(queues=[queue("a", 7.0)], gone=[("node", "b")])), 2.0)
    assert list(state.queues.queues) == [("node", "a")]
    assert state.queues.rates == {("node", "a"): (1.0, 7.0)}
    state = reducers.told(state, notify("queues", QueuesChanged(queues=[queue("c")]), snapshot=True), 3.0)
    assert list(state.queues.queues) == [("node", "c")]


def test_a_notification_that_is_not_understood_says_so() -> None:
    with pytest.raises(ProtocolError, match="queues"):
        reducers.told(ConsoleState(), notify("queues", {"queues": 1}), 1.0)


def test_events_are_taken_once_and_of_the_right_run_only() -> None:
    def event(number: int) -> msgspec.Raw:
        fields = {"type": "WorkflowCanceled", "id": number, "time": START}
        return msgspec.Raw(msgspec.json.encode(fields))

    opened = Opened(workflow_id="w", run_id="r")
    for ids in ([1, 2], [2, 3], [1, 2, 3, 4]):
        grown = HistoryGrown(run_id="r", events=[event(number) for number in ids], closed=False)
        opened = reducers.with_history(opened, grown)
    assert [each.id for each in opened.events] == [1, 2, 3, 4]
    other = HistoryGrown(run_id="another", events=[event(5)], closed=True)
    assert reducers.with_history(opened, other) is opened


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (Link(), "connecting"),
        (Link(standing=Standing.LIVE, as_of=99.0), "live"),
        (Link(standing=Standing.LIVE, as_of=90.0), "live, nothing new for 10 s"),
        (Link(standing=Standing.LOST, as_of=88.0), "reconnecting, as of 12 s ago"),
        (Link(standing=Standing.REFUSED), "not let in"),
    ],
)
def test_how_fresh_the_picture_is(link: Link, words: str) -> None:
    assert staleness(link, 100.0) == words


def test_spans_and_sparklines() -> None:
    assert [span(each) for each in (0.25, 59.9, 60, 7260, 90_000)] == ["0.2 s", "59 s", "1 min", "2 h 1 min", "1 d 1 h"]
    assert sparkline([0, 7, 3.5, 1], 6) == "  ▁█▅▂"
    assert sparkline([], 3) == "   "
    assert sparkline([0, 0], 2) == "▁▁"
