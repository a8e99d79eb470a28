"""The log: JSON for machines, lines for people, the execution at hand in each, and no local variables."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio

from daemon.logs import configure_logs, log_context
from daemon.settings import LogSettings
from enginekit.messages.links import RunRef, TaskRef

RUN = RunRef(tenant="acme", workflow_id="order-1", run_id="r1")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_when_not_on_a_terminal() -> None:
    out = io.StringIO()
    configure_logs(LogSettings(), out)
    structlog.get_logger("daemon.some").info("said", answer=42)
    (line,) = lines(out)
    assert line["event"] == "said"
    assert line["answer"] == 42
    assert line["level"] == "info"
    assert line["logger"] == "daemon.some"
    assert str(line["timestamp"]).endswith("Z")


def test_lines_for_a_terminal() -> None:
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    configure_logs(LogSettings(), out)
    structlog.get_logger("daemon.some").info("said", answer=42)
    assert "said" in out.getvalue()
    with pytest.raises(json.JSONDecodeError):
        lines(out)


def test_what_is_below_the_level_is_left_out() -> None:
    out = io.StringIO()
    configure_logs(LogSettings(level="warning", format="json"), out)
    log = structlog.get_logger("daemon.some")
    log.info("quiet")
    log.warning("loud")
    logging.getLogger("library").info("quiet")
    assert [line["event"] for line in lines(out)] == ["loud"]


def test_the_standard_librarys_lines_come_out_the_same_way() -> None:
    out = io.StringIO()
    configure_logs(LogSettings(format="json"), out)
    logging.getLogger("library").warning("slow: %s", "very", extra={"peer": "::1"})
    logging.getLogger("httpx2").info("GET /")
    (line,) = lines(out)
    assert (line["event"], line["logger"], line["level"], line["peer"]) == ("slow: very", "library", "warning", "::1")


def test_systemds_journal_reads_the_priority_and_json_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stream"
    with path.open("w") as out:
        status = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure_logs(LogSettings(), out)
        log = structlog.get_logger("daemon.some")
        log.error("one")
        log.warning("two")
        logging.getLogger("library").info("three")
        out.flush()
        seen = [(line[:3], json.loads(line[3:])["event"]) for line in path.read_text().splitlines()]
        assert seen == [("<3>", "one"), ("<4>", "two"), ("<6>", "three")]
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        configure_logs(LogSettings(), out)
        log.info("somebody else's journal")
        out.flush()
        assert path.read_text().splitlines()[-1].startswith("{")


def test_a_line_fits_into_the_journal_however_long_its_traceback() -> None:
    out = io.StringIO()
    configure_logs(LogSettings(format="journal"), out)
    try:
        raise ValueError("x" * 100_000 + " the end")
    except ValueError:
        structlog.get_logger("daemon.some").exception("failed")
    assert len(out.getvalue()) < 48 * 1024
    assert json.loads(out.getvalue()[3:])["exception"].endswith("the end")


@pytest.mark.parametrize("format", ["json", "journal", "console"])
def test_a_traceback_shows_no_local_variables(format: str) -> None:
    out = io.StringIO()
    configure_logs(LogSettings(format=format), out)
    try:
        password = "hunter" + "2"
        raise ValueError(f"bad of length {len(password)}")
    except ValueError:
        structlog.get_logger("daemon.some").exception("failed")
    assert "ValueError: bad of length 7" in out.getvalue()
    assert "hunter2" not in out.getvalue()


async def test_the_execution_at_hand_is_in_every_line_of_its_task_and_no_other() -> None:
    out = io.StringIO()
    configure_logs(LogSettings(format="json"), out)
    log = structlog.get_logger("daemon.some")

    async def child() -> None:
        log.info("child")
        await trio.lowlevel.checkpoint()

    with log_context(TaskRef(run=RUN, event_id=3)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
    with log_context(RUN):
        log.info("run")
    log.info("outside")
    inside, run, outside = lines(out)
    assert (inside["workflow_id"], inside["run_id"], inside["task"]) == ("order-1", "r1", 3)
    assert run["tenant"] == "acme"
    assert "task" not in run
    assert "run_id" not in outside


def test_configuring_again_replaces_the_former() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logs(LogSettings(format="json"), first)
    configure_logs(LogSettings(format="json"), second)
    structlog.get_logger("daemon.some").info("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1
