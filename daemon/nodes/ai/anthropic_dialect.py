"""The wire format of Anthropic's messages, as a stream: requests written, events read.

Pure. Sources: Anthropic's documentation ("Messages", "Streaming messages", "Tool use", "Structured outputs"). Blocks
that are not known here (thinking, and what may come) go into the message to send back as they came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from daemon.nodes.ai.answer import Answer, Gathered, StopReason, ToolCall
from daemon.nodes.ai.arguments import Arguments, ToolResults
from daemon.nodes.ai.dialect import cut_off, tokens, typed
from daemon.nodes.ai.errors import AiError, event_failure, failed
from daemon.settings import AiSettings
from enginekit.messages.json import JSON, NotJSON, decode, encode
from enginekit.node import Usage

STOP_REASONS: Final = {
    "end_turn": StopReason.END_TURN,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "tool_use": StopReason.TOOL_USE,
    "pause_turn": StopReason.PAUSE,
}
REFUSAL: Final = "refusal"
BLOCKS: Final = 1000


def request(
    arguments: Arguments, settings: AiSettings, transform_schema: Callable[[dict[str, JSON]], JSON]
) -> dict[str, JSON]:
    """The body of the request. `transform_schema` makes of a schema one that the server takes (the vendor's own); the
    answer is held to the whole of it here. Raises NodeFailure `Ai.InvalidArguments`."""
    body: dict[str, JSON] = {
        "model": arguments.model,
        "max_tokens": arguments.max_tokens or settings.max_tokens,
        "messages": [
            _results(message) if isinstance(message, ToolResults) else message for message in arguments.messages
        ],
        "stream": True,
    }
    if arguments.system is not None:
        body["system"] = arguments.system
    if arguments.temperature is not None:
        body["temperature"] = arguments.temperature
    if arguments.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.schema}
            for tool in arguments.tools
        ]
    if arguments.tool_named:
        body["tool_choice"] = {"type": "tool", "name": arguments.tool_choice}
    elif arguments.tool_choice is not None:
        body["tool_choice"] = {"type": arguments.tool_choice}
    if arguments.schema is not None:
        try:
            schema = transform_schema(arguments.schema)
        except (ValueError, TypeError, AttributeError) as error:
            raise failed(
                AiError.INVALID_ARGUMENTS, f"ResponseSchema is none that Anthropic's servers take: {error}"
            ) from error
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body


def _results(message: ToolResults) -> dict[str, JSON]:
    blocks: list[JSON] = []
    for result in message.results:
        block: dict[str, JSON] = {"type": "tool_result", "tool_use_id": result.id, "content": result.text}
        if result.failed:
            block["is_error"] = True
        blocks.append(block)
    return {"role": "user", "content": blocks}


# --- what comes back ---------------------------------------------------------------------------------------------


class _Usage(msgspec.Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Message(msgspec.Struct, frozen=True):
    model: str = ""
    usage: _Usage | None = None


class _StopDetails(msgspec.Struct, frozen=True):
    explanation: str | None = None
    category: str | None = None


class _Delta(msgspec.Struct, frozen=True):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: dict[str, Any] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: dict[str, Any] | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


class _Block:
    """A content block that is being put together: how it began, and what came for each of its fields since."""

    __slots__ = ("citations", "input", "signature", "start", "text", "thinking")

    def __init__(self, start: dict[str, JSON]) -> None:
        self.start = start
        self.text: list[str] = []
        self.input: list[str] = []
        self.thinking: list[str] = []
        self.signature: list[str] = []
        self.citations: list[JSON] = []

    def said(self) -> str:
        return _string(self.start.get("text")) + "".join(self.text)

    def arguments(self) -> str:
        """The input as JSON; in one piece where the server sends it so."""
        given = self.start.get("input")
        if not self.input and given:
            return bytes(encode(given)).decode()
        return "".join(self.input)

    def whole(self) -> dict[str, JSON]:
        """As it is to be sent back."""
        block = dict(self.start)
        match block.get("type"):
            case "text":
                block["text"] = self.said()
            case "tool_use":
                try:
                    block["input"] = decode(self.arguments().encode()) if self.arguments().strip() else {}
                except (NotJSON, UnicodeEncodeError):
                    block["input"] = {}  # Nobody sends it back: such an answer is an error.
            case "thinking":
                block["thinking"] = _string(block.get("thinking")) + "".join(self.thinking)
                block["signature"] = _string(block.get("signature")) + "".join(self.signature)
        if self.citations:
            began = block.get("citations")
            block["citations"] = [*(began if isinstance(began, list) else []), *self.citations]
        return block


class AnthropicReader:
    """Gathers the events of one message."""

    def __init__(self, settings: AiSettings) -> None:
        self._gathered = Gathered(settings.output_bytes)
        self._blocks: dict[int, _Block] = {}
        self._model = ""
        self._stop: str | None = None
        self._stop_details: _StopDetails | None = None
        self._ended = False
        self._input = self._output = 0

    @property
    def usage(self) -> Usage:
        return Usage(requests=1, input_tokens=self._input, output_tokens=self._output)

    def take(self, data: str) -> bool:
        known = typed(data, _Event)
        match known.type:
            case "message_start" if known.message is not None:
                self._model = known.message.model
                self._count(known.message.usage)
            case "content_block_start" if known.content_block is not None:
                if len(self._blocks) >= BLOCKS:
                    raise failed(AiError.OUTPUT_TOO_LARGE, f"the answer has more than {BLOCKS} blocks")
                self._gathered.add([], bytes(encode(known.content_block)).decode())
                self._blocks[known.index] = _Block(known.content_block)
            case "content_block_delta" if known.delta is not None:
                self._take_delta(known.index, known.delta)
            case "message_delta":
                if known.delta is not None:
                    self._stop = known.delta.stop_reason or self._stop
                    self._stop_details = known.delta.stop_details or self._stop_details
                self._count(known.usage)
            case "error":
                raise event_failure({"error": known.error})
            case "message_stop":
                self._ended = True
        return self._ended

    def _take_delta(self, index: int, delta: _Delta) -> None:
        block = self._blocks.get(index)
        if block is None:
            raise failed(AiError.PROTOCOL_ERROR, f"block {index} of the answer goes on without having begun")
        self._gathered.add(block.text, delta.text)
        self._gathered.add(block.input, delta.partial_json)
        self._gathered.add(block.thinking, delta.thinking)
        self._gathered.add(block.signature, delta.signature)
        if delta.citation is not None:
            self._gathered.add([], bytes(encode(delta.citation)).decode())
            block.citations.append(delta.citation)

    def _count(self, usage: _Usage | None) -> None:
        """The counts are those of the whole message so far; what is not said stays."""
        if usage is None:
            return
        if usage.input_tokens is not None:
            cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
            self._input = tokens(usage.input_tokens + cached)
        if usage.output_tokens is not None:
            self._output = tokens(usage.output_tokens)

    def answer(self) -> Answer:
        if not self._ended or self._stop is None:
            raise cut_off()
        blocks = [block for _, block in sorted(self._blocks.items())]
        calls = [
            ToolCall(_string(block.start.get("id")), _string(block.start.get("name")), block.arguments())
            for block in blocks
            if block.start.get("type") == "tool_use"
        ]
        refusal = None
        if self._stop == REFUSAL:
            details = self._stop_details or _StopDetails()
            refusal = details.explanation or details.category or ""
        return Answer(
            text="".join(block.said() for block in blocks if block.start.get("type") == "text"),
            tool_calls=calls,
            stop=STOP_REASONS.get(self._stop, StopReason.OTHER),
            model=self._model,
            message={"role": "assistant", "content": [block.whole() for block in blocks]},
            usage=self.usage,
            refusal=refusal,
        )


def _string(value: JSON) -> str:
    return value if isinstance(value, str) else ""
