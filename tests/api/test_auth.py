"""Tokens: who is let in, and the reason of its own that everybody else is given."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from daemon.api import keys as keys_module
from daemon.api.auth import Principal, Verifier, load_verifier, sign_local_token
from daemon.api.keys import KeyUnusable
from daemon.settings import AuthSettings
from enginekit.messages.status import ErrorStatus, Refused

NOW = 1_800_000_000
SECRET = b"0123456789abcdef0123456789abcdef"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


class FixedClock:
    def __init__(self, seconds: float = NOW) -> None:
        self.seconds = seconds

    def now(self) -> int:
        return int(self.seconds * 1000)


def claims(**changes: Any) -> dict[str, Any]:
    base = {"iss": "engine", "aud": "engine", "sub": "ada", "tenant": "acme", "scope": "read work", "exp": NOW + 60}
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    kinds: list[tuple[type, Any]] = [
        (rsa.RSAPrivateKey, RSAAlgorithm),
        (ec.EllipticCurvePrivateKey, ECAlgorithm),
        (ed25519.Ed25519PrivateKey, OKPAlgorithm),
    ]
    algorithm = next(algorithm for kind, algorithm in kinds if isinstance(key, kind))
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, **more}


def verifier(tmp_path: Path, content: bytes = SECRET, **settings: Any) -> Verifier:
    path = tmp_path / "a.key"
    path.write_bytes(content)
    return load_verifier(AuthSettings(key_file=str(path), **settings), tmp_path, FixedClock())


async def refusal(check: Verifier, text: str) -> str:
    with pytest.raises(Refused) as caught:
        await check.verify(text)
    assert caught.value.status is ErrorStatus.UNAUTHENTICATED
    return caught.value.message


async def test_a_good_token_is_a_principal(tmp_path: Path) -> None:
    principal = await verifier(tmp_path).verify(token())
    assert principal == Principal("acme", "ada", frozenset({"read", "work"}), NOW + 65)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no token"),
        ("abc", "malformed"),
        ("a.b.c", "malformed"),
        ("é.b.c", "malformed"),
        ("x" * 20_000, "malformed"),
        (token(key=b"another secret of thirty-two bytes"), "signature is wrong"),
        (token()[:-4] + "AAAA", "signature is wrong"),
        (token(exp=NOW - 6), "has expired"),
        (token(exp=...), "no exp claim"),
        (token(exp="soon"), "exp claim is not a time"),
        (token(exp=1e300), "exp claim is not a time"),
        (token(nbf=NOW + 6), "not valid yet"),
        (token(aud="billing"), "another audience"),
        (token(aud=...), "no aud claim"),
        (token(iss="mallory"), "another issuer"),
        (token(iss=...), "no iss claim"),
        (token(tenant=...), "no tenant claim"),
        (token(tenant="a b"), "tenant claim is not 1 to 255"),
        (token(tenant=7), "tenant claim is not 1 to 255"),
        (token(sub=...), "no sub claim"),
        (token(sub=""), "sub claim is not"),
        (token(scope=["read"]), "scope claim is not"),
        (token(key=None, algorithm="none"), 'not signed ("alg": "none")'),
        (token(algorithm="HS512", key=SECRET * 2), "signed with HS512; the key is for HS256"),
        (token(key=RSA_KEY, algorithm="RS256"), "signed with RS256; the key is for HS256"),
    ],
    ids=count(),  # The keys in them are others in every process.
)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_every_fault_of_a_token_has_a_message_of_its_own(tmp_path: Path, text: str, message: str) -> None:
    assert message in await refusal(verifier(tmp_path), text)


async def test_the_leeway_covers_clocks_that_differ(tmp_path: Path) -> None:
    await verifier(tmp_path).verify(token(exp=NOW - 4, nbf=NOW + 4))


@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")])
async def test_a_public_key_checks_what_its_private_key_signed(tmp_path: Path, key: Any, algorithm: str) -> None:
    check = verifier(tmp_path, public_pem(key), algorithms=[algorithm])
    assert (await check.verify(token(key, algorithm))).tenant == "acme"
    other: Any = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1())}.get(
        algorithm, ed25519.Ed25519PrivateKey.generate()
    )
    assert "signature is wrong" in await refusal(check, token(other, algorithm))


async def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    """The known attack: sign with HS256, and the (public) RSA key's text as the secret."""
    pem = public_pem(RSA_KEY)
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = base64.urlsafe_b64encode(hmac.sign(header + b"." + body, pem)).rstrip(b"=")
    forged = b".".join((header, body, signature)).decode()
    for algorithms in ([], ["RS256"], ["RS256", "HS256"]):
        message = await refusal(verifier(tmp_path, pem, algorithms=algorithms), forged)
        assert message == "the token is signed with HS256; the key is for RS256"


