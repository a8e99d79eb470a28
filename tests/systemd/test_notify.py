"""The daemon under a notify socket: what it says, when its watchdog is fed, and when it is not."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from notify_socket import CONFIG, PATIENCE_SECONDS, WATCHDOG_SECONDS, Listening, Unit

from daemon.systemd import Notifier, find_notifier

Start = Callable[..., Unit]
HANGS = str(Path(__file__).parent / "hangs.py")


def test_ready_after_it_serves_fed_while_it_does_and_stopping_when_asked(unit: Start) -> None:
    engine = unit()
    systemd = engine.systemd
    systemd.until("READY=1")
    assert (engine.folder / "data" / "daemon.json").exists(), "ready: whoever looks for it finds it"
    systemd.until("STATUS=running: 7 services")
    systemd.until("WATCHDOG=1")
    systemd.until("WATCHDOG=1")
    engine.process.send_signal(signal.SIGTERM)
    assert "STATUS=draining" in systemd.until("STOPPING=1")
    assert engine.process.wait(120) == 0
    systemd.until_silent_about("STATUS=", 0.2)


def test_an_abstract_socket(unit: Start) -> None:
    engine = unit(address=f"@engine-test-{os.getpid()}")
    engine.systemd.until("READY=1")


def test_a_store_that_stands_still_is_a_status_and_the_watchdog_is_fed(unit: Start) -> None:
    engine = unit()
    systemd = engine.systemd
    systemd.until("STATUS=running")
    driver = engine.driver()
    assert driver is not None
    os.kill(driver, signal.SIGSTOP)
    try:
        systemd.until("STATUS=waiting for the store")
        systemd.until("WATCHDOG=1")
        systemd.until("WATCHDOG=1")
    finally:
        with suppress(ProcessLookupError):  # It has been replaced, when that took long.
            os.kill(driver, signal.SIGCONT)
    systemd.until("STATUS=running")
    systemd.until("WATCHDOG=1")
    assert engine.process.poll() is None


def test_a_store_that_stays_stopped_is_replaced_though_nobody_had_asked_it_anything(unit: Start) -> None:
    engine = unit()
    systemd = engine.systemd
    systemd.until("STATUS=running")
    driver = engine.driver()
    assert driver is not None
    os.kill(driver, signal.SIGSTOP)
    systemd.until("STATUS=waiting for the store")
    systemd.until("STATUS=running")
    assert engine.driver() != driver


def test_a_store_that_cannot_be_opened_again_is_a_status_and_the_watchdog_is_fed(unit: Start) -> None:
    engine = unit()
    systemd = engine.systemd
    systemd.until("STATUS=running")
    driver = engine.driver()
    assert driver is not None
    os.kill(driver, signal.SIGKILL)
    # Each that takes its place, too, as soon as it is seen.
    end = time.monotonic() + PATIENCE_SECONDS
    while "STATUS=waiting for the store" not in (systemd.next(0.02) or ""):
        assert time.monotonic() < end, systemd.heard
        driver = engine.driver()
        if driver is not None:
            with suppress(ProcessLookupError):
                os.kill(driver, signal.SIGKILL)
    systemd.until("STATUS=running")
    systemd.until("WATCHDOG=1")


def test_a_service_that_hangs_starves_the_watchdog_whichever_it_is(unit: Start, tmp_path: Path) -> None:
    engine = unit([sys.executable, HANGS, str(tmp_path)])
    systemd = engine.systemd
    systemd.until("READY=1")
    for name in ("matching", "timer", "worker", "history", "frontend", "health"):
        systemd.until("WATCHDOG=1")
        engine.say(f"hang {name}")
        # On a busy machine any service may be late with an answer, and is said to be: that it hangs is in the log.
        engine.until_logged(f"{name} hangs")
        while name not in systemd.until("the watchdog is not fed"):
            pass
        systemd.until_still("WATCHDOG=1", WATCHDOG_SECONDS)
        engine.say(f"go {name}")
        systemd.until("STATUS=running")
    systemd.until("WATCHDOG=1")
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(120) == 0


def test_a_service_that_is_given_up_is_said(unit: Start, tmp_path: Path) -> None:
    engine = unit([sys.executable, HANGS, str(tmp_path)], config=f"{CONFIG}[supervisor]\nrestarts = 0\n")
    engine.systemd.until("READY=1")
    engine.say("hang timer")
    engine.say("go timer")
    said = engine.systemd.until("STOPPING=1")
    assert "STATUS=failed: timer is given up" in said
    assert engine.process.wait(120) == 1


def test_a_second_daemon_on_the_same_store_is_never_ready(unit: Start) -> None:
    engine = unit()
    engine.systemd.until("READY=1")
    with sqlite3.connect(engine.folder / "data" / "engine.db"):
        other = unit(address=str(engine.folder / "other"))
        assert "STATUS=failed" in other.systemd.until("STOPPING=1")
        assert other.process.wait(120) == 3
    assert not [word for word in other.systemd.heard if "READY" in word]


def test_who_is_not_started_by_systemd_says_nothing() -> None:
    assert find_notifier({}) is None
    assert find_notifier({"NOTIFY_SOCKET": "vsock:2:1234"}) is None


def test_the_variables_go_to_no_child_and_a_watchdog_of_somebody_elses_is_not_fed(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1", "HOME": "/"}
    notifier = find_notifier(environ)
    assert notifier is not None
    assert notifier.watchdog_seconds is None
    assert environ == {"HOME": "/"}
    notifier.close()
    ours = find_notifier(
        {"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())},
    )
    assert ours is not None
    assert ours.watchdog_seconds == 2.0
    ours.close()


def test_a_socket_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "gone"))
    notifier.ready()
    notifier.status("running")
    listening = Listening(str(tmp_path / "gone"))
    notifier.status("waiting for the store")
    assert listening.next(5) == "STATUS=waiting for the store"
    notifier.status("waiting for the store")
    assert listening.next(0.05) is None, "said once"
    notifier.close()
    listening.close()


def test_the_stores_process_does_not_see_them(unit: Start) -> None:
    engine = unit()
    engine.systemd.until("READY=1")
    seen = Path(f"/proc/{engine.driver()}/environ").read_bytes().split(b"\0")
    assert not [each for each in seen if each.startswith((b"NOTIFY_SOCKET=", b"WATCHDOG_"))]


def test_a_port_that_is_taken_is_said_in_lines_not_in_tracebacks(unit: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1) + "[supervisor]\nrestarts = 2\n"
        engine = unit(config=config)
        said = engine.systemd.until("STOPPING=1")
        assert "STATUS=failed: frontend is given up" in said
        assert engine.process.wait(120) == 1
    log = engine.log.read_text()
    assert "Traceback" not in log
    assert log.count("cannot listen there: Address already in use; is another daemon running?") == 4
