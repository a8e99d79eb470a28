"""One synchronous connection to Redis: commands in pipelines, and what its errors mean.

redis-py connects, signs on, speaks TLS and reads replies; commands are packed here, since one XADD a message is most of
what links send. Runs in the driver's process.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection, parse_url
from redis.connection import Connection as PlainConnection
from redis.retry import Retry

from daemon.drivers.faults import ServerAway, ServerUnusable
from daemon.redis.frames import Server

Answer: TypeAlias = Any
"""As Redis answers: bytes, int, None, or lists of these; or the error of one command."""

_READ_BYTES = 256 * 1024

_FOR_GOOD = ("WRONGTYPE", "MOVED", "CROSSSLOT")

_IN_SCRIPT = re.compile(r"@user_script: ?\d+: -?(?P<code>[A-Z]{3,}) (?P<text>.*)", re.DOTALL)
"""How Redis up to 6.2 wraps what a command of a script was refused with; later ones begin with its code."""
_NOT_LET = ("ACL failure in script", "The user executing the script can't run this command")
"""How a script is told that its user may not do what it does: by no code of its own."""


def packed(*arguments: bytes) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments)


class CommandError(Exception):
    """Redis refused one command. `code` is the first word of what it said."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code

    @property
    def forbidden(self) -> bool:
        return self.code == "NOPERM"

    @property
    def groupless(self) -> bool:
        """The stream or its group is gone, maybe from under a read that was blocking."""
        return self.code in ("NOGROUP", "UNBLOCKED")

    @property
    def no_memory(self) -> bool:
        return self.code == "OOM"

    @property
    def unknown_command(self) -> bool:
        return self.code == "ERR" and "unknown command" in str(self)


def raise_for(error: CommandError) -> NoReturn:
    """What an error that nobody expects means for all of Redis. Raises ServerUnusable or ServerAway."""
    if error.forbidden:
        raise ServerUnusable(
            f"Redis does not let this user do what the engine needs ({error}): give it the commands and the key "
            "pattern of docs/links.md, and of docs/queues.md where it has the queues"
        )
    if error.code in _FOR_GOOD:
        raise ServerUnusable(
            f"Redis refuses what the engine needs ({error}): nothing else may use the keys of this [links] name, and a "
            "node of a Redis Cluster must be the one that has them"
        )
    raise ServerAway(f"Redis refuses: {error}")


class Connection:
    """Connected when it has been made. Raises ServerAway (it is closed then) and, where waiting does not help,
    ServerUnusable."""

    def __init__(self, server: Server, timeout_seconds: float) -> None:
        self._section = server.section
        self._connection = _connection(server, timeout_seconds)
        try:
            self._connection.connect()  # type: ignore[no-untyped-call]
        except exceptions.AuthenticationError as error:
            raise self._not_let_in(error) from error
        except exceptions.ResponseError as error:
            raise_for(_command_error(error))
        except (exceptions.RedisError, OSError) as error:
            reason = str(error)
            if "certificate verify failed" in reason.lower().replace("_", " "):
                raise ServerUnusable(
                    f"Redis's certificate is not trusted ({reason}): [{self._section}] ca_file must name the authority "
                    "that signed it, and the url the host that it is for"
                ) from error
            raise ServerAway(reason) from error
        self._socket: socket.socket | None = self._connection._get_socket()

    def run(self, commands: Sequence[bytes]) -> list[Answer | CommandError]:
        """The answers, in order, in one trip. Raises ServerAway and ServerUnusable."""
        try:
            self._connection.send_packed_command([b"".join(commands)])  # type: ignore[no-untyped-call]
        except (exceptions.RedisError, OSError) as error:
            raise ServerAway(str(error)) from error
        return [self._answer() for _ in commands]

    def run_all(self, commands: Sequence[bytes]) -> list[Answer]:
        """As `run`. Raises CommandError for the first that Redis refused."""
        answers = self.run(commands)
        for answer in answers:
            if isinstance(answer, CommandError):
                raise answer
        return answers

    def ask(self, *arguments: bytes) -> Answer:
        """One command's answer. Raises CommandError."""
        return self.run_all([packed(*arguments)])[0]

    def _answer(self) -> Answer | CommandError:
        try:
            return self._connection.read_response(disable_decoding=True, disconnect_on_error=False)
        except exceptions.ResponseError as error:
            return _command_error(error)
        except exceptions.AuthenticationError as error:
            raise self._not_let_in(error) from error
        except (exceptions.RedisError, OSError, AttributeError, ValueError) as error:
            # The last two: redis-py's own, when another thread has closed the connection meanwhile.
            self.close()
            raise ServerAway(str(error)) from error

    def cut(self) -> None:
        """End what another thread waits for."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return

    def close(self) -> None:
        self._connection.disconnect()  # type: ignore[no-untyped-call]

    def _not_let_in(self, error: exceptions.AuthenticationError) -> ServerUnusable:
        return ServerUnusable(
            f"Redis does not let this process in ({error}): check the user and the password, in [{self._section}] url "
            "or its password_file"
        )


def _command_error(error: exceptions.ResponseError) -> CommandError:
    code = getattr(error, "status_code", None)
    text = str(error)
    if any(each in text for each in _NOT_LET):
        return CommandError("NOPERM", text)
    if wrapped := _IN_SCRIPT.search(text):
        return CommandError(wrapped["code"], wrapped["text"])
    if code:
        return CommandError(str(code), text)
    first, _, rest = text.partition(" ")
    return CommandError(first, rest) if first.isupper() else CommandError("ERR", text)


def _connection(server: Server, timeout_seconds: float) -> AbstractConnection:
    try:
        options = parse_url(server.url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ServerUnusable(f"[{server.section}] url is none that Redis is reached by: {error}") from error
    kind = options.pop("connection_class", PlainConnection)
    if server.password is not None:
        options["password"] = server.password
    if issubclass(kind, SSLConnection):
        options.update(
            ssl_ca_certs=server.ca_file,
            ssl_certfile=server.cert_file,
            ssl_keyfile=server.key_file,
            ssl_check_hostname=True,
        )
    made: AbstractConnection = kind(
        **options,
        protocol=2,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        socket_read_size=_READ_BYTES,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
    )
    return made
