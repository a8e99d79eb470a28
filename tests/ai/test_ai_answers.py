"""What a model's answer comes to: the same from both vendors, whatever its pieces."""

from __future__ import annotations

from ai_bench import Bench
from wire_formats import (
    DONE,
    block,
    chunk,
    delta,
    message_end,
    message_start,
    openai_answer,
    openai_usage,
    text_block,
    tool_block,
)

from enginekit.messages.json import JSON
from enginekit.node import Usage

WEATHER = ("call_1", "weather", '{"city": "Zürich", "days": 3}')
CLOCK = ("call_2", "clock", "")


async def output(bench: Bench, events: list[bytes], **arguments: JSON) -> dict[str, JSON]:
    result = await bench.answered(events, **arguments)
    assert isinstance(result.output, dict)
    return result.output


async def test_a_text(bench: Bench) -> None:
    result = await bench.answered(bench.events("Grüezi, how can I help?"))
    assert isinstance(result.output, dict)
    message = result.output.pop("Message")
    assert result.output == {
        "Text": "Grüezi, how can I help?",
        "ToolCalls": [],
        "StopReason": "EndTurn",
        "Model": {"openai": "gpt-test-2026", "anthropic": "claude-test-2026"}[bench.vendor],
        "Usage": {"InputTokens": 11, "OutputTokens": 5},
    }
    assert isinstance(message, dict)
    assert message["role"] == "assistant"
    assert result.usage == Usage(requests=1, input_tokens=11, output_tokens=5)


async def test_tool_calls_split_over_many_events(bench: Bench) -> None:
    answer = await output(bench, bench.events("Let me look.", [WEATHER, CLOCK]))
    assert answer["Text"] == "Let me look."
    assert answer["StopReason"] == "ToolUse"
    assert answer["ToolCalls"] == [
        {"Id": "call_1", "Name": "weather", "Input": {"city": "Zürich", "days": 3}},
        {"Id": "call_2", "Name": "clock", "Input": {}},
    ]


async def test_the_message_is_what_the_next_turn_sends_back() -> None:
    answer = await output(Bench("openai"), Bench("openai").events("", [WEATHER]))
    function = {"name": "weather", "arguments": WEATHER[2]}
    assert answer["Message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }
    answer = await output(Bench("anthropic"), Bench("anthropic").events("Well.", [WEATHER]))
    assert answer["Message"] == {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "Well."},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Zürich", "days": 3}},
        ],
    }


async def test_thinking_and_unknown_blocks_are_sent_back_as_they_came() -> None:
    thinking = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        [
            {"type": "thinking_delta", "thinking": "Hm, "},
            {"type": "thinking_delta", "thinking": "so."},
            {"type": "signature_delta", "signature": "EqQB"},
        ],
    )
    cited = block(
        2,
        {"type": "text", "text": "", "citations": []},
        [{"type": "citations_delta", "citation": {"cited_text": "x"}}, {"type": "text_delta", "text": "So it is."}],
    )
    events = [
        message_start(),
        *thinking,
        *block(1, {"type": "redacted_thinking", "data": "AAAA"}, []),
        *cited,
        *tool_block(3, "toolu_1", "clock", ""),
        *message_end("tool_use"),
    ]
    answer = await output(Bench("anthropic"), events)
    assert answer["Text"] == "So it is."
    assert answer["Message"] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm, so.", "signature": "EqQB"},
            {"type": "redacted_thinking", "data": "AAAA"},
            {"type": "text", "text": "So it is.", "citations": [{"cited_text": "x"}]},
            {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {}},
        ],
    }


async def test_stop_reasons_have_one_enumeration() -> None:
    for finish, stop in {"stop": "EndTurn", "length": "MaxTokens", "tool_calls": "ToolUse", "eos": "Other"}.items():
        answer = await output(Bench("openai"), openai_answer("So", finish=finish))
        assert answer["StopReason"] == stop
    named = await output(Bench("openai"), openai_answer("", [WEATHER], finish="stop"))
    assert named["StopReason"] == "ToolUse"
    for reason, stop in {
        "end_turn": "EndTurn",
        "max_tokens": "MaxTokens",
        "model_context_window_exceeded": "MaxTokens",
        "stop_sequence": "StopSequence",
        "pause_turn": "Pause",
        "something_new": "Other",
    }.items():
        answer = await output(Bench("anthropic"), [message_start(), *text_block(0, "So"), *message_end(reason)])
        assert answer["StopReason"] == stop


async def test_cached_tokens_count_and_later_counts_replace_earlier_ones() -> None:
    events = [message_start(), *text_block(0, "So")]
    ending = message_end(output_tokens=9)
    ending[0] = ending[0].replace(
        b'"output_tokens": 9', b'"output_tokens": 9, "input_tokens": 20, "cache_read_input_tokens": 100'
    )
    result = await Bench("anthropic").answered([*events, *ending])
    assert result.usage == Usage(requests=1, input_tokens=120, output_tokens=9)


async def test_a_server_that_counts_nothing() -> None:
    result = await Bench("openai").answered(openai_answer("So", usage=chunk(choices=None, usage=None)))
    assert result.usage == Usage(requests=1)


async def test_compatible_servers_tool_calls() -> None:
    """In one piece, without an index; each of them called the first; without an id."""
    first = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    second = {"id": "b", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
    for calls in (
        [delta(tool_calls=[first, second])],
        [delta(tool_calls=[first]), delta(tool_calls=[second])],
        [delta(tool_calls=[{**first, "index": 0}]), delta(tool_calls=[{**second, "index": 0}])],
    ):
        answer = await output(Bench("openai"), [*calls, delta("tool_calls"), openai_usage(), DONE])
        assert answer["ToolCalls"] == [
            {"Id": "a", "Name": "clock", "Input": {}},
            {"Id": "b", "Name": "clock", "Input": {"zone": "UTC"}},
        ]
    nameless = {"index": 0, "function": {"name": "clock", "arguments": "{}"}}
    answer = await output(Bench("openai"), [delta(tool_calls=[nameless]), delta("tool_calls"), DONE])
    assert answer["ToolCalls"] == [{"Id": "call_0", "Name": "clock", "Input": {}}]
    assert answer["Message"]["tool_calls"][0]["id"] == "call_0"  # type: ignore[index, call-overload]


# --- structured output -------------------------------------------------------------------------------------------

PERSON: JSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


async def test_an_answer_that_fits_its_schema(bench: Bench) -> None:
    answer = await output(bench, bench.events('{"name": "Ada", "age": 36}'), ResponseSchema=PERSON)
    assert answer["Object"] == {"name": "Ada", "age": 36}


async def test_a_turn_that_asks_for_tools_is_not_judged(bench: Bench) -> None:
    tools: JSON = [{"Name": "weather"}]
    answer = await output(bench, bench.events("Wait.", [WEATHER]), ResponseSchema=PERSON, Tools=tools)
    assert answer["Object"] is None
