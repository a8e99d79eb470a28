"""Both node types beside each other: what a test says of one it says of the other, in the vendor's own wire format."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from model_server import Answering, ModelServer
from trio import Nursery
from wire_formats import anthropic_answer, openai_answer

from daemon.nodes.ai.node import AiNode
from daemon.nodes.ai_anthropic import Anthropic
from daemon.nodes.ai_openai import OpenAI
from daemon.settings import AiSettings, ConnectionAuth, ConnectionSettings, Settings
from enginekit.messages.json import JSON
from enginekit.node import NodeCall, NodeFailure, NodeResult

SECRET = "sk-very/secret+key-0123456789"
VARIABLE = "TEST_MODEL_KEY"


class Bench:
    """One vendor's node type, and how its servers talk."""

    def __init__(self, vendor: str) -> None:
        self.vendor = vendor
        self.resource = f"ai:{vendor}"
        self.path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[vendor]

    def settings(self, url: str, **limits: Any) -> Settings:
        base = f"{url}/v1" if self.vendor == "openai" else url
        key = {"auth": ConnectionAuth.BEARER}
        if self.vendor == "anthropic":
            key = {"auth": ConnectionAuth.API_KEY}
        connection = ConnectionSettings(url=base, tenants=["acme"], secret_env=VARIABLE, **key)
        return Settings(ai=AiSettings(**limits), connections={self.vendor: connection})

    def node(
        self,
        url: str = "http://model.test",
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
        **limits: Any,
    ) -> AiNode:
        vendor = OpenAI() if self.vendor == "openai" else Anthropic()
        return AiNode(vendor, self.settings(url, **limits), transport=transport, tls=tls)

    def events(self, text: str = "", calls: Sequence[tuple[str, str, str]] = ()) -> list[bytes]:
        return (openai_answer if self.vendor == "openai" else anthropic_answer)(text, calls)

    def call(self, **arguments: JSON) -> NodeCall:
        return self.call_with({"Model": "m", **({} if "Messages" in arguments else {"Prompt": "Hi"}), **arguments})

    def call_with(self, arguments: JSON, **more: Any) -> NodeCall:
        whole: dict[str, Any] = {
            "tenant": "acme",
            "workflow_id": "w",
            "run_id": "r",
            "node": "Ask",
            "path": "Ask",
            "resource": self.resource,
            "input": arguments,
            "attempt": 1,
            "timeout_seconds": 60.0,
            "idempotency_key": "key-1",
        }
        return NodeCall(**{**whole, **more})

    async def answered(self, events: Sequence[bytes], **arguments: JSON) -> NodeResult:
        """What the node makes of a whole answer, with nothing but the in-process transport between."""
        node = self.node(transport=streaming(events))
        return await node.run(self.call(**arguments))

    async def failure(self, node: AiNode, call: NodeCall | None = None) -> NodeFailure:
        with pytest.raises(NodeFailure) as caught:
            await node.run(call or self.call())
        await node.aclose()
        return caught.value

    async def serve(self, nursery: Nursery, answering: Answering) -> tuple[ModelServer, str]:
        server = ModelServer(nursery, answering)
        return server, await server.listen()


def streaming(events: Sequence[bytes]) -> httpx2.MockTransport:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=b"".join(events))

    return httpx2.MockTransport(answer)
