"""The patterns in examples/patterns run as they say: on the whole daemon, with workers of the kit, days in no time.

Activities are async, since the mock clock must not run ahead of a thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from daemon.api.auth import Principal
from daemon.assembly import Daemon
from daemon.clock import TrioClock
from daemon.language import parse_definition
from daemon.language.source import load
from daemon.nodes.registry import NodeTypes
from daemon.settings import Settings
from daemon.stores.memory import MemoryStore
from enginekit.messages import calls
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.status import ExecutionStatus, Refused
from enginekit.methods import RESULTS, Caller
from enginekit.worker import Activity, ActivityError, Worker

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "patterns"
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".json", ".yaml"))
OWNER = Principal(tenant="acme", subject="tester", scopes=frozenset({"read", "write", "work"}), expires_at=None)


class Plane(Caller):
    """A daemon on the memory store, without sockets, that is called as a client calls it."""

    def __init__(self, folder: Path) -> None:
        settings = Settings()
        store = MemoryStore(4, b"k" * 32)
        nodes = NodeTypes(settings, [])
        self.daemon = Daemon(settings, folder, TrioClock(), store=store, nodes=nodes, seed=1, listen=False)

    async def _perform(self, params: calls.Call, timeout_seconds: float | None) -> calls.Result:
        answer = await self.daemon.gateway.call(OWNER, type(params).__name__, msgspec.json.encode(params))
        return msgspec.json.decode(answer, type=RESULTS[type(params)])

    async def start(self, file: str, data: JSON) -> calls.StartWorkflowResult:
        """Register the pattern in the file under its name, as README.md there has it, and start it."""
        name = file.partition(".")[0]
        await self.call(calls.RegisterWorkflow(name=name, definition=encode((FOLDER / file).read_text())))
        return await self.call(calls.StartWorkflow(workflow=name, input=encode(data)))

    async def closed(self, started: calls.StartWorkflowResult) -> calls.DescribeWorkflowResult:
        while True:
            wait = calls.WaitWorkflow(workflow_id=started.workflow_id, run_id=started.run_id, wait_seconds=3600)
            seen = await self.call(wait)
            if seen.status.closed:
                return seen

    async def output(self, file: str, data: JSON) -> JSON:
        """Run it; it must succeed."""
        seen = await self.closed(await self.start(file, data))
        assert seen.status is ExecutionStatus.SUCCEEDED, (seen.error, seen.cause)
        return decode(seen.output)

    async def failure(self, file: str, data: JSON) -> tuple[str | None, str | None]:
        """Run it; it must fail."""
        seen = await self.closed(await self.start(file, data))
        assert seen.status is ExecutionStatus.FAILED
        return seen.error, seen.cause


@asynccontextmanager
async def plane(folder: Path, activities: Mapping[str, Activity]) -> AsyncIterator[Plane]:
    """A daemon and a worker for these activities."""
    made = Plane(folder)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.daemon.run)
        worker = Worker(made, activities, poll_seconds=120)
        await nursery.start(worker.run)
        yield made
        worker.stop()
        made.daemon.drain()


# --- all of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_pattern_is_valid_warns_of_nothing_and_says_what_it_is(file: Path) -> None:
    definition = parse_definition(file.read_bytes(), NodeTypes(Settings(), []).names())
    assert definition.warnings == ()
    assert definition.comment


def test_both_query_languages_are_shown_and_the_readme_names_every_file() -> None:
    documents = [load(file.read_bytes()).value for file in FILES]
    languages = {document.get("QueryLanguage", "JSONPath") for document in documents if isinstance(document, dict)}
    assert languages == {"JSONPath", "JSONata"}
    readme = (FOLDER / "README.md").read_text()
    assert set(re.findall(r"\]\(([\w-]+\.(?:json|yaml))\)", readme)) == {file.name for file in FILES}


# --- saga --------------------------------------------------------------------------------------------------------

TRIP: JSON = {"trip": "trip-17", "card": "tok_1"}
BOOKING = ["reserve-hotel", "reserve-flight", "reserve-car", "charge-card"]
UNDOING = {"reserve-hotel": "cancel-hotel", "reserve-flight": "cancel-flight", "reserve-car": "cancel-car"}


class Agency:
    """Does and undoes; `broken` are the activities that fail, each so many times (None: always)."""

    def __init__(self, broken: Mapping[str, int | None], error: str = "SoldOut") -> None:
        self.broken = dict(broken)
        self.error = error
        self.done: list[str] = []
        self.inputs: dict[str, JSON] = {}

    def activities(self) -> dict[str, Activity]:
        return {name: self._activity(name) for name in (*BOOKING, *UNDOING.values())}

    def _activity(self, name: str) -> Activity:
        async def run(data: JSON) -> JSON:
            left = self.broken.get(name, 0)
            if left is None or left > 0:
                self.broken[name] = None if left is None else left - 1
                raise ActivityError(self.error, f"{name} says no")
            self.done.append(name)
            self.inputs[name] = data
            return {"reservation": f"{name}-1"}

        return run


async def test_saga_books_all_and_undoes_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    agency = Agency({})
    async with plane(tmp_path, agency.activities()) as engine:
        output = await engine.output("saga.json", TRIP)
    assert agency.done == BOOKING
    assert output == {**TRIP, **{
        name.partition("-")[2]: {"reservation": f"{name}-1"} for name in BOOKING[:3]
    }, "payment": {"reservation": "charge-card-1"}}  # fmt: skip


@pytest.mark.parametrize("step", range(4))
async def test_saga_undoes_what_was_done_before_the_step_that_fails_in_reverse(
    autojump_clock: MockClock, tmp_path: Path, step: int
) -> None:
    agency = Agency({BOOKING[step]: None})
    async with plane(tmp_path, agency.activities()) as engine:
        failure = await engine.failure("saga.json", TRIP)
    done = BOOKING[:step]
    assert agency.done == [*done, *(UNDOING[name] for name in reversed(done))]
    for name in done:
        assert agency.inputs[UNDOING[name]] == {"trip": "trip-17", "reservation": f"{name}-1"}
    assert failure == ("SoldOut", f"{BOOKING[step]} says no")


async def test_saga_tries_again_what_is_only_unavailable(autojump_clock: MockClock, tmp_path: Path) -> None:
    agency = Agency({"reserve-car": 2}, error="Unavailable")
    async with plane(tmp_path, agency.activities()) as engine:
        await engine.output("saga.json", TRIP)
    assert agency.done == BOOKING


async def test_saga_keeps_undoing_over_hours(autojump_clock: MockClock, tmp_path: Path) -> None:
    agency = Agency({"charge-card": None, "cancel-flight": 20})
    async with plane(tmp_path, agency.activities()) as engine:
        failure = await engine.failure("saga.json", TRIP)
    assert failure[0] == "SoldOut"
    assert agency.done[-3:] == ["cancel-car", "cancel-flight", "cancel-hotel"]


async def test_saga_calls_for_a_person_when_it_cannot_undo(autojump_clock: MockClock, tmp_path: Path) -> None:
    agency = Agency({"charge-card": None, "cancel-flight": None})
    async with plane(tmp_path, agency.activities()) as engine:
        error, cause = await engine.failure("saga.json", TRIP)
    assert error == "CompensationFailed"
    assert cause == "SoldOut (cancel-flight says no), while undoing what SoldOut had begun"
    assert agency.done[-1] == "cancel-car"


# --- approval ----------------------------------------------------------------------------------------------------

REQUEST: JSON = {"manager": "Mia", "director": "Dan", "request": {"buy": "a coffee machine"}}


class Desk:
    """Approvers get messages with tokens."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[dict[str, JSON]](10)
        self.carried_out: list[JSON] = []

    def activities(self) -> dict[str, Activity]:
        async def ask(data: JSON) -> JSON:
            assert isinstance(data, dict)
            await self._send.send(data)
            return "sent"

        async def carry_out(data: JSON) -> JSON:
            self.carried_out.append(data)
            return {"ordered": True}

        return {"ask-approver": ask, "carry-out": carry_out}

    async def message(self) -> dict[str, JSON]:
        return await self._receive.receive()


