"""The Health service: `/healthz`, `/readyz` and `/metrics` of one process, whichever roles it has.

It is the first to start and the last to end, so that whoever watches the process is answered while the others wait for
a store, start again, or drain. What is answered is in `daemon/api/http.py`.
"""

from __future__ import annotations

from contextlib import closing
from typing import Final

import msgspec
import structlog
import trio

from daemon.api.http import HttpApp, serve_http
from daemon.api.listening import address_of, listen

log = structlog.get_logger("daemon.health")

ADVICE: Final = (
    "is another daemon running? Each process of a machine needs an address of its own: engine serve --http-listen "
    "HOST:PORT, where port 0 is any free one"
)


class HealthListen(msgspec.Struct, frozen=True):
    """Where to listen, and which setting says so."""

    setting: str
    address: str


class Health:
    """The service. `bound` is None until `run` has started; an instance that runs again takes the port it had."""

    def __init__(self, where: HealthListen, app: HttpApp) -> None:
        self._where = where
        self._app = app
        self.bound: str | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once the port is bound. Raises ListenFailed."""
        with closing(await listen(self._where.setting, self.bound or self._where.address, ADVICE)) as listener:
            self.bound = address_of(listener)
            log.info("health is served", http=self.bound)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_http, self._app, listener)
                task_status.started()
