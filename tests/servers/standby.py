"""A standby of a PostgreSQL from its wheel: it follows its primary, and may be promoted in its place."""

from __future__ import annotations

from tests.servers.postgres import PostgresServer


class Standby(PostgresServer):
    """Runs from `start` to `stop`. Its primary has to run when it starts."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(durable=True)
        self._primary = primary

    def start(self) -> None:
        """As a copy of the primary, which it follows from then on."""
        self._take_folder()
        self._run(
            *("pg_basebackup", "-D", str(self._data), "-R", "-X", "stream", "-c", "fast"),
            *("-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "postgres"),
        )
        self._configure()
        self.up()

    def promote(self) -> None:
        """It is the primary now. Returns when it takes writes."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-t", "240", "promote")
