"""engine.toml: what is at fault is named with its line; the file at the root documents every setting."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from daemon.configuration import FILE_BYTES, BadSettings, load_settings, parse_listen
from daemon.settings import ConnectionAuth, ConnectionSettings, Section, Settings

ROOT = Path(__file__).parents[2]
LINK_URLS = "must be memory:, redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE], rediss://… (TLS) or unix://PATH, not"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "engine.toml"
        path.write_text(text)
        return path

    return write


def faults(path: Path) -> list[str]:
    with pytest.raises(BadSettings) as bad:
        load_settings(path)
    return [line.removeprefix(str(path)) for line in str(bad.value).splitlines()]


def test_without_a_file_everything_has_its_default() -> None:
    assert load_settings(None) == Settings()


def test_an_empty_file_is_the_defaults(write: Write) -> None:
    assert load_settings(write("")) == Settings()


def test_the_file_at_the_root_is_the_defaults() -> None:
    assert load_settings(ROOT / "engine.toml") == Settings()


def test_the_file_at_the_root_names_every_setting_under_a_comment() -> None:
    section = ""
    previous = ""
    named: set[tuple[str, str]] = set()
    for line in (ROOT / "engine.toml").read_text().splitlines():
        if header := re.fullmatch(r"(?:# )?\[(\w+)(?:\.\w+)?\]", line):
            section = header[1]
        elif setting := re.match(r"(?:# )?(\w+) = ", line):
            assert previous.startswith("#") or setting[1] == "window_seconds", f"{setting[1]} has no comment"
            named.add((section, setting[1]))
        previous = line
    wanted = set()
    for field in msgspec.structs.fields(Settings):
        kind = ConnectionSettings if field.name == "connections" else field.type
        assert isinstance(kind, type)
        assert issubclass(kind, Section)
        wanted |= {(field.name, setting.name) for setting in msgspec.structs.fields(kind)}
    assert named == wanted


def test_values_are_taken_and_the_rest_keeps_its_defaults(write: Write) -> None:
    settings = load_settings(
        write('[history]\npayload_bytes = 1024\n[worker]\ndrain_seconds = 0\n[store]\nurl = "memory:"\n')
    )
    assert settings.history.payload_bytes == 1024
    assert settings.worker.drain_seconds == 0.0
    assert settings.store.url == "memory:"
    assert settings.frontend == Settings().frontend
    assert settings.history.waiters == Settings().history.waiters


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "[history]\n\n# so\npayload_byte = 1\n",
            ":4: [history] payload_byte: unknown setting; did you mean payload_bytes?",
        ),
        ("\n[histroy]\na = 1\n", ":2: [histroy]: unknown section; did you mean history?"),
        ("[worker]\nslots = '5'\n", ":2: [worker] slots: must be a whole number, not '5'"),
        ("[worker]\nslots = 2.5\n", ":2: [worker] slots: must be a whole number, not 2.5"),
        ("[worker]\nslots = true\n", ":2: [worker] slots: must be a whole number, not true"),
        ("[worker]\nslots = 0\n", ":2: [worker] slots: must be a whole number >= 1, not 0"),
        ("[timer]\nscan_seconds = 0\n", ":2: [timer] scan_seconds: must be a number > 0.0, not 0"),
        ("[timer]\nscan_seconds = inf\n", ":2: [timer] scan_seconds: must be a finite number, not inf"),
        ("[timer]\nscan_seconds = nan\n", ":2: [timer] scan_seconds: must be a finite number, not nan"),
        ("[store]\nshards = 1025\n", ":2: [store] shards: must be a whole number <= 1024, not 1025"),
        ("[auth]\nissuer = 1\n", ":2: [auth] issuer: must be a string, not 1"),
        ("[auth]\nalgorithms = 'HS256'\n", ":2: [auth] algorithms: must be a list, not 'HS256'"),
        (
            "[log]\nlevel = 'loud'\n",
            ":2: [log] level: must be one of debug, info, warning, error, not 'loud'",
        ),
        ("store = 5\n", ":1: store: must be a section, written [store], not 5"),
        ("worker.slots = 0\n", ":1: [worker] slots: must be a whole number >= 1, not 0"),
        ("worker = { slots = 0 }\n", ":1: [worker] slots: must be a whole number >= 1, not 0"),
        (
            "[auth]\naudience = 'a'\nalgorithms = [\n  # two\n  5,\n]\n",
            ":3: [auth] algorithms: must be a string, not [5]",
        ),
        (
            "[store]\nurl = 'mysql://x'\n",
            ":2: [store] url: must be memory:, sqlite:///PATH or postgresql://…, not 'mysql://x'",
        ),
        ("[links]\nurl = 'kafka://x'\n", f":2: [links] url: {LINK_URLS} 'kafka://x'"),
        ("[links]\nurl = 'redis://me:secret@'\n", f":2: [links] url: {LINK_URLS} 'redis://me:[redacted]@'"),
        ("[links]\nurl = 'redis://h:1?db=1'\n", f":2: [links] url: {LINK_URLS} 'redis://h:1?db=1'"),
        ("[links]\nurl = 'redis://h:1/one'\n", f":2: [links] url: {LINK_URLS} 'redis://h:1/one'"),
        ("[links]\nurl = 'redis://h:port'\n", f":2: [links] url: {LINK_URLS} 'redis://h:port'"),
        (
            "[links]\nname = 'a b'\n",
            ":2: [links] name: may have A-Z a-z 0-9 . _ - and begins with none of . _ -, not 'a b'",
        ),
        (
            "[links]\nurl = 'redis://:x@h'\npassword_file = '/f'\n",
            ":3: [links] password_file: the password comes from one place, and the url has one",
        ),
        ("[queues]\nurl = 'kafka://x'\n", f":2: [queues] url: {LINK_URLS} 'kafka://x'"),
        ("[queues]\nurl = 'redis://me:secret@'\n", f":2: [queues] url: {LINK_URLS} 'redis://me:[redacted]@'"),
        (
            "[queues]\nurl = 'redis://:x@h'\npassword_file = '/f'\n",
            ":3: [queues] password_file: the password comes from one place, and the url has one",
        ),
        ("[queues]\nca_file = '/f'\n", ":2: [queues] ca_file: is for a url of rediss://"),
        (
            "[queues]\nurl = 'rediss://h'\ncert_file = '/f'\n",
            ":3: [queues] cert_file: cert_file and key_file go together",
        ),
        ("[queues]\nqueue_tasks = 9\n", ":2: [queues] queue_tasks: must be a whole number >= 10, not 9"),
        (
            "[queues]\nname = 'x'\n",
            ":2: [queues] name: unknown setting; there are url, password_file, ca_file, cert_file, key_file, "
            "call_timeout_seconds, queue_tasks",
        ),
        ("[links]\nca_file = '/f'\n", ":2: [links] ca_file: is for a url of rediss://"),
        (
            "[links]\nurl = 'rediss://h'\nkey_file = '/f'\n",
            ":3: [links] key_file: cert_file and key_file go together",
        ),
        ("[frontend]\nrpc_listen = '7460'\n", ":2: [frontend] rpc_listen: must be HOST:PORT, not '7460'"),
        (
            "[frontend]\nhttp_listen = '127.0.0.1:7460'\n",
            ":2: [frontend] http_listen: is the same address as rpc_listen (127.0.0.1:7460)",
        ),
        (
            "[code]\ntimeout_limit_milliseconds = 100\n",
            ":2: [code] timeout_milliseconds: 5000 is more than timeout_limit_milliseconds (100)",
        ),
        (
            "[supervisor]\nbackoff_seconds = 9\nbackoff_limit_seconds = 8\n",
            ":3: [supervisor] backoff_limit_seconds: 8 is less than backoff_seconds (9)",
        ),
        (
            "[auth]\nkey_file = 'a'\njwks_url = 'b'\n",
            ":3: [auth] jwks_url: keys come from one place, and key_file is set",
        ),
        (
            "[http]\nallow = ['10.1.0.0/16', '10.1.2.3/8']\n",
            ':2: [http] allow: \'10.1.2.3/8\' is not a network like "10.1.0.0/16" or "::1": '
            "10.1.2.3/8 has host bits set",
        ),
        (
            "[http]\nallow = ['localhost']\n",
            ':2: [http] allow: \'localhost\' is not a network like "10.1.0.0/16" or "::1": '
            "'localhost' does not appear to be an IPv4 or IPv6 network",
        ),
        ("[store\n", ":1: not TOML: Expected ']' at the end of a table declaration"),
        ("[store]\nurl = 'a'\nurl = 'b'\n", ":3: not TOML: Cannot overwrite a value"),
        ("[store]\nurl = '''\n", ":2: not TOML: Expected \"'''\""),
    ],
)
def test_a_fault_is_named_with_its_line(write: Write, text: str, fault: str) -> None:
    assert faults(write(text)) == [fault]


CONNECTION = "[connections.shop]\nurl = 'https://shop.test/api'\ntenants = ['acme']\n"


def test_connections_are_taken_by_name(write: Write) -> None:
    settings = load_settings(
        write(
            CONNECTION
            + "auth = 'bearer'\nsecret_file = '/s'\n[connections.'b.c-d']\nurl = 'http://b'\ntenants = ['*']\n"
        )
    )
    assert settings.connections == {
        "shop": ConnectionSettings(
            url="https://shop.test/api", tenants=["acme"], auth=ConnectionAuth.BEARER, secret_file="/s"
        ),
        "b.c-d": ConnectionSettings(url="http://b", tenants=["*"]),
    }


def test_a_credential_is_named_and_is_no_path(write: Write) -> None:
    assert faults(write("[auth]\nkey_credential = '../key'\n")) == [
        ":2: [auth] key_credential: '../key' is not the name of a credential"
    ]
    assert faults(write("[auth]\nkey_file = '/k'\nkey_credential = 'key'\n")) == [
        ":3: [auth] key_credential: keys come from one place, and key_file is set"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("connections = 5\n", ":1: connections: must be a section, written [connections.NAME], not 5"),
        ("[connections]\nshop = 5\n", ":2: [connections] shop: must be a section, written [connections.shop]"),
        ("[connections.shop]\nurl = 'http://b'\n", ":1: [connections.shop]: needs tenants"),
        ("[connections.shop]\ntenants = ['a']\n", ":1: [connections.shop]: needs url"),
        (
            "[connections.'a b']\nurl = 'http://b'\ntenants = ['*']\n",
            ":1: [connections.'a b']: a name has 1 to 64 of the characters A-Z a-z 0-9 . _ -",
        ),
        (
            "[connections.shop]\nurl = 'http://b'\ntenants = []\n",
            ":3: [connections.shop] tenants: must be a list of length >= 1, not []",
        ),
        (
            CONNECTION + "auth = 'digest'\n",
            ":4: [connections.shop] auth: must be one of none, bearer, basic, api_key, not 'digest'",
        ),
        (
            CONNECTION + "auth = 'bearer'\nsecret = 'hunter2'\n",
            ":5: [connections.shop] secret: unknown setting; a secret does not stand in this file: use secret_file, "
            "secret_env or secret_credential",
        ),
        (CONNECTION + "headr = 'X'\n", ":4: [connections.shop] headr: unknown setting; did you mean header?"),
        (
            "[connections.shop]\nurl = 'shop.test'\ntenants = ['*']\n",
            ":2: [connections.shop] url: must start with http:// or https:// and a host, not 'shop.test'",
        ),
        (
            "[connections.shop]\nurl = 'http://a:b@shop.test'\ntenants = ['*']\n",
            ":2: [connections.shop] url: must not have a user in it: use auth and username",
        ),
        (
            "[connections.shop]\nurl = 'http://shop.test?a=1'\ntenants = ['*']\n",
            ":2: [connections.shop] url: must end with its path",
        ),
        (
            "[connections.shop]\nurl = 'http://shöp.test'\ntenants = ['*']\n",
            ":2: [connections.shop] url: must have its host as DNS has it (xn--...), not 'http://shöp.test'",
        ),
        (
            "[connections.shop]\nurl = 'http://shop.test'\ntenants = ['*', 'a']\n",
            ':3: [connections.shop] tenants: "*" is all of them; leave out either it or the others',
        ),
        (CONNECTION + "secret_env = 'S'\n", ":4: [connections.shop] secret_env: has no meaning without auth"),
        (
            CONNECTION + "auth = 'bearer'\n",
            ":4: [connections.shop] auth: bearer needs a secret: one of secret_file, secret_env, secret_credential",
        ),
        (
            CONNECTION + "auth = 'bearer'\nsecret_env = 'S'\nsecret_file = '/s'\n",
            ":5: [connections.shop] secret_env: a secret comes from one place, and secret_file is set",
        ),
        (
            CONNECTION + "auth = 'bearer'\nsecret_credential = '../s'\n",
            ":5: [connections.shop] secret_credential: must be the name of a credential, not a path",
        ),
        (CONNECTION + "auth = 'basic'\nsecret_env = 'S'\n", ":4: [connections.shop] auth: basic needs a username"),
        (
            CONNECTION + "auth = 'basic'\nsecret_env = 'S'\nusername = 'a:b'\n",
            ":6: [connections.shop] username: cannot have a colon in it: that is where the password begins",
        ),
        (
            CONNECTION + "auth = 'bearer'\nsecret_env = 'S'\nusername = 'a'\n",
            ":6: [connections.shop] username: is for auth = basic only",
        ),
        (
            CONNECTION + "auth = 'bearer'\nsecret_env = 'S'\nquery = 'a'\n",
            ":6: [connections.shop] query: is for auth = api_key only",
        ),
        (
            CONNECTION + "auth = 'api_key'\nsecret_env = 'S'\nheader = 'a b'\n",
            ":6: [connections.shop] header: 'a b' is not the name of a header",
        ),
    ],
)
def test_a_fault_of_a_connection_is_named_with_its_line(write: Write, text: str, fault: str) -> None:
    assert faults(write(text)) == [fault]


def test_algorithm_none_is_refused(write: Write) -> None:
    (fault,) = faults(write('[auth]\nalgorithms = ["HS256", "none"]\n'))
    assert fault.startswith(":2: [auth] algorithms: 'none' is none of ")


def test_what_does_not_fit_a_frame_is_refused_where_it_is_set_or_where_the_frame_is(write: Write) -> None:
    named = faults(write("[history]\npayload_bytes = 300000\n[frontend]\nframe_bytes = 500000\n"))
    assert [fault.partition(" does not fit")[0].partition(" is more")[0] for fault in named] == [
        ":2: [history] payload_bytes: 300000",
        ":4: [history] page_bytes: 2097152",
    ]


def test_every_fault_is_named_in_the_order_of_the_file(write: Write) -> None:
    named = faults(
        write("[worker]\nslots = 0\n[fronted]\nx = 1\n[store]\nshard = 4\nurl = 'x:'\n[log]\nformat = 'xml'\n")
    )
    assert [fault.split(":")[1] for fault in named] == ["2", "3", "6", "7", "9"]


def test_a_missing_a_large_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.toml") == [": cannot be read: No such file or directory"]
    large = tmp_path / "large.toml"
    large.write_text("# x\n" * FILE_BYTES)
    assert "bytes are more than settings can take" in faults(large)[0]
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"[store]\nurl = '\xff'\n")
    assert faults(binary) == [":2: not UTF-8 (byte 0xff)"]


@pytest.mark.parametrize(
    ("listen", "parts"),
    [("127.0.0.1:7460", ("127.0.0.1", 7460)), ("localhost:0", ("localhost", 0)), ("[::1]:65535", ("::1", 65535))],
)
def test_listen_addresses(listen: str, parts: tuple[str, int]) -> None:
    assert parse_listen(listen) == parts


@pytest.mark.parametrize("listen", ["", "7460", ":7460", "host:", "host:65536", "host:-1", "::1:7460", "host:８０"])
def test_what_is_no_listen_address(listen: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_listen(listen)
