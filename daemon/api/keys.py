"""Keys that tokens are checked with: read from files, fetched from a JWKS URL, or made in the data folder.

A key is read once into the form the check needs. Its type alone decides its algorithm: RSA RS256, P-256 ES256,
Ed25519 EdDSA, a secret HS256. No key is ever printed or logged.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import httpx2
import jwt
import msgspec
import structlog
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from enginekit.messages.status import ErrorStatus, Refused

ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
SECRET_BYTES: Final = 32
RSA_BITS: Final = 2048
FILE_BYTES: Final = 1024 * 1024
KEYS: Final = 1000
REFRESH_SECONDS: Final = 30.0
"""An unknown kid makes the keys be read again at most this often."""
RETRY_SECONDS: Final = 2.0
"""The same while no keys were ever read."""
MAX_AGE_SECONDS: Final = 600.0
"""Keys older than this are read again before the next token, so that a withdrawn one stops working."""
FETCH_SECONDS: Final = 5.0

Material: TypeAlias = bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

log = structlog.get_logger(__name__)


class KeyUnusable(Exception):
    """A key cannot be used: which, and what to do about it."""


class Key(msgspec.Struct, frozen=True):
    """One key, the only algorithm it is for, and its id in a JWKS."""

    material: Material
    algorithm: str
    kid: str | None = None

    def __repr__(self) -> str:
        return f"Key({self.algorithm}, kid={self.kid!r})"


class Keys(Protocol):
    """Where a verifier looks for the key of a token."""

    async def find(self, kid: str | None) -> Key | None:
        """The key of this id; without one, the only key. None: not known. Raises Refused (UNAVAILABLE)."""


class FixedKeys:
    """Keys that stay as they are for the life of the process. A single key serves whatever kid a token names."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    async def find(self, kid: str | None) -> Key | None:
        return self._keys[0] if len(self._keys) == 1 else _pick(self._keys, kid)


class RefreshedKeys:
    """Keys that may be rotated where they come from: read again for an unknown kid and when they are old, not more
    often than REFRESH_SECONDS, by one caller while others wait for it."""

    def __init__(self, read: Callable[[], Awaitable[list[Key]]], place: str, first: list[Key] | None) -> None:
        self._read = read
        self._place = place
        self._keys = first
        self._read_at = float("-inf")
        self._asked_at = float("-inf")
        self._reading = trio.Lock()

    async def find(self, kid: str | None) -> Key | None:
        now = trio.current_time()
        if self._keys is not None and self._read_at == float("-inf"):
            self._read_at = now
        found = _pick(self._keys, kid) if self._keys is not None else None
        if found is None or now - self._read_at > MAX_AGE_SECONDS:
            await self._refresh()
            if self._keys is None:
                raise Refused(
                    ErrorStatus.UNAVAILABLE,
                    "tokens cannot be checked: the keys could not be fetched; the daemon's log says why",
                    {"retry_after_seconds": RETRY_SECONDS},
                )
            found = _pick(self._keys, kid)
        return found

    async def _refresh(self) -> None:
        async with self._reading:
            pause = RETRY_SECONDS if self._keys is None else REFRESH_SECONDS
            if trio.current_time() - self._asked_at < pause:
                return
            self._asked_at = trio.current_time()
            try:
                self._keys = await self._read()
                self._read_at = trio.current_time()
            except KeyUnusable as error:
                log.warning("auth.keys_unreadable", place=self._place, error=str(error))


def _pick(keys: list[Key], kid: str | None) -> Key | None:
    if kid is None:
        return keys[0] if len(keys) == 1 else None
    return next((key for key in keys if key.kid == kid), None)


def credential_path(name: str) -> Path:
    """Where systemd put a credential of the unit's. Raises KeyUnusable when it passed none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise KeyUnusable(
            f"auth.key_credential {name!r}: systemd passed no credentials to the daemon; "
            f"the unit needs LoadCredential={name}:FILE"
        )
    return Path(folder) / name


def read_key_file(path: Path, allowed: frozenset[str]) -> Key:
    """A PEM public key or certificate, or else a secret of at least 32 bytes (a line end after text is left out).

    `allowed`: the algorithms of the settings, empty for any. Raises KeyUnusable.
    """
    content = _read(path, "auth.key_file")
    if b"-----BEGIN" not in content:
        if content.isascii():
            content = content.rstrip(b"\r\n")
        return _allowed(_secret(content, f"auth.key_file {path}"), allowed, f"auth.key_file {path}")
    public: object
    try:
        if b"-----BEGIN CERTIFICATE" in content:
            public = x509.load_pem_x509_certificate(content).public_key()
        elif b"PRIVATE KEY-----" in content:
            raise KeyUnusable(f"auth.key_file {path}: holds a private key; the daemon needs the public one only")
        else:
            public = load_pem_public_key(content)
    except ValueError as error:
        raise KeyUnusable(f"auth.key_file {path}: not a PEM public key or certificate: {error}") from error
    return _allowed(_public(public, None, f"auth.key_file {path}"), allowed, f"auth.key_file {path}")


def read_jwks_file(path: Path, allowed: frozenset[str]) -> list[Key]:
    """The usable keys of a JWKS file. Raises KeyUnusable."""
    return parse_jwks(_read(path, "auth.jwks_file"), allowed, f"auth.jwks_file {path}", secrets_too=True)


def fetch_jwks(url: str, allowed: frozenset[str]) -> Callable[[], Awaitable[list[Key]]]:
    """A reader of the keys behind a URL: bounded in time and size, follows no redirect, takes no secrets (whatever is
    fetched is known to others). Raises KeyUnusable for a URL that is neither https nor on this machine."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
        raise KeyUnusable(f"auth.jwks_url {url}: must be https:// (http:// only on this machine)")

    async def fetch() -> list[Key]:
        content = bytearray()
        try:
            # Too much is ended by cancelling, not by leaving the loop: that alone unwinds every generator inside.
            with trio.fail_after(FETCH_SECONDS), trio.CancelScope() as reading:
                async with (
                    httpx2.AsyncClient(trust_env=not local, follow_redirects=False) as client,
                    client.stream("GET", url, headers={"accept": "application/json"}) as response,
                ):
                    if response.status_code != 200:
                        raise KeyUnusable(f"auth.jwks_url {url}: answered HTTP {response.status_code}")
                    async for chunk in response.aiter_bytes():
                        content += chunk
                        if len(content) > FILE_BYTES:
                            reading.cancel()
            if len(content) > FILE_BYTES:
                raise KeyUnusable(f"auth.jwks_url {url}: longer than {FILE_BYTES} bytes")
        except trio.TooSlowError as error:
            raise KeyUnusable(f"auth.jwks_url {url}: no answer within {FETCH_SECONDS:.0f} s") from error
        except httpx2.HTTPError as error:
            raise KeyUnusable(f"auth.jwks_url {url}: {type(error).__name__}: {error}") from error
        return parse_jwks(bytes(content), allowed, f"auth.jwks_url {url}", secrets_too=False)

    return fetch


