"""The write lane of the PostgreSQL store: one batch, one transaction, one pipeline with its COMMIT.

All statements of a batch are sent without waiting for what becomes of them: that the shards' epochs still hold, and
that every run is as the batch says, is found out where the rows are. A statement that raises stops all behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from daemon.stores.batches import check_batch
from daemon.stores.faults import StoreUnavailable
from daemon.stores.postgres.columns import columns
from daemon.stores.postgres.failures import explained
from daemon.stores.postgres.limits import Limits
from daemon.stores.postgres.owners import PostgresOwners
from daemon.stores.postgres.partitions import Partitions, drop_partitions
from daemon.stores.postgres.purging import labels_of, purging
from daemon.stores.postgres.statements import Statement, statements
from daemon.stores.postgres.unused import UnusedDefinitions
from daemon.stores.rows import Attendance, Batch, ShardEpochs, Tidied
from enginekit.messages.links import Millis

_CHECK_EPOCHS = "SELECT engine.check_epochs(%s, %s)"
_NEWEST = "SELECT run_id::text FROM engine.executions ORDER BY run_id DESC LIMIT 1"
_NOT_REPLICATED = "01000"
"""The warning with which a server that gave up waiting for its standby acknowledges a commit all the same."""


class PostgresWriter:
    """Implements `Writer` over one connection in autocommit mode."""

    def __init__(self, connection: psycopg.Connection, name: str, limits: Limits, token_key: bytes) -> None:
        self._connection = connection
        self._name = name
        self._token_key = token_key
        self._limits = limits
        self._owners = PostgresOwners(connection, limits)
        self._partitions = Partitions(connection)
        self._unused = UnusedDefinitions(connection, limits)
        self._warning: str | None = None
        connection.add_notice_handler(self._heed)

    def take_shards(self) -> ShardEpochs:
        with explained(self._connection, self._name):
            return self._owned(self._owners.take_all())

    def attend(self, owner: str, lease_seconds: float) -> Attendance:
        with explained(self._connection, self._name):
            return self._owners.attend(owner, lease_seconds)

    def claim_shards(self, owner: str, shards: Sequence[int]) -> ShardEpochs:
        with explained(self._connection, self._name):
            return self._owned(self._owners.claim(owner, shards))

    def release_shards(self, owner: str, epochs: dict[int, int]) -> None:
        with explained(self._connection, self._name):
            self._owners.release(owner, epochs)

    def leave(self, owner: str) -> None:
        with explained(self._connection, self._name):
            self._owners.leave(owner)

    def commit(self, batch: Batch) -> None:
        check_batch(batch)
        prepared = list(statements(batch))
        with explained(self._connection, self._name):
            try:
                self._write(batch, prepared)
            except psycopg.errors.CheckViolation:
                # A month that is known here has been dropped, when it was over for somebody else and had no run.
                self._partitions.forget()
                self._write(batch, prepared)
        if self._warning is not None:
            raise StoreUnavailable(f"{self._name} committed with a warning: {self._warning}")

    def _write(self, batch: Batch, prepared: Sequence[Statement]) -> None:
        owned = sorted(batch.owned())
        for write in batch.runs:
            if write.created is not None:
                self._partitions.ensure(write.run.run_id)
        labels = labels_of(self._connection, batch.purges)
        self._warning = None
        try:
            with self._connection.pipeline():
                cursor = self._connection.cursor()
                self._limits.begin(cursor)
                if owned:
                    cursor.execute(_CHECK_EPOCHS, columns("ii", owned))
                for statement, values in (*prepared, *purging(batch.purges, labels)):
                    cursor.execute(statement, values)
                cursor.execute("COMMIT")
        except BaseException:
            if not self._connection.closed:
                self._connection.rollback()
            raise

    def tidy(self, now: Millis) -> Tidied:
        with explained(self._connection, self._name):
            partitions = drop_partitions(self._connection, self._limits, now)
            definitions, more = self._unused.remove_some()
            return Tidied(partitions=partitions, definitions=definitions, more=more)

    def close(self) -> None:
        self._connection.close()

    def _owned(self, epochs: dict[int, int]) -> ShardEpochs:
        row = self._connection.execute(_NEWEST).fetchone()
        return ShardEpochs(epochs=epochs, token_key=self._token_key, newest_run_id=None if row is None else row[0])

    def _heed(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.sqlstate == _NOT_REPLICATED:
            self._warning = " ".join((diagnostic.message_primary or "").split())
