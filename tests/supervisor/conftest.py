from __future__ import annotations

import pytest

from daemon.logs import configure_logs
from daemon.settings import LogSettings


@pytest.fixture(autouse=True)
def _logs_as_in_production() -> None:
    """Tracebacks are part of what a supervisor does; render them as the daemon would."""
    configure_logs(LogSettings(format="json"))
