"""The arguments of `ai:openai` and `ai:anthropic`: the same for both, read strictly, each fault with its field.

Pure. A definition's arguments and a task's are judged alike, but for what is COMPUTED. What a vendor's server makes of
them is in the vendors' files; a message of its own form passes as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import msgspec

from daemon.nodes.ai.errors import AiError, failed
from daemon.nodes.ai.schemas import BadSchema, check_schema
from enginekit.messages.json import JSON, NotJSON, encode
from enginekit.node import COMPUTED, Argument, ArgumentFault

TOOLS: Final = 128
TOOL_NAME_CHARACTERS: Final = 64
CHOICES: Final = ("auto", "any", "none")
NO_MODEL: Final = "is needed: the model's name, as the server has it"
NO_MESSAGES: Final = "or Prompt is needed, and not both of them"
NO_TOOLS: Final = "has no meaning without Tools"
NOTHING: Final = object()

_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Tool(msgspec.Struct, frozen=True):
    """What the model may ask for. `schema` is that of its input."""

    name: str
    description: str
    schema: dict[str, JSON]


class ToolResult(msgspec.Struct, frozen=True):
    """What became of a tool call. `text` is what the model reads."""

    id: str
    text: str
    failed: bool


class ToolResults(msgspec.Struct, frozen=True):
    """The one message that is ours and not the vendors': what became of the tool calls of the turn before."""

    results: list[ToolResult]


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a model. A message is a vendor's own or ToolResults; `tool_choice` is one of CHOICES, or the
    name of a tool with `tool_named`; `schema`, if there is one, what the answer has to fit."""

    model: str
    messages: list[dict[str, JSON] | ToolResults]
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    tools: list[Tool] = []
    tool_choice: str | None = None
    tool_named: bool = False
    schema: dict[str, JSON] | None = None
    connection: str | None = None


class BadArgument(ValueError):
    """`field` is where, as `Messages[0]`; `problem` a sentence without its subject."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


def read(resource: str, given: JSON) -> Arguments:
    """The arguments of a call. Raises NodeFailure `Ai.InvalidArguments`, whose cause begins with the field."""
    try:
        return _arguments(resource, given)
    except BadArgument as error:
        raise failed(AiError.INVALID_ARGUMENTS, str(error)) from error


def _arguments(resource: str, given: JSON) -> Arguments:
    if not isinstance(given, dict):
        _refuse("the input", f"must be an object with the fields {', '.join(FIELDS)}")
    values = {name: _read_field(resource, name, value) for name, value in given.items()}
    if "Model" not in values:
        _refuse("Model", NO_MODEL)
    if ("Messages" in values) == ("Prompt" in values):
        _refuse("Messages", NO_MESSAGES)
    if "Prompt" in values:
        values["Messages"] = [{"role": "user", "content": values["Prompt"]}]
    choice = values.get("ToolChoice")
    named = isinstance(choice, dict)
    if isinstance(choice, dict):
        choice = choice["Name"]
    tools = values.get("Tools", [])
    if choice is not None and not tools:
        _refuse("ToolChoice", NO_TOOLS)
    if named and choice not in [tool.name for tool in tools]:
        _refuse("ToolChoice.Name", f'names none of the Tools: "{choice}"')
    return Arguments(
        model=values["Model"],
        messages=values["Messages"],
        system=values.get("System"),
        max_tokens=values.get("MaxTokens"),
        temperature=values.get("Temperature"),
        tools=tools,
        tool_choice=choice,
        tool_named=named,
        schema=values.get("ResponseSchema"),
        connection=values.get("Connection"),
    )


def faults_in(resource: str, arguments: Argument) -> Iterator[ArgumentFault]:
    """What is wrong with them as a definition has them, as far as it has them literally: of a list, element by
    element."""
    if arguments is COMPUTED:
        return
    if not isinstance(arguments, dict):
        yield ArgumentFault("", f"must be an object with the fields {', '.join(FIELDS)}")
        return
    for name, value in arguments.items():
        if name not in FIELDS:
            yield ArgumentFault(name[:100], _no_field(resource))
        else:
            yield from _faults_in_field(name, value)
    if "Model" not in arguments:
        yield ArgumentFault("Model", NO_MODEL)
    if ("Messages" in arguments) == ("Prompt" in arguments):
        yield ArgumentFault("Messages", NO_MESSAGES)
    if "ToolChoice" in arguments and "Tools" not in arguments:
        yield ArgumentFault("ToolChoice", NO_TOOLS)


def _faults_in_field(name: str, value: Argument) -> Iterator[ArgumentFault]:
    element = ELEMENTS.get(name)
    literal = _literal(value)
    try:
        if literal is not NOTHING:
            FIELDS[name](name, literal)
        elif element is not None and isinstance(value, list):
            for index, part in enumerate(value):
                part = _literal(part)
                if part is not NOTHING:
                    element(f"{name}[{index}]", part)
    except BadArgument as error:
        yield ArgumentFault(error.field, error.problem)


def _literal(value: Argument) -> Any:
    """The value, or NOTHING where a part of it is computed."""
    if value is COMPUTED:
        return NOTHING
    if isinstance(value, dict):
        return NOTHING if any(_literal(part) is NOTHING for part in value.values()) else value
    if isinstance(value, list):
        return NOTHING if any(_literal(part) is NOTHING for part in value) else value
    return value


def _read_field(resource: str, name: str, value: JSON) -> Any:
    reader = FIELDS.get(name)
    if reader is None:
        _refuse(name[:100], _no_field(resource))
    return reader(name, value)


