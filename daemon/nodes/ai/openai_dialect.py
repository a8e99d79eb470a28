"""The wire format of OpenAI's chat completions, as a stream: requests written, chunks read.

Pure. Sources: OpenAI's API reference ("Chat Completions", "Streaming"), and what compatible servers do otherwise:
chunks with `choices: null`, tool calls in one piece, without an index or an id (Ollama's and vLLM's documentation).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from daemon.nodes.ai.answer import Answer, Gathered, StopReason, ToolCall
from daemon.nodes.ai.arguments import Arguments, ToolResults
from daemon.nodes.ai.dialect import cut_off, tokens, typed
from daemon.nodes.ai.errors import event_failure
from daemon.nodes.ai.schemas import is_strict
from daemon.settings import AiSettings
from enginekit.messages.json import JSON
from enginekit.node import Usage

STOP_REASONS: Final = {
    "stop": StopReason.END_TURN,
    "length": StopReason.MAX_TOKENS,
    "tool_calls": StopReason.TOOL_USE,
    "function_call": StopReason.TOOL_USE,
}
DONE: Final = "[DONE]"
CONTENT_FILTER: Final = "content_filter"
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_VENDORS_HOSTS: Final = (".openai.com", ".openai.azure.com")


def request(arguments: Arguments, url: str) -> dict[str, JSON]:
    """The body of the request to a server with that base URL."""
    body: dict[str, JSON] = {
        "model": arguments.model,
        "messages": _messages(arguments),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if arguments.max_tokens is not None:
        # The vendor's newer models refuse the older name; other servers may know no other.
        host = "." + (urlsplit(url).hostname or "")
        name = "max_completion_tokens" if host.endswith(_VENDORS_HOSTS) else "max_tokens"
        body[name] = arguments.max_tokens
    if arguments.temperature is not None:
        body["temperature"] = arguments.temperature
    if arguments.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
            }
            for tool in arguments.tools
        ]
    if arguments.tool_named:
        body["tool_choice"] = {"type": "function", "function": {"name": arguments.tool_choice}}
    elif arguments.tool_choice is not None:
        body["tool_choice"] = _CHOICES[arguments.tool_choice]
    if arguments.schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": arguments.schema, "strict": is_strict(arguments.schema)},
        }
    return body


def _messages(arguments: Arguments) -> list[JSON]:
    messages: list[JSON] = []
    if arguments.system is not None:
        messages.append({"role": "system", "content": arguments.system})
    for message in arguments.messages:
        if isinstance(message, ToolResults):
            messages += [
                {
                    "role": "tool",
                    "tool_call_id": result.id,
                    # There is no other way to say so here.
                    "content": f"The tool failed: {result.text}" if result.failed else result.text,
                }
                for result in message.results
            ]
        else:
            messages.append(message)
    return messages


# --- what comes back ---------------------------------------------------------------------------------------------


class _Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Call:
    """A tool call that is being put together."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class OpenAIReader:
    """Gathers the chunks of one completion."""

    def __init__(self, settings: AiSettings) -> None:
        self._gathered = Gathered(settings.output_bytes)
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._model = ""
        self._finish: str | None = None
        self.usage = Usage(requests=1)

    def take(self, data: str) -> bool:
        if data.startswith(DONE):
            return True
        chunk = typed(data, _Chunk)
        if chunk.error:
            raise event_failure({"error": chunk.error})
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self.usage = Usage(
                requests=1,
                input_tokens=tokens(chunk.usage.prompt_tokens),
                output_tokens=tokens(chunk.usage.completion_tokens),
            )
        for choice in chunk.choices or []:
            if choice.index:
                continue  # One was asked for.
            self._finish = choice.finish_reason or self._finish
            if choice.delta is not None:
                self._gathered.add(self._text, choice.delta.content)
                self._gathered.add(self._refusal, choice.delta.refusal)
                for part in choice.delta.tool_calls or []:
                    self._take_call(part)
        return False

    def _take_call(self, part: _ToolCall) -> None:
        last = max(self._calls, default=-1)
        index = part.index
        if index is None:
            index = last + 1 if part.id or last < 0 else last
        call = self._calls.get(index)
        if call is not None and part.id and call.id and part.id != call.id:
            index, call = last + 1, None  # A server that calls each of them the first.
        if call is None:
            call = self._calls[index] = _Call()
            self._gathered.add([], "{}")
        call.id = part.id or call.id
        if part.function is not None:
            call.name = part.function.name or call.name
            self._gathered.add(call.arguments, part.function.arguments)

    def answer(self) -> Answer:
        if self._finish is None:
            raise cut_off()
        text = "".join(self._text)
        calls = [
            ToolCall(call.id or f"call_{index}", call.name, "".join(call.arguments))
            for index, call in sorted(self._calls.items())
        ]
        stop = STOP_REASONS.get(self._finish, StopReason.OTHER)
        if calls and stop is StopReason.END_TURN:
            stop = StopReason.TOOL_USE  # As the vendor itself has it where the tool was named by ToolChoice.
        refusal = "".join(self._refusal) or None
        if self._finish == CONTENT_FILTER:
            refusal = refusal or "the server's content filter cut the answer off"
        message: dict[str, JSON] = {"role": "assistant", "content": text}
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments or "{}"},
                }
                for call in calls
            ]
        return Answer(
            text=text,
            tool_calls=calls,
            stop=stop,
            model=self._model,
            message=message,
            usage=self.usage,
            refusal=refusal,
        )
