"""What a server says of an error, whatever it says."""

from __future__ import annotations

import pytest

from daemon.nodes.ai.errors import _told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": {"type": [], "message": "odd"}}, ("", "odd")),
        ({"error": {"code": {}, "type": None}}, ("", '{"code": {}, "type": null}')),
        ({"error": ["what"]}, ("", '["what"]')),
        (None, ("", "")),
    ],
)
def test_a_code_of_a_strange_kind_is_none(body: object, told: tuple[str, str]) -> None:
    assert _told(body) == told
