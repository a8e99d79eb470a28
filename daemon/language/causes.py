"""The causes of errors: the sentences in which a field that failed says why.

They are the reference service's, word for word, wherever a record of it is known (docs/language.md says of which), so
that what people wrote to look for them finds them here; where none is known they have the same form. Each function
answers a `Phrase`, which makes the StateError of a field out of what its expression failed with. No text is made before
something has failed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from daemon.language.errors import (
    DATA_LIMIT_EXCEEDED,
    INTRINSIC_FAILURE,
    QUERY_EVALUATION_ERROR,
    REFERENCE_PATH_CONFLICT,
    RUNTIME,
    CallFailed,
    Failed,
    Missing,
    StateError,
    shown,
)
from enginekit.messages.json import JSON

Phrase: TypeAlias = Callable[[Failed, JSON], StateError]
"""(what the expression failed with, the value it was applied to) -> the field's error."""

NOTHING: Final = "returned nothing (undefined)."
"""What a query failed with that found nothing."""
UNSUPPORTED: Final = "returned an unsupported result type."
"""What a query failed with whose result is no JSON."""

_CODE: Final = re.compile(r"[STD]\d{4}: ")


def framed(error: StateError, state: str, entered: int) -> str:
    """The cause as the state tells it that was entered by that event."""
    if not error.framed:
        return error.cause
    return f"An error occurred while executing the state '{state}' (entered at the event id #{entered}). {error.cause}"


def of_path(field: str) -> Phrase:
    """A path in a template's field, or in a field of a state that has no sentence of its own."""

    def phrase(failed: Failed, value: JSON) -> StateError:
        if isinstance(failed, Missing):
            cause = (
                f"The JSONPath '{_asked(failed)}' specified for the field '{field}' could not be found in the input "
                f"'{_searched(failed)}'"
            )
        else:
            cause = f"The value of the field '{field}' could not be determined: {failed.reason}"
        return StateError(failed.error or RUNTIME, cause)

    return phrase


def of_selection(text: str) -> Phrase:
    """InputPath, OutputPath."""
    return lambda failed, value: StateError(failed.error or RUNTIME, f"Invalid path '{text}' : {failed.reason}")


def of_rule(text: str) -> Phrase:
    """A path in a choice rule."""

    def phrase(failed: Failed, value: JSON) -> StateError:
        missing = isinstance(failed, Missing)
        why = "The choice state's condition path references an invalid value." if missing else failed.reason
        return StateError(failed.error or RUNTIME, f"Invalid path '{text}': {why}")

    return phrase


def of_parameter(field: str) -> Phrase:
    """SecondsPath, TimestampPath."""
    other = of_path(field)

    def phrase(failed: Failed, value: JSON) -> StateError:
        if isinstance(failed, Missing):
            return StateError(RUNTIME, f"The {field} parameter does not reference an input value: {failed.text}")
        return other(failed, value)

    return phrase


def of_items() -> Phrase:
    """ItemsPath."""
    other = of_path("ItemsPath")

    def phrase(failed: Failed, value: JSON) -> StateError:
        if isinstance(failed, Missing) and failed.misfit is None:
            return not_applied(failed.steps[failed.stop()[0]], failed.searched)
        return other(failed, value)

    return phrase


def not_applied(step: str | int, value: JSON, documented: str | None = None) -> StateError:
    """A reference path that the value has no place for, at that step."""
    cause = f'Unable to apply step "{step}" to input {shown(value)}'
    return StateError(REFERENCE_PATH_CONFLICT, cause, documented=documented, framed=False)


def of_function(expression: str) -> Phrase:
    """An intrinsic function. The whole expression is named, whichever call in it failed."""

    def phrase(failed: Failed, value: JSON) -> StateError:
        if isinstance(failed, CallFailed):
            cause = f"There was an error while evaluating the intrinsic function: {expression}. {failed.reason}"
            documented = None if failed.error else INTRINSIC_FAILURE
            return StateError(failed.error or RUNTIME, cause, documented=documented)
        if isinstance(failed, Missing):
            why = (
                failed.reason
                if failed.of_no_array
                else f"The JsonPath argument for the field '{_asked(failed)}' could not be found in the input "
                f"'{shown(value)}'"
            )
        else:
            why = failed.reason
        return StateError(failed.error or RUNTIME, f"The function '{expression}' had the following error: {why}")

    return phrase


def of_call(function: str, failed: Failed) -> CallFailed:
    """A call of an intrinsic function whose work failed: for the reason it gives, or without any by its arguments, of
    which the service says no more."""
    return CallFailed(failed.reason or f"Invalid arguments in {function}", failed.error)


def of_query(expression: str, field: str) -> Phrase:
    """A JSONata expression. `field` is its place within the state: `Output/total`, `Choices[1]/Condition`."""

    def phrase(failed: Failed, value: JSON) -> StateError:
        reason = failed.reason
        if reason not in (NOTHING, UNSUPPORTED):
            between = ". " if _CODE.match(reason) else ": "
            reason = f"threw an error during evaluation{between}{reason}"
        return StateError(
            failed.error or QUERY_EVALUATION_ERROR,
            f"The JSONata expression '{expression}' specified for the field '{field}' {reason}",
        )

    return phrase


