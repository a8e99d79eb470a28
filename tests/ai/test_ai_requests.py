"""What is sent: the definition's arguments in each vendor's words, the connection's secret, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import msgspec
import pytest
from ai_bench import SECRET, VARIABLE, Bench, streaming
from wire_formats import anthropic_answer, openai_answer

from daemon.nodes.ai.node import AiNode
from daemon.nodes.ai_openai import OpenAI
from daemon.settings import ConnectionAuth, ConnectionSettings, Settings
from enginekit.messages.json import JSON

SCHEMA: JSON = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}},
    "required": ["n"],
    "additionalProperties": False,
}
TOOLS: JSON = [
    {"Name": "weather", "Description": "Tells it", "InputSchema": {"type": "object", "properties": {"city": {}}}},
    {"Name": "clock"},
]


async def sent(bench: Bench, url: str = "http://model.test", **arguments: JSON) -> httpx2.Request:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        # Fits SCHEMA, and says nothing to the others.
        events = bench.events('{"n": 1}')
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=b"".join(events))

    await bench.node(url, transport=httpx2.MockTransport(answer)).run(bench.call(**arguments))
    (only,) = seen
    return only


async def body(bench: Bench, url: str = "http://model.test", **arguments: JSON) -> dict[str, JSON]:
    decoded: dict[str, JSON] = msgspec.json.decode((await sent(bench, url, **arguments)).content)
    return decoded


async def test_openai_has_it_in_its_own_words() -> None:
    whole = await body(
        Bench("openai"),
        Model="gpt-x",
        System="Be brief.",
        MaxTokens=100.0,
        Temperature=0.5,
        Tools=TOOLS,
        ToolChoice="any",
        ResponseSchema=SCHEMA,
    )
    assert whole == {
        "model": "gpt-x",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 100,
        "temperature": 0.5,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Tells it",
                    "parameters": {"type": "object", "properties": {"city": {}}},
                },
            },
            {"type": "function", "function": {"name": "clock", "description": "", "parameters": {"type": "object"}}},
        ],
        "tool_choice": "required",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
    }


async def test_the_vendors_own_servers_have_another_name_for_the_limit() -> None:
    for url, name in {
        "https://api.openai.com": "max_completion_tokens",
        "https://eu.api.openai.com": "max_completion_tokens",
        "https://me.openai.azure.com/openai": "max_completion_tokens",
        "https://api.openai.com.example": "max_tokens",
        "http://127.0.0.1:11434": "max_tokens",
    }.items():
        assert (await body(Bench("openai"), url, MaxTokens=9))[name] == 9


async def test_anthropic_has_it_in_its_own_words() -> None:
    whole = await body(
        Bench("anthropic"),
        Model="claude-x",
        System="Be brief.",
        Temperature=1,
        Tools=TOOLS,
        ToolChoice={"Name": "clock"},
        ResponseSchema=SCHEMA,
    )
    output = whole.pop("output_config")
    assert whole == {
        "model": "claude-x",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "system": "Be brief.",
        "temperature": 1.0,
        "tools": [
            {
                "name": "weather",
                "description": "Tells it",
                "input_schema": {"type": "object", "properties": {"city": {}}},
            },
            {"name": "clock", "description": "", "input_schema": {"type": "object"}},
        ],
        "tool_choice": {"type": "tool", "name": "clock"},
    }
    # Of the schema what its servers take: a bound becomes a description. The answer is held to it all the same.
    assert isinstance(output, dict)
    assert output["format"]["schema"]["properties"]["n"]["type"] == "integer"  # type: ignore[index, call-overload]
    assert "minimum" not in output["format"]["schema"]["properties"]["n"]  # type: ignore[index, call-overload, operator]


@pytest.mark.parametrize(
    ("choice", "openai", "anthropic"),
    [
        ("auto", "auto", {"type": "auto"}),
        ("none", "none", {"type": "none"}),
        ("any", "required", {"type": "any"}),
        (
            {"Name": "clock"},
            {"type": "function", "function": {"name": "clock"}},
            {"type": "tool", "name": "clock"},
        ),
    ],
)
async def test_tool_choices(choice: JSON, openai: JSON, anthropic: JSON) -> None:
    assert (await body(Bench("openai"), Tools=TOOLS, ToolChoice=choice))["tool_choice"] == openai
    assert (await body(Bench("anthropic"), Tools=TOOLS, ToolChoice=choice))["tool_choice"] == anthropic


async def test_a_whole_conversation_with_tool_results() -> None:
    """What an agent loop sends: the answer before as it came, and the results in words that fit both vendors."""
    results: JSON = {
        "Role": "tool",
        "Results": [
            {"Id": "call_1", "Output": {"sky": "blue", "degrees": 21}},
            {"Id": "call_2", "Output": "no such city", "Failed": True},
        ],
    }
    before: JSON = {"role": "assistant", "content": None, "tool_calls": []}
    opening: JSON = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    assert (await body(Bench("openai"), Messages=[opening, before, results]))["messages"] == [
        opening,
        before,
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky":"blue","degrees":21}'},
        {"role": "tool", "tool_call_id": "call_2", "content": "The tool failed: no such city"},
    ]
    assert (await body(Bench("anthropic"), Messages=[opening, before, results]))["messages"] == [
        opening,
        before,
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": '{"sky":"blue","degrees":21}'},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "no such city", "is_error": True},
            ],
        },
    ]


async def test_a_schema_is_strict_only_where_it_can_be() -> None:
    loose: JSON = {"type": "object", "properties": {"n": {"type": "integer"}, "m": {}}, "required": ["n"]}
    whole = await body(Bench("openai"), ResponseSchema=loose)
    assert whole["response_format"]["json_schema"]["strict"] is False  # type: ignore[index, call-overload]


# --- secrets -----------------------------------------------------------------------------------------------------


async def test_the_key_goes_along_as_the_connection_says(bench: Bench) -> None:
    request = await sent(bench)
    assert request.url.path == bench.path
    keys = {name: request.headers.get(name) for name in ("authorization", "x-api-key")}
    if bench.vendor == "openai":
        assert keys == {"authorization": f"Bearer {SECRET}", "x-api-key": None}
    else:
        assert keys == {"authorization": None, "x-api-key": SECRET}
        assert request.headers["anthropic-version"]
    assert request.headers["idempotency-key"] == "key-1"
    assert request.headers["accept-encoding"] == "identity"


async def test_nothing_of_the_environments_is_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "ANTHROPIC"):
        for what in ("API_KEY", "ADMIN_KEY", "AUTH_TOKEN", "ORG_ID", "PROJECT_ID"):
            monkeypatch.setenv(f"{name}_{what}", "sk-of-the-environment")
        monkeypatch.setenv(f"{name}_CUSTOM_HEADERS", "X-Tenant: of-the-environment\nHost: of-the-environment")
        monkeypatch.setenv(f"{name}_BASE_URL", "http://of-the-environment.test")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://of-the-environment.test:1")
    request = await sent(bench)
    assert request.url.host == "model.test"
    everything = str(request.url) + repr(request.headers.raw) + repr(request.content)
    assert "of-the-environment" not in everything


async def test_a_key_in_the_query() -> None:
    settings = ConnectionSettings(
        url="http://model.test/v1", tenants=["*"], auth=ConnectionAuth.API_KEY, query="key", secret_env="TEST_MODEL_KEY"
    )
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(
            200, headers={"Content-Type": "text/event-stream"}, content=b"".join(openai_answer("So"))
        )

    node = AiNode(OpenAI(), Settings(connections={"mine": settings}), transport=httpx2.MockTransport(answer))
    await node.run(Bench("openai").call(Connection="mine"))
    (request,) = seen
    assert request.url.params["key"] == SECRET
    assert "authorization" not in request.headers


async def test_without_a_key_none_is_sent() -> None:
    """As to a server of one's own."""
    settings = Settings(connections={"mine": ConnectionSettings(url="http://model.test/v1", tenants=["*"])})
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(
            200, headers={"Content-Type": "text/event-stream"}, content=b"".join(openai_answer("So"))
        )

    await AiNode(OpenAI(), settings, transport=httpx2.MockTransport(answer)).run(
        Bench("openai").call(Connection="mine")
    )
    assert "authorization" not in seen[0].headers