def _no_field(resource: str) -> str:
    return f"is not a field of {resource} (there are {', '.join(FIELDS)})"


def _refuse(field: str, problem: str) -> NoReturn:
    raise BadArgument(field, problem)


# --- one field each ----------------------------------------------------------------------------------------------


def _text(field: str, value: JSON) -> str:
    if not isinstance(value, str):
        _refuse(field, "must be a string")
    return value


def _name(field: str, value: JSON) -> str:
    if not isinstance(value, str) or not value or len(value) > 255:
        _refuse(field, "must be a string of 1 to 255 characters")
    return value


def _max_tokens(field: str, value: JSON) -> int:
    # 1024.0 is what arithmetic in a definition makes of 1024.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or not 1 <= value <= 10**7:
        _refuse(field, "must be a whole number from 1 to 10000000")
    return int(value)


def _temperature(field: str, value: JSON) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        _refuse(field, "must be a number from 0 to 2")
    return float(value)


def _messages(field: str, value: JSON) -> list[dict[str, JSON] | ToolResults]:
    if not isinstance(value, list) or not value:
        _refuse(field, "must be a list of messages, and not an empty one")
    return [_message(f"{field}[{index}]", message) for index, message in enumerate(value)]


def _message(field: str, value: JSON) -> dict[str, JSON] | ToolResults:
    if not isinstance(value, dict):
        _refuse(field, "must be an object")
    if "Role" in value:
        return _tool_results(field, value)
    if not isinstance(value.get("role"), str):
        _refuse(f"{field}.role", 'must be a string: "user", "assistant" or what else the server has')
    return value


def _tool_results(field: str, value: dict[str, JSON]) -> ToolResults:
    if value["Role"] != "tool":
        _refuse(f"{field}.Role", 'must be "tool"; messages of other roles are the server\'s own, with a small "role"')
    _known(field, value, ("Role", "Results"))
    results = value.get("Results")
    if not isinstance(results, list) or not results:
        _refuse(f"{field}.Results", "must be a list of results, and not an empty one")
    return ToolResults([_tool_result(f"{field}.Results[{index}]", result) for index, result in enumerate(results)])


def _tool_result(field: str, value: JSON) -> ToolResult:
    if not isinstance(value, dict):
        _refuse(field, "must be an object")
    _known(field, value, ("Id", "Output", "Failed"))
    if "Output" not in value:
        _refuse(f"{field}.Output", "is needed: what the tool answered")
    given_up = value.get("Failed", False)
    if not isinstance(given_up, bool):
        _refuse(f"{field}.Failed", "must be true or false")
    output = value["Output"]
    try:
        text = output if isinstance(output, str) else bytes(encode(output)).decode()
    except NotJSON as error:
        _refuse(f"{field}.Output", f"cannot be sent: {error}")
    return ToolResult(_name(f"{field}.Id", value.get("Id")), text, given_up)


def _tools(field: str, value: JSON) -> list[Tool]:
    if not isinstance(value, list):
        _refuse(field, "must be a list of tools")
    if len(value) > TOOLS:
        _refuse(field, f"are {len(value)} tools; {TOOLS} are the most")
    tools = [_tool(f"{field}[{index}]", tool) for index, tool in enumerate(value)]
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in seen:
            _refuse(f"{field}[{index}].Name", f'is there twice: "{tool.name}"')
        seen.add(tool.name)
    return tools


def _tool(field: str, value: JSON) -> Tool:
    if not isinstance(value, dict):
        _refuse(field, "must be an object with Name, Description and InputSchema")
    _known(field, value, ("Name", "Description", "InputSchema"))
    name = value.get("Name")
    if not isinstance(name, str) or not 1 <= len(name) <= TOOL_NAME_CHARACTERS or not _NAME_CHARACTERS.issuperset(name):
        _refuse(f"{field}.Name", f"must be 1 to {TOOL_NAME_CHARACTERS} letters, digits, _ and -")
    description = _text(f"{field}.Description", value.get("Description", ""))
    schema = _schema(f"{field}.InputSchema", value.get("InputSchema", {"type": "object"}))
    if schema.get("type") != "object":
        _refuse(f"{field}.InputSchema.type", 'must be "object"')
    return Tool(name, description, schema)


def _tool_choice(field: str, value: JSON) -> JSON:
    if isinstance(value, dict):
        _known(field, value, ("Name",))
        _name(f"{field}.Name", value.get("Name"))
    elif value not in CHOICES:
        _refuse(field, f'must be one of {", ".join(CHOICES)}, or {{"Name": "a tool"}}')
    return value


def _schema(field: str, value: JSON) -> dict[str, JSON]:
    if not isinstance(value, dict):
        _refuse(field, "must be a JSON schema, an object")
    try:
        check_schema(value)
    except BadSchema as error:
        _refuse(f"{field}{error.path}", error.problem)
    return value


def _known(field: str, value: dict[str, JSON], names: tuple[str, ...]) -> None:
    for name in value:
        if name not in names:
            _refuse(f"{field}.{name[:100]}", f"is unknown (there are {', '.join(names)})")


FIELDS: Final[dict[str, Callable[[str, JSON], Any]]] = {
    "Model": _name,
    "Messages": _messages,
    "Prompt": _text,
    "System": _text,
    "MaxTokens": _max_tokens,
    "Temperature": _temperature,
    "Tools": _tools,
    "ToolChoice": _tool_choice,
    "ResponseSchema": _schema,
    "Connection": _name,
}
ELEMENTS: Final[dict[str, Callable[[str, JSON], Any]]] = {"Messages": _message, "Tools": _tool}
"""Those that are lists, and how each of their elements is read."""
