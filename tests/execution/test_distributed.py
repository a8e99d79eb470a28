"""A distributed Map as a run sees it: what it starts, counts, keeps and stops."""

from __future__ import annotations

import pytest

from daemon.execution.commands import (
    Cancel,
    FileFailed,
    ItemOutcome,
    ItemsEnded,
    ItemsRead,
    Limits,
    Proceed,
    ResultsWritten,
)
from daemon.execution.step import Child, ReadItems, WriteResults
from enginekit.messages.events import PartStatus
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.status import ExecutionStatus

ECHO: JSON = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
READER: JSON = {
    "Resource": "file:read",
    "Parameters": {"Path": "orders.csv"},
    "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"},
}
WRITER: JSON = {"Resource": "file:write", "Parameters": {"Path": "out"}}


def spread(**more: JSON) -> dict[str, JSON]:
    processor = {**ECHO, "ProcessorConfig": {"Mode": "DISTRIBUTED"}}
    return {"StartAt": "M", "States": {"M": {"Type": "Map", "ItemProcessor": processor, "End": True, **more}}}


@pytest.fixture
def mapped(drive):
    """A run that also keeps what it wants started, stopped, read and written."""

    class Mapped(drive):
        def __init__(self, *arguments, **named):
            self.children: list[Child] = []
            self.stopped: list[tuple[int, int, str]] = []
            self.kept: list = []
            self.files: list = []
            super().__init__(*arguments, **named)

        def _keep(self, decision):
            self.children += decision.children
            self.stopped += decision.stopped
            self.kept += decision.results
            self.files = decision.files
            if decision.files:
                decision.unfinished = False
            super()._keep(decision)

        def end(self, *numbers, output=None, error=None):
            for number in numbers:
                child = next(each for each in self.children if each.number == number)
                self.children.remove(child)
                value = decode(child.input) if output is None else output
                outcome = ItemOutcome(
                    index=number,
                    status=PartStatus.SUCCEEDED if error is None else PartStatus.FAILED,
                    output=encode(value),
                    record=encode({"Status": "SUCCEEDED" if error is None else "FAILED", "Error": error}),
                    error=error,
                )
                self.do(ItemsEnded(mapping=child.mapping, outcomes=[outcome]))

        def read(self, *values, exhausted=False, total=0):
            (wanted,) = [each for each in self.files if isinstance(each, ReadItems)]
            position = f"{wanted.taken + len(values)}"
            self.do(
                ItemsRead(
                    mapping=wanted.mapping,
                    after=wanted.position,
                    values=list(values),
                    position=position,
                    exhausted=exhausted,
                    total=total,
                    source="file:orders.csv",
                )
            )

        @property
        def inputs(self):
            return [decode(child.input) for child in self.children]

    return Mapped


def test_every_item_is_a_run_and_their_outputs_are_the_result(mapped):
    run = mapped(spread(), [5, 6, 7])
    assert run.inputs == [5, 6, 7]
    run.end(2, 0)
    assert run.run.status is ExecutionStatus.RUNNING
    run.end(1)
    assert run.output == [5, 6, 7]


def test_an_object_is_its_keys_and_values(mapped):
    run = mapped(spread(), {"a": 1, "b": 2})
    assert run.inputs == [{"Key": "a", "Value": 1}, {"Key": "b", "Value": 2}]
    selector: JSON = {"k.$": "$$.Map.Item.Key", "v.$": "$$.Map.Item.Value", "i.$": "$$.Map.Item.Index"}
    run = mapped(spread(ItemSelector={**selector, "s.$": "$$.Map.Item.Source"}), {"a": 1})
    assert run.inputs == [{"k": "a", "v": 1, "i": 0, "s": "STATE_DATA"}]


def test_no_items_are_an_empty_result(mapped):
    assert mapped(spread(), []).output == []


def test_no_more_are_in_flight_than_may_be(mapped):
    run = mapped(spread(MaxConcurrency=3), list(range(10)))
    seen = []
    while run.children:
        assert len(run.children) <= 3
        seen += run.inputs[:1]
        run.end(run.children[0].number)
    assert sorted(seen) == list(range(10))
    assert run.output == list(range(10))