async def test_a_connection_that_is_not_there_or_somebody_elses(bench: Bench) -> None:
    node = bench.node(transport=streaming(bench.events("So")))
    failed = await bench.failure(node, bench.call(Connection="nobodys"))
    assert failed.error == "Engine.UnknownConnection"
    theirs = bench.call_with({"Model": "m", "Prompt": "Hi"}, tenant="somebody-else")
    failed = await bench.failure(node, theirs)
    assert (failed.error, failed.unhealthy) == ("Engine.UnknownConnection", None)
    assert f'without Connection it is "{bench.vendor}" that is used' in failed.cause


async def test_a_server_that_repeats_the_key_does_not_bring_it_into_the_history(bench: Bench) -> None:
    answer = (openai_answer if bench.vendor == "openai" else anthropic_answer)(
        f"You sent {SECRET}.", [("call_1", "t", f'{{"k": "{SECRET}"}}')]
    )
    result = await bench.answered(answer)
    assert SECRET not in repr(result)
    assert "[redacted]" in repr(result)
    refusing = httpx2.MockTransport(
        lambda _: httpx2.Response(401, json={"error": {"message": f"Incorrect API key provided: {SECRET}"}})
    )
    failed = await bench.failure(bench.node(transport=refusing))
    assert failed.error == "Ai.Authentication"
    assert SECRET not in failed.cause
    assert SECRET not in str(failed)


