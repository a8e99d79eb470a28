"""One call's way to the server: what leaves with it, how much may come back, and a heartbeat for whatever does.

The vendors' clients send through this and know nothing of it. They are made with a placeholder for a key: the secret
is put in here, where it leaves, and what their environment variables (OPENAI_CUSTOM_HEADERS and the like) would add is
left out, as is what they tell of this machine. Nothing of an answer's content is looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

import httpx2

from daemon.connections import Connection
from daemon.nodes.ai.errors import AiError, failed
from daemon.settings import AiSettings

ERROR_BYTES: Final = 16 * 1024
"""How much of a refusing answer's body is read."""

_SENT: Final = frozenset(
    {
        "accept",
        "anthropic-version",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "transfer-encoding",
        "user-agent",
    }
)


class CallTransport(httpx2.AsyncBaseTransport):
    """For one call. `below` is shared, and stays open; `beat` is called for whatever arrives."""

    def __init__(
        self,
        below: httpx2.AsyncBaseTransport,
        connection: Connection,
        settings: AiSettings,
        beat: Callable[[], None],
    ) -> None:
        self._below = below
        self._connection = connection
        self._settings = settings
        self._beat = beat

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises what `below` raises, and NodeFailure where the answer is none that can be read."""
        for name in list(request.headers):
            if name.lower() not in _SENT:
                del request.headers[name]
        request.headers["Host"] = request.url.netloc.decode()
        # Unpacking is where a small answer becomes a large one.
        request.headers["Accept-Encoding"] = "identity"
        request.headers.update(self._connection.headers)
        if self._connection.query:
            request.url = request.url.copy_merge_params(self._connection.query)
        response = await self._below.handle_async_request(request)
        self._beat()
        problem = _unreadable(response)
        if problem is not None:
            await response.aclose()
            raise failed(AiError.PROTOCOL_ERROR, problem)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response.stream, response.status_code, self._settings, self._beat),
            extensions=response.extensions,
        )


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends where it gets too long: with an error, or, if its status is one, just so."""

    def __init__(
        self, stream: httpx2.AsyncByteStream, status: int, settings: AiSettings, beat: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._refused = status >= 300
        self._limit = ERROR_BYTES if self._refused else settings.stream_bytes
        self._beat = beat

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async with aclosing(aiter(self._stream)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                self._beat()
                size += len(chunk)
                if size > self._limit:
                    if self._refused:
                        return
                    raise failed(
                        AiError.OUTPUT_TOO_LARGE, f"more than {self._limit} bytes came for one answer (ai.stream_bytes)"
                    )
                yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _unreadable(response: httpx2.Response) -> str | None:
    """Why the client cannot read it, or None."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return "the server compressed its answer, which nobody asked it to"
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code < 300 and kind != "text/event-stream":
        return f'the server answered {response.status_code} with "{kind[:100]}", not with a stream of events'
    return None
