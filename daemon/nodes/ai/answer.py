"""What a model answered: one shape for every vendor, and what becomes of it when it is not what was asked for.

Pure. The vendors' files gather an `Answer` from their events; the shape a definition sees is made here.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from daemon.nodes.ai.arguments import Arguments
from daemon.nodes.ai.errors import AiError, failed
from daemon.nodes.ai.schemas import Misfit, check_value
from daemon.redaction import Redactor
from enginekit.messages.json import JSON, NotJSON, decode
from enginekit.node import Usage

HEAD_CHARACTERS: Final = 500
"""How much of an answer that does not fit goes into the cause."""


class StopReason(str, Enum):
    """Why the model stopped."""

    END_TURN = "EndTurn"
    """It had said what it had to say."""
    TOOL_USE = "ToolUse"
    """It asks for tools."""
    MAX_TOKENS = "MaxTokens"
    """The answer is cut off: MaxTokens, or as much as the model can hold."""
    STOP_SEQUENCE = "StopSequence"
    """It wrote what it was to stop at."""
    PAUSE = "Pause"
    """The server paused a long turn: send Message back to go on."""
    OTHER = "Other"
    """The server gave a reason that is not known here."""


class ToolCall(msgspec.Struct, frozen=True):
    """`arguments` as the model wrote them: JSON, one hopes."""

    id: str
    name: str
    arguments: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. `message` is the vendor's own, to be sent back as it is; `refusal` says why it refused, if it
    did."""

    text: str
    tool_calls: list[ToolCall]
    stop: StopReason
    model: str
    message: dict[str, JSON]
    usage: Usage
    refusal: str | None = None


class Gathered:
    """Text that comes in pieces, within a limit for all that is gathered with it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0

    def add(self, pieces: list[str], piece: str | None) -> None:
        """Raises NodeFailure `Ai.OutputTooLarge`."""
        if not piece:
            return
        self._bytes += len(piece.encode("utf-8", "surrogatepass"))
        if self._bytes > self._limit:
            raise failed(AiError.OUTPUT_TOO_LARGE, f"the answer is longer than {self._limit} bytes (ai.output_bytes)")
        pieces.append(piece)


def output_of(answer: Answer, arguments: Arguments, redactor: Redactor) -> dict[str, JSON]:
    """What the task answers. Raises NodeFailure `Ai.ContentRefused`, `Ai.InvalidOutput`, which tell of the answer's
    beginning, and no secret.

    Judging against a schema takes up to a third of a second.
    """
    if answer.refusal is not None:
        why = answer.refusal or answer.text or "it gives no reason"
        why = redactor.text(why)[:HEAD_CHARACTERS]
        raise failed(AiError.CONTENT_REFUSED, f"the model refused: {why}", usage=answer.usage)
    output: dict[str, JSON] = {
        "Text": answer.text,
        "ToolCalls": [
            {"Id": call.id, "Name": call.name, "Input": _input(call, answer, redactor)} for call in answer.tool_calls
        ],
        "StopReason": answer.stop.value,
        "Model": answer.model or arguments.model,
        "Usage": {"InputTokens": answer.usage.input_tokens, "OutputTokens": answer.usage.output_tokens},
        "Message": answer.message,
    }
    if arguments.schema is not None:
        # A turn that asks for tools is not the answer yet.
        output["Object"] = None if answer.tool_calls else _object(answer, arguments.schema, redactor)
    return output


def _input(call: ToolCall, answer: Answer, redactor: Redactor) -> JSON:
    if not call.arguments.strip():
        return {}
    try:
        value = decode(call.arguments.encode())
    except (NotJSON, UnicodeEncodeError) as error:
        raise _invalid(
            f"the input for the tool {call.name} is not JSON: {error}", call.arguments, answer, redactor
        ) from error
    if not isinstance(value, dict):
        raise _invalid(f"the input for the tool {call.name} is not a JSON object", call.arguments, answer, redactor)
    return value


def _object(answer: Answer, schema: dict[str, JSON], redactor: Redactor) -> JSON:
    try:
        value = decode(answer.text.encode())
        check_value(schema, value, redactor.text)
    except (NotJSON, UnicodeEncodeError) as error:
        raise _invalid(
            f"the answer is to fit ResponseSchema, and is not JSON: {error}", answer.text, answer, redactor
        ) from error
    except Misfit as error:
        raise _invalid(f"the answer does not fit ResponseSchema: {error}", answer.text, answer, redactor) from error
    return value


def _invalid(problem: str, text: str, answer: Answer, redactor: Redactor) -> Exception:
    text = redactor.text(text)[:HEAD_CHARACTERS]
    cut = " (it was cut off at MaxTokens)" if answer.stop is StopReason.MAX_TOKENS else ""
    return failed(AiError.INVALID_OUTPUT, f"{problem}{cut}. It begins: {text}", usage=answer.usage)
