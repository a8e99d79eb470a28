"""What may stand in the arguments of the `http` node. Pure: judged here, sent elsewhere.

The same judgement is passed on a definition, where some values are COMPUTED and count as right, and on what a task is
given. So whatever builds a request may take arguments without a fault as they are.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple, TypeVar

import httpx2

from enginekit.messages.json import JSON
from enginekit.node import COMPUTED, Argument, ArgumentFault, Computed

METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")
FIELDS: Final = (
    "Method",
    "ApiEndpoint",
    "Headers",
    "QueryParameters",
    "RequestBody",
    "Transform",
    "Connection",
    "Authentication",
)
SCHEMES: Final = ("http", "https")

CLIENTS_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What frames the message is the client's; and it undoes only the encodings that it asks for."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*\Z")
_CONNECTION_ARN: Final = re.compile(r"arn:[^:]+:events:[^:]*:[^:]*:connection/(?P<name>[^/:]+)(?:/[^/:]+)?\Z")
_TEXTS: Final = "must be a string, a number or a boolean, or a list of them"

ConnectionFault = Callable[[str], str | None]
"""Why a definition cannot name that connection, or None."""


class BodyEncoding(str, Enum):
    """`Transform.RequestBodyEncoding`. The last one is not the reference service's."""

    NONE = "NONE"
    URL_ENCODED = "URL_ENCODED"
    BASE64 = "BASE64"


class ArrayFormat(str, Enum):
    """`Transform.RequestEncodingOptions.ArrayFormat`: how a form has the items of a list."""

    INDICES = "INDICES"
    REPEAT = "REPEAT"
    COMMAS = "COMMAS"
    BRACKETS = "BRACKETS"


class AnswerEncoding(str, Enum):
    """`Transform.ResponseBodyEncoding`, not the reference service's either."""

    AUTO = "AUTO"
    BASE64 = "BASE64"


class Transform(NamedTuple):
    """How the bodies are encoded."""

    encoding: BodyEncoding
    arrays: ArrayFormat
    answer: AnswerEncoding


E = TypeVar("E", bound=Enum)


def transform_of(arguments: Mapping[str, JSON]) -> Transform:
    """Of arguments without a fault."""
    transform = arguments.get("Transform")
    given = transform if isinstance(transform, dict) else {}
    options = given.get("RequestEncodingOptions")
    return Transform(
        BodyEncoding(given.get("RequestBodyEncoding", BodyEncoding.NONE)),
        ArrayFormat((options if isinstance(options, dict) else {}).get("ArrayFormat", ArrayFormat.INDICES)),
        AnswerEncoding(given.get("ResponseBodyEncoding", AnswerEncoding.AUTO)),
    )


def connection_of(arguments: Mapping[str, JSON]) -> str | None:
    """The name of the connection, of arguments without a fault."""
    name = arguments.get("Connection")
    authentication = arguments.get("Authentication")
    if isinstance(authentication, dict):
        name = _name_in(str(authentication["ConnectionArn"]))
    assert name is None or isinstance(name, str)
    return name


def faults_in(arguments: Argument, connection_fault: ConnectionFault | None = None) -> Iterator[ArgumentFault]:
    """Every fault in them. Without `connection_fault` any connection counts as there."""
    if arguments is COMPUTED:
        return
    if not isinstance(arguments, dict):
        yield ArgumentFault("", "must be an object with Method and ApiEndpoint")
        return
    for name in arguments:
        if name not in FIELDS:
            yield ArgumentFault(name[:100], f"is not a field of http (there are {', '.join(FIELDS)})")
    yield from _choice(arguments.get("Method"), "Method", METHODS)
    yield from _endpoint(arguments)
    yield from _headers(arguments.get("Headers"))
    yield from _query(arguments.get("QueryParameters"))
    yield from _transform(arguments)
    yield from _connection(arguments, connection_fault)


def is_literal(arguments: Mapping[str, Argument]) -> bool:
    """Whether nothing in them is COMPUTED."""
    pending: list[Argument] = list(arguments.values())
    while pending:
        match pending.pop():
            case Computed():
                return False
            case dict() as fields:
                pending.extend(fields.values())
            case list() as items:
                pending.extend(items)
    return True


def _choice(value: Argument, path: str, known: tuple[str, ...]) -> Iterator[ArgumentFault]:
    if value is not COMPUTED and (not isinstance(value, str) or value not in known):
        yield ArgumentFault(path, f"must be one of {', '.join(known)}")


def _endpoint(arguments: dict[str, Argument]) -> Iterator[ArgumentFault]:
    endpoint = arguments.get("ApiEndpoint")
    if endpoint is COMPUTED:
        return
    if not isinstance(endpoint, str):
        yield ArgumentFault("ApiEndpoint", "must be a URL")
        return
    if endpoint.startswith("/"):
        if "Connection" not in arguments and "Authentication" not in arguments:
            yield ArgumentFault(
                "ApiEndpoint", "must be a whole URL where there is no Connection whose URL it goes on from"
            )
        return
    try:
        url = httpx2.URL(endpoint)
    except httpx2.InvalidURL as error:
        yield ArgumentFault("ApiEndpoint", f"is not a URL: {error}")
        return
    if url.scheme not in SCHEMES or not url.host:
        yield ArgumentFault("ApiEndpoint", "must start with http:// or https:// and a host")
    elif url.userinfo:
        yield ArgumentFault("ApiEndpoint", "must not have a user in it: use a Connection")


