"""Which destination a task calls: what its circuit breaker goes by. Pure: from the resource and its arguments alone."""

from __future__ import annotations

from urllib.parse import urlsplit

from enginekit.messages.json import JSON

_PORTS = {"http": 80, "https": 443}

DESTINATION_CHARACTERS = 300


def destination_of(resource: str, arguments: JSON) -> str | None:
    """`HOST:PORT` of an HTTP call, `http/CONNECTION` of one that goes on from a connection's URL;
    `RESOURCE/CONNECTION/MODEL` of a language model (`-` for no connection); None where there is none, or the arguments
    do not tell (the node refuses those)."""
    if not isinstance(arguments, dict):
        return None
    if resource == "http":
        endpoint, connection = arguments.get("ApiEndpoint"), arguments.get("Connection")
        if not isinstance(endpoint, str):
            return None
        if endpoint.startswith("/"):
            return f"http/{connection}"[:DESTINATION_CHARACTERS] if isinstance(connection, str) else None
        return _host_and_port(endpoint)
    if resource.startswith("ai:"):
        model, connection = arguments.get("Model"), arguments.get("Connection", "-")
        if isinstance(model, str) and isinstance(connection, str):
            return f"{resource}/{connection}/{model}"[:DESTINATION_CHARACTERS]
    return None


def model_of(resource: str, destination: str | None) -> tuple[str, str] | None:
    """The provider and the model that a destination names; None where it is none of a language model."""
    if destination is None or not resource.startswith("ai:"):
        return None
    _, _, model = destination.removeprefix(f"{resource}/").partition("/")
    return resource.removeprefix("ai:"), model


def _host_and_port(endpoint: str) -> str | None:
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    port = port if port is not None else _PORTS.get(parts.scheme)
    if not host or port is None:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"[:DESTINATION_CHARACTERS]
