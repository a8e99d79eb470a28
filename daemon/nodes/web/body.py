"""The body of a request: JSON, a form, text or bytes. Pure; the arguments have been judged (`arguments.py`).

| what is asked for                              | what is sent                                                       |
| ---------------------------------------------- | ------------------------------------------------------------------ |
| `Transform.RequestBodyEncoding` `URL_ENCODED`  | the object as a form, or the text as it is                         |
| `Transform.RequestBodyEncoding` `BASE64`       | the bytes that the text stands for                                 |
| a `Content-Type` of a form, an object          | the object as a form                                               |
| any other `Content-Type` than JSON, a text     | the text, in the charset that it names, else in UTF-8              |
| else                                           | JSON                                                               |
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote_plus

import httpx2

from daemon.nodes.web.arguments import ArrayFormat, BodyEncoding, transform_of
from daemon.nodes.web.charset import charset_of
from daemon.nodes.web.errors import refuse
from enginekit.messages.json import JSON, NotJSON, encode

JSON_TYPE: Final = re.compile(r"[\w.+-]+/(?:[\w.+-]+\+)?json\s*(?:;|\Z)", re.IGNORECASE)
_FORM: Final = "application/x-www-form-urlencoded"
_TYPES: Final = {
    BodyEncoding.NONE: "application/json",
    BodyEncoding.URL_ENCODED: _FORM,
    BodyEncoding.BASE64: "application/octet-stream",
}


def body_of(arguments: dict[str, JSON], headers: httpx2.Headers) -> bytes | None:
    """None where there is none. Sets `Content-Type` where the headers have none.

    Raises NodeFailure `Http.InvalidArguments`: it cannot be encoded so.
    """
    if "RequestBody" not in arguments:
        return None
    body = arguments["RequestBody"]
    transform = transform_of(arguments)
    content_type = headers.setdefault("Content-Type", _TYPES[transform.encoding])
    form = content_type.partition(";")[0].strip().lower() == _FORM
    try:
        if transform.encoding is BodyEncoding.BASE64:
            return base64.b64decode(body if isinstance(body, str) else "", validate=True)
        if isinstance(body, dict) and (form or transform.encoding is BodyEncoding.URL_ENCODED):
            return _form(body, transform.arrays).encode()
        if isinstance(body, str) and not JSON_TYPE.match(content_type):
            return body.encode(charset_of(content_type) or "utf-8")
        return bytes(encode(body))
    except binascii.Error as error:
        refuse("RequestBody", f"is not base64: {error}")
    except LookupError:
        refuse("RequestBody", f"cannot be sent: nobody knows the charset of {content_type}")
    except UnicodeEncodeError as error:
        character = error.object[error.start].encode("unicode_escape").decode()
        refuse("RequestBody", f"cannot be sent in {error.encoding}: character {error.start + 1} is {character}")
    except NotJSON as error:
        refuse("RequestBody", f"cannot be sent: {error}")


def _form(fields: dict[str, JSON], arrays: ArrayFormat) -> str:
    return "&".join(f"{quote_plus(name)}={value}" for name, value in _pairs(fields, "", arrays))


def _pairs(fields: dict[str, JSON], within: str, arrays: ArrayFormat) -> Iterator[tuple[str, str]]:
    """Names, and values as they are sent. Objects within objects are `outer[inner]`."""
    for name, value in fields.items():
        yield from _pair(f"{within}[{name}]" if within else name, value, arrays)


def _pair(name: str, value: JSON, arrays: ArrayFormat) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield from _pairs(value, name, arrays)
    elif not isinstance(value, list):
        yield name, quote_plus(text_of(value))
    elif arrays is ArrayFormat.COMMAS:
        if any(isinstance(item, (list, dict)) for item in value):
            refuse("RequestBody", f"cannot be sent: {name[:100]} has more than texts and numbers in it (COMMAS)")
        yield name, ",".join(quote_plus(text_of(item)) for item in value)
    else:
        for index, item in enumerate(value):
            suffix = {ArrayFormat.INDICES: f"[{index}]", ArrayFormat.BRACKETS: "[]"}.get(arrays, "")
            yield from _pair(name + suffix, item, arrays)


def text_of(value: JSON) -> str:
    """As forms, queries and headers have it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else bytes(encode(value)).decode()