def answer(message: dict[str, JSON], value: JSON) -> calls.CompleteTask:
    return calls.CompleteTask(token=str(message["token"]), output=encode(value))


async def test_approval_is_given_after_a_day(autojump_clock: MockClock, tmp_path: Path) -> None:
    desk = Desk()
    async with plane(tmp_path, desk.activities()) as engine:
        started = await engine.start("approval.json", REQUEST)
        message = await desk.message()
        assert message == {"approver": "Mia", "request": {"buy": "a coffee machine"}, "token": message["token"]}
        await trio.sleep(86_400)
        await engine.call(answer(message, {"approved": True}))
        seen = await engine.closed(started)
    assert decode(seen.output) == {"approvedBy": "Mia", "result": {"ordered": True}}
    assert desk.carried_out == [{"request": {"buy": "a coffee machine"}, "approvedBy": "Mia"}]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"approved": False, "reason": "tea will do"}, "Mia: tea will do"),
        ({"approved": False}, "Mia: no reason given"),
        ({}, "Mia: no reason given"),
        ({"approved": "perhaps"}, "Mia: no reason given"),
    ],
)
async def test_approval_is_refused(autojump_clock: MockClock, tmp_path: Path, given: JSON, cause: str) -> None:
    desk = Desk()
    async with plane(tmp_path, desk.activities()) as engine:
        started = await engine.start("approval.json", REQUEST)
        await engine.call(answer(await desk.message(), given))
        seen = await engine.closed(started)
    assert (seen.status, seen.error, seen.cause) == (ExecutionStatus.FAILED, "Rejected", cause)
    assert desk.carried_out == []


