"""The node type `ai:openai`: a chat completion, from OpenAI's servers or any that speak as they do.

Arguments, output and errors: docs/language.md. The client `openai` writes, authenticates and sends the request, and
reads what refuses it. The stream itself is read here: the client's reading leaves unchecked what a server sends, and
async generators unfinished, which Trio finds fault with.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import httpx2

from daemon.nodes.ai import openai_dialect
from daemon.nodes.ai.arguments import Arguments
from daemon.nodes.ai.errors import status_failure
from daemon.nodes.ai.node import AiNode
from daemon.nodes.ai.openai_dialect import OpenAIReader
from daemon.settings import AiSettings, Settings
from enginekit.messages.json import JSON
from enginekit.node import NodeFailure

if TYPE_CHECKING:
    from openai import AsyncStream


class OpenAI:
    """The vendor."""

    name = "openai"

    def load(self) -> None:
        import openai

        # Its lines hold what is sent; OPENAI_LOG would have them written.
        logging.getLogger("openai").setLevel(logging.WARNING)
        self._client = openai.AsyncOpenAI
        self._stream: type[AsyncStream[object]] = openai.AsyncStream[object]
        self._status_error = openai.APIStatusError

    def request(self, arguments: Arguments, settings: AiSettings, url: str) -> dict[str, JSON]:
        return openai_dialect.request(arguments, url)

    def reader(self, settings: AiSettings) -> OpenAIReader:
        return OpenAIReader(settings)

    async def open(
        self, http: httpx2.AsyncClient, url: str, body: dict[str, JSON], headers: dict[str, str]
    ) -> httpx2.Response:
        # The key and the account are the connection's and put in on the way: none of the environment's.
        client = self._client(
            api_key="-", admin_api_key="-", organization="", project="", base_url=url, http_client=http, max_retries=0
        )
        client._platform = "Unknown"  # Else it takes a thread to find out.
        response: object = await client.post(
            "/chat/completions",
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
    return AiNode(OpenAI(), settings)