def test_runs_are_started_in_chunks_by_steps_that_go_on(mapped):
    run = mapped(spread(), list(range(120)))
    assert len(run.children) == 120
    starts = [event for event in run.events if type(event).__name__ == "MapItemsStarted"]
    assert [len(event.run_ids) for event in starts] == [50, 50, 20]
    assert len({run_id for event in starts for run_id in event.run_ids}) == 120


def test_one_failed_item_fails_a_map_that_tolerates_none(mapped):
    run = mapped(spread(), [1, 2, 3])
    run.end(1, error="Boom: no")
    assert run.run.error == "States.ExceedToleratedFailureThreshold"
    assert run.run.cause == "The specified tolerated failure threshold was exceeded"
    assert sorted(number for _, number, _ in run.stopped) == [0, 2]


@pytest.mark.parametrize(
    ("tolerance", "failures", "fails"),
    [
        ({"ToleratedFailureCount": 2}, 2, False),
        ({"ToleratedFailureCount": 2}, 3, True),
        ({"ToleratedFailureCountPath": "$.n"}, 2, True),
        ({"ToleratedFailurePercentage": 50}, 5, False),
        ({"ToleratedFailurePercentage": 50}, 6, True),
        ({"ToleratedFailurePercentage": 33.3}, 3, False),
        ({"ToleratedFailurePercentagePath": "$.n"}, 1, True),
        ({"ToleratedFailureCount": 9, "ToleratedFailurePercentage": 10}, 2, True),
    ],
)
def test_as_many_may_fail_as_are_tolerated(mapped, tolerance, failures, fails):
    data = {"n": 1, "items": list(range(10))}
    run = mapped(spread(ItemsPath="$.items", **tolerance), data)
    for number in range(10):
        if run.run.status.closed:
            break
        run.end(number, error="Boom" if number < failures else None)
    if fails:
        assert run.run.error == "States.ExceedToleratedFailureThreshold"
    else:
        failed = {"Status": "FAILED", "Error": "Boom"}
        assert run.output == [failed] * failures + list(range(failures, 10))


def test_its_failure_is_caught_and_retried_as_that_of_any_state(mapped):
    states = spread(
        Retry=[{"ErrorEquals": ["States.ExceedToleratedFailureThreshold"], "MaxAttempts": 1}],
        Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Sorry"}],
    )
    states["States"]["Sorry"] = {"Type": "Succeed", "OutputPath": "$.Error"}
    run = mapped(states, [1, 2])
    run.end(0, error="Boom")
    assert run.stopped
    run.children.clear()
    run.advance(2)
    assert run.inputs == [1, 2]
    first = run.children[0].mapping
    run.end(1, error="Boom")
    assert run.output == "States.ExceedToleratedFailureThreshold"
    # What a run of a Map that is over comes to is nobody's business any more.
    run.do(ItemsEnded(mapping=first, outcomes=[]))


def test_items_are_batched(mapped):
    batcher: JSON = {"MaxItemsPerBatch": 4, "BatchInput": {"who.$": "$.who"}}
    run = mapped(spread(ItemsPath="$.items", ItemBatcher=batcher), {"who": "me", "items": list(range(10))})
    assert run.inputs == [
        {"BatchInput": {"who": "me"}, "Items": items} for items in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])
    ]


def test_batches_are_bounded_in_bytes(mapped):
    run = mapped(spread(ItemBatcher={"MaxInputBytesPerBatch": 300}), ["x" * 100] * 5)
    assert [len(each["Items"]) for each in run.inputs] == [2, 2, 1]
    run = mapped(spread(ItemBatcher={"MaxItemsPerBatch": 100}), ["x" * 2500] * 20, Limits(payload_bytes=60_000))
    assert all(len(child.input) <= 60_000 for child in run.children)


def test_the_failed_items_of_a_batch_count_each(mapped):
    run = mapped(spread(ItemBatcher={"MaxItemsPerBatch": 5}, ToleratedFailureCount=4), list(range(10)))
    run.end(0, error="Boom")
    assert run.run.error == "States.ExceedToleratedFailureThreshold"


