"""Which errors engine.toml's default retry takes for passing faults.

Only faults after which trying again cannot do something twice: the request never arrived (refused, 429, 503), or
repeating it is harmless by its method (RFC 9110, 9.2.2). After 502, 504 or a cut answer a POST may have been
processed.
"""

from __future__ import annotations

from enginekit.messages.json import JSON

NEVER_PROCESSED = frozenset(
    {
        "Http.ConnectionRefused",
        "Http.ConnectTimeout",
        "States.Http.StatusCode.429",
        "States.Http.StatusCode.503",
        "Code.Unavailable",
        "Engine.WorkerLost",
        "Ai.RateLimited",
        "Ai.Overloaded",
        "Ai.ConnectionError",
    }
)
HARMLESS = frozenset({"Ai.ServerError", "Ai.ConnectionLost"})
"""Asking a model again does nothing twice; it may be paid for twice, and so its vendors' own clients do it, too."""
PERHAPS_PROCESSED = frozenset(
    {
        "Http.ConnectionLost",
        "States.Http.StatusCode.502",
        "States.Http.StatusCode.504",
    }
)
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


def is_transient(error: str, resource: str, arguments: JSON) -> bool:
    """`arguments` are what the node was given."""
    if error in NEVER_PROCESSED or error in HARMLESS:
        return True
    if error not in PERHAPS_PROCESSED or resource != "http" or not isinstance(arguments, dict):
        return False
    method = arguments.get("Method", "GET")
    return isinstance(method, str) and method.upper() in IDEMPOTENT_METHODS