async def test_approval_goes_to_the_director_and_the_manager_is_too_late(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    desk = Desk()
    async with plane(tmp_path, desk.activities()) as engine:
        started = await engine.start("approval.json", REQUEST)
        first = await desk.message()
        second = await desk.message()
        assert (second["approver"], second["request"]) == ("Dan", first["request"])
        assert second["note"] == "Mia has not answered in two days"
        with pytest.raises(Refused):
            await engine.call(answer(first, {"approved": True}))
        await engine.call(answer(second, {"approved": True}))
        seen = await engine.closed(started)
    assert decode(seen.output) == {"approvedBy": "Dan", "result": {"ordered": True}}
    assert seen.closed_at is not None
    assert timedelta(days=2) <= seen.closed_at - seen.started_at < timedelta(days=3)


async def test_approval_times_out_by_its_name(autojump_clock: MockClock, tmp_path: Path) -> None:
    desk = Desk()
    async with plane(tmp_path, desk.activities()) as engine:
        started = await engine.start("approval.json", REQUEST)
        seen = await engine.closed(started)
    assert (seen.status, seen.error) == (ExecutionStatus.FAILED, "ApprovalTimedOut")
    assert seen.closed_at is not None
    assert timedelta(days=5) <= seen.closed_at - seen.started_at < timedelta(days=6)


# --- fan-out and fan-in ------------------------------------------------------------------------------------------

LOAN: JSON = {"applicant": "Ada", "address": "Main Street 1", "amount": 100_000}


class Bank:
    """Checks take an hour each; all three must have begun before one of them ends."""

    def __init__(self, score: int, suspicious: bool = False, value: int | None = None, fails: str = "") -> None:
        self.results: dict[str, JSON] = {
            "credit-score": {"score": score}, "fraud-check": {"suspicious": suspicious},
            "appraise-house": {"value": value},
        }  # fmt: skip
        self.fails = fails
        self.running = 0
        self.most = 0
        self.ended: list[str] = []

    def activities(self) -> dict[str, Activity]:
        return {name: self._activity(name) for name in self.results}

    def _activity(self, name: str) -> Activity:
        async def run(data: JSON) -> JSON:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await trio.sleep(60 if name == self.fails else 300)
            finally:
                self.running -= 1
            if name == self.fails:
                raise ActivityError("NoAnswer", f"{name} is closed today")
            self.ended.append(name)
            return self.results[name]

        return run


@pytest.mark.parametrize(
    ("score", "suspicious", "value", "fails", "granted"),
    [
        (720, False, None, "", True),
        (720, True, 200_000, "", False),
        (650, False, 200_000, "", True),
        (650, False, 90_000, "", False),
        (650, False, 200_000, "appraise-house", False),
        (720, False, 200_000, "appraise-house", True),
    ],
)
async def test_fan_in_decides_by_all_results(
    autojump_clock: MockClock,
    tmp_path: Path,
    score: int,
    suspicious: bool,
    value: int | None,
    fails: str,
    granted: bool,
) -> None:
    bank = Bank(score, suspicious, value, fails)
    async with plane(tmp_path, bank.activities()) as engine:
        output = await engine.output("fan-out-fan-in.json", LOAN)
    assert bank.most == 3
    assert isinstance(output, dict)
    assert output["granted"] is granted
    assert output["checks"] == {"score": score, "suspicious": suspicious, "houseValue": None if fails else value}


async def test_fan_out_is_canceled_when_a_branch_fails(autojump_clock: MockClock, tmp_path: Path) -> None:
    bank = Bank(720, fails="fraud-check")
    async with plane(tmp_path, bank.activities()) as engine:
        failure = await engine.failure("fan-out-fan-in.json", LOAN)
    assert failure == ("CheckFailed", "fraud-check is closed today")
    assert bank.ended == []


# --- polling -----------------------------------------------------------------------------------------------------


class Exporter:
    """A job that is ready after so many polls; when it was asked for, by the mock clock."""

    def __init__(self, ready_after: int, last: JSON, poll_failures: int = 0) -> None:
        self.ready_after = ready_after
        self.last = last
        self.poll_failures = poll_failures
        self.times: list[float] = []

    def activities(self) -> dict[str, Activity]:
        async def start(data: JSON) -> JSON:
            assert data == {"report": "sales"}
            self.times.append(trio.current_time())
            return {"job": "job-1"}

        async def status(data: JSON) -> JSON:
            assert data == {"job": "job-1"}
            if self.poll_failures:
                self.poll_failures -= 1
                raise ActivityError("Unavailable")
            self.times.append(trio.current_time())
            return self.last if len(self.times) > self.ready_after else {"status": "RUNNING"}

        return {"start-export": start, "export-status": status}

    @property
    def intervals(self) -> list[int]:
        return [round(later - earlier) for earlier, later in pairwise(self.times)]


async def test_polling_asks_less_and_less_often_until_it_is_done(autojump_clock: MockClock, tmp_path: Path) -> None:
    exporter = Exporter(6, {"status": "DONE", "url": "https://files.example/1"})
    async with plane(tmp_path, exporter.activities()) as engine:
        output = await engine.output("polling.yaml", {"report": "sales"})
    assert output == {"job": "job-1", "polls": 6, "url": "https://files.example/1"}
    assert exporter.intervals == [5, 10, 20, 40, 60, 60]


async def test_polling_gives_up_by_name(autojump_clock: MockClock, tmp_path: Path) -> None:
    exporter = Exporter(1000, None)
    async with plane(tmp_path, exporter.activities()) as engine:
        failure = await engine.failure("polling.yaml", {"report": "sales"})
    assert failure == ("ExportNotReady", "export job-1 was not ready after 10 polls")
    assert exporter.intervals == [5, 10, 20, 40, *[60] * 6]


async def test_polling_fails_as_the_job_does(autojump_clock: MockClock, tmp_path: Path) -> None:
    exporter = Exporter(2, {"status": "FAILED", "reason": "no sales"})
    async with plane(tmp_path, exporter.activities()) as engine:
        failure = await engine.failure("polling.yaml", {"report": "sales"})
    assert failure == ("ExportFailed", "export job-1 has failed: no sales")


async def test_polling_does_not_take_a_failed_poll_for_an_answer(autojump_clock: MockClock, tmp_path: Path) -> None:
    exporter = Exporter(1, {"status": "DONE", "url": "u"}, poll_failures=3)
    async with plane(tmp_path, exporter.activities()) as engine:
        output = await engine.output("polling.yaml", {"report": "sales"})
    assert output == {"job": "job-1", "polls": 1, "url": "u"}


# --- dynamic parallelism -----------------------------------------------------------------------------------------


class Renderer:
    """Parts take the longer the earlier they stand, so that they end in another order than they began in."""

    def __init__(self, pages: int, fails: int = 0, times: int = 0) -> None:
        self.pages = pages
        self.fails = fails
        self.times = times
        self.running = 0
        self.most = 0
        self.ended: list[int] = []
        self.bound: JSON = None

    def activities(self) -> dict[str, Activity]:
        async def count(data: JSON) -> JSON:
            return {"pages": self.pages}

        async def render(data: JSON) -> JSON:
            assert isinstance(data, dict)
            assert data["document"] == "book"
            number = data["number"]
            assert isinstance(number, int)
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await trio.sleep(100 - 7 * number)
            finally:
                self.running -= 1
            if number == self.fails and self.times:
                self.times -= 1
                raise ActivityError("OutOfInk", f"part {number}")
            self.ended.append(number)
            return {"file": f"{data['first']}-{data['last']}"}

        async def bind(data: JSON) -> JSON:
            self.bound = data
            return {"file": "book.pdf"}

        return {"count-pages": count, "render-part": render, "bind-parts": bind}


def parts(pages: int) -> list[JSON]:
    return [f"{first}-{min(first + 9, pages)}" for first in range(1, pages + 1, 10)]


@pytest.mark.parametrize("pages", [0, 1, 10, 11, 30, 84])
async def test_dynamic_parts_are_rendered_three_at_a_time_and_kept_in_order(
    autojump_clock: MockClock, tmp_path: Path, pages: int
) -> None:
    renderer = Renderer(pages)
    async with plane(tmp_path, renderer.activities()) as engine:
        output = await engine.output("dynamic-parallelism.json", {"document": "book"})
    assert output == {"document": "book", "pages": pages, "file": "book.pdf"}
    assert renderer.bound == {"document": "book", "files": parts(pages)}
    assert renderer.most == min(3, len(parts(pages)))
    assert sorted(renderer.ended) == list(range(1, len(parts(pages)) + 1))
    assert len(renderer.ended) < 2 or renderer.ended != sorted(renderer.ended)


async def test_a_dynamic_part_is_retried_alone(autojump_clock: MockClock, tmp_path: Path) -> None:
    renderer = Renderer(45, fails=2, times=2)
    async with plane(tmp_path, renderer.activities()) as engine:
        await engine.output("dynamic-parallelism.json", {"document": "book"})
    assert sorted(renderer.ended) == [1, 2, 3, 4, 5]
    assert renderer.bound == {"document": "book", "files": parts(45)}


async def test_a_dynamic_part_that_fails_in_the_end_fails_them_all_by_name(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    renderer = Renderer(200, fails=2, times=3)
    async with plane(tmp_path, renderer.activities()) as engine:
        failure = await engine.failure("dynamic-parallelism.json", {"document": "book"})
    assert failure == ("NotRendered", "OutOfInk: part 2")
    assert renderer.running == 0
    assert len(renderer.ended) < 20
    assert renderer.bound is None


# --- retry with fallback -----------------------------------------------------------------------------------------

MONEY: JSON = {"currency": "SEK", "yesterday": 11.25}


class Rates:
    """Two services; each answers, or fails by, what is next in its list, and then by the last of it."""

    def __init__(self, primary: list[str | float], secondary: list[str | float]) -> None:
        self.lists = {"primary-rate": primary, "secondary-rate": secondary}
        self.asked = dict.fromkeys(self.lists, 0)

    def activities(self) -> dict[str, Activity]:
        return {name: self._activity(name) for name in self.lists}

    def _activity(self, name: str) -> Activity:
        async def run(data: JSON) -> JSON:
            assert data == {"currency": "SEK"}
            given = self.lists[name]
            what = given[min(self.asked[name], len(given) - 1)]
            self.asked[name] += 1
            if what == "hang":
                await trio.sleep(3600)
            if isinstance(what, str):
                raise ActivityError(what, f"{name} failed")
            return {"rate": what, "at": datetime(2026, 1, 1, tzinfo=UTC).isoformat()}

        return run


@pytest.mark.parametrize(
    ("primary", "secondary", "quote", "asked"),
    [
        ([11.5], [], (11.5, "primary"), (1, 0)),
        ([*["RateLimited"] * 5, 11.5], [], (11.5, "primary"), (6, 0)),
        (["Unavailable", "RateLimited", 11.5], [], (11.5, "primary"), (3, 0)),
        (["hang", 11.5], [], (11.5, "primary"), (2, 0)),
        (["Unavailable"], [11.6], (11.6, "secondary"), (2, 1)),
        (["RateLimited"], ["Odd", "Odd", 11.6], (11.6, "secondary"), (6, 3)),
        (["Odd"], ["hang"], (11.25, "yesterday"), (1, 3)),
    ],
)
async def test_fallback_takes_the_best_that_is_there(
    autojump_clock: MockClock,
    tmp_path: Path,
    primary: list[str | float],
    secondary: list[str | float],
    quote: tuple[float, str],
    asked: tuple[int, int],
) -> None:
    rates = Rates(primary, secondary)
    async with plane(tmp_path, rates.activities()) as engine:
        output = await engine.output("retry-with-fallback.json", MONEY)
    assert output == {"currency": "SEK", "rate": quote[0], "source": quote[1]}
    assert tuple(rates.asked.values()) == asked


async def test_fallback_is_not_for_what_no_service_can_know(autojump_clock: MockClock, tmp_path: Path) -> None:
    rates = Rates(["UnknownCurrency"], [1.0])
    async with plane(tmp_path, rates.activities()) as engine:
        failure = await engine.failure("retry-with-fallback.json", MONEY)
    assert failure == ("UnknownCurrency", "primary-rate failed")
    assert rates.asked == {"primary-rate": 1, "secondary-rate": 0}


def test_the_yaml_says_in_json_what_it_says() -> None:
    text = (FOLDER / "polling.yaml").read_text()
    assert load(json.dumps(load(text).value)).value == load(text).value
