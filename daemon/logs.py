"""How the daemon writes its log: structlog, JSON for machines, lines for a terminal, always on stderr.

Log with `structlog.get_logger(name)` and keyword fields; what is bound with `log_context` (the execution or task at
hand) is added to every line that the same Trio task and its children write. Libraries that log through the standard
library come out the same way. No secret and no payload belongs into a log; tracebacks are written without local
variables for that reason.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog
from structlog.typing import Processor

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


def configure_logs(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process. Later calls replace earlier ones.

    `stream` is stderr unless given. Format `auto` is JSON unless the stream is a terminal.
    """
    out = stream if stream is not None else sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
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
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(console, out)],
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


def _renderers(console: bool, out: TextIO) -> list[Processor]:
    if console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=40
            )
        ]
    return [
        structlog.processors.ExceptionRenderer(),
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
    ]


@contextmanager
def log_context(run: RunRef | None = None, task: TaskRef | None = None) -> Iterator[None]:
    """Name the execution, and the task, in every line logged inside."""
    fields: dict[str, str | int] = {}
    if task is not None:
        run = task.run
        fields["task"] = task.event_id
    if run is not None:
        fields |= {"tenant": run.tenant, "workflow_id": run.workflow_id, "run_id": run.run_id}
    with structlog.contextvars.bound_contextvars(**fields):
        yield