def of_template(field: str, error: str) -> Phrase:
    """A template that builds more than it may."""
    return lambda failed, value: StateError(
        failed.error or error, f"The value of the field '{field}' could not be determined: {failed.reason}"
    )


def unexpected(expression: str, field: str, wanted: str, value: JSON) -> StateError:
    """A JSONata expression whose value is not of the type (`number`, `boolean` …) that its field has."""
    return StateError(
        QUERY_EVALUATION_ERROR,
        f"The JSONata expression '{expression}' specified for the field '{field}' returned an unexpected result type. "
        f"Expected '{wanted}', but was '{type_of(value)}' for value: {shown(value)}",
    )


def type_of(value: JSON) -> str:
    """A value's type as JSONata's $type has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def too_large(state: str) -> StateError:
    """What a state or its task came to is larger than a payload may be."""
    return StateError(
        DATA_LIMIT_EXCEEDED,
        f"The state/task '{state}' returned a result with a size exceeding the maximum number of bytes service limit.",
        framed=False,
    )


def _asked(missing: Missing) -> str:
    """The path as the service names it: one into the context object begins with a single dollar."""
    return missing.text[1:] if missing.root == "$$" else missing.text


def _searched(missing: Missing) -> str:
    """What it was looked for in. A task's token is nobody's to read in an error."""
    value = missing.searched
    if missing.root == "$$" and isinstance(value, dict):
        value = {name: each for name, each in value.items() if name != "Task"}
    return shown(value)


# --- values that their fields do not take ----------------------------------------------------------------------------

Refusal: TypeAlias = Callable[[str, JSON], StateError]
"""(the path or expression, the value it gave) -> the field's error."""


def not_of_type(field: str, wanted: str) -> Refusal:
    """An expression that does not give a `boolean`, a `string` …"""
    return lambda expression, value: unexpected(expression, field, wanted, value)


def not_in_range(field: str, least: float, most: float) -> Refusal:
    """An expression that does not give a number in the range; a whole one, where the range is one of whole numbers."""

    def refuse(expression: str, value: JSON) -> StateError:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return unexpected(expression, field, "number", value)
        if isinstance(least, int) and isinstance(value, float) and not value.is_integer():
            cause = f"The {field} field cannot be parsed as an integer: {shown(value)}"
        else:
            cause = f"{field} must be between {least} and {most} but was: {shown(value)}"
        return StateError(QUERY_EVALUATION_ERROR, cause)

    return refuse


def no_timestamp(field: str) -> Refusal:
    """An expression that does not give a timestamp."""

    def refuse(expression: str, value: JSON) -> StateError:
        if not isinstance(value, str):
            return unexpected(expression, field, "string", value)
        return StateError(QUERY_EVALUATION_ERROR, _timestamp(field, expression, value))

    return refuse


def no_timestamp_at(field: str) -> Refusal:
    """A path to what is no timestamp."""
    return lambda path, value: StateError(RUNTIME, _timestamp(field, path, value))


def _timestamp(field: str, source: str, value: JSON) -> str:
    return (
        f"The {field} parameter does not reference a valid ISO-8601 extended offset date-time format string: "
        f"{source} == {_bare(value)}"
    )


def no_seconds_at(field: str, most: int) -> Refusal:
    """A path to what is no number of seconds to wait."""

    def refuse(path: str, value: JSON) -> StateError:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, int) and whole and value < 0:
            why = "references a negative value"
        elif whole:
            why = f"references a value greater than {most}"
        else:
            why = "cannot be parsed as a long value"
        return StateError(RUNTIME, f"The {field} parameter {why}: {path} == {_bare(value)}")

    return refuse


def not_in_range_at(name: str, least: float, most: float) -> Refusal:
    """A path to what is no number in the range of the field `name`."""

    def refuse(path: str, value: JSON) -> StateError:
        sort = "integer" if isinstance(least, int) else "number"
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or (isinstance(value, float) and not value.is_integer() and isinstance(least, int)):
            cause = f'The {name}Path field refers to value "{_bare(value)}" which is not a valid {sort}: {path}'
        elif isinstance(value, (int, float)) and value < least:
            wanted = "non-negative" if least == 0 else "positive"
            cause = f"Expected {wanted} {sort} for {name}, got '{_bare(value)}' instead."
        else:
            cause = f"{name} must be between {least} and {most} but was: {_bare(value)}"
        return StateError(RUNTIME, cause)

    return refuse


def no_text_at(field: str) -> Refusal:
    """A path or intrinsic function that does not give a string."""
    return lambda path, value: StateError(
        RUNTIME, f'The {field} field refers to value "{_bare(value)}" which is not a valid string: {path}'
    )


def no_items_at(path: str) -> StateError:
    """A Map state's items that are no array."""
    return StateError(RUNTIME, f'Reference path "{path}" must point to array.')


def _bare(value: JSON) -> str:
    return value if isinstance(value, str) else shown(value)
