"""Distributed Maps on the whole daemon: items that are executions of their own, files, and what outlives a loss."""

from __future__ import annotations

import json

import pytest
import trio

from daemon.settings import FileSettings, HistorySettings, Settings
from enginekit.messages import calls
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
SLOW = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 600, "End": True}}}


def spread(processor, **more):
    processor = {**processor, "ProcessorConfig": {"Mode": "DISTRIBUTED"}}
    return {"StartAt": "M", "States": {"M": {"Type": "Map", "ItemProcessor": processor, "End": True, **more}}}


async def children(daemon, started, **more):
    found, token = [], None
    while True:
        page = await daemon.call(
            calls.ListWorkflows(parent=started.run_id, page_size=100, page_token=token, **more),
            calls.ListWorkflowsResult,
        )
        found += page.executions
        token = page.next_page_token
        if token is None:
            return found


def test_items_are_executions_that_can_be_seen_and_are_not_in_everybodys_way(simulate):
    async def scenario(daemon):
        started = await daemon.start(spread(ECHO), list(range(300)))
        closed = await daemon.closed(started)
        assert (closed.status, decode(closed.output)) == (ExecutionStatus.SUCCEEDED, list(range(300)))
        items = await children(daemon, started)
        assert len(items) == 300
        assert {item.status for item in items} == {ExecutionStatus.SUCCEEDED}
        on_top = await daemon.call(calls.ListWorkflows(), calls.ListWorkflowsResult)
        assert [each.run_id for each in on_top.executions] == [started.run_id]
        item = items[7]
        about = {"workflow_id": item.workflow_id, "run_id": item.run_id}
        view = await daemon.call(calls.DescribeWorkflow(**about), calls.DescribeWorkflowResult)
        assert view.status is ExecutionStatus.SUCCEEDED
        assert (await daemon.call(calls.GetHistory(**about), calls.GetHistoryResult)).closed
        with pytest.raises(Refused) as refused:
            await daemon.call(
                calls.StartWorkflow(definition=encode(ECHO), workflow_id=item.workflow_id), calls.StartWorkflowResult
            )
        assert refused.value.status is ErrorStatus.INVALID_ARGUMENT

    simulate(scenario)


@pytest.mark.parametrize("cache_bytes", [0, 32 * 1024 * 1024])
def test_a_loss_of_the_store_repeats_no_item_that_ended(simulate, cache_bytes):
    async def scenario(daemon):
        started = await daemon.start(spread(ECHO, MaxConcurrency=7), list(range(200)))
        for after_write in (True, False) * 4:
            await trio.sleep(0.2)
            daemon.memory.fail_next_commit(after_write=after_write)
        closed = await daemon.closed(started)
        assert (closed.status, decode(closed.output)) == (ExecutionStatus.SUCCEEDED, list(range(200)))
        assert len(await children(daemon, started)) == 200

    simulate(scenario, settings=Settings(history=HistorySettings(cache_bytes=cache_bytes)))


def test_canceling_the_parent_cancels_its_items_even_across_a_loss(simulate):
    async def scenario(daemon):
        started = await daemon.start(spread(SLOW), list(range(120)))
        await trio.sleep(5)
        assert len(await children(daemon, started, status=ExecutionStatus.RUNNING)) == 120
        about = {"workflow_id": started.workflow_id, "run_id": started.run_id}
        await daemon.call(calls.CancelWorkflow(**about), calls.Acknowledged)
        daemon.memory.fail_next_commit(after_write=False)
        await trio.sleep(30)
        assert len(await children(daemon, started, status=ExecutionStatus.CANCELED)) == 120
        assert await daemon.memory.effects(10) == []

    simulate(scenario, settings=Settings(history=HistorySettings(cache_bytes=0)))


def test_a_failed_item_stops_the_others(simulate):
    states = {
        "C": {
            "Type": "Choice",
            "Choices": [{"Variable": "$", "NumericEquals": 5, "Next": "F"}],
            "Default": "W",
        },
        "F": {"Type": "Fail", "Error": "Boom", "Cause": "five"},
        "W": {"Type": "Wait", "Seconds": 600, "End": True},
    }

    async def scenario(daemon):
        started = await daemon.start(spread({"StartAt": "C", "States": states}), list(range(10)))
        closed = await daemon.closed(started)
        assert closed.error == "States.ExceedToleratedFailureThreshold"
        assert closed.cause == "The specified tolerated failure threshold was exceeded"
        await trio.sleep(5)
        assert {item.status for item in await children(daemon, started)} == {
            ExecutionStatus.CANCELED,
            ExecutionStatus.FAILED,
        }

    simulate(scenario)


def test_a_map_in_an_item_of_a_map(simulate):
    inner = spread(ECHO)
    inner["States"] = {"N": inner["States"].pop("M")}
    inner["StartAt"] = "N"

    async def scenario(daemon):
        started = await daemon.start(spread(inner), [[1, 2], [3], []])
        closed = await daemon.closed(started)
        assert decode(closed.output) == [[1, 2], [3], []]

    simulate(scenario)


def csv_of(rows):
    return "id,name\r\n" + "".join(f'{number},"name, of {number}"\r\n' for number in range(rows))


def test_items_come_from_files_and_results_go_to_files(simulate, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "orders.csv").write_text(csv_of(250))
    reader = {
        "Resource": "arn:aws:states:::s3:getObject",
        "Parameters": {"Bucket": "in", "Key.$": "$.file"},
        "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"},
    }
    writer = {
        "Resource": "arn:aws:states:::s3:putObject",
        "Parameters": {"Bucket": "out", "Prefix": "orders"},
        "WriterConfig": {"Transformation": "COMPACT", "OutputType": "JSON"},
    }

    async def scenario(daemon):
        definition = spread(ECHO, ItemReader=reader, ResultWriter=writer, MaxConcurrency=40)
        closed = await daemon.closed(await daemon.start(definition, {"file": "orders.csv"}))
        assert closed.status is ExecutionStatus.SUCCEEDED, closed.cause
        result = decode(closed.output)
        assert result["ResultWriterDetails"]["Bucket"] == "out"
        manifest = json.loads((tmp_path / "out" / result["ResultWriterDetails"]["Key"]).read_text())
        (written,) = manifest["ResultFiles"]["SUCCEEDED"]
        data = (tmp_path / "out" / written["Key"]).read_bytes()
        assert len(data) == written["Size"]
        assert json.loads(data) == [{"id": str(n), "name": f"name, of {n}"} for n in range(250)]
        assert manifest["ResultFiles"]["FAILED"] == []
        assert await daemon.memory.map_results("acme", closed.run_id, 3, "SUCCEEDED", -1, 100) == []

        missing = await daemon.closed(await daemon.start(definition, {"file": "none.csv"}))
        assert (missing.error, missing.cause) == (
            "States.ItemReaderFailed",
            "An error occurred while executing the state 'M' (entered at the event id #2). in/none.csv: there is "
            "no such file",
        )
        outside = await daemon.closed(await daemon.start(definition, {"file": "../../etc/passwd"}))
        assert outside.error == "States.ItemReaderFailed"
        assert "leads out of the folder" in outside.cause

    simulate(scenario, settings=Settings(files=FileSettings(folder=str(tmp_path))))


def test_files_are_nowhere_unless_a_folder_is_allowed(simulate):
    reader = {"Resource": "file:list", "Parameters": {"Path": "/"}}

    async def scenario(daemon):
        closed = await daemon.closed(await daemon.start(spread(ECHO, ItemReader=reader)))
        assert closed.error == "States.ItemReaderFailed"
        assert "engine.toml" in closed.cause

    simulate(scenario)
