"""The charset that a `Content-Type` names."""

from __future__ import annotations

import codecs
import re
from typing import Final

_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([\w.:+-]+)", re.IGNORECASE)

_NO_CHARSETS: Final = frozenset({"punycode", "idna", "undefined", "unicode-escape", "raw-unicode-escape"})
"""Python has codecs under these names that are none of the web's, and some take time that grows with the square."""


def charset_of(content_type: str) -> str | None:
    """As Python's codecs are named, None where it names none. Raises LookupError: nobody knows it."""
    match = _CHARSET.search(content_type)
    if match is None:
        return None
    name = codecs.lookup(match[1]).name
    if name in _NO_CHARSETS:
        raise LookupError(f"unknown encoding: {name}")
    return name
