"""The redactor: a secret, in the forms in which it comes back, is in nothing that passes it."""

from __future__ import annotations

import base64
import html
import json
import traceback
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.redaction import REDACTED, Redactor
from enginekit.messages.events import Usage
from enginekit.messages.json import JSON
from enginekit.node import NodeFailure, NodeResult

SECRET = 'p"ss/w&rd +~ü='
REDACTOR = Redactor([SECRET])


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="").lower(),
        html.escape(SECRET),
        html.escape(SECRET, quote=False),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
    ],
)
def test_forms_of_a_secret_are_found(form: str) -> None:
    text = REDACTOR.text(f"you sent {form}!")
    assert REDACTED in text
    assert text.startswith("you sent ")
    assert text.endswith("!")
    assert form.strip('"') not in text
    assert form.strip('"').encode() not in REDACTOR.data(b"\x00\xff" + form.encode() + b"\x00")


@given(before=st.binary(max_size=9), after=st.binary(max_size=9))
def test_base64_of_a_secret_amid_anything_is_found(before: bytes, after: bytes) -> None:
    for encoder in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encoder(before + SECRET.encode() + after).decode()
        assert REDACTED in REDACTOR.text(f"token {encoded}")


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSONS)
def test_what_holds_no_secret_is_as_it_was(value: JSON) -> None:
    assert Redactor(["correct horse battery"]).value(value) == value


def test_values_lose_the_secret_wherever_it_is() -> None:
    value: JSON = {"a": [f"x{SECRET}y", {"b": 1, SECRET: None}], "c": 1.5, "d": True}
    assert REDACTOR.value(value) == {"a": [f"x{REDACTED}y", {"b": 1, REDACTED: None}], "c": 1.5, "d": True}


def test_a_secret_of_digits_is_found_in_a_number() -> None:
    assert Redactor(["1234567890"]).value({"a": 91234567890, "b": 1}) == {"a": REDACTED, "b": 1}


def test_what_cannot_be_looked_through_is_left_out_whole() -> None:
    deep: JSON = SECRET
    for _ in range(5000):
        deep = [deep]
    assert REDACTOR.value(deep) == REDACTED


def test_without_a_secret_everything_passes() -> None:
    nothing = Redactor()
    value: JSON = {"a": [1]}
    assert nothing.value(value) is value
    assert nothing.text("a") == "a"
    assert nothing.data(b"a") == b"a"


def test_results_and_failures_keep_the_rest() -> None:
    usage = Usage(input_tokens=1, output_tokens=2)
    result = REDACTOR.result(NodeResult(output=[SECRET], log=f"log {SECRET}", usage=usage))
    assert result == NodeResult(output=[REDACTED], log=f"log {REDACTED}", usage=usage)
    assert REDACTOR.result([SECRET]) == [REDACTED]
    failure = REDACTOR.failure(
        NodeFailure("E", f"because {SECRET}", retry_after_seconds=3.0, unhealthy=True, log=SECRET, usage=usage)
    )
    assert (failure.error, failure.cause, failure.log) == ("E", f"because {REDACTED}", REDACTED)
    assert (failure.retry_after_seconds, failure.unhealthy, failure.usage) == (3.0, True, usage)


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def crash() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        raise KeyError(f"key {SECRET}") from error


def test_an_error_comes_out_without_the_secret_and_what_led_to_it() -> None:
    with pytest.raises(RuntimeError) as crashed, REDACTOR.over_errors():
        crash()
    assert str(crashed.value) == f"KeyError: 'key {REDACTED}'"
    assert SECRET not in told(crashed.value)


def test_a_failure_comes_out_of_a_group_and_without_the_secret() -> None:
    with pytest.raises(NodeFailure) as failed, REDACTOR.over_errors():
        raise ExceptionGroup("in a nursery", [NodeFailure("E", SECRET, unhealthy=True)])
    assert (failed.value.error, failed.value.cause, failed.value.unhealthy) == ("E", REDACTED, True)
    assert SECRET not in told(failed.value)


def test_without_a_secret_errors_are_as_they_were() -> None:
    with pytest.raises(ValueError, match="as it was"), Redactor().over_errors():
        raise ValueError("as it was")


def test_usage_has_no_texts() -> None:
    """What is not looked through holds numbers only."""
    assert {field.type for field in msgspec.structs.fields(Usage)} <= {int, float}
