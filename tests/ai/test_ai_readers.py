"""Whatever a server streams, reading it ends in an answer or in a failure with a name: never in another exception."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.nodes.ai.answer import output_of
from daemon.nodes.ai.anthropic_dialect import AnthropicReader
from daemon.nodes.ai.arguments import Arguments
from daemon.nodes.ai.dialect import Reader
from daemon.nodes.ai.errors import AiError
from daemon.nodes.ai.openai_dialect import OpenAIReader
from daemon.redaction import Redactor
from daemon.settings import AiSettings
from enginekit.messages.json import JSON, encode
from enginekit.node import NodeFailure, Usage
from tests.hypothesis_profiles import examples

ARGUMENTS = Arguments(model="m", messages=[{"role": "user"}], schema={"type": "object"})
OPENAI = ["choices", "index", "delta", "content", "tool_calls", "function", "name", "arguments", "id", "finish_reason"]
OPENAI += ["usage", "prompt_tokens", "error", "message", "model", "refusal"]
ANTHROPIC = [
    "type",
    "message",
    "model",
    "usage",
    "input_tokens",
    "index",
    "content_block",
    "id",
    "name",
    "input",
    "text",
]
ANTHROPIC += ["delta", "partial_json", "stop_reason", "thinking", "signature", "citation", "error", "citations"]
WORDS = ["message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "error"]
WORDS += ["text", "tool_use", "thinking", "text_delta", "end_turn", "tool_use", "refusal", "stop", "length", "{", "{}"]


def values(names: list[str]) -> st.SearchStrategy[JSON]:
    leaves = (
        st.none() | st.booleans() | st.integers(-2, 3) | st.just(10**40) | st.sampled_from(WORDS) | st.text(max_size=5)
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(names), inner, max_size=4),
        max_leaves=15,
    )


def openai_events() -> st.SearchStrategy[JSON]:
    """Mostly of the right outline, or nothing would get past the first field."""
    inside = values(OPENAI)
    delta = st.fixed_dictionaries({}, optional={"content": inside, "tool_calls": inside, "refusal": inside})
    choice = st.fixed_dictionaries(
        {}, optional={"delta": delta | inside, "finish_reason": st.sampled_from(WORDS), "index": inside}
    )
    return inside | st.fixed_dictionaries({"choices": st.lists(choice, max_size=2)}, optional={"usage": inside})


def anthropic_events() -> st.SearchStrategy[JSON]:
    inside = values(ANTHROPIC)
    optional = {
        "index": st.integers(0, 1),
        "content_block": st.fixed_dictionaries(
            {"type": st.sampled_from(["text", "tool_use", "thinking", "news"])},
            optional={"text": inside, "input": inside, "id": inside, "citations": inside},
        ),
        "delta": st.fixed_dictionaries(
            {}, optional={"text": st.just("{}"), "partial_json": st.sampled_from(["{}", "["]), "stop_reason": inside}
        ),
        "usage": inside,
        "message": inside,
        "error": inside,
    }
    return inside | st.fixed_dictionaries({"type": st.sampled_from(WORDS)}, optional=optional)


def reads(reader: Reader, events: list[JSON]) -> None:
    try:
        for event in events:
            reader.take(bytes(encode(event)).decode())
        answer = reader.answer()
        encode(output_of(answer, ARGUMENTS, Redactor()))
        failed = None
    except NodeFailure as failure:
        failed = failure.error
    assert failed is None or failed in {error.value for error in AiError}
    assert reader.usage.requests == 1
    assert 0 <= reader.usage.input_tokens <= 10**9


@given(st.lists(openai_events(), max_size=5))
@settings(max_examples=examples(300), deadline=None)
def test_whatever_comes_for_a_completion(events: list[JSON]) -> None:
    reads(OpenAIReader(AiSettings()), events)


@given(st.lists(anthropic_events(), max_size=8))
@settings(max_examples=examples(300), deadline=None)
def test_whatever_comes_for_a_message(events: list[JSON]) -> None:
    reads(AnthropicReader(AiSettings()), [{"type": "message_start"}, *events])


def test_counts_beyond_reason() -> None:
    """They would not fit into an event."""
    completion = OpenAIReader(AiSettings())
    completion.take('{"usage": {"prompt_tokens": 1%s, "completion_tokens": -5}}' % ("0" * 40))
    assert completion.usage == Usage(requests=1, input_tokens=10**9)
    message = AnthropicReader(AiSettings())
    message.take('{"type": "message_delta", "usage": {"input_tokens": 1, "cache_read_input_tokens": 1%s}}' % ("0" * 40))
    assert message.usage == Usage(requests=1, input_tokens=10**9)
