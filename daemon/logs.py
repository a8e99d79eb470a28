"""How the daemon writes its log: structlog, JSON for machines, lines for a terminal, always on stderr.

Log with `structlog.get_logger(name)` and keyword fields. A line about an execution or a task names it with
`**about(ref)` and no other way, so that none names it by half; what is bound with `log_context` is added to every line
that the same Trio task and its children write. Libraries that log through the standard
library come out the same way. No secret and no payload belongs into a log; tracebacks are written without local
variables for that reason.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from daemon.settings import LogSettings
from enginekit.messages.links import RunRef, TaskRef

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

CHATTY_LIBRARIES = (
    "httpx2",
    "httpcore2",
    "hypercorn.access",
    "trio-websocket",
    "h2",
    "hpack",
    "wsproto",
    "openai",
    "anthropic",
)
"""Their informational lines repeat what ours say, or hold payloads; their warnings are kept."""


PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""syslog's, which systemd's journal reads in front of a line: sd-daemon(3)."""
TRACEBACK_CHARACTERS = 24 * 1024
"""Of a longer one the end is kept, which says what went wrong: the journal cuts lines at 48 KiB, and half a line is no
JSON."""


def configure_logs(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process. Later calls replace earlier ones.

    `stream` is stderr unless given. Format `auto` is `console` on a terminal, `journal` where systemd's journal reads
    the stream, and `json` elsewhere.
    """
    out = stream if stream is not None else sys.stderr
    form = settings.format
    if form == "auto":
        form = "console" if out.isatty() else "journal" if _is_journal(out) else "json"
    level = _LEVELS[settings.level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(form, out)],
        )
    )
    root = logging.getLogger()
    for former in root.handlers[:]:
        if isinstance(former.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level)
    for name in CHATTY_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _is_journal(out: TextIO) -> bool:
    """Whether it is the stream that systemd connected to the journal, which it names as DEVICE:INODE."""
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _renderers(form: str, out: TextIO) -> list[Processor]:
    if form == "console":
        return [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=40
            )
        ]
    json = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)

    def journal(logger: WrappedLogger, name: str, event: EventDict) -> str:
        line = json(logger, name, event)
        assert isinstance(line, str)
        return f"<{PRIORITIES.get(event['level'], 6)}>{line}"

    return [structlog.processors.ExceptionRenderer(), _bounded, journal if form == "journal" else json]


def _bounded(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    text = event.get("exception")
    if isinstance(text, str) and len(text) > TRACEBACK_CHARACTERS:
        event["exception"] = "..." + text[-TRACEBACK_CHARACTERS:]
    return event


def about(ref: RunRef | TaskRef) -> dict[str, str | int]:
    """The fields that name an execution, or a task and its execution, in a line of the log."""
    run = ref.run if isinstance(ref, TaskRef) else ref
    fields: dict[str, str | int] = {"tenant": run.tenant, "workflow_id": run.workflow_id, "run_id": run.run_id}
    return fields | {"task": ref.event_id} if isinstance(ref, TaskRef) else fields


@contextmanager
def log_context(ref: RunRef | TaskRef) -> Iterator[None]:
    """Name the execution, or the task, in every line logged inside."""
    with structlog.contextvars.bound_contextvars(**about(ref)):
        yield