@pytest.mark.parametrize("padding", [*range(176, 206, 8), *range(476, 506, 8), *range(1994, 2050, 8), 5000])
async def test_wherever_a_cause_is_cut_there_is_no_half_of_a_key(bench: Bench, padding: int) -> None:
    text = "." * padding + SECRET + "." * 2000
    schema: JSON = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    failures = []
    for status, body in ((401, {"error": {"message": text}}), (500, {"error": {"said": text}}), (500, text)):
        refusing = httpx2.MockTransport(
            lambda _, status=status, body=body: httpx2.Response(
                status, **({"text": body} if isinstance(body, str) else {"json": body})
            )
        )
        failures.append(await bench.failure(bench.node(transport=refusing)))
    for answer in (text, json.dumps({"n": text}), json.dumps([text])):
        node = bench.node(transport=streaming(bench.events(answer)))
        failures.append(await bench.failure(node, bench.call(ResponseSchema=schema)))
    for failed in failures:
        assert ".." in failed.cause
        assert SECRET[:3] not in failed.cause
        assert SECRET[-3:] not in failed.cause
        assert len(failed.cause) <= 2048


async def test_where_an_error_was_cut_there_is_no_beginning_of_a_key(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause is shorter than what was read, since the key is: its end would show."""
    key = "sk-" + "x" * 300
    monkeypatch.setenv(VARIABLE, key)

    async def body() -> AsyncIterator[bytes]:
        for begin in range(0, 30_000, 1000):
            yield (key * 100)[begin : begin + 1000].encode()

    refusing = httpx2.MockTransport(lambda _: httpx2.Response(500, content=body()))
    failed = await bench.failure(bench.node(transport=refusing))
    assert "sk-" not in failed.cause
    assert "[redacted]" in failed.cause


# --- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (None, "the input must be"),
        ([], "the input must be"),
        ({"Prompt": "Hi"}, "Model is needed"),
        ({"Model": "", "Prompt": "Hi"}, "Model must be"),
        ({"Model": 7, "Prompt": "Hi"}, "Model must be"),
        ({"Model": "m"}, "Messages or Prompt is needed"),
        ({"Model": "m", "Prompt": "Hi", "Messages": [{"role": "user"}]}, "Messages or Prompt is needed"),
        ({"Model": "m", "Prompt": ["Hi"]}, "Prompt must be"),
        ({"Model": "m", "Prompt": "Hi", "ApiKey": "sk-1"}, "ApiKey is not a field of ai:"),
        ({"Model": "m", "Prompt": "Hi", "max_tokens": 1}, "max_tokens is not a field of ai:"),
        ({"Model": "m", "Messages": []}, "Messages must be"),
        ({"Model": "m", "Messages": ["Hi"]}, "Messages[0] must be"),
        ({"Model": "m", "Messages": [{"content": "Hi"}]}, "Messages[0].role must be"),
        ({"Model": "m", "Messages": [{"Role": "user"}]}, "Messages[0].Role must be"),
        ({"Model": "m", "Messages": [{"Role": "tool"}]}, "Messages[0].Results must be"),
        ({"Model": "m", "Messages": [{"Role": "tool", "Results": [{"Id": "x"}]}]}, "Messages[0].Results[0].Output is"),
        (
            {"Model": "m", "Messages": [{"Role": "tool", "Results": [{"Output": 1}]}]},
            "Messages[0].Results[0].Id must be",
        ),
        ({"Model": "m", "Prompt": "Hi", "System": 1}, "System must be"),
        ({"Model": "m", "Prompt": "Hi", "MaxTokens": 0}, "MaxTokens must be"),
        ({"Model": "m", "Prompt": "Hi", "MaxTokens": 1.5}, "MaxTokens must be"),
        ({"Model": "m", "Prompt": "Hi", "MaxTokens": True}, "MaxTokens must be"),
        ({"Model": "m", "Prompt": "Hi", "Temperature": 3}, "Temperature must be"),
        ({"Model": "m", "Prompt": "Hi", "Tools": {}}, "Tools must be"),
        ({"Model": "m", "Prompt": "Hi", "Tools": [{"Name": "a b"}]}, "Tools[0].Name must be"),
        ({"Model": "m", "Prompt": "Hi", "Tools": [{"Name": "a"}, {"Name": "a"}]}, "Tools[1].Name is there twice"),
        ({"Model": "m", "Prompt": "Hi", "Tools": [{"Name": "a", "Schema": {}}]}, "Tools[0].Schema is unknown"),
        (
            {"Model": "m", "Prompt": "Hi", "Tools": [{"Name": "a", "InputSchema": {"type": "array"}}]},
            "Tools[0].InputSchema.type must be",
        ),
        ({"Model": "m", "Prompt": "Hi", "ToolChoice": "auto"}, "ToolChoice has no meaning"),
        ({"Model": "m", "Prompt": "Hi", "ToolChoice": "all"}, "ToolChoice must be"),
        (
            {"Model": "m", "Prompt": "Hi", "Tools": [{"Name": "a"}], "ToolChoice": {"Name": "b"}},
            "ToolChoice.Name names none",
        ),
        (
            {"Model": "m", "Prompt": "Hi", "ResponseSchema": {"properties": {"a": {"type": "strnig"}}}},
            "ResponseSchema.properties.a.type must be",
        ),
        ({"Model": "m", "Prompt": "Hi", "Connection": ["x"]}, "Connection must be"),
    ],
)
async def test_bad_arguments_send_nothing_and_name_the_field(bench: Bench, arguments: JSON, named: str) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(f"sent {request.url}")

    failed = await bench.failure(bench.node(transport=httpx2.MockTransport(answer)), bench.call_with(arguments))
    assert failed.error == "Ai.InvalidArguments"
    assert failed.cause.startswith(named)
    assert not failed.unhealthy


async def test_a_schema_that_the_vendor_cannot_take() -> None:
    bench = Bench("anthropic")
    failed = await bench.failure(bench.node(), bench.call(ResponseSchema={"properties": {"a": {}}}))
    assert failed.error == "Ai.InvalidArguments"
    assert failed.cause.startswith("ResponseSchema ")
