"""What the vendors' servers stream, byte for byte in form: server-sent events as their documentations have them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

JSONObject = dict[str, object]


def pieces(text: str, size: int = 7) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


# --- OpenAI: unnamed events, one JSON object each, and [DONE] ----------------------------------------------------


def chunk(**fields: object) -> bytes:
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": "gpt-test-2026",
        "system_fingerprint": "fp_1",
        **fields,
    }
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: object) -> bytes:
    return chunk(choices=[{"index": 0, "delta": fields, "logprobs": None, "finish_reason": finish}], usage=None)


DONE = b"data: [DONE]\n\n"


def openai_usage(prompt: int = 11, completion: int = 5) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return chunk(choices=[], usage=counts)


def openai_answer(
    text: str = "", calls: Sequence[tuple[str, str, str]] = (), finish: str | None = None, usage: bytes | None = None
) -> list[bytes]:
    """A whole completion. `calls` are id, name and arguments, the latter split over chunks."""
    events = [delta(role="assistant", content="", refusal=None)]
    events += [delta(content=piece) for piece in pieces(text)]
    for index, (identity, name, arguments) in enumerate(calls):
        begun = {"index": index, "id": identity, "type": "function", "function": {"name": name, "arguments": ""}}
        events.append(delta(tool_calls=[begun]))
        events += [
            delta(tool_calls=[{"index": index, "function": {"arguments": piece}}]) for piece in pieces(arguments, 4)
        ]
    events.append(delta(finish or ("tool_calls" if calls else "stop")))
    return [*events, usage or openai_usage(), DONE]


# --- Anthropic: named events ------------------------------------------------------------------------------------


def event(name: str, **fields: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + json.dumps({"type": name, **fields}).encode() + b"\n\n"


PING = event("ping")


def message_start(input_tokens: int = 11) -> bytes:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-test-2026",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 1,
        },
    }
    return event("message_start", message=message)


def block(index: int, start: JSONObject, deltas: Iterable[JSONObject]) -> list[bytes]:
    return [
        event("content_block_start", index=index, content_block=start),
        *(event("content_block_delta", index=index, delta=one) for one in deltas),
        event("content_block_stop", index=index),
    ]


def text_block(index: int, text: str) -> list[bytes]:
    return block(index, {"type": "text", "text": ""}, [{"type": "text_delta", "text": one} for one in pieces(text)])


def tool_block(index: int, identity: str, name: str, arguments: str) -> list[bytes]:
    parts: list[JSONObject] = [{"type": "input_json_delta", "partial_json": ""}]
    parts += [{"type": "input_json_delta", "partial_json": one} for one in pieces(arguments, 4)]
    return block(index, {"type": "tool_use", "id": identity, "name": name, "input": {}}, parts)


def message_end(stop: str = "end_turn", output_tokens: int = 5, **more: object) -> list[bytes]:
    ending = {"stop_reason": stop, "stop_sequence": None, **more}
    return [
        event("message_delta", delta=ending, usage={"output_tokens": output_tokens}),
        event("message_stop"),
    ]


def anthropic_answer(
    text: str = "", calls: Sequence[tuple[str, str, str]] = (), stop: str | None = None
) -> list[bytes]:
    """A whole message. `calls` are id, name and input, the latter split over events."""
    events = [message_start(), PING]
    first = 0
    if text:
        events += text_block(0, text)
        first = 1
    for index, (identity, name, arguments) in enumerate(calls, first):
        events += tool_block(index, identity, name, arguments)
    return [*events, *message_end(stop or ("tool_use" if calls else "end_turn"))]
