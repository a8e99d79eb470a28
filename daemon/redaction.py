"""Keeping a secret out of what a node type returns, raises and logs. Pure: no I/O, and nothing is kept of what passes.

A server may answer with what it was sent, and an error may quote a request. So whoever makes a call with a secret puts
everything that comes of it through a `Redactor`: the secret itself is found, and the forms in which it commonly
returns (percent-encoded, base64 at any offset, escaped for JSON or HTML). A server that encrypts, reverses or cuts it
is beyond that.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote, quote_plus

from enginekit.messages.json import JSON, NotJSON, encode
from enginekit.node import NodeFailure, NodeResult

REDACTED: Final = "[redacted]"


class Redactor:
    """Replaces the secrets it is made with by REDACTED. Without any it changes nothing."""

    __slots__ = ("_bytes", "_json", "_text", "longest")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = sorted({form for secret in secrets if secret for form in _forms(secret)}, key=len, reverse=True)
        self.longest = len(forms[0].encode()) if forms else 0
        """No form of a secret has more bytes. At the end of a text that was cut there may be the beginning of one."""
        self._text = re.compile("|".join(map(re.escape, forms))) if forms else None
        self._bytes = _any_of([form.encode() for form in forms])
        # As encoded JSON has them: whether a value holds any is then one search over its bytes.
        self._json = _any_of([bytes(encode(form))[1:-1] for form in forms])

    def __repr__(self) -> str:
        return "<Redactor>"

    def text(self, text: str) -> str:
        return text if self._text is None else self._text.sub(REDACTED, text)

    def head(self, text: str, characters: int) -> str:
        """The first of a text, telling no secret: neither half of one where it is cut, nor, where it is longer, the
        beginning of one at its end, for it may have been cut before."""
        told = self.text(text)
        if self.longest and len(text) > characters:
            told = told[: -self.longest]
        return told[:characters]

    def data(self, data: bytes) -> bytes:
        return data if self._bytes is None else self._bytes.sub(REDACTED.encode(), data)

    def value(self, value: JSON) -> JSON:
        """The value, secrets replaced in its texts, its numbers and the names of its fields."""
        if self._json is None:
            return value
        try:
            if self._json.search(bytes(encode(value))) is None:
                return value
            return self._walk(value)
        except (NotJSON, RecursionError):
            # Whoever records it finds out what is wrong with it; here it cannot be looked through.
            return REDACTED

    def failure(self, failure: NodeFailure) -> NodeFailure:
        """The same failure, telling no secret."""
        return NodeFailure(
            self.text(failure.error),
            self.text(failure.cause),
            retry_after_seconds=failure.retry_after_seconds,
            unhealthy=failure.unhealthy,
            log=self.text(failure.log),
            usage=failure.usage,
        )

    def result(self, result: JSON | NodeResult) -> JSON | NodeResult:
        """The same result, telling no secret."""
        if isinstance(result, NodeResult):
            return NodeResult(output=self.value(result.output), log=self.text(result.log), usage=result.usage)
        return self.value(result)

    @contextmanager
    def over_errors(self) -> Iterator[None]:
        """What is raised within comes out telling no secret: a NodeFailure as it was otherwise, any other error as a
        RuntimeError with its description, for its traceback would be logged. Cancellation passes."""
        try:
            yield
        except Exception as error:
            found: BaseException = error
            while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
                found = found.exceptions[0]
            if isinstance(found, NodeFailure):
                raise self.failure(found) from None
            if self._text is None:
                raise
            raise RuntimeError(self.text(f"{type(found).__name__}: {found}")) from None

    def _walk(self, value: JSON) -> JSON:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self._walk(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            shown = bytes(encode(value)).decode()
            return value if self.text(shown) == shown else REDACTED
        return value


def _any_of(forms: list[bytes]) -> re.Pattern[bytes] | None:
    return re.compile(b"|".join(map(re.escape, forms))) if forms else None


def _forms(secret: str) -> Iterator[str]:
    yield secret
    for encoded in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield encoded
        yield re.sub("%..", lambda match: match[0].lower(), encoded)
    yield html.escape(secret)
    yield html.escape(secret, quote=False)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    for offset in range(3):
        yield from _base64_at(offset, secret.encode())


def _base64_at(offset: int, data: bytes) -> Iterator[str]:
    """What base64 makes of the data after so many other bytes (modulo three), wherever it goes on: without the
    characters that depend on what is around."""
    for encoder in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encoder(bytes(offset) + data).decode()
        yield encoded[(0, 2, 3)[offset] : len(encoded) - (0, 3, 2)[(offset + len(data)) % 3]]
