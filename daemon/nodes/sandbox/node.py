"""A node type that runs users' code in one language: arguments in, a job for the sandbox, its outcome out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from daemon.nodes.sandbox.arguments import faults_in, syntax_faults
from daemon.nodes.sandbox.frames import CodeError, Failed, Job
from daemon.nodes.sandbox.pool import Pool, Sandbox
from daemon.settings import CodeSettings
from enginekit.messages.json import JSON, NotJSON, decode, encode
from enginekit.node import Argument, ArgumentFault, NodeCall, NodeFailure, NodeResult


class CodeNode:
    """`sandbox` takes the place of the pool of processes."""

    def __init__(self, language: str, settings: CodeSettings, *, sandbox: Sandbox | None = None) -> None:
        self._language = language
        self._settings = settings
        self._sandbox = sandbox or Pool(
            language,
            processes=settings.processes,
            idle_seconds=settings.idle_seconds,
            start_seconds=settings.start_seconds,
        )

    async def run(self, call: NodeCall) -> JSON | NodeResult:
        """The code's result and what it printed. Raises NodeFailure with a CodeError and what was printed before it.
        Cancelled: the process that runs it is killed."""
        job = self._job(call)
        log: list[str] = []

        def printed(text: str) -> None:
            log.append(text)
            call.beat()

        outcome = await self._sandbox.run(job, printed)
        if isinstance(outcome, Failed):
            raise NodeFailure(outcome.error.value, outcome.cause, log="".join(log))
        try:
            return NodeResult(output=decode(outcome.output), log="".join(log))
        except NotJSON as error:
            raise NodeFailure(CodeError.INVALID_OUTPUT.value, f"the result is {error}", log="".join(log)) from error

    def check(self, arguments: Argument, tenant: str | None) -> Iterator[ArgumentFault]:
        """As far as a definition has them, with the syntax of a literal Source where that can be told here."""
        faults = list(faults_in(arguments, self._settings, self._language))
        yield from faults
        if not any(fault.path in ("", "Source") for fault in faults):
            yield from syntax_faults(arguments, self._language)

    async def serve(self) -> None:
        """Keep the pool. Cancelled: what is idle ends."""
        await self._sandbox.serve()

    async def aclose(self) -> None:
        """End the processes. Calls are over by then."""
        await self._sandbox.aclose()

    def _job(self, call: NodeCall) -> Job:
        for fault in faults_in(cast(Argument, call.input), self._settings, self._language):
            raise NodeFailure(CodeError.INVALID_ARGUMENTS.value, f"{fault.path or 'the input'}: {fault.message}")
        arguments, settings = call.input, self._settings
        assert isinstance(arguments, dict)
        source = arguments["Source"]
        assert isinstance(source, str)
        return Job(
            tenant=call.tenant,
            source=source,
            input=bytes(encode(arguments.get("Input"))),
            milliseconds=_or(arguments.get("TimeoutMilliseconds"), settings.timeout_milliseconds),
            memory_bytes=_or(arguments.get("MemoryBytes"), settings.memory_bytes),
            output_bytes=_or(arguments.get("OutputBytes"), settings.output_bytes),
        )


def _or(value: JSON, default: int) -> int:
    return value if isinstance(value, int) else default
