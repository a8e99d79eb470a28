"""A connection to the server: how it is made, what it is told, and when a server that does not answer is waited for.

Every connection of ours is in autocommit mode and begins its transactions itself. What a transaction has to keep to is
said in it (`SET LOCAL`): settings of a session would be somebody else's behind a pooler that lends its connections by
transaction.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from daemon.address import shown
from daemon.stores.faults import StoreUnavailable, StoreUnusable
from daemon.stores.postgres.columns import register
from daemon.stores.postgres.failures import one_line, refused_for_good

OLDEST_SERVER: Final = 140000
_OLDEST_SHOWN = "14"
logging.getLogger("psycopg").setLevel(logging.ERROR)
"""What it warns of is raised, too, and said by who is told."""
_FORM: Final = re.compile(r"postgresql://([^@/?]*@)?[^@/?]*(/[^@/?]*)?(\?.*)?", re.DOTALL)
"""A password with a bare @ or / in it has another end for libpq, which then tells the rest of it as a host's name."""
_PAUSE_SECONDS = 0.5
_CONNECT_SECONDS = 5


def connect(
    url: str, purpose: str, call_timeout_seconds: float, wait_seconds: float, still_wanted: Callable[[], bool]
) -> psycopg.Connection:
    """A connection that can write.

    A server that cannot be reached, is starting, full, or a standby is asked again for `wait_seconds`. Raises
    StoreUnavailable when it is so for longer or nobody waits for us any more, and StoreUnusable when it will not let us
    in, or is too old.
    """
    deadline = time.monotonic() + wait_seconds
    settings = _settings(url, purpose, call_timeout_seconds)
    while True:
        try:
            connection = psycopg.connect(settings, autocommit=True)
        except psycopg.OperationalError as error:
            said = one_line(error)
            what_to_do = refused_for_good(said)
            if what_to_do is not None:
                raise StoreUnusable(f"{shown(url)} refuses us: {said}: {what_to_do}") from None
            if time.monotonic() >= deadline or not still_wanted():
                raise StoreUnavailable(f"{shown(url)} cannot be reached: {said}") from None
            time.sleep(_PAUSE_SECONDS)
            continue
        except psycopg.Error as error:
            raise StoreUnusable(f"{shown(url)} cannot be used: {one_line(error)}") from None
        if connection.info.server_version < OLDEST_SERVER:
            version = connection.info.parameter_status("server_version")
            connection.close()
            raise StoreUnusable(
                f"{shown(url)} is PostgreSQL {version}, and the engine needs {_OLDEST_SHOWN} or newer: upgrade it, or "
                "name another server in `[store] url`"
            )
        register(connection)
        connection.prepare_threshold = None
        if not _is_pooled(connection):
            connection.prepare_threshold = 0
        return connection


def bound_reads(connection: psycopg.Connection, seconds: float) -> None:
    """That the server ends a query which nobody waits for any more: this connection's, and nobody else's, so not behind
    a pooler."""
    if connection.prepare_threshold is not None:
        connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(round(seconds * 1000)),))


def _is_pooled(connection: psycopg.Connection) -> bool:
    """Whether a pooler is in between: it makes up the process id with which a connection begins.

    It may lend a server's session to one transaction of ours and the next to somebody else's. A statement that one of
    us has prepared there under a name is not what the other means by that name: behind a pooler nothing is prepared.
    """
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.info.backend_pid


def _settings(url: str, purpose: str, call_timeout_seconds: float) -> str:
    """What the URL says, and what it leaves to us. Raises StoreUnusable, telling nothing of what it says."""
    try:
        if not _FORM.fullmatch(url):
            raise psycopg.ProgrammingError("an @ or a / that is not written as %XX")
        said = {key: value for key, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:
        raise StoreUnusable(
            f"[store] url = {shown(url)} cannot be read: postgresql://USER:PASSWORD@HOST:PORT/DATABASE is its form, "
            "and what is not a letter or a digit in a name or a password is written as %XX"
        ) from None
    silence = max(round(call_timeout_seconds), 1)
    ours: dict[str, str | int] = {
        "application_name": f"engine {purpose}",
        "connect_timeout": _CONNECT_SECONDS,
        "target_session_attrs": "read-write",
        # Who hears nothing of the server for as long as a call may take counts it as gone.
        "tcp_user_timeout": silence * 1000,
        "keepalives_idle": max(silence // 3, 1),
        "keepalives_interval": max(silence // 6, 1),
        "keepalives_count": 3,
    }
    return make_conninfo("", **{**ours, **said})