def parse_jwks(content: bytes, allowed: frozenset[str], place: str, *, secrets_too: bool) -> list[Key]:
    """The keys of a JWKS that may check signatures here; others in it are passed over.

    Raises KeyUnusable when it is none, or holds no such key.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise KeyUnusable(f"{place}: not a JSON document: {error}") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > KEYS:
        raise KeyUnusable(f"{place}: not a JWKS: it has no list `keys`, or a very long one")
    keys = []
    for entry in entries:
        key = _jwk(entry, place, secrets_too) if isinstance(entry, dict) else None
        if key is not None and (not allowed or key.algorithm in allowed):
            keys.append(key)
    if not keys:
        raise KeyUnusable(f"{place}: holds no key for {' or '.join(sorted(allowed or ALGORITHMS))}")
    return keys


def local_key(data_dir: Path, allowed: frozenset[str]) -> Key:
    """The data folder's own secret, `key` (32 random bytes, readable by its owner only); made when there is none.

    Two that make it at once agree on one. Raises KeyUnusable.
    """
    path = data_dir / "key"
    if not path.exists():
        _make_key(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise KeyUnusable(f"{path}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise KeyUnusable(f"{path}: others than its owner may read it; `chmod 600` it, or remove it to get a new one")
    content = _read(path, "the daemon's key")
    if len(content) != SECRET_BYTES:
        raise KeyUnusable(f"{path}: is not {SECRET_BYTES} bytes long; remove it to get a new one")
    return _allowed(Key(content, "HS256"), allowed, f"the daemon's own key {path}")


def _make_key(path: Path) -> None:
    fresh = path.with_name(f".key-{os.getpid()}-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                os.fchmod(descriptor, 0o600)
                os.write(descriptor, secrets.token_bytes(SECRET_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            # A link fails where a rename would replace the key that somebody else has just made.
            os.link(fresh, path)
        except FileExistsError:
            return
        finally:
            fresh.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyUnusable(f"{path}: cannot be made: {error.strerror}") from error


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise KeyUnusable(f"{what} {path}: cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES:
        raise KeyUnusable(f"{what} {path}: longer than {FILE_BYTES} bytes")
    return content


def _jwk(entry: dict[str, object], place: str, secrets_too: bool) -> Key | None:
    """The key of one entry, or None for one that is not for checking signatures here."""
    if entry.get("use", "sig") != "sig" or (entry.get("kty") == "oct" and not secrets_too):
        return None
    operations = entry.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return None
    kid = entry.get("kid")
    kid = kid if isinstance(kid, str) else None
    try:
        material = jwt.PyJWK(entry).key
        key = _secret(material, place, kid) if isinstance(material, bytes) else _public(material, kid, place)
    except (jwt.PyJWTError, KeyUnusable) as error:
        log.info("auth.key_passed_over", place=place, kid=kid, error=type(error).__name__)
        return None
    # A key that says it is for another algorithm than its type is used with here is none of ours.
    return key if entry.get("alg", key.algorithm) == key.algorithm else None


def _secret(content: bytes, place: str, kid: str | None = None) -> Key:
    if len(content) < SECRET_BYTES:
        raise KeyUnusable(f"{place}: a secret must be at least {SECRET_BYTES} bytes long; this has {len(content)}")
    return Key(content, "HS256", kid)


def _public(public: object, kid: str | None, place: str) -> Key:
    if isinstance(public, RSAPublicKey):
        if public.key_size < RSA_BITS:
            raise KeyUnusable(f"{place}: an RSA key must have at least {RSA_BITS} bits; this has {public.key_size}")
        return Key(public, "RS256", kid)
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return Key(public, "ES256", kid)
    if isinstance(public, Ed25519PublicKey):
        return Key(public, "EdDSA", kid)
    raise KeyUnusable(f"{place}: the key is not RSA, P-256 or Ed25519")


def _allowed(key: Key, allowed: frozenset[str], place: str) -> Key:
    unknown = sorted(allowed - set(ALGORITHMS))
    if unknown:
        raise KeyUnusable(f"auth.algorithms: {unknown[0]!r} is not one of {', '.join(ALGORITHMS)}")
    if allowed and key.algorithm not in allowed:
        raise KeyUnusable(f"{place}: is for {key.algorithm}; auth.algorithms allows {', '.join(sorted(allowed))}")
    return key