def _headers(headers: Argument) -> Iterator[ArgumentFault]:
    if headers is None or headers is COMPUTED:
        return
    if not isinstance(headers, dict):
        yield ArgumentFault("Headers", "must be an object")
        return
    for name, given in headers.items():
        where = f"Headers.{name[:100]}"
        if not _HEADER_NAME.match(name):
            yield ArgumentFault(where, "is not the name of a header")
        elif name.lower() in CLIENTS_HEADERS:
            yield ArgumentFault(where, "is set by the engine; leave it out")
        for value in given if isinstance(given, list) else [given]:
            if not _is_text(value):
                yield ArgumentFault(where, _TEXTS)
            elif isinstance(value, str) and not _HEADER_VALUE.match(value):
                yield ArgumentFault(where, "must be printable ASCII on one line")


def _query(parameters: Argument) -> Iterator[ArgumentFault]:
    if parameters is None or parameters is COMPUTED:
        return
    if not isinstance(parameters, dict):
        yield ArgumentFault("QueryParameters", "must be an object")
        return
    for name, given in parameters.items():
        for value in given if isinstance(given, list) else [given]:
            if not _is_text(value):
                yield ArgumentFault(f"QueryParameters.{name[:100]}", _TEXTS)


def _is_text(value: Argument) -> bool:
    return value is COMPUTED or isinstance(value, (str, int, float))


def _transform(arguments: dict[str, Argument]) -> Iterator[ArgumentFault]:
    if "Transform" not in arguments or arguments["Transform"] is COMPUTED:
        return
    transform = arguments["Transform"]
    known = ("RequestBodyEncoding", "RequestEncodingOptions", "ResponseBodyEncoding")
    yield from _object(transform, "Transform", known)
    if not isinstance(transform, dict):
        return
    encoding = transform.get("RequestBodyEncoding", BodyEncoding.NONE.value)
    yield from _choice(encoding, "Transform.RequestBodyEncoding", _values(BodyEncoding))
    yield from _choice(
        transform.get("ResponseBodyEncoding", AnswerEncoding.AUTO.value),
        "Transform.ResponseBodyEncoding",
        _values(AnswerEncoding),
    )
    options = transform.get("RequestEncodingOptions", {})
    if options is not COMPUTED:
        yield from _object(options, "Transform.RequestEncodingOptions", ("ArrayFormat",))
        if isinstance(options, dict) and "ArrayFormat" in options:
            where = "Transform.RequestEncodingOptions.ArrayFormat"
            yield from _choice(options["ArrayFormat"], where, _values(ArrayFormat))
    body = arguments.get("RequestBody", COMPUTED)
    if encoding == BodyEncoding.URL_ENCODED and body is not COMPUTED and not isinstance(body, (dict, str)):
        yield ArgumentFault("RequestBody", "must be an object, to be sent as a form")
    if encoding == BodyEncoding.BASE64 and body is not COMPUTED:
        yield from _base64(body)


def _base64(body: Argument) -> Iterator[ArgumentFault]:
    try:
        base64.b64decode(body if isinstance(body, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        yield ArgumentFault("RequestBody", "must be base64 in a string")


def _object(value: Argument, path: str, known: tuple[str, ...]) -> Iterator[ArgumentFault]:
    if not isinstance(value, dict):
        yield ArgumentFault(path, "must be an object")
        return
    for name in value:
        if name not in known:
            yield ArgumentFault(f"{path}.{name[:100]}", f"is not a field here (there are {', '.join(known)})")


def _values(kind: type[E]) -> tuple[str, ...]:
    return tuple(str(each.value) for each in kind)


def _connection(arguments: dict[str, Argument], fault: ConnectionFault | None) -> Iterator[ArgumentFault]:
    where, name = "Connection", arguments.get("Connection", COMPUTED)
    if "Authentication" in arguments:
        if "Connection" in arguments:
            yield ArgumentFault("Authentication", "names a connection, and so does Connection: leave out one of them")
        authentication = arguments["Authentication"]
        if authentication is COMPUTED:
            return
        yield from _object(authentication, "Authentication", ("ConnectionArn",))
        if not isinstance(authentication, dict):
            return
        where, name = "Authentication.ConnectionArn", authentication.get("ConnectionArn")
        if isinstance(name, str):
            name = _name_in(name)
    if name is COMPUTED:
        return
    if not isinstance(name, str):
        wanted = "the name of a connection" if where == "Connection" else "arn:aws:events:…:connection/NAME/…"
        yield ArgumentFault(where, f"must be {wanted}, in a string")
        return
    problem = fault(name) if fault is not None else None
    if problem is not None:
        yield ArgumentFault(where, problem)


def _name_in(arn: str) -> str | None:
    """What a connection's ARN has before the unique id at its end."""
    match = _CONNECTION_ARN.match(arn)
    return match["name"] if match is not None else None
