"""The node type `ai:anthropic`: a message, from Anthropic's servers or any that speak as they do.

Arguments, output and errors: docs/language.md. The client `anthropic` writes, authenticates and sends the request,
and reads what refuses it. The stream itself is read here, as with `ai:openai`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import httpx2

from daemon.nodes.ai import anthropic_dialect
from daemon.nodes.ai.anthropic_dialect import AnthropicReader
from daemon.nodes.ai.arguments import Arguments
from daemon.nodes.ai.errors import status_failure
from daemon.nodes.ai.node import AiNode
from daemon.settings import AiSettings, Settings
from enginekit.messages.json import JSON
from enginekit.node import NodeFailure

if TYPE_CHECKING:
    from anthropic import AsyncStream


class Anthropic:
    """The vendor."""

    name = "anthropic"

    def load(self) -> None:
        import anthropic

        # Its lines hold what is sent; ANTHROPIC_LOG would have them written.
        logging.getLogger("anthropic").setLevel(logging.WARNING)
        self._client = anthropic.AsyncAnthropic
        self._stream: type[AsyncStream[object]] = anthropic.AsyncStream[object]
        self._status_error = anthropic.APIStatusError
        self._transform_schema = anthropic.transform_schema

    def request(self, arguments: Arguments, settings: AiSettings, url: str) -> dict[str, JSON]:
        return anthropic_dialect.request(arguments, settings, self._transform_schema)

    def reader(self, settings: AiSettings) -> AnthropicReader:
        return AnthropicReader(settings)

    async def open(
        self, http: httpx2.AsyncClient, url: str, body: dict[str, JSON], headers: dict[str, str]
    ) -> httpx2.Response:
        # The key is the connection's and put in on the way: none of the environment's, and no traces to where it says.
        client = self._client(api_key="-", base_url=url, http_client=http, max_retries=0, open_telemetry=False)
        client._platform = "Unknown"  # Else it takes a thread to find out.
        response: object = await client.post(
            "/v1/messages",
            cast_to=httpx2.Response,
            body=body,
            options={"headers": headers},
            stream=True,
            stream_cls=self._stream,
        )
        assert isinstance(response, httpx2.Response)
        return response

    def failure(self, error: Exception) -> NodeFailure | None:
        if not isinstance(error, self._status_error):
            return None
        response = error.response
        return status_failure(response.status_code, response.reason_phrase, response.headers, error.body, time.time())


def create(settings: Settings) -> AiNode:
    return AiNode(Anthropic(), settings)
