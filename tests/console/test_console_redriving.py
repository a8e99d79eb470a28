"""Redriving from the console, to the end of the run, and firing a schedule: by the keys, on a real daemon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sitting import Sitting, access, prepared, sit

from enginekit.client import Client
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import encode
from enginekit.messages.schedules import CreateSchedule


class Shop(ThreadingHTTPServer):
    """Answers 422 until it is repaired; what is under `/always` is well from the beginning."""

    repaired = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Counter)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Counter(BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        self.send_response(200 if self.server.repaired or self.path == "/always" else 422)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"sold": true}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as shop:
        thread = threading.Thread(target=shop.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield shop
        shop.shutdown()
        thread.join()


def buying(shop: Shop) -> dict[str, object]:
    return {
        "StartAt": "Buy",
        "States": {
            "Buy": {
                "Type": "Task",
                "Resource": "http",
                "Parameters": {"Method": "GET", "ApiEndpoint": f"{shop.url}/once"},
                "Next": "Thank",
            },
            "Thank": {"Type": "Pass", "End": True},
        },
    }


async def _failed(client: Client, shop: Shop, *names: str) -> None:
    """An execution of each name, which has failed in Buy."""
    await client.call(RegisterWorkflow(name="buying", definition=encode(buying(shop))))
    for name in names:
        await client.start("buying", workflow_id=name)
    for name in names:
        assert (await client.wait(name)).status.value == "FAILED"


def test_an_execution_is_redriven_from_the_list_and_another_from_its_page(daemon, shop) -> None:
    prepared(daemon, lambda client: _failed(client, shop, "one", "two"), tenant="redrive")

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        await sitting.sees("2 ·", "two", "FAILED", without="RUNNING")
        await sitting.press("r")
        await sitting.sees("Redrive two?", "goes on where it stopped")
        await sitting.press("escape")
        shop.repaired = True
        await sitting.press("r", *"ok", "ctrl+s")
        await sitting.sees("two goes on")
        await sitting.sees("two", "SUCCEEDED")
        await sitting.press("down", "enter")
        await sitting.sees("one  FAILED", "● Buy", "○ Thank")
        await sitting.press("r", "ctrl+s")
        await sitting.sees("one  SUCCEEDED", "● Thank", "WorkflowRedriven", "WorkflowSucceeded")

    sit(access(daemon, tenant="redrive"), look, size=(160, 40))


def test_a_redrive_with_another_input_ends_the_run_with_it(daemon, shop) -> None:
    prepared(daemon, lambda client: _failed(client, shop, "from-the-list", "from-the-letter"), tenant="edited")
    right = f'{{"Method":"GET","ApiEndpoint":"{shop.url}/always"}}'

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        await sitting.sees("from-the-list", "from-the-letter")
        await sitting.press("down", "r")
        await sitting.sees("Redrive from-the-list?")
        await sitting.press("tab", *"{no", "ctrl+s")
        await sitting.sees("is not JSON", "Redrive from-the-list?")
        await sitting.press("f7", "delete")
        await sitting.paste(right)
        await sitting.press("ctrl+s")
        await sitting.sees("from-the-list goes on")
        await sitting.sees("SUCCEEDED")
        await sitting.press("4")
        await sitting.sees("1 ·", "from-the-letter")
        await sitting.press("e")
        await sitting.sees("with another input?", f"{shop.url}/once")
        await sitting.press("f7", "delete")
        await sitting.paste(right)
        await sitting.press("ctrl+s")
        await sitting.sees("from-the-letter goes on")
        await sitting.sees("0 ·")
        await sitting.press("3", "home", "enter")
        await sitting.sees("from-the-letter  SUCCEEDED", "WorkflowSucceeded")
        await sitting.press("end")
        await sitting.sees("StatusCode: 200")  # as the other address said, and the first never did

    sit(access(daemon, tenant="edited"), look, size=(160, 40))


def test_all_letters_that_the_filter_finds_are_redriven_or_discarded_and_no_others(daemon, shop) -> None:
    async def prepare(client: Client) -> None:
        await _failed(client, shop, "b-1", "b-2", "b-3")
        other = {
            "StartAt": "Sell",
            "States": {"Sell": {**buying(shop)["States"]["Buy"], "Next": "End"}, "End": {"Type": "Pass", "End": True}},
        }
        await client.call(RegisterWorkflow(name="selling", definition=encode(other)))
        await client.start("selling", workflow_id="s-1")
        await client.wait("s-1")

    prepared(daemon, prepare, tenant="bulk")

    async def look(sitting: Sitting) -> None:
        await sitting.press("4")
        await sitting.sees("4 ·", "b-1", "s-1")
        await sitting.press("slash", *"buying", "tab", *"Buy", "enter")
        await sitting.sees("3 ·", "workflow buying", "node Buy", without="s-1")
        shop.repaired = True
        await sitting.press("R")
        await sitting.sees("Redrive 3 dead letters?", "workflow buying")
        await sitting.press(*"well", "enter")
        await sitting.sees("3 redriven")
        await sitting.sees("0 ·")
        await sitting.press("slash", "end", "ctrl+u", "tab", "end", "ctrl+u", "enter")
        await sitting.sees("1 ·", "s-1", "workflow any")
        await sitting.press("d", "enter")
        await sitting.sees("discarded")
        await sitting.sees("0 ·", "none")
        await sitting.press("3")
        seen = await sitting.sees("4 ·", "SUCCEEDED", "FAILED", without="RUNNING")
        assert [line.split()[2] for line in seen.splitlines() if " b-" in line] == ["SUCCEEDED"] * 3
        assert [line.split()[2] for line in seen.splitlines() if " s-1" in line] == ["FAILED"]

    sit(access(daemon, tenant="bulk"), look, size=(120, 30))


def test_a_schedule_is_fired_now_after_a_question(daemon) -> None:
    async def prepare(client: Client) -> None:
        rest = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}
        await client.call(RegisterWorkflow(name="rest", definition=encode(rest)))
        await client.call(CreateSchedule(schedule_id="yearly", cron="0 0 1 1 *", workflow="rest"))

    prepared(daemon, prepare, tenant="clock")

    async def look(sitting: Sitting) -> None:
        await sitting.press("5")
        await sitting.sees("yearly", "0 0 1 1 *")
        await sitting.press("t")
        await sitting.sees("Fire yearly now?")
        await sitting.press("escape", "3")
        await sitting.sees("0 ·", "none")
        await sitting.press("5", "t", "enter")
        await sitting.sees("started yearly")
        await sitting.press("3")
        await sitting.sees("1 ·", "yearly", "rest", "SUCCEEDED")

    sit(access(daemon, tenant="clock"), look, size=(100, 30))
