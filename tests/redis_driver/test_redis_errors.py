"""What Redis's errors are taken for, as several of its versions write them."""

from __future__ import annotations

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError
from redis_server import RedisServer

from daemon.redis.connection import CommandError, Connection, _command_error, packed
from daemon.redis.frames import Server

CALL = "Error running script (call to f_a7f30a777e3a14deb342c34c70e37dd1e66eb928): @user_script:1:"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(
            ResponseError(f"{CALL} @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'."),
            "OOM",
            id="6.2",
        ),
        pytest.param(
            OutOfMemoryError(
                "command not allowed when used memory > 'maxmemory'. script: on @user_script:1.", status_code="OOM"
            ),
            "OOM",
            id="7",
        ),
        pytest.param(
            ResponseError(f"{CALL} WRONGTYPE Operation against a key holding the wrong kind of value"),
            "WRONGTYPE",
            id="6.2, not ours",
        ),
        pytest.param(
            ResponseError(
                f"{CALL} @user_script: 1: The user executing the script can't run this command or subcommand"
            ),
            "NOPERM",
            id="6.2, forbidden",
        ),
        pytest.param(
            ResponseError("ACL failure in script: User x has no permissions to run the 'set' command"),
            "NOPERM",
            id="7, forbidden",
        ),
        pytest.param(ResponseError(f"{CALL} user_script:1: x"), "ERR", id="the script's own fault"),
    ],
)
def test_an_error_inside_a_script_is_known_by_its_own_code(error: ResponseError, code: str) -> None:
    assert _command_error(error).code == code


def test_what_this_server_says_when_its_memory_is_full(own_redis: RedisServer) -> None:
    connection = Connection(Server("queues", own_redis.url), 30.0)
    try:
        connection.ask(b"CONFIG", b"SET", b"maxmemory", b"1")
        (answer,) = connection.run([packed(b"EVAL", b"redis.call('SET', 'a', 'b')", b"0")])
        assert isinstance(answer, CommandError)
        assert answer.no_memory
    finally:
        connection.close()