async def test_a_jwks_file_is_searched_by_kid(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    keys = [
        jwk(RSA_KEY, "r"),
        jwk(EC_KEY, "e"),
        jwk(ED_KEY, "d"),
        jwk(EC_KEY, "encrypts", use="enc"),
        {"kty": "nonsense", "kid": "n"},
        {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")},
    ]
    path.write_text(json.dumps({"keys": keys}))
    check = load_verifier(AuthSettings(jwks_file=str(path)), tmp_path, FixedClock())
    for key, algorithm, kid in ((RSA_KEY, "RS256", "r"), (EC_KEY, "ES256", "e"), (ED_KEY, "EdDSA", "d")):
        assert (await check.verify(token(key, algorithm, {"kid": kid}))).subject == "ada"
    await check.verify(token(SECRET, "HS256", {"kid": "s"}))
    assert "not known here" in await refusal(check, token(EC_KEY, "ES256", {"kid": "encrypts"}))
    assert "not known here" in await refusal(check, token(EC_KEY, "ES256", {"kid": "?"}))
    assert "names no key" in await refusal(check, token(EC_KEY, "ES256"))
    assert "signed with HS256; the key is for RS256" in await refusal(check, token(SECRET, "HS256", {"kid": "r"}))


class KeyServer:
    """A small real HTTP server that answers with a body and counts."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.asked = 0
        self.url = ""

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/jwks"
        task_status.started()
        await trio.serve_listeners(self._answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive_some()
            self.asked += 1
            head = f"HTTP/1.1 {self.status} OK\r\ncontent-length: {len(self.body)}\r\nconnection: close\r\n\r\n"
            try:
                await stream.send_all(head.encode() + self.body)
            except trio.BrokenResourceError:
                return


@pytest.fixture
async def key_server() -> AsyncIterator[KeyServer]:
    server = KeyServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        yield server
        nursery.cancel_scope.cancel()


async def test_a_jwks_url_is_fetched_once_and_again_for_an_unknown_key(
    tmp_path: Path, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_server.body = json.dumps({"keys": [jwk(RSA_KEY, "old")]}).encode()
    check = load_verifier(AuthSettings(jwks_url=key_server.url), tmp_path, FixedClock())
    assert key_server.asked == 0
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(check.verify, token(RSA_KEY, "RS256", {"kid": "old"}))
    assert key_server.asked == 1

    key_server.body = json.dumps({"keys": [jwk(RSA_KEY, "old"), jwk(EC_KEY, "new")]}).encode()
    rotated = token(EC_KEY, "ES256", {"kid": "new"})
    assert "not known here" in await refusal(check, rotated)
    assert key_server.asked == 1
    monkeypatch.setattr(keys_module, "REFRESH_SECONDS", 0.0)
    await check.verify(rotated)
    assert key_server.asked == 2

    key_server.status = 500
    assert "not known here" in await refusal(check, token(EC_KEY, "ES256", {"kid": "newer"}))
    await check.verify(rotated)
    assert key_server.asked == 3


@pytest.mark.parametrize(
    ("status", "body"), [(500, b"{}"), (302, b"{}"), (200, b"<html>"), (200, b'{"keys":[]}'), (200, b" " * 1_100_000)]
)
async def test_without_keys_nobody_is_let_in_and_everybody_may_come_again(
    tmp_path: Path, key_server: KeyServer, status: int, body: bytes
) -> None:
    key_server.status, key_server.body = status, body
    check = load_verifier(AuthSettings(jwks_url=key_server.url), tmp_path, FixedClock())
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            await check.verify(token(RSA_KEY, "RS256", {"kid": "old"}))
        assert caught.value.status is ErrorStatus.UNAVAILABLE
        assert caught.value.data["retry_after_seconds"] > 0
    assert key_server.asked == 1


async def test_a_secret_behind_a_url_is_no_secret(tmp_path: Path, key_server: KeyServer) -> None:
    secret = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")}
    key_server.body = json.dumps({"keys": [secret, jwk(RSA_KEY, "r")]}).encode()
    check = load_verifier(AuthSettings(jwks_url=key_server.url), tmp_path, FixedClock())
    assert "not known here" in await refusal(check, token(SECRET, "HS256", {"kid": "s"}))


async def test_a_key_that_systemd_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token-key").write_bytes(SECRET)
    with pytest.raises(
        KeyUnusable, match="systemd passed no credentials to the daemon; the unit needs LoadCredential=t"
    ):
        load_verifier(AuthSettings(key_credential="token-key"), tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    check = load_verifier(AuthSettings(key_credential="token-key"), tmp_path / "data", FixedClock())
    assert (await check.verify(token())).subject == "ada"
    assert not (tmp_path / "data").exists(), "no key of its own is made"


def rsa_private() -> bytes:
    return RSA_KEY.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.mark.parametrize(
    ("settings", "content", "message"),
    [
        ({"key_file": "FILE"}, b"short", "at least 32 bytes long; this has 5"),
        ({"key_file": "FILE"}, None, "cannot be read: No such file"),
        ({"key_file": "FILE"}, rsa_private(), "holds a private key"),
        ({"key_file": "FILE"}, b"-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----", "not a PEM public key"),
        ({"key_file": "FILE"}, public_pem(rsa.generate_private_key(65537, 1024)), "at least 2048 bits"),
        ({"key_file": "FILE"}, public_pem(ec.generate_private_key(ec.SECP384R1())), "not RSA, P-256 or Ed25519"),
        ({"key_file": "FILE", "algorithms": ["RS256"]}, SECRET, "is for HS256; auth.algorithms allows RS256"),
        ({"key_file": "FILE", "algorithms": ["none"]}, SECRET, "'none' is not one of HS256"),
        ({"jwks_file": "FILE"}, b"[]", "not a JWKS"),
        ({"jwks_file": "FILE"}, b'{"keys":[{"kty":"oct","k":"YQ"}]}', "holds no key for"),
        ({"jwks_file": "FILE", "key_file": "FILE"}, SECRET, "are both set"),
        ({"jwks_url": "http://example.org/jwks"}, None, "must be https://"),
        ({"jwks_url": "file:///etc/passwd"}, None, "must be https://"),
    ],
    ids=count(),
)
def test_a_key_that_cannot_be_used_stops_the_start_with_a_reason(
    tmp_path: Path, settings: dict[str, Any], content: bytes | None, message: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    filled = {name: str(path) if value == "FILE" else value for name, value in settings.items()}
    with pytest.raises(KeyUnusable, match=message):
        load_verifier(AuthSettings(**filled), tmp_path)


def test_the_daemons_own_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    old = os.umask(0)
    try:
        load_verifier(AuthSettings(), folder)
    finally:
        os.umask(old)
    path = folder / "key"
    made = path.read_bytes()
    assert len(made) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in folder.iterdir()] == ["key"]
    load_verifier(AuthSettings(), folder)
    assert path.read_bytes() == made

    path.chmod(0o640)
    with pytest.raises(KeyUnusable, match="others than its owner may read it"):
        load_verifier(AuthSettings(), folder)
    path.chmod(0o600)
    path.write_bytes(b"x")
    with pytest.raises(KeyUnusable, match="not 32 bytes"):
        load_verifier(AuthSettings(), folder)


async def test_many_that_make_the_key_at_once_agree(tmp_path: Path) -> None:
    signed: list[str] = []

    async def sign() -> None:
        signed.append(await trio.to_thread.run_sync(sign_local_token, tmp_path, "acme", "ada", ["read"], 60))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(sign)
    check = load_verifier(AuthSettings(), tmp_path)
    assert [(await check.verify(text)).scopes for text in signed] == [frozenset({"read"})] * 8


async def test_what_engine_token_signs_is_let_in_until_it_expires(tmp_path: Path) -> None:
    clock = FixedClock()
    text = sign_local_token(tmp_path, "acme", "ada", ["read", "admin"], 60, clock=clock)
    check = load_verifier(AuthSettings(), tmp_path, clock)
    assert (await check.verify(text)).scopes == frozenset({"read", "admin"})
    clock.seconds += 66
    assert "expired" in await refusal(check, text)
    elsewhere = load_verifier(AuthSettings(audience="other"), tmp_path, FixedClock())
    assert 'another audience; this is "other"' in await refusal(elsewhere, text)


@pytest.mark.parametrize("tenant", ["", "a b", "x" * 256])
def test_a_token_for_no_tenant_is_not_signed(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        sign_local_token(tmp_path, tenant, "ada", [], 60)


def test_no_key_shows_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_verifier(AuthSettings(), tmp_path)
    key = keys_module.local_key(tmp_path, frozenset())
    assert key.material.hex() not in repr(key)  # type: ignore[union-attr]
    assert repr(key.material) not in repr(key)
    printed: Callable[[], Any] = capsys.readouterr
    assert printed() == ("", "")