def test_results_that_are_too_large_fail_it_by_name(mapped):
    run = mapped(spread(), list(range(5)), Limits(payload_bytes=10_000))
    for number in range(5):
        run.end(number, output="x" * 3000)
    assert run.run.error == "States.DataLimitExceeded"
    assert run.run.cause == (
        "The state/task 'M' returned a result with a size exceeding the maximum number of bytes service limit."
    )
    assert run.run.history_bytes < 15_000


def test_flatten_and_none_shape_the_results(mapped):
    run = mapped(spread(ResultWriter={"WriterConfig": {"Transformation": "FLATTEN", "OutputType": "JSON"}}), [1, 2])
    run.end(0, output=[1, 2])
    run.end(1, output="a")
    assert run.output == [1, 2, "a"]
    run = mapped(spread(ResultWriter={"WriterConfig": {"Transformation": "NONE", "OutputType": "JSON"}}), [1])
    run.end(0)
    assert run.output == [{"Status": "SUCCEEDED", "Error": None}]


def test_items_are_read_as_there_is_room_for_them(mapped):
    run = mapped(spread(ItemReader=READER, MaxConcurrency=4), {})
    (wanted,) = run.files
    assert (wanted.position, wanted.taken, wanted.limit) == ("", 0, 4)
    run.read({"id": "1"}, {"id": "2"}, {"id": "3"}, {"id": "4"}, total=6)
    assert run.inputs == [{"id": "1"}, {"id": "2"}, {"id": "3"}, {"id": "4"}]
    run.do(Proceed())
    assert run.files == []
    run.end(0, 1)
    run.do(Proceed())
    (wanted,) = run.files
    assert (wanted.position, wanted.taken, wanted.limit) == ("4", 4, 2)
    # A page that is brought twice counts once.
    files = list(run.files)
    run.read({"id": "5"}, {"id": "6"}, exhausted=True, total=6)
    run.files = files
    run.read({"id": "5"}, {"id": "6"}, exhausted=True, total=6)
    run.end(2, 3, 4, 5)
    assert run.output == [{"id": str(number)} for number in range(1, 7)]


def test_a_file_that_cannot_be_read_fails_it(mapped):
    run = mapped(spread(ItemReader=READER), {})
    (wanted,) = run.files
    run.do(FileFailed(mapping=wanted.mapping, error="States.ItemReaderFailed", cause="orders.csv: no such file"))
    cause = "An error occurred while executing the state 'M' (entered at the event id #2). orders.csv: no such file"
    assert (run.run.error, run.run.cause) == ("States.ItemReaderFailed", cause)


def test_results_are_rows_until_they_are_written(mapped):
    run = mapped(spread(ResultWriter=WRITER), [1, 2])
    run.end(0)
    run.end(1)
    assert [(each.number, each.status) for each in run.kept] == [(0, "SUCCEEDED"), (1, "SUCCEEDED")]
    run.do(Proceed())
    (wanted,) = run.files
    assert isinstance(wanted, WriteResults)
    run.do(ResultsWritten(mapping=wanted.mapping, result={"ResultWriterDetails": {"Key": "out/manifest.json"}}))
    assert run.output == {"ResultWriterDetails": {"Key": "out/manifest.json"}}


def test_a_run_that_is_canceled_stops_its_items(mapped):
    run = mapped(spread(), [1, 2])
    run.do(Cancel(reason="", request_id=None))
    assert len(run.stopped) == 2
    assert run.run.status is ExecutionStatus.CANCELED


def test_what_comes_after_it_goes_on_without_it(mapped):
    definition = spread(Next="A")
    del definition["States"]["M"]["End"]
    definition["States"]["A"] = {"Type": "Task", "Resource": "echo", "End": True}
    run = mapped(definition, [1, 2])
    run.end(0, 1, output="done")
    assert run.run.mappings == {}
    run.complete("A", 7)
    assert run.output == 7
