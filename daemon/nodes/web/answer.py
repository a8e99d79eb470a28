"""What an answer comes to: its body as JSON, text or base64, and when to ask again. Pure."""

from __future__ import annotations

import base64
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2
import msgspec

from daemon.nodes.web.body import JSON_TYPE
from daemon.nodes.web.charset import charset_of
from daemon.redaction import Redactor
from enginekit.messages.json import JSON, NotJSON, decode

_TEXT_TYPE: Final = re.compile(
    r"text/|[\w.+-]+/(?:[\w.+-]+\+)?(?:json|xml|yaml)\s*(?:;|\Z)"
    r"|application/(?:javascript|ecmascript|x-www-form-urlencoded|x-ndjson)\s*(?:;|\Z)",
    re.IGNORECASE,
)
_BINARY_TYPE: Final = re.compile(
    r"(?:image|audio|video|font|model)/|application/(?:octet-stream|pdf|zip|gzip|x-tar|x-7z-compressed|wasm|protobuf"
    r"|x-protobuf|msgpack|x-msgpack|cbor|java-archive|vnd\.[\w.+-]+)\s*(?:;|\Z)",
    re.IGNORECASE,
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_SECONDS: Final = re.compile(r"\s*(\d{1,9})(?:\.\d*)?\s*\Z")


def body_value(body: bytes, headers: httpx2.Headers, redactor: Redactor, *, as_bytes: bool) -> tuple[JSON, str]:
    """The value of `ResponseBody`, and of `ResponseBodyEncoding`: `JSON`, `TEXT` or `BASE64`.

    JSON where it says that it is and is; base64 where its type is one of bytes, or nothing says what it is and it is no
    UTF-8 text; else text, in the charset that it names. `as_bytes`: base64 in any case.
    """
    content_type = headers.get("content-type", "")
    if as_bytes:
        return _base64(redactor.data(body)), "BASE64"
    if body and JSON_TYPE.match(content_type):
        try:
            return decode(msgspec.Raw(body)), "JSON"
        except NotJSON:
            pass  # It says that it is JSON and is not: its text is the truth.
    says_text = "charset" in content_type.lower() or _TEXT_TYPE.match(content_type)
    if says_text or _is_text(body, content_type):
        return text_of(body, content_type), "TEXT"
    return _base64(redactor.data(body)), "BASE64"


def text_of(body: bytes, content_type: str) -> str:
    """The body as text, whatever it is: what does not fit its charset becomes U+FFFD."""
    try:
        return body.decode(charset_of(content_type) or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def retry_after(headers: httpx2.Headers, now: float) -> float | None:
    """How many seconds after now (seconds since 1970) to ask again, where the answer says. A date counts from the
    answer's own `Date`, where it has one: the clocks of two machines differ."""
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = _SECONDS.match(text)
    if seconds is not None:
        return float(seconds[1])
    until = _timestamp(text)
    if until is None:
        return None
    sent_at = _timestamp(headers.get("date", ""))
    return max(0.0, until - (now if sent_at is None else sent_at))


def _timestamp(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        # One of the three forms of dates in HTTP names no zone: all of them are in GMT.
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _is_text(body: bytes, content_type: str) -> bool:
    if _BINARY_TYPE.match(content_type) or _CONTROL.search(body):
        return False
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
