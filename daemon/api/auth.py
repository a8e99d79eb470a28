"""Who is calling: a signed token becomes a principal, or is refused with a reason of its own for each thing wrong.

The keys come from one place (`[auth]` in engine.toml): a key file, a JWKS file, a JWKS URL, or, with none of them, a
key of the daemon's own in its data folder, which `engine token` signs with. Each key allows exactly one algorithm,
told by its type; what a token claims in `alg` is only ever compared with that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import jwt
import msgspec
import trio
from jwt.exceptions import (
    InvalidAlgorithmError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
)

from daemon.api.keys import (
    FixedKeys,
    Key,
    Keys,
    KeyUnusable,
    RefreshedKeys,
    credential_path,
    fetch_jwks,
    local_key,
    read_jwks_file,
    read_key_file,
)
from daemon.clock import Clock, WallClock, moment
from daemon.settings import AuthSettings
from enginekit.messages.calls import Id
from enginekit.messages.status import ErrorStatus, Refused

ISSUER: Final = "engine"
AUDIENCE: Final = "engine"
TOKEN_CHARACTERS: Final = 16_384

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class Principal(msgspec.Struct, frozen=True):
    """Who calls, and for which tenant. `expires_at`: seconds since 1970 UTC, leeway included; None: never."""

    tenant: str
    subject: str
    scopes: frozenset[str]
    expires_at: float | None

    @property
    def expiry(self) -> datetime | None:
        """When it ends, in UTC."""
        return None if self.expires_at is None else moment(int(self.expires_at * 1000))


class Verifier:
    """Checks tokens against one set of keys, one audience and one issuer."""

    def __init__(self, keys: Keys, settings: AuthSettings, clock: Clock) -> None:
        self._keys = keys
        self._audience = settings.audience
        self._issuer = settings.issuer if settings.issuer is not None else ISSUER
        self._leeway = settings.leeway_seconds
        self._clock = clock

    async def verify(self, token: str) -> Principal:
        """The principal a token speaks for.

        Raises Refused: UNAUTHENTICATED with what is wrong, UNAVAILABLE while the keys cannot be fetched. Cancelled:
        nothing happened.
        """
        if not token:
            raise _refused("no token: send `Authorization: Bearer TOKEN`")
        if len(token) > TOKEN_CHARACTERS or _COMPACT.fullmatch(token) is None:
            raise _refused("the token is malformed: it is not a signed JWT (three base64url parts with dots between)")
        try:
            header: Mapping[str, object] = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise _refused(f"the token is malformed: {error}") from error
        claimed = header.get("alg")
        if not isinstance(claimed, str) or claimed.lower() == "none":
            raise _refused('the token is not signed ("alg": "none"): only signed tokens are taken')
        kid = header.get("kid")
        key = await self._keys.find(kid if isinstance(kid, str) else None)
        if key is None:
            raise _refused(
                "the token names no key (kid), and there is more than one"
                if kid is None
                else "the token is signed with a key (kid) that is not known here"
            )
        if claimed != key.algorithm:
            raise _refused(f"the token is signed with {claimed[:16]}; the key is for {key.algorithm}")
        return self._principal(self._claims(token, key))

    def _claims(self, token: str, key: Key) -> Mapping[str, object]:
        try:
            claims: Mapping[str, object] = jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                # Times are checked below, by the daemon's own clock.
                options={
                    "require": ["exp", "aud", "iss", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except InvalidSignatureError as error:
            raise _refused("the token's signature is wrong: it was signed with another key, or changed") from error
        except InvalidAlgorithmError as error:
            raise _refused(f"the token's algorithm does not fit the key, which is for {key.algorithm}") from error
        except MissingRequiredClaimError as error:
            raise _refused(f"the token has no {error.claim} claim") from error
        except InvalidAudienceError as error:
            raise _refused(f'the token is for another audience; this is "{self._audience}"') from error
        except InvalidIssuerError as error:
            raise _refused(f'the token is from another issuer; "{self._issuer}" is expected') from error
        except jwt.InvalidTokenError as error:
            raise _refused(f"the token is malformed: {error}") from error
        return claims

    def _principal(self, claims: Mapping[str, object]) -> Principal:
        now = self._clock.now() / 1000
        expires = claims["exp"]
        if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 <= expires < 1e11:
            raise _refused("the token's exp claim is not a time in seconds since 1970")
        if expires + self._leeway <= now:
            raise _refused("the token has expired: get a new one")
        begins = claims.get("nbf", 0)
        if isinstance(begins, bool) or not isinstance(begins, int | float) or begins - self._leeway > now:
            raise _refused("the token is not valid yet (nbf)")
        tenant = claims.get("tenant")
        if tenant is None:
            raise _refused("the token has no tenant claim: it must say whose it is")
        try:
            tenant = msgspec.convert(tenant, Id)
        except msgspec.ValidationError as error:
            raise _refused("the token's tenant claim is not 1 to 255 characters of A-Z a-z 0-9 . _ : @ / -") from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise _refused("the token's sub claim is not 1 to 255 characters")
        scope = claims.get("scope", "")
        if not isinstance(scope, str) or len(scope) > 1024:
            raise _refused("the token's scope claim is not a space-separated string")
        return Principal(tenant, subject, frozenset(scope.split()), float(expires) + self._leeway)


_PLACES = ("key_file", "key_credential", "jwks_file", "jwks_url")


def tokens_decided_by(settings: AuthSettings) -> str | None:
    """The setting by which tokens that the data folder's own key signs count no more. None: they do."""
    for name in _PLACES:
        if getattr(settings, name) is not None:
            return f"auth.{name}"
    if settings.audience != AUDIENCE:
        return "auth.audience"
    return None if settings.issuer in (None, ISSUER) else "auth.issuer"


