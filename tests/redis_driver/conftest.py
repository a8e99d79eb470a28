"""Every test here is of links and of queues."""

from __future__ import annotations

import pytest
from kinds import KINDS, Kind


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]
