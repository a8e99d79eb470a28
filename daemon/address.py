"""An URL as it may be told: without a password."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"(?<=//)(?P<user>[^:@/]*):.*@", re.DOTALL)
_PARAMETER = re.compile(r"(?P<name>(?:ssl)?password=)[^&]*", re.IGNORECASE)


def shown(url: str) -> str:
    """The URL with [redacted] for what may be a password: all between the user's name and the last @, and parameters of
    that name."""
    without = _USER_INFO.sub(r"\g<user>:[redacted]@", url)
    return _PARAMETER.sub(r"\g<name>[redacted]", without)