def load_verifier(settings: AuthSettings, data_dir: Path, clock: Clock | None = None) -> Verifier:
    """The verifier that engine.toml asks for. With no key configured, the daemon's own key is made on first use.

    Raises KeyUnusable when a key cannot be read, does not fit the settings, or more than one place is configured.
    Reads files; fetches nothing (a JWKS URL is first asked when a token comes).
    """
    places = [name for name in _PLACES if getattr(settings, name) is not None]
    if len(places) > 1:
        raise KeyUnusable(f"auth: {' and '.join(places)} are both set; keys come from one place")
    allowed = frozenset(settings.algorithms)
    keys: Keys
    if settings.key_file is not None:
        keys = FixedKeys([read_key_file(Path(settings.key_file), allowed)])
    elif settings.key_credential is not None:
        keys = FixedKeys([read_key_file(credential_path(settings.key_credential), allowed)])
    elif settings.jwks_file is not None:
        path = Path(settings.jwks_file)
        first = read_jwks_file(path, allowed)

        async def read_again() -> list[Key]:
            return await trio.to_thread.run_sync(read_jwks_file, path, allowed)

        keys = RefreshedKeys(read_again, str(path), first)
    elif settings.jwks_url is not None:
        url = settings.jwks_url
        keys = RefreshedKeys(fetch_jwks(url, allowed), url, None)
    else:
        keys = FixedKeys([local_key(data_dir, allowed)])
    return Verifier(keys, settings, clock if clock is not None else WallClock())


def sign_local_token(
    data_dir: Path,
    tenant: str,
    subject: str,
    scopes: list[str],
    ttl_seconds: float,
    *,
    audience: str = AUDIENCE,
    issuer: str = ISSUER,
    clock: Clock | None = None,
) -> str:
    """A token for the daemon of this data folder, signed with the folder's own key (made when there is none yet).

    Raises KeyUnusable when the key cannot be read or made, ValueError for a tenant or subject that no daemon takes.
    """
    try:
        msgspec.convert(tenant, Id)
    except msgspec.ValidationError as error:
        raise ValueError(f"tenant {tenant!r}: must be 1 to 255 characters of A-Z a-z 0-9 . _ : @ / -") from error
    if not 1 <= len(subject) <= 255:
        raise ValueError("subject: must be 1 to 255 characters")
    now = (clock if clock is not None else WallClock()).now() // 1000
    claims: dict[str, object] = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "tenant": tenant,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + max(1, int(ttl_seconds)),
    }
    key = local_key(data_dir, frozenset())
    assert isinstance(key.material, bytes)
    return jwt.encode(claims, key.material, algorithm=key.algorithm)


def _refused(message: str) -> Refused:
    return Refused(ErrorStatus.UNAUTHENTICATED, message)
