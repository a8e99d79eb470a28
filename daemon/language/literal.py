"""Arguments as a definition has them: literal, or an expression in some places."""

from __future__ import annotations

from daemon.language.query import is_query
from enginekit.messages.json import JSON
from enginekit.node import COMPUTED, Argument


def literal_part(value: JSON, jsonata: bool) -> Argument:
    """The value with COMPUTED in the place of each expression, under the name that its field will have."""
    if isinstance(value, dict):
        if jsonata:
            return {name: literal_part(item, jsonata) for name, item in value.items()}
        return {
            name.removesuffix(".$"): COMPUTED if name.endswith(".$") else literal_part(item, jsonata)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [literal_part(item, jsonata) for item in value]
    if isinstance(value, str) and jsonata and is_query(value):
        return COMPUTED
    return value
