"""What may stand in the arguments of the `http` node. Pure: judged here, sent elsewhere.

The same judgement is passed on a definition, where some values are COMPUTED and count as right, and on what a task is
given. So whatever builds a request may take arguments without a fault as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import httpx2

from enginekit.node import COMPUTED, Argument, ArgumentFault

METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")
FIELDS: Final = ("Method", "ApiEndpoint", "Headers", "QueryParameters", "RequestBody")
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


def faults_in(arguments: Argument) -> Iterator[ArgumentFault]:
    """Every fault in them."""
    if arguments is COMPUTED:
        return
    if not isinstance(arguments, dict):
        yield ArgumentFault("", "must be an object with Method and ApiEndpoint")
        return
    for name in arguments:
        if name not in FIELDS:
            yield ArgumentFault(name[:100], f"is not a field of http (there are {', '.join(FIELDS)})")
    method = arguments.get("Method")
    if method is not COMPUTED and (not isinstance(method, str) or method not in METHODS):
        yield ArgumentFault("Method", f"must be one of {', '.join(METHODS)}")
    yield from _endpoint(arguments.get("ApiEndpoint"))
    yield from _headers(arguments.get("Headers"))
    yield from _query(arguments.get("QueryParameters"))


def _endpoint(endpoint: Argument) -> Iterator[ArgumentFault]:
    if endpoint is COMPUTED:
        return
    if not isinstance(endpoint, str):
        yield ArgumentFault("ApiEndpoint", "must be a URL")
        return
    try:
        url = httpx2.URL(endpoint)
    except httpx2.InvalidURL as error:
        yield ArgumentFault("ApiEndpoint", f"is not a URL: {error}")
        return
    if url.scheme not in SCHEMES or not url.host:
        yield ArgumentFault("ApiEndpoint", "must start with http:// or https:// and a host")


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


_TEXTS: Final = "must be a string, a number or a boolean, or a list of them"


def _is_text(value: Argument) -> bool:
    return value is COMPUTED or isinstance(value, (str, int, float))
