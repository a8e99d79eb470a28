"""Connections: who may use one, where its secret comes from, and that it is told to nobody."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from daemon.connections import Connections, Origin, origin_of
from daemon.settings import ConnectionAuth, ConnectionSettings
from enginekit.messages.json import JSON
from enginekit.node import NodeFailure

SECRET = "s3cr3t-of-the-shop"


def settings(file: Path | None, auth: ConnectionAuth = ConnectionAuth.BEARER, **more: str) -> ConnectionSettings:
    given: dict[str, str] = {} if file is None else {"secret_file": str(file)}
    return ConnectionSettings(url="https://Shop.test/api/", tenants=["acme"], auth=auth, **(given | more))


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def refusal(connections: Connections, name: JSON, tenant: str = "acme") -> NodeFailure:
    with pytest.raises(NodeFailure) as failed:
        connections.resolve(name, tenant)
    return failed.value


def test_a_bearer_token_and_its_origin(secret_file: Path) -> None:
    connection = Connections({"shop": settings(secret_file)}).resolve("shop", "acme")
    assert connection.headers == {"Authorization": f"Bearer {SECRET}"}
    assert connection.query == {}
    assert connection.secret == SECRET
    assert connection.url == "https://Shop.test/api"
    assert connection.origin == Origin("https", "shop.test", 443)


def test_basic_and_api_keys(secret_file: Path) -> None:
    connections = Connections(
        {
            "basic": settings(secret_file, ConnectionAuth.BASIC, username="ann"),
            "header": settings(secret_file, ConnectionAuth.API_KEY),
            "other": settings(secret_file, ConnectionAuth.API_KEY, header="X-Token"),
            "query": settings(secret_file, ConnectionAuth.API_KEY, query="key"),
            "none": settings(None, ConnectionAuth.NONE),
        }
    )
    basic = base64.b64encode(f"ann:{SECRET}".encode()).decode()
    assert connections.resolve("basic", "acme").headers == {"Authorization": f"Basic {basic}"}
    assert connections.resolve("header", "acme").headers == {"X-Api-Key": SECRET}
    assert connections.resolve("other", "acme").headers == {"X-Token": SECRET}
    assert connections.resolve("query", "acme").headers == {}
    assert connections.resolve("query", "acme").query == {"key": SECRET}
    none = connections.resolve("none", "acme")
    assert (none.headers, none.query, none.secret) == ({}, {}, None)


def test_another_tenants_is_as_unknown_as_one_that_is_not_there(secret_file: Path) -> None:
    there = refusal(Connections({"shop": settings(secret_file)}), "shop", "other")
    not_there = refusal(Connections({}), "shop", "other")
    assert there.error == not_there.error == "Engine.UnknownConnection"
    assert there.cause == not_there.cause
    assert '"shop"' in there.cause
    assert Connections({"shop": settings(secret_file)}).fault("shop", "other") is not None


def test_all_tenants_may_use_one_that_is_for_all() -> None:
    connections = Connections({"open": ConnectionSettings(url="http://a", tenants=["*"])})
    assert connections.fault("open", "anybody") is None
    assert connections.resolve("open", "anybody").origin == Origin("http", "a", 80)
    assert connections.fault("opne", "anybody") is not None


@pytest.mark.parametrize("name", [None, 7, ["shop"], {"a": 1}])
def test_a_name_is_a_string(name: JSON) -> None:
    assert refusal(Connections({}), name).error == "Engine.UnknownConnection"


def test_a_secret_that_was_replaced_counts_from_the_next_use(secret_file: Path) -> None:
    connections = Connections({"shop": settings(secret_file)})
    before = connections.resolve("shop", "acme")
    secret_file.write_text("another-secret")
    after = connections.resolve("shop", "acme")
    assert (before.secret, after.secret) == (SECRET, "another-secret")
    secret_file.unlink()
    gone = refusal(connections, "shop")
    assert gone.error == "Engine.ConnectionUnusable"
    assert gone.cause == 'connection "shop" cannot be used: its secret cannot be read: No such file or directory'


def test_secrets_of_the_environment_and_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections(
        {"env": settings(None, secret_env="SHOP_SECRET"), "systemd": settings(None, secret_credential="shop")}
    )
    monkeypatch.delenv("SHOP_SECRET", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "environment does not have it" in refusal(connections, "env").cause
    assert "systemd passed no credentials" in refusal(connections, "systemd").cause
    assert len(list(connections.problems())) == 2
    monkeypatch.setenv("SHOP_SECRET", SECRET)
    (tmp_path / "shop").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert connections.resolve("env", "acme").secret == SECRET
    assert connections.resolve("systemd", "acme").secret == SECRET
    assert list(connections.problems()) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "too short"),
        (b"7 bytes", "too short"),
        (b"\xff" * 20, "not UTF-8"),
        (b"x" * 20_000, "more than"),
        (b"two-lines\ntwo-lines", "cannot stand in a header"),
        ("pässwörter".encode(), "cannot stand in a header"),
        (b" padded-secret", "cannot stand in a header"),
    ],
)
def test_what_is_no_secret(secret_file: Path, content: bytes, problem: str) -> None:
    secret_file.write_bytes(content)
    failed = refusal(Connections({"shop": settings(secret_file)}), "shop")
    assert failed.error == "Engine.ConnectionUnusable"
    assert problem in failed.cause
    assert str(secret_file) not in failed.cause
    if len(content) > 8:
        assert content.decode(errors="replace")[:9] not in failed.cause


def test_a_password_may_be_any_text(secret_file: Path) -> None:
    secret_file.write_text("pässwörter")
    connections = Connections({"shop": settings(secret_file, ConnectionAuth.BASIC, username="ann")})
    assert connections.resolve("shop", "acme").secret == "pässwörter"


def test_no_secret_in_a_repr(secret_file: Path) -> None:
    connection = Connections({"shop": settings(secret_file)}).resolve("shop", "acme")
    for shown in (repr(connection), str(connection), repr(connection.redactor), f"{[connection]}"):
        assert SECRET not in shown
    assert repr(connection) == "<Connection shop to https://shop.test>"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://a", ("http", "a", 80)),
        ("https://A.b:8443/x?y", ("https", "a.b", 8443)),
        ("http://[::1]:80/", ("http", "::1", 80)),
    ],
)
def test_origins(url: str, origin: tuple[str, str, int]) -> None:
    assert origin_of(url) == origin


def test_an_origin_as_text() -> None:
    assert str(Origin("http", "::1", 8080)) == "http://[::1]:8080"
    assert str(Origin("https", "a.b", 443)) == "https://a.b"


@pytest.mark.parametrize("url", ["", "a.b", "ftp://a", "http://", "http://:80", "http://a:port", "http://é"])
def test_what_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|[Pp]ort"):
        origin_of(url)


def test_the_environment_is_read_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"SHOP_SECRET", b"\xff" * 10)
    connections = Connections({"env": settings(None, secret_env="SHOP_SECRET")})
    assert "not UTF-8" in refusal(connections, "env").cause
