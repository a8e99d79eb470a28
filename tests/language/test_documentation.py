"""docs/language.md names every field, function and error that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.language.definition import StateKind
from daemon.language.errors import RESERVED
from daemon.language.intrinsic_functions import FUNCTIONS
from daemon.language.jsonata.built_in import BUILT_IN
from daemon.language.state_fields import fields_of

TEXT = (Path(__file__).parents[2] / "docs" / "language.md").read_text()
FIELDS = {name for sort in StateKind for jsonata in (False, True) for name in fields_of(sort, jsonata)}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_is_documented(name: str) -> None:
    base = name.removesuffix("Path")
    assert f"`{name}`" in TEXT or f"`{base}(Path)`" in TEXT


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_intrinsic_function_is_documented(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_function_of_jsonata_is_documented(name: str) -> None:
    assert f"`${name}`" in TEXT or f"`${name}(" in TEXT


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_every_error_is_documented(name: str) -> None:
    assert f"`{name}`" in TEXT or name == "States.Http.Socket"
